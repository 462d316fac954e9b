"""Approved scopes: names that need no challenge, because an administrator vouches for them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from pydantic import AwareDatetime, Field

from acme_ca.admin import lists
from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Call, Model, Route
from acme_ca.admin.lists import CreatedQuery, Id, Name, Within
from acme_ca.admin.paging import Page, invalid_field
from acme_ca.core.durations import Duration
from acme_ca.core.ids import AccountId, EabKeyId, ScopeId
from acme_ca.core.names import NameRuleText
from acme_ca.core.problems import conflict, not_found
from acme_ca.core.scopes import KINDS, ApprovedScope, ScopeState, covering
from acme_ca.core.texts import ShortText
from acme_ca.storage import scopes
from acme_ca.storage.scopes import ScopeSort

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

MAX_LIFE = timedelta(days=5 * 365)


class ScopeView(Model):
    id: str
    account: str | None
    """The account whose names these are, or"""
    eab_key: str | None
    """the EAB key, for all its accounts."""
    rule: NameRuleText | None
    """Which names; null: a later release wrote it, and nothing is approved by it here."""
    reason: str
    approved_by: str
    created: AwareDatetime
    expires: AwareDatetime
    revoked: AwareDatetime | None
    state: ScopeState


class NewScope(Model):
    """`account` or `eab_key`, not both."""

    account: ShortText | None = None
    eab_key: ShortText | None = None
    rule: NameRuleText
    """`exact:NAME`, `suffix:NAME` (it and all below, wildcards too) or `wildcard:*.NAME` (one label in place of the asterisk)."""
    reason: ShortText
    """Why nobody has to prove these names: in the record and in every report."""
    expires_in: Annotated[Duration, Field(gt=timedelta(), le=MAX_LIFE)]
    """As in `90 days`."""


class ScopeQuery(CreatedQuery):
    account: Id | None = None
    eab_key: ShortText | None = None
    name: Name | None = None
    """A name, wildcard or address that they are about: which is approved by them, while they live."""
    state: ScopeState | None = None
    approved_by: ShortText | None = None
    """As the audit names them: `operator:alice`."""
    expiring_within: Within | None = None
    """As in `30 days`: what lives and ends within that time."""
    text: ShortText | None = None
    """In the rule or the reason, in whatever case."""
    sort: ScopeSort = "created"
    """With a minus the last one first."""


class ScopeEnd(Model):
    reason: ShortText
    """For the audit."""


class EndedScope(Model):
    scope: ScopeView
    authorizations: int
    """How many ended with it. Orders that are not finalized die with them."""


async def list_scopes(admin: Admin, call: Call) -> Page[ScopeView]:
    query: ScopeQuery = call.query
    now = admin.clock()
    rules = None if query.name is None else list(map(str, covering(lists.name_of(query.name))))
    found = await scopes.page(
        admin.database, lists.wanted(query, scopes.SCOPES, sort=query.sort, rules=rules), now=now
    )
    return lists.page(found, sort=query.sort, view=lambda scope: _view(scope, now))


async def create(admin: Admin, call: Call) -> ScopeView:
    wish: NewScope = call.body
    if (wish.account is None) is (wish.eab_key is None):
        raise invalid_field("account", "Give an account or an eab_key, one of both.")
    if wish.rule.kind not in KINDS:
        raise invalid_field("rule", f"It must be of one of the kinds {', '.join(sorted(KINDS))}.")
    now = admin.clock()
    scope = ApprovedScope(
        id=ScopeId(admin.new_id()),
        account_id=AccountId(wish.account) if wish.account else None,
        eab_key_id=EabKeyId(wish.eab_key) if wish.eab_key else None,
        rule=wish.rule,
        reason=wish.reason,
        approved_by=call.actor.name,
        created=now,
        expires=now + wish.expires_in,
    )
    if not await scopes.create(admin.database, scope, actor=call.actor):
        what = "account" if wish.account else "eab_key"
        raise invalid_field(what, "There is no such one, or it has ended.")
    await admin.policies.refresh()
    return _view(scope, now)


async def show(admin: Admin, call: Call) -> ScopeView:
    scope = await scopes.find(admin.database, call.path["id"])
    if scope is None:
        raise not_found("There is no such scope.")
    return _view(scope, admin.clock())


async def revoke(admin: Admin, call: Call) -> EndedScope:
    ended = await scopes.revoke(
        admin.database, call.path["id"], reason=call.body.reason, actor=call.actor, now=admin.clock()
    )
    found = await show(admin, call)
    if ended is None:
        raise conflict("The scope was revoked before.")
    await admin.policies.refresh()
    return EndedScope(scope=found, authorizations=ended)


def _view(scope: ApprovedScope, now: datetime) -> ScopeView:
    return ScopeView(
        id=scope.id,
        account=scope.account_id,
        eab_key=scope.eab_key_id,
        rule=scope.rule,
        reason=scope.reason,
        approved_by=scope.approved_by,
        created=scope.created,
        expires=scope.expires,
        revoked=scope.revoked,
        state=scope.state(now),
    )


ROUTES = (
    Route(
        name="scopes.list",
        method="GET",
        path="/scopes",
        permission=Permission.SCOPES_READ,
        endpoint=list_scopes,
        query=ScopeQuery,
        answer=Page[ScopeView],
        summary="Approved scopes that fit all filters, in pages.",
    ),
    Route(
        name="scopes.approve",
        method="POST",
        path="/scopes",
        permission=Permission.SCOPES_WRITE,
        endpoint=create,
        body=NewScope,
        answer=ScopeView,
        status=201,
        summary="Approve names for an account or an EAB key: their authorizations need no challenge and no CAA.",
        dangerous=True,
    ),
    Route(
        name="scopes.show",
        method="GET",
        path="/scopes/{id}",
        permission=Permission.SCOPES_READ,
        endpoint=show,
        answer=ScopeView,
        summary="One of them.",
    ),
    Route(
        name="scopes.revoke",
        method="POST",
        path="/scopes/{id}/revoke",
        permission=Permission.SCOPES_WRITE,
        endpoint=revoke,
        body=ScopeEnd,
        answer=EndedScope,
        summary="End an approval at once, with the authorizations that rest on it.",
        conflicts=True,
    ),
)
