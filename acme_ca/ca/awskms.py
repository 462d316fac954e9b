"""Keys in AWS KMS: `awskms:///alias/NAME?region=REGION`, or a key's ARN in the place of the alias.

Who asks is for boto3 to find out: the environment, the shared files, the role of the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import boto3
from botocore import exceptions as errors
from botocore.config import Config
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from acme_ca.ca import remotestore
from acme_ca.ca.keystore import KeyKind, KeyStoreError, KeyUnavailable, PrivateKey
from acme_ca.ca.remotestore import CONNECT_SECONDS, CREATE_SECONDS, READ_SECONDS, CloudUri

T = TypeVar("T")

_SPECS = {
    KeyKind.EC_P256: "ECC_NIST_P256",
    KeyKind.EC_P384: "ECC_NIST_P384",
    KeyKind.RSA_2048: "RSA_2048",
    KeyKind.RSA_4096: "RSA_4096",
}
_UNREACHED = (errors.HTTPClientError, errors.ConnectionError)
_TRANSIENT = {"ThrottlingException", "LimitExceededException", "DependencyTimeoutException"}
_ARN = r"arn:aws[a-z-]*:kms:([a-z0-9-]+):[0-9]+:"


def open_key(uri: str, *, password: bytes) -> PrivateKey:
    """An alias is followed once: the key stays the same when the alias is moved."""
    del password
    address = _parse(uri)
    return _opened(address, _client(address), _key_id(address))


def create_key(uri: str, kind: KeyKind, *, password: bytes) -> tuple[str, PrivateKey]:
    """Make a key and its alias. The URI that is returned has the key's ARN."""
    del password
    address = _parse(uri)
    client, alias = _client(address), _key_id(address)
    if not alias.startswith("alias/"):
        raise KeyStoreError("The URI of a new key in AWS KMS names its alias: awskms:///alias/NAME.")
    _check_is_free(address, client, alias)
    patient = _client(address, seconds=CREATE_SECONDS, attempts=1)
    made = _explained(address, lambda: patient.create_key(KeySpec=_SPECS[kind], KeyUsage="SIGN_VERIFY"))
    arn = made["KeyMetadata"]["Arn"]
    _explained(address, lambda: client.create_alias(AliasName=alias, TargetKeyId=arn))
    return address.at(f"///{arn}", "region"), _opened(address, client, arn)


def _parse(uri: str) -> CloudUri:
    key = rf"(?:{_ARN})?alias/[A-Za-z0-9/_-]+|(?:{_ARN}key/)?[A-Za-z0-9-]+"
    return remotestore.parse(uri, rf"///(?:{key})", "awskms:///alias/NAME?region=REGION", region="[a-z0-9-]+")


def _key_id(address: CloudUri) -> str:
    return address.place.removeprefix("///")


def _client(address: CloudUri, *, seconds: float | None = None, attempts: int = 2) -> Any:
    arn = _key_id(address).split(":")
    region = address.query.get("region") or (arn[3] if len(arn) > 1 else None)
    limits = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=seconds or READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": attempts},
    )
    return _explained(
        address,
        lambda: boto3.session.Session().client(
            "kms", region_name=region, endpoint_url=address.endpoint, config=limits
        ),
    )


def _check_is_free(address: CloudUri, client: Any, alias: str) -> None:
    try:
        client.describe_key(KeyId=alias)
    except (errors.ClientError, errors.BotoCoreError) as error:
        if _code(error) == "NotFoundException":
            return
        raise _said(address, error) from None
    raise KeyStoreError(f"{address.name}: there is a key of that name already.")


def _opened(address: CloudUri, client: Any, key_id: str) -> PrivateKey:
    found = _explained(address, lambda: client.get_public_key(KeyId=key_id))
    public_key = remotestore.public_key_of(address.name, lambda: load_der_public_key(found["PublicKey"]))
    algorithm = _signing_algorithm(public_key)

    def sign_digest(digest: bytes) -> bytes:
        answer = _explained(
            address,
            lambda: client.sign(
                KeyId=found["KeyId"], Message=digest, MessageType="DIGEST", SigningAlgorithm=algorithm
            ),
        )
        return bytes(answer["Signature"])

    return remotestore.remote_key(address.name, public_key, sign_digest)


def _signing_algorithm(public_key: object) -> str:
    if isinstance(public_key, rsa.RSAPublicKey):
        return "RSASSA_PKCS1_V1_5_SHA_256"
    is_p384 = isinstance(public_key, ec.EllipticCurvePublicKey) and isinstance(public_key.curve, ec.SECP384R1)
    return "ECDSA_SHA_384" if is_p384 else "ECDSA_SHA_256"


def _explained(address: CloudUri, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except (errors.ClientError, errors.BotoCoreError) as error:
        raise _said(address, error) from None
    except ValueError:
        raise KeyStoreError(
            f"{address.name}: the region or the endpoint in the URI cannot be used."
        ) from None


def _said(address: CloudUri, error: Exception) -> KeyStoreError:
    code = _code(error)
    if isinstance(error, _UNREACHED) or code in _TRANSIENT or _status(error) >= 500:  # noqa: PLR2004
        return KeyUnavailable(f"{address.name} cannot be used now: AWS KMS is not reached ({code}).")
    if code == "NotFoundException":
        return KeyStoreError(f"{address.name}: there is no such key in AWS KMS.")
    if isinstance(error, errors.NoRegionError):
        return KeyStoreError(f"{address.name}: no region is given; add ?region=REGION to the URI.")
    return KeyStoreError(f"{address.name}: AWS KMS refuses ({code}).")


def _code(error: Exception) -> str:
    """Of the service, or the name of what went wrong before it was asked."""
    if isinstance(error, errors.ClientError):
        return str(error.response.get("Error", {}).get("Code", "unknown"))
    return type(error).__name__


def _status(error: Exception) -> int:
    if isinstance(error, errors.ClientError):
        return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return 0
