"""Where private keys live. A key store hands out cryptography's own types, so whoever signs knows no store.

The only store for now is a file: PKCS #8 in PEM, encrypted with AES-256. Another (an HSM, a cloud) will hand out its
own subclasses of the same two types, and nothing but its opening differs (design, decision 9).
"""

from __future__ import annotations

import os
import stat
from enum import StrEnum
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

if TYPE_CHECKING:
    from pathlib import Path

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_MAX_SIZE = 64 * 1024


class KeyStoreError(Exception):
    """A key cannot be had or kept: one sentence for the operator, naming the file."""


class KeyKind(StrEnum):
    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    RSA_2048 = "rsa-2048"
    RSA_4096 = "rsa-4096"


def generate(kind: KeyKind) -> PrivateKey:
    match kind:
        case KeyKind.EC_P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyKind.EC_P384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyKind.RSA_2048:
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case KeyKind.RSA_4096:
            return rsa.generate_private_key(public_exponent=65537, key_size=4096)


def save(path: Path, key: PrivateKey, password: bytes) -> None:
    """Write the key to a new file of mode 0600, durably. Raises KeyStoreError, also when the file exists."""
    if not password:
        raise KeyStoreError(f"The key {path} is not written: its password is empty.")
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise KeyStoreError(f"The key {path} cannot be written: {error.strerror}.") from None


def load(path: Path, password: bytes) -> PrivateKey:
    """The key in a file that `save` wrote. Raises KeyStoreError."""
    pem = _read(path)
    if b"-----BEGIN " not in pem:
        raise KeyStoreError(f"The key {path} is no PEM file.")
    if b"ENCRYPTED" not in pem:
        raise KeyStoreError(
            f"The key {path} is not encrypted; encrypt it with `openssl pkcs8 -topk8 -v2 aes256`."
        )
    if not password:
        raise KeyStoreError(f"The key {path} cannot be opened: no password is given.")
    return _decrypt(path, pem, password)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise KeyStoreError(f"The key {path} is open to other users; make it `chmod 600`.")
            return file.read(_MAX_SIZE)
    except OSError as error:
        raise KeyStoreError(f"The key {path} cannot be read: {error.strerror}.") from None


def _decrypt(path: Path, pem: bytes, password: bytes) -> PrivateKey:
    try:
        key = load_pem_private_key(pem, password)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyStoreError(
            f"The key {path} cannot be opened: the password is wrong or the file is damaged."
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise KeyStoreError(f"The key {path} is neither an EC nor an RSA key.")
    return key
