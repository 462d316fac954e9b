"""Orders and authorizations: what became of them, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import AwareDatetime

from acme_ca.admin import lists
from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Call, Model, Route
from acme_ca.admin.lists import Id, Name, Word
from acme_ca.admin.paging import Page, PageQuery
from acme_ca.core.challenges import ChallengeType
from acme_ca.core.ids import AccountId, AuthorizationId, OrderId
from acme_ca.core.problems import not_found
from acme_ca.core.profiles import ProfileRef
from acme_ca.core.states import AuthorizationStatus, ChallengeStatus, OrderStatus
from acme_ca.storage import order_list, scopes, stories
from acme_ca.storage.order_list import FoundOrder, OrderFilter, OrderSort
from acme_ca.storage.stories import AuthorizationStory, Event, OrderStory, Validation

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin


class OrderQuery(PageQuery):
    status: OrderStatus | None = None
    account: Id | None = None
    service: Word | None = None
    """Of its account's EAB key."""
    name: Name | None = None
    """A DNS name, wildcard or address that it is for."""
    profile: Word | None = None
    sort: OrderSort = OrderSort.CREATED_LAST
    """With a minus the last one first."""


class OrderView(Model):
    id: str
    status: OrderStatus
    account: str
    service_id: str | None
    names: list[str]
    profile: ProfileRef
    issuer: str
    created: AwareDatetime
    expires: AwareDatetime
    not_before: AwareDatetime | None
    """As the client asked,"""
    not_after: AwareDatetime | None
    """where it did."""
    serial: str | None
    """Of its certificate."""
    replaces: str | None
    """The certificate identifier (RFC 9773) of the one that it replaces."""
    error: dict[str, Any] | None
    """The problem that it ended with."""


class ValidationView(Model):
    at: AwareDatetime
    challenge: ChallengeType
    succeeded: bool
    error: dict[str, Any] | None
    """The problem document that the client got."""
    record: list[dict[str, Any]]
    """What was asked, of which address, and what came back, in turn."""


class AuthorizationView(Model):
    id: str
    account: str
    name: str
    status: AuthorizationStatus
    created: AwareDatetime
    expires: AwareDatetime
    validated: AwareDatetime | None
    scope: str | None
    """The approved scope that made it valid without a challenge."""
    approval: str | None
    """Which names that scope is for, who approved it, and why."""
    offered: list[ChallengeType]
    challenge: ChallengeType | None
    """That the client answered; null: none yet."""
    challenge_status: ChallengeStatus | None
    error: dict[str, Any] | None
    validations: list[ValidationView]
    """Every attempt, the first one first."""


class EventView(Model):
    at: AwareDatetime | None
    """Null: no time of our calendar; somebody changed it."""
    event: str
    actor: str
    source: str | None
    """Address; empty: this machine. Null: the credential may not read the audit."""
    object: str
    detail: Any
    """A string, where it is nothing that can be read: as it is stored; somebody changed it."""


class OrderStoryView(OrderView):
    why: str
    """In a sentence: what it waits for, or what it ended with."""
    authorizations: list[AuthorizationView]
    """Those that have not been deleted since."""
    events: list[EventView]
    """What the audit tells of it and its certificate."""


async def find(admin: Admin, call: Call) -> Page[OrderView]:
    query: OrderQuery = call.query
    found = await order_list.find(
        admin.database,
        OrderFilter(
            status=query.status,
            account=None if query.account is None else AccountId(query.account),
            service=query.service,
            **lists.services(call),
            name=None if query.name is None else lists.name_of(query.name),
            profile=query.profile,
        ),
        now=admin.clock(),
        limit=query.limit,
        sort=query.sort,
        after=lists.after(query.cursor, sort=query.sort, kind=None),
    )
    return lists.page(found, sort=query.sort, view=_view)


async def show(admin: Admin, call: Call) -> OrderStoryView:
    story = await stories.order(admin.database, OrderId(call.path["id"]), now=admin.clock())
    missing = not_found("There is no order with this id; ended ones are deleted after a while.")
    if story is None:
        raise missing
    call.check_service(story.service, missing)
    return OrderStoryView(
        **_fields(FoundOrder(order=story.order, created=story.created, service=story.service)),
        why=why(story),
        authorizations=[await _authorization(admin, one) for one in story.authorizations],
        events=[_event(one, with_source=_may_audit(call)) for one in story.events],
    )


async def show_authorization(admin: Admin, call: Call) -> AuthorizationView:
    id_ = AuthorizationId(call.path["id"])
    story = await stories.authorization(admin.database, id_, now=admin.clock())
    missing = not_found("There is no authorization with this id; ended ones are deleted after a while.")
    if story is None:
        raise missing
    call.check_service(story.service, missing)
    return await _authorization(admin, story)


def why(story: OrderStory) -> str:
    """What an operator wants to hear first."""
    order = story.order
    match order.status:
        case OrderStatus.VALID:
            return f"It was issued: certificate {order.serial}."
        case OrderStatus.PROCESSING:
            return f"Certificate {order.serial} is being signed."
        case OrderStatus.READY:
            return "All names are proved; its client has not finalized it yet."
        case OrderStatus.PENDING:
            waiting = [one.authorization for one in story.authorizations if _waits(one)]
            names = ", ".join(f"{one.identifier.value}{_stage(one.challenge)}" for one in waiting)
            return f"It waits for the proof of {names}."
        case _:
            return _why_invalid(story)


def _why_invalid(story: OrderStory) -> str:
    if story.order.error is not None:
        return f"It failed when it was finalized: {story.order.error['detail']}"
    for one in (told.authorization for told in story.authorizations):
        if one.error is not None:
            return f"{one.identifier.value} was not proved by {one.challenge}: {one.error['detail']}"
    for one in (told.authorization for told in story.authorizations if _has_ended(told)):
        return f"The authorization for {one.identifier.value} is {one.status}."
    return f"It ended on {story.order.expires:%Y-%m-%d %H:%M} (UTC) before its client had finished it."


def _has_ended(story: AuthorizationStory) -> bool:
    return story.authorization.status not in {AuthorizationStatus.VALID, AuthorizationStatus.PENDING}


def _waits(story: AuthorizationStory) -> bool:
    return story.authorization.status is AuthorizationStatus.PENDING


def _stage(challenge: ChallengeType | None) -> str:
    return " (no challenge answered yet)" if challenge is None else f" ({challenge} is being validated)"


def _view(found: FoundOrder) -> OrderView:
    return OrderView(**_fields(found))


def _fields(found: FoundOrder) -> dict[str, Any]:
    order = found.order
    return {
        "id": order.id,
        "status": order.status,
        "account": order.account_id,
        "service_id": found.service,
        "names": [identifier.value for identifier in order.identifiers],
        "profile": order.profile,
        "issuer": order.issuer,
        "created": found.created,
        "expires": order.expires,
        "not_before": order.not_before,
        "not_after": order.not_after,
        "serial": order.serial,
        "replaces": order.replaces,
        "error": order.error,
    }


async def _authorization(admin: Admin, story: AuthorizationStory) -> AuthorizationView:
    found = story.authorization
    scope = None if found.scope_id is None else await scopes.find(admin.database, found.scope_id)
    return AuthorizationView(
        id=found.id,
        account=found.account_id,
        name=found.identifier.value,
        status=found.status,
        created=story.created,
        expires=found.expires,
        validated=found.validated,
        scope=found.scope_id,
        approval=None if scope is None else scope.sentence(),
        offered=list(found.offered),
        challenge=found.challenge,
        challenge_status=None if found.challenge is None else found.challenge_status(found.challenge),
        error=found.error,
        validations=[_validation(one) for one in story.validations],
    )


def _validation(one: Validation) -> ValidationView:
    return ValidationView(
        at=one.at,
        challenge=one.challenge,
        succeeded=one.error is None,
        error=one.error,
        record=list(one.record),
    )


def _event(one: Event, *, with_source: bool) -> EventView:
    return EventView(
        at=one.at,
        event=one.event,
        actor=one.actor,
        source=one.source if with_source else None,
        object=one.object,
        detail=one.detail,
    )


def _may_audit(call: Call) -> bool:
    return call.principal.may(Permission.AUDIT_READ) and not call.principal.services


ROUTES = (
    Route(
        name="orders.list",
        method="GET",
        path="/orders",
        permission=Permission.ORDERS_READ,
        endpoint=find,
        query=OrderQuery,
        answer=Page[OrderView],
        scoped=True,
        summary="Orders that fit all filters, in pages.",
    ),
    Route(
        name="orders.show",
        method="GET",
        path="/orders/{id}",
        permission=Permission.ORDERS_READ,
        endpoint=show,
        answer=OrderStoryView,
        scoped=True,
        summary="An order and its story: every validation with what was asked, of which address, and what came back.",
    ),
    Route(
        name="authorizations.show",
        method="GET",
        path="/authorizations/{id}",
        permission=Permission.ORDERS_READ,
        endpoint=show_authorization,
        answer=AuthorizationView,
        scoped=True,
        summary="An authorization and its validations.",
    ),
)
