"""The `acme-ca` command. What cannot be done for a setting's sake ends with one sentence and status 2."""

from __future__ import annotations

import importlib
import json
import sys
from collections import UserDict
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_group

from acme_ca import __version__
from acme_ca.cli.options import ConfigOption, DataOption, JsonOption, load_settings, with_password
from acme_ca.config import ConfigurationError

REFUSED = 2
"""Exit status when a setting or an argument prevents the act."""

PARTS = {
    "init": "ca:init-root",
    "explain": "explain:explain",
    "backup": "backup:backup",
    "restore": "backup:restore",
    "ca": "ca",
    "cert": "cert_list",
    "ceremony": "ceremony",
    "crl": "crl",
    "db": "db",
    "eab": "eab",
    "account": "account",
    "policy": "policy",
    "scope": "scope",
    "health": "health",
    "key": "key",
    "blocklist": "blocklist",
    "limits": "limits",
    "order": "order",
    "profile": "profile",
    "service": "service",
    "token": "token",
    "approval": "approval",
    "audit": "audit",
}
"""The module of each group of commands, and of each command that has its own."""


class _Loading(UserDict[str, Any]):
    """Commands, loaded when they are asked for: who types one does not wait for what the others need."""

    def __getitem__(self, name: str) -> Any:
        found = super().__getitem__(name)
        return _loaded(name, found) if isinstance(found, str) else found


def _loaded(name: str, part: str) -> Any:
    module, _, command = part.partition(":")
    group = get_group(importlib.import_module(f"{__name__}.{module}").app)
    found = group.commands[command] if command else group
    found.name = name
    return found


class Commands(TyperGroup):
    """All of them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Loading({**self.commands, **PARTS})

    def invoke(self, ctx: Any) -> Any:
        """In plain words: Typer has pydantic read options, and repeats what it says."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


app = typer.Typer(
    name="acme-ca",
    help="A private certificate authority that speaks ACME (RFC 8555). Every setting is an environment variable "
    "ACME_CA_… or a line of the file given by --config; options win over both.",
    cls=Commands,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


def main() -> NoReturn:
    """The console script."""
    try:
        app()
    except ConfigurationError as error:
        sys.stderr.write(f"acme-ca: {error}\n")
        raise SystemExit(REFUSED) from None
    raise SystemExit(0)


def _print_version(wanted: bool) -> None:  # noqa: FBT001  typer calls it so
    if wanted:
        typer.echo(f"acme-ca {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...


# ---------------------------------------------------------------- serving


@app.command()
def serve(
    *,
    dev: Annotated[
        bool,
        typer.Option("--dev", help="Development mode: makes a CA when there is none; not for production."),
    ] = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
    workers: Annotated[
        str | None, typer.Option(metavar="N", help="Worker processes. [ACME_CA_WORKERS]")
    ] = None,
    https_listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="ACME over TLS. [ACME_CA_HTTPS_LISTEN]")
    ] = None,
    http_listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Public files. [ACME_CA_HTTP_LISTEN]")
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(metavar="URL", help="How clients reach ACME. [ACME_CA_PUBLIC_URL]")
    ] = None,
    public_http_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Base of the URLs in certificates. [ACME_CA_PUBLIC_HTTP_URL]"),
    ] = None,
) -> None:
    """Serve ACME until stopped (SIGTERM or Ctrl-C; SIGHUP loads the TLS certificate again)."""
    settings = load_settings(
        config_file,
        dev=dev or None,
        data=data,
        workers=workers,
        https_listen=https_listen,
        http_listen=http_listen,
        public_url=public_url,
        public_http_url=public_http_url,
    )
    from acme_ca.server import hierarchy, start  # noqa: PLC0415  half of what other commands would load

    makes_a_ca = settings.dev and not hierarchy.exists(settings)
    hierarchy.check_there(settings)  # before a password is asked for
    raise typer.Exit(start.serve(with_password(settings, new=makes_a_ca)))


# ---------------------------------------------------------------- version


@app.command()
def version(*, as_json: JsonOption = False) -> None:
    """Show the version."""
    typer.echo(json.dumps({"version": __version__}) if as_json else f"acme-ca {__version__}")
