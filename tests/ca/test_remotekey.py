"""The forwarding keys by themselves; what stands behind them here is a key in memory."""

import copy

import pytest
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

from acme_ca.ca import keystore, remotekey
from acme_ca.ca.keystore import KeyKind, KeyUnavailable
from acme_ca.ca.remotekey import RemoteEcKey, RemoteRsaKey
from tests.support.issuing import EC_KEY, RSA_KEY
from tests.support.keystores import assert_is_of_kind, assert_signs, assert_stays_inside, sign

P384_KEY = ec.generate_private_key(ec.SECP384R1())


def remote(key, sign_digest=None):
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = ec.ECDSA(utils.Prehashed(remotekey.ec_hash(key.curve)))
        return RemoteEcKey(key.public_key(), sign_digest or (lambda digest: key.sign(digest, algorithm)))
    return RemoteRsaKey(
        key.public_key(),
        sign_digest
        or (lambda digest: key.sign(digest, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))),
    )


KEYS = {KeyKind.EC_P256: EC_KEY, KeyKind.EC_P384: P384_KEY, KeyKind.RSA_2048: RSA_KEY}


@pytest.mark.parametrize("kind", KEYS)
def test_a_remote_key_signs_what_a_ca_signs(kind):
    key = remote(KEYS[kind])
    assert_is_of_kind(key, kind)
    assert_signs(key)


@pytest.mark.parametrize("kind", KEYS)
def test_a_remote_key_stays_where_it_is(kind):
    key = remote(KEYS[kind])
    assert_stays_inside(key)
    assert copy.copy(key) is copy.deepcopy(key) is key


def test_a_remote_key_does_nothing_but_sign():
    with pytest.raises(UnsupportedAlgorithm, match="nothing but sign"):
        remote(EC_KEY).exchange(ec.ECDH(), EC_KEY.public_key())
    with pytest.raises(UnsupportedAlgorithm, match="nothing but sign"):
        remote(RSA_KEY).decrypt(b"", padding.PKCS1v15())


def test_only_remote_keys_may_block():
    for key in KEYS.values():
        assert keystore.may_block(remote(key))
        assert not keystore.may_block(key)


REFUSED = {
    "P-256 with SHA-384": (EC_KEY, (ec.ECDSA(hashes.SHA384()),), "sha256 only"),
    "P-384 with SHA-256": (P384_KEY, (ec.ECDSA(hashes.SHA256()),), "sha384 only"),
    "a digest": (EC_KEY, (ec.ECDSA(utils.Prehashed(hashes.SHA256())),), "sha256 only"),
    "RSA with SHA-512": (RSA_KEY, (padding.PKCS1v15(), hashes.SHA512()), "sha256 only"),
    "RSA-PSS": (RSA_KEY, (padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()), "v1.5 only"),
}


@pytest.mark.parametrize(("key", "arguments", "why"), REFUSED.values(), ids=REFUSED)
def test_what_stores_do_not_offer_is_refused(key, arguments, why):
    with pytest.raises(UnsupportedAlgorithm, match=why):
        remote(key).sign(b"message", *arguments)


@pytest.mark.parametrize("kind", KEYS)
def test_a_signature_that_does_not_verify_is_not_handed_on(kind):
    key = remote(KEYS[kind], lambda digest: sign(KEYS[kind], b"something else"))
    with pytest.raises(InvalidSignature):
        sign(key)


def test_an_absent_store_is_told_through_cryptographys_builders():
    def away(digest):
        raise KeyUnavailable("The store is away.")

    with pytest.raises(KeyUnavailable, match="away"):
        assert_signs(remote(EC_KEY, away))


@pytest.mark.parametrize("raw", [b"", b"\1", b"\1" * 63])
def test_a_raw_signature_of_odd_length(raw):
    with pytest.raises(ValueError, match="equally long"):
        remotekey.der_signature(raw)


def test_a_raw_signature_becomes_der():
    for r, s in [(1, 2), (0xFF << 248, 3)]:
        der = remotekey.der_signature(r.to_bytes(32) + s.to_bytes(32))
        assert utils.decode_dss_signature(der) == (r, s)
