"""Authorizations and their challenges (RFC 8555 §7.1.4, §7.5), and the validations under way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakValueDictionary

import structlog

from acme_ca.acme import messages
from acme_ca.acme.limits import Limits
from acme_ca.acme.urls import Urls
from acme_ca.ca.policies import Policies
from acme_ca.core import base64url
from acme_ca.core.accounts import Account
from acme_ca.core.challenges import Attempt, ChallengeType, Outcome, proving
from acme_ca.core.codes import Code
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AccountId, AuthorizationId
from acme_ca.core.limits import Requester
from acme_ca.core.orders import Authorization
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.scopes import ApprovedScope
from acme_ca.core.states import AuthorizationStatus
from acme_ca.storage import authorizations
from acme_ca.storage.database import Database, DatabaseUnavailable
from acme_ca.storage.signers import Credential, Signer
from acme_ca.validation.validator import Validator

TOKEN_BYTES = 32
SWEEP_BATCH = 200
ACCOUNT_SHARE = 4
"""One account's validations take no more than this part of the places: a quarter."""
ANSWER_WITHIN = 0.1
"""Seconds that the answer to a challenge's response waits for the validation: most end sooner, and a poll is spared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRules:
    challenges: tuple[ChallengeType, ...]
    """Offered, in the order of preference."""
    lifetime: timedelta
    """Of a pending authorization, and of a valid one after its last use for an order."""
    reuse: timedelta
    attempt: timedelta
    """The longest that a validation takes: after that the sweep takes its process for dead."""
    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settlement:
    """What a validation made of an authorization."""

    outcome: Outcome
    at: datetime
    valid_until: datetime


class Authorizations:
    def __init__(
        self,
        *,
        database: Database,
        validator: Validator,
        urls: Urls,
        policies: Policies,
        limits: Limits,
        rules: AuthorizationRules,
        clock: Callable[[], datetime],
        random_bytes: Callable[[int], bytes],
        new_id: Callable[[], str],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._database = database
        self._validator = validator
        self._urls = urls
        self._policies = policies
        self._limits = limits
        self._rules = rules
        self._clock = clock
        self._random_bytes = random_bytes
        self._new_id = new_id
        self._log = log
        self._places = asyncio.Semaphore(rules.concurrency)
        self._shares: WeakValueDictionary[AccountId, asyncio.Semaphore] = WeakValueDictionary()
        self._under_way: dict[AuthorizationId, asyncio.Task[_Settlement | None]] = {}

    # ------------------------------------------------------------ making them

    def propose(
        self,
        account: AccountId,
        identifier: Identifier,
        *,
        challenges: AbstractSet[ChallengeType],
        expires: datetime,
        scope: ApprovedScope | None,
    ) -> Authorization:
        """A pending authorization, not stored yet, with those of `challenges` that the server offers. `scope`: covers the
        identifier, as far as this process knows; the statement that stores it finds out.

        Raises Problem when nothing can prove the identifier, and nobody approved it.
        """
        return Authorization(
            id=AuthorizationId(self._new_id()),
            account_id=account,
            identifier=identifier,
            status=AuthorizationStatus.PENDING,
            expires=expires,
            token=base64url.encode(self._random_bytes(TOKEN_BYTES)),
            offered=self.offered(identifier, challenges, scope),
            scope_id=None if scope is None else scope.id,
        )

    def offered(
        self, identifier: Identifier, challenges: AbstractSet[ChallengeType], scope: ApprovedScope | None
    ) -> tuple[ChallengeType, ...]:
        """Raises Problem when there is none, and no scope."""
        possible = proving(identifier) & challenges
        offered = tuple(kind for kind in self._rules.challenges if kind in possible)
        if not offered and scope is None:
            raise _unprovable(identifier)
        return offered

    def unprovable(
        self, identifiers: Iterable[Identifier], challenges: AbstractSet[ChallengeType]
    ) -> list[Problem]:
        """A `rejectedIdentifier` problem for each that this server could prove, but by none of `challenges`."""
        offered = frozenset(self._rules.challenges)
        return [
            _unprovable(identifier)
            for identifier in identifiers
            if (possible := proving(identifier) & offered) and not possible & challenges
        ]

    async def pre_authorize(
        self, account: Account, payload: Mapping[str, Any], *, client: str
    ) -> Authorization:
        """newAuthz (RFC 8555 §7.4.1)."""
        identifier = messages.identifier(payload.get("identifier"))
        if identifier.wildcard:
            raise Problem(
                ErrorType.REJECTED_IDENTIFIER,
                "A wildcard cannot be pre-authorized (RFC 8555 §7.4.1): order it.",
            )
        policy = await self._policies.of(account.eab_key_id)
        policy.restrictions.check_source(client)
        policy.check_names([identifier])
        now = self._clock()
        authorization = self.propose(
            account.id,
            identifier,
            challenges=frozenset(ChallengeType),
            expires=now + self._rules.lifetime,
            scope=self._policies.scope_for(account, identifier),
        )
        charges = self._limits.of_authorization(Requester.of(account, client, policy.restrictions))
        made = await authorizations.create(self._database, authorization, charges=charges, now=now)
        if not isinstance(made, Authorization):
            raise self._limits.problem(made, account=account.id)
        return made

    # ------------------------------------------------------------ what their holder may do

    async def update(
        self, authorization: Authorization, payload: Mapping[str, Any], *, client: str
    ) -> Authorization:
        """Deactivation (RFC 8555 §7.5.2); anything else changes nothing."""
        if messages.wants_deactivation(payload) and await authorizations.deactivate(
            self._database, authorization.id, client=client, now=self._clock()
        ):
            return replace(authorization, status=AuthorizationStatus.DEACTIVATED)
        return authorization

    async def answer(
        self, credential: Credential, authorization: AuthorizationId, kind: ChallengeType, *, client: str
    ) -> tuple[Signer, Authorization | None]:
        """The client is ready (RFC 8555 §7.5.1). The first answer starts the validation, later ones change nothing.

        The authorization, if it is the signer's: settled when the validation ends within ANSWER_WITHIN, `processing`
        when it takes longer. What is known of the signer is still to be confirmed.
        """
        now = self._clock()
        signer, found, begun = await authorizations.answer(
            self._database, credential, authorization, kind, due=now + self._rules.attempt, now=now
        )
        if found is None or not begun:
            return signer, found
        task = self._start(
            authorizations.OpenAttempt(
                authorization_id=found.id,
                account_id=credential.account,
                identifier=found.identifier,
                challenge=kind,
                token=found.token,
                thumbprint=credential.thumbprint,
                client=client,
            )
        )
        await asyncio.wait({task}, timeout=ANSWER_WITHIN)
        settlement = task.result() if task.done() and not task.cancelled() else None
        return signer, _settled(replace(found, challenge=kind), settlement)

    # ------------------------------------------------------------ validations under way

    def _start(self, opened: authorizations.OpenAttempt) -> asyncio.Task[_Settlement | None]:
        attempt = Attempt(
            authorization_id=opened.authorization_id,
            identifier=opened.identifier,
            challenge=opened.challenge,
            token=opened.token,
            thumbprint=opened.thumbprint,
            account_url=self._urls.account(opened.account_id),
        )
        task = asyncio.create_task(self._validate(attempt, opened.account_id, opened.client))
        self._under_way[attempt.authorization_id] = task
        task.add_done_callback(lambda _: self._under_way.pop(attempt.authorization_id, None))
        return task

    def _share_of(self, account: AccountId) -> asyncio.Semaphore:
        """An account's part of the places: what one asks for must not keep the others waiting."""
        share = self._shares.get(account)
        if share is None:
            share = self._shares[account] = asyncio.Semaphore(
                max(1, self._rules.concurrency // ACCOUNT_SHARE)
            )
        return share

    async def _validate(self, attempt: Attempt, account: AccountId, client: str) -> _Settlement | None:
        """Make the attempt and record what came of it. None: something else had become of the authorization before."""
        share = self._share_of(account)
        waits = share.locked() or self._places.locked()
        async with share, self._places:
            if waits and not await self._is_still_due(attempt):
                return None
            outcome = await self._validator.validate(attempt)
        now = self._clock()
        # However late it is used again, it outlives the order that uses it.
        valid_until = now + self._rules.lifetime + self._rules.reuse
        try:
            settled = await authorizations.settle(
                self._database,
                attempt,
                outcome,
                valid_until=valid_until,
                failures_before_pause=self._limits.rules.failures_before_pause,
                client=client,
                now=now,
            )
        except DatabaseUnavailable as error:  # the attempt falls due and is made again
            self._log.error("validation not recorded", authz=attempt.authorization_id, reason=str(error))
            return None
        except Exception:  # noqa: BLE001  as before; nobody else may be waiting for this task's failure
            self._log.exception("validation not recorded", authz=attempt.authorization_id)
            return None
        self._log.info(
            "validation",
            authz=attempt.authorization_id,
            identifier=str(attempt.identifier),
            challenge=attempt.challenge,
            outcome="valid" if outcome.problem is None else str(outcome.problem.type),
        )
        return _Settlement(outcome=outcome, at=now, valid_until=valid_until) if settled else None

    async def _is_still_due(self, attempt: Attempt) -> bool:
        """After a wait: the time for the attempt begins now, unless somebody else has ended it."""
        now = self._clock()
        with contextlib.suppress(DatabaseUnavailable):
            return await authorizations.renew_attempt(
                self._database, attempt.authorization_id, due=now + self._rules.attempt, now=now
            )
        return False

    async def take_over(self) -> int:
        """Make the attempts again whose process died. Returns how many."""
        now = self._clock()
        due = now + self._rules.attempt
        open_attempts = await authorizations.take_over_attempts(
            self._database, due=due, limit=SWEEP_BATCH, now=now
        )
        for attempt in open_attempts:
            if attempt.authorization_id not in self._under_way:
                self._start(attempt)
        return len(open_attempts)

    async def drain(self, grace: float) -> None:
        """Give the validations under way `grace` seconds to finish; put the rest back for others to make."""
        tasks = dict(self._under_way)
        if not tasks:
            return
        _, unfinished = await asyncio.wait(tasks.values(), timeout=grace)
        for task in unfinished:
            task.cancel()
        left = [authorization for authorization, task in tasks.items() if task in unfinished]
        with contextlib.suppress(DatabaseUnavailable):  # then they fall due by themselves, only later
            await authorizations.put_back_attempts(self._database, left, now=self._clock())


def _settled(authorization: Authorization, settlement: _Settlement | None) -> Authorization:
    """The authorization after its validation, as the database has it now."""
    if settlement is None:
        return authorization
    problem = settlement.outcome.problem
    if problem is not None:
        return replace(authorization, status=AuthorizationStatus.INVALID, error=problem.document())
    return replace(
        authorization,
        status=AuthorizationStatus.VALID,
        validated=settlement.at,
        expires=settlement.valid_until,
    )


def _unprovable(identifier: Identifier) -> Problem:
    return Problem(
        ErrorType.REJECTED_IDENTIFIER,
        f"No challenge that this CA offers for it can prove control of {identifier.value}: ask its operator.",
        identifier=identifier,
        code=Code.NO_CHALLENGE,
    )
