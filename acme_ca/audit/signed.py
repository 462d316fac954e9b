"""The rules of what was signed: whether the DER is what its row says, its issuer signed, and the linter lets pass.

They are staged. What cannot be read is not judged further, and the linter is asked only about what its row describes
rightly: so one defect has one code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.audit.findings import Background
from acme_ca.ca import issuers, lint
from acme_ca.ca.issuers import Issuer
from acme_ca.core import addresses, keys
from acme_ca.core.certificates import IssuanceRequest, PreparedCertificate
from acme_ca.core.der import Unreadable, strictly
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import serial_text
from acme_ca.core.keys import PublicKey
from acme_ca.core.policy import NamePolicy
from acme_ca.core.profiles import Profile
from acme_ca.storage.audit import CertificateRecord


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate that could be read, beside its row."""

    record: CertificateRecord
    certificate: x509.Certificate
    public_key: PublicKey
    names: tuple[str, ...]
    """As the row spells them."""
    issuer: Issuer
    profile: Profile


def judge(record: CertificateRecord, der: bytes, background: Background) -> Iterator[tuple[str, str]]:
    """What is wrong: (code, sentence)."""
    try:
        signed = _read(record, der, background)
    except Unreadable:
        yield "certificate.unreadable", "the bytes are no certificate in DER with a key of a known kind"
        return
    differences = [(code, sentence) for code, rule in RULES for sentence in rule(signed)]
    yield from differences
    if not differences:
        for finding in _lint(signed):
            yield "certificate.lint", finding


def _read(record: CertificateRecord, der: bytes, background: Background) -> Signed:
    with strictly():
        certificate = x509.load_der_x509_certificate(der)
        public_key = keys.supported(certificate.public_key())
        names = tuple(map(_spelled, _general_names(certificate)))
        if public_key is None or certificate.public_bytes(Encoding.DER) != der:
            raise Unreadable("another encoding, or an unknown key")
    return Signed(
        record,
        certificate,
        public_key,
        names,
        background.issuers[record.issuer],
        background.profiles[record.profile],
    )


def _general_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _spelled(name: x509.GeneralName) -> str:
    if isinstance(name, x509.DNSName):
        return f"dns:{name.value}"
    return f"ip:{name.value}" if isinstance(name, x509.IPAddress) else type(name).__name__


def _lint(signed: Signed) -> tuple[str, ...]:
    """What the linter would have said when the certificate was recorded. Names are judged by today's policy elsewhere."""
    record, order = signed.record, signed.record.order
    request = IssuanceRequest(
        identifiers=tuple(map(Identifier.from_text, record.identifiers)),
        public_key=signed.public_key,
        profile=signed.profile,
        issuer=record.issuer,
        shard=record.shard,
        not_before=order.not_before if order else None,
        not_after=order.not_after if order else None,
    )
    prepared = PreparedCertificate(
        request=request,
        serial=record.serial,
        not_before=record.not_before,
        not_after=record.not_after,
        tbs=signed.certificate.tbs_certificate_bytes,
        draft=signed.certificate,
    )
    try:
        lint.lint(prepared, policy=NamePolicy(), issuer=signed.issuer, now=record.recorded)
    except lint.LintError as error:
        return error.findings
    return ()


# ---------------------------------------------------------------- the rules


def _issuer(signed: Signed) -> Iterator[str]:
    if signed.certificate.issuer.public_bytes() != signed.issuer.certificate.subject.public_bytes():
        yield "the issuer's name is not that of the recorded issuer"


def _signature(signed: Signed) -> Iterator[str]:
    key, certificate = signed.issuer.public_key, signed.certificate
    signature, tbs = certificate.signature, certificate.tbs_certificate_bytes
    hash_ = issuers.signature_hash(key)
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, tbs, ec.ECDSA(hash_))
        else:
            key.verify(signature, tbs, padding.PKCS1v15(), hash_)
    except InvalidSignature:
        yield "the signature is not one of the recorded issuer"


def _serial(signed: Signed) -> Iterator[str]:
    if serial_text(signed.certificate.serial_number) != signed.record.serial:
        yield "the serial number is not the recorded one"


def _names(signed: Signed) -> Iterator[str]:
    if Counter(signed.names) != Counter(signed.record.identifiers):
        yield "the names are not the recorded ones"


def _shard(signed: Signed) -> Iterator[str]:
    """Where there is an address, revocation is looked for there. Whether there is one, the profile says: the linter asks."""
    wanted = addresses.crl("", signed.record.issuer, signed.record.shard)
    if any(urlsplit(url).path != wanted for url in _crl_addresses(signed.certificate)):
        yield "the address of its CRL is not that of the recorded shard"


def _crl_addresses(certificate: x509.Certificate) -> list[str]:
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for point in points for name in point.full_name or ()]


def _key(signed: Signed) -> Iterator[str]:
    if keys.spki_sha256(signed.public_key) != signed.record.spki_sha256:
        yield "the key is not the recorded one"


def _validity(signed: Signed) -> Iterator[str]:
    certificate, record = signed.certificate, signed.record
    if (certificate.not_valid_before_utc, certificate.not_valid_after_utc) != (
        record.not_before,
        record.not_after,
    ):
        yield "notBefore and notAfter are not the recorded ones"


RULES: tuple[tuple[str, Callable[[Signed], Iterator[str]]], ...] = (
    ("certificate.issuer", _issuer),
    ("certificate.signature", _signature),
    ("certificate.serial", _serial),
    ("certificate.names", _names),
    ("certificate.key", _key),
    ("certificate.validity", _validity),
    ("certificate.shard", _shard),
)
"""Where the DER and its row must agree."""
