"""Rate limits (RFC 8555 §6.6): which buckets an act takes from, and what is said to who meets an empty one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime

from acme_ca.acme.unpausing import Unpausing
from acme_ca.core import limits
from acme_ca.core.codes import Code
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AccountId
from acme_ca.core.limits import Charge, Grouping, Limit, LimitKind, Requester
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.refreshing import Refresh
from acme_ca.storage import limits as store
from acme_ca.storage.database import Database
from acme_ca.storage.limits import Level, Override, Paused, Refused

_SENTENCES: Mapping[LimitKind, str] = {
    LimitKind.ORDERS_PER_ACCOUNT: "an account may place {amount} orders in {period}, and changes of it count",
    LimitKind.ORDERS_PER_EAB_KEY: "the accounts of one EAB key may place {amount} orders in {period}",
    LimitKind.ORDERS_PER_NETWORK: "{amount} orders may be placed from {subject} in {period}, and changes of accounts count",
    LimitKind.CERTIFICATES_PER_EAB_KEY: "the accounts of one EAB key may have {amount} certificates in {period}",
    LimitKind.CERTIFICATES_PER_NAME_SET: "there may be {amount} certificates for exactly these names in {period}",
    LimitKind.CERTIFICATES_PER_REGISTERED_NAME: "there may be {amount} certificates for {subject} and the names below it in {period}",
    LimitKind.ACCOUNTS_PER_NETWORK: "{amount} accounts may be made from {subject} in {period}",
}
PAUSED = "paused"
"""Counts with the kinds of limits."""
_SHOWN = 5
"""Names in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRules:
    """`limits`: those that are on. `help_url`: where the operator tells about them."""

    limits: Mapping[LimitKind, Limit]
    grouping: Grouping
    failures_before_pause: int
    """0: nobody is paused."""
    help_url: str | None = None


@dataclass(frozen=True, slots=True)
class _Live:
    """What is in force for a kind. `limit` None: none but for the overrides' subjects."""

    limit: Limit | None
    overrides: Mapping[str, Override] = field(default_factory=dict)

    def of(self, subject: str, now: datetime) -> Limit | None:
        override = self.overrides.get(subject)
        if override is None or (override.expires is not None and override.expires <= now):
            return self.limit
        return override.limit


_OFF = _Live(None)


class Limits:
    """The limits in force in this process: those of the settings, and the overrides as they were a moment ago."""

    def __init__(
        self,
        *,
        database: Database,
        rules: LimitRules,
        unpausing: Unpausing,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._rules = rules
        self._unpausing = unpausing
        self._clock = clock
        self._live = {kind: _Live(limit) for kind, limit in rules.limits.items()}
        self._refusals: Counter[str] = Counter()
        self.refresh = Refresh(self._look)

    async def tend(self) -> None:
        """Read the overrides again: an operator may have changed them meanwhile. And tell how many were refused: not each
        time, or who is refused all day would cost a statement more.
        """
        await self.refresh()
        if not (refused := self._refusals):
            return
        self._refusals = Counter()
        try:
            await store.add_refusals(self._database, refused)
        except BaseException:
            self._refusals += refused
            raise

    async def _look(self) -> None:
        live: dict[LimitKind, _Live] = {kind: _Live(limit) for kind, limit in self._rules.limits.items()}
        of_kinds: dict[LimitKind, dict[str, Override]] = {}
        for override in await store.overrides(self._database, now=self._clock()):
            of_kinds.setdefault(override.kind, {})[override.subject] = override
        for kind, overrides in of_kinds.items():
            live[kind] = _Live(self._rules.limits.get(kind), overrides)
        self._live = live

    @property
    def rules(self) -> LimitRules:
        return self._rules

    # ------------------------------------------------------------ what an act costs

    def of_order(
        self, requester: Requester, names: Sequence[Identifier], *, renews: Sequence[Identifier] = ()
    ) -> list[Charge]:
        """To be paid by newOrder; the buckets of certificates are only looked at, and paid when one is made.

        A renewal passes: an order that says which certificate it replaces, when that one's renewal is due. Only one living
        order can replace it, and what it becomes is not due for long: a client that renews in a circle does not pass.
        `renews`: names of that certificate. With any other name the order is one like others, but that these are not
        counted again.
        """
        if not (fresh := _fresh(names, renews)):
            return []
        spent = self._charges(limits.ORDERS, requester, names)
        seen = self._charges(limits.CERTIFICATES, requester, names, fresh=fresh, spends=False)
        return sorted((*spent, *seen))

    def of_authorization(self, requester: Requester) -> list[Charge]:
        """newAuthz counts as an order."""
        return sorted(self._charges(limits.ORDERS, requester, ()))

    def of_certificate(
        self, requester: Requester, names: Sequence[Identifier], *, renews: Sequence[Identifier] = ()
    ) -> list[Charge]:
        if not (fresh := _fresh(names, renews)):
            return []
        return sorted(self._charges(limits.CERTIFICATES, requester, names, fresh=fresh))

    def of_change(self, account: AccountId, address: str) -> list[Charge]:
        """A change of the account's contact or key counts as an order of it and of its network: each is in the audit for
        ever. What EAB keys have is for orders alone: whoever has one is no stranger.
        """
        requester = Requester(account=account, eab_key=None, address=address)
        return sorted(self._charges(limits.ORDERS, requester, ()))

    def of_account(self, address: str) -> list[Charge]:
        return list(self._charges_of(LimitKind.ACCOUNTS_PER_NETWORK, [self._rules.grouping.network(address)]))

    def of_nobody_yet(
        self,
        requester: Requester,
        names: Sequence[Identifier] | None = None,
        *,
        renews: Sequence[Identifier] = (),
    ) -> list[Charge]:
        """All that would be asked for by `requester`, of whom the account or the address may be empty, and for `names`: to
        look at, not to be paid.
        """
        fresh = _fresh(names or (), renews)
        kinds = set(LimitKind) if fresh or not names else {LimitKind.ACCOUNTS_PER_NETWORK}
        if not requester.account:
            kinds.discard(LimitKind.ORDERS_PER_ACCOUNT)
        if not requester.address:
            kinds -= limits.OF_NETWORKS
        if not names:
            kinds -= limits.OF_NAMES
        return sorted(self._charges(kinds, requester, names or (), fresh=fresh, spends=False))

    def _charges(
        self,
        kinds: AbstractSet[LimitKind],
        requester: Requester,
        names: Sequence[Identifier],
        *,
        fresh: Sequence[Identifier] | None = None,
        spends: bool = True,
    ) -> Iterator[Charge]:
        """`fresh`: those of the names that are not renewed; None: all."""
        for kind in kinds:
            own = requester.own_limit(kind) if kind in limits.OF_EAB_KEYS else None
            if own is not None or kind in self._live:
                counted = names if fresh is None or kind is LimitKind.CERTIFICATES_PER_NAME_SET else fresh
                subjects = self._subjects(kind, requester, counted)
                yield from self._charges_of(kind, subjects, own=own, spends=spends)

    def _charges_of(
        self, kind: LimitKind, subjects: Sequence[str], *, own: Limit | None = None, spends: bool = True
    ) -> Iterator[Charge]:
        """`own`: the limit of the subject itself, in the place of all others."""
        live, now = self._live.get(kind, _OFF), self._clock()
        for subject in subjects:
            if (limit := own or live.of(subject, now)) is not None:
                key = limits.bucket_key(kind, subject)
                yield Charge(key=key, kind=kind, subject=subject, limit=limit, spends=spends)

    def _subjects(self, kind: LimitKind, requester: Requester, names: Sequence[Identifier]) -> list[str]:
        match kind:
            case LimitKind.ORDERS_PER_ACCOUNT:
                return [requester.account]
            case LimitKind.ORDERS_PER_EAB_KEY | LimitKind.CERTIFICATES_PER_EAB_KEY:
                return [] if requester.eab_key is None else [requester.eab_key]
            case LimitKind.ORDERS_PER_NETWORK | LimitKind.ACCOUNTS_PER_NETWORK:
                return [self._rules.grouping.network(requester.address)]
            case LimitKind.CERTIFICATES_PER_NAME_SET:
                return [limits.name_set(names)]
            case LimitKind.CERTIFICATES_PER_REGISTERED_NAME:
                return self._rules.grouping.registered_names(names)

    # ------------------------------------------------------------ who meets one

    async def pay(self, charges: Sequence[Charge], *, account: AccountId) -> None:
        """By themselves. Raises Problem."""
        if charges and (refused := await store.spend(self._database, charges, now=self._clock())):
            raise self.problem(refused, account=account)

    async def give_back(self, charges: Sequence[Charge]) -> None:
        """What was paid for came to nothing, and not by the client's doing."""
        await store.give_back(self._database, charges)

    async def peek(self, charges: Sequence[Charge]) -> list[Level]:
        """What the charges would meet; nothing is spent."""
        return await store.peek(self._database, charges, now=self._clock())

    def problem(self, objection: Refused | Paused, *, account: AccountId) -> Problem:
        """For the client, who asked as `account`. It is counted."""
        if isinstance(objection, Paused):
            self._refusals[PAUSED] += 1
            return paused_for(objection, self._unpausing.link(account), help_url=self._rules.help_url)
        self._refusals[objection.charge.kind] += 1
        return limit_reached(objection, now=self._clock(), help_url=self._rules.help_url)


def _fresh(names: Sequence[Identifier], renews: Sequence[Identifier]) -> Sequence[Identifier]:
    return [name for name in names if name not in renews] if renews else names


def limit_reached(refused: Refused, *, now: datetime, help_url: str | None) -> Problem:
    charge, limit = refused.charge, refused.charge.limit
    seconds = max(1, math.ceil((refused.free_at - now).total_seconds()))
    said = _SENTENCES[charge.kind].format(
        amount=limit.amount, period=limit.said_period, subject=charge.subject
    )
    return Problem(
        ErrorType.RATE_LIMITED,
        f"Too many: {said}. Try again in {seconds} seconds, at {refused.free_at:%Y-%m-%dT%H:%M:%SZ}. Orders that replace "
        "a certificate whose renewal is due (RFC 9773) pass; ask the CA's operator if this is too little.",
        headers={"Retry-After": str(seconds), **_help(help_url)},
        code=Code.LIMIT_REACHED,
    )


def paused_for(paused: Paused, link: str, *, help_url: str | None) -> Problem:
    names = [identifier.value for identifier in paused.identifiers]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return Problem(
        ErrorType.RATE_LIMITED,
        f"Validations of {', '.join(names[:_SHOWN])}{more} failed again and again, so this account cannot order the name any "
        f"more. Mend what is wrong, then open {link} in a browser and lift the pause, or ask the CA's operator to.",
        headers=_help(help_url),
        code=Code.PAUSED,
    )


def _help(url: str | None) -> dict[str, str]:
    """RFC 8555 §6.6."""
    return {} if url is None else {"Link": f'<{url}>;rel="help"'}
