"""The things this server is about, as plain values. Times are aware datetimes in UTC."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NewType, Self, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, model_validator
from pydantic_core import SchemaValidator, core_schema

from acme_ca.core.codes import Code
from acme_ca.core.durations import Duration
from acme_ca.core.identifiers import Identifier, IdentifierType, Network
from acme_ca.core.names import NameRule, NameRuleText, RuleKind
from acme_ca.core.policy import NameRules
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.renewal import SuggestedWindow
from acme_ca.core.states import AccountStatus, AuthorizationStatus, ChallengeStatus, OrderStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

AccountId = NewType("AccountId", str)
OrderId = NewType("OrderId", str)
AuthorizationId = NewType("AuthorizationId", str)
IssuerId = NewType("IssuerId", str)
EabKeyId = NewType("EabKeyId", str)
ScopeId = NewType("ScopeId", str)

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


@dataclass(frozen=True, slots=True)
class IssuerHashes:
    """How OCSP names an issuer (RFC 6960 §4.1.1). `algorithm`: a name of hashlib; None: one that is not known here."""

    algorithm: str | None
    name: bytes
    key: bytes


class ChallengeType(StrEnum):
    HTTP_01 = "http-01"
    DNS_01 = "dns-01"
    TLS_ALPN_01 = "tls-alpn-01"


def proving(identifier: Identifier) -> frozenset[ChallengeType]:
    """The challenges that can prove control of an identifier."""
    if identifier.type is IdentifierType.IP:
        return _PROVING_ADDRESSES
    return _PROVING_WILDCARDS if identifier.wildcard else _PROVING_NAMES


_PROVING_NAMES = frozenset(ChallengeType)
_PROVING_WILDCARDS = frozenset({ChallengeType.DNS_01})
"""RFC 8555 §8.3, RFC 8737 §3."""
_PROVING_ADDRESSES = frozenset({ChallengeType.HTTP_01, ChallengeType.TLS_ALPN_01})
"""RFC 8738 §7."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, as the audit says it."""

    name: str
    """`account:ID`, `key:SHA-256`, `operator:NAME`, `server`."""
    source: str = ""
    """The address that the request came from, or `socket`; empty: this machine's own work."""


SERVER = Actor("server")
MACHINE = "@localhost"
"""How the names of operators end who are users of this machine, and no others' names."""
SOCKET = "socket"
"""The source of what they do."""


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
    frozen: bool = False
    """By an operator: whatever it asks for is refused until one lifts that."""


# ---------------------------------------------------------------- authorizations and orders


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """Control of one identifier by one account (RFC 8555 §7.1.4).

    All its challenges share `token`. The first that the client answers is `challenge`: it alone decides what
    becomes of the authorization. One of an approved name has a `scope_id` instead, and is valid from its beginning.
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
    scope_id: ScopeId | None = None
    error: dict[str, Any] | None = None

    @property
    def decisive(self) -> ChallengeType | None:
        """The challenge that decided, or is about to. For an approved name one that stands for it, since clients look for
        a challenge that is valid.
        """
        if self.scope_id is None:
            return self.challenge
        return next(iter(self.offered), min(proving(self.identifier)))

    def challenge_status(self, kind: ChallengeType) -> ChallengeStatus:
        if kind is not self.decisive:
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
    renews: tuple[Identifier, ...] = ()
    """The names that it shares with that certificate, if its renewal was due when the order was placed: limits do not count
    them."""
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


class KeyUsage(StrEnum):
    """RFC 5280 §4.2.1.3, those that a leaf may have."""

    DIGITAL_SIGNATURE = "digitalSignature"
    CONTENT_COMMITMENT = "contentCommitment"
    KEY_ENCIPHERMENT = "keyEncipherment"
    DATA_ENCIPHERMENT = "dataEncipherment"
    KEY_AGREEMENT = "keyAgreement"


class ExtendedKeyUsage(StrEnum):
    """RFC 5280 §4.2.1.12."""

    SERVER_AUTH = "serverAuth"
    CLIENT_AUTH = "clientAuth"
    CODE_SIGNING = "codeSigning"
    OCSP_SIGNING = "OCSPSigning"
    AUDIT_SIGNING = "auditSigning"
    """Of this software: seals of the audit trail."""


_SIGNING = frozenset({KeyUsage.DIGITAL_SIGNATURE, KeyUsage.CONTENT_COMMITMENT})
_AGREEING = _SIGNING | {KeyUsage.KEY_AGREEMENT}
_USAGES_OF_KEYS = {
    KeyAlgorithm.EC_P256: _AGREEING,
    KeyAlgorithm.EC_P384: _AGREEING,
    KeyAlgorithm.EC_P521: _AGREEING,
    KeyAlgorithm.RSA: _SIGNING | {KeyUsage.KEY_ENCIPHERMENT, KeyUsage.DATA_ENCIPHERMENT},
    KeyAlgorithm.ED25519: _SIGNING,
}
"""What keys of a kind can do (RFC 3279 §2.3, RFC 8410 §5)."""
_OWN_PURPOSES = frozenset({ExtendedKeyUsage.OCSP_SIGNING, ExtendedKeyUsage.AUDIT_SIGNING})
_USAGES_OF_PURPOSES = {
    ExtendedKeyUsage.SERVER_AUTH: _AGREEING - {KeyUsage.CONTENT_COMMITMENT} | {KeyUsage.KEY_ENCIPHERMENT},
    ExtendedKeyUsage.CLIENT_AUTH: _AGREEING - {KeyUsage.CONTENT_COMMITMENT},
    ExtendedKeyUsage.CODE_SIGNING: frozenset({KeyUsage.DIGITAL_SIGNATURE}),
    ExtendedKeyUsage.OCSP_SIGNING: _SIGNING,
    ExtendedKeyUsage.AUDIT_SIGNING: _SIGNING,
}
"""A key serves a purpose when it has one of these usages (RFC 5280 §4.2.1.12)."""


Kind = TypeVar("Kind", bound=StrEnum)
PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"
"""No control characters: it is shown on terminals, and PostgreSQL keeps no NUL."""
Choice = Annotated[
    frozenset[Kind],
    Field(min_length=1),
    PlainSerializer(lambda chosen: sorted(map(str, chosen)), return_type=list[str]),
]
"""Some of an enumeration, at least one; written as a list."""
ShortText = Annotated[str, Field(min_length=1, max_length=200, pattern=PRINTABLE)]
_SUBJECT = SchemaValidator(
    core_schema.str_schema(pattern=r"^[^\pC\pZ](?:[^\pC]{0,62}[^\pC\pZ])?$", regex_engine="rust-regex")
)


def _subject_text(text: str) -> str:
    if not _SUBJECT.isinstance_python(text):
        raise ValueError("it has 1 to 64 characters, visible ones at both ends, and none that do not print")
    return text


SubjectText = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_subject_text)]
"""1 to 64 characters (RFC 5280 appendix A.1), visible ones at both ends."""


def _usual(kinds: Collection[KeyAlgorithm]) -> frozenset[KeyUsage]:
    """Key usages of TLS; that of keyEncipherment is the key exchange of TLS 1.2 without forward secrecy."""
    usual = {KeyUsage.DIGITAL_SIGNATURE}
    return frozenset(usual | {KeyUsage.KEY_ENCIPHERMENT} if KeyAlgorithm.RSA in kinds else usual)


MAX_LIFE = timedelta(days=40 * 365)


class Profile(BaseModel):
    """What kind of certificate (design, decision 8). Stored as JSON, versioned, never changed.

    Refuses what cannot work: raises pydantic's ValidationError, each error a sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    """What clients ask for it by."""
    version: int = Field(ge=1)
    """Given by the server: one more than the last."""
    description: str = Field(min_length=1, max_length=500, pattern=PRINTABLE)
    """Shown to clients in the directory."""
    offered: bool = True
    """Whether clients may order it; otherwise the server alone uses it."""
    allowed_eab_keys: tuple[ShortText, ...] = Field(default=(), max_length=1000)
    """Ids of EAB keys whose accounts may order it."""
    allowed_services: tuple[ShortText, ...] = Field(default=(), max_length=1000)
    """Services whose EAB keys' accounts may order it. Neither keys nor services: any account."""

    validity: Duration = Field(gt=timedelta(minutes=5))
    """The validity given when the order asks for none."""
    max_validity: Duration = Field(gt=timedelta(minutes=5), le=MAX_LIFE)
    """The longest that an order may ask for."""
    renewal_threshold: Duration | None = Field(default=None, gt=timedelta())
    """How much of its life is left when a certificate should have been renewed; none: a sixth of it."""
    auto_renewal: bool = True
    """Whether clients are expected to renew by themselves."""

    key_algorithms: Choice[KeyAlgorithm]
    """Kinds of keys accepted."""
    min_rsa_bits: int = Field(default=2048, ge=2048)
    """Of RSA keys."""
    max_rsa_bits: int = Field(default=8192, le=8192)
    """Of RSA keys."""
    key_usages: Choice[KeyUsage] = Field(
        default_factory=lambda fields: _usual(fields.get("key_algorithms", ()))
    )
    """In the certificate, as far as a key of its kind can do them."""
    extended_key_usages: tuple[ExtendedKeyUsage, ...] = Field(min_length=1)
    """In the certificate, in this order."""

    common_name: bool = True
    """Subject CN = the first DNS name that fits 64 characters; otherwise there is no CN."""
    organization: SubjectText | None = None
    """Subject O, the same in all certificates."""
    organizational_unit: SubjectText | None = None
    """Subject OU, the same in all certificates."""
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] | None = None
    """Subject C, two letters."""

    allowed_names: tuple[NameRuleText, ...] | None = Field(default=None, max_length=200)
    """Rules of which each name must match one; none: any name that the server's policy allows."""
    denied_names: tuple[NameRuleText, ...] = Field(default=(), max_length=200)
    """Rules of which no name may match any, nor a wildcard cover what one matches. They win over `allowed_names`."""
    required_names: tuple[NameRuleText, ...] = Field(default=(), max_length=50)
    """Rules each of which some name of the order must match."""
    challenges: Choice[ChallengeType] = frozenset(ChallengeType)
    """By which names may be proved, as far as the server offers them."""

    must_staple: bool = False
    """TLS feature status_request (RFC 7633)."""
    crl_distribution_point: bool = True
    """Whether certificates tell where their CRL is."""
    ocsp: bool = True
    """Whether certificates tell where OCSP answers."""
    ca_issuers: bool = True
    """Whether certificates tell where their issuer's certificate is."""

    notification_days: tuple[Annotated[int, Field(ge=1, le=MAX_LIFE.days)], ...] = Field(
        default=(), max_length=20
    )
    """Days before the end at which people are told that a certificate expires."""
    notification_contacts: tuple[ShortText, ...] = Field(default=(), max_length=20)
    """Who is told beside the account's own contacts: e-mail addresses."""
    compliance: tuple[ShortText, ...] = Field(default=(), max_length=20)
    """Marks for reports, such as `enhanced-audit`."""

    @model_validator(mode="after")
    def _can_work(self) -> Self:
        contradictions = [
            *self._contradictions_in_time(),
            *self._contradictions_in_usages(),
            *self._contradictions_in_names(),
            *self._contradictions_in_status(),
        ]
        if contradictions:
            raise ValueError("; ".join(contradictions))
        return self

    def _contradictions_in_time(self) -> Iterator[str]:
        if self.validity > self.max_validity:
            yield "validity is longer than max_validity"
        if self.renewal_threshold is not None and self.renewal_threshold >= self.validity:
            yield "renewal_threshold is not shorter than validity: certificates would be due when they are made"
        if any(timedelta(days=days) >= self.validity for days in self.notification_days):
            yield "notification_days reach back to before the certificate is made"
        if self.notification_contacts and not self.notification_days:
            yield "notification_contacts are never told anything without notification_days"

    def _contradictions_in_usages(self) -> Iterator[str]:
        if self.min_rsa_bits > self.max_rsa_bits:
            yield "min_rsa_bits is more than max_rsa_bits"
        elif KeyAlgorithm.RSA in self.key_algorithms and self.max_rsa_bits // 8 * 8 < self.min_rsa_bits:
            yield "no RSA key has that size: min_rsa_bits to max_rsa_bits hold no multiple of 8"
        for usage in sorted(self.key_usages):
            if not any(usage in _USAGES_OF_KEYS[kind] for kind in self.key_algorithms):
                yield f"{usage} is nothing that a key of the key_algorithms can do"
        for kind in sorted(self.key_algorithms):
            for purpose in self.extended_key_usages:
                if not self.usages_of(kind) & _USAGES_OF_PURPOSES[purpose]:
                    yield f"an {kind} key with these key_usages cannot serve {purpose} (RFC 5280 §4.2.1.12)"
        if len(set(self.extended_key_usages)) < len(self.extended_key_usages):
            yield "extended_key_usages name one twice"
        own = _OWN_PURPOSES.intersection(self.extended_key_usages) if self.offered else ()
        yield from (
            f"{purpose} is for the server's own keys: with it, offered must be false"
            for purpose in sorted(own)
        )

    def _contradictions_in_names(self) -> Iterator[str]:
        if self.allowed_names == () and self.offered:
            yield "allowed_names are empty: no order could be placed (leave them out to allow any name)"
        if self.allowed_names == () and not (self.organization or self.organizational_unit):
            yield "without names a certificate needs a subject: give an organization or organizational_unit"
        for rule in (*(self.allowed_names or ()), *self.required_names):
            if not _proving(rule) & self.challenges:
                yield f"no challenge of the profile can prove what {rule} matches"
        for required in self.required_names:
            if self.allowed_names is not None and not any(map(required.overlaps, self.allowed_names)):
                yield f"the required {required} matches nothing that allowed_names allow"
            if required.identifier is not None and self.denying(required.identifier):
                yield f"the required {required} is denied by denied_names"

    def _contradictions_in_status(self) -> Iterator[str]:
        if self.must_staple and not self.ocsp:
            yield "must_staple needs ocsp: there would be nothing to staple"

    @property
    def ref(self) -> ProfileRef:
        return ProfileRef(name=self.name, version=self.version)

    def usages_of(self, kind: KeyAlgorithm) -> frozenset[KeyUsage]:
        """The key usages of a certificate for a key of this kind."""
        return self.key_usages & _USAGES_OF_KEYS[kind]

    def name_violations(self, identifiers: Sequence[Identifier]) -> list[Problem]:
        """A `rejectedIdentifier` problem for each identifier that the profile does not allow, and for each rule of the
        required names that none matches.
        """
        return [
            *(self._not_allowed(identifier) for identifier in identifiers if not self._allows(identifier)),
            *(self._missing(rule) for rule in self.required_names if not any(map(rule.matches, identifiers))),
        ]

    @property
    def has_names(self) -> bool:
        """Whether it says anything of single names."""
        return self.allowed_names is not None or self.denied_names != ()

    def denying(self, identifier: Identifier) -> NameRule | None:
        return next((rule for rule in self.denied_names if rule.denies(identifier)), None)

    def allowing(self, identifier: Identifier) -> NameRule | None:
        """The first of the allowed names that matches; None, too, where any name is allowed."""
        return next((rule for rule in self.allowed_names or () if rule.matches(identifier)), None)

    def _allows(self, identifier: Identifier) -> bool:
        is_allowed = self.allowed_names is None or self.allowing(identifier) is not None
        return is_allowed and self.denying(identifier) is None

    def _not_allowed(self, identifier: Identifier) -> Problem:
        return Problem(
            ErrorType.REJECTED_IDENTIFIER,
            f"The profile {self.name} is not for {identifier.value}: order without that name, or ask for another profile.",
            identifier=identifier,
            code=Code.NAME_NOT_IN_PROFILE,
        )

    def _missing(self, rule: NameRule) -> Problem:
        return Problem(
            ErrorType.REJECTED_IDENTIFIER,
            f"The profile {self.name} requires a name that matches {rule}; the order has none.",
            code=Code.NAME_NOT_IN_PROFILE,
        )


def _proving(rule: NameRule) -> frozenset[ChallengeType]:
    """The challenges that can prove control of something that the rule matches."""
    if rule.kind is RuleKind.NETWORK:
        return _PROVING_ADDRESSES
    return _PROVING_NAMES if rule.identifier is None else proving(rule.identifier)


# ---------------------------------------------------------------- EAB keys


class Restrictions(BaseModel):
    """What the accounts of an EAB key may do, whether or not the server requires EAB."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    names: NameRules = NameRules()
    """Which names their orders may have, as far as server, service and profile allow them."""
    source_networks: tuple[Network, ...] = Field(default=(), max_length=200)
    """From where they may make accounts, order and finalize; none: from anywhere."""
    profiles: tuple[ShortText, ...] = Field(default=(), max_length=200)
    """Which profiles they may order; none: any. An order that asks for none gets the server's default if that is one of
    these, and the first of these otherwise."""
    orders_per_day: int | None = Field(default=None, ge=1, le=1_000_000)
    """How many orders all of them together may place; none: what the server's limits allow."""
    certificates_per_day: int | None = Field(default=None, ge=1, le=1_000_000)
    """How many certificates all of them together may get; none: what the server's limits allow."""

    def check_source(self, client: str) -> None:
        """Raises Problem (`unauthorized`) for a request from the address `client` that is in none of the networks."""
        if self.source_networks and not any(_is_in(client, network) for network in self.source_networks):
            raise Problem(
                ErrorType.UNAUTHORIZED,
                f"The EAB key of this account is not for requests from {client}: ask the CA's operator.",
                code=Code.SOURCE_NOT_ALLOWED,
            )

    def check_profile(self, profile: str) -> None:
        """Raises Problem (`invalidProfile`)."""
        if self.profiles and profile not in self.profiles:
            raise Problem(
                ErrorType.INVALID_PROFILE,
                f"The EAB key of this account is not for the profile: ask for one of {', '.join(self.profiles)}.",
                code=Code.PROFILE_NOT_ALLOWED,
            )


def _is_in(client: str, network: Network) -> bool:
    """Fail closed: what is no address is in no network."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address) in network


UNRESTRICTED = Restrictions()


class EabKeyState(StrEnum):
    PENDING = "pending"
    """It waits for approval."""
    ACTIVE = "active"
    USED_UP = "used_up"
    """It made as many accounts as it may; they go on."""
    EXPIRED = "expired"
    """It makes no further accounts; those that it made go on."""
    REVOKED = "revoked"
    """It makes no accounts, and those that it made are frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EabKey:
    """A key for external account binding (RFC 8555 §7.3.4). `max_accounts` None: any number of accounts."""

    id: EabKeyId
    hmac_key: bytes = field(repr=False)
    owner: str
    service: str | None = None
    contact: tuple[str, ...] = ()
    max_accounts: int | None = None
    accounts: int = 0
    restrictions: Restrictions | None = UNRESTRICTED
    """None: a later release wrote them, so that this one lets its accounts do nothing."""
    created: datetime
    approved: datetime | None
    """None: it waits for approval."""
    expires: datetime | None = None
    """None: never."""
    revoked: datetime | None = None

    def state(self, now: datetime) -> EabKeyState:
        if self.revoked is not None:
            return EabKeyState.REVOKED
        if self.approved is None:
            return EabKeyState.PENDING
        if self.expires is not None and self.expires <= now:
            return EabKeyState.EXPIRED
        if self.max_accounts is not None and self.accounts >= self.max_accounts:
            return EabKeyState.USED_UP
        return EabKeyState.ACTIVE


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
