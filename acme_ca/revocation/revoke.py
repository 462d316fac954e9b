"""Who may take a certificate back, and for which reason (RFC 8555 §7.6, RFC 5280 §5.3.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from acme_ca.core import keys, revocation
from acme_ca.core.actors import Actor
from acme_ca.core.certificates import Certificate
from acme_ca.core.der import Unreadable, strictly
from acme_ca.core.ids import AccountId, IssuerId, Serial, serial_text
from acme_ca.core.keys import PublicKey
from acme_ca.core.problems import ErrorType, Problem, conflict, malformed, not_found, unauthorized
from acme_ca.core.revocation import KEY_COMPROMISE, SUBSCRIBER_REASONS, RevocationReason, reason_name
from acme_ca.storage import authorizations, certificates, issuers
from acme_ca.storage.database import Database


@dataclass(frozen=True, slots=True)
class ByAccount:
    """Revoked by an account: the one it was issued to, or one that holds authorizations for all its names."""

    account: AccountId
    source: str = ""


@dataclass(frozen=True, slots=True)
class ByKey:
    """Revoked by the certificate's own key."""

    key: PublicKey
    source: str = ""


class Revocation:
    """The one room for everybody who takes certificates back."""

    def __init__(self, *, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    # ------------------------------------------------------------ subscribers

    async def revoke(self, der: bytes, *, by: ByAccount | ByKey, reason: object) -> None:
        """RFC 8555 §7.6. The certificate's own key may call itself compromised also when it is revoked already.

        Raises Problem: `malformed`, `unauthorized`, `badRevocationReason`, `alreadyRevoked`.
        """
        given = _subscriber_reason(reason)
        if given is KEY_COMPROMISE and not isinstance(by, ByKey):
            raise Problem(
                ErrorType.BAD_REVOCATION_REASON,
                "That a key is compromised is shown by signing with it: sign the revocation with the certificate's own key "
                "(certbot: --key-path), or give another reason.",
            )
        certificate = await self._find(der)
        actor = await self._authorize(certificate, der, by)
        if not await certificates.revoke(
            self._database, certificate.serial, reason=given, actor=actor, now=self._clock()
        ):
            raise await self._refusal(certificate.serial, given)

    # ------------------------------------------------------------ operators

    async def find(self, serial: Serial) -> Certificate:
        """Raises Problem (`malformed`, 404)."""
        certificate = await certificates.find(self._database, serial)
        if certificate is None:
            raise not_found("There is no certificate with this serial number.")
        return certificate

    async def take_back(
        self,
        serial: Serial,
        *,
        by: Actor,
        reason: RevocationReason,
        invalid_since: datetime | None = None,
        comment: str | None = None,
    ) -> None:
        """Revoke for good or put on hold, also what is recorded and not signed. `invalid_since`: when the certificate
        became invalid, as far as that is known (RFC 5280 §5.3.2). Raises Problem: `malformed`, `alreadyRevoked`.
        """
        now = self._clock()
        revocation.check_circumstances(invalid_since=invalid_since, comment=comment, now=now)
        if not await certificates.revoke(
            self._database,
            serial,
            reason=reason,
            actor=by,
            now=now,
            invalid_since=invalid_since,
            comment=comment,
        ):
            raise await self._refusal(serial, reason)

    async def release(self, serial: Serial, *, by: Actor, comment: str | None = None) -> None:
        """End a hold. Raises Problem (`malformed`) for what is not on hold."""
        now = self._clock()
        revocation.check_circumstances(invalid_since=None, comment=comment, now=now)
        if not await certificates.release(self._database, serial, actor=by, comment=comment, now=now):
            await self.find(serial)
            raise conflict("This certificate is not on hold: there is nothing to release.")

    async def revoke_issuer(self, issuer: IssuerId, *, by: Actor, reason: RevocationReason) -> None:
        """Take a CA certificate back: the CRL of the CA that signed it lists it. It signs status only from then on.

        Raises Problem: `malformed` for a root, or one that is not known, and for a hold; `alreadyRevoked`.
        """
        if reason is revocation.HOLD:
            raise malformed("CA certificates are not put on hold.")
        now = self._clock()
        if not await issuers.revoke(self._database, issuer, reason=reason, actor=by, now=now):
            records = {record.id: record for record in await issuers.all_issuers(self._database)}
            found = records.get(issuer)
            if found is None or found.parent_id is None:
                raise conflict(
                    "There is no such CA certificate that another one signed; a root is not revoked but trusted no more."
                )
            raise revocation.why_not(found.reason, reason) or _overtaken()

    # ------------------------------------------------------------ who may

    async def _refusal(self, serial: Serial, reason: RevocationReason) -> Problem:
        """Why the statement changed nothing."""
        found = await self.find(serial)
        return revocation.why_not(found.reason, reason) or _overtaken()

    async def _find(self, der: bytes) -> Certificate:
        certificate = await certificates.find(self._database, serial_text(_parse(der).serial_number))
        if certificate is None or certificate.der != der:
            raise not_found("This certificate was not issued by this CA, or not in exactly these bytes.")
        return certificate

    async def _authorize(self, certificate: Certificate, der: bytes, by: ByAccount | ByKey) -> Actor:
        """The actor for the audit. Raises Problem when it has no say over the certificate."""
        if isinstance(by, ByKey):
            if keys.spki_sha256(by.key) != keys.spki_sha256(_public_key(der)):
                raise unauthorized(
                    "The key in \"jwk\" is not the certificate's: sign with the certificate's own key or an account."
                )
            return Actor(f"key:{keys.spki_sha256(by.key).hex()}", by.source)
        if certificate.account_id != by.account and not await authorizations.holds_all(
            self._database, by.account, certificate.identifiers, now=self._clock()
        ):
            raise unauthorized(
                "This account did not order the certificate and does not hold valid authorizations for all its names: "
                "obtain these first, or sign with the certificate's own key."
            )
        return Actor(f"account:{by.account}", by.source)


def _overtaken() -> Problem:
    return Problem(
        ErrorType.ALREADY_REVOKED, "Someone else changed this certificate's status just now: look again."
    )


def _subscriber_reason(value: object) -> RevocationReason:
    if isinstance(value, bool) or not isinstance(value, int):
        raise malformed('"reason" must be a number: a reason code of RFC 5280 §5.3.1.')
    if value not in SUBSCRIBER_REASONS:
        allowed = ", ".join(f"{code:d} ({reason_name(code)})" for code in sorted(SUBSCRIBER_REASONS))
        raise Problem(ErrorType.BAD_REVOCATION_REASON, f"The reason must be one of {allowed}.")
    return RevocationReason(value)


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
