"""Rules about public keys: those in certificates (RFC 8555 §7.4, lesson 4) and those of accounts (§6.2).

A certificate's key is refused with `badCSR` ("unacceptable (e.g., due to a short key)"), an account's with
`badPublicKey`: the tokens of RFC 8555 §6.7. Whether a point lies on its curve is checked when cryptography loads it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from acme_ca.core.problems import ErrorType, Problem

if TYPE_CHECKING:
    from acme_ca.core.profiles import Profile

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class KeyAlgorithm(StrEnum):
    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    EC_P521 = "ec-p521"
    RSA = "rsa"
    ED25519 = "ed25519"


MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
MIN_RSA_EXPONENT = 65537
MAX_RSA_EXPONENT = 2**32 - 1
FERMAT_ROUNDS = 100
ACCOUNT_KEY_ALGORITHMS = frozenset(KeyAlgorithm)
ISSUER_KEY_ALGORITHMS = frozenset({KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384, KeyAlgorithm.RSA})

_CURVES = {
    "secp256r1": KeyAlgorithm.EC_P256,
    "secp384r1": KeyAlgorithm.EC_P384,
    "secp521r1": KeyAlgorithm.EC_P521,
}


def algorithm(public_key: object) -> KeyAlgorithm | None:
    """The kind of a key; None for one that this server never accepts."""
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return _CURVES.get(public_key.curve.name)
    if isinstance(public_key, rsa.RSAPublicKey):
        return KeyAlgorithm.RSA
    return KeyAlgorithm.ED25519 if isinstance(public_key, ed25519.Ed25519PublicKey) else None


def supported(public_key: object) -> PublicKey | None:
    """The key itself when it is of a kind and size that can be worked with at bounded cost, not judged further."""
    if isinstance(public_key, rsa.RSAPublicKey):
        cheap = public_key.key_size <= MAX_RSA_BITS and public_key.public_numbers().e <= MAX_RSA_EXPONENT
        return public_key if cheap else None
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return public_key if public_key.curve.name in _CURVES else None
    return public_key if isinstance(public_key, ed25519.Ed25519PublicKey) else None


def check_certificate_key(public_key: PublicKey, profile: Profile) -> None:
    """Raises `Problem` (`badCSR`) for a key that a certificate of this profile may not hold."""
    weakness = _weakness(
        public_key,
        allowed=profile.key_algorithms,
        min_rsa_bits=profile.min_rsa_bits,
        max_rsa_bits=profile.max_rsa_bits,
    )
    if weakness:
        raise Problem(ErrorType.BAD_CSR, f"The key in the CSR is refused: {weakness}.")


def check_account_key(public_key: object) -> None:
    """Raises `Problem` (`badPublicKey`) for a key that no account may have."""
    weakness = _weakness(
        public_key, allowed=ACCOUNT_KEY_ALGORITHMS, min_rsa_bits=MIN_RSA_BITS, max_rsa_bits=MAX_RSA_BITS
    )
    if weakness:
        raise Problem(ErrorType.BAD_PUBLIC_KEY, f"The account key is refused: {weakness}.")


def issuer_weakness(public_key: object) -> str | None:
    """Why no CA may have this key, as the end of a sentence; None when it may."""
    return _weakness(
        public_key, allowed=ISSUER_KEY_ALGORITHMS, min_rsa_bits=MIN_RSA_BITS, max_rsa_bits=MAX_RSA_BITS
    )


def spki_sha256(public_key: PublicKey) -> bytes:
    """SHA-256 of the DER SubjectPublicKeyInfo, 32 bytes: what a key is known by."""
    return hashlib.sha256(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def key_identifier(public_key: PublicKey) -> bytes:
    """The SubjectKeyIdentifier: leftmost 160 bits of SHA-256 of the key's bit string (RFC 7093 §2 method 1)."""
    return hashlib.sha256(bit_string(public_key)).digest()[:20]


def bit_string(public_key: PublicKey) -> bytes:
    """What a SubjectPublicKeyInfo has in its BIT STRING, without the count of unused bits."""
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    if isinstance(public_key, rsa.RSAPublicKey):
        return public_key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    return public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _weakness(
    public_key: object, *, allowed: AbstractSet[KeyAlgorithm], min_rsa_bits: int, max_rsa_bits: int
) -> str | None:
    """Why the key is refused, as the end of a sentence; None when it is good."""
    kind = algorithm(public_key)
    if kind is None or kind not in allowed:
        return f"keys of this kind are not accepted; use one of {', '.join(sorted(allowed))}"
    if isinstance(public_key, rsa.RSAPublicKey):
        numbers = public_key.public_numbers()
        return _rsa_shape(numbers, min_rsa_bits, max_rsa_bits) or _rsa_weakness(numbers.n)
    return None


# ---------------------------------------------------------------- RSA


def _rsa_shape(numbers: rsa.RSAPublicNumbers, min_bits: int, max_bits: int) -> str | None:
    bits = numbers.n.bit_length()
    if not min_bits <= bits <= max_bits:
        return f"an RSA key has {min_bits} to {max_bits} bits here, this one has {bits}"
    if bits % 8:
        return f"the size of an RSA key is a multiple of 8 bits, this one has {bits}"
    if not MIN_RSA_EXPONENT <= numbers.e <= MAX_RSA_EXPONENT or numbers.e % 2 == 0:
        return "its RSA exponent is not an odd number from 65537 up to 2^32; make a key with exponent 65537"
    return None


def _rsa_weakness(modulus: int) -> str | None:
    if math.gcd(modulus, _PRIMORIAL) != 1:
        return "its RSA modulus has a small prime factor; make a new key"
    if _has_roca_fingerprint(modulus):
        return "it was made by a faulty chip (ROCA, CVE-2017-15361); make a new key in software"
    if _fermat_factors(modulus):
        return "the two primes of its RSA modulus are too close to each other; make a new key"
    return None


def _has_roca_fingerprint(modulus: int) -> bool:
    # The faulty library made primes p = k·M + 65537^a mod M, with M a product of the first primes: modulo each of
    # them p, and so the modulus, is a power of 65537. An honest modulus is that by chance with 2^-27 and less.
    residue = modulus % _ROCA_PRODUCT
    return all(powers >> residue % prime & 1 for prime, powers in _ROCA_POWERS)


def _fermat_factors(modulus: int) -> bool:
    """Whether Fermat's method factors the modulus within FERMAT_ROUNDS."""
    a = math.isqrt(modulus - 1) + 1
    remainder = a * a - modulus
    for _ in range(FERMAT_ROUNDS):
        # Most numbers are no square modulo 64 already: that spares the root.
        if _SQUARES_MODULO_64 >> (remainder & 63) & 1 and math.isqrt(remainder) ** 2 == remainder:
            return True
        remainder += 2 * a + 1
        a += 1
    return False


def _primes_below(limit: int) -> list[int]:
    return [n for n in range(2, limit) if all(n % d for d in range(2, math.isqrt(n) + 1))]


def _powers_of_65537(prime: int) -> int:
    """The residues modulo `prime` that are powers of 65537, as a bit mask."""
    mask, power = 0, 1
    while not mask >> power & 1:
        mask |= 1 << power
        power = power * 65537 % prime
    return mask


_SMALL_PRIMES = _primes_below(752)
_PRIMORIAL = math.prod(_SMALL_PRIMES)
_SQUARES_MODULO_64 = sum(1 << square for square in {n * n % 64 for n in range(64)})
# The primes of the smallest keys' product M (the first 39) without 2: they are in every M. Where 65537 generates all
# residues a prime tells nothing.
_ROCA_POWERS = [
    (prime, powers)
    for prime in _SMALL_PRIMES[1:39]
    if (powers := _powers_of_65537(prime)).bit_count() < prime - 1
]
_ROCA_PRODUCT = math.prod(prime for prime, _ in _ROCA_POWERS)


def key_name(key: object) -> str:
    """For people: `EC secp256r1`, `RSA 2048`."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    return f"RSA {key.key_size}" if isinstance(key, rsa.RSAPublicKey) else type(key).__name__
