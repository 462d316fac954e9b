"""What every key must be able to do, whatever store it is in."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp

from acme_ca.ca import issuers
from acme_ca.ca.keystore import KeyKind
from tests.support.issuing import NOW, subject

LATER = NOW + timedelta(days=30)
NAME = subject("An issuer")
BITS = {KeyKind.EC_P256: 256, KeyKind.EC_P384: 384, KeyKind.RSA_2048: 2048, KeyKind.RSA_4096: 4096}


def assert_is_of_kind(key, kind: KeyKind) -> None:
    public = key.public_key()
    assert isinstance(key, rsa.RSAPrivateKey if "rsa" in kind else ec.EllipticCurvePrivateKey)
    assert key.key_size == public.key_size == BITS[kind]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        assert key.curve.name == public.curve.name == {256: "secp256r1", 384: "secp384r1"}[key.key_size]


def assert_signs(key) -> None:
    """All that a CA signs, verified with nothing but the public key."""
    public_key, digest = key.public_key(), issuers.signature_hash(key.public_key())
    authority = certificate(key)
    authority.verify_directly_issued_by(authority)
    assert revocation_list(key).is_signature_valid(public_key)
    answer = ocsp_answer(key, authority)
    verify(public_key, answer.signature, answer.tbs_response_bytes, digest)
    request = x509.CertificateSigningRequestBuilder().subject_name(NAME).sign(key, digest)
    assert request.is_signature_valid


def assert_stays_inside(key) -> None:
    with pytest.raises(UnsupportedAlgorithm, match="does not leave"):
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(UnsupportedAlgorithm, match="does not leave"):
        key.private_numbers()


def assert_signs_in_threads(key) -> None:
    with ThreadPoolExecutor(8) as threads:
        signatures = list(threads.map(lambda n: (n, sign(key, b"%d" % n)), range(64)))
    for n, signature in signatures:
        verify(key.public_key(), signature, b"%d" % n, issuers.signature_hash(key.public_key()))


def sign(key, message: bytes = b"message") -> bytes:
    digest = issuers.signature_hash(key.public_key())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(digest))
    return key.sign(message, padding.PKCS1v15(), digest)


def verify(public_key, signature: bytes, message: bytes, digest) -> None:
    """Raises InvalidSignature."""
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        public_key.verify(signature, message, ec.ECDSA(digest))
    else:
        public_key.verify(signature, message, padding.PKCS1v15(), digest)


def certificate(key) -> x509.Certificate:
    builder = x509.CertificateBuilder().subject_name(NAME).issuer_name(NAME).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(LATER)
    return builder.sign(key, issuers.signature_hash(key.public_key()))


def revocation_list(key) -> x509.CertificateRevocationList:
    builder = x509.CertificateRevocationListBuilder().issuer_name(NAME).last_update(NOW).next_update(LATER)
    entry = x509.RevokedCertificateBuilder().serial_number(2).revocation_date(NOW).build()
    return builder.add_revoked_certificate(entry).sign(key, issuers.signature_hash(key.public_key()))


def ocsp_answer(key, authority: x509.Certificate) -> ocsp.OCSPResponse:
    builder = ocsp.OCSPResponseBuilder().responder_id(ocsp.OCSPResponderEncoding.HASH, authority)
    builder = builder.add_response(
        authority, authority, hashes.SHA256(), ocsp.OCSPCertStatus.GOOD, NOW, LATER, None, None
    )
    return builder.sign(key, issuers.signature_hash(key.public_key()))
