"""The name policies of the server and of services, beside the settings, the profiles and the EAB keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from pydantic import AwareDatetime, Field, ValidationError

from acme_ca.admin import lists
from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Call, Model, Route
from acme_ca.admin.paging import Page, PageQuery, invalid_field
from acme_ca.ca.policies import AccountPolicy
from acme_ca.core import identifiers
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import EabKeyId
from acme_ca.core.names import NameRuleText
from acme_ca.core.policy import NameRules
from acme_ca.core.problems import Problem, not_found
from acme_ca.core.services import SERVICE_ID
from acme_ca.core.texts import ShortText
from acme_ca.storage import policies as store
from acme_ca.storage.policies import PolicySort, StoredPolicy

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

_SERVICE = re.compile(SERVICE_ID, re.ASCII)


class PolicyView(Model):
    scope: str
    """Whom it binds: `server` (everybody), or `service:ID`."""
    rules: NameRules | None
    """null: a later release wrote them, and until then nothing is issued here for whom they bind."""
    changed: AwareDatetime


class Question(Model):
    names: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=255)], ...], Field(min_length=1, max_length=100)
    ]
    """Names and addresses."""
    eab_key: ShortText | None = None
    """For an account with this key."""
    service: Annotated[str, Field(pattern=SERVICE_ID)] | None = None
    """For a service's certificates."""


class Verdict(Model):
    name: str
    allowed: bool
    code: str | None
    """Why not: a stable code."""
    detail: str | None
    """Why not, and by whose rule."""


class Verdicts(Model):
    """Profiles, CAA and limits are not looked at here: `explain` does."""

    names: list[Verdict]


class PolicyQuery(PageQuery):
    rule: NameRuleText | None = None
    """That it allows or denies by, as in `suffix:a.example`."""
    changed_since: AwareDatetime | None = None
    """From then on."""
    changed_before: AwareDatetime | None = None
    text: ShortText | None = None
    """In the scope or a rule, in whatever case."""
    sort: PolicySort = "scope"
    """With a minus the last one first."""


async def list_policies(admin: Admin, call: Call) -> Page[PolicyView]:
    query: PolicyQuery = call.query
    rule = None if query.rule is None else str(query.rule)
    found = await store.page(
        admin.database, lists.wanted(query, store.POLICIES, sort=query.sort, rule=rule), now=admin.clock()
    )
    return lists.page(found, sort=query.sort, view=_view)


async def show(admin: Admin, call: Call) -> PolicyView:
    policy = await store.find(admin.database, call.path["scope"])
    if policy is None:
        raise not_found("There is no policy of this scope: it sets no rules.")
    return _view(policy)


async def put(admin: Admin, call: Call) -> PolicyView:
    scope, now = _scope(call), admin.clock()
    await store.put(admin.database, scope, call.body, actor=call.actor, now=now)
    await admin.policies.refresh()
    return PolicyView(scope=scope, rules=call.body, changed=now)


async def delete(admin: Admin, call: Call) -> None:
    if not await store.delete(admin.database, _scope(call), actor=call.actor, now=admin.clock()):
        raise not_found("There is no policy of this scope: it sets no rules.")
    await admin.policies.refresh()


async def check(admin: Admin, call: Call) -> Verdicts:
    question: Question = call.body
    if question.eab_key is not None and question.service is not None:
        raise invalid_field("service", "An EAB key has its service: give one of both.")
    await admin.policies.refresh()  # another worker may have changed them a moment ago
    if question.eab_key is None:
        policy = AccountPolicy(names=admin.policies.of_service(question.service))
    else:
        policy = await admin.policies.of(EabKeyId((await admin.eab_keys.find(question.eab_key)).id))
    return Verdicts(names=[_verdict(policy, name) for name in question.names])


def _verdict(policy: AccountPolicy, name: str) -> Verdict:
    try:
        violations = policy.names.violations([_identifier(name)])
    except Problem as problem:
        violations = [problem]
    if not violations:
        return Verdict(name=name, allowed=True, code=None, detail=None)
    document = violations[0].document()
    return Verdict(name=name, allowed=False, code=document["code"], detail=document["detail"])


def _identifier(name: str) -> Identifier:
    is_address = ":" in name or name.replace(".", "").isdigit()
    return (identifiers.ip if is_address else identifiers.dns)(name)


def _scope(call: Call) -> str:
    scope = call.path["scope"]
    kind, _, service = scope.partition(":")
    if scope != "server" and not (kind == "service" and _SERVICE.fullmatch(service)):
        raise invalid_field("scope", "It must be server, or service:ID.")
    return scope


def _view(policy: StoredPolicy) -> PolicyView:
    try:
        rules = NameRules.model_validate(policy.body)
    except ValidationError:
        rules = None
    return PolicyView(scope=policy.scope, rules=rules, changed=policy.changed)


ROUTES = (
    Route(
        name="policies.list",
        method="GET",
        path="/policies",
        permission=Permission.POLICIES_READ,
        endpoint=list_policies,
        query=PolicyQuery,
        answer=Page[PolicyView],
        summary="The name policies that operators keep, by scope.",
    ),
    Route(
        name="policies.show",
        method="GET",
        path="/policies/{scope}",
        permission=Permission.POLICIES_READ,
        endpoint=show,
        answer=PolicyView,
        summary="One of them: `server`, or `service:ID`.",
    ),
    Route(
        name="policies.put",
        method="PUT",
        path="/policies/{scope}",
        permission=Permission.POLICIES_WRITE,
        endpoint=put,
        body=NameRules,
        answer=PolicyView,
        summary="Replace the rules of a scope; they hold within two seconds, for orders under way too.",
        dangerous=True,
    ),
    Route(
        name="policies.delete",
        method="DELETE",
        path="/policies/{scope}",
        permission=Permission.POLICIES_WRITE,
        endpoint=delete,
        status=204,
        summary="Take the rules of a scope away.",
        dangerous=True,
    ),
    Route(
        name="policies.check",
        method="POST",
        path="/policies/check",
        permission=Permission.POLICIES_READ,
        endpoint=check,
        body=Question,
        answer=Verdicts,
        summary="Whether names may be issued, for whom, and by whose rule not.",
    ),
)
