"""Sealing the audit trail: every few seconds the events since the last seal are hashed, chained and signed.

The signing key is the server's own (`<data>/audit/signer.pem`, certified by the CA): who can write the database and not
the data directory cannot make a seal. Which process seals is decided by a lease; what two did at once, by the seal's
number. While there is no key, events wait for their seal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.audit import chain
from acme_ca.ca import issuers
from acme_ca.ca.authority import signature
from acme_ca.ca.issuers import Issuer
from acme_ca.ca.keystore import KeyStoreError
from acme_ca.ca.lint import LintError
from acme_ca.ca.own import KeyAndCertificate, OwnCertificate, Unusable
from acme_ca.core.ids import serial_text
from acme_ca.core.problems import Problem
from acme_ca.storage import seals
from acme_ca.storage.database import Database
from acme_ca.storage.seals import AuditEvent, Seal

MOST_EVENTS = 10_000
"""In one seal."""


class Sealing:
    """`checkpoint`: the file that keeps the newest checkpoint, outside of the database."""

    def __init__(
        self,
        *,
        database: Database,
        own: OwnCertificate,
        issuer: Callable[[], Issuer],
        origin: str,
        checkpoint: Path,
        clock: Callable[[], datetime],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._database = database
        self._own = own
        self._issuer = issuer
        self._origin = origin
        self._checkpoint = checkpoint
        self._clock = clock
        self._log = log
        self._told = ""
        self._above: list[str] = []

    async def seal_due(self) -> int:
        """Seal all events that are settled. Returns how many."""
        await self._look_at_ids()
        sealed = 0
        signer = await self._signer()
        until = await seals.settled(self._database)
        while signer and until and (done := await self._seal_next(signer, until)):
            sealed += done
        return sealed

    async def _look_at_ids(self) -> None:
        """Told once: until somebody mends it, events below are not sealed or not handed on, and nothing else shows it."""
        above = await seals.above_drawn(self._database) or []
        if above and above != self._above:
            self._log.error("the audit has ids above the last that was given out", of=above)
        self._above = above

    async def _seal_next(self, signer: KeyAndCertificate, until: int) -> int:
        """One more seal. Returns how many events it has; 0: nothing is left to seal, another process was quicker, or the
        signer has just been revoked.
        """
        last = await seals.last(self._database)
        events = await seals.events(
            self._database, after=last.last_event if last else None, until=until, limit=MOST_EVENTS
        )
        if not events:
            return 0
        seal = _signed(self._next(last, events), signer)
        if not await seals.add(
            self._database,
            seal,
            signer_sha256=hashlib.sha256(seal.signer).digest(),
            signer_serial=serial_text(signer.certificate.serial_number),
        ):
            return 0
        self._keep(seal)
        return len(events)

    def _next(self, last: Seal | None, events: Sequence[AuditEvent]) -> Seal:
        """Not signed yet."""
        seal = Seal(
            id=last.id + 1 if last else 1,
            at=self._clock(),
            origin=self._origin,
            first_event=last.last_event + 1 if last else events[0].id,
            last_event=events[-1].id,
            entries=chain.entries_of(events),
            previous=last.hash if last else chain.NOTHING,
            hash=chain.NOTHING,
        )
        return replace(seal, hash=chain.hash_of(seal))

    async def _signer(self) -> KeyAndCertificate | None:
        """The key, renewed when it is due. None: there is none that can be used now."""
        trouble = ""
        try:
            await self._own.renew_when_due()
        except (KeyStoreError, LintError, Problem, OSError) as error:
            trouble = str(error)
        signer = self._read()
        if trouble and signer and await self._own.is_revoked(signer.certificate):
            signer = None  # better no seal for a while than one that nobody believes
        trouble = trouble if signer else trouble or "its certificate is not valid now"
        if trouble != self._told and trouble:
            self._log.error(
                "the key that seals the audit is not renewed", sealing=bool(signer), reason=trouble
            )
        self._told = trouble
        return signer

    def _read(self) -> KeyAndCertificate | None:
        try:
            found = self._own.read(self._issuer())
        except (Unusable, Problem):
            return None
        leaf = found.certificate
        return found if leaf.not_valid_before_utc <= self._clock() <= leaf.not_valid_after_utc else None

    def _keep(self, seal: Seal) -> None:
        fresh = self._checkpoint.with_suffix(".new")
        try:
            fresh.write_text(chain.signed_text(seal), encoding="ascii")
            fresh.rename(self._checkpoint)
        except OSError as error:
            self._log.error("the checkpoint of the audit cannot be written", reason=str(error))


def _signed(seal: Seal, signer: KeyAndCertificate) -> Seal:
    hash_ = issuers.signature_hash(signer.key.public_key())
    return replace(
        seal,
        signature=signature(signer.key, chain.Checkpoint.of(seal).text.encode(), hash_),
        signer=signer.certificate.public_bytes(Encoding.DER),
    )
