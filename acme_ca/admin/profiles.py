"""Profiles: what kinds of certificates there are (docs/profiles.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from acme_ca.admin import lists
from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Call, Model, Route
from acme_ca.admin.paging import Page, PageQuery, invalid_field
from acme_ca.ca import profiles
from acme_ca.ca.profiles import UnworkableProfile
from acme_ca.core.problems import conflict, not_found
from acme_ca.core.profiles import Profile
from acme_ca.core.texts import ShortText
from acme_ca.storage import profiles as store
from acme_ca.storage import search
from acme_ca.storage.profiles import ProfileSort, ProfileVersion

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

Body = dict[str, Any]


class ProfileSummary(Model):
    """A version of a profile."""

    name: str
    version: int
    description: str
    offered: bool
    """Whether new orders may ask for it."""
    built_in: bool
    """Saved by the server itself; an operator's is never replaced by it."""
    created: AwareDatetime
    withdrawn: AwareDatetime | None
    own: bool
    """The server keeps it and no client can order it: for its own certificates, or for its operators' (`operator`)."""


class ProfileView(ProfileSummary):
    profile: dict[str, Any]
    """All that it says, in the form in which it is saved."""


class ProfileQuery(Model):
    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """Null: the newest."""


class NewProfile(Model):
    profile: dict[str, Any]
    """The fields of docs/profiles.md."""


class SavedProfile(Model):
    name: str
    version: int
    """The newest now."""
    saved: bool
    """False: the newest version says the same already."""


# ---------------------------------------------------------------- looking


class ProfileListQuery(PageQuery):
    offered: bool | None = None
    """Whether new orders may ask for it."""
    built_in: bool | None = None
    own: bool | None = None
    """Whether the server keeps it and no client can order it."""
    text: ShortText | None = None
    """In the name or the description, in whatever case."""
    sort: ProfileSort = "name"
    """With a minus the last one first."""


class VersionQuery(PageQuery):
    sort: Literal["version", "-version"] = "version"
    """With a minus the last one first."""


async def list_profiles(admin: Admin, call: Call) -> Page[ProfileSummary]:
    query: ProfileListQuery = call.query
    found = await store.page(
        admin.database, lists.wanted(query, store.PROFILES, sort=query.sort), now=admin.clock()
    )
    return await _page(admin, found, query.sort)


async def list_versions(admin: Admin, call: Call) -> Page[ProfileSummary]:
    query: VersionQuery = call.query
    found = lists.short(
        await _versions(admin, call.path["name"]),
        query,
        sort=query.sort,
        kind=int,
        by=lambda one: one.ref.version,
        id_=lambda one: one.ref.name,
    )
    return await _page(admin, found, query.sort)


async def show(admin: Admin, call: Call) -> ProfileView:
    found = await _versions(admin, call.path["name"])
    wanted = [one for one in found if call.query.version in {None, one.ref.version}]
    if not wanted:
        raise not_found(f"There is no profile {call.path['name']}, version {call.query.version}.")
    body = (await store.bodies(admin.database, [wanted[-1].ref]))[wanted[-1].ref]
    return ProfileView(**_summary(wanted[-1], body).model_dump(), profile=body)


async def _versions(admin: Admin, name: str) -> list[ProfileVersion]:
    found = [one for one in await store.versions(admin.database) if one.ref.name == name]
    if not found:
        raise not_found(f"There is no profile {name}.")
    return found


async def _page(admin: Admin, found: search.Page[ProfileVersion], sort: str) -> Page[ProfileSummary]:
    bodies = await store.bodies(admin.database, [one.ref for one in found.items])
    return lists.page(found, sort=sort, view=lambda one: _summary(one, bodies[one.ref]))


def _summary(version: ProfileVersion, body: Body) -> ProfileSummary:
    is_offered = body.get("offered", False)
    return ProfileSummary(
        name=version.ref.name,
        version=version.ref.version,
        description=body.get("description", ""),
        offered=is_offered and version.withdrawn is None,
        built_in=version.built_in,
        created=version.created,
        withdrawn=version.withdrawn,
        own=not is_offered,
    )


# ---------------------------------------------------------------- changing


async def save(admin: Admin, call: Call) -> SavedProfile:
    profile = _read(call.body.profile)
    _check_not_own(profile.name)
    version = await store.save(admin.database, profile, built_in=False, actor=call.actor, now=admin.clock())
    await admin.profiles.refresh()
    if version is not None:
        return SavedProfile(name=profile.name, version=version, saved=True)
    newest = (await _versions(admin, profile.name))[-1].ref
    body = (await store.bodies(admin.database, [newest]))[newest]
    if body | {"version": 0} != profile.model_dump(mode="json") | {"version": 0}:
        raise conflict(f"Somebody else saved {profile.name} at the same moment: look, and try again.")
    return SavedProfile(name=profile.name, version=newest.version, saved=False)


async def withdraw(admin: Admin, call: Call) -> ProfileSummary:
    name = call.path["name"]
    await _versions(admin, name)
    _check_not_own(name)
    if name == admin.default_profile:
        raise conflict(
            f"ACME_CA_DEFAULT_PROFILE: {name} is for orders that ask for none; choose another for them first."
        )
    if not await store.withdraw(admin.database, name, actor=call.actor, now=admin.clock()):
        raise conflict(f"The profile {name} was withdrawn before.")
    await admin.profiles.refresh()
    return await _newest(admin, name)


async def offer(admin: Admin, call: Call) -> ProfileSummary:
    name = call.path["name"]
    await _versions(admin, name)
    if not await store.offer(admin.database, name, actor=call.actor, now=admin.clock()):
        raise conflict(f"The profile {name} is not withdrawn.")
    await admin.profiles.refresh()
    return await _newest(admin, name)


async def _newest(admin: Admin, name: str) -> ProfileSummary:
    newest = (await _versions(admin, name))[-1]
    return _summary(newest, (await store.bodies(admin.database, [newest.ref]))[newest.ref])


def _read(document: Body) -> Profile:
    try:
        return profiles.read(document)
    except UnworkableProfile as error:
        raise invalid_field("profile", f"This profile cannot work. {error}") from None


def _check_not_own(name: str) -> None:
    if name in profiles.OWN:
        raise conflict(f"{name} is the server's own profile; it stays as it is.")


_READ, _WRITE = Permission.PROFILES_READ, Permission.PROFILES_WRITE

ROUTES = (
    Route(
        name="profiles.list",
        method="GET",
        path="/profiles",
        permission=_READ,
        endpoint=list_profiles,
        query=ProfileListQuery,
        answer=Page[ProfileSummary],
        summary="The newest version of each profile that fits all filters, in pages.",
    ),
    Route(
        name="profiles.save",
        method="POST",
        path="/profiles",
        permission=_WRITE,
        endpoint=save,
        body=NewProfile,
        answer=SavedProfile,
        summary="Save a profile as the next version of its name; orders that were placed before keep theirs.",
        dangerous=True,
        conflicts=True,
    ),
    Route(
        name="profiles.show",
        method="GET",
        path="/profiles/{name}",
        permission=_READ,
        endpoint=show,
        query=ProfileQuery,
        answer=ProfileView,
        summary="All that a profile says.",
    ),
    Route(
        name="profiles.versions",
        method="GET",
        path="/profiles/{name}/versions",
        permission=_READ,
        endpoint=list_versions,
        query=VersionQuery,
        answer=Page[ProfileSummary],
        summary="Every version of a profile.",
    ),
    Route(
        name="profiles.withdraw",
        method="POST",
        path="/profiles/{name}/withdraw",
        permission=_WRITE,
        endpoint=withdraw,
        answer=ProfileSummary,
        summary="Offer a profile no more; orders that were placed before are finished.",
        dangerous=True,
        conflicts=True,
    ),
    Route(
        name="profiles.offer",
        method="POST",
        path="/profiles/{name}/offer",
        permission=_WRITE,
        endpoint=offer,
        answer=ProfileSummary,
        summary="Offer a withdrawn profile again.",
        dangerous=True,
        conflicts=True,
    ),
)
