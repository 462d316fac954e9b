"""Making the certificates of CAs, and requests for them: roots, intermediates, cross-certificates (RFC 5280 §4.2)."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from acme_ca.ca import checks
from acme_ca.ca.checks import Link
from acme_ca.ca.constraints import NameConstraints
from acme_ca.ca.issuers import IssuerError, issuer_id, key_identifier, signature_hash
from acme_ca.ca.keystore import PrivateKey
from acme_ca.core import der, keys
from acme_ca.core.keys import PublicKey

ROOT_LIFETIME = timedelta(days=3652)
INTERMEDIATE_LIFETIME = timedelta(days=1826)
BACKDATING = timedelta(hours=1)
"""By how much all begin before they are made: clocks differ, and the first leaf is backdated too."""
MAX_NAME = 64
"""ub-common-name and ub-organization-name (RFC 5280 appendix A.1)."""


class UnsuitableName(IssuerError):  # noqa: N818  the name says it
    """A name that no certificate can hold, or that a CA has already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A CA that signs another's certificate. Raises IssuerError when the key is not the certificate's."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        if self.key.public_key() != self.certificate.public_key():
            raise IssuerError("The key at hand does not belong to the certificate of the CA that is to sign.")


# ---------------------------------------------------------------- names


def root_name(common_name: str, organization: str = "", country: str = "") -> x509.Name:
    """The name of a root: "VCC", "VCC CA" and "VCC Root CA" all give "VCC Root CA". Raises UnsuitableName.

    An empty `organization` or `country` is left out.
    """
    return _name(f"{_stem(common_name)} Root CA".lstrip(), organization.strip(), country.strip())


def intermediate_name(
    parent: x509.Name, *, taken: Collection[x509.Name] = (), common_name: str | None = None
) -> x509.Name:
    """The name of a CA below `parent`, of the same organization and country. Raises UnsuitableName.

    Below "VCC Root CA" it is "VCC Intermediate CA", then "VCC Intermediate CA 2" and so on past those that are
    `taken`; or it is `common_name`, if that is not taken: two CAs of one name cannot be told apart.
    """
    organization, country = (
        _attribute(parent, oid) for oid in (NameOID.ORGANIZATION_NAME, NameOID.COUNTRY_NAME)
    )
    if common_name is not None:
        name = _name(common_name.strip(), organization, country)
        if name in taken:
            raise UnsuitableName(f"There is a CA with the name {common_name!r} already; choose another.")
        return name
    first = f"{_stem(_attribute(parent, NameOID.COMMON_NAME))} Intermediate CA".lstrip()
    numbered = [first, *(f"{first} {number}" for number in range(2, len(taken) + 2))]
    names = (_name(candidate, organization, country) for candidate in numbered)
    return next(name for name in names if name not in taken)


def _stem(common_name: str) -> str:
    return common_name.strip().removesuffix(" CA").removesuffix(" Root")


def _attribute(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    found = name.get_attributes_for_oid(oid)
    return str(found[0].value) if found else ""


def _name(common_name: str, organization: str, country: str) -> x509.Name:
    if not common_name:
        raise UnsuitableName("The name of a CA may not be empty.")
    if len(common_name) > MAX_NAME or len(organization) > MAX_NAME:
        raise UnsuitableName(
            f"The names {common_name!r} and {organization!r} may have {MAX_NAME} characters at most."
        )
    if country and not (len(country) == 2 and country.isascii() and country.isalpha()):  # noqa: PLR2004  ISO 3166
        raise UnsuitableName(f"The country {country!r} is no two-letter code such as DE.")
    parts = [
        (NameOID.COUNTRY_NAME, country.upper()),
        (NameOID.ORGANIZATION_NAME, organization),
        (NameOID.COMMON_NAME, common_name),
    ]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts if value])


# ---------------------------------------------------------------- certificates


def make_root(
    name: x509.Name,
    key: PrivateKey,
    *,
    lifetime: timedelta = ROOT_LIFETIME,
    path_length: int | None = 1,
    now: datetime,
) -> x509.Certificate:
    """A certificate that the key signs for itself. `path_length`: how many CAs may follow below, None any number."""
    begin = _begin(now)
    builder = _builder(name, key.public_key(), begin, begin + lifetime - timedelta(seconds=1), path_length)
    identifier = _subject_key_identifier(key.public_key())
    authority = x509.AuthorityKeyIdentifier(identifier.digest, None, None)
    builder = builder.add_extension(identifier, critical=False).add_extension(authority, critical=False)
    return _signed(builder, issuer_name=name, key=key)


def make_intermediate(
    subject: x509.Name,
    public_key: PublicKey,
    parent: Parent,
    *,
    lifetime: timedelta = INTERMEDIATE_LIFETIME,
    path_length: int = 0,
    name_constraints: NameConstraints | None = None,
    base_url: str | None = None,
    now: datetime,
) -> x509.Certificate:
    """A CA below `parent`, which it does not outlive. Raises IssuerError.

    `name_constraints` may not go beyond the parent's own. `base_url`: where the parent's CRL and certificate can be
    fetched (`{base_url}/crl/{id}/0.crl`, `{base_url}/ca/{id}.cer`); left out when it is on loopback.
    """
    checks.check_key_strength(public_key, "The CA to be signed")
    begin, end = check_wish(
        subject,
        parent.certificate,
        lifetime=lifetime,
        path_length=path_length,
        name_constraints=name_constraints,
        now=now,
    )
    builder = _builder(subject, public_key, begin, end, path_length)
    builder = builder.add_extension(_subject_key_identifier(public_key), critical=False)
    if name_constraints is not None:
        builder = builder.add_extension(name_constraints.extension(), critical=True)
    return _signed_by(parent, builder, base_url)


def check_wish(
    subject: x509.Name,
    parent: x509.Certificate,
    *,
    lifetime: timedelta,
    path_length: int,
    name_constraints: NameConstraints | None,
    now: datetime,
) -> tuple[datetime, datetime]:
    """Whether `parent` can sign such a CA, and when that would begin and end; no key is needed yet. Raises IssuerError."""
    if subject == parent.subject:
        raise UnsuitableName("A CA and the one above it cannot have the same name.")
    _check_path_length(path_length, parent)
    _check_constraints(name_constraints, parent)
    return _validity(now, lifetime, parent)


def cross_sign(
    original: x509.Certificate,
    parent: Parent,
    *,
    lifetime: timedelta = INTERMEDIATE_LIFETIME,
    base_url: str | None = None,
    now: datetime,
) -> x509.Certificate:
    """Another certificate for a CA that has one: same name, key and key identifier, under `parent`. Raises IssuerError.

    It outlives neither and allows no more than the original: its name constraints and extended key usage are the
    same, and what `parent` is not allowed is bound by the parent's own certificate.
    """
    checks.check_ca(Link("certificate to cross-sign", original))
    if original.public_key() == parent.certificate.public_key():
        raise IssuerError("A CA cannot cross-sign itself: both certificates have the same key.")
    begin, end = _validity(now, lifetime, parent.certificate, original)
    length = _shared_path_length(original, parent.certificate)
    builder = _builder(original.subject, public_key_of(original), begin, end, length)
    for kind in (x509.SubjectKeyIdentifier, x509.NameConstraints, x509.ExtendedKeyUsage):
        builder = _copied(builder, original, kind)
    return _signed_by(parent, builder, base_url)


def _begin(now: datetime) -> datetime:
    return now.replace(microsecond=0) - BACKDATING


def _validity(now: datetime, lifetime: timedelta, *limits: x509.Certificate) -> tuple[datetime, datetime]:
    """Within that of each certificate in `limits`."""
    begin = max(_begin(now), *(limit.not_valid_before_utc for limit in limits))
    end = min(begin + lifetime - timedelta(seconds=1), *(limit.not_valid_after_utc for limit in limits))
    if end <= now:
        raise IssuerError(
            "The certificate would be expired at once: it needs a longer life, or a CA that lives longer."
        )
    return begin, end


def _check_path_length(wanted: int, parent: x509.Certificate) -> None:
    limit = checks.path_length(parent)
    if wanted < 0:
        raise IssuerError("A path length is 0 or more.")
    if limit is not None and wanted >= limit:
        allowed = "no CA below it" if limit == 0 else f"path lengths up to {limit - 1} below it"
        raise IssuerError(f"The CA that is to sign allows {allowed}.")


def _shared_path_length(original: x509.Certificate, parent: x509.Certificate) -> int | None:
    limit = checks.path_length(parent)
    wanted = checks.path_length(original)
    if limit is None:
        return wanted
    _check_path_length(wanted or 0, parent)
    return limit - 1 if wanted is None else wanted


def _check_constraints(wanted: NameConstraints | None, parent: x509.Certificate) -> None:
    above = NameConstraints.of(parent)
    if wanted is None or above is None:
        return
    beyond = wanted.beyond(above)
    if beyond is not None:
        raise IssuerError(f"The CA that is to sign may not itself issue for {beyond}.")


def _builder(
    subject: x509.Name, public_key: PublicKey, begin: datetime, end: datetime, path_length: int | None
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public_key)
        .serial_number(secrets.randbits(128))
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_KEY_USAGE, critical=True)
    )


_KEY_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _subject_key_identifier(public_key: PublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier(keys.key_identifier(public_key))


def _copied(
    builder: x509.CertificateBuilder, original: x509.Certificate, kind: type[x509.ExtensionType]
) -> x509.CertificateBuilder:
    try:
        extension = original.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return builder
    return builder.add_extension(extension.value, extension.critical)


def public_key_of(certificate: x509.Certificate) -> PublicKey:
    """Of a certificate that was checked."""
    key = keys.supported(certificate.public_key())
    assert key is not None  # noqa: S101
    return key


def _signed_by(parent: Parent, builder: x509.CertificateBuilder, base_url: str | None) -> x509.Certificate:
    if base_url is not None and not is_loopback(base_url):
        parent_id = issuer_id(parent.certificate)
        builder = builder.add_extension(_crl_at(f"{base_url}/crl/{parent_id}/0.crl"), critical=False)
        builder = builder.add_extension(_issuer_at(f"{base_url}/ca/{parent_id}.cer"), critical=False)
    authority = x509.AuthorityKeyIdentifier(key_identifier(parent.certificate), None, None)
    builder = builder.add_extension(authority, critical=False)
    return _signed(builder, issuer_name=parent.certificate.subject, key=parent.key)


def _signed(builder: x509.CertificateBuilder, *, issuer_name: x509.Name, key: PrivateKey) -> x509.Certificate:
    return builder.issuer_name(issuer_name).sign(key, signature_hash(key.public_key()))


def _crl_at(url: str) -> x509.CRLDistributionPoints:
    location = [x509.UniformResourceIdentifier(url)]
    return x509.CRLDistributionPoints([x509.DistributionPoint(location, None, None, None)])


def _issuer_at(url: str) -> x509.AuthorityInformationAccess:
    location = x509.UniformResourceIdentifier(url)
    return x509.AuthorityInformationAccess(
        [x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, location)]
    )


def is_loopback(url: str) -> bool:
    """Whether its host is this machine's own: nothing that a certificate of years should name."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


# ---------------------------------------------------------------- requests


def certificate_request(
    key: PrivateKey,
    name: x509.Name,
    *,
    path_length: int = 0,
    name_constraints: NameConstraints | None = None,
) -> bytes:
    """A CSR in DER (RFC 2986) that asks another CA for the certificate of a CA."""
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_KEY_USAGE, critical=True)
        .add_extension(_subject_key_identifier(key.public_key()), critical=False)
    )
    if name_constraints is not None:
        builder = builder.add_extension(name_constraints.extension(), critical=True)
    return builder.sign(key, signature_hash(key.public_key())).public_bytes(Encoding.DER)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaRequest:
    """What a CSR for the certificate of a CA asks for."""

    subject: x509.Name
    public_key: PublicKey
    path_length: int
    name_constraints: NameConstraints | None


def read_request(content: bytes) -> CaRequest:
    """A CSR in PEM or DER, its signature and its key checked. Raises IssuerError."""
    try:
        with der.strictly():
            is_pem = b"-----BEGIN" in content
            load = x509.load_pem_x509_csr if is_pem else x509.load_der_x509_csr
            return _request_of(load(content))
    except der.Unreadable:
        raise IssuerError("The request is no well-formed CSR in PEM or DER.") from None


def _request_of(csr: x509.CertificateSigningRequest) -> CaRequest:
    if not csr.is_signature_valid:
        raise IssuerError("The signature of the CSR is not that of its key.")
    if not csr.subject.rdns:
        raise IssuerError("The CSR names no subject.")
    public_key = keys.supported(csr.public_key())
    checks.check_key_strength(public_key, "The CSR")
    assert public_key is not None  # noqa: S101  else it was refused
    return CaRequest(
        subject=csr.subject,
        public_key=public_key,
        path_length=_requested_path_length(csr),
        name_constraints=NameConstraints.of(csr),
    )


def _requested_path_length(csr: x509.CertificateSigningRequest) -> int:
    try:
        asked = csr.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return 0
    return asked.path_length or 0
