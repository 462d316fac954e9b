"""What a leaf holds: all that its order, its profile, and its issuer's addresses decide (RFC 5280 §4.2).

Extensions that many certificates share are made once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from acme_ca.core import addresses, keys
from acme_ca.core.certificates import IssuanceRequest
from acme_ca.core.identifiers import Identifier, IdentifierType
from acme_ca.core.ids import IssuerId
from acme_ca.core.keys import PublicKey
from acme_ca.core.profiles import ExtendedKeyUsage, KeyUsage, Profile

Extension = x509.Extension[x509.ExtensionType]

MAX_COMMON_NAME = 64
"""ub-common-name (RFC 5280 appendix A.1)."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """The extensions that say where to find what an issuer publishes. `base`: `public_http_url`."""

    base: str
    issuer: IssuerId
    _access: dict[tuple[bool, bool], Extension] = field(default_factory=dict)
    _points: dict[int, Extension] = field(default_factory=dict)

    def access(self, *, ocsp: bool, ca_issuers: bool) -> Extension:
        """At least one of the two."""
        made = self._access.get((ocsp, ca_issuers))
        if made is None:
            found = [
                *([_description(_OCSP, addresses.ocsp(self.base))] if ocsp else []),
                *(
                    [_description(_CA_ISSUERS, addresses.ca_issuers(self.base, self.issuer))]
                    if ca_issuers
                    else []
                ),
            ]
            made = self._access[ocsp, ca_issuers] = _extension(x509.AuthorityInformationAccess(found))
        return made

    def distribution_points(self, shard: int) -> Extension:
        made = self._points.get(shard)
        if made is None:
            url = x509.UniformResourceIdentifier(addresses.crl(self.base, self.issuer, shard))
            point = x509.DistributionPoint([url], relative_name=None, reasons=None, crl_issuer=None)
            made = self._points[shard] = _extension(x509.CRLDistributionPoints([point]))
        return made


def _description(method: x509.ObjectIdentifier, url: str) -> x509.AccessDescription:
    return x509.AccessDescription(method, x509.UniformResourceIdentifier(url))


def builder(request: IssuanceRequest, where: Addresses) -> x509.CertificateBuilder:
    """With subject, key and all extensions but the authority's key identifier."""
    subject = _subject(request)
    extensions = list(_extensions(request, where))
    if request.identifiers:
        names = x509.SubjectAlternativeName([_general_name(identifier) for identifier in request.identifiers])
        extensions.append(_extension(names, critical=not subject.rdns))  # with an empty subject (§4.1.2.6)
    # All at once: one by one, each would be compared with all before it and the list copied.
    return x509.CertificateBuilder(subject_name=subject, public_key=request.public_key, extensions=extensions)


def _extensions(request: IssuanceRequest, where: Addresses) -> Iterator[Extension]:
    profile = request.profile
    yield key_usage(profile, request.public_key)
    yield extended_key_usage(profile.extended_key_usages)
    yield _NOT_A_CA
    yield _extension(x509.SubjectKeyIdentifier(keys.key_identifier(request.public_key)))
    if profile.ocsp or profile.ca_issuers:
        yield where.access(ocsp=profile.ocsp, ca_issuers=profile.ca_issuers)
    if profile.crl_distribution_point:
        yield where.distribution_points(request.shard)
    if profile.must_staple:
        yield MUST_STAPLE
    if ExtendedKeyUsage.OCSP_SIGNING in profile.extended_key_usages:
        yield _NO_CHECK


def _extension(value: x509.ExtensionType, *, critical: bool = False) -> Extension:
    return x509.Extension(value.oid, critical, value)


# ---------------------------------------------------------------- names


def _subject(request: IssuanceRequest) -> x509.Name:
    common_name = _common_name(request) if request.profile.common_name else None
    fixed = fixed_subject(request.profile)
    if common_name is None:
        return x509.Name(fixed) if fixed else _EMPTY_NAME
    return x509.Name([*fixed, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _common_name(request: IssuanceRequest) -> str | None:
    # Names alone: clients read a CN as a host name, and certbot fails on an address there.
    fitting = (
        identifier.value
        for identifier in request.identifiers
        if identifier.type is IdentifierType.DNS and len(identifier.value) <= MAX_COMMON_NAME
    )
    return next(fitting, None)


def fixed_subject(profile: Profile) -> list[x509.NameAttribute[str]]:
    """The parts of the subject that are the same in all certificates of the profile."""
    parts = (
        (NameOID.COUNTRY_NAME, profile.country),
        (NameOID.ORGANIZATION_NAME, profile.organization),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, profile.organizational_unit),
    )
    return [x509.NameAttribute(oid, value) for oid, value in parts if value is not None]


def _general_name(identifier: Identifier) -> x509.GeneralName:
    if identifier.type is IdentifierType.IP:
        return x509.IPAddress(identifier.address)
    return x509.DNSName(identifier.value)


# ---------------------------------------------------------------- usages


def key_usage(profile: Profile, public_key: PublicKey) -> Extension:
    """What the profile says, as far as a key of this kind can do it. The key is one that the profile allows."""
    kind = keys.algorithm(public_key)
    return _key_usage(frozenset() if kind is None else profile.usages_of(kind))


@cache
def _key_usage(usages: frozenset[KeyUsage]) -> Extension:
    value = x509.KeyUsage(
        digital_signature=KeyUsage.DIGITAL_SIGNATURE in usages,
        content_commitment=KeyUsage.CONTENT_COMMITMENT in usages,
        key_encipherment=KeyUsage.KEY_ENCIPHERMENT in usages,
        data_encipherment=KeyUsage.DATA_ENCIPHERMENT in usages,
        key_agreement=KeyUsage.KEY_AGREEMENT in usages,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return _extension(value, critical=True)


@cache
def extended_key_usage(usages: tuple[ExtendedKeyUsage, ...]) -> Extension:
    return _extension(x509.ExtendedKeyUsage([_PURPOSES[usage] for usage in usages]))


AUDIT_SIGNING = x509.ObjectIdentifier("2.25.276428310926163948165205932746381104337")
"""A UUID of our own (ITU-T X.667): whoever trusts the CA for TLS or code does not trust these keys."""
_PURPOSES = {
    ExtendedKeyUsage.SERVER_AUTH: ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsage.CLIENT_AUTH: ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsage.CODE_SIGNING: ExtendedKeyUsageOID.CODE_SIGNING,
    ExtendedKeyUsage.OCSP_SIGNING: ExtendedKeyUsageOID.OCSP_SIGNING,
    ExtendedKeyUsage.AUDIT_SIGNING: AUDIT_SIGNING,
}
_EMPTY_NAME = x509.Name([])
_NOT_A_CA = _extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
MUST_STAPLE = _extension(x509.TLSFeature([x509.TLSFeatureType.status_request]))
_NO_CHECK = _extension(
    x509.OCSPNoCheck()
)  # the responder's own status is not asked for (RFC 6960 §4.2.2.2.1)
_OCSP = AuthorityInformationAccessOID.OCSP
_CA_ISSUERS = AuthorityInformationAccessOID.CA_ISSUERS
