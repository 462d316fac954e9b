"""ACME accounts, one by one: look, freeze, deactivate."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from pydantic import AwareDatetime

from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Call, Model, Route
from acme_ca.core.ids import AccountId
from acme_ca.core.problems import conflict, not_found
from acme_ca.core.states import AccountStatus
from acme_ca.core.texts import ShortText
from acme_ca.storage import accounts
from acme_ca.storage.accounts import AccountRecord

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin


class AccountView(Model):
    id: str
    status: AccountStatus
    frozen: AwareDatetime | None
    """Since when it can do nothing."""
    contact: list[str]
    thumbprint: str
    """Of its key (RFC 7638)."""
    eab_key: str | None
    """The key that it was made with."""
    service: str | None
    """Of that key."""
    terms_agreed: AwareDatetime | None
    created: AwareDatetime
    created_from: str
    """The address that asked for it."""


class Because(Model):
    reason: ShortText
    """For the audit."""


async def show(admin: Admin, call: Call) -> AccountView:
    return view(await _theirs(admin, call))


async def freeze(admin: Admin, call: Call) -> AccountView:
    return await _change(
        admin, call, accounts.freeze, "The account is frozen already, or has ended: there is nothing to stop."
    )


async def unfreeze(admin: Admin, call: Call) -> AccountView:
    return await _change(
        admin,
        call,
        accounts.unfreeze,
        "The account is not frozen, or its EAB key is revoked: then its holder makes another account with another key.",
    )


async def deactivate(admin: Admin, call: Call) -> AccountView:
    return await _change(admin, call, accounts.deactivate, "The account has ended before.")


async def _change(admin: Admin, call: Call, act: Callable[..., Awaitable[bool]], refusal: str) -> AccountView:
    account = await _theirs(admin, call)
    done = await act(admin.database, account.id, reason=call.body.reason, actor=call.actor, now=admin.clock())
    if not done:
        raise conflict(refusal)
    return await show(admin, call)


async def _theirs(admin: Admin, call: Call) -> AccountRecord:
    found = await accounts.record(admin.database, AccountId(call.path["id"]))
    if found is None or (call.services is not None and found.service not in call.services):
        raise not_found("There is no such account.")
    return found


def view(record: AccountRecord) -> AccountView:
    return AccountView(
        id=record.id,
        status=record.status,
        frozen=record.frozen,
        contact=list(record.contact),
        thumbprint=record.thumbprint,
        eab_key=record.eab_key_id,
        service=record.service,
        terms_agreed=record.terms_agreed,
        created=record.created,
        created_from=record.created_from,
    )


ROUTES = (
    Route(
        name="accounts.show",
        method="GET",
        path="/accounts/{id}",
        permission=Permission.ACCOUNTS_READ,
        endpoint=show,
        answer=AccountView,
        summary="An ACME account.",
        scoped=True,
    ),
    Route(
        name="accounts.freeze",
        method="POST",
        path="/accounts/{id}/freeze",
        permission=Permission.ACCOUNTS_WRITE,
        endpoint=freeze,
        body=Because,
        answer=AccountView,
        summary="Stop an account at once: whatever it asks for is refused.",
        scoped=True,
        conflicts=True,
    ),
    Route(
        name="accounts.unfreeze",
        method="POST",
        path="/accounts/{id}/unfreeze",
        permission=Permission.ACCOUNTS_WRITE,
        endpoint=unfreeze,
        body=Because,
        answer=AccountView,
        summary="Let a frozen account go on where it was.",
        scoped=True,
        conflicts=True,
    ),
    Route(
        name="accounts.deactivate",
        method="POST",
        path="/accounts/{id}/deactivate",
        permission=Permission.ACCOUNTS_WRITE,
        endpoint=deactivate,
        body=Because,
        answer=AccountView,
        summary="End an account for good.",
        scoped=True,
        conflicts=True,
    ),
)
