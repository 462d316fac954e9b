"""The last look before a signature: is the drafted certificate what its order, its profile and RFC 5280 say?

The rules read the bytes that will be signed, not the wishes they were made from; the name policy too is asked about
the names in the certificate (lesson 2). Each rule yields a sentence for each thing that is wrong. A finding is a defect
of ours or a policy that changed meanwhile: the operator reads it, the client does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtensionOID, NameOID, SignatureAlgorithmOID

from acme_ca.ca import issuers, leaf, profiles
from acme_ca.ca.issuers import Issuer
from acme_ca.core import identifiers, keys
from acme_ca.core.certificates import LintedCertificate, PreparedCertificate
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import serial_text
from acme_ca.core.policy import NamePolicy
from acme_ca.core.problems import Problem
from acme_ca.core.profiles import ExtendedKeyUsage

Rule = Callable[["_Reading"], Iterator[str]]

Extension = TypeVar("Extension", bound=x509.ExtensionType)

MIN_SERIAL_BITS = 64
MAX_SERIAL_BITS = 159
"""Positive, and 20 octets at most (RFC 5280 §4.1.2.2)."""


class LintError(Exception):
    """The draft must not be signed. `findings`: what is wrong, a sentence each."""

    def __init__(self, findings: tuple[str, ...]) -> None:
        super().__init__("; ".join(findings))
        self.findings = findings


def lint(
    prepared: PreparedCertificate, *, policy: NamePolicy, issuer: Issuer, now: datetime
) -> LintedCertificate:
    """Stage 2. `issuer`: the one that the order pins. Raises LintError with all findings."""
    try:
        reading = _read(prepared, policy, issuer, now)
    except (
        ValueError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise LintError((f"the draft cannot be read: {error}",)) from error
    findings = tuple(finding for rule in RULES for finding in rule(reading))
    if findings:
        raise LintError(findings)
    return LintedCertificate(prepared)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """The draft, read once for all rules."""

    prepared: PreparedCertificate
    certificate: x509.Certificate
    extensions: dict[x509.ObjectIdentifier, x509.Extension[x509.ExtensionType]]
    common_names: tuple[str, ...]
    names: tuple[x509.GeneralName, ...]
    identifiers: tuple[Identifier | None, ...]
    """`names` one by one; None for a name that is no canonical identifier."""
    policy: NamePolicy
    issuer: Issuer
    now: datetime

    def extension(self, kind: type[Extension]) -> Extension | None:
        found = self.extensions.get(kind.oid)
        return found.value if found and isinstance(found.value, kind) else None


def _read(prepared: PreparedCertificate, policy: NamePolicy, issuer: Issuer, now: datetime) -> _Reading:
    draft = prepared.draft
    extensions = {extension.oid: extension for extension in draft.extensions}
    names = _general_names(extensions.get(ExtensionOID.SUBJECT_ALTERNATIVE_NAME))
    return _Reading(
        prepared=prepared,
        certificate=draft,
        extensions=extensions,
        common_names=tuple(str(cn.value) for cn in draft.subject.get_attributes_for_oid(NameOID.COMMON_NAME)),
        names=names,
        identifiers=tuple(_identifier(name) for name in names),
        policy=policy,
        issuer=issuer,
        now=now,
    )


def _general_names(extension: x509.Extension[x509.ExtensionType] | None) -> tuple[x509.GeneralName, ...]:
    return (
        tuple(extension.value)
        if extension and isinstance(extension.value, x509.SubjectAlternativeName)
        else ()
    )


def _identifier(name: x509.GeneralName) -> Identifier | None:
    try:
        if isinstance(name, x509.IPAddress):
            return identifiers.ip(str(name.value))
        identifier = identifiers.dns(str(name.value)) if isinstance(name, x509.DNSName) else None
    except Problem:
        return None
    return identifier if identifier and identifier.value == name.value else None


# ---------------------------------------------------------------- the frame


def _bytes(reading: _Reading) -> Iterator[str]:
    if reading.certificate.tbs_certificate_bytes != reading.prepared.tbs:
        yield "the bytes to be signed are not those of the draft"


def _version(reading: _Reading) -> Iterator[str]:
    if reading.certificate.version is not x509.Version.v3:
        yield "the version is not 3"


def _serial(reading: _Reading) -> Iterator[str]:
    number = reading.certificate.serial_number
    if number <= 0 or not MIN_SERIAL_BITS <= number.bit_length() <= MAX_SERIAL_BITS:
        yield f"the serial number is not positive, of at least {MIN_SERIAL_BITS} bits and at most 20 octets"
    if serial_text(number) != reading.prepared.serial:
        yield "the serial number is not the one to be recorded"


def _issuer(reading: _Reading) -> Iterator[str]:
    issuer = reading.issuer
    if reading.prepared.request.issuer != issuer.id:
        yield "the issuer is not the one that the order pins"
    if reading.certificate.issuer.public_bytes() != issuer.certificate.subject.public_bytes():
        yield "the issuer's name is not byte for byte its subject"
    authority_key = reading.extension(x509.AuthorityKeyIdentifier)
    wanted = x509.AuthorityKeyIdentifier(issuers.key_identifier(issuer.certificate), None, None)
    if authority_key != wanted:
        yield "authorityKeyIdentifier is not the issuer's subjectKeyIdentifier alone"


def _signature_algorithm(reading: _Reading) -> Iterator[str]:
    public_key = reading.issuer.certificate.public_key()
    if isinstance(public_key, rsa.RSAPublicKey):
        wanted = SignatureAlgorithmOID.RSA_WITH_SHA256
    elif isinstance(issuers.signature_hash(public_key), hashes.SHA384):
        wanted = SignatureAlgorithmOID.ECDSA_WITH_SHA384
    else:
        wanted = SignatureAlgorithmOID.ECDSA_WITH_SHA256
    if reading.certificate.signature_algorithm_oid != wanted:
        yield "the signature algorithm is not that of the issuer's key"


# ---------------------------------------------------------------- names


def _subject(reading: _Reading) -> Iterator[str]:
    profile, subject = reading.prepared.request.profile, reading.certificate.subject
    if [part for part in subject if part.oid != NameOID.COMMON_NAME] != leaf.fixed_subject(profile):
        yield "the subject is not that of the profile"
    if len(reading.common_names) > 1:
        yield "the subject has more than one commonName"
    if reading.common_names and not profile.common_name:
        yield "the profile gives no commonName"
    alternatives = {str(name.value) for name in reading.names}
    if not alternatives.issuperset(reading.common_names):
        yield "the commonName is not among the subjectAltNames"


def _subject_alternative_name(reading: _Reading) -> Iterator[str]:
    extension = reading.extensions.get(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    has_subject = bool(reading.certificate.subject.rdns)
    if extension is None and not has_subject:
        yield "there is neither subject nor subjectAltName"
    if extension is not None and not reading.names:
        yield "subjectAltName is empty"
    if extension is not None and extension.critical == has_subject:
        yield "subjectAltName is critical with a subject, or not critical without one"


def _names_of_the_order(reading: _Reading) -> Iterator[str]:
    found = Counter(reading.identifiers)
    if found[None]:
        yield "a subjectAltName is no canonical identifier"
    if found != Counter(reading.prepared.request.identifiers):
        yield "the names are not exactly those of the order"


def _policy(reading: _Reading) -> Iterator[str]:
    for violation in reading.policy.violations(filter(None, reading.identifiers)):
        yield violation.detail


def _name_constraints(reading: _Reading) -> Iterator[str]:
    for refusal in reading.issuer.refused(filter(None, reading.identifiers)):
        yield refusal.detail


def _names_of_the_profile(reading: _Reading) -> Iterator[str]:
    names = [identifier for identifier in reading.identifiers if identifier]
    for violation in reading.prepared.request.profile.name_violations(names):
        yield violation.detail


# ---------------------------------------------------------------- validity


def _validity(reading: _Reading) -> Iterator[str]:
    certificate, prepared = reading.certificate, reading.prepared
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if (begin, end) != (prepared.not_before, prepared.not_after):
        yield "notBefore and notAfter are not those to be recorded"
    if end - begin + profiles.SECOND > prepared.request.profile.max_validity:
        yield "the validity is longer than the profile allows"
    if end <= begin or end <= reading.now:
        yield "the certificate is never valid, or no more"
    if end > reading.issuer.not_after:
        yield "the certificate outlives its issuer"
    if not reading.now - profiles.MAX_BACKDATING <= begin <= reading.now + profiles.MAX_POSTDATING:
        yield "notBefore is too far from now"


def _wishes(reading: _Reading) -> Iterator[str]:
    """RFC 8555 §7.4: the order's notBefore and notAfter are honoured, or there is no certificate."""
    request, certificate = reading.prepared.request, reading.certificate
    if request.not_before not in {None, certificate.not_valid_before_utc}:
        yield "notBefore is not the one that the order asks for"
    if request.not_after not in {None, certificate.not_valid_after_utc}:
        yield "notAfter is not the one that the order asks for"


# ---------------------------------------------------------------- key and usages


def _key(reading: _Reading) -> Iterator[str]:
    request = reading.prepared.request
    if reading.certificate.public_key() != request.public_key:
        yield "the public key is not the one of the CSR"
    try:
        keys.check_certificate_key(request.public_key, request.profile)
    except Problem as problem:
        yield problem.detail
    subject_key = reading.extension(x509.SubjectKeyIdentifier)
    if subject_key is None or subject_key.digest != keys.key_identifier(request.public_key):
        yield "subjectKeyIdentifier does not belong to the key"


def _usages(reading: _Reading) -> Iterator[str]:
    request = reading.prepared.request
    constraints = reading.extension(x509.BasicConstraints)
    if constraints is None or constraints.ca or constraints.path_length is not None:
        yield "basicConstraints is not CA:FALSE"
    if reading.extension(x509.KeyUsage) != leaf.key_usage(request.profile, request.public_key).value:
        yield "keyUsage is not that of the profile and the kind of key"
    usages = reading.extension(x509.ExtendedKeyUsage)
    if usages != leaf.extended_key_usage(request.profile.extended_key_usages).value:
        yield "extendedKeyUsage is not that of the profile"
    if reading.extension(x509.TLSFeature) not in {None, leaf.MUST_STAPLE.value}:
        yield "the TLS feature is not status_request"


# ---------------------------------------------------------------- where status is found


def _authority_information_access(reading: _Reading) -> Iterator[str]:
    profile = reading.prepared.request.profile
    access = list(reading.extension(x509.AuthorityInformationAccess) or ())
    wanted = [_OCSP] * profile.ocsp + [_CA_ISSUERS] * profile.ca_issuers
    if [description.access_method for description in access] != wanted:
        yield "authorityInfoAccess does not hold what the profile says"
    for description in access:
        is_ocsp = description.access_method == _OCSP
        path = "/ocsp" if is_ocsp else f"/ca/{reading.issuer.id}.cer"
        if not _is_address(description.access_location, path):
            yield f"authorityInfoAccess has another address than …{path}"


def _crl_distribution_points(reading: _Reading) -> Iterator[str]:
    found = reading.extension(x509.CRLDistributionPoints)
    path = f"/crl/{reading.issuer.id}/{reading.prepared.request.shard}.crl"
    if found is not None and not (len(found) == 1 and _is_whole_crl(found[0], path)):
        yield f"cRLDistributionPoints is not the one shard …{path}"


def _is_whole_crl(point: x509.DistributionPoint, path: str) -> bool:
    return (
        point.reasons is None
        and point.crl_issuer is None
        and len(point.full_name or ()) == 1
        and all(_is_address(name, path) for name in point.full_name or ())
    )


def _is_address(name: x509.GeneralName, path: str) -> bool:
    if not isinstance(name, x509.UniformResourceIdentifier):
        return False
    url = urlsplit(name.value)
    return url.scheme in {"http", "https"} and url.path == path and not url.query


# ---------------------------------------------------------------- all of them


def _extensions(reading: _Reading) -> Iterator[str]:
    found = {oid: extension.critical for oid, extension in reading.extensions.items()}
    # when subjectAltName is critical is a rule of its own
    found.pop(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, None)
    profile = reading.prepared.request.profile
    optional = {
        ExtensionOID.AUTHORITY_INFORMATION_ACCESS: profile.ocsp or profile.ca_issuers,
        ExtensionOID.CRL_DISTRIBUTION_POINTS: profile.crl_distribution_point,
        ExtensionOID.TLS_FEATURE: profile.must_staple,
        ExtensionOID.OCSP_NO_CHECK: ExtendedKeyUsage.OCSP_SIGNING in profile.extended_key_usages,
    }
    if found != _CRITICALITY | {oid: False for oid, wanted in optional.items() if wanted}:
        yield "an extension is missing, unexpected, or wrongly critical"


_OCSP = AuthorityInformationAccessOID.OCSP
_CA_ISSUERS = AuthorityInformationAccessOID.CA_ISSUERS
_CRITICALITY = {
    ExtensionOID.BASIC_CONSTRAINTS: True,
    ExtensionOID.KEY_USAGE: True,
    ExtensionOID.EXTENDED_KEY_USAGE: False,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
}

RULES: tuple[Rule, ...] = (
    _bytes,
    _version,
    _serial,
    _issuer,
    _signature_algorithm,
    _subject,
    _subject_alternative_name,
    _names_of_the_order,
    _policy,
    _name_constraints,
    _names_of_the_profile,
    _validity,
    _wishes,
    _key,
    _usages,
    _authority_information_access,
    _crl_distribution_points,
    _extensions,
)
