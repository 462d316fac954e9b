"""What the commands share: options, settings, the password, the database, the console."""

from __future__ import annotations

import asyncio
import os
import pwd
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import SecretStr
from rich.console import Console

from acme_ca import config, log
from acme_ca.config import Settings
from acme_ca.core.actors import MACHINE, SOCKET, Actor
from acme_ca.core.times import RANGE, can_be_kept

if TYPE_CHECKING:
    from acme_ca.storage.database import Database

T = TypeVar("T")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings file (TOML). [ACME_CA_CONFIG]")
]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Where keys and database are. [ACME_CA_DATA]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


def load_settings(config_file: Path | None, **overrides: Any) -> Settings:
    """The settings; `overrides` are options of the command. Raises ConfigurationError."""
    if config_file is not None:
        os.environ[config.ENV_PREFIX + "CONFIG"] = str(config_file)
    log.configure()
    for name in config.unknown_variables(os.environ):
        log.get().warning("this environment variable names no setting", variable=name)
    return config.load(**overrides)


def read_time(text: str) -> datetime:
    """A day, or a time, of UTC where it says nothing else. Raises ValueError with a sentence."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("write the time as 2026-01-31 or 2026-01-31T12:00:00Z.") from None
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    if not can_be_kept(time):
        raise ValueError(f"write {RANGE}, as in 2026-01-31.")
    return time.astimezone(UTC)


def operator() -> Actor:
    """Who runs the command, as the system knows them, and as the server names them at its socket."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user need not have a name
        name = str(os.getuid())
    return Actor(f"operator:{name}{MACHINE}", SOCKET)


def with_password(settings: Settings, *, new: bool) -> Settings:
    """The settings with the password of the CA keys: asked for when it is in none, and a person is there."""
    if config.ca_password(settings) is not None or not sys.stdin.isatty():
        return settings
    question = "New password for the CA keys" if new else "Password of the CA keys"
    password: str = typer.prompt(question, hide_input=True, confirmation_prompt=new, err=True)
    return settings.model_copy(update={"ca_password": SecretStr(password)})


def console(*, stderr: bool = False) -> Console:
    """For output that a person may copy from: as wide as it needs, when it does not go to a terminal."""
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
    return (
        console
        if console.is_terminal
        else Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=200)
    )


def in_database(settings: Settings, act: Callable[[Database], Awaitable[T]], *, make: bool = False) -> T:
    """What `act` returns for the database of the settings; `make`: also for one that is not there yet. Raises
    ConfigurationError when it cannot be used.
    """
    from acme_ca.server import database  # noqa: PLC0415  most commands are beside a server and need neither
    from acme_ca.storage.database import Database  # noqa: PLC0415

    async def work(dsn: str) -> T:
        async with Database.open(dsn, connections=1) as opened:
            return await act(opened)

    with database.reached(settings, make=make) as dsn:
        return asyncio.run(work(dsn))
