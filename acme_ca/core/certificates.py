"""Certificates, by stage. Times are aware datetimes in UTC."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509

from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AccountId, IssuerId, Serial
from acme_ca.core.keys import PublicKey
from acme_ca.core.profiles import Profile, ProfileRef
from acme_ca.core.renewal import SuggestedWindow
from acme_ca.core.revocation import RevocationReason


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuanceRequest:
    """What a certificate is made from: the order's names and pins, and from the CSR only the public key.

    `not_before`, `not_after`: the order's wishes, already checked against the profile; None leaves it to the profile.
    """

    identifiers: tuple[Identifier, ...]
    public_key: PublicKey
    profile: Profile
    issuer: IssuerId
    shard: int
    """Of the issuer's CRL that will list the certificate, should it be revoked."""
    not_before: datetime | None
    not_after: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCertificate:
    """Stage 1: the bytes that shall be signed (DER TBSCertificate), not linted yet."""

    request: IssuanceRequest
    serial: Serial
    not_before: datetime
    not_after: datetime
    tbs: bytes = field(repr=False)
    draft: x509.Certificate = field(repr=False)
    """The same bytes under a throw-away signature: what the linter reads."""


@dataclass(frozen=True, slots=True)
class LintedCertificate:
    """Stage 2: `ca.lint.lint` found nothing. The only thing that storage records."""

    prepared: PreparedCertificate


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCertificate:
    """Stage 3: durably recorded with its serial. The only thing that `Authority.sign` accepts, in the request that
    recorded it or in the sweep that finds it after a crash.
    """

    serial: Serial
    issuer: IssuerId
    tbs: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCertificate:
    """Stage 4: signed, DER. To be stored at once."""

    serial: Serial
    der: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate as it is stored. `der` is None while it is recorded but not (or never) signed."""

    serial: Serial
    issuer: IssuerId
    account_id: AccountId | None
    identifiers: tuple[Identifier, ...]
    profile: ProfileRef
    shard: int
    der: bytes | None = field(repr=False)
    not_before: datetime
    not_after: datetime
    revoked: datetime | None
    reason: RevocationReason | None
    invalid_since: datetime | None = None
    """When it became invalid, as far as whoever revoked it knows (RFC 5280 §5.3.2)."""
    comment: str | None = None
    """Of who revoked it."""
    moved: SuggestedWindow | None = None
    """Its renewal window, where an operator set one."""
    explanation_url: str | None = None
    """Where people read why (RFC 9773 §4.2)."""
    service: str | None = None
    """Of the account's EAB key, or the one that an operator issued it for."""
    requested_by: str | None = None
    """`operator:NAME` who had it issued, where no order asked for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateStatus:
    """What is to be said of a certificate, now."""

    issuer: IssuerId
    signed: bool
    """False: recorded, and not (or never) signed."""
    revoked: datetime | None
    reason: RevocationReason | None
    changed: datetime | None
    """When it was last revoked, held, released, or given another reason."""
