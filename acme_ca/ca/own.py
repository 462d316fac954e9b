"""The certificates that this CA gives to the server itself, keys and all: recorded and signed like any other.

They are the server's TLS certificate and its OCSP responders'.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from acme_ca.ca import keystore, lint
from acme_ca.ca.authority import Authority
from acme_ca.ca.issuers import Issuer
from acme_ca.ca.keystore import KeyKind, KeyUnavailable, PrivateKey
from acme_ca.core import keys
from acme_ca.core.certificates import IssuanceRequest
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import serial_text
from acme_ca.core.policy import NamePolicy
from acme_ca.core.profiles import Profile
from acme_ca.storage import certificates
from acme_ca.storage.database import Database

ROOM = 64 * 1024
"""Bytes. A key of the largest kind and a long chain take less."""


class Unusable(Exception):  # noqa: N818  the name says it
    """The file is missing or damaged, or what it holds is not the issuer's."""


@dataclass(frozen=True, slots=True)
class KeyAndCertificate:
    key: PrivateKey = field(repr=False)
    certificate: x509.Certificate


class OwnCertificate:
    """`file` holds key and chain together (PEM, mode 0600), so that one rename replaces both. The key is not encrypted:
    it opens no more than what this server is, and the server must start without a human.
    """

    def __init__(
        self,
        file: Path,
        *,
        identifiers: tuple[Identifier, ...],
        database: Database,
        authority: Authority,
        issuer: Callable[[], Issuer],
        profile: Callable[[], Profile],
        clock: Callable[[], datetime],
        key_kind: KeyKind = KeyKind.EC_P256,
    ) -> None:
        """`issuer`: the one that it is to be of, as it is now; `profile`: its newest version."""
        self.file = file
        self._identifiers = identifiers
        self._database = database
        self._authority = authority
        self._issuer = issuer
        self._profile = profile
        self._clock = clock
        self._key_kind = key_kind

    def read(self, issuer: Issuer) -> KeyAndCertificate:
        """What the file holds, if it is of this issuer. Raises Unusable."""
        try:
            content = self.file.read_bytes()
            leaf = x509.load_pem_x509_certificate(content)
            leaf.verify_directly_issued_by(issuer.certificate)
            key = load_pem_private_key(content, None)
        except (OSError, ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
            raise Unusable(f"{self.file} cannot be used: {type(error).__name__}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) or (
            key.public_key() != leaf.public_key()
        ):
            raise Unusable(f"{self.file} has a key that is not its certificate's")
        return KeyAndCertificate(key, leaf)

    async def renew_when_due(self) -> bool:
        """Replace the certificate when it is missing, unreadable, of another issuer, for other names, two thirds over,
        revoked or on hold, or, since the clock went back, not valid yet.

        Raises KeyUnavailable, LintError, `Problem`, DatabaseUnavailable, OSError.
        """
        issuer = self._issuer()
        if not (self._is_due(issuer) or await self.is_revoked(self.read(issuer).certificate)):
            return False
        if not await self._authority.can_sign(issuer.id):  # before there is a record of what nobody will sign
            raise KeyUnavailable(f"The key of issuer {issuer.id} does not sign.")
        _check_room(self.file)
        key = keystore.generate(self._key_kind)
        request = IssuanceRequest(
            identifiers=self._identifiers,
            public_key=key.public_key(),
            profile=self._profile(),
            issuer=issuer.id,
            shard=issuer.open_shard,
            not_before=None,
            not_after=None,
        )
        # The name policy is about clients' names; these are the operator's own settings.
        linted = lint.lint(
            self._authority.prepare(request), policy=NamePolicy(), issuer=issuer, now=self._clock()
        )
        recorded = await certificates.record_own(
            self._database, linted, spki_sha256=keys.spki_sha256(key.public_key()), now=self._clock()
        )
        signed = await self._authority.sign(recorded)
        await certificates.store(self._database, signed, now=self._clock())
        leaf = x509.load_der_x509_certificate(signed.der).public_bytes(Encoding.PEM)
        _replace(self.file, _pem(key) + leaf + issuer.chain_pem)
        return True

    async def is_revoked(self, leaf: x509.Certificate) -> bool:
        """Or on hold."""
        return await certificates.is_revoked(self._database, serial_text(leaf.serial_number))

    def _is_due(self, issuer: Issuer) -> bool:
        try:
            leaf = self.read(issuer).certificate
        except Unusable:
            return True
        life: timedelta = leaf.not_valid_after_utc - leaf.not_valid_before_utc
        return (
            _names(leaf) != {identifier.value for identifier in self._identifiers}
            or not leaf.not_valid_before_utc <= self._clock() <= leaf.not_valid_after_utc - life / 3
        )


def _names(leaf: x509.Certificate) -> set[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in names}


def _pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _check_room(file: Path) -> None:
    """Raises OSError where the file could not be replaced, or not as a whole. Asked before anything is signed for it: else
    each round of the loops on a full disk made one certificate more.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=file.parent) as trial:
        trial.write(bytes(ROOM))
        trial.flush()
        os.fsync(trial.fileno())


def _replace(file: Path, content: bytes) -> None:
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.rename(file)
