"""OCSP requests for tests: sound ones and odd ones, put together by hand; and what an answer says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import ocsp

from acme_ca.core import keys
from tests.support.issuing import tlv

HASHES = {
    "sha1": bytes.fromhex("06052b0e03021a"),
    "sha256": bytes.fromhex("0609608648016503040201"),
    "sha384": bytes.fromhex("0609608648016503040202"),
    "sha512": bytes.fromhex("0609608648016503040203"),
    "md5": bytes.fromhex("06082a864886f70d0205"),
}
NULL = b"\x05\x00"
NONCE = bytes.fromhex("06092b0601050507300102")
UNHEARD_OF = bytes.fromhex("06032a0304")


def integer(number: int) -> bytes:
    bits = (number if number >= 0 else ~number).bit_length()
    return tlv(0x02, number.to_bytes(bits // 8 + 1, signed=True))


def cert_id(
    issuer: x509.Certificate, number: int | bytes, *, algorithm: str = "sha1", parameters: bytes = NULL
) -> bytes:
    """`number`: or the INTEGER's bytes."""
    of = hashlib.sha1 if algorithm == "md5" else getattr(hashlib, algorithm)
    return tlv(
        0x30,
        tlv(0x30, HASHES[algorithm], parameters),
        tlv(0x04, of(issuer.subject.public_bytes()).digest()),
        tlv(0x04, of(keys.bit_string(issuer.public_key())).digest()),
        tlv(0x02, number) if isinstance(number, bytes) else integer(number),
    )


def extension(oid: bytes, value: bytes, *, critical: bytes = b"") -> bytes:
    return tlv(0x30, oid, critical, tlv(0x04, value))


def nonce(value: bytes) -> bytes:
    return extension(NONCE, tlv(0x04, value))


def request(
    *cert_ids: bytes,
    extensions: Sequence[bytes] = (),
    single: Sequence[bytes] = (),
    version: bytes = b"",
    requestor: bytes = b"",
    signature: bytes = b"",
) -> bytes:
    """An OCSPRequest. `single`: extensions of each certificate asked about."""
    singles = tlv(0xA0, tlv(0x30, *single)) if single else b""
    requests = tlv(0x30, *(tlv(0x30, one, singles) for one in cert_ids))
    about = tlv(0xA2, tlv(0x30, *extensions)) if extensions else b""
    return tlv(0x30, tlv(0x30, version, requestor, requests, about), signature)


def about(certificate: x509.Certificate, issuer: x509.Certificate, **parts: Sequence[bytes]) -> bytes:
    """The request that nearly every client sends."""
    return request(cert_id(issuer, certificate.serial_number), **parts)


@dataclass(frozen=True)
class Said:
    """A sound answer about one certificate."""

    status: ocsp.OCSPCertStatus
    revoked: datetime | None
    reason: x509.ReasonFlags | None
    response: ocsp.OCSPResponse


def assert_says(der: bytes, issuer: x509.Certificate) -> Said:
    """An answer about one certificate, soundly signed by a responder of the issuer."""
    response = ocsp.load_der_ocsp_response(der)
    assert response.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
    assert_is_signed(response, issuer)
    assert response.this_update_utc <= response.produced_at_utc < response.next_update_utc
    return Said(
        status=response.certificate_status,
        revoked=response.revocation_time_utc,
        reason=response.revocation_reason,
        response=response,
    )


def assert_is_signed(response: ocsp.OCSPResponse, issuer: x509.Certificate) -> None:
    """By a responder that the issuer vouches for, whose certificate is the only one (RFC 6960 §4.2.2.2)."""
    (responder,) = response.certificates
    responder.verify_directly_issued_by(issuer)
    usage = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.OCSP_SIGNING]
    assert responder.extensions.get_extension_for_class(x509.OCSPNoCheck)
    key = responder.public_key()
    assert response.responder_name is None
    assert response.responder_key_hash == hashlib.sha1(keys.bit_string(key)).digest()
    verify(key, response)


def verify(key: object, response: ocsp.OCSPResponse) -> None:
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(
            response.signature,
            response.tbs_response_bytes,
            padding.PKCS1v15(),
            response.signature_hash_algorithm,
        )
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(
            response.signature, response.tbs_response_bytes, ec.ECDSA(response.signature_hash_algorithm)
        )


def assert_refuses(der: bytes, status: ocsp.OCSPResponseStatus) -> None:
    assert ocsp.load_der_ocsp_response(der).response_status is status
    assert len(der) == 5, "nothing but the status"
