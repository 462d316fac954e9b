"""Would this order be issued? Asked beforehand, by an operator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from cryptography import x509
from pydantic import AwareDatetime, Field

from acme_ca.acme.findings import Finding, Verdict
from acme_ca.acme.messages import NewOrder
from acme_ca.acme.preflight import Explanation, Question
from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Call, Model, Route
from acme_ca.admin.lists import Id, Name, Word, address_of, name_of
from acme_ca.admin.paging import invalid_field
from acme_ca.ca.policies import AccountPolicy
from acme_ca.core import csr
from acme_ca.core.accounts import Account
from acme_ca.core.eab import EabKey
from acme_ca.core.ids import AccountId, Serial, read_serial, serial_text
from acme_ca.core.problems import Problem, not_found
from acme_ca.core.profiles import ProfileRef
from acme_ca.core.renewal import CertId, parse_cert_id
from acme_ca.core.states import AccountStatus
from acme_ca.core.texts import ShortText
from acme_ca.storage import accounts, certificates, eab, services

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

MOST_NAMES = 100
"""As many as any setting lets an order have."""
MAX_CSR = 48 * 1024
MAX_BODY = 96 * 1024
"""Bytes: a CSR and many names."""
NOBODY = "A" * 43
"""The thumbprint of an account that is not there."""


class ExplainWish(Model):
    names: Annotated[list[Name], Field(min_length=1, max_length=MOST_NAMES)]
    """DNS names, wildcards and addresses: as many as an order may have."""
    account: Id | None = None
    """That would order,"""
    eab_key: Word | None = None
    """or the EAB key that a new account would be made with,"""
    service: ShortText | None = None
    """or the service that it would be for: its newest account that may act, else its newest EAB key. None of the three: a
    new account without a key."""
    client: Annotated[str, Field(max_length=45)] | None = None
    """The address that the client asks from; null: rules about addresses are not judged."""
    profile: Word | None = None
    """null: the usual one."""
    replaces: Word | None = None
    """The certificate that the order would replace: its serial number, or its identifier in ACME (RFC 9773 §4.1)."""
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
    account: str | None
    """Who would ask; null: a new account."""
    eab_key: str | None
    service: str | None
    """Of the EAB key."""
    profile: ProfileRef | None
    issuer: str | None
    steps: list[FindingView]


async def explain(admin: Admin, call: Call) -> ExplanationView:
    wish: ExplainWish = call.body
    if wish.dry_run:
        call.check_may(Permission.EXPLAIN_DRY_RUN)
    if len(wish.names) > admin.preflight.most_names:
        raise invalid_field("names", f"An order may have {admin.preflight.most_names} of them at the most.")
    for known in (admin.policies, admin.profiles, admin.issuers, admin.limits):
        await known.refresh()  # another worker may have changed something a moment ago
    question = await _question(admin, call, wish)
    return _view(question, await admin.preflight.explain(question))


async def _question(admin: Admin, call: Call, wish: ExplainWish) -> Question:
    asking = await _who(admin, call, wish)
    is_without_key = wish.service is not None and asking.eab_key is None
    return Question(
        wish=NewOrder(
            identifiers=tuple(dict.fromkeys(map(_name, wish.names))),
            not_before=wish.not_before,
            not_after=wish.not_after,
            replaces=None if wish.replaces is None else await _replaced(admin, call, wish.replaces),
            profile=wish.profile,
        ),
        account=asking.account,
        eab_key=asking.eab_key,
        service=wish.service,
        policy=AccountPolicy(names=admin.policies.of_service(wish.service)) if is_without_key else None,
        client=None if wish.client is None else address_of(wish.client, "client"),
        csr=None if wish.csr is None else _csr(wish.csr),
        dry_run=wish.dry_run,
        tells_of_others=call.services is None,
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


async def _replaced(admin: Admin, call: Call, text: str) -> CertId:
    """For a credential of some services, what was issued for others is not there, however it is named."""
    if "." not in text:
        return CertId.of(await _leaf(admin, call, read_serial(text)))
    try:
        cert_id = parse_cert_id(text)
    except Problem as problem:
        raise invalid_field("replaces", problem.detail) from None
    if call.services is not None:
        await _leaf(admin, call, serial_text(cert_id.serial))
    return cert_id


async def _leaf(admin: Admin, call: Call, serial: Serial | None) -> x509.Certificate:
    found = None if serial is None else await certificates.find(admin.database, serial)
    if found is None or found.der is None or (call.services and found.service not in call.services):
        raise invalid_field("replaces", "There is no certificate with this serial number.")
    return x509.load_der_x509_certificate(found.der)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    account: Account
    eab_key: EabKey | None


async def _who(admin: Admin, call: Call, wish: ExplainWish) -> _Asking:
    """Raises Problem: what belongs to a service that the credential is not for is not there."""
    given = [name for name in ("account", "eab_key", "service") if getattr(wish, name) is not None]
    if len(given) > 1:
        raise invalid_field(given[1], f"Give one of {' and '.join(given)}.")
    if wish.account is not None:
        return await _account(admin, call, wish.account)
    if wish.eab_key is not None:
        return await _newcomer(admin, call, wish.eab_key)
    if wish.service is not None:
        return await _service(admin, call, wish.service)
    if call.services is not None:
        raise invalid_field("service", "It is missing: your token is for certain services only.")
    return _Asking(account=_NOBODY, eab_key=None)


async def _account(admin: Admin, call: Call, id_: str) -> _Asking:
    account, missing = await accounts.find(admin.database, AccountId(id_)), not_found(_NO_ACCOUNT)
    if account is None:
        raise missing
    key = None if account.eab_key_id is None else await eab.find(admin.database, account.eab_key_id)
    call.check_service(None if key is None else key.service, missing)
    return _Asking(account=account, eab_key=key)


async def _newcomer(admin: Admin, call: Call, id_: str) -> _Asking:
    key, missing = await eab.find(admin.database, id_), not_found("There is no EAB key with this id.")
    if key is None:
        raise missing
    call.check_service(key.service, missing)
    return _Asking(account=replace(_NOBODY, eab_key_id=key.id), eab_key=key)


async def _service(admin: Admin, call: Call, id_: str) -> _Asking:
    call.check_service(id_, not_found(_NO_SERVICE))
    found = await accounts.asking_for(admin.database, id_, now=admin.clock())
    if found is not None:
        account, key = found
        return await (_account(admin, call, account) if account else _newcomer(admin, call, key))
    if await services.find(admin.database, id_) is None:
        raise not_found(_NO_SERVICE)
    return _Asking(account=_NOBODY, eab_key=None)


_NO_ACCOUNT = "There is no account with this id."
_NO_SERVICE = "There is no such service, and no EAB key is for it."


_NOBODY = Account(id=AccountId(""), status=AccountStatus.VALID, jwk="", thumbprint=NOBODY)


def _view(question: Question, found: Explanation) -> ExplanationView:
    key = question.eab_key
    refused = any(one.verdict is Verdict.REFUSED for one in found.findings)
    wanted = found.wanted
    return ExplanationView(
        would_issue=not refused and wanted is not None,
        problem=None if found.problem is None else found.problem.document(),
        account=question.account.id or None,
        eab_key=None if key is None else key.id,
        service=question.service if key is None else key.service,
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
        max_body=MAX_BODY,
        summary="Would this order be issued, for whom, by which rule, and what would its validations meet?",
    ),
)
