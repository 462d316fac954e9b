"""Limits: those in force, overrides, how full a bucket is, and pauses."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from pydantic import AwareDatetime, Field, PlainSerializer, PlainValidator, WithJsonSchema

from acme_ca.acme.urls import is_id
from acme_ca.admin import lists
from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Call, Model, Route
from acme_ca.admin.lists import CreatedQuery, Within, address_of
from acme_ca.admin.paging import Page, PageQuery, invalid_field
from acme_ca.core import limits
from acme_ca.core.durations import Duration
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AccountId
from acme_ca.core.limits import Limit, LimitKind, Requester
from acme_ca.core.problems import Problem, not_found
from acme_ca.core.texts import PRINTABLE, ShortText
from acme_ca.storage import accounts, eab
from acme_ca.storage import limits as store
from acme_ca.storage.limits import Level, Override, OverrideSort, Pause, PauseSort

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

MAX_LIFE = timedelta(days=10 * 365)


def _limit(text: object) -> Limit:
    if isinstance(text, Limit):
        return text
    if not isinstance(text, str):
        raise ValueError('a limit is a text, as in "300/3h"')  # noqa: TRY004  pydantic makes a refusal of it
    return Limit.parse(text)


LimitText = Annotated[
    Limit,
    PlainValidator(_limit),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["300/3 hours", "50/1 day"]}),
]
SubjectField = Annotated[str, Field(min_length=1, max_length=30_000, pattern=PRINTABLE)]
NamesField = Annotated[str, Field(min_length=1, max_length=30_000, pattern=PRINTABLE)]


class LimitView(Model):
    kind: LimitKind
    limit: LimitText | None
    """As many at once, and as many in each such time; null: any number, but for overrides."""


class LimitsView(Model):
    """What the settings say."""

    limits: list[LimitView]
    network_v4: int
    """Bits of an IPv4 address that make its network."""
    network_v6: int
    """Bits of an IPv6 address that make its network."""
    failures_before_pause: int
    """Failed validations of an account for a name in a row; 0: nobody is paused."""


class OverrideView(Model):
    kind: LimitKind
    subject: str
    """The account, EAB key, network, registered name, or set of names."""
    limit: LimitText
    reason: str
    created: AwareDatetime
    expires: AwareDatetime | None


class NewOverride(Model):
    kind: LimitKind
    subject: SubjectField
    """An account's id, an EAB key's, a network, a registered name; of a set of names all, separated by commas."""
    limit: LimitText
    """As in `300/3h`, in the place of the one of the settings."""
    reason: Annotated[str, Field(min_length=1, max_length=500, pattern=PRINTABLE)]
    expires_in: Annotated[Duration, Field(gt=timedelta(), le=MAX_LIFE)] | None = None
    """As in `90 days`; null: never."""


class OverrideKey(Model):
    kind: LimitKind
    subject: SubjectField
    """As it was given."""


class UsageView(Model):
    kind: LimitKind
    subject: str
    limit: LimitText
    left: int
    """How many more are possible now."""
    free_at: AwareDatetime
    """When the next is: now, or later."""
    full_at: AwareDatetime
    """When as many as the limit says are, if nobody asks until then."""


class Usage(Model):
    items: list[UsageView]


class UsageQuery(Model):
    account: str | None = None
    """An account's id: what it and its EAB key have left."""
    names: NamesField | None = None
    """Names, separated by commas: what is left for a certificate for exactly these."""
    address: str | None = None
    """What a client at this address has left."""


class PauseView(Model):
    account: str
    identifier: str
    """`dns:a.example`, `ip:192.0.2.1`."""
    failures: int
    """In a row."""
    failed: AwareDatetime
    """The last time."""
    paused: AwareDatetime


class OverrideQuery(CreatedQuery):
    kind: LimitKind | None = None
    subject: SubjectField | None = None
    """With `kind`, as it was given; without, as it is shown."""
    expiring_within: Within | None = None
    """As in `30 days`."""
    text: ShortText | None = None
    """In the subject or the reason, in whatever case."""
    sort: OverrideSort = "kind"
    """With a minus the last one first. What never expires comes after all that does."""


class PauseQuery(PageQuery):
    account: str | None = None
    identifier: Annotated[str, Field(min_length=1, max_length=300)] | None = None
    """A name or address."""
    paused_since: AwareDatetime | None = None
    """From then on."""
    paused_before: AwareDatetime | None = None
    sort: PauseSort = "account"
    """With a minus the last one first."""


class Unpausing(Model):
    account: str | None = None
    """An account's id; null: every account."""
    identifiers: Annotated[tuple[str, ...], Field(max_length=1000)] | None = None
    """Names and addresses; null: all, of the account that is named then."""


class Unpaused(Model):
    lifted: list[str]
    """An identifier for each pause that was lifted."""


# ---------------------------------------------------------------- limits and overrides


async def show(admin: Admin, _call: Call) -> LimitsView:
    rules = admin.limits.rules
    return LimitsView(
        limits=[LimitView(kind=kind, limit=rules.limits.get(kind)) for kind in LimitKind],
        network_v4=rules.grouping.v4_prefix,
        network_v6=rules.grouping.v6_prefix,
        failures_before_pause=rules.failures_before_pause,
    )


async def list_overrides(admin: Admin, call: Call) -> Page[OverrideView]:
    query: OverrideQuery = call.query
    subject = query.subject
    if subject is not None and query.kind is not None:
        subject = _subject(admin, query.kind, subject)
    wanted = lists.wanted(query, store.OVERRIDES, sort=query.sort, subject=subject)
    found = await store.page_of_overrides(admin.database, wanted, now=admin.clock())
    return lists.page(found, sort=query.sort, view=_override)


async def put_override(admin: Admin, call: Call) -> OverrideView:
    wish: NewOverride = call.body
    now = admin.clock()
    override = Override(
        kind=wish.kind,
        subject=await _known(admin, wish.kind, _subject(admin, wish.kind, wish.subject)),
        limit=wish.limit,
        reason=wish.reason,
        created=now,
        expires=now + wish.expires_in if wish.expires_in else None,
    )
    await store.put_override(admin.database, override, actor=call.actor)
    await admin.limits.refresh()
    return _override(override)


async def remove_override(admin: Admin, call: Call) -> None:
    wish: OverrideKey = call.body
    subject = _subject(admin, wish.kind, wish.subject)
    if not await store.remove_override(
        admin.database, wish.kind, subject, actor=call.actor, now=admin.clock()
    ):
        raise not_found("There is no such override.")
    await admin.limits.refresh()


def _subject(admin: Admin, kind: LimitKind, text: str) -> str:
    """As buckets and overrides know it. Raises Problem."""
    match kind:
        case LimitKind.ORDERS_PER_ACCOUNT:
            return _account(text, "subject")
        case LimitKind.ORDERS_PER_EAB_KEY | LimitKind.CERTIFICATES_PER_EAB_KEY:
            return text
        case LimitKind.ORDERS_PER_NETWORK | LimitKind.ACCOUNTS_PER_NETWORK:
            return _network(admin, text)
        case LimitKind.CERTIFICATES_PER_NAME_SET:
            return limits.name_set(_identifiers(text, "subject"))
        case LimitKind.CERTIFICATES_PER_REGISTERED_NAME:
            return _registered_name(admin, text)


async def _known(admin: Admin, kind: LimitKind, subject: str) -> str:
    """A slip of the pen in an id would override nothing. Raises Problem."""
    if kind is LimitKind.ORDERS_PER_ACCOUNT and not await accounts.find(admin.database, AccountId(subject)):
        raise invalid_field("subject", "There is no such account.")
    if kind in limits.OF_EAB_KEYS and not await eab.find(admin.database, subject):
        raise invalid_field("subject", "There is no such EAB key.")
    return subject


def _account(text: str, field: str) -> AccountId:
    if not is_id(text):
        raise invalid_field(field, "An account's id has 32 hexadecimal digits: the last part of its URL.")
    return AccountId(text)


def _network(admin: Admin, text: str) -> str:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise invalid_field("subject", "This is no network and no address.") from None
    counted = admin.limits.rules.grouping.network(str(network.network_address))
    if "/" in text and counted != str(network):
        raise invalid_field("subject", f"This is no network that limits count by; the first is {counted}.")
    return counted


def _registered_name(admin: Admin, text: str) -> str:
    found = _identifiers(text, "subject")
    name = admin.limits.rules.grouping.registered_name(found[0])
    if len(found) > 1 or found[0].value != name:
        raise invalid_field("subject", f"This is not one registered name; {found[0].value} counts as {name}.")
    return name


def _identifiers(text: str, field: str) -> list[Identifier]:
    try:
        return limits.parse_names(text)
    except Problem as problem:
        raise invalid_field(field, problem.detail) from None


def _override(override: Override) -> OverrideView:
    return OverrideView(
        kind=override.kind,
        subject=override.subject,
        limit=override.limit,
        reason=override.reason,
        created=override.created,
        expires=override.expires,
    )


# ---------------------------------------------------------------- how full


async def usage(admin: Admin, call: Call) -> Usage:
    query: UsageQuery = call.query
    if query.account is None and query.names is None and query.address is None:
        raise invalid_field("account", "Name an account, names, or an address, or several of them.")
    charges = admin.limits.of_nobody_yet(
        await _requester(admin, query),
        None if query.names is None else _identifiers(query.names, "names"),
    )
    return Usage(items=[_level(level) for level in await admin.limits.peek(charges)])


async def _requester(admin: Admin, query: UsageQuery) -> Requester:
    address = "" if query.address is None else address_of(query.address, "address")
    if query.account is None:
        return Requester(account=AccountId(""), eab_key=None, address=address)
    account = await accounts.find(admin.database, _account(query.account, "account"))
    if account is None:
        raise not_found("There is no such account.")
    policy = await admin.policies.of(account.eab_key_id)
    return Requester.of(account, address, policy.restrictions)


def _level(level: Level) -> UsageView:
    charge = level.charge
    return UsageView(
        kind=charge.kind,
        subject=charge.subject,
        limit=charge.limit,
        left=level.left,
        free_at=level.free_at,
        full_at=level.full_at,
    )


# ---------------------------------------------------------------- pauses


async def list_pauses(admin: Admin, call: Call) -> Page[PauseView]:
    query: PauseQuery = call.query
    identifiers = _identifiers(query.identifier, "identifier") if query.identifier else []
    if len(identifiers) > 1:
        raise invalid_field("identifier", "Name one.")
    account = None if query.account is None else _account(query.account, "account")
    wanted = lists.wanted(
        query,
        store.PAUSES,
        sort=query.sort,
        account=account,
        identifier=str(identifiers[0]) if identifiers else None,
    )
    found = await store.page_of_pauses(admin.database, wanted, now=admin.clock())
    return lists.page(found, sort=query.sort, view=_pause)


async def unpause(admin: Admin, call: Call) -> Unpaused:
    wish: Unpausing = call.body
    if wish.account is None and not wish.identifiers:
        raise invalid_field("account", "Name an account, or identifiers, or both.")
    lifted = await store.unpause(
        admin.database,
        account=_account(wish.account, "account") if wish.account is not None else None,
        identifiers=_named(wish.identifiers) if wish.identifiers else None,
        actor=call.actor,
        now=admin.clock(),
    )
    return Unpaused(lifted=[str(identifier) for identifier in lifted])


def _named(texts: tuple[str, ...]) -> list[Identifier]:
    return [identifier for text in texts for identifier in _identifiers(text, "identifiers")]


def _pause(pause: Pause) -> PauseView:
    return PauseView(
        account=pause.account,
        identifier=str(pause.identifier),
        failures=pause.failures,
        failed=pause.failed,
        paused=pause.paused,
    )


ROUTES = (
    Route(
        name="limits.show",
        method="GET",
        path="/limits",
        permission=Permission.LIMITS_READ,
        endpoint=show,
        answer=LimitsView,
        summary="The limits that the settings say.",
    ),
    Route(
        name="limits.usage",
        method="GET",
        path="/limits/usage",
        permission=Permission.LIMITS_READ,
        endpoint=usage,
        query=UsageQuery,
        answer=Usage,
        summary="How much of its limits an account, a set of names or an address has left.",
    ),
    Route(
        name="limits.overrides.list",
        method="GET",
        path="/limits/overrides",
        permission=Permission.LIMITS_READ,
        endpoint=list_overrides,
        query=OverrideQuery,
        answer=Page[OverrideView],
        summary="Other limits for some, that have not expired.",
    ),
    Route(
        name="limits.overrides.put",
        method="PUT",
        path="/limits/overrides",
        permission=Permission.LIMITS_WRITE,
        endpoint=put_override,
        body=NewOverride,
        answer=OverrideView,
        summary="Another limit for one account, EAB key, network, registered name or set of names.",
    ),
    Route(
        name="limits.overrides.remove",
        method="POST",
        path="/limits/overrides/remove",
        permission=Permission.LIMITS_WRITE,
        endpoint=remove_override,
        body=OverrideKey,
        status=204,
        summary="Let the limit of the settings hold again.",
    ),
    Route(
        name="limits.pauses.list",
        method="GET",
        path="/limits/pauses",
        permission=Permission.LIMITS_READ,
        endpoint=list_pauses,
        query=PauseQuery,
        answer=Page[PauseView],
        summary="Accounts that cannot order a name any more, because its validations failed again and again.",
    ),
    Route(
        name="limits.pauses.lift",
        method="POST",
        path="/limits/pauses/lift",
        permission=Permission.LIMITS_WRITE,
        endpoint=unpause,
        body=Unpausing,
        answer=Unpaused,
        summary="Let them order it again.",
    ),
)
