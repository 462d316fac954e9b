"""JWS as RFC 8555 §6.2 narrows it, and JWKs. The only module that knows josepy."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from josepy.errors import Error as JoseError
from josepy.jwk import JWK, JWKEC, JWKRSA

from acme_ca.core import base64url, keys
from acme_ca.core.keys import PublicKey
from acme_ca.core.problems import ErrorType, Problem, malformed

_MEMBERS = {"protected", "payload", "signature"}

_ECDSA: dict[str, tuple[str, ec.ECDSA]] = {
    "ES256": ("secp256r1", ec.ECDSA(hashes.SHA256())),
    "ES384": ("secp384r1", ec.ECDSA(hashes.SHA384())),
    "ES512": ("secp521r1", ec.ECDSA(hashes.SHA512())),
}
ALGORITHMS = (*_ECDSA, "RS256", "EdDSA")
"""Of account keys and certificate keys, in the order of preference that `badSignatureAlgorithm` tells."""

_MAC_ALGORITHMS = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
"""Of external account bindings (RFC 8555 §7.3.4)."""


# ---------------------------------------------------------------- JSON, strictly


def parse_object(raw: bytes, what: str) -> dict[str, Any]:
    """A JSON object in UTF-8 without duplicate members (RFC 8259, lesson 12). `what` begins the refusal's sentence."""
    try:
        value = _STRICT.decode(raw.decode())
    except (ValueError, RecursionError):
        raise malformed(f"{what} is not a JSON object in UTF-8, or names a member twice.") from None
    if not isinstance(value, dict):
        raise malformed(f"{what} is not a JSON object.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError(pairs)
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
"""Made once: json.loads makes a decoder at every call that has a hook."""


# ---------------------------------------------------------------- the flattened JWS


@dataclass(frozen=True, slots=True, kw_only=True)
class Jws:
    """A JWS taken apart; nothing of it is believed yet."""

    header: Mapping[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes


def parse(raw: bytes | Mapping[str, Any], what: str = "The request") -> Jws:
    """Take apart a flattened JSON serialization with a protected header alone (RFC 8555 §6.2)."""
    members = parse_object(raw, what) if isinstance(raw, bytes) else raw
    if members.keys() != _MEMBERS or not all(isinstance(value, str) for value in members.values()):
        raise malformed(
            f'{what} is not a JWS in flattened JSON serialization with the three strings "protected", "payload" and '
            '"signature", and no unprotected header.'
        )
    protected, payload, signature = members["protected"], members["payload"], members["signature"]
    header = parse_object(
        base64url.decode(protected, f"{what}'s protected header"), f"{what}'s protected header"
    )
    if "crit" in header or "b64" in header:
        raise malformed(f'{what}\'s protected header has "crit" or "b64": no extension is supported.')
    return Jws(
        header=header,
        payload=base64url.decode(payload, f"{what}'s payload"),
        signing_input=f"{protected}.{payload}".encode(),
        signature=base64url.decode(signature, f"{what}'s signature"),
    )


def algorithm_of(header: Mapping[str, Any]) -> str:
    """The signature algorithm that the header names, if it is one of ALGORITHMS."""
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise Problem(
            ErrorType.BAD_SIGNATURE_ALGORITHM,
            f'The JWS\'s "alg" is none of {", ".join(ALGORITHMS)}: use one of these.',
            members={"algorithms": list(ALGORITHMS)},
        )
    return algorithm


def verify(key: PublicKey, jws: Jws) -> None:
    """Check the signature under `key`. Raises Problem: the algorithm does not fit the key, or the signature is not its."""
    algorithm = algorithm_of(jws.header)
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            _verify_ecdsa(key, algorithm, jws)
        elif isinstance(key, rsa.RSAPublicKey) and algorithm == "RS256":
            key.verify(jws.signature, jws.signing_input, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ed25519.Ed25519PublicKey) and algorithm == "EdDSA":
            key.verify(jws.signature, jws.signing_input)
        else:
            raise _wrong_algorithm(algorithm)
    except InvalidSignature:
        raise malformed("The JWS's signature does not verify under the key that it names.") from None


def _verify_ecdsa(key: ec.EllipticCurvePublicKey, algorithm: str, jws: Jws) -> None:
    if algorithm not in _ECDSA or key.curve.name != _ECDSA[algorithm][0]:
        raise _wrong_algorithm(algorithm)
    size = (key.key_size + 7) // 8
    if len(jws.signature) != 2 * size:  # R and S, each as long as the field (RFC 7518 §3.4)
        raise InvalidSignature
    r, s = int.from_bytes(jws.signature[:size]), int.from_bytes(jws.signature[size:])
    key.verify(encode_dss_signature(r, s), jws.signing_input, _ECDSA[algorithm][1])


def _wrong_algorithm(algorithm: str) -> Problem:
    return Problem(
        ErrorType.BAD_SIGNATURE_ALGORITHM,
        f'The JWS\'s "alg" {algorithm} does not go with the key that signs it.',
        members={"algorithms": list(ALGORITHMS)},
    )


# ---------------------------------------------------------------- JWKs


@dataclass(frozen=True, slots=True, kw_only=True)
class Jwk:
    """A public key as JOSE writes it: `text` is its canonical JSON, `thumbprint` that text's digest in base64url (RFC 7638)."""

    key: PublicKey
    text: str
    thumbprint: str

    @property
    def spki_sha256(self) -> bytes:
        return keys.spki_sha256(self.key)


_ED25519_BYTES = 32
_MAX_MEMBER = 1400
"""Characters of a JWK's longest member: a modulus of 8192 bits."""


def parse_jwk(value: object, what: str = 'The "jwk"') -> Jwk:
    """The public key of a JWK, if it is one that may sign requests. Raises Problem: `malformed` or `badPublicKey`."""
    if not isinstance(value, dict) or not isinstance(value.get("kty"), str):
        raise malformed(f'{what} is not a JSON Web Key: an object with a "kty".')
    if "d" in value or "k" in value:
        raise malformed(
            f"{what} holds a private or symmetric key: such a key is not secret any more, make a new one."
        )
    jwk = _octet_key_pair(value) if value["kty"] == "OKP" else _asymmetric(value)
    if jwk is None:
        raise Problem(
            ErrorType.BAD_PUBLIC_KEY,
            f"{what} is not a proper public key of a supported kind: P-256, P-384 or P-521, RSA, or Ed25519.",
        )
    keys.check_account_key(jwk.key)
    return jwk


@lru_cache(maxsize=10_000)
def key_of(text: str) -> PublicKey:
    """The key of a JWK's canonical text that `parse_jwk` gave before."""
    members = json.loads(text)
    jwk = _octet_key_pair(members) if members["kty"] == "OKP" else _asymmetric(members)
    assert jwk is not None, "stored keys were checked"  # noqa: S101
    return jwk.key


def _asymmetric(value: Mapping[str, Any]) -> Jwk | None:
    if any(isinstance(member, str) and len(member) > _MAX_MEMBER for member in value.values()):
        return None  # before any arithmetic is spent on it
    try:
        for name in ("n", "e") if value["kty"] == "RSA" else ("x", "y"):
            base64url.decode(value[name], name)  # josepy would overlook what is not base64url
        jwk = JWK.from_json(value)
        if not isinstance(jwk, JWKEC | JWKRSA):
            return None
        key = jwk.key._wrapped  # noqa: SLF001  josepy offers no other way to the key
        members = jwk.fields_to_partial_json()
    except (Problem, JoseError, ValueError, TypeError, KeyError, UnsupportedAlgorithm, AttributeError):
        return None
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        return None
    return _jwk(key, {"kty": value["kty"], **members})


def _octet_key_pair(value: Mapping[str, Any]) -> Jwk | None:
    # RFC 8037, which josepy does not know
    if value.get("crv") != "Ed25519" or not isinstance(value.get("x"), str):
        return None
    raw = base64url.decode(value["x"], 'The "x" of the JWK')
    if len(raw) != _ED25519_BYTES:
        return None
    members = {"kty": "OKP", "crv": "Ed25519", "x": base64url.encode(raw)}
    return _jwk(ed25519.Ed25519PublicKey.from_public_bytes(raw), members)


def _jwk(key: PublicKey, members: dict[str, str]) -> Jwk:
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return Jwk(key=key, text=text, thumbprint=base64url.encode(hashlib.sha256(text.encode()).digest()))


# ---------------------------------------------------------------- external account binding (RFC 8555 §7.3.4)


_KEY_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """An external account binding, taken apart: `kid` names the EAB key; `raw` is what the account object shows."""

    kid: str
    jws: Jws
    raw: dict[str, str]


def parse_binding(value: object, *, url: str, account_key: Jwk) -> Binding:
    """Check all of a binding but its MAC."""
    if not isinstance(value, dict):
        raise malformed('"externalAccountBinding" is not a JWS object.')
    jws = parse(value, 'The "externalAccountBinding"')
    header = jws.header
    if not isinstance(header.get("alg"), str) or header["alg"] not in _MAC_ALGORITHMS:
        raise malformed(
            f'The binding\'s "alg" must be one of {", ".join(_MAC_ALGORITHMS)} (RFC 8555 §7.3.4).'
        )
    if not isinstance(header.get("kid"), str) or not _KEY_ID.fullmatch(header["kid"]):
        raise malformed("The binding's protected header needs the \"kid\" that the CA's operator gave you.")
    if header.get("url") != url:
        raise malformed('The binding\'s "url" is not the one of newAccount.')
    if "nonce" in header or "jwk" in header:
        raise malformed('The binding\'s protected header must have neither "nonce" nor "jwk".')
    bound = parse_jwk(parse_object(jws.payload, "The binding's payload"), "The binding's payload")
    if bound.thumbprint != account_key.thumbprint:
        raise malformed("The binding's payload is not the account's public key.")
    return Binding(kid=header["kid"], jws=jws, raw=dict(value))


def binding_is_genuine(binding: Binding, hmac_key: bytes) -> bool:
    expected = hmac.digest(hmac_key, binding.jws.signing_input, _MAC_ALGORITHMS[binding.jws.header["alg"]])
    return hmac.compare_digest(expected, binding.jws.signature)
