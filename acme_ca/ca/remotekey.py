"""Private keys that stay where they are: an HSM or a key service makes the signatures.

Both classes forward to a `SignDigest` of the store and are cryptography's own types for everyone else: its builders of
certificates, CRLs, OCSP answers and CSRs take them. What would need the private key itself raises UnsupportedAlgorithm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.utils import Buffer

SignDigest = Callable[[bytes], bytes]
"""Digest → signature as X.509 has it: for EC the DER of r and s (RFC 3279 §2.2.3), for RSA PKCS #1 v1.5 with SHA-256.

Any thread may call it, several at once. Raises KeyUnavailable within a bounded time when the store is away.
"""


class RemoteEcKey(ec.EllipticCurvePrivateKey):
    """P-256 signs with SHA-256, P-384 with SHA-384."""

    def __init__(self, public_key: ec.EllipticCurvePublicKey, sign_digest: SignDigest) -> None:
        self._public_key = public_key
        self._sign_digest = sign_digest
        self._hash = ec_hash(public_key.curve)

    def sign(self, data: Buffer, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        _check_hash(signature_algorithm.algorithm, self._hash)
        signature = self._sign_digest(_digest(data, self._hash))
        self._public_key.verify(signature, data, ec.ECDSA(self._hash))
        return signature

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public_key

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def exchange(self, *_arguments: object, **_named: object) -> NoReturn:
        _refuse()

    def private_numbers(self) -> NoReturn:
        _refuse()

    def private_bytes(self, *_arguments: object, **_named: object) -> NoReturn:
        _refuse()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class RemoteRsaKey(rsa.RSAPrivateKey):
    """Signs with PKCS #1 v1.5 and SHA-256."""

    def __init__(self, public_key: rsa.RSAPublicKey, sign_digest: SignDigest) -> None:
        self._public_key = public_key
        self._sign_digest = sign_digest

    def sign(
        self,
        data: Buffer,
        padding: padding.AsymmetricPadding,
        algorithm: utils.Prehashed | hashes.HashAlgorithm | utils.NoDigestInfo,
    ) -> bytes:
        _check_padding(padding)
        _check_hash(algorithm, RSA_HASH)
        signature = self._sign_digest(_digest(data, RSA_HASH))
        self._public_key.verify(signature, bytes(data), padding, RSA_HASH)
        return signature

    def public_key(self) -> rsa.RSAPublicKey:
        return self._public_key

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def decrypt(self, *_arguments: object, **_named: object) -> NoReturn:
        _refuse()

    def private_numbers(self) -> NoReturn:
        _refuse()

    def private_bytes(self, *_arguments: object, **_named: object) -> NoReturn:
        _refuse()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


RSA_HASH = hashes.SHA256()


def ec_hash(curve: ec.EllipticCurve) -> hashes.SHA256 | hashes.SHA384:
    """The hash that goes with a curve: the services offer no other."""
    return hashes.SHA384() if isinstance(curve, ec.SECP384R1) else hashes.SHA256()


def der_signature(raw: bytes) -> bytes:
    """r and s side by side, as HSMs have them, → DER. Raises ValueError for an odd number of octets or none."""
    half, odd = divmod(len(raw), 2)
    if odd or not half:
        raise ValueError("r and s are not equally long")
    return utils.encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))


def _digest(data: Buffer, algorithm: hashes.HashAlgorithm) -> bytes:
    context = hashes.Hash(algorithm)
    context.update(data)
    return context.finalize()


def _check_hash(asked: object, has: hashes.HashAlgorithm) -> None:
    if type(asked) is not type(has):
        raise UnsupportedAlgorithm(f"This key signs with {has.name} only.")


def _check_padding(asked: padding.AsymmetricPadding) -> None:
    if not isinstance(asked, padding.PKCS1v15):
        raise UnsupportedAlgorithm("This key signs with PKCS #1 v1.5 only.")


def _refuse() -> NoReturn:
    raise UnsupportedAlgorithm("This key does not leave its store, and does nothing but sign.")
