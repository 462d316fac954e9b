"""Would this order be issued? Everything that newOrder and finalize would say, all of it at once, and nothing is stored.

The judges are those of `acme/orders.py` itself; the first refusal here is what newOrder answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from acme_ca.acme.authentication import check_standing
from acme_ca.acme.authorizations import TOKEN_BYTES, Authorizations
from acme_ca.acme.limits import Limits, limit_reached
from acme_ca.acme.messages import NewOrder
from acme_ca.acme.orders import Orders, Step, Wanted, not_entitled
from acme_ca.acme.urls import Urls
from acme_ca.core import base64url, keys
from acme_ca.core.codes import Code
from acme_ca.core.csr import CertificateRequest
from acme_ca.core.identifiers import Identifier
from acme_ca.core.model import Account, Attempt, AuthorizationId, ChallengeType, EabKey, EabKeyState, Outcome
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.storage import keys as key_store
from acme_ca.storage import limits, orders
from acme_ca.storage.database import Database
from acme_ca.storage.limits import Refused
from acme_ca.validation.validator import Look, Validator

MOST_PAUSES = 1000
AT_ONCE = 8
"""Names that are looked up at once."""


class Verdict(StrEnum):
    OK = "ok"
    REFUSED = "refused"
    WARNING = "warning"
    """The order would be taken; its client may meet this later."""
    UNKNOWN = "unknown"
    """It was not told enough to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`code`: as in the ACME problem document. `name`: what it is about, where that is one of the names."""

    step: str
    verdict: Verdict
    detail: str
    code: str | None = None
    name: str | None = None
    members: dict[str, Any] = field(default_factory=dict)
    """Further facts, JSON-ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Who would ask for what."""

    wish: NewOrder
    account: Account
    """One that is not there has an empty id."""
    eab_key: EabKey | None
    client: str | None
    """Its address; None: not told."""
    csr: CertificateRequest | None
    dry_run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    findings: tuple[Finding, ...]
    wanted: Wanted | None
    """None: it does not come to that."""
    problem: Problem | None
    """What the client would be answered; None: the order would be made."""


class Preflight:
    def __init__(
        self,
        *,
        database: Database,
        orders: Orders,
        authorizations: Authorizations,
        limits: Limits,
        validator: Validator,
        urls: Urls,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._orders = orders
        self._authorizations = authorizations
        self._limits = limits
        self._validator = validator
        self._urls = urls
        self._random_bytes = random_bytes

    async def explain(self, question: Question) -> Explanation:
        """All steps, also behind one that refuses."""
        trial = _Trial()
        trial.judge("account", lambda: check_standing(question.account), "The account may act.")
        if question.eab_key is not None:
            now = self._orders.now()
            trial.judge("eab_key", lambda: _check_key(question, now), "The EAB key is good.")
        wanted = await self._considered(question, trial)
        if wanted is not None:
            await self._judge(question, wanted, trial)
            await self._look_around(question, wanted, trial)
        return Explanation(findings=tuple(trial.findings), wanted=wanted, problem=trial.first)

    async def _considered(self, question: Question, trial: _Trial) -> Wanted | None:
        try:
            return await self._orders.consider(
                question.wish, account=question.account, client=question.client or ""
            )
        except Problem as problem:
            trial.refuse(Step.PROFILE, problem)
            return None

    # ------------------------------------------------------------ what newOrder says

    async def _judge(self, question: Question, wanted: Wanted, trial: _Trial) -> None:
        for step, judge in self._orders.judgements(wanted):
            if step is Step.REQUEST and question.client is None:
                self._judge_without_source(wanted, trial)
            else:
                trial.judge(step, judge, _GOOD[step].format(wanted))
        for name, scope in wanted.scopes.items():
            trial.judge(
                "challenges",
                lambda name=name, scope=scope: self._authorizations.offered(  # type: ignore[misc]
                    name, wanted.profile.challenges, scope
                ),
                self._said_challenges(wanted, name),
                name=name,
            )
        await self._judge_pauses(wanted, trial)
        trial.judge("profile", lambda: _check_entitled(question, wanted), "The account may use the profile.")
        await self._judge_limits(question, wanted, trial)
        if question.csr is not None:
            await self._judge_csr(question.csr, wanted, trial)

    def _judge_without_source(self, wanted: Wanted, trial: _Trial) -> None:
        restrictions = wanted.policy.restrictions
        if restrictions.source_networks:
            networks = ", ".join(map(str, restrictions.source_networks))
            trial.say(Step.REQUEST, Verdict.UNKNOWN, f"Its client must ask from {networks}.")
        trial.judge(
            Step.REQUEST,
            lambda: restrictions.check_profile(wanted.profile.name),
            "The EAB key is for the profile.",
        )

    def _said_challenges(self, wanted: Wanted, name: Identifier) -> str:
        if (scope := wanted.scopes[name]) is not None:
            return f"{name.value} was approved (scope {scope.id}): it needs no challenge."
        try:
            offered = self._authorizations.offered(name, wanted.profile.challenges, None)
        except Problem:
            return ""
        return f"{name.value} can be proved by {', '.join(offered)}."

    async def _judge_pauses(self, wanted: Wanted, trial: _Trial) -> None:
        account = wanted.account.id
        if not account:
            return
        paused = await limits.pauses(self._database, limit=MOST_PAUSES, account=account)
        names = [pause.identifier for pause in paused if pause.identifier in wanted.scopes]
        if names:
            trial.refuse("pauses", _paused(names))
        else:
            trial.say("pauses", Verdict.OK, "The account is not paused for any of the names.")

    async def _judge_limits(self, question: Question, wanted: Wanted, trial: _Trial) -> None:
        requester = self._orders.requester(wanted)
        known = wanted.account.id and question.client
        charges = (
            self._orders.charges(wanted)
            if known
            else self._limits.of_nobody_yet(requester, wanted.wish.identifiers)
        )
        for level in await self._limits.peek(charges):
            if level.left > 0:
                detail = f"{level.charge.kind} of {level.charge.subject}: {level.left} left."
                trial.say("limits", Verdict.OK, detail)
            else:
                refused = Refused(charge=level.charge, free_at=level.free_at)
                help_url = self._limits.rules.help_url
                trial.refuse("limits", limit_reached(refused, now=wanted.now, help_url=help_url))

    async def _judge_csr(self, request: CertificateRequest, wanted: Wanted, trial: _Trial) -> None:
        """At finalize: newOrder does not see it."""
        trial.judge(
            "csr",
            lambda: self._orders.check_csr(request, wanted.wish.identifiers, wanted.profile),
            "The CSR fits.",
        )
        if objection := await key_store.objection(self._database, keys.spki_sha256(request.public_key)):
            problem = Problem(ErrorType.BAD_CSR, f"The key in the CSR is refused: {objection}.")
            trial.refuse("csr", problem)

    # ------------------------------------------------------------ what its validations would meet

    async def _look_around(self, question: Question, wanted: Wanted, trial: _Trial) -> None:
        held = await orders.reusable(
            self._database,
            wanted.account.id,
            wanted.wish.identifiers,
            challenges=wanted.profile.challenges,
            since=self._orders.reusable_since(wanted.now),
            now=wanted.now,
        )
        for name, authorization in held.items():
            detail = f"The account has proved {name.value} already (authorization {authorization})."
            trial.say("authorization", Verdict.OK, detail, name=name)
        places = asyncio.Semaphore(AT_ONCE)

        async def look(name: Identifier) -> list[Finding]:
            async with places:
                return [finding async for finding in self._looked(question, wanted, name)]

        # A name that no order may have is none that the server asks the network about, whoever wants to know.
        to_prove = [
            name
            for name in wanted.to_prove
            if name not in held and not wanted.policy.names.violations([name])
        ]
        for found in await asyncio.gather(*map(look, to_prove)):
            trial.findings += found

    async def _looked(self, question: Question, wanted: Wanted, name: Identifier) -> AsyncIterator[Finding]:
        try:
            offered = self._authorizations.offered(name, wanted.profile.challenges, None)
        except Problem:
            return
        for challenge in offered:
            attempt = self._attempt(wanted, name, challenge)
            look = await self._validator.look(attempt)
            yield _aim(name, challenge, look)
            yield _caa(name, challenge, look)
            if question.dry_run:
                yield _rehearsed(name, challenge, await self._validator.rehearse(attempt))

    def _attempt(self, wanted: Wanted, name: Identifier, challenge: ChallengeType) -> Attempt:
        """With a token that no client has."""
        return Attempt(
            authorization_id=AuthorizationId(""),
            identifier=name,
            challenge=challenge,
            token=base64url.encode(self._random_bytes(TOKEN_BYTES)),
            thumbprint=wanted.account.thumbprint,
            account_url=self._urls.account(wanted.account.id),
        )


_GOOD = {
    Step.REQUEST: "The EAB key is for requests from there, and for the profile.",
    Step.NAMES: "No name policy is against the names.",
    Step.PROFILE: "The profile {0.profile.name} (version {0.profile.version}) fits.",
    Step.ISSUER: "The issuer {0.issuer.id} may issue for the names.",
    Step.VALIDITY: "The validity fits.",
}


class _Trial:
    """What was found out so far."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.first: Problem | None = None
        """The first refusal of newOrder."""

    def say(self, step: str, verdict: Verdict, detail: str, *, name: Identifier | None = None) -> None:
        self.findings.append(
            Finding(step=step, verdict=verdict, detail=detail, name=None if name is None else name.value)
        )

    def judge(
        self, step: str, judge: Callable[[], object], good: str, *, name: Identifier | None = None
    ) -> None:
        try:
            judge()
        except Problem as problem:
            self.refuse(step, problem)
        else:
            self.say(step, Verdict.OK, good, name=name)

    def refuse(self, step: str, problem: Problem) -> None:
        self.first = self.first or problem
        self.findings += [_refusal(step, one) for one in problem.subproblems or [problem]]


def _refusal(step: str, problem: Problem, verdict: Verdict = Verdict.REFUSED) -> Finding:
    name = None if problem.identifier is None else problem.identifier.value
    code = str(problem.document()["code"])
    return Finding(step=step, verdict=verdict, detail=problem.detail, code=code, name=name)


def _paused(names: Sequence[Identifier]) -> Problem:
    """Not the client's own sentence: that has the link which lifts the pause."""
    said = ", ".join(name.value for name in names)
    return Problem(
        ErrorType.RATE_LIMITED,
        f"Validations of {said} failed again and again, so the account is paused for it.",
        code=Code.PAUSED,
    )


def _check_key(question: Question, now: datetime) -> None:
    """Of one that an account would be made with; accounts that there are outlive all but its revocation."""
    key = question.eab_key
    if key is not None and not question.account.id and key.state(now) is not EabKeyState.ACTIVE:
        raise Problem(
            ErrorType.UNAUTHORIZED,
            f"The EAB key {key.id} is {key.state(now)}: no account can be made with it.",
            code=Code.EAB_KEY_UNUSABLE,
        )


def _check_entitled(question: Question, wanted: Wanted) -> None:
    """As the statement that makes the order."""
    profile, key = wanted.profile, question.eab_key
    if not profile.allowed_eab_keys and not profile.allowed_services:
        return
    if key is None or key.revoked is not None:
        raise not_entitled()
    if key.id not in profile.allowed_eab_keys and key.service not in profile.allowed_services:
        raise not_entitled()


def _aim(name: Identifier, challenge: ChallengeType, look: Look) -> Finding:
    servers = ", ".join(look.servers) or "the system's DNS servers"
    members = {
        "challenge": challenge,
        "servers": list(look.servers),
        "addresses": list(look.addresses),
        "port": look.port,
        "record": list(look.record),
    }
    if look.unreachable is not None:
        code = str(look.unreachable.document()["code"])
        return Finding(
            step="reach",
            verdict=Verdict.WARNING,
            detail=look.unreachable.detail,
            code=code,
            name=name.value,
            members=members,
        )
    whom = "in the DNS itself" if look.port is None else f"at {', '.join(look.addresses)}, port {look.port}"
    detail = f"{challenge} of {name.value} would be asked {whom}, by way of {servers}."
    return Finding(step="reach", verdict=Verdict.OK, detail=detail, name=name.value, members=members)


def _caa(name: Identifier, challenge: ChallengeType, look: Look) -> Finding:
    members = {"challenge": challenge}
    if look.caa is None:
        detail = f"CAA has nothing against {name.value} by {challenge}."
        return Finding(step="caa", verdict=Verdict.OK, detail=detail, name=name.value, members=members)
    code = str(look.caa.document()["code"])
    return Finding(
        step="caa",
        verdict=Verdict.WARNING,
        detail=look.caa.detail,
        code=code,
        name=name.value,
        members=members,
    )


def _rehearsed(name: Identifier, challenge: ChallengeType, outcome: Outcome) -> Finding:
    """No client can answer for a made-up token: that the host was reached and said so is all that can be asked for."""
    problem = outcome.problem
    reached = problem is None or problem.type in {ErrorType.UNAUTHORIZED, ErrorType.INCORRECT_RESPONSE}
    return Finding(
        step="dry_run",
        verdict=Verdict.OK if reached else Verdict.WARNING,
        detail=f"{name.value} was reached; it does not know the made-up token, as it must."
        if reached or problem is None
        else problem.detail,
        code=None if reached or problem is None else str(problem.document()["code"]),
        name=name.value,
        members={"challenge": challenge, "record": list(outcome.record)},
    )
