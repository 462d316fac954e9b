"""The database of a command: the external one, the embedded one of the server that runs, or that one started for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

from acme_ca.config import ConfigurationError, Settings
from acme_ca.storage import database, embedded
from acme_ca.storage.database import DatabaseUnavailable, SchemaError
from acme_ca.storage.embedded import EmbeddedError, EmbeddedPostgres


def place(settings: Settings) -> Path:
    """Where the embedded database is."""
    return settings.data / "postgres"


def is_there(settings: Settings) -> bool:
    """Whether there is a database, or there can be one: an external one is not asked."""
    return settings.database_url is not None or place(settings).exists()


@contextlib.contextmanager
def reached(settings: Settings, *, make: bool = False) -> Iterator[str]:
    """The URL of the database, its schema up to date. `make`: also when there is none yet. Raises ConfigurationError."""
    if not (make or is_there(settings)):
        raise ConfigurationError("ACME_CA_DATA: there is no database yet; acme-ca serve makes it.")
    with _running(settings) as dsn, explained():
        asyncio.run(database.migrate(dsn))
        yield dsn


@contextlib.contextmanager
def _running(settings: Settings) -> Iterator[str]:
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    if url := embedded.url_of_running(place(settings)):
        yield url
        return
    server = EmbeddedPostgres(place(settings))
    try:
        yield server.start()
    except EmbeddedError as error:
        raise ConfigurationError(str(error)) from None
    finally:
        server.stop()


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """A database that cannot be used becomes a ConfigurationError: the setting is at fault, or its server."""
    try:
        yield
    except SchemaError as error:
        raise ConfigurationError(str(error)) from None
    except DatabaseUnavailable as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"ACME_CA_DATABASE_URL: the database cannot be used ({reason}).") from None
