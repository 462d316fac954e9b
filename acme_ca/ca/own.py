"""The server's own TLS certificate, from its own CA: recorded and signed like any other."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from acme_ca.ca import lint
from acme_ca.ca.authority import Authority
from acme_ca.ca.issuers import Issuer
from acme_ca.ca.served import Issuers
from acme_ca.core import keys
from acme_ca.core.identifiers import Identifier
from acme_ca.core.model import IssuanceRequest, Profile
from acme_ca.core.policy import NamePolicy
from acme_ca.storage import certificates
from acme_ca.storage.database import Database


class OwnCertificate:
    """`file` holds key and chain together (PEM, mode 0600), so that one rename replaces both. The key is not encrypted:
    it opens no more than this server's TLS, and the server must start without a human.
    """

    def __init__(
        self,
        file: Path,
        *,
        identifier: Identifier,
        database: Database,
        authority: Authority,
        issuers: Issuers,
        profile: Profile,
        clock: Callable[[], datetime],
    ) -> None:
        self._file = file
        self._identifier = identifier
        self._database = database
        self._authority = authority
        self._issuers = issuers
        self._profile = profile
        self._clock = clock

    async def renew_when_due(self) -> bool:
        """Replace the certificate when it is missing, unreadable, of an issuer that is not the active one, for another
        host, or two thirds over.
        """
        issuer = self._issuers.active()
        if not self._is_due(issuer):
            return False
        key = ec.generate_private_key(ec.SECP256R1())
        request = IssuanceRequest(
            identifiers=(self._identifier,),
            public_key=key.public_key(),
            profile=self._profile,
            issuer=issuer.id,
            shard=issuer.open_shard,
            not_before=None,
            not_after=None,
        )
        # The name policy is about clients' names; this one is the operator's own setting.
        linted = lint.lint(
            self._authority.prepare(request), policy=NamePolicy(), issuer=issuer, now=self._clock()
        )
        recorded = await certificates.record_own(
            self._database, linted, spki_sha256=keys.spki_sha256(key.public_key()), now=self._clock()
        )
        signed = await self._authority.sign(recorded)
        await certificates.store(self._database, signed, now=self._clock())
        leaf = x509.load_der_x509_certificate(signed.der).public_bytes(Encoding.PEM)
        _replace(self._file, _pem(key) + leaf + issuer.chain_pem)
        return True

    def _is_due(self, issuer: Issuer) -> bool:
        try:
            content = self._file.read_bytes()
            leaf = x509.load_pem_x509_certificate(content)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            leaf.verify_directly_issued_by(issuer.certificate)
            key = load_pem_private_key(content, None)
        except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return True
        life: timedelta = leaf.not_valid_after_utc - leaf.not_valid_before_utc
        return (
            key.public_key() != leaf.public_key()
            or [str(name.value) for name in names] != [self._identifier.value]
            or self._clock() > leaf.not_valid_after_utc - life / 3
        )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _replace(file: Path, content: bytes) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.rename(file)
