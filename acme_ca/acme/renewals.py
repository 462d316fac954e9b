"""Renewal information and replaced certificates (RFC 9773)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from acme_ca.ca import issuers
from acme_ca.ca.served import Issuers
from acme_ca.core import renewal
from acme_ca.core.identifiers import Identifier
from acme_ca.core.model import AccountId, Certificate, IssuerId, serial_text
from acme_ca.core.problems import ErrorType, Problem, malformed, unauthorized
from acme_ca.core.renewal import CertId, SuggestedWindow
from acme_ca.storage import certificates, orders
from acme_ca.storage.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalInfo:
    """`interval`: how long the client waits before it asks again."""

    window: SuggestedWindow
    interval: timedelta


class Renewals:
    def __init__(self, *, database: Database, issuers: Issuers, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._issuers = issuers
        self._clock = clock

    async def info(self, cert_id: CertId) -> RenewalInfo:
        """Raises Problem: 404 for a certificate that this CA did not issue."""
        certificate = await self._find(cert_id)
        life = {"not_before": certificate.not_before, "not_after": certificate.not_after}
        window = renewal.suggested_window(cert_id, revoked=certificate.revoked, **life)
        return RenewalInfo(window=window, interval=renewal.polling_interval(**life))

    async def check_replaceable(
        self, cert_id: CertId, *, account: AccountId, identifiers: Sequence[Identifier]
    ) -> None:
        """Whether an order of the account for these names may replace the certificate (§5). Raises Problem.

        That no other living order does is for the statement that makes the order to find out.
        """
        certificate = await self._find(cert_id)
        if certificate.account_id != account:
            raise unauthorized('The certificate in "replaces" was issued to another account.')
        if not set(certificate.identifiers) & set(identifiers):
            raise malformed('The certificate in "replaces" has none of the order\'s names.')
        await orders.release_replaced(self._database, str(cert_id), now=self._clock())

    async def _find(self, cert_id: CertId) -> Certificate:
        found = await certificates.find(self._database, serial_text(cert_id.serial))
        if found is None or found.der is None or not await self._is_by(found.issuer, cert_id):
            raise malformed(
                "This CA has issued no certificate of this identifier (RFC 9773 §4.1).", status=404
            )
        return found

    async def _is_by(self, issuer: IssuerId, cert_id: CertId) -> bool:
        certificate = (await self._issuers.find(issuer)).certificate
        return issuers.key_identifier(certificate) == cert_id.authority_key_identifier


def already_replaced() -> Problem:
    return Problem(
        ErrorType.ALREADY_REPLACED,
        'The certificate in "replaces" is being replaced by another order: finish that one, or order without "replaces".',
    )
