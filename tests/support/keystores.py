"""What every key must be able to do, whatever store it is in."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp

from acme_ca.ca import issuers, keystore
from acme_ca.ca.keystore import KeyKind, KeyStoreError, KeyUnavailable
from tests.support.issuing import NOW, subject

LATER = NOW + timedelta(days=30)
NAME = subject("An issuer")
BITS = {KeyKind.EC_P256: 256, KeyKind.EC_P384: 384, KeyKind.RSA_2048: 2048, KeyKind.RSA_4096: 4096}
NOWHERE = Path("/nonexistent")


class Store:
    """A store with whatever stands behind it, for the tests of the contract."""

    password = b""
    missing: str
    """The URI of a key that is not there."""

    def uri(self, name: str) -> str:
        """Of a key to be made."""
        raise NotImplementedError

    def go_away(self) -> None:
        raise NotImplementedError

    def come_back(self) -> None:
        raise NotImplementedError

    def create(self, name: str, kind: KeyKind = KeyKind.EC_P256):
        """(URI, key)."""
        return keystore.create_key(self.uri(name), kind, directory=NOWHERE, password=self.password)

    def open(self, uri: str):
        return keystore.open_key(uri, directory=NOWHERE, password=self.password)


class RemoteStoreContract:
    """What holds for every remote store. A test class inherits it and has a fixture `store`."""

    @pytest.mark.parametrize("kind", list(KeyKind))
    def test_a_key_is_made_found_again_and_signs(self, store, kind):
        uri, created = store.create(f"made-{kind}", kind)
        opened = store.open(uri)
        assert opened.public_key() == created.public_key()
        assert keystore.may_block(opened)
        for key in (created, opened):
            assert_is_of_kind(key, kind)
            assert_signs(key)
            assert_stays_inside(key)

    def test_several_threads_sign_at_once(self, store):
        assert_signs_in_threads(store.create("threads")[1])

    def test_two_keys_take_turns(self, store):
        keys = [store.create(name)[1] for name in ("one", "two")]
        assert keys[0].public_key() != keys[1].public_key()
        for key in keys * 2:
            assert_signs(key)

    def test_no_key_is_made_in_anothers_place(self, store):
        uri, key = store.create("taken")
        with pytest.raises(KeyStoreError, match="already"):
            store.create("taken")
        assert store.open(uri).public_key() == key.public_key()

    def test_a_missing_key(self, store):
        sentence = refusal(lambda: store.open(store.missing))
        assert "there is no" in sentence

    def test_a_store_that_goes_away_and_comes_back(self, store):
        uri, key = store.create("away")
        store.go_away()
        for attempt in (lambda: sign(key), lambda: store.open(uri), lambda: store.create("new")):
            with pytest.raises(KeyUnavailable) as away:
                attempt()
            assert_is_a_sentence(str(away.value))
        store.come_back()
        assert_signs(key)
        assert store.open(uri).public_key() == key.public_key()


def refusal(act) -> str:
    """What is said of a refusal that no waiting mends."""
    with pytest.raises(KeyStoreError) as refused:
        act()
    assert not isinstance(refused.value, KeyUnavailable), refused.value
    assert_is_a_sentence(str(refused.value))
    return str(refused.value)


def assert_is_a_sentence(text: str) -> None:
    assert text.endswith(".")
    assert "\n" not in text
    assert "Traceback" not in text
    assert len(text) < 300


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
