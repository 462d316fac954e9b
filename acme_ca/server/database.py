"""The database of a command: the external one, the embedded one of the server that runs, or that one started for it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from acme_ca.config import ConfigurationError, Settings
from acme_ca.storage import database, embedded
from acme_ca.storage.database import DatabaseUnavailable, SchemaError
from acme_ca.storage.embedded import EmbeddedError, EmbeddedPostgres

WAIT = 120.0
"""Seconds that a command waits for others to end."""


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
    with contextlib.ExitStack() as held:
        turn = held.enter_context(_turn(place(settings)))
        if url := embedded.url_of_running(place(settings)):
            turn.close()  # a server's own, which does not end with a command
            yield url
            return
        server = EmbeddedPostgres(place(settings))
        held.callback(server.stop)
        try:
            yield server.start()
        except EmbeddedError as error:
            raise ConfigurationError(str(error)) from None


@contextlib.contextmanager
def _turn(directory: Path) -> Iterator[contextlib.ExitStack]:
    """Commands that start the database do so one after the other: none ends what another uses. Closed, it is the next
    one's turn. Raises ConfigurationError after WAIT.
    """
    with contextlib.ExitStack() as held:
        if directory.exists():
            folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            held.callback(os.close, folder)
            _wait_for(folder)
        yield held


def _wait_for(folder: int) -> None:
    deadline = time.monotonic() + WAIT
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    "ACME_CA_DATA: another command works with the database; wait until it has ended."
                ) from None
            time.sleep(0.05)
        else:
            return


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
