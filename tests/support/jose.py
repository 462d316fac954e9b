"""Keys that sign, and JWS in which every part may be spoiled. Independent of the server's own JOSE code."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_CURVES: dict[str, tuple[ec.EllipticCurve, str, hashes.HashAlgorithm]] = {
    "ES256": (ec.SECP256R1(), "P-256", hashes.SHA256()),
    "ES384": (ec.SECP384R1(), "P-384", hashes.SHA384()),
    "ES512": (ec.SECP521R1(), "P-521", hashes.SHA512()),
}


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Key:
    """A key pair and the algorithm it signs with: ES256, ES384, ES512, RS256 or EdDSA."""

    private: Any
    algorithm: str

    @classmethod
    def generate(cls, algorithm: str = "ES256") -> Key:
        if algorithm == "RS256":
            return cls(rsa.generate_private_key(public_exponent=65537, key_size=2048), algorithm)
        if algorithm == "EdDSA":
            return cls(ed25519.Ed25519PrivateKey.generate(), algorithm)
        return cls(ec.generate_private_key(_CURVES[algorithm][0]), algorithm)

    @property
    def jwk(self) -> dict[str, str]:
        public = self.private.public_key()
        if self.algorithm == "RS256":
            numbers = public.public_numbers()
            return {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
        if self.algorithm == "EdDSA":
            return {
                "kty": "OKP",
                "crv": "Ed25519",
                "x": base64url(public.public_bytes(Encoding.Raw, PublicFormat.Raw)),
            }
        x, y = public.public_numbers().x, public.public_numbers().y
        size = self._size
        return {
            "kty": "EC",
            "crv": _CURVES[self.algorithm][1],
            "x": _number(x, size),
            "y": _number(y, size),
        }

    @property
    def thumbprint(self) -> str:
        """RFC 7638."""
        text = json.dumps(self.jwk, sort_keys=True, separators=(",", ":"))
        return base64url(hashlib.sha256(text.encode()).digest())

    def sign(self, message: bytes) -> bytes:
        if self.algorithm == "RS256":
            return self.private.sign(message, padding.PKCS1v15(), hashes.SHA256())
        if self.algorithm == "EdDSA":
            return self.private.sign(message)
        r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(_CURVES[self.algorithm][2])))
        return r.to_bytes(self._size) + s.to_bytes(self._size)

    @property
    def _size(self) -> int:
        return (self.private.curve.key_size + 7) // 8


@cache
def rsa_key() -> Key:
    """One for all tests that need some RSA key."""
    return Key.generate("RS256")


def jws(protected: Any, payload: bytes, key: Key) -> dict[str, str]:
    """Flattened. `protected`: a header, or bytes that go there as they are."""
    header = protected if isinstance(protected, bytes) else compact(protected)
    parts = f"{base64url(header)}.{base64url(payload)}"
    return {
        "protected": base64url(header),
        "payload": base64url(payload),
        "signature": base64url(key.sign(parts.encode())),
    }


def mac_jws(protected: Any, payload: bytes, secret: bytes, digest: str = "sha256") -> dict[str, str]:
    """Flattened, with an HMAC in place of a signature."""
    header = compact(protected)
    parts = f"{base64url(header)}.{base64url(payload)}"
    mac = hmac.digest(secret, parts.encode(), digest)
    return {"protected": base64url(header), "payload": base64url(payload), "signature": base64url(mac)}


def _number(value: int, size: int | None = None) -> str:
    return base64url(value.to_bytes(size or (value.bit_length() + 7) // 8))
