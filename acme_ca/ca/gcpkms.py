"""Keys in Google Cloud KMS: `gcpkms:projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1`.

Who asks is for google-auth to find out: GOOGLE_APPLICATION_CREDENTIALS, or the machine's service account. Requests go
by REST, which knows nothing of forks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import google.auth.exceptions
import requests
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.api_core import exceptions as errors
from google.api_core.retry import Retry, if_exception_type
from google.cloud import kms_v1

from acme_ca.ca import remotestore
from acme_ca.ca.keystore import KeyKind, KeyStoreError, KeyUnavailable, PrivateKey
from acme_ca.ca.remotestore import CREATE_SECONDS, READ_SECONDS, CloudUri

T = TypeVar("T")
_Algorithm = kms_v1.CryptoKeyVersion.CryptoKeyVersionAlgorithm

_ALGORITHMS = {
    KeyKind.EC_P256: _Algorithm.EC_SIGN_P256_SHA256,
    KeyKind.EC_P384: _Algorithm.EC_SIGN_P384_SHA384,
    KeyKind.RSA_2048: _Algorithm.RSA_SIGN_PKCS1_2048_SHA256,
    KeyKind.RSA_4096: _Algorithm.RSA_SIGN_PKCS1_4096_SHA256,
}
_USABLE = {*_ALGORITHMS.values(), _Algorithm.RSA_SIGN_PKCS1_3072_SHA256}
_HASHES = {32: "sha256", 48: "sha384"}


def open_key(uri: str, *, password: bytes) -> PrivateKey:
    del password
    address = _parse(uri)
    if "/cryptoKeyVersions/" not in address.place:
        raise KeyStoreError(
            "The URI of a key in Google Cloud KMS ends with its version: …/cryptoKeyVersions/1."
        )
    return _opened(address, _client(address))


def create_key(uri: str, kind: KeyKind, *, password: bytes) -> tuple[str, PrivateKey]:
    """Make a key; in hardware unless the URI says `protection=software`. The URI that is returned has its version."""
    del password
    address = _parse(uri)
    ring, _, name = address.place.partition("/cryptoKeys/")
    if "/" in name:
        raise KeyStoreError("The URI of a new key in Google Cloud KMS ends with its name: …/cryptoKeys/NAME.")
    client = _client(address)
    request = {"parent": ring, "crypto_key_id": name, "crypto_key": _template(address, kind)}
    _explained(address, lambda: client.create_crypto_key(request, timeout=CREATE_SECONDS, retry=None))
    found = address.at(f"{address.place}/cryptoKeyVersions/1", "protection")
    # Until the key is made, asking for its public key is a bad request (FAILED_PRECONDITION).
    pending = Retry(if_exception_type(errors.BadRequest), initial=0.2, timeout=CREATE_SECONDS)
    return found, _opened(_parse(found), client, pending)


def _template(address: CloudUri, kind: KeyKind) -> dict[str, Any]:
    software = address.query.get("protection") == "software"
    level = kms_v1.ProtectionLevel.SOFTWARE if software else kms_v1.ProtectionLevel.HSM
    return {
        "purpose": kms_v1.CryptoKey.CryptoKeyPurpose.ASYMMETRIC_SIGN,
        "version_template": {"algorithm": _ALGORITHMS[kind], "protection_level": level},
    }


def _parse(uri: str) -> CloudUri:
    part = "[A-Za-z0-9_.:-]+"
    key = rf"projects/{part}/locations/{part}/keyRings/{part}/cryptoKeys/{part}(?:/cryptoKeyVersions/[0-9]+)?"
    example = "gcpkms:projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1"
    return remotestore.parse(uri, key, example, protection="hsm|software")


def _client(address: CloudUri) -> kms_v1.KeyManagementServiceClient:
    options = {"api_endpoint": address.endpoint} if address.endpoint else None
    return _explained(
        address, lambda: kms_v1.KeyManagementServiceClient(transport="rest", client_options=options)
    )


def _opened(
    address: CloudUri, client: kms_v1.KeyManagementServiceClient, retry: Retry | None = None
) -> PrivateKey:
    name = address.place
    found = _explained(
        address, lambda: client.get_public_key({"name": name}, timeout=READ_SECONDS, retry=retry)
    )
    if found.algorithm not in _USABLE:
        raise KeyStoreError(
            f"{address.name} is no key to sign with ECDSA on P-256 or P-384, or with RSA, PKCS #1 v1.5 and SHA-256."
        )

    def sign_digest(digest: bytes) -> bytes:
        request = {"name": name, "digest": {_HASHES[len(digest)]: digest}}
        return _explained(
            address, lambda: client.asymmetric_sign(request, timeout=READ_SECONDS, retry=None)
        ).signature

    public_key = remotestore.public_key_of(name, lambda: load_pem_public_key(found.pem.encode()))
    return remotestore.remote_key(address.name, public_key, sign_digest)


def _explained(address: CloudUri, ask: Callable[[], T]) -> T:
    name = address.name
    try:
        return ask()
    except errors.NotFound:
        raise KeyStoreError(f"{name}: there is no such key in Google Cloud KMS.") from None
    except errors.Conflict:
        raise KeyStoreError(f"{name}: there is a key of that name already.") from None
    except google.auth.exceptions.DefaultCredentialsError:
        raise KeyStoreError(
            f"{name}: no credentials are found; set GOOGLE_APPLICATION_CREDENTIALS."
        ) from None
    except errors.ClientError as error:
        if isinstance(error, errors.TooManyRequests):
            raise _away(name, error) from None
        raise KeyStoreError(f"{name}: Google Cloud KMS refuses (status {error.code}).") from None
    except (
        errors.GoogleAPIError,
        google.auth.exceptions.GoogleAuthError,
        requests.RequestException,
    ) as error:
        raise _away(name, error) from None


def _away(name: str, error: Exception) -> KeyUnavailable:
    return KeyUnavailable(
        f"{name} cannot be used now: Google Cloud KMS is not reached ({type(error).__name__})."
    )
