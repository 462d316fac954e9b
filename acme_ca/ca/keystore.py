"""Where private keys live. A key store hands out cryptography's own types, so whoever signs knows no store.

A key is named by a URI. `file:` is PKCS #8 in PEM, encrypted with AES-256, and lives here. The others are modules of
their own, imported when the first of their URIs is opened: what they need is an optional extra. Their keys are the
forwarding types of `remotekey`.
"""

from __future__ import annotations

import importlib
import os
import re
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import unquote

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from acme_ca.ca import folder
from acme_ca.ca.remotekey import RemoteEcKey, RemoteRsaKey

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_MAX_SIZE = 64 * 1024


class KeyStoreError(Exception):
    """A key cannot be had, kept or used: one sentence for the operator, naming the key, without secrets."""


class KeyUnavailable(KeyStoreError):  # noqa: N818  the name says it
    """The store cannot be reached now. It may be back later: the next use of the key tries again."""


class KeyKind(StrEnum):
    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    RSA_2048 = "rsa-2048"
    RSA_4096 = "rsa-4096"


# ---------------------------------------------------------------- the door


class RemoteStore(Protocol):
    """What a module of a store offers. Its keys are RemoteEcKey or RemoteRsaKey."""

    def open_key(self, uri: str, *, password: bytes) -> PrivateKey: ...

    def create_key(self, uri: str, kind: KeyKind, *, password: bytes) -> tuple[str, PrivateKey]: ...


class ImportingStore(RemoteStore, Protocol):
    """One that takes keys that were made elsewhere."""

    def import_key(self, uri: str, private_key: PrivateKey, *, password: bytes) -> tuple[str, PrivateKey]: ...


def open_key(uri: str, *, directory: Path, password: bytes) -> PrivateKey:
    """The key that a URI names. Blocks for a remote store; call it after the fork (see `pkcs11`).

    `directory`: where a relative `file:` name lies. `password`: of a file, or the PIN of a token whose URI names none.
    Raises KeyStoreError, KeyUnavailable among them.
    """
    if is_file(uri):
        return load(_path(uri, directory), password)
    return _remote(uri).open_key(uri, password=password)


def create_key(uri: str, kind: KeyKind, *, directory: Path, password: bytes) -> tuple[str, PrivateKey]:
    """Make a key in the store that the URI names; never in the place of another.

    The URI that is returned is the one to keep: it finds this very key again, and has no secret in it. In a remote
    store the key is made inside and cannot leave. Raises KeyStoreError, KeyUnavailable among them.
    """
    check_keepable(uri)
    if is_file(uri):
        key = generate(kind)
        save(_path(uri, directory), key, password)
        return uri, key
    return _remote(uri).create_key(uri, kind, password=password)


def migrate_key(
    source_uri: str, target_uri: str, *, directory: Path, password: bytes
) -> tuple[str, PrivateKey]:
    """Bring a copy of a key in a file into the store of another URI, where that store takes keys from outside.

    Gives what `create_key` gives. The key in its new place has signed, under the public key that it had before. The
    file is left as it is. Raises KeyStoreError, KeyUnavailable among them.
    """
    check_keepable(target_uri)
    scheme = _scheme(target_uri)
    if scheme == _FILE or not _REMOTE[scheme].imports:
        raise KeyStoreError(
            f"Keys are not brought into {scheme}: from elsewhere; make a new key there, and an issuer with it."
        )
    if not is_file(source_uri):
        raise KeyStoreError(
            "Only a key in a file can be brought elsewhere: the others do not leave their store."
        )
    key = open_key(source_uri, directory=directory, password=password)
    uri, brought = cast("ImportingStore", _remote(target_uri)).import_key(target_uri, key, password=password)
    if brought.public_key() != key.public_key():
        raise KeyStoreError("The key in the new store is another than the one that was to be brought there.")
    return uri, brought


def check_keepable(uri: str) -> None:
    """Raises KeyStoreError for a URI with a PIN in it: URIs of keys are kept in the database and shown."""
    if "pin-value=" in uri:
        raise KeyStoreError(
            "The URI of an issuer's key is kept, and so must have no PIN; name a file with it by pin-source."
        )


def is_file(uri: str) -> bool:
    """Whether the key lies in a file. Raises KeyStoreError for a malformed URI."""
    return _scheme(uri) == _FILE


def may_block(key: PrivateKey) -> bool:
    """Whether a signature asks another process or machine: then it is made in a thread, not in the event loop."""
    return isinstance(key, RemoteEcKey | RemoteRsaKey)


_FILE = "file"
_URI = re.compile(r"([a-z0-9]+):[!-~]+", re.ASCII)
_MAX_URI = 2048


@dataclass(frozen=True, slots=True)
class _Extra:
    """The module of a store, and what to install for it."""

    module: str
    extra: str
    imports: bool = False


_REMOTE = {
    "pkcs11": _Extra("acme_ca.ca.pkcs11", "pkcs11", imports=True),
    "awskms": _Extra("acme_ca.ca.awskms", "aws"),
    "azurekeyvault": _Extra("acme_ca.ca.azurekeyvault", "azure"),
    "gcpkms": _Extra("acme_ca.ca.gcpkms", "gcp"),
}


def _scheme(uri: str) -> str:
    match = _URI.fullmatch(uri) if len(uri) <= _MAX_URI else None
    known = ", ".join(f"{scheme}:" for scheme in (_FILE, *_REMOTE))
    if match is None:
        raise KeyStoreError(
            f"The key URI is malformed: it begins with one of {known}, and is printable ASCII without spaces."
        )
    if match[1] != _FILE and match[1] not in _REMOTE:
        raise KeyStoreError(f"There is no key store {match[1]}: — the key URI begins with one of {known}.")
    return match[1]


def _remote(uri: str) -> RemoteStore:
    scheme = _scheme(uri)
    needs = _REMOTE[scheme]
    try:
        return cast("RemoteStore", importlib.import_module(needs.module))
    except ImportError:
        raise KeyStoreError(
            f'Keys in {scheme}: need more software; install it with: pip install "acme-ca[{needs.extra}]".'
        ) from None


# ---------------------------------------------------------------- files


def _path(uri: str, directory: Path) -> Path:
    """`file:name` lies in the directory; `file:/path` and `file:///path` are absolute (RFC 8089)."""
    name = unquote(uri.removeprefix("file:")).removeprefix("//")
    if not name.strip("/") or "\0" in name or (uri.startswith("file://") and not name.startswith("/")):
        raise KeyStoreError("The key URI is malformed: it is file:NAME or file:/PATH.")
    return directory / name


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
            _give_to_owner_of(path.parent, descriptor)
            file.write(pem)
            file.flush()
            os.fsync(descriptor)
        folder.sync(path.parent)
    except OSError as error:
        raise KeyStoreError(f"The key {path} cannot be written: {error.strerror}.") from None


def _give_to_owner_of(place: Path, descriptor: int) -> None:
    """A key that root makes beside the others is for the user that the server runs as."""
    if os.geteuid() == 0:
        owner = place.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


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


def read_foreign(path: Path, password: bytes) -> PrivateKey:
    """A key that is brought from elsewhere, encrypted or not, to be kept by `save`. Raises KeyStoreError."""
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise KeyStoreError(f"The key {path} cannot be read: {error.strerror}.") from None
    return _decrypt(path, pem, password if b"ENCRYPTED" in pem else None)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise KeyStoreError(f"The key {path} is open to other users; make it `chmod 600`.")
            return file.read(_MAX_SIZE)
    except OSError as error:
        raise KeyStoreError(f"The key {path} cannot be read: {error.strerror}.") from None


def _decrypt(path: Path, pem: bytes, password: bytes | None) -> PrivateKey:
    try:
        key = load_pem_private_key(pem, password)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyStoreError(
            f"The key {path} cannot be opened: the password is wrong or the file is damaged."
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise KeyStoreError(f"The key {path} is neither an EC nor an RSA key.")
    return key
