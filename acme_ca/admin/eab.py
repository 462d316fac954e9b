"""Keys for external account binding (RFC 8555 §7.3.4)."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from pydantic import AwareDatetime, Field

from acme_ca.admin import lists
from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Call, Model, Route
from acme_ca.admin.lists import CreatedQuery, Within
from acme_ca.admin.paging import Page, invalid_field
from acme_ca.core.durations import Duration
from acme_ca.core.eab import UNRESTRICTED, EabKey, EabKeyState, Restrictions
from acme_ca.core.problems import conflict
from acme_ca.core.revocation import REASONS, FinalReason
from acme_ca.core.texts import ShortText
from acme_ca.lifecycle.eab import no_such_key
from acme_ca.storage import bulk, eab, scopes
from acme_ca.storage.eab import EabKeySort

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

MAX_LIFE = timedelta(days=10 * 365)
Accounts = Annotated[int, Field(ge=1, le=2**31 - 1)]
Contacts = Annotated[tuple[ShortText, ...], Field(max_length=20)]
Life = Annotated[Duration, Field(gt=timedelta(), le=MAX_LIFE)]


class EabKeyView(Model):
    """An EAB key, without its secret."""

    id: str
    """What clients call `kid`."""
    owner: str
    service: str | None
    contact: list[str]
    state: EabKeyState
    accounts: int
    """How many it has made."""
    max_accounts: int | None
    """How many it may make; null: any number."""
    restrictions: Restrictions | None
    """What its accounts may do; null: a later release wrote that, and until then they may do nothing here."""
    created: AwareDatetime
    approved: AwareDatetime | None
    expires: AwareDatetime | None
    revoked: AwareDatetime | None


class MadeEabKey(EabKeyView):
    hmac_key: str
    """Base64url, as clients want it. Shown now and never again."""


class NewEabKey(Model):
    owner: ShortText
    """For whom it is: a note for operators."""
    service: ShortText | None = None
    """Whose it is: its accounts share the service's profiles and policy, and may replace each other's certificates."""
    contact: Contacts = ()
    """How they are reached."""
    max_accounts: Accounts | None = None
    """How many accounts may be made with it; null: any number."""
    restrictions: Restrictions = UNRESTRICTED
    """What its accounts may do."""
    expires_in: Life | None = None
    """For how long it makes accounts, as in `90 days`; null: for ever. The accounts go on."""
    pending: bool = False
    """It waits for approval and makes no accounts meanwhile."""


class EabKeyChange(Model):
    """What is left out stays as it is."""

    owner: ShortText = ""
    """For whom it is."""
    contact: Contacts = ()
    """How they are reached."""
    max_accounts: Accounts | None = None
    """How many accounts may be made with it; null: any number."""
    restrictions: Restrictions = UNRESTRICTED
    """What its accounts may do from now on; all of it is replaced."""
    expires_in: Life | None = None
    """For how long from now it makes accounts; null: for ever."""


class EabKeyQuery(CreatedQuery):
    owner: ShortText | None = None
    service: ShortText | None = None
    contact: ShortText | None = None
    """That it has, all of it."""
    state: EabKeyState | None = None
    expiring_within: Within | None = None
    """As in `30 days`: what is approved and not revoked, and ends within that time."""
    text: ShortText | None = None
    """In the id, the owner, the service or a contact, in whatever case."""
    sort: EabKeySort = "-created"
    """With a minus the last one first. What never expires comes after all that does."""


class End(Model):
    reason: ShortText
    """For the audit."""


class EndedEabKey(Model):
    eab_key: EabKeyView
    frozen: list[str]
    """Ids of the accounts that were frozen with it."""


class CertificatesEnd(Model):
    reason: FinalReason
    """RFC 5280 §5.3.1."""
    comment: ShortText
    """Kept with each certificate."""


class EndedCertificates(Model):
    revoked: int
    """How many were revoked now."""


# ---------------------------------------------------------------- endpoints
#
# Credentials for some services neither make, change nor approve keys here: their restrictions are what holds these services.
# services.make-eab-key makes them one for their own domains.


async def list_keys(admin: Admin, call: Call) -> Page[EabKeyView]:
    query: EabKeyQuery = call.query
    now = admin.clock()
    found = await eab.page(
        admin.database, lists.wanted(query, eab.KEYS, sort=query.sort, services=call.services), now=now
    )
    return lists.page(found, sort=query.sort, view=lambda key: _view(key, now))


async def create(admin: Admin, call: Call) -> MadeEabKey:
    wish: NewEabKey = call.body
    now = admin.clock()
    key = await admin.eab_keys.create(
        owner=wish.owner,
        service=wish.service,
        contact=wish.contact,
        max_accounts=wish.max_accounts,
        restrictions=wish.restrictions,
        expires=now + wish.expires_in if wish.expires_in else None,
        pending=wish.pending,
        actor=call.actor,
    )
    return _made(key, now)


async def show(admin: Admin, call: Call) -> EabKeyView:
    return _view(await _theirs(admin, call), admin.clock())


async def change(admin: Admin, call: Call) -> EabKeyView:
    wish: EabKeyChange = call.body
    given = wish.model_fields_set
    if "owner" in given and not wish.owner:
        raise invalid_field("owner", "It must not be empty.")
    before, now = await admin.eab_keys.find(call.path["kid"]), admin.clock()
    changes = {name: getattr(wish, name) for name in given - {"expires_in"}}
    if "expires_in" in given:
        changes["expires"] = now + wish.expires_in if wish.expires_in else None
    changed = await admin.eab_keys.change(before, replace(before, **changes), actor=call.actor)
    await admin.policies.refresh()
    return _view(changed, now)


async def approve(admin: Admin, call: Call) -> EabKeyView:
    key = await admin.eab_keys.find(call.path["kid"])
    return _view(await admin.eab_keys.approve(key.id, actor=call.actor), admin.clock())


async def rotate(admin: Admin, call: Call) -> MadeEabKey:
    key = await _theirs(admin, call)
    if await scopes.has_living(admin.database, key.id, now=admin.clock()):
        call.check_may(Permission.SCOPES_WRITE)  # whoever has the new secret gets the approved names
    return _made(await admin.eab_keys.rotate(key.id, actor=call.actor), admin.clock())


async def revoke(admin: Admin, call: Call) -> EndedEabKey:
    key = await _theirs(admin, call)
    frozen = await admin.eab_keys.revoke(key.id, reason=call.body.reason, actor=call.actor)
    return EndedEabKey(eab_key=await show(admin, call), frozen=list(frozen))


async def revoke_certificates(admin: Admin, call: Call) -> EndedCertificates:
    wish: CertificatesEnd = call.body
    key = await _theirs(admin, call)
    if key.revoked is None:
        raise conflict("Revoke the EAB key first, or its accounts get new certificates meanwhile.")
    gone = await admin.bulk.revoke_all(
        bulk.Filter(eab_key=key.id), reason=REASONS[wish.reason], comment=wish.comment, actor=call.actor
    )
    return EndedCertificates(revoked=gone)


async def _theirs(admin: Admin, call: Call) -> EabKey:
    """Another service's key is not there: in the same words."""
    key = await admin.eab_keys.find(call.path["kid"])
    if call.services is not None and key.service not in call.services:
        raise no_such_key()
    return key


def _view(key: EabKey, now: datetime) -> EabKeyView:
    return EabKeyView(
        id=key.id,
        owner=key.owner,
        service=key.service,
        contact=list(key.contact),
        state=key.state(now),
        accounts=key.accounts,
        max_accounts=key.max_accounts,
        restrictions=key.restrictions,
        created=key.created,
        approved=key.approved,
        expires=key.expires,
        revoked=key.revoked,
    )


def _made(key: EabKey, now: datetime) -> MadeEabKey:
    shown = urlsafe_b64encode(key.hmac_key).decode().rstrip("=")
    return MadeEabKey(**dict(_view(key, now)), hmac_key=shown)


ROUTES = (
    Route(
        name="eab-keys.list",
        method="GET",
        path="/eab-keys",
        permission=Permission.EAB_READ,
        endpoint=list_keys,
        query=EabKeyQuery,
        answer=Page[EabKeyView],
        summary="EAB keys that fit all filters, in pages.",
        scoped=True,
    ),
    Route(
        name="eab-keys.create",
        method="POST",
        path="/eab-keys",
        permission=Permission.EAB_WRITE,
        endpoint=create,
        body=NewEabKey,
        answer=MadeEabKey,
        status=201,
        summary="Make one; its HMAC key is in the answer and nowhere else.",
        conflicts=True,
    ),
    Route(
        name="eab-keys.show",
        method="GET",
        path="/eab-keys/{kid}",
        permission=Permission.EAB_READ,
        endpoint=show,
        answer=EabKeyView,
        summary="One of them.",
        scoped=True,
    ),
    Route(
        name="eab-keys.change",
        method="PATCH",
        path="/eab-keys/{kid}",
        permission=Permission.EAB_WRITE,
        endpoint=change,
        body=EabKeyChange,
        answer=EabKeyView,
        summary="Change what is given; restrictions hold for its accounts within two seconds.",
        conflicts=True,
    ),
    Route(
        name="eab-keys.approve",
        method="POST",
        path="/eab-keys/{kid}/approve",
        permission=Permission.EAB_APPROVE,
        endpoint=approve,
        answer=EabKeyView,
        summary="Let a key that waits make accounts.",
        conflicts=True,
    ),
    Route(
        name="eab-keys.rotate",
        method="POST",
        path="/eab-keys/{kid}/rotate",
        permission=Permission.EAB_WRITE,
        endpoint=rotate,
        answer=MadeEabKey,
        summary="Another HMAC key under the same id; the old one makes no accounts any more.",
        scoped=True,
        conflicts=True,
    ),
    Route(
        name="eab-keys.revoke",
        method="POST",
        path="/eab-keys/{kid}/revoke",
        permission=Permission.EAB_REVOKE,
        endpoint=revoke,
        body=End,
        answer=EndedEabKey,
        summary="End a key for good, and freeze all its accounts at once.",
        scoped=True,
        conflicts=True,
    ),
    Route(
        name="eab-keys.revoke-certificates",
        method="POST",
        path="/eab-keys/{kid}/revoke-certificates",
        permission=Permission.CERTIFICATES_REVOKE_MANY,
        endpoint=revoke_certificates,
        body=CertificatesEnd,
        answer=EndedCertificates,
        summary="Take back all living certificates of the accounts of a revoked key.",
        scoped=True,
        dangerous=True,
        conflicts=True,
    ),
)
