"""Renewal information and replaced certificates (RFC 9773)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from acme_ca.ca import issuers
from acme_ca.ca.profiles import Profiles
from acme_ca.ca.served import Issuers
from acme_ca.core import renewal
from acme_ca.core.certificates import Certificate
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AccountId, serial_text
from acme_ca.core.problems import ErrorType, Problem, malformed, not_found, unauthorized
from acme_ca.core.renewal import CertId, SuggestedWindow
from acme_ca.core.revocation import HOLD
from acme_ca.storage import certificates, orders, renewals
from acme_ca.storage.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalInfo:
    """`interval`: how long the client waits before it asks again. `explanation_url`: why the window is where it is."""

    window: SuggestedWindow
    explanation_url: str | None
    interval: timedelta

    @property
    def tag(self) -> str:
        """Another for every other answer: what an HTTP ETag is made of."""
        said = f"{self.window.start} {self.window.end} {self.explanation_url}"
        return hashlib.sha256(said.encode()).hexdigest()[:32]


class Renewals:
    def __init__(
        self, *, database: Database, issuers: Issuers, profiles: Profiles, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._issuers = issuers
        self._profiles = profiles
        self._clock = clock

    async def info(self, cert_id: CertId) -> RenewalInfo:
        """Raises Problem: 404 for a certificate that this CA did not issue."""
        found = await certificates.find(self._database, serial_text(cert_id.serial))
        if found is None or not await self._is(found, cert_id):
            raise _not_issued()
        window = await self._window(found, cert_id)
        interval = renewal.polling_interval(not_before=found.not_before, not_after=found.not_after)
        return RenewalInfo(window=window, explanation_url=found.explanation_url, interval=interval)

    async def _window(self, found: Certificate, cert_id: CertId) -> SuggestedWindow:
        profile = await self._profiles.find(found.profile)
        issuer = await self._issuers.find(found.issuer)
        # A hold may end: nobody is told to get round it.
        gone = None if found.reason is HOLD else found.revoked
        return renewal.suggested_window(
            cert_id,
            not_before=found.not_before,
            not_after=found.not_after,
            threshold=profile.renewal_threshold,
            moved=found.moved,
            revoked=gone or issuer.revoked,  # below a revoked CA nothing is valid any more
        )

    async def check_replaceable(
        self, cert_id: CertId, *, account: AccountId, identifiers: Sequence[Identifier]
    ) -> tuple[Identifier, ...]:
        """`judge`, and an order that replaces the certificate and is dead lets go of it: that no living one does is for the
        statement that makes the order to find out.
        """
        renewed = await self.judge(cert_id, account=account, service=None, identifiers=identifiers)
        await orders.release_replaced(self._database, str(cert_id), now=self._clock())
        return renewed

    async def judge(
        self,
        cert_id: CertId,
        *,
        account: AccountId,
        service: str | None,
        identifiers: Sequence[Identifier],
    ) -> tuple[Identifier, ...]:
        """Whether an order of the account, or of one that is not made yet and will be of the `service`, may replace the
        certificate (§5) with one for these names. Raises Problem.

        Returns those names that it renews: the shared ones, when the certificate's renewal is due, which is when its window
        has begun; else none.
        """
        serial = serial_text(cert_id.serial)
        found, replaceable = await renewals.find_replaceable(self._database, serial, account=account)
        if found is None or not await self._is(found, cert_id):
            raise _not_issued()
        of_service = service is not None and found.account_id is not None and found.service == service
        if not replaceable and not of_service:
            raise unauthorized(
                'The certificate in "replaces" was issued to another account, and not to one of the same service.'
            )
        shared = tuple(identifier for identifier in identifiers if identifier in found.identifiers)
        if not shared:
            raise malformed('The certificate in "replaces" has none of the order\'s names.')
        is_due = (await self._window(found, cert_id)).start <= self._clock()
        return shared if is_due else ()

    async def _is(self, found: Certificate, cert_id: CertId) -> bool:
        """Whether what has the serial number was signed, and by the key that the identifier names."""
        issuer = await self._issuers.find(found.issuer)
        identifier = issuers.key_identifier(issuer.certificate)
        return found.der is not None and identifier == cert_id.authority_key_identifier


def _not_issued() -> Problem:
    return not_found("This CA has issued no certificate of this identifier (RFC 9773 §4.1).")


def already_replaced() -> Problem:
    return Problem(
        ErrorType.ALREADY_REPLACED,
        'The certificate in "replaces" is being replaced by another order: finish that one, or order without "replaces".',
    )
