"""`acme-ca eab`: keys for external account binding (RFC 8555 §7.3.4)."""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer
from rich.table import Table

from acme_ca.cli.options import (
    ConfigOption,
    DataOption,
    JsonOption,
    console,
    in_database,
    load_settings,
    operator,
)
from acme_ca.config import ConfigurationError, Settings
from acme_ca.core.model import EabKey
from acme_ca.lifecycle.eab import EabKeys
from acme_ca.storage.database import Database

T = TypeVar("T")


app = typer.Typer(help="Keys for external account binding.", no_args_is_help=True)


@app.command()
def create(
    *,
    owner: Annotated[str, typer.Option(help="For whom it is: a note for operators.")],
    service: Annotated[
        str | None,
        typer.Option(
            help="Its accounts may use this service's profiles and replace each other's certificates."
        ),
    ] = None,
    max_accounts: Annotated[
        int | None,
        typer.Option(min=1, help="How many accounts may be made with it; any number without this."),
    ] = None,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Make a key. Its HMAC key is shown now and never again."""
    settings = load_settings(config_file, data=data)
    key = _with_keys(
        settings,
        lambda keys: keys.create(owner=owner, service=service, max_accounts=max_accounts, actor=operator()),
    )
    hmac_key = urlsafe_b64encode(key.hmac_key).decode().rstrip("=")
    if as_json:
        typer.echo(json.dumps({"kid": key.id, "hmac_key": hmac_key}))
        return
    out = console()
    out.print(f"Key id:   {key.id}")
    out.print(f"HMAC key: {hmac_key}")
    out.print(f"certbot:  --eab-kid {key.id} --eab-hmac-key={hmac_key}")
    out.print(f"lego:     --eab --kid {key.id} --hmac={hmac_key}")


@app.command("list")
def list_keys(
    *, as_json: JsonOption = False, config_file: ConfigOption = None, data: DataOption = None
) -> None:
    """Show the keys, without their secrets."""
    keys = _with_keys(load_settings(config_file, data=data), EabKeys.all)
    if as_json:
        typer.echo(json.dumps([_facts(key) for key in keys], indent=2))
        return
    table = Table(box=None)
    table.add_column("key id", no_wrap=True)
    table.add_column("accounts", no_wrap=True)
    table.add_column("created (UTC)", no_wrap=True)
    table.add_column("revoked (UTC)", no_wrap=True)
    table.add_column("owner", overflow="fold")
    for key in keys:
        accounts = f"{key.accounts} of {key.max_accounts}" if key.max_accounts else str(key.accounts)
        table.add_row(key.id, accounts, _minute(key.created), _minute(key.revoked), _owner(key))
    console().print(table)


@app.command()
def revoke(
    kid: Annotated[str, typer.Argument(help="The key id.")],
    *,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """End a key: no further account can be made with it, and those that were made are frozen."""
    frozen = _with_keys(
        load_settings(config_file, data=data), lambda keys: keys.revoke(kid, reason="", actor=operator())
    )
    if frozen is None:
        raise ConfigurationError(f"There is no key {kid!r}, or it was revoked before: see acme-ca eab list.")
    console().print(f"Revoked: {kid}; accounts frozen: {len(frozen)}")


def _owner(key: EabKey) -> str:
    return f"{key.owner} ({key.service})" if key.service else key.owner


def _minute(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M}" if time else ""


def _facts(key: EabKey) -> dict[str, Any]:
    return {
        "kid": key.id,
        "owner": key.owner,
        "service": key.service,
        "accounts": key.accounts,
        "max_accounts": key.max_accounts,
        "created": key.created.isoformat(timespec="seconds"),
        "revoked": key.revoked.isoformat(timespec="seconds") if key.revoked else None,
    }


def _with_keys(settings: Settings, act: Callable[[EabKeys], Awaitable[T]]) -> T:
    def work(opened: Database) -> Awaitable[T]:
        return act(EabKeys(database=opened, clock=lambda: datetime.now(UTC), random_bytes=os.urandom))

    return in_database(settings, work)
