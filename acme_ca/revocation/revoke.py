"""Who may take a certificate back, and for which reason (RFC 8555 §7.6, RFC 5280 §5.3.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from acme_ca.core import keys
from acme_ca.core.der import Unreadable, strictly
from acme_ca.core.model import AccountId, Certificate, PublicKey, serial_text
from acme_ca.core.problems import ErrorType, Problem, malformed, unauthorized
from acme_ca.storage import certificates, orders
from acme_ca.storage.database import Database

KEY_COMPROMISE = 1
"""Its effect reaches beyond the certificate: the key is never accepted again."""
SUBSCRIBER_REASONS = {
    0: "unspecified",
    1: "keyCompromise",
    3: "affiliationChanged",
    4: "superseded",
    5: "cessationOfOperation",
}
"""The reason codes that a subscriber may give; the others are statements of the CA or its operators."""


@dataclass(frozen=True, slots=True)
class ByAccount:
    """Revoked by an account: the one it was issued to, or one that holds authorizations for all its names."""

    account: AccountId


@dataclass(frozen=True, slots=True)
class ByKey:
    """Revoked by the certificate's own key."""

    key: PublicKey


class Revocation:
    def __init__(self, *, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def revoke(self, der: bytes, *, by: ByAccount | ByKey, reason: object) -> None:
        """Raises Problem: `malformed`, `unauthorized`, `badRevocationReason`, `alreadyRevoked`."""
        code = _reason(reason)
        if code == KEY_COMPROMISE and not isinstance(by, ByKey):
            raise Problem(
                ErrorType.BAD_REVOCATION_REASON,
                "That a key is compromised is shown by signing with it: sign the revocation with the certificate's own key "
                "(certbot: --key-path), or give another reason.",
            )
        certificate = await self._find(der)
        actor = await self._authorize(certificate, der, by)
        if not await certificates.revoke(
            self._database, certificate.serial, reason=code, actor=actor, now=self._clock()
        ):
            raise Problem(
                ErrorType.ALREADY_REVOKED, "This certificate is revoked already; nothing is left to do."
            )

    async def _find(self, der: bytes) -> Certificate:
        certificate = await certificates.find(self._database, serial_text(_parse(der).serial_number))
        if certificate is None or certificate.der != der:
            raise malformed(
                "This certificate was not issued by this CA, or not in exactly these bytes.", status=404
            )
        return certificate

    async def _authorize(self, certificate: Certificate, der: bytes, by: ByAccount | ByKey) -> str:
        """The actor's name for the audit. Raises Problem when it has no say over the certificate."""
        if isinstance(by, ByKey):
            if keys.spki_sha256(by.key) != keys.spki_sha256(_public_key(der)):
                raise unauthorized(
                    "The key in \"jwk\" is not the certificate's: sign with the certificate's own key or an account."
                )
            return f"key:{keys.spki_sha256(by.key).hex()}"
        if certificate.account_id != by.account and not await orders.holds_all(
            self._database, by.account, certificate.identifiers, now=self._clock()
        ):
            raise unauthorized(
                "This account did not order the certificate and does not hold valid authorizations for all its names: "
                "obtain these first, or sign with the certificate's own key."
            )
        return f"account:{by.account}"


def _reason(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise malformed('"reason" must be a number: a reason code of RFC 5280 §5.3.1.')
    if value not in SUBSCRIBER_REASONS:
        allowed = ", ".join(f"{code} ({name})" for code, name in SUBSCRIBER_REASONS.items())
        raise Problem(ErrorType.BAD_REVOCATION_REASON, f"The reason must be one of {allowed}.")
    return value


def _parse(der: bytes) -> x509.Certificate:
    try:
        with strictly():
            return x509.load_der_x509_certificate(der)
    except Unreadable:
        raise malformed('"certificate" is not a certificate in DER.') from None


def _public_key(der: bytes) -> PublicKey:
    """The key of a certificate that this CA issued: of a kind that it certifies."""
    key = x509.load_der_x509_certificate(der).public_key()
    assert isinstance(key, PublicKey)  # noqa: S101
    return key
