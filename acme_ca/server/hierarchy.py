"""The CA of the data directory: its folder, its password, and what is said when it cannot be used."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca import config, log
from acme_ca.ca import keystore
from acme_ca.ca.certify import UnsuitableName
from acme_ca.ca.hierarchy import Hierarchy, create_hierarchy, load_certificates
from acme_ca.ca.issuers import IssuerError
from acme_ca.ca.keystore import KeyKind, KeyStoreError, PrivateKey
from acme_ca.ca.rotation import CreateKey, MigrateKey
from acme_ca.ca.served import OpenKey
from acme_ca.config import ConfigurationError, Settings
from acme_ca.server import database, datadir

KeyType = Literal["ec", "rsa"]
MIN_PASSWORD = 8
"""Characters, of the password that a new hierarchy is encrypted with."""


def place(settings: Settings) -> Path:
    return settings.data / "ca"


def exists(settings: Settings) -> bool:
    """Whether anything is at the place of the hierarchy. Raises ConfigurationError when this user may not look."""
    try:
        return place(settings).is_dir() and any(place(settings).iterdir())
    except OSError as error:
        raise ConfigurationError(
            f"ACME_CA_DATA: {place(settings)} cannot be read: {error.strerror}."
        ) from None


def seed(settings: Settings) -> Hierarchy | None:
    """The certificates in the folder, with which a new database begins; in development mode they are made when there
    are none. None: the database may know a CA whose keys are elsewhere. Raises ConfigurationError.
    """
    if (place(settings) / "root.pem").exists():
        datadir.make(settings.data)
        if (place(settings) / "intermediate.key").exists():
            _password(settings)
        return certificates(settings)
    if settings.dev:
        log.get().warning(
            "there is no CA yet: a root and an intermediate are made", directory=str(place(settings))
        )
        return create(settings, common_name="Development", organization="", country="", key_type="ec")
    check_there(settings)
    return None


def check_there(settings: Settings) -> None:
    """Raises ConfigurationError when there can be no CA: neither in the folder nor in a database."""
    if not (exists(settings) or settings.dev or database.is_there(settings)):
        raise _missing(settings)


def keys(settings: Settings) -> OpenKey:
    """Opens the keys of issuers, by their URIs."""
    password = _secret(settings)

    def open_key(uri: str) -> PrivateKey:
        return keystore.open_key(uri, directory=place(settings), password=password)

    return open_key


def new_keys(settings: Settings) -> CreateKey:
    """Makes keys for issuers, by the URIs of their places."""

    def create_key(uri: str, kind: KeyKind) -> tuple[str, PrivateKey]:
        password = _password_of_folder(settings) if keystore.is_file(uri) else _secret(settings)
        return keystore.create_key(uri, kind, directory=_folder(settings), password=password)

    return create_key


def key_migration(settings: Settings) -> MigrateKey:
    """Brings keys from files into other stores, by the URIs of both."""

    def migrate(from_uri: str, to_uri: str) -> tuple[str, PrivateKey]:
        return keystore.migrate_key(
            from_uri, to_uri, directory=place(settings), password=_password(settings).encode()
        )

    return migrate


def keep_key(settings: Settings, key: PrivateKey) -> str:
    """Keep a key from elsewhere in the folder, encrypted; its URI. Raises KeyStoreError, ConfigurationError."""
    name = f"{secrets.token_hex(8)}.key"
    keystore.save(_folder(settings) / name, key, _password_of_folder(settings))
    return f"file:{name}"


def _password_of_folder(settings: Settings) -> bytes:
    """For a key that is added to those in the folder: a server opens them all with one. Raises ConfigurationError."""
    password = new_password(settings)
    there = list(place(settings).glob("*.key"))
    if there and not any(_opens(path, password) for path in there):
        raise ConfigurationError(
            f"ACME_CA_CA_PASSWORD: this password opens none of the keys in {place(settings)}, so a server could not open "
            "the new one beside them."
        )
    return password


def _opens(path: Path, password: bytes) -> bool:
    try:
        keystore.load(path, password)
    except KeyStoreError:
        return False
    return True


def _folder(settings: Settings) -> Path:
    datadir.make(settings.data)
    place(settings).mkdir(mode=0o700, exist_ok=True)
    return place(settings)


def create(
    settings: Settings, *, common_name: str, organization: str, country: str, key_type: KeyType
) -> Hierarchy:
    """Make the hierarchy, wholly or not at all, and publish its root certificate. Raises ConfigurationError, also when
    there is one.
    """
    password = new_password(settings)
    with _refusals_name_settings():
        made = create_hierarchy(
            place(settings),
            common_name=common_name,
            organization=organization,
            country=country,
            key_type=key_type,
            password=password,
            base_url=settings.public_http_url,
            now=datetime.now(UTC),
        )
    datadir.publish_root(settings.data, made.root.certificate.public_bytes(Encoding.PEM))
    return made


def new_password(settings: Settings) -> bytes:
    """For keys that are made now. Raises ConfigurationError when there is none, or it is too short."""
    password = _password(settings)
    if len(password) < MIN_PASSWORD:
        raise ConfigurationError(
            f"ACME_CA_CA_PASSWORD: the password of a new CA needs {MIN_PASSWORD} characters or more."
        )
    return password.encode()


def certificates(settings: Settings) -> Hierarchy:
    """The hierarchy without its keys, which needs no password. Raises ConfigurationError."""
    if not exists(settings):
        raise _missing(settings)
    with _refusals_name_settings():
        return load_certificates(place(settings))


def _missing(settings: Settings) -> ConfigurationError:
    return ConfigurationError(f"ACME_CA_DATA: there is no CA in {place(settings)}; run `acme-ca init` first.")


def _secret(settings: Settings) -> bytes:
    """Empty when there is none: keys in other stores may need none."""
    password = config.ca_password(settings)
    return password.get_secret_value().encode() if password else b""


def _password(settings: Settings) -> str:
    password = config.ca_password(settings)
    if password is None:
        raise ConfigurationError(
            "ACME_CA_CA_PASSWORD: the password of the CA keys is missing; set it, or ACME_CA_CA_PASSWORD_FILE."
        )
    return password.get_secret_value()


@contextlib.contextmanager
def _refusals_name_settings() -> Iterator[None]:
    try:
        yield
    except UnsuitableName as error:
        raise ConfigurationError(str(error)) from None
    except IssuerError as error:
        reason = str(error).rstrip(".")
        raise ConfigurationError(f"{reason} (settings ACME_CA_DATA, ACME_CA_CA_PASSWORD).") from None
