"""Keys in an Azure Key Vault or Managed HSM: `azurekeyvault://HOST/keys/NAME[/VERSION]`.

Who asks is for azure-identity to find out: the environment, a workload identity, the machine's identity, `az login`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from azure.core import exceptions as errors
from azure.identity import DefaultAzureCredential
from azure.keyvault.keys import KeyClient, KeyOperation, KeyVaultKey
from azure.keyvault.keys.crypto import CryptographyClient, SignatureAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from acme_ca.ca import remotestore
from acme_ca.ca.keystore import KeyKind, KeyStoreError, KeyUnavailable, PrivateKey
from acme_ca.ca.remotekey import der_signature
from acme_ca.ca.remotestore import CONNECT_SECONDS, CREATE_SECONDS, READ_SECONDS, CloudUri

T = TypeVar("T")

_CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}
_EC_KINDS = {KeyKind.EC_P256: "P-256", KeyKind.EC_P384: "P-384"}
_RSA_KINDS = {KeyKind.RSA_2048: 2048, KeyKind.RSA_4096: 4096}


def open_key(uri: str, *, password: bytes) -> PrivateKey:
    """Without a version the newest is taken, and stays while the key is open."""
    del password
    address = _parse(uri)
    _, name, version = _parts(address)
    vault = _Vault(address)
    return vault.opened(vault.asked(lambda: vault.keys.get_key(name, version)))


def create_key(uri: str, kind: KeyKind, *, password: bytes) -> tuple[str, PrivateKey]:
    """Make a key; in hardware unless the URI says `protection=software`. The URI that is returned has its version."""
    del password
    address = _parse(uri)
    _, name, version = _parts(address)
    if version:
        raise KeyStoreError("The URI of a new key in Azure Key Vault has no version.")
    vault = _Vault(address)
    vault.check_is_free(name)
    made = vault.asked(lambda: vault.create(name, kind))
    found = address.at(f"{address.place}/{made.properties.version}", "protection")
    return found, vault.opened(made)


def _parse(uri: str) -> CloudUri:
    place = r"//[A-Za-z0-9.-]+(?::[0-9]+)?/keys/[A-Za-z0-9-]+(?:/[A-Za-z0-9]+)?"
    return remotestore.parse(uri, place, "azurekeyvault://HOST/keys/NAME/VERSION", protection="hsm|software")


def _parts(address: CloudUri) -> tuple[str, str, str | None]:
    """(host, name, version)."""
    host, _, name, *version = address.place.removeprefix("//").split("/")
    return host, name, version[0] if version else None


class _NoSuchKey(KeyStoreError):  # noqa: N818  the name says it
    pass


class _Vault:
    """A vault as this process reaches it."""

    def __init__(self, address: CloudUri) -> None:
        self._address = address
        self._limits: dict[str, Any] = {
            "connection_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retry_total": 1,
        }
        self._credential = DefaultAzureCredential(
            exclude_shared_token_cache_credential=True,
            exclude_visual_studio_code_credential=True,
            exclude_developer_cli_credential=True,
            exclude_powershell_credential=True,
            exclude_broker_credential=True,
            **self._limits,
        )
        self.keys = KeyClient(f"https://{_parts(address)[0]}", self._credential, **self._limits)

    def opened(self, key: KeyVaultKey) -> PrivateKey:
        public_key = self._public_key(key)
        algorithm = _algorithm(public_key)
        client = CryptographyClient(key, self._credential, **self._limits)

        def sign_digest(digest: bytes) -> bytes:
            signature = self.asked(lambda: client.sign(algorithm, digest)).signature
            return signature if isinstance(public_key, rsa.RSAPublicKey) else der_signature(signature)

        return remotestore.remote_key(self._address.name, public_key, sign_digest)

    def create(self, name: str, kind: KeyKind) -> KeyVaultKey:
        how: dict[str, Any] = {
            "hardware_protected": self._address.query.get("protection") != "software",
            "key_operations": [KeyOperation.sign, KeyOperation.verify],
            "read_timeout": CREATE_SECONDS,
            "retry_total": 0,
        }
        if kind in _EC_KINDS:
            return self.keys.create_ec_key(name, curve=_EC_KINDS[kind], **how)
        return self.keys.create_rsa_key(name, size=_RSA_KINDS[kind], **how)

    def check_is_free(self, name: str) -> None:
        """Creating would add a version to a key that is there."""
        try:
            self.asked(lambda: self.keys.get_key(name))
        except _NoSuchKey:
            return
        raise KeyStoreError(f"{self._address.name}: there is a key of that name already.")

    def asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except errors.AzureError as error:
            raise self._said(error) from None
        except ValueError:  # its challenge names another resource than a vault
            raise KeyStoreError(f"{self._address.name}: this host does not speak as a key vault.") from None

    def _said(self, error: errors.AzureError) -> KeyStoreError:
        name, status = self._address.name, getattr(error, "status_code", None)
        if isinstance(error, errors.ResourceNotFoundError):
            return _NoSuchKey(f"{name}: there is no such key in the vault.")
        if status is None or status >= 500 or status == 429:  # noqa: PLR2004
            why = f"status {status}" if status else type(error).__name__
            return KeyUnavailable(
                f"{name} cannot be used now: the vault, or who vouches for us, is away ({why})."
            )
        return KeyStoreError(f"{name}: the vault refuses (status {status}).")

    def _public_key(self, key: KeyVaultKey) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
        jwk: Any = key.key
        numbers = {name: int.from_bytes(getattr(jwk, name) or b"") for name in ("n", "e", "x", "y")}
        try:
            if jwk.n is not None:
                return rsa.RSAPublicNumbers(numbers["e"], numbers["n"]).public_key()
            return ec.EllipticCurvePublicNumbers(numbers["x"], numbers["y"], _CURVES[jwk.crv]).public_key()
        except (KeyError, ValueError):
            raise KeyStoreError(
                f"{self._address.name} is neither an EC key on P-256 or P-384 nor an RSA key."
            ) from None


def _algorithm(public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> SignatureAlgorithm:
    if isinstance(public_key, rsa.RSAPublicKey):
        return SignatureAlgorithm.rs256
    return (
        SignatureAlgorithm.es384 if isinstance(public_key.curve, ec.SECP384R1) else SignatureAlgorithm.es256
    )
