"""Would this order be issued? Everything that newOrder and finalize would say, all of it at once, and nothing is stored.

The judges are those of `acme/orders.py` itself; the first refusal here is what newOrder answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from acme_ca.acme.authentication import check_standing
from acme_ca.acme.authorizations import TOKEN_BYTES, Authorizations
from acme_ca.acme.findings import Facts, Finding, Trial, Verdict, code_of
from acme_ca.acme.limits import Limits, limit_reached
from acme_ca.acme.messages import NewOrder
from acme_ca.acme.orders import Orders, Step, Wanted, not_entitled
from acme_ca.acme.renewals import already_replaced
from acme_ca.acme.urls import Urls
from acme_ca.ca.issuers import Issuer
from acme_ca.ca.policies import AccountPolicy
from acme_ca.core import base64url, keys
from acme_ca.core.accounts import Account
from acme_ca.core.challenges import Attempt, ChallengeType, Outcome
from acme_ca.core.codes import Code
from acme_ca.core.csr import CertificateRequest
from acme_ca.core.eab import EabKey, EabKeyState
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AuthorizationId
from acme_ca.core.limits import OF_NAMES, OF_NETWORKS
from acme_ca.core.policy import Ruling
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.profiles import Profile
from acme_ca.core.scopes import ApprovedScope
from acme_ca.storage import authorizations, limits, orders
from acme_ca.storage import keys as key_store
from acme_ca.storage.database import Database
from acme_ca.storage.limits import Refused
from acme_ca.validation.dns01 import Unpublished
from acme_ca.validation.validator import Look, Validator

AT_ONCE = 16
"""Names that one process looks up at once, for all who want to know."""
LOOK_WITHIN = 60.0
"""Seconds. What is not looked up by then is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Who would ask for what."""

    wish: NewOrder
    account: Account
    """One that is not there has an empty id."""
    eab_key: EabKey | None
    service: str | None
    """Whose account this is, if it was asked for by that."""
    policy: AccountPolicy | None
    """What holds for who is not there and has no EAB key; None: what holds for the account."""
    client: str | None
    """Its address; None: not told."""
    csr: CertificateRequest | None
    dry_run: bool
    tells_of_others: bool
    """Who wants to know may learn what others have used of the limits that they share."""


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
        self._places = asyncio.Semaphore(AT_ONCE)

    @property
    def most_names(self) -> int:
        """As many as an order may have."""
        return self._orders.most_names

    async def explain(self, question: Question) -> Explanation:
        """All steps, also behind one that refuses."""
        trial, now = Trial(), self._orders.now()
        trial.judge("account", lambda: check_standing(question.account), _said_account(question))
        if question.eab_key is not None:
            good = f"The EAB key {question.eab_key.id} is good."
            trial.judge("eab_key", lambda: _check_key(question, now), good)
        elif question.service is not None:
            trial.refuse("eab_key", _without_key(question.service))
        wanted = await self._considered(question, trial)
        if wanted is not None:
            await self._judge(question, wanted, trial)
            await self._look_around(question, wanted, trial)
        return Explanation(findings=tuple(trial.findings), wanted=wanted, problem=trial.first)

    async def _considered(self, question: Question, trial: Trial) -> Wanted | None:
        try:
            return await self._orders.consider(
                question.wish,
                account=question.account,
                client=question.client or "",
                policy=question.policy,
            )
        except Problem as problem:
            trial.refuse(Step.PROFILE, problem)
            return None

    # ------------------------------------------------------------ what newOrder says

    async def _judge(self, question: Question, wanted: Wanted, trial: Trial) -> None:
        names = wanted.wish.identifiers
        for step, judge in self._orders.judgements(wanted):
            if step is Step.REQUEST:
                self._judge_request(question, wanted, trial)
            elif step is Step.NAMES:
                trial.judge_names(step, judge, names, wanted.policy.rulings)
            elif step is Step.PROFILE and wanted.profile.has_names:
                trial.judge_names(step, judge, names, partial(_of_profile, wanted.profile))
            elif step is Step.ISSUER and wanted.issuer.constraints:
                trial.judge_names(step, judge, names, good=partial(_said_issuer, wanted.issuer))
            else:
                trial.judge(step, judge, _GOOD[step].format(wanted))
        renews = await self._judge_replaced(question, wanted, trial)
        for name in names:
            self._judge_challenges(wanted, name, trial)
        await self._judge_pauses(wanted, trial)
        entitled = f"The profile {wanted.profile.name} is for the account."
        trial.judge(Step.PROFILE, lambda: _check_entitled(question, wanted), entitled)
        await self._judge_limits(question, wanted, renews or (), trial)
        if renews is not None:
            await self._judge_claim(wanted, trial)
        if question.csr is not None:
            await self._judge_csr(question.csr, wanted, trial)

    def _judge_request(self, question: Question, wanted: Wanted, trial: Trial) -> None:
        restrictions, client, key = wanted.policy.restrictions, question.client, question.eab_key
        if key is None:
            trial.say(
                Step.REQUEST, Verdict.OK, "No EAB key restricts from where, or for which profile, it asks."
            )
            return
        if client is None and restrictions.source_networks:
            networks = ", ".join(map(str, restrictions.source_networks))
            trial.say(Step.REQUEST, Verdict.UNKNOWN, f"Its client must ask from {networks}.")
        elif client is not None:
            from_there = f"The EAB key {key.id} is for requests from {client}."
            trial.judge(Step.REQUEST, lambda: restrictions.check_source(client), from_there)
        profile = wanted.profile.name
        for_it = f"The EAB key {key.id} is for the profile {profile}."
        trial.judge(Step.REQUEST, lambda: restrictions.check_profile(profile), for_it)

    async def _judge_replaced(
        self, question: Question, wanted: Wanted, trial: Trial
    ) -> tuple[Identifier, ...] | None:
        """The names whose renewal is due; None: no certificate is asked to be replaced, or it may not be."""
        if wanted.wish.replaces is None:
            return None
        key = question.eab_key
        service = None if wanted.account.id or key is None else key.service
        try:
            renews = await self._orders.judge_replaced(wanted.wish, account=wanted.account, service=service)
        except Problem as problem:
            trial.refuse("replaces", problem)
            return None
        trial.say("replaces", Verdict.OK, _said_replaced(wanted.wish, renews))
        return renews

    async def _judge_claim(self, wanted: Wanted, trial: Trial) -> None:
        if await orders.is_replaced(self._database, str(wanted.wish.replaces), now=wanted.now):
            trial.refuse("replaces", already_replaced())

    def _judge_challenges(self, wanted: Wanted, name: Identifier, trial: Trial) -> None:
        scope, challenges = wanted.scopes[name], wanted.profile.challenges
        if scope is not None:
            detail = f"{name.value} needs no challenge: {scope.sentence()}."
            trial.say("challenges", Verdict.OK, detail, name=name, facts=_approval(scope))
            return
        trial.judge(
            "challenges",
            lambda: self._authorizations.offered(name, challenges, None),
            self._said_challenges(wanted, name),
            name=name,
        )

    def _said_challenges(self, wanted: Wanted, name: Identifier) -> str:
        try:
            offered = self._authorizations.offered(name, wanted.profile.challenges, None)
        except Problem:
            return ""
        return f"{name.value} can be proved by {', '.join(offered)}."

    async def _judge_pauses(self, wanted: Wanted, trial: Trial) -> None:
        account = wanted.account.id
        if not account:
            return
        paused = await limits.paused_among(self._database, account, wanted.scopes)
        if not paused:
            trial.say("pauses", Verdict.OK, "The account is not paused for any of the names.")
            return
        names = [name for name in wanted.scopes if name in paused]
        trial.refuse("pauses", _paused(names), each=[_paused([name], identifier=name) for name in names])
        for name in wanted.scopes:
            if name not in paused:
                trial.say("pauses", Verdict.OK, f"The account is not paused for {name.value}.", name=name)

    async def _judge_limits(
        self, question: Question, wanted: Wanted, renews: Sequence[Identifier], trial: Trial
    ) -> None:
        requester, names = self._orders.requester(wanted), wanted.wish.identifiers
        known = wanted.account.id and question.client
        charges = (
            self._orders.charges(wanted, renews=renews)
            if known
            else self._limits.of_nobody_yet(requester, names, renews=renews)
        )
        for level in await self._limits.peek(charges):
            if level.left > 0:
                is_shared = level.charge.kind in OF_NAMES | OF_NETWORKS
                left = "not reached" if is_shared and not question.tells_of_others else f"{level.left} left"
                trial.say("limits", Verdict.OK, f"{level.charge.kind} of {level.charge.subject}: {left}.")
            else:
                refused = Refused(charge=level.charge, free_at=level.free_at)
                help_url = self._limits.rules.help_url
                trial.refuse("limits", limit_reached(refused, now=wanted.now, help_url=help_url))

    async def _judge_csr(self, request: CertificateRequest, wanted: Wanted, trial: Trial) -> None:
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

    async def _look_around(self, question: Question, wanted: Wanted, trial: Trial) -> None:
        held = await authorizations.reusable(
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
        deadline = asyncio.get_running_loop().time() + LOOK_WITHIN

        async def look(name: Identifier) -> list[Finding]:
            found: list[Finding] = []
            try:
                async with asyncio.timeout_at(deadline), self._places:
                    async for finding in self._looked(question, wanted, name):
                        found.append(finding)  # noqa: PERF401  what was found before the time is over is kept
            except TimeoutError:
                found.append(_unseen(name))
            return found

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
    Step.PROFILE: "The profile {0.profile.name} (version {0.profile.version}) fits.",
    Step.ISSUER: "The issuer {0.issuer.id} may issue for the names.",
    Step.VALIDITY: "The validity fits.",
}


def _said_issuer(issuer: Issuer, name: Identifier, _: object) -> str:
    return f"The issuer {issuer.id} may issue for {name.value}: its name constraints permit it."


def _said_account(question: Question) -> str:
    account, service = question.account.id, question.service
    if not account:
        return "It would be a new account."
    return (
        f"The account {account} may act."
        if service is None
        else f"The account {account} may act: the newest of the service {service}."
    )


def _without_key(service: str) -> Problem:
    return Problem(
        ErrorType.EXTERNAL_ACCOUNT_REQUIRED,
        f"The service {service} has no EAB key, and an account is a service's by its key: "
        f"acme-ca service eab {service} makes one.",
        code=Code.EAB_KEY_MISSING,
    )


def _of_profile(profile: Profile, name: Identifier) -> list[Ruling]:
    who, denying, allowing = f"the profile {profile.name}", profile.denying(name), profile.allowing(name)
    if denying is not None:
        return [Ruling(who, allowed=False, rule=denying)]
    return [Ruling(who, allowed=allowing is not None or profile.allowed_names is None, rule=allowing)]


def _said_replaced(wish: NewOrder, renews: Sequence[Identifier]) -> str:
    if not renews:
        return "The certificate may be replaced; its renewal is not due yet, so the limits count the order like any other."
    fresh = [name.value for name in wish.identifiers if name not in renews]
    counted = f"the limits count the order for {', '.join(fresh)}" if fresh else "no limit counts the order"
    return f"The certificate may be replaced, and its renewal is due: {counted}."


def _approval(scope: ApprovedScope) -> Facts:
    return {
        "scope": scope.id,
        "rule": str(scope.rule),
        "approved_by": scope.approved_by,
        "reason": scope.reason,
    }


def _unseen(name: Identifier) -> Finding:
    return Finding(
        step="reach",
        verdict=Verdict.UNKNOWN,
        detail=f"{name.value} could not be looked at within {LOOK_WITHIN:g} seconds: ask about fewer names.",
        name=name.value,
    )


def _paused(names: Sequence[Identifier], identifier: Identifier | None = None) -> Problem:
    """Not the client's own sentence: that has the link which lifts the pause."""
    said = ", ".join(name.value for name in names)
    return Problem(
        ErrorType.RATE_LIMITED,
        f"Validations of {said} failed again and again, so the account is paused for it.",
        identifier=identifier,
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
        code = code_of(look.unreachable)
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
    code = code_of(look.caa)
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
    knows_not = {ErrorType.UNAUTHORIZED, ErrorType.INCORRECT_RESPONSE}
    reached = problem is None or problem.type in knows_not or isinstance(problem, Unpublished)
    whom = f"The DNS of {name.value}" if challenge is ChallengeType.DNS_01 else name.value
    return Finding(
        step="dry_run",
        verdict=Verdict.OK if reached else Verdict.WARNING,
        detail=f"{whom} was reached; it does not know the made-up token, as it must."
        if reached or problem is None
        else problem.detail,
        code=None if reached or problem is None else code_of(problem),
        name=name.value,
        members={"challenge": challenge, "record": list(outcome.record)},
    )
