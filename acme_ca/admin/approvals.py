"""Two-person approval: a dangerous act is written down, and done when another person has approved it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ValidationError

from acme_ca.admin import lists
from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Answer, Call, Model, Route
from acme_ca.admin.lists import CreatedQuery
from acme_ca.admin.paging import Page
from acme_ca.core.codes import Code
from acme_ca.core.problems import ErrorType, Problem, conflict, not_found
from acme_ca.core.texts import ShortText
from acme_ca.storage import approvals as store
from acme_ca.storage.approvals import Approval, ApprovalSort, ApprovalState
from acme_ca.storage.database import Database

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin


class ApprovalView(Model):
    """A dangerous act, and who has decided about it."""

    id: str
    action: str
    """The name of the route."""
    request: dict[str, Any]
    """`path`, `query` and `body`, as they were sent, and the `services` that the credential of who asked is for."""
    requested_by: str
    created: datetime
    expires: datetime
    """Not decided until then, it is rejected."""
    state: ApprovalState
    decided: datetime | None
    decided_by: str | None
    outcome: dict[str, Any] | None
    """`status` and `body` of what the act answered; null: not done, or broken off."""


class ApprovalQuery(CreatedQuery):
    state: ApprovalState | None = None
    action: ShortText | None = None
    """The name of the route, as in `issuers.retire`."""
    requested_by: ShortText | None = None
    decided_by: ShortText | None = None
    sort: ApprovalSort = "-created"
    """With a minus the last one first."""


class Approvals:
    """`lifetime`: how long a request waits."""

    def __init__(
        self,
        *,
        database: Database,
        lifetime: timedelta,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._database = database
        self._lifetime = lifetime
        self._clock = clock
        self._new_id = new_id

    async def request(self, route: Route, call: Call) -> ApprovalView:
        """Write the act down instead of doing it."""
        now = self._clock()
        approval = Approval(
            id=self._new_id(),
            action=route.name,
            request={
                "path": dict(call.path),
                "query": _plain(call.query),
                "body": _plain(call.body),
                "services": call.services,
            },
            requested_by=call.principal.name,
            created=now,
            expires=now + self._lifetime,
        )
        await store.create(self._database, approval, actor=call.actor)
        return self.view(approval)

    async def find(self, id_: str) -> Approval:
        approval = await store.find(self._database, id_)
        if approval is None:
            raise not_found("There is no such approval.")
        return approval

    async def decide(
        self, approval: Approval, *, decision: Literal["approved", "rejected"], call: Call
    ) -> Approval:
        """Raises Problem: one's own request, one that is decided or expired, or of somebody who may not ask any more."""
        decided = await store.decide(
            self._database,
            approval.id,
            decision=decision,
            actor=call.actor,
            by=call.principal.name,
            now=self._clock(),
        )
        if decided is None:
            raise await self._why_not(approval, call)
        return decided

    async def _why_not(self, approval: Approval, call: Call) -> Problem:
        by = call.principal.name
        if self.view(approval).state == "waiting":
            if approval.requested_by == by:
                return _by_another("You asked for this act yourself: another person must approve it.")
            hands = await store.in_both_hands(self._database, approval.id, by=by)
            if hands is not None:
                return _by_another(f"{_one_person(hands)} {_MAKE_THEM_APART}")
        return conflict(
            "It is decided already, or its time is over, or the credential of who asked for it has ended."
        )

    def view(self, approval: Approval) -> ApprovalView:
        expired = approval.decision is None and approval.expires <= self._clock()
        return ApprovalView(
            id=approval.id,
            action=approval.action,
            request=approval.request,
            requested_by=approval.requested_by,
            created=approval.created,
            expires=approval.expires,
            state=ApprovalState.EXPIRED if expired else ApprovalState(approval.decision or "waiting"),
            decided=approval.decided,
            decided_by=approval.decided_by,
            outcome=approval.outcome,
        )


def _one_person(hands: str) -> str:
    if not hands:
        return (
            "An account ordered a certificate that one of you logs in with: nobody can tell who has its key."
        )
    return f"{hands} may have both credentials, of who asked and yours: one of them made the other, or both were made there."


_MAKE_THEM_APART = (
    "Make the credentials of those who approve each other's acts on the server's machine (docs/api.md)."
)


def _by_another(detail: str) -> Problem:
    return Problem(ErrorType.UNAUTHORIZED, detail, code=Code.APPROVAL_BY_ANOTHER)


# ---------------------------------------------------------------- endpoints


async def list_approvals(admin: Admin, call: Call) -> Page[ApprovalView]:
    query: ApprovalQuery = call.query
    found = await store.page(
        admin.database, lists.wanted(query, store.APPROVALS, sort=query.sort), now=admin.clock()
    )
    return lists.page(found, sort=query.sort, view=admin.approvals.view)


async def show(admin: Admin, call: Call) -> ApprovalView:
    return admin.approvals.view(await admin.approvals.find(call.path["id"]))


async def approve(admin: Admin, call: Call) -> ApprovalView:
    """Decide, then do the act: in the approver's name, and for no more services than who asked for it has a credential
    for. What it answers is kept.
    """
    approval = await admin.approvals.find(call.path["id"])
    route = admin.routes.get(approval.action)
    if route is None:
        raise conflict("This version of the server does not know the act any more.")
    if route.permission is not None:
        call.check_may(route.permission)
    act = Call(
        principal=replace(call.principal, services=frozenset(approval.request["services"] or ())),
        path=approval.request["path"],
        query=_again(approval.request["query"], route.query),
        body=_again(approval.request["body"], route.body),
    )
    await admin.approvals.decide(approval, decision="approved", call=call)
    outcome = await _outcome(admin, route, act)
    await store.keep_outcome(admin.database, approval.id, outcome)
    return admin.approvals.view(await admin.approvals.find(approval.id))


async def reject(admin: Admin, call: Call) -> ApprovalView:
    approval = await admin.approvals.find(call.path["id"])
    await admin.approvals.decide(approval, decision="rejected", call=call)
    return admin.approvals.view(await admin.approvals.find(approval.id))


async def _outcome(admin: Admin, route: Route, act: Call) -> dict[str, Any]:
    try:
        answer = await route.endpoint(admin, act)
    except Problem as problem:
        return {"status": problem.status or HTTPStatus.BAD_REQUEST, "body": problem.document()}
    return {"status": route.status, "body": _answered(answer)}


def _answered(answer: Answer) -> Any:
    return json.loads(answer.model_dump_json()) if isinstance(answer, BaseModel) else None


def _plain(model: BaseModel | None) -> Any:
    return None if model is None else json.loads(model.model_dump_json(exclude_unset=True))


def _again(value: Any, model: type[BaseModel] | None) -> BaseModel | None:
    """Raises Problem: it was asked for before an update, and such a thing is refused since."""
    if model is None:
        return None
    try:
        return model.model_validate_json(json.dumps(value), strict=True)
    except ValidationError:
        raise conflict(
            "This version of the server does not take what was asked for: ask for the act again."
        ) from None


ROUTES = (
    Route(
        name="approvals.list",
        method="GET",
        path="/approvals",
        permission=Permission.APPROVALS_READ,
        endpoint=list_approvals,
        query=ApprovalQuery,
        answer=Page[ApprovalView],
        summary="Dangerous acts that were asked for.",
    ),
    Route(
        name="approvals.show",
        method="GET",
        path="/approvals/{id}",
        permission=Permission.APPROVALS_READ,
        endpoint=show,
        answer=ApprovalView,
        summary="One of them.",
    ),
    Route(
        name="approvals.approve",
        method="POST",
        path="/approvals/{id}/approve",
        permission=Permission.APPROVALS_DECIDE,
        endpoint=approve,
        answer=ApprovalView,
        summary="Approve an act that another person asked for: it is done now.",
        conflicts=True,
    ),
    Route(
        name="approvals.reject",
        method="POST",
        path="/approvals/{id}/reject",
        permission=Permission.APPROVALS_DECIDE,
        endpoint=reject,
        answer=ApprovalView,
        summary="Reject it, or withdraw one's own.",
        conflicts=True,
    ),
)
