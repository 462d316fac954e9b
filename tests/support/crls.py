"""A CA's revocations on a clock of their own, and what a relying party makes of its CRLs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.ca import profiles
from acme_ca.ca.crls import CrlSigner
from acme_ca.ca.hierarchy import Hierarchy
from acme_ca.ca.issuers import Issuer
from acme_ca.ca.keystore import KeyStoreError, PrivateKey
from acme_ca.ca.served import record_of
from acme_ca.core.actors import SERVER, Actor
from acme_ca.core.crl import History
from acme_ca.core.ids import IssuerId, Serial, serial_text
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.states import IssuerState
from acme_ca.revocation.crl import CrlRules, Publisher
from acme_ca.revocation.revoke import Revocation
from acme_ca.storage import crls, issuers
from acme_ca.storage.crls import Files, Shard
from acme_ca.storage.database import Database
from tests.support import records
from tests.support.records import DAY

HOUR = timedelta(hours=1)
RULES = CrlRules(refresh=HOUR, lifetime=7 * DAY, delta_lifetime=DAY, delta_base=DAY, root_lifetime=180 * DAY)
BASE_URL = "http://ca.test"
OPERATOR = Actor("operator")


@dataclass
class Estate:
    """A CA of which only revocation works. `now` is its clock. `keys`: of the issuers, and by URI of the roots."""

    database: Database
    now: datetime
    issuers: dict[IssuerId, Issuer] = field(default_factory=dict)
    keys: dict[str, PrivateKey] = field(default_factory=dict)

    def clock(self) -> datetime:
        return self.now

    def publisher(self, *, signer: CrlSigner | None = None, **rules: timedelta) -> Publisher:
        """One more process."""
        return Publisher(
            database=self.database,
            signer=signer or self.signer(),
            rules=replace(RULES, **rules),
            public_http_url=BASE_URL,
            history=History(),
            clock=self.clock,
            log=structlog.get_logger(),
        )

    def signer(self) -> CrlSigner:
        return CrlSigner(issuers=self._find, open_key=self._open)

    async def _find(self, issuer: IssuerId) -> Issuer:
        return self.issuers[issuer]

    def _open(self, uri: str) -> PrivateKey:
        if uri not in self.keys:
            raise KeyStoreError(f"There is no {uri}.")
        return self.keys[uri]

    @property
    def room(self) -> Revocation:
        return Revocation(database=self.database, clock=self.clock)

    async def add(self, hierarchy: Hierarchy, *, root_key: str | None = None) -> Shard:
        """The shard 0 of its intermediate."""
        for issuer, kind, uri in (
            (hierarchy.root, IssuerKind.ROOT, root_key),
            (hierarchy.intermediate, IssuerKind.INTERMEDIATE, None),
        ):
            record = record_of(
                issuer,
                kind,
                parent=None if kind is IssuerKind.ROOT else hierarchy.root.id,
                key_uri=uri,
                state=IssuerState.ACTIVE,
                now=self.now,
            )
            await issuers.register(self.database, record, actor=SERVER)
            self.issuers[issuer.id] = issuer
        return Shard(hierarchy.intermediate.id, 0)

    async def issue(self, shard: Shard, *, life: timedelta = 90 * DAY, **fields: Any) -> Serial:
        return await records.certificate(
            self.database,
            issuer_id=shard.issuer,
            shard=shard.number,
            recorded=self.now,
            not_before=self.now,
            not_after=self.now + life,
            **fields,
        )

    async def revoke(
        self, serial: Serial, reason: RevocationReason = RevocationReason.SUPERSEDED, **circumstances: Any
    ) -> None:
        await self.room.take_back(serial, by=OPERATOR, reason=reason, **circumstances)

    async def hold(self, serial: Serial) -> None:
        await self.revoke(serial, RevocationReason.CERTIFICATE_HOLD)

    async def release(self, serial: Serial) -> None:
        await self.room.release(serial, by=OPERATOR)

    async def files(self, shard: Shard) -> Files:
        found = await crls.files(self.database, shard)
        assert found is not None
        return found

    async def full(self, shard: Shard) -> x509.CertificateRevocationList:
        return x509.load_der_x509_crl((await self.files(shard)).der)

    async def delta(self, shard: Shard) -> x509.CertificateRevocationList:
        der = (await self.files(shard)).delta
        assert der is not None
        return x509.load_der_x509_crl(der)

    async def queue(self) -> int:
        return await self.database.fetchval("SELECT count(*) FROM crl_due")


@asynccontextmanager
async def estate(dsn: str, now: datetime) -> AsyncIterator[Estate]:
    async with Database.open(dsn, connections=5) as database:
        await profiles.register(database, now=now)
        yield Estate(database, now.replace(microsecond=0))


# ---------------------------------------------------------------- a relying party

Listed = dict[Serial, bytes]
"""Serial numbers with the rest of what a CRL says of them."""


def number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def base_number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.DeltaCRLIndicator).value.crl_number


def listed(crl: x509.CertificateRevocationList) -> Listed:
    return {
        serial_text(entry.serial_number): (
            entry.revocation_date_utc,
            tuple((e.oid.dotted_string, e.value.public_bytes()) for e in entry.extensions),
        )
        for entry in crl
    }


def serials(crl: x509.CertificateRevocationList) -> set[Serial]:
    return set(listed(crl))


def reason(crl: x509.CertificateRevocationList, serial: Serial) -> x509.ReasonFlags | None:
    entry = crl.get_revoked_certificate_by_serial_number(int(serial, 16))
    assert entry is not None
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        return None


def applied(full: x509.CertificateRevocationList, delta: x509.CertificateRevocationList) -> Listed:
    """RFC 5280 §5.2.4: the full CRL, with what the delta says of it."""
    assert number(full) >= base_number(delta), "the delta is not for so old a CRL"
    result = listed(full)
    for serial, entry in listed(delta).items():
        result[serial] = entry
        if reason(delta, serial) is x509.ReasonFlags.remove_from_crl:
            del result[serial]
    return result


def scope(crl: x509.CertificateRevocationList) -> bytes:
    """The issuingDistributionPoint, which must be critical."""
    found = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint)
    assert found.critical
    return found.value.public_bytes()


def der(crl: x509.CertificateRevocationList) -> bytes:
    return crl.public_bytes(Encoding.DER)
