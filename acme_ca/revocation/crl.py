"""Publishing CRLs: soon after a revocation, and on schedule (RFC 5280 §5).

Whoever revokes leaves a wish in the queue, in the statement that revokes. The publisher reads the queue, then the
certificates, and makes each CRL that is wished for once. The statement that stores it deletes the wishes that were read,
and those alone: what was wished for in between is still there. It stores nothing where another CRL has come first, so any
number of publishers may run, and die at any moment.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from acme_ca.ca.crls import CrlSigner
from acme_ca.ca.keystore import KeyStoreError
from acme_ca.config import CrlSettings
from acme_ca.core import addresses, crl
from acme_ca.core.actors import SERVER
from acme_ca.core.crl import Entry, History, Plan, UnsignedCrl
from acme_ca.core.ids import IssuerId
from acme_ca.storage import crls
from acme_ca.storage.crls import DueCrl, Listing, Shard, SignedCrl
from acme_ca.storage.database import Database, DatabaseUnavailable

LEASE = "crl"
"""Of the loop that publishes."""
INTERVAL = 1.0
"""Seconds at most from a revocation to its CRL."""
ROUND = timedelta(seconds=2)
"""After which the publisher stops to renew its lease."""
PAUSE = timedelta(seconds=10)
"""How long an issuer that could not sign, or a shard that failed, is left alone, unless another revocation asks for its CRL."""
ROOT_PAUSE = timedelta(hours=1)
"""The same for a root, whose key may be out of reach for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlRules:
    refresh: timedelta
    lifetime: timedelta
    delta_lifetime: timedelta
    delta_base: timedelta
    root_lifetime: timedelta

    @classmethod
    def of(cls, settings: CrlSettings) -> CrlRules:
        return cls(
            refresh=timedelta(seconds=settings.refresh),
            lifetime=timedelta(seconds=settings.lifetime),
            delta_lifetime=timedelta(seconds=settings.delta_lifetime),
            delta_base=timedelta(seconds=settings.delta_base),
            root_lifetime=timedelta(seconds=settings.root_lifetime),
        )

    @property
    def late(self) -> timedelta:
        """The age at which a CRL should have been made anew long ago."""
        return 3 * self.refresh + crl.BACKDATING

    @property
    def root_refresh(self) -> timedelta:
        return self.root_lifetime / 2

    @property
    def root_warning(self) -> timedelta:
        """Remaining life of a root's CRL below which it is missed."""
        return self.root_lifetime / 4


class Publisher:
    def __init__(
        self,
        *,
        database: Database,
        signer: CrlSigner,
        rules: CrlRules,
        public_http_url: str,
        history: History,
        clock: Callable[[], datetime],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """`public_http_url`: base of the URLs in CRLs, as in certificates. `history`: what every worker has seen."""
        self._database = database
        self._signer = signer
        self._rules = rules
        self._public_http_url = public_http_url
        self._clock = clock
        self._log = log
        self._history = history
        self._failed: dict[IssuerId | Shard, _Failure] = {}
        self._turns = itertools.count(1)

    async def publish_due(self) -> None:
        """Make what is due; after ROUND the rest is left to the next call."""
        begun = self._clock()
        due = await crls.due(
            self._database,
            refresh=self._rules.refresh,
            root_refresh=self._rules.root_refresh,
            also=self._history.untrusted(),
            now=begun,
        )
        failed = sorted(filter(self._last_failed, due), key=self._last_failed)
        await self._try_until(begun + ROUND, [one for one in due if not self._last_failed(one)])
        await self._try_until(begun + ROUND, failed)

    async def _try_until(self, end: datetime, due: Sequence[DueCrl]) -> None:
        """The first of them in any case: nobody is so busy that another has no turn."""
        for one in due:
            if self._is_left_alone(one):
                continue
            await self._try(one)
            if self._clock() > end:
                return

    async def _try(self, due: DueCrl) -> None:
        """One issuer that cannot sign does not keep the others from it, nor one shard the others of its issuer."""
        try:
            await self.publish(due)
        except DatabaseUnavailable:
            raise
        except KeyStoreError as error:
            self._put_off(due.shard.issuer, due, str(error))
        except Exception:  # noqa: BLE001  whatever it is, it is this shard's alone
            self._log.exception("a CRL cannot be made", issuer=due.shard.issuer, shard=due.shard.number)
            self._put_off(due.shard, due, "see the log")
        else:
            for failed in (due.shard.issuer, due.shard):
                self._failed.pop(failed, None)

    # ------------------------------------------------------------ one CRL

    async def publish(self, due: DueCrl) -> bool:
        """Make the CRL of a shard, and its delta. False: another was stored meanwhile.

        Raises KeyStoreError when the issuer's key cannot be used.
        """
        plan = self._plan(due)
        listing = await self._listing(due, plan)
        delta = await self._delta(due, plan, listing)
        if delta is None:
            return False
        return await self._sign_and_store(due, plan, listing, delta)

    def _plan(self, due: DueCrl) -> Plan:
        newest, trusted = due.newest, False
        if newest is not None:
            base = newest.base.number
            self._history.look(due.shard, number=newest.number, base_number=base)
            trusted = self._history.trusts(due.shard, base)
        return crl.plan(newest, now=self._clock(), base_period=self._rules.delta_base, trusted=trusted)

    async def _listing(self, due: DueCrl, plan: Plan) -> Listing:
        return await crls.listing(self._database, due.shard, due.scope, lists_after=plan.base.lists_after)

    async def _delta(self, due: DueCrl, plan: Plan, listing: Listing) -> list[Entry] | None:
        """What the delta lists. None: the base is not the one any more that it was a moment ago."""
        if plan.is_base or due.of_root:
            return []
        number, base = await crls.base_entries(self._database, due.shard)
        if number != plan.base.number:
            return None
        return await asyncio.to_thread(
            crl.delta, base, listing.entries, listing.released, at=plan.this_update
        )

    async def _sign_and_store(self, due: DueCrl, plan: Plan, listing: Listing, delta: list[Entry]) -> bool:
        full = self._unsigned(due, plan, listing.entries)
        wanted = [full] if due.of_root else [full, self._unsigned_delta(full, plan, delta)]
        der, *rest = await self._signer.sign(wanted, key_uri=due.key_uri)
        signed = SignedCrl(
            shard=due.shard,
            number=plan.number,
            this_update=plan.this_update,
            next_update=full.next_update,
            entries=len(listing.entries),
            der=der,
            delta=rest[0] if rest else None,
            urls=full.urls,
            base=plan.base,
            base_entries=await asyncio.to_thread(crl.pack, listing.entries) if plan.is_base else None,
        )
        stored = await self._store(due, signed, len(delta))
        if stored:
            self._history.made(due.shard, plan)
        return stored

    def _unsigned(self, due: DueCrl, plan: Plan, entries: list[Entry]) -> UnsignedCrl:
        lifetime = self._rules.root_lifetime if due.of_root else self._rules.lifetime
        own = addresses.crl(self._public_http_url, *due.shard)
        # Certificates keep the address that they were issued with, should this server's change.
        urls = tuple(dict.fromkeys([*(due.newest.urls if due.newest else ()), own]))
        return UnsignedCrl(
            issuer=due.shard.issuer,
            number=plan.number,
            this_update=plan.this_update,
            next_update=min(_whole(self._clock()) + lifetime, due.issuer_ends),
            urls=urls,
            freshest=None if due.of_root else addresses.delta_crl(self._public_http_url, *due.shard),
            scope=due.scope,
            entries=entries,
        )

    def _unsigned_delta(self, full: UnsignedCrl, plan: Plan, entries: list[Entry]) -> UnsignedCrl:
        ends = _whole(self._clock()) + self._rules.delta_lifetime
        return replace(
            full,
            base_number=plan.base.number,
            next_update=min(ends, full.next_update),
            freshest=None,
            entries=entries,
        )

    async def _store(self, due: DueCrl, signed: SignedCrl, delta_entries: int) -> bool:
        detail = {
            "number": signed.number,
            "base": signed.base.number,
            "entries": signed.entries,
            "delta_entries": delta_entries,
            "sha256": hashlib.sha256(signed.der).hexdigest(),
            "delta_sha256": hashlib.sha256(signed.delta).hexdigest() if signed.delta else None,
        }
        stored = await crls.store(
            self._database,
            signed,
            after=due.newest.number if due.newest else None,
            wishes=due.wishes,
            event="crl.published",
            actor=SERVER,
            now=self._clock(),
            detail=detail,
        )
        if stored:
            self._log.info("crl published", issuer=due.shard.issuer, shard=due.shard.number, **detail)
        return stored

    # ------------------------------------------------------------ what cannot be signed

    def _last_failed(self, due: DueCrl) -> int:
        """0: it did not. One key that hangs takes more than a ROUND: whoever signed the last time comes first, and of the
        others each has its turn.
        """
        return max((failure.turn for failure in self._failures(due)), default=0)

    def _is_left_alone(self, due: DueCrl) -> bool:
        now, wishes = self._clock(), set(due.wishes)
        return any(
            failure.tried <= now < failure.tried + failure.pause  # a clock may be set back
            and wishes <= failure.wishes
            for failure in self._failures(due)
        )

    def _failures(self, due: DueCrl) -> list[_Failure]:
        return [self._failed[failed] for failed in (due.shard.issuer, due.shard) if failed in self._failed]

    def _put_off(self, failed: IssuerId | Shard, due: DueCrl, reason: str) -> None:
        now = self._clock()
        earlier = self._failed.get(failed)
        self._failed[failed] = _Failure(
            turn=next(self._turns),
            tried=now,
            pause=ROOT_PAUSE if due.of_root else PAUSE,
            wishes=frozenset(due.wishes) | (earlier.wishes if earlier else frozenset()),
        )
        if due.of_root and not self._is_missed(due, now):
            return  # an offline root is signed for by its ceremony
        self._log.error(
            "a CRL is due and cannot be signed",
            issuer=due.shard.issuer,
            shard=due.shard.number,
            root=due.of_root,
            next_update=due.newest.next_update.isoformat() if due.newest else None,
            reason=reason,
        )

    def _is_missed(self, due: DueCrl, now: datetime) -> bool:
        if due.newest is None:
            return due.is_named or bool(due.wishes)
        return bool(due.wishes) or due.newest.next_update - now < self._rules.root_warning


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """Of an issuer, or of one shard. `turn`: the failures in their order. `wishes`: those that are known and wait."""

    turn: int
    tried: datetime
    pause: timedelta
    wishes: frozenset[int]


def _whole(time: datetime) -> datetime:
    return time.replace(microsecond=0)
