import hashlib
import math
import random
import time
from itertools import count

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from acme_ca.ca import profiles
from acme_ca.core import keys
from acme_ca.core.keys import KeyAlgorithm
from acme_ca.core.problems import ErrorType, Problem
from tests.support.issuing import EC_KEY, RSA_KEY
from tests.support.weakness import next_prime, roca_primes

SERVER = profiles.BUILT_IN["server"]
ED25519 = ed25519.Ed25519PrivateKey.generate().public_key()

ALGORITHMS = {
    "P-256": (EC_KEY.public_key(), KeyAlgorithm.EC_P256),
    "P-384": (ec.generate_private_key(ec.SECP384R1()).public_key(), KeyAlgorithm.EC_P384),
    "RSA": (RSA_KEY.public_key(), KeyAlgorithm.RSA),
    "Ed25519": (ED25519, KeyAlgorithm.ED25519),
    "P-521": (ec.generate_private_key(ec.SECP521R1()).public_key(), KeyAlgorithm.EC_P521),
    "secp256k1": (ec.generate_private_key(ec.SECP256K1()).public_key(), None),
    "Ed448": (ed448.Ed448PrivateKey.generate().public_key(), None),
    "X25519": (x25519.X25519PrivateKey.generate().public_key(), None),
    "DSA": (dsa.generate_private_key(1024).public_key(), None),
    "none": (None, None),
}


@pytest.mark.parametrize(("key", "algorithm"), ALGORITHMS.values(), ids=ALGORITHMS)
def test_algorithm(key, algorithm):
    assert keys.algorithm(key) is algorithm


@pytest.mark.parametrize(("key", "algorithm"), ALGORITHMS.values(), ids=ALGORITHMS)
def test_account_key(key, algorithm):
    if algorithm:
        keys.check_account_key(key)
    else:
        with pytest.raises(Problem) as refused:
            keys.check_account_key(key)
        assert refused.value.type is ErrorType.BAD_PUBLIC_KEY


@pytest.mark.parametrize(("key", "algorithm"), ALGORITHMS.values(), ids=ALGORITHMS)
def test_supported_keys_are_those_with_an_algorithm(key, algorithm):
    assert keys.supported(key) is (key if algorithm else None)


def test_the_profile_decides_about_certificate_keys():
    keys.check_certificate_key(EC_KEY.public_key(), SERVER)
    keys.check_certificate_key(RSA_KEY.public_key(), SERVER)
    assert_refused(ED25519, "keys of this kind")
    assert_refused(ALGORITHMS["P-521"][0], "use one of ec-p256, ec-p384, rsa")
    keys.check_certificate_key(
        ED25519, SERVER.model_copy(update={"key_algorithms": frozenset({KeyAlgorithm.ED25519})})
    )
    with pytest.raises(Problem, match="has 3072 to 8192 bits here, this one has 2048"):
        keys.check_certificate_key(RSA_KEY.public_key(), SERVER.model_copy(update={"min_rsa_bits": 3072}))


# ---------------------------------------------------------------- RSA

PRIMES = (RSA_KEY.private_numbers().p, RSA_KEY.private_numbers().q)
MODULUS = RSA_KEY.public_key().public_numbers().n


def rsa_key(modulus: int, exponent: int = 65537) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def odd_number(bits: int) -> int:
    """A number of so many bits without small factors. No key, but it has the shape of one."""
    start = random.Random(bits).getrandbits(bits) | 1 << bits - 1 | 1
    return next(n for n in count(start, 2) if math.gcd(n, keys._PRIMORIAL) == 1)


SHAPES = {
    "1024 bits": (odd_number(1024), 65537, "2048 to 8192 bits here, this one has 1024"),
    "2040 bits": (odd_number(2040), 65537, "this one has 2040"),
    "2049 bits": (odd_number(2049), 65537, "a multiple of 8"),
    "16384 bits": (odd_number(16384), 65537, "this one has 16384"),
    "exponent 3": (MODULUS, 3, "exponent"),
    "exponent 65535": (MODULUS, 65535, "exponent"),
    "exponent over 32 bits": (MODULUS, (1 << 32) + 1, "exponent"),
}


@pytest.mark.parametrize(("modulus", "exponent", "why"), SHAPES.values(), ids=SHAPES)
def test_rsa_keys_of_another_shape_are_refused(modulus, exponent, why):
    assert_refused(rsa_key(modulus, exponent), why)


@pytest.mark.parametrize("bits", [2048, 3072, 4096, 8192])
def test_rsa_sizes_that_are_accepted(bits):
    keys.check_certificate_key(rsa_key(odd_number(bits)), SERVER)


@pytest.mark.parametrize("factor", [3, 251, 743, 751])
def test_a_small_prime_factor_is_refused(factor):
    modulus = next(factor * n for n in range((1 << 2048) // factor - 1 | 1, 0, -2) if math.gcd(n, 752) == 1)
    assert modulus.bit_length() == 2048
    assert_refused(rsa_key(modulus), "small prime factor")


@pytest.mark.parametrize("gap", ["same prime", "next prime", "a few rounds away"])
def test_primes_close_to_each_other_are_refused(gap):
    first = PRIMES[0]
    distance = {"same prime": 0, "next prime": 2, "a few rounds away": math.isqrt(math.isqrt(MODULUS)) * 8}[
        gap
    ]
    second = next_prime(first + distance) if distance else first
    assert_refused(rsa_key(first * second), "too close")


def test_primes_beyond_the_rounds_are_not_found():
    """The bound is what keeps the check cheap: a distance of 2^600 takes Fermat's method 2^170 rounds."""
    modulus = PRIMES[0] * next_prime(PRIMES[0] ^ 1 << 600)
    keys.check_certificate_key(rsa_key(modulus), SERVER)


def test_roca_keys_are_refused():
    modulus = math.prod(roca_primes())
    assert modulus.bit_length() == 2048
    assert_refused(rsa_key(modulus), "ROCA")


def test_random_moduli_have_no_roca_fingerprint():
    rng = random.Random(1)
    assert not any(keys._has_roca_fingerprint(rng.getrandbits(2048) | 1) for _ in range(20_000))


def test_an_expensive_rsa_key_is_not_even_supported():
    assert keys.supported(rsa_key(odd_number(8200))) is None
    assert keys.supported(rsa_key(MODULUS, (1 << 32) + 1)) is None


def test_rsa_checks_are_cheap():
    start = time.process_time()
    for _ in range(100):
        keys.check_certificate_key(RSA_KEY.public_key(), SERVER)
    assert time.process_time() - start < 0.1, "a millisecond each, ten times what it takes"


# ---------------------------------------------------------------- digests


def test_spki_sha256():
    der = EC_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert keys.spki_sha256(EC_KEY.public_key()) == hashlib.sha256(der).digest()


@pytest.mark.parametrize(
    "key", [EC_KEY.public_key(), RSA_KEY.public_key(), ED25519], ids=["EC", "RSA", "Ed25519"]
)
def test_key_identifier_is_over_the_bits_of_the_subject_public_key(key):
    # cryptography's own method 1 of RFC 5280 §4.2.1.2 hashes the same bits with SHA-1
    assert (
        x509.SubjectKeyIdentifier.from_public_key(key).digest == hashlib.sha1(keys.bit_string(key)).digest()
    )
    assert keys.key_identifier(key) == hashlib.sha256(keys.bit_string(key)).digest()[:20]


def assert_refused(key: object, why: str) -> None:
    with pytest.raises(Problem) as refused:
        keys.check_certificate_key(key, SERVER)
    assert refused.value.type is ErrorType.BAD_CSR
    assert why in refused.value.detail
