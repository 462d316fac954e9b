"""A CA made of cryptography's builders: certificates, CRLs and OCSP responses, sound ones and spoiled ones.

It has nothing of ours in it. What relying parties say of it is known beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC).replace(microsecond=0)
BEGIN = NOW - timedelta(hours=1)
END = NOW + timedelta(days=7)

Extension = tuple[x509.ExtensionType, bool]


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def root(cls, name: str) -> Self:
        key = ec.generate_private_key(ec.SECP256R1())
        authority = _authority_key(key)
        return cls(certificate=_certificate(name, key, name, key, [*_CA, (authority, False)]), key=key)

    def intermediate(self, name: str) -> Self:
        return self.issue(name, *_CA)

    def leaf(
        self, name: str, *, crl_url: str, ocsp_url: str, issuer_url: str = "http://ca.test/x.cer"
    ) -> Self:
        """A TLS server's."""
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        return self.issue(
            name,
            *_LEAF,
            (usage, False),
            (x509.SubjectAlternativeName([x509.DNSName(name)]), False),
            (x509.CRLDistributionPoints([_point(crl_url)]), False),
            (_access(ocsp_url, issuer_url), False),
        )

    def responder(self, name: str = "OCSP responder", *, authorized: bool = True) -> Self:
        """A delegate for OCSP (RFC 6960 §4.2.2.2). `authorized`: it has the extended key usage that makes it one."""
        purpose = ExtendedKeyUsageOID.OCSP_SIGNING if authorized else ExtendedKeyUsageOID.SERVER_AUTH
        return self.issue(
            name, *_LEAF, (x509.ExtendedKeyUsage([purpose]), False), (x509.OCSPNoCheck(), False)
        )

    def issue(self, name: str, *extensions: Extension) -> Self:
        key = ec.generate_private_key(ec.SECP256R1())
        authority = _authority_key(self.key)
        made = _certificate(name, key, self.name, self.key, [*extensions, (authority, False)])
        return type(self)(certificate=made, key=key)

    @property
    def name(self) -> str:
        return str(self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    # ------------------------------------------------------------ status

    def crl(
        self,
        *entries: x509.RevokedCertificate,
        number: int = 1,
        url: str | None = None,
        freshest: str | None = None,
        base: int | None = None,
        until: datetime = END,
        extensions: Sequence[Extension] | None = None,
    ) -> bytes:
        """DER. `url`: of its distribution point; `freshest`: of its delta; `base`: makes it a delta of that number.
        `extensions` instead of those.
        """
        builder = x509.CertificateRevocationListBuilder(
            self.certificate.subject, BEGIN, until, revoked_certificates=list(entries)
        )
        chosen = _crl_extensions(self.key, number, url, freshest, base) if extensions is None else extensions
        for value, critical in chosen:
            builder = builder.add_extension(value, critical)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)

    def ocsp(
        self,
        certificate: x509.Certificate,
        status: ocsp.OCSPCertStatus,
        *,
        signed_by: Holder,
        revoked: datetime | None = None,
        reason: x509.ReasonFlags | None = None,
        until: datetime = END,
    ) -> bytes:
        """An OCSPResponse for a certificate of this CA."""
        return (
            ocsp.OCSPResponseBuilder()
            .add_response(
                certificate,
                self.certificate,
                hashes.SHA1(),
                status,
                BEGIN,
                until,
                revoked,
                reason,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, signed_by.certificate)
            .certificates([signed_by.certificate])
            .sign(signed_by.key, hashes.SHA256())
            .public_bytes(Encoding.DER)
        )


def revoked(
    certificate: x509.Certificate,
    reason: x509.ReasonFlags | None = None,
    *,
    invalid_since: datetime | None = None,
) -> x509.RevokedCertificate:
    """A CRL's entry."""
    builder = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(BEGIN)
    if reason is not None:
        builder = builder.add_extension(x509.CRLReason(reason), critical=False)
    if invalid_since is not None:
        builder = builder.add_extension(x509.InvalidityDate(invalid_since), critical=False)
    return builder.build()


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    extensions: Sequence[Extension],
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGIN)
        .not_valid_after(END)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    return builder.sign(issuer_key, hashes.SHA256())


def _crl_extensions(
    key: ec.EllipticCurvePrivateKey, number: int, url: str | None, freshest: str | None, base: int | None
) -> list[Extension]:
    chosen: list[Extension] = [(x509.CRLNumber(number), False), (_authority_key(key), False)]
    if url is not None:
        scope = x509.IssuingDistributionPoint(
            full_name=[x509.UniformResourceIdentifier(url)],
            relative_name=None,
            only_contains_user_certs=True,
            only_contains_ca_certs=False,
            only_some_reasons=None,
            indirect_crl=False,
            only_contains_attribute_certs=False,
        )
        chosen.append((scope, True))
    if freshest is not None:
        chosen.append((x509.FreshestCRL([_point(freshest)]), False))
    if base is not None:
        chosen.append((x509.DeltaCRLIndicator(base), True))
    return chosen


def _authority_key(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _access(ocsp_url: str, issuer_url: str) -> x509.AuthorityInformationAccess:
    ways = (
        (AuthorityInformationAccessOID.OCSP, ocsp_url),
        (AuthorityInformationAccessOID.CA_ISSUERS, issuer_url),
    )
    return x509.AuthorityInformationAccess(
        [x509.AccessDescription(way, x509.UniformResourceIdentifier(url)) for way, url in ways]
    )


def _point(url: str) -> x509.DistributionPoint:
    return x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


_CA: tuple[Extension, ...] = (
    (x509.BasicConstraints(ca=True, path_length=None), True),
    (_usage(signs_certificates=True), True),
)
_LEAF: tuple[Extension, ...] = (
    (x509.BasicConstraints(ca=False, path_length=None), True),
    (_usage(signs_certificates=False), True),
)
