"""What the remote stores share: URIs with a query, and the first look at a key."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlsplit

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from acme_ca.ca.keystore import KeyStoreError, KeyUnavailable, PrivateKey
from acme_ca.ca.remotekey import RSA_HASH, RemoteEcKey, RemoteRsaKey, SignDigest, ec_hash
from acme_ca.core import keys

CONNECT_SECONDS = 2.0
READ_SECONDS = 4.0
"""A signature that takes longer is one that will not come: the client is told to come back."""
CREATE_SECONDS = 60.0
"""A key, above all an RSA key in an HSM, takes its time. It is asked for once: a second answer would be a second key."""

_TRIAL = b"acme-ca: the key signs"


@dataclass(frozen=True, slots=True)
class CloudUri:
    """`scheme:place?query`, as the stores of clouds have it."""

    scheme: str
    place: str
    query: dict[str, str]

    @property
    def name(self) -> str:
        """For sentences."""
        return f"{self.scheme}:{self.place}"

    @property
    def endpoint(self) -> str | None:
        """Instead of the service's own address."""
        return self.query.get("endpoint")

    def at(self, place: str, *dropped: str) -> str:
        """The URI of another key, reached the same way; without some of the query."""
        kept = [f"{key}={quote(value, safe=':/')}" for key, value in self.query.items() if key not in dropped]
        return f"{self.scheme}:{place}{'?' if kept else ''}{'&'.join(kept)}"


def parse(uri: str, place: str, example: str, **parameters: str) -> CloudUri:
    """`place` and the values of `parameters` are regular expressions. Raises KeyStoreError; `example` shows the form."""
    scheme, _, rest = uri.partition(":")
    where, _, asked = rest.partition("?")
    query = _query(asked, {"endpoint": r".+", **parameters})
    if query is None or not re.fullmatch(place, where):
        raise KeyStoreError(f"The key URI is malformed: it is of the form {example}.")
    return CloudUri(scheme, where, query)


def _query(query: str, allowed: dict[str, str]) -> dict[str, str] | None:
    """None: it is not as allowed."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        found = dict(pairs)
        good = all(key in allowed and re.fullmatch(allowed[key], value) for key, value in pairs)
        good = good and ("endpoint" not in found or _is_base_url(found["endpoint"]))
    except ValueError:
        return None
    return found if good and len(found) == len(pairs) else None


def _is_base_url(value: str) -> bool:
    parts = urlsplit(value)
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None


def public_key_of(name: str, load: Callable[[], object]) -> object:
    """What a service says the public key is. Raises KeyStoreError when it cannot be read."""
    try:
        return load()
    except (ValueError, UnsupportedAlgorithm):
        raise _unsuitable(name) from None


def remote_key(name: str, public_key: object, sign_digest: SignDigest) -> PrivateKey:
    """A key that has signed once and may be used. Raises KeyStoreError: its kind is none of ours, or it does not sign."""
    key = _forwarding(name, public_key, sign_digest)
    try:
        if isinstance(key, rsa.RSAPrivateKey):
            key.sign(_TRIAL, padding.PKCS1v15(), RSA_HASH)
        else:
            key.sign(_TRIAL, ec.ECDSA(ec_hash(key.curve)))
    except (InvalidSignature, ValueError):
        raise KeyStoreError(f"{name}: the public key is not that of the private key.") from None
    return _forwarding(name, public_key, _for_long(name, sign_digest))


def _for_long(name: str, sign_digest: SignDigest) -> SignDigest:
    """A key that has signed and does not any more is away: what keeps it (a permission, a changed PIN) can be mended
    without us, and what waits for its signature must not be harmed.
    """

    def sign(digest: bytes) -> bytes:
        try:
            return sign_digest(digest)
        except KeyUnavailable:
            raise
        except KeyStoreError as error:
            raise KeyUnavailable(str(error)) from None
        except ValueError:
            raise KeyUnavailable(f"{name} answers with what is no signature.") from None

    return sign


def _forwarding(name: str, public_key: object, sign_digest: SignDigest) -> PrivateKey:
    if isinstance(public_key, rsa.RSAPublicKey) and public_key.key_size >= keys.MIN_RSA_BITS:
        return RemoteRsaKey(public_key, sign_digest)
    if isinstance(public_key, ec.EllipticCurvePublicKey) and isinstance(
        public_key.curve, ec.SECP256R1 | ec.SECP384R1
    ):
        return RemoteEcKey(public_key, sign_digest)
    raise _unsuitable(name)


def _unsuitable(name: str) -> KeyStoreError:
    return KeyStoreError(
        f"{name} is neither an EC key on P-256 or P-384 nor an RSA key of {keys.MIN_RSA_BITS} bits or more."
    )
