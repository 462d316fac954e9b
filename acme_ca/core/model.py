"""The things this server is about, as plain values. Times are aware datetimes in UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, NewType, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from acme_ca.core.identifiers import Identifier
from acme_ca.core.problems import Problem
from acme_ca.core.states import AccountStatus, AuthorizationStatus, ChallengeStatus, OrderStatus

AccountId = NewType("AccountId", str)
OrderId = NewType("OrderId", str)
AuthorizationId = NewType("AuthorizationId", str)
IssuerId = NewType("IssuerId", str)
EabKeyId = NewType("EabKeyId", str)

Serial = NewType("Serial", str)
"""A certificate's serial number: 32 lower-case hexadecimal digits. The one spelling in rows, URLs, logs and JSON."""

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class IssuerKind(StrEnum):
    ROOT = "root"
    INTERMEDIATE = "intermediate"
    CROSS = "cross"
    """Another certificate of a CA that has one here already: part of alternate chains only."""


class RevocationReason(IntEnum):
    """RFC 5280 §5.3.1, those that make sense for what this CA issues. A hold is the one that can be released."""

    UNSPECIFIED = 0
    KEY_COMPROMISE = 1
    CA_COMPROMISE = 2
    AFFILIATION_CHANGED = 3
    SUPERSEDED = 4
    CESSATION_OF_OPERATION = 5
    CERTIFICATE_HOLD = 6
    PRIVILEGE_WITHDRAWN = 9
    AA_COMPROMISE = 10


class ChallengeType(StrEnum):
    HTTP_01 = "http-01"
    DNS_01 = "dns-01"
    TLS_ALPN_01 = "tls-alpn-01"


def serial_text(number: int) -> Serial:
    return Serial(f"{number:032x}")


def read_serial(text: str) -> Serial | None:
    """A serial number as people and programs write it: hexadecimal, with or without colons, `0x` and leading zeros.
    None: it is none that this CA gives.
    """
    digits = text.strip().lower().removeprefix("0x").replace(":", "")
    return serial_text(int(digits, 16)) if _SERIAL.fullmatch(digits) else None


_SERIAL = re.compile(r"0*[0-9a-f]{1,32}", re.ASCII)


# ---------------------------------------------------------------- accounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An ACME account (RFC 8555 §7.1.2). `jwk` is the public key as canonical JSON (RFC 7638 §3)."""

    id: AccountId
    status: AccountStatus
    jwk: str
    thumbprint: str
    contact: tuple[str, ...] = ()
    terms_agreed: bool = False
    eab_key_id: EabKeyId | None = None
    eab_binding: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EabKey:
    """A key for external account binding (RFC 8555 §7.3.4). `max_accounts` None: any number of accounts."""

    id: EabKeyId
    hmac_key: bytes = field(repr=False)
    owner: str
    service: str | None
    max_accounts: int | None
    accounts: int
    created: datetime
    revoked: datetime | None


# ---------------------------------------------------------------- authorizations and orders


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """Control of one identifier by one account (RFC 8555 §7.1.4).

    All its challenges share `token`. The first that the client answers is `challenge`: it alone decides what
    becomes of the authorization.
    """

    id: AuthorizationId
    account_id: AccountId
    identifier: Identifier
    status: AuthorizationStatus
    expires: datetime
    token: str
    offered: tuple[ChallengeType, ...]
    challenge: ChallengeType | None = None
    validated: datetime | None = None
    error: dict[str, Any] | None = None

    def challenge_status(self, kind: ChallengeType) -> ChallengeStatus:
        if kind is not self.challenge:
            return ChallengeStatus.PENDING
        if self.validated is not None:
            return ChallengeStatus.VALID
        return ChallengeStatus.INVALID if self.error is not None else ChallengeStatus.PROCESSING


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order (RFC 8555 §7.1.3). `status` is the one to show: computed, see `core.states.order_status`."""

    id: OrderId
    account_id: AccountId
    status: OrderStatus
    identifiers: tuple[Identifier, ...]
    authorizations: tuple[AuthorizationId, ...]
    expires: datetime
    not_before: datetime | None
    not_after: datetime | None
    profile: ProfileRef
    issuer: IssuerId
    serial: Serial | None = None
    replaces: str | None = None
    """The identifier of the certificate that this order's is to replace (RFC 9773 §5)."""
    error: dict[str, Any] | None = None


# ---------------------------------------------------------------- profiles


class ProfileRef(BaseModel):
    """What an order pins: the profile's name and version."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: int = Field(ge=1)


class KeyAlgorithm(StrEnum):
    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    EC_P521 = "ec-p521"
    RSA = "rsa"
    ED25519 = "ed25519"


class ExtendedKeyUsage(StrEnum):
    SERVER_AUTH = "serverAuth"
    CLIENT_AUTH = "clientAuth"


class Profile(BaseModel):
    """What kind of certificate (design, decision 8). Stored as JSON, versioned; refuses what cannot work."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    version: int = Field(ge=1)
    description: str
    validity: timedelta = Field(gt=timedelta(minutes=5))
    """The validity given when the order asks for none."""
    max_validity: timedelta = Field(gt=timedelta(minutes=5))
    key_algorithms: frozenset[KeyAlgorithm]
    min_rsa_bits: int = Field(default=2048, ge=2048)
    max_rsa_bits: int = Field(default=8192, le=8192)
    extended_key_usages: tuple[ExtendedKeyUsage, ...] = Field(min_length=1)
    common_name: bool = True
    """Subject CN = the first DNS name that fits 64 characters; otherwise the subject is empty."""

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if (
            self.validity > self.max_validity
            or self.min_rsa_bits > self.max_rsa_bits
            or not self.key_algorithms
        ):
            raise ValueError("a profile allows some key, and its defaults are within its limits")
        return self

    @property
    def ref(self) -> ProfileRef:
        return ProfileRef(name=self.name, version=self.version)


# ---------------------------------------------------------------- certificates, by stage


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


# ---------------------------------------------------------------- validation


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One validation to make: what is claimed, by which challenge, for whom."""

    authorization_id: AuthorizationId
    identifier: Identifier
    challenge: ChallengeType
    token: str
    thumbprint: str
    """The account key's JWK thumbprint (RFC 7638), base64url: with the token it is the key authorization."""
    account_url: str
    """For CAA `accounturi` (RFC 8657 §3)."""

    @property
    def key_authorization(self) -> str:
        """RFC 8555 §8.1."""
        return f"{self.token}.{self.thumbprint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a validation found. `record` is kept for the operator: one JSON object per thing asked."""

    problem: Problem | None
    """None: the client controls the identifier."""
    record: tuple[dict[str, Any], ...] = ()
