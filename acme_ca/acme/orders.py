"""Orders from newOrder to the certificate (RFC 8555 §7.4)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import structlog

from acme_ca.acme import messages
from acme_ca.acme.authorizations import Authorizations
from acme_ca.acme.limits import Limits
from acme_ca.acme.messages import NewOrder
from acme_ca.acme.renewals import Renewals, already_replaced
from acme_ca.ca import lint, profiles
from acme_ca.ca.authority import Authority, key_out_of_reach
from acme_ca.ca.issuers import Issuer
from acme_ca.ca.keystore import KeyUnavailable
from acme_ca.ca.policies import AccountPolicy, Policies
from acme_ca.ca.profiles import Profiles
from acme_ca.ca.served import Issuers
from acme_ca.core import csr, keys
from acme_ca.core.accounts import Account
from acme_ca.core.certificates import IssuanceRequest, LintedCertificate, RecordedCertificate
from acme_ca.core.codes import Code
from acme_ca.core.csr import CertificateRequest
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AccountId, OrderId
from acme_ca.core.keys import PublicKey
from acme_ca.core.limits import Charge, Requester
from acme_ca.core.orders import Order
from acme_ca.core.policy import NamePolicy
from acme_ca.core.problems import ErrorType, Problem, compound
from acme_ca.core.profiles import Profile
from acme_ca.core.scopes import ApprovedScope
from acme_ca.core.states import OrderStatus
from acme_ca.core.weakkeys import WeakKeys
from acme_ca.storage import certificates, orders
from acme_ca.storage import keys as key_store
from acme_ca.storage.database import Database, DatabaseUnavailable
from acme_ca.storage.limits import Paused, Refused
from acme_ca.storage.orders import Unordered
from acme_ca.storage.signers import Credential, Signer

SWEEP_AFTER = timedelta(seconds=30)
"""How long an order may be `processing` before the sweep takes the process for dead that claimed it."""
SWEEP_BATCH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRules:
    max_identifiers: int
    lifetime: timedelta
    """Of a new order."""
    reuse: timedelta
    """For how long after its validation an authorization is good for further orders."""
    delay_issuance: float
    """Seconds that issuance is held back: misbehaviour on request, for tests of clients."""


class Step(StrEnum):
    """What an order is judged by."""

    REQUEST = "request"
    """Whether the EAB key lets this address, and this profile, ask."""
    NAMES = "names"
    """The name policies."""
    PROFILE = "profile"
    ISSUER = "issuer"
    VALIDITY = "validity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An order that is asked for, with all that it is judged by."""

    wish: NewOrder
    account: Account
    client: str
    policy: AccountPolicy
    profile: Profile
    issuer: Issuer
    scopes: Mapping[Identifier, ApprovedScope | None]
    """The approval of each name."""
    now: datetime

    @property
    def to_prove(self) -> list[Identifier]:
        return [name for name, scope in self.scopes.items() if scope is None]


class Orders:
    """`default_profile` is the one of orders that ask for none."""

    def __init__(
        self,
        *,
        database: Database,
        authority: Authority,
        issuers: Issuers,
        profiles: Profiles,
        default_profile: str,
        policies: Policies,
        weak_keys: WeakKeys,
        authorizations: Authorizations,
        renewals: Renewals,
        limits: Limits,
        rules: OrderRules,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._database = database
        self._authority = authority
        self._issuers = issuers
        self._profiles = profiles
        self._default_profile = default_profile
        self._policies = policies
        self._weak_keys = weak_keys
        self._authorizations = authorizations
        self._renewals = renewals
        self._limits = limits
        self._rules = rules
        self._clock = clock
        self._new_id = new_id
        self._log = log
        self._held_back: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ newOrder

    async def create(
        self, credential: Credential, payload: Mapping[str, Any], *, account: Account, client: str
    ) -> tuple[Signer, Order | Problem]:
        """A new order, if the signer may act; what is known of the signer, `account`, is still to be confirmed before the
        problem is told why there is none. `client`: its address.
        """
        wish = messages.new_order(payload, most=self._rules.max_identifiers)
        wanted = await self.consider(wish, account=account, client=client)
        for _, judge in self.judgements(wanted):
            judge()
        renews = await self._renewed(wish, credential.account)
        profile, now = wanted.profile, wanted.now
        order = self._drafted(wanted, credential.account, renews=renews)
        proposals = [
            self._authorizations.propose(
                credential.account,
                identifier,
                challenges=profile.challenges,
                expires=order.expires,
                scope=scope,
            )
            for identifier, scope in wanted.scopes.items()
        ]
        signer, made = await orders.create(
            self._database,
            credential,
            order,
            proposals,
            profile=profile,
            charges=self.charges(wanted, renews=renews),
            now=now,
            reusable_since=self.reusable_since(now),
        )
        if isinstance(made, Refused | Paused):
            return signer, self._limits.problem(made, account=credential.account)
        return signer, _unordered(made) if isinstance(made, Unordered) else made

    async def judge_replaced(
        self, wish: NewOrder, *, account: Account, service: str | None
    ) -> tuple[Identifier, ...]:
        """What `create` finds out of the certificate that is to be replaced, and nothing changes. Raises Problem."""
        assert wish.replaces is not None  # noqa: S101  nobody asks otherwise
        return await self._renewals.judge(
            wish.replaces, account=account.id, service=service, identifiers=wish.identifiers
        )

    async def _renewed(self, wish: NewOrder, account: AccountId) -> tuple[Identifier, ...]:
        if wish.replaces is None:
            return ()
        return await self._renewals.check_replaceable(
            wish.replaces, account=account, identifiers=wish.identifiers
        )

    # ------------------------------------------------------------ what newOrder and `explain` ask

    async def consider(
        self, wish: NewOrder, *, account: Account, client: str, policy: AccountPolicy | None = None
    ) -> Wanted:
        """`policy`: in the place of the account's. Raises Problem when there is no such profile, or nobody to issue."""
        policy = policy or await self._policies.of(account.eab_key_id)
        name = policy.default_profile(self._default_profile) if wish.profile is None else wish.profile
        profile = await self._profiles.choose(name)
        return Wanted(
            wish=wish,
            account=account,
            client=client,
            policy=policy,
            profile=profile,
            issuer=self._issuers.active(),
            scopes={name: self._policies.scope_for(account, name) for name in wish.identifiers},
            now=self._clock(),
        )

    def judgements(self, wanted: Wanted) -> Iterator[tuple[Step, Callable[[], object]]]:
        """All that can be refused before the statement that makes the order, in turn. Each raises Problem."""
        wish, policy, profile, issuer = wanted.wish, wanted.policy, wanted.profile, wanted.issuer
        yield Step.REQUEST, lambda: policy.check_request(client=wanted.client, profile=profile.name)
        yield Step.NAMES, lambda: policy.check_names(wish.identifiers)
        yield Step.PROFILE, lambda: self._check_profile(profile, wish, wanted.to_prove, wanted.now)
        yield Step.ISSUER, lambda: _check_issuer(issuer, wish.identifiers)
        yield (
            Step.VALIDITY,
            lambda: profiles.validity(
                profile,
                now=wanted.now,
                not_before=wish.not_before,
                not_after=wish.not_after,
                issuer_not_after=issuer.not_after,
            ),
        )

    def requester(self, wanted: Wanted) -> Requester:
        return Requester.of(wanted.account, wanted.client, wanted.policy.restrictions)

    def charges(self, wanted: Wanted, *, renews: Sequence[Identifier] = ()) -> list[Charge]:
        return self._limits.of_order(self.requester(wanted), wanted.wish.identifiers, renews=renews)

    @property
    def most_names(self) -> int:
        """In an order."""
        return self._rules.max_identifiers

    def now(self) -> datetime:
        return self._clock()

    def reusable_since(self, now: datetime) -> datetime:
        """Authorizations that were validated later are good for further orders."""
        return now - self._rules.reuse

    def check_csr(
        self, request: CertificateRequest, identifiers: Sequence[Identifier], profile: Profile
    ) -> None:
        """Raises Problem (`badCSR`)."""
        csr.check_names(request, identifiers)
        keys.check_certificate_key(request.public_key, profile)
        self._weak_keys.check(request.public_key, ErrorType.BAD_CSR)

    def _check_profile(
        self, profile: Profile, wish: NewOrder, to_prove: Sequence[Identifier], now: datetime
    ) -> None:
        """One that was asked for must fit all of the order; the default is nobody's wish, and only its names are refused
        here: what else does not fit is refused as it would be without profiles. `to_prove`: names that nobody approved.
        """
        misfits = profile.name_violations(wish.identifiers)
        if wish.profile is not None:
            length = {"not_before": wish.not_before, "not_after": wish.not_after}
            misfits += profiles.length_violations(profile, now=now, **length)
            misfits += self._authorizations.unprovable(to_prove, profile.challenges)
        if misfits:
            raise compound(misfits) if wish.profile is None else _unfit(misfits)

    def _drafted(self, wanted: Wanted, account: AccountId, *, renews: tuple[Identifier, ...]) -> Order:
        """Without its authorizations: which they are is for the statement to find out."""
        wish = wanted.wish
        return Order(
            id=OrderId(self._new_id()),
            account_id=account,
            status=OrderStatus.PENDING,
            identifiers=wish.identifiers,
            authorizations=(),
            expires=wanted.now + self._rules.lifetime,
            not_before=wish.not_before,
            not_after=wish.not_after,
            profile=wanted.profile.ref,
            issuer=wanted.issuer.id,
            replaces=None if wish.replaces is None else str(wish.replaces),
            renews=renews,
        )

    # ------------------------------------------------------------ finalize

    async def finalize(
        self, order: Order, payload: Mapping[str, Any], *, account: Account, client: str
    ) -> Order:
        """Everything that can be refused is refused before the order changes; then it ends `valid` or `invalid`."""
        if order.status is not OrderStatus.READY:
            raise _not_ready(order)
        policy = await self._policies.of(account.eab_key_id)  # it may have changed since newOrder (lesson 3)
        policy.check_request(client=client, profile=order.profile.name)
        policy.check_names(order.identifiers)
        request = csr.parse_csr(messages.csr_of(payload))
        profile = await self._profiles.find(order.profile)
        self.check_csr(request, order.identifiers, profile)
        charges = self._limits.of_certificate(
            Requester.of(account, client, policy.restrictions), order.identifiers, renews=order.renews
        )
        processing, recorded = await self._record(order, charges, profile, request.public_key, policy.names)
        if self._rules.delay_issuance:
            self._hold_back(processing, recorded, charges, client)
            return processing
        return await self._issue(processing, recorded, charges, client)

    async def _record(
        self,
        order: Order,
        charges: Sequence[Charge],
        profile: Profile,
        public_key: PublicKey,
        policy: NamePolicy,
    ) -> tuple[Order, RecordedCertificate]:
        """Win the order, under the issuer that it pins; under the active one, when that has been retired meanwhile."""
        spki_sha256 = keys.spki_sha256(public_key)
        for _ in range(2):
            order, issuer = await self._with_issuer(order)
            _check_issuer(issuer, order.identifiers)
            linted = self._prepare(order, profile, public_key, issuer, policy)
            recorded = await orders.claim_and_record(
                self._database, order, linted, spki_sha256=spki_sha256, charges=charges, now=self._clock()
            )
            if isinstance(recorded, Refused):
                raise self._limits.problem(recorded, account=order.account_id)
            if recorded is not None:
                return replace(order, status=OrderStatus.PROCESSING, serial=recorded.serial), recorded
            await self._issuers.refresh()  # perhaps it was retired a moment ago
            if issuer.id == order.issuer and self._issuers.get(issuer.id) == issuer:
                break
        raise await self._why_not(order, spki_sha256)

    async def _with_issuer(self, order: Order) -> tuple[Order, Issuer]:
        issuer = await self._issuers.find(order.issuer)
        if issuer.signs_leaves(self._clock()):
            return order, issuer
        successor = self._issuers.active()
        if await orders.move(self._database, order, successor.id, now=self._clock()):
            return replace(order, issuer=successor.id), successor
        await self._issuers.refresh()  # perhaps it is in use again
        return order, await self._issuers.find(order.issuer)

    def _prepare(
        self, order: Order, profile: Profile, public_key: PublicKey, issuer: Issuer, policy: NamePolicy
    ) -> LintedCertificate:
        request = IssuanceRequest(
            identifiers=order.identifiers,
            public_key=public_key,
            profile=profile,
            issuer=issuer.id,
            shard=issuer.open_shard,
            not_before=order.not_before,
            not_after=order.not_after,
        )
        prepared = self._authority.prepare(request)
        try:
            return lint.lint(prepared, policy=policy, issuer=issuer, now=self._clock())
        except lint.LintError as error:
            self._log.error("the linter refused a certificate", order=order.id, findings=error.findings)
            raise _not_issuable() from None

    async def _why_not(self, order: Order, spki_sha256: bytes) -> Problem:
        if objection := await key_store.objection(self._database, spki_sha256):
            return Problem(ErrorType.BAD_CSR, f"The key in the CSR is refused: {objection}.")
        return _not_ready(order)

    async def _issue(
        self, order: Order, recorded: RecordedCertificate, charges: Sequence[Charge], client: str
    ) -> Order:
        """Raises Problem when the key is out of reach: then the order is what it was before, and nothing was paid."""
        problem = await self._sign_and_store(order.id, recorded, charges, client)
        if problem is not None:
            return replace(order, status=OrderStatus.INVALID, serial=None, error=problem.document())
        return replace(order, status=OrderStatus.VALID)

    async def _sign_and_store(
        self, order: OrderId, recorded: RecordedCertificate, charges: Sequence[Charge], client: str
    ) -> Problem | None:
        """Whatever goes wrong, the order does not stay `processing`: it ends `invalid` here, or is given back when the
        key is out of reach, or the sweep resumes it when the database is. Returns what the order ended with.
        """
        try:
            signed = await self._authority.sign(recorded)
            await certificates.store(self._database, signed, source=client, now=self._clock())
        except DatabaseUnavailable:
            raise
        except KeyUnavailable as error:
            self._log.error("a key is out of reach", order=order, issuer=recorded.issuer, reason=str(error))
            await orders.give_back(self._database, order, recorded.serial, now=self._clock())
            await self._limits.give_back(charges)
            raise key_out_of_reach() from None
        except Exception as error:  # noqa: BLE001  whatever it is, the order must end
            self._log.exception("issuance failed", order=order, serial=recorded.serial)
            problem = error if isinstance(error, Problem) else _signing_failed()
            await orders.fail(self._database, order, problem.document(), client=client, now=self._clock())
            return problem
        return None

    def _hold_back(
        self, order: Order, recorded: RecordedCertificate, charges: Sequence[Charge], client: str
    ) -> None:
        async def later() -> None:
            await asyncio.sleep(self._rules.delay_issuance)
            await self._issue(order, recorded, charges, client)

        task = asyncio.create_task(later())
        self._held_back.add(task)
        task.add_done_callback(self._held_back.discard)

    # ------------------------------------------------------------ the sweep

    async def resume(self) -> int:
        """Sign and store what a crash left recorded and unsigned. Returns how many orders it took up."""
        now = self._clock()
        before = now - SWEEP_AFTER - timedelta(seconds=self._rules.delay_issuance)
        left = await orders.unsigned(self._database, before=before, limit=SWEEP_BATCH, now=now)
        for order, recorded in left:
            self._log.warning("issuance resumed", order=order, serial=recorded.serial)
            with contextlib.suppress(Problem):  # given back
                await self._sign_and_store(order, recorded, (), "")
        return len(left)


def _check_issuer(issuer: Issuer, wanted: Sequence[Identifier]) -> None:
    if refused := issuer.refused(wanted):
        raise compound(refused)


def _not_ready(order: Order) -> Problem:
    what = {
        OrderStatus.PENDING: "Its authorizations are not all valid yet: answer a challenge of each first.",
        OrderStatus.PROCESSING: "It is being finalized: poll it.",
        OrderStatus.VALID: "It is finalized: download its certificate.",
    }.get(order.status, "It has ended or is not ready any more: place a new order.")
    return Problem(ErrorType.ORDER_NOT_READY, f"The order cannot be finalized. {what}")


def _unfit(violations: Sequence[Problem]) -> Problem:
    """A profile that was asked for and "is incompatible with the rest of the contents of the request" MUST be refused as
    invalidProfile (draft-ietf-acme-profiles §4); the subproblems are what they are without the wish.
    """
    several = f"The profile does not fit the order: {len(violations)} subproblems say why."
    detail = violations[0].detail if len(violations) == 1 else several
    return Problem(ErrorType.INVALID_PROFILE, detail, subproblems=violations)


def _unordered(why: Unordered) -> Problem:
    return already_replaced() if why is Unordered.REPLACED else not_entitled()


def not_entitled() -> Problem:
    return Problem(
        ErrorType.INVALID_PROFILE,
        "The profile is not for this account: ask for another, or the CA's operator for an account that may use it.",
        code=Code.PROFILE_NOT_ALLOWED,
    )


def _not_issuable() -> Problem:
    return Problem(
        ErrorType.SERVER_INTERNAL,
        "The certificate failed this CA's own checks and was not signed: tell the CA's operator.",
    )


def _signing_failed() -> Problem:
    return Problem(
        ErrorType.SERVER_INTERNAL,
        "The certificate could not be signed: place a new order; tell the CA's operator.",
    )
