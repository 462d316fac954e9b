"""Profiles: what kinds of certificates there are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, model_validator
from pydantic_core import SchemaValidator, core_schema

from acme_ca.core.challenges import ChallengeType, proving_any
from acme_ca.core.codes import Code
from acme_ca.core.durations import Duration
from acme_ca.core.identifiers import Identifier
from acme_ca.core.keys import KeyAlgorithm
from acme_ca.core.names import NameRule, NameRuleText
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.texts import PRINTABLE, ShortText


class ProfileRef(BaseModel):
    """What an order pins: the profile's name and version."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: int = Field(ge=1)


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
Choice = Annotated[
    frozenset[Kind],
    Field(min_length=1),
    PlainSerializer(lambda chosen: sorted(map(str, chosen)), return_type=list[str]),
]
"""Some of an enumeration, at least one; written as a list."""
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
    """What kind of certificate. Stored as JSON, versioned, never changed.

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
            if not proving_any(rule) & self.challenges:
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
