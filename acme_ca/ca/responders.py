"""OCSP responders: for each issuer a key of its own that the issuer vouches for (RFC 6960 §4.2.2.2).

So the issuer's key signs one responder certificate in days instead of each answer, and may be slow or far away. Key and
certificate lie in one file for each issuer. One process of those that share the folder renews them; each worker looks at
the files now and then and takes up what has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.ca import issuers as ca_issuers
from acme_ca.ca.authority import Authority, signature, signature_algorithm
from acme_ca.ca.issuers import Issuer, SignatureHash
from acme_ca.ca.keystore import KeyKind, KeyStoreError, PrivateKey
from acme_ca.ca.lint import LintError
from acme_ca.ca.own import KeyAndCertificate, OwnCertificate, Unusable
from acme_ca.ca.served import Issuers
from acme_ca.core import keys
from acme_ca.core.ids import IssuerId
from acme_ca.core.issuers import IssuerHashes, IssuerKind
from acme_ca.core.problems import Problem
from acme_ca.core.profiles import Profile
from acme_ca.log import Logger
from acme_ca.storage.database import Database

GRACE = timedelta(minutes=1)
"""How long an issuer that is new may be without a responder before health speaks of it."""
OVERDUE = 6
"""A responder certificate of which less than one part in so many is left: its renewal, due at a third, does not work."""
HASHES = ("sha1", "sha256", "sha384", "sha512")
"""By which clients may name issuers; nearly all of them use the first."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Responder:
    """Signs answers about the certificates of one issuer."""

    certificate: x509.Certificate
    der: bytes = field(repr=False)
    key: PrivateKey = field(repr=False)
    key_hash: bytes
    """Its ResponderID: SHA-1 of its public key."""
    algorithm: bytes
    """DER AlgorithmIdentifier of its signatures."""
    hash: SignatureHash

    @classmethod
    def of(cls, own: KeyAndCertificate) -> Responder:
        public_key = own.key.public_key()
        return cls(
            certificate=own.certificate,
            der=own.certificate.public_bytes(Encoding.DER),
            key=own.key,
            key_hash=hashlib.sha1(keys.bit_string(public_key)).digest(),  # noqa: S324  RFC 6960 §4.2.1 says so
            algorithm=signature_algorithm(public_key),
            hash=ca_issuers.signature_hash(public_key),
        )

    @property
    def not_after(self) -> datetime:
        return self.certificate.not_valid_after_utc

    def sign(self, response_data: bytes) -> bytes:
        return signature(self.key, response_data, self.hash)

    def life(self, now: datetime) -> str:
        """For health: "ok", "expires soon" or "expired"."""
        remaining = self.not_after - now
        if remaining <= timedelta(0):
            return "expired"
        whole = self.not_after - self.certificate.not_valid_before_utc
        return "ok" if remaining > whole / OVERDUE else "expires soon"


@dataclass(slots=True, eq=False, kw_only=True)
class Desk:
    """Where the status of an issuer's certificates is asked for."""

    issuer: Issuer
    issuers: frozenset[IssuerId]
    """All that have its name and its key."""
    own: OwnCertificate
    since: datetime
    """When this issuer was first seen."""
    responder: Responder | None = None
    """None: not made yet, or unusable when it was first looked at."""
    seen: tuple[int, int] | None = None
    """The file that was looked at last: when it was changed, its inode."""


class Responders:
    """The responders of this worker: one for each name and key of the intermediates, in whatever state these are."""

    def __init__(
        self,
        folder: Path,
        *,
        issuers: Issuers,
        database: Database,
        authority: Authority,
        profile: Callable[[], Profile],
        clock: Callable[[], datetime],
        log: Logger,
    ) -> None:
        self._folder = folder
        self._issuers = issuers
        self._database = database
        self._authority = authority
        self._profile = profile
        self._clock = clock
        self._log = log
        self._desks: dict[IssuerId, Desk] = {}
        self._by_hashes: dict[IssuerHashes, Desk] = {}

    def find(self, named: IssuerHashes) -> Desk | None:
        """None: no issuer here has this name and this key."""
        return self._by_hashes.get(named)

    async def renew_when_due(self) -> None:
        """To be called in one process of those that share the folder, which then takes up what it made. What fails for one
        issuer does not stop the others.
        """
        self._take_up_issuers()
        for desk in self._desks.values():
            if desk.issuer.key is None:  # the issuers tell of it
                continue
            try:
                await desk.own.renew_when_due()
            except (KeyStoreError, LintError, Problem, OSError) as error:
                self._log.error("OCSP responder not renewed", issuer=desk.issuer.id, reason=str(error))
        await self.refresh()

    async def refresh(self) -> None:
        """Take up what has changed: the issuers, and the files of their responders."""
        self._take_up_issuers()
        for desk in self._desks.values():
            self._take_up_file(desk)

    def health(self) -> str:
        """The worst of all responders: "missing", "expired", "expires soon" or "ok"."""
        now = self._clock()
        found = {_state(desk, now) for desk in self._desks.values()}
        return next((state for state in ("missing", "expired", "expires soon") if state in found), "ok")

    def _take_up_issuers(self) -> None:
        families = _families(self._issuers, self._clock())
        self._desks = {family[0].id: self._desk(family) for family in families}
        self._by_hashes = {named: desk for desk in self._desks.values() for named in _hashes(desk.issuer)}

    def _desk(self, family: list[Issuer]) -> Desk:
        """The one there is, with its issuers as they are now."""
        first, ids = family[0], frozenset(issuer.id for issuer in family)
        known = self._desks.get(first.id)
        if known is None:
            return Desk(issuer=first, issuers=ids, own=self._own(first), since=self._clock())
        known.issuer, known.issuers = first, ids
        return known

    def _own(self, issuer: Issuer) -> OwnCertificate:
        return OwnCertificate(
            self._folder / f"{issuer.id}.pem",
            identifiers=(),
            key_kind=_key_kind(issuer),
            database=self._database,
            authority=self._authority,
            issuer=lambda: self._desks[issuer.id].issuer,
            profile=self._profile,
            clock=self._clock,
        )

    def _take_up_file(self, desk: Desk) -> None:
        """One that cannot be used leaves the responder as it is, and is told of once."""
        try:
            found = desk.own.file.stat()
        except OSError:
            return
        if (stamp := (found.st_mtime_ns, found.st_ino)) == desk.seen:
            return
        desk.seen = stamp
        try:
            desk.responder = Responder.of(desk.own.read(desk.issuer))
        except Unusable as error:
            self._log.warning("OCSP responder not taken up", reason=str(error))


def _state(desk: Desk, now: datetime) -> str:
    if desk.responder is not None:
        return desk.responder.life(now)
    is_new = desk.since <= now <= desk.since + GRACE  # a clock may be set back
    due = desk.issuer.key is not None and not is_new
    return "missing" if due else "ok"


def _families(issuers: Iterable[Issuer], now: datetime) -> list[list[Issuer]]:
    """Intermediates with one name and one key together, while they have not expired; the one that ends last first."""
    families: dict[tuple[bytes, bytes], list[Issuer]] = {}
    for issuer in issuers:
        if issuer.kind is IssuerKind.INTERMEDIATE and issuer.not_after > now:
            name_and_key = (issuer.certificate.subject.public_bytes(), keys.spki_sha256(issuer.public_key))
            families.setdefault(name_and_key, []).append(issuer)
    return [sorted(family, key=lambda issuer: issuer.not_after, reverse=True) for family in families.values()]


def _hashes(issuer: Issuer) -> Iterator[IssuerHashes]:
    name, key = issuer.certificate.subject.public_bytes(), keys.bit_string(issuer.public_key)
    for algorithm in HASHES:
        yield IssuerHashes(
            algorithm, hashlib.new(algorithm, name).digest(), hashlib.new(algorithm, key).digest()
        )


def _key_kind(issuer: Issuer) -> KeyKind:
    """As the issuer's, for who can verify one can verify the other; the smaller of its kind, for it lives for days."""
    return KeyKind.RSA_2048 if isinstance(issuer.public_key, rsa.RSAPublicKey) else KeyKind.EC_P256
