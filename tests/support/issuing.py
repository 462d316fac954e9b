"""Keys, CSRs and drafts for tests: sound ones by cryptography's builders, spoiled ones by hand."""

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from acme_ca.ca import profiles
from acme_ca.ca.keystore import PrivateKey
from acme_ca.core import identifiers
from acme_ca.core.certificates import IssuanceRequest, PreparedCertificate, RecordedCertificate
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import IssuerId
from acme_ca.core.keys import PublicKey
from acme_ca.core.profiles import Profile

NOW = datetime.now(UTC)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)

ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
EXTENSION_REQUEST = bytes.fromhex("06092a864886f70d01090e")
SUBJECT_ALTERNATIVE_NAME = bytes.fromhex("0603551d11")


def names(*texts: str) -> tuple[Identifier, ...]:
    return tuple(identifiers.ip(text) if is_address(text) else identifiers.dns(text) for text in texts)


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def general_names(*texts: str) -> list[x509.GeneralName]:
    return [x509.IPAddress(ipaddress.ip_address(t)) if is_address(t) else x509.DNSName(t) for t in texts]


def subject(*common_names: str, **others: str) -> x509.Name:
    """`others`: names of NameOID's attributes, in lower case."""
    parts = [(NameOID.COMMON_NAME, cn) for cn in common_names]
    parts += [(getattr(NameOID, name.upper()), value) for name, value in others.items()]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def csr(
    *alternative_names: str | x509.GeneralName,
    key: PrivateKey = EC_KEY,
    named: x509.Name | None = None,
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
) -> bytes:
    """A signed request in DER. `named`: its subject, empty by default. `extensions`: each with its criticality."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(named or x509.Name([]))
    general = [name for n in alternative_names for name in (general_names(n) if isinstance(n, str) else [n])]
    if general:
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


# ---------------------------------------------------------------- by hand


def tlv(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    length = len(content)
    octets = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes((tag, *((length,) if length < 128 else (0x80 | len(octets), *octets)))) + content


def request_info(*attributes: bytes, subject_der: bytes = tlv(0x30)) -> bytes:
    """A CertificationRequestInfo (RFC 2986 §4.1) with EC_KEY's public key."""
    key_der = EC_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return tlv(0x30, b"\x02\x01\x00", subject_der, key_der, tlv(0xA0, *attributes))


def signed_request(
    info: bytes,
    *,
    algorithm: bytes = ECDSA_WITH_SHA256,
    digest: hashes.HashAlgorithm | None = None,
    signing: bytes | None = None,
) -> bytes:
    """`signing`: other bytes to be signed."""
    signature = EC_KEY.sign(signing or info, ec.ECDSA(digest or hashes.SHA256()))
    return tlv(0x30, info, algorithm, tlv(0x03, b"\0", signature))


def alternative_names_extension(*general: bytes) -> bytes:
    """An Extension with GeneralNames that are DER already."""
    return tlv(0x30, SUBJECT_ALTERNATIVE_NAME, tlv(0x04, tlv(0x30, *general)))


def extension_request(*values: bytes, oid: bytes = EXTENSION_REQUEST) -> bytes:
    """An attribute with one value (a list of extensions) per argument; sound requests have one."""
    return tlv(0x30, oid, tlv(0x31, *(tlv(0x30, value) for value in values)))


# ---------------------------------------------------------------- issuing


def request(
    *texts: str,
    issuer: IssuerId,
    public_key: PublicKey | None = None,
    profile: Profile = profiles.BUILT_IN["server"],
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    shard: int = 0,
) -> IssuanceRequest:
    return IssuanceRequest(
        identifiers=names(*texts),
        public_key=public_key or EC_KEY.public_key(),
        profile=profile,
        issuer=issuer,
        shard=shard,
        not_before=not_before,
        not_after=not_after,
    )


def recorded(prepared: PreparedCertificate) -> RecordedCertificate:
    """What storage makes of a linted certificate."""
    return RecordedCertificate(serial=prepared.serial, issuer=prepared.request.issuer, tbs=prepared.tbs)


def redrafted(
    prepared: PreparedCertificate,
    change: Callable[[x509.CertificateBuilder], x509.CertificateBuilder] = lambda builder: builder,
    *,
    without: type[x509.ExtensionType] | None = None,
    fields: dict[str, object] | None = None,
    signed_by: PrivateKey = EC_KEY,
) -> PreparedCertificate:
    """The same draft but for one thing: an extension left out, other `fields`, a last `change` to the builder."""
    builder = builder_like(prepared.draft, without=without, fields=fields)
    return with_draft(prepared, change(builder).sign(signed_by, hashes.SHA256()))


def builder_like(
    certificate: x509.Certificate,
    *,
    without: type[x509.ExtensionType] | None = None,
    fields: dict[str, object] | None = None,
) -> x509.CertificateBuilder:
    """What the certificate could have been built by, but for an extension left out and other `fields`."""
    return x509.CertificateBuilder(
        **{
            "issuer_name": certificate.issuer,
            "subject_name": certificate.subject,
            "public_key": certificate.public_key(),
            "serial_number": certificate.serial_number,
            "not_valid_before": certificate.not_valid_before_utc.replace(tzinfo=None),
            "not_valid_after": certificate.not_valid_after_utc.replace(tzinfo=None),
            "extensions": [
                e for e in certificate.extensions if not (without and isinstance(e.value, without))
            ],
            **(fields or {}),
        }
    )


def with_draft(prepared: PreparedCertificate, draft: x509.Certificate) -> PreparedCertificate:
    return replace(prepared, draft=draft, tbs=draft.tbs_certificate_bytes)


def extensions_of(certificate: x509.Certificate) -> dict[str, tuple[bool, x509.ExtensionType]]:
    """By name: criticality and value."""
    return {e.oid._name: (e.critical, e.value) for e in certificate.extensions}


def names_of(certificate: x509.Certificate) -> list[str]:
    """Names and addresses of the subjectAltName, in their order."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]
