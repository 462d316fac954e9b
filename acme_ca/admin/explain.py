"""Would this order be issued? Asked beforehand, by an operator."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AwareDatetime, Field

from acme_ca.acme.messages import NewOrder
from acme_ca.acme.preflight import Explanation, Finding, Question, Verdict
from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Call, Model, Route, not_found
from acme_ca.admin.lists import Id, Name, Word, address_of, name_of
from acme_ca.admin.paging import invalid_field
from acme_ca.core import csr
from acme_ca.core.model import Account, AccountId, EabKey, ProfileRef
from acme_ca.core.problems import Problem
from acme_ca.core.states import AccountStatus
from acme_ca.storage import accounts, eab

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

MOST_NAMES = 25
MAX_CSR = 48 * 1024
NOBODY = "A" * 43
"""The thumbprint of an account that is not there."""


class ExplainWish(Model):
    names: Annotated[list[Name], Field(min_length=1, max_length=MOST_NAMES)]
    """DNS names, wildcards and addresses."""
    account: Id | None = None
    """That would order,"""
    eab_key: Word | None = None
    """or the EAB key whose account would. Neither: a new account without a key."""
    client: Annotated[str, Field(max_length=45)] | None = None
    """The address that the client asks from; null: rules about addresses are not judged."""
    profile: Word | None = None
    """null: the usual one."""
    not_before: AwareDatetime | None = None
    not_after: AwareDatetime | None = None
    csr: Annotated[str, Field(max_length=MAX_CSR)] | None = None
    """PKCS #10, PEM or base64, to be judged as finalize does."""
    dry_run: bool = False
    """Also dial the hosts as validations do, with a token that no client has. Nothing is stored."""


class FindingView(Model):
    step: str
    verdict: Verdict
    code: str | None
    """Of a refusal: as in the ACME problem document."""
    name: str | None
    """The name that it is about."""
    detail: str
    facts: dict[str, Any]
    """What was asked of whom, and what came back."""


class ExplanationView(Model):
    would_issue: bool
    """Nothing refuses it. Whether its client proves the names is seen then: warnings say what may be in its way."""
    problem: dict[str, Any] | None
    """The problem document that the client would be answered first."""
    profile: ProfileRef | None
    issuer: str | None
    steps: list[FindingView]


async def explain(admin: Admin, call: Call) -> ExplanationView:
    wish: ExplainWish = call.body
    if wish.dry_run:
        call.check_may(Permission.EXPLAIN_DRY_RUN)
    found = await admin.preflight.explain(await _question(admin, call, wish))
    return _view(found)


async def _question(admin: Admin, call: Call, wish: ExplainWish) -> Question:
    account, key = await _who(admin, call, wish)
    return Question(
        wish=NewOrder(
            identifiers=tuple(dict.fromkeys(map(_name, wish.names))),
            not_before=wish.not_before,
            not_after=wish.not_after,
            replaces=None,
            profile=wish.profile,
        ),
        account=account,
        eab_key=key,
        client=None if wish.client is None else address_of(wish.client, "client"),
        csr=None if wish.csr is None else _csr(wish.csr),
        dry_run=wish.dry_run,
    )


def _name(text: str) -> Any:
    try:
        return name_of(text)
    except Problem as problem:
        raise invalid_field("names", problem.detail.removeprefix("name: ")) from None


def _csr(text: str) -> csr.CertificateRequest:
    try:
        return csr.parse_csr(csr.read_text(text))
    except Problem as problem:
        raise invalid_field("csr", problem.detail) from None


async def _who(admin: Admin, call: Call, wish: ExplainWish) -> tuple[Account, EabKey | None]:
    """Raises Problem."""
    if wish.account is not None and wish.eab_key is not None:
        raise invalid_field("eab_key", "Give an account or an EAB key, not both.")
    account = _NOBODY
    if wish.account is not None:
        found = await accounts.find(admin.database, AccountId(wish.account))
        if found is None:
            raise not_found("There is no account with this id.")
        account = found
    key = await _key(admin, wish.eab_key or account.eab_key_id)
    what = "account" if wish.account else "EAB key"
    call.check_service(key.service if key else None, not_found(f"There is no {what} with this id."))
    return (account if wish.account else replace(_NOBODY, eab_key_id=key.id if key else None)), key


async def _key(admin: Admin, id_: str | None) -> EabKey | None:
    found = None if id_ is None else await eab.find(admin.database, id_)
    if id_ is not None and found is None:
        raise not_found("There is no EAB key with this id.")
    return found


_NOBODY = Account(id=AccountId(""), status=AccountStatus.VALID, jwk="", thumbprint=NOBODY)


def _view(found: Explanation) -> ExplanationView:
    refused = any(one.verdict is Verdict.REFUSED for one in found.findings)
    wanted = found.wanted
    return ExplanationView(
        would_issue=not refused and wanted is not None,
        problem=None if found.problem is None else found.problem.document(),
        profile=None if wanted is None else wanted.profile.ref,
        issuer=None if wanted is None else wanted.issuer.id,
        steps=[_finding(one) for one in found.findings],
    )


def _finding(one: Finding) -> FindingView:
    return FindingView(
        step=one.step,
        verdict=one.verdict,
        code=one.code,
        name=one.name,
        detail=one.detail,
        facts=one.members,
    )


ROUTES = (
    Route(
        name="explain",
        method="POST",
        path="/explain",
        permission=Permission.EXPLAIN,
        endpoint=explain,
        body=ExplainWish,
        answer=ExplanationView,
        scoped=True,
        summary="Would this order be issued, for whom, by which rule, and what would its validations meet?",
    ),
)
