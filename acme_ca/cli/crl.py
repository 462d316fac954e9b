"""`acme-ca crl`: look at the CRLs, have them made anew, sign for a root whose key is elsewhere."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import ValidationError
from rich.table import Table

from acme_ca.ca import crls as signing
from acme_ca.ca import keystore
from acme_ca.ca.issuers import issuer_id
from acme_ca.ca.keystore import KeyStoreError, PrivateKey
from acme_ca.cli.options import (
    ConfigOption,
    DataOption,
    JsonOption,
    console,
    in_database,
    load_settings,
    operator,
    with_password,
)
from acme_ca.config import ConfigurationError, Settings, ca_password
from acme_ca.core.model import IssuerId
from acme_ca.core.problems import Problem
from acme_ca.core.root_list import RootList
from acme_ca.revocation.crl import CrlRules
from acme_ca.revocation.root_crl import RootCrls
from acme_ca.storage import crls
from acme_ca.storage.crls import ShardState

T = TypeVar("T")

app = typer.Typer(help="Certificate revocation lists.", no_args_is_help=True)

IssuerOption = Annotated[
    str | None, typer.Option(metavar="ID", help="Of this issuer only; its id, as acme-ca crl info shows it.")
]


# ---------------------------------------------------------------- looking


@app.command()
def info(
    *,
    issuer: IssuerOption = None,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Show the newest CRL of every shard."""
    settings = load_settings(config_file, data=data)
    rules = CrlRules.of(settings.crl)
    found = in_database(
        settings,
        lambda database: crls.states(database, late=rules.late, root_warning=rules.root_warning, now=_now()),
    )
    wanted = [state for state in found if issuer is None or state.shard.issuer == issuer]
    if as_json:
        typer.echo(json.dumps([_facts(state) for state in wanted], indent=2))
        return
    table = Table(box=None)
    for column in ("issuer", "shard", "state", "entries", "of", "next update (UTC)"):
        table.add_column(column, no_wrap=True)
    for state in wanted:
        facts = _facts(state)
        next_update = f"{state.next_update:%Y-%m-%d %H:%M}" if state.next_update else ""
        table.add_row(*(str("" if facts[name] is None else facts[name]) for name in _COLUMNS), next_update)
    console().print(table)


_COLUMNS = ("issuer", "shard", "state", "entries", "certificates")


def _facts(state: ShardState) -> dict[str, Any]:
    return {
        "issuer": state.shard.issuer,
        "shard": state.shard.number,
        "state": state.state,
        "number": state.number,
        "this_update": state.this_update.isoformat() if state.this_update else None,
        "next_update": state.next_update.isoformat() if state.next_update else None,
        "entries": state.entries,
        "bytes": state.size,
        "delta_bytes": state.delta_size,
        "certificates": state.taken,
        "due": state.due,
    }


@app.command()
def generate(
    *,
    issuer: IssuerOption = None,
    shard: Annotated[int | None, typer.Option(min=0, help="This shard only.")] = None,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Have CRLs made anew: a server that runs does so within seconds."""
    settings = load_settings(config_file, data=data)
    wanted = None if issuer is None else IssuerId(issuer)
    asked = in_database(
        settings, lambda database: crls.wish(database, issuer=wanted, shard=shard, now=_now())
    )
    if not asked:
        raise ConfigurationError("There is no such shard of an issuer that lives: see acme-ca crl info.")
    console().print(f"{asked} CRLs are due.")


# ---------------------------------------------------------------- roots whose key is elsewhere


@app.command("export-root")
def export_root(
    issuer: Annotated[str, typer.Argument(metavar="ID", help="The root's id.")],
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the list goes (JSON).")],
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Write down what the root's next CRL says, to be signed where its key is."""
    settings = load_settings(config_file, data=data)
    wanted = _with_roots(settings, lambda room: room.list_for(IssuerId(issuer)))
    _write(out, wanted.model_dump_json(indent=2).encode() + b"\n")
    console().print(f"List:    {out} ({len(wanted.revoked)} revoked)")
    console().print(
        f"There:   acme-ca crl sign-root --root-cert root.pem --key-uri … --list {out.name} --out root.crl"
    )
    console().print(f"  or:    acme-ca ceremony sign-crl DIRECTORY --list {out.name}")
    console().print("Then:    acme-ca crl upload root.crl")


@app.command("sign-root")
def sign_root(
    *,
    root_cert: Annotated[Path, typer.Option(metavar="FILE", help="The root's certificate (PEM).")],
    key_uri: Annotated[
        str,
        typer.Option(metavar="URI", help="Its key: file:NAME (from here), file:/PATH, pkcs11:…, awskms:…"),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the CRL goes (DER).")],
    list_file: Annotated[
        Path | None,
        typer.Option("--list", metavar="FILE", help="Of crl export-root; without it the database is asked."),
    ] = None,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Sign the CRL of a root. With --list no database is needed, nor a network."""
    settings = load_settings(config_file, data=data)
    root = _certificate(root_cert)
    wanted = (
        read_list(list_file)
        if list_file is not None
        else _with_roots(settings, lambda room: room.list_for(issuer_id(root)))
    )
    if wanted.issuer != issuer_id(root):
        raise ConfigurationError(f"The list is another root's: {root_cert} is not its certificate.")
    key = _key(with_password(settings, new=False), key_uri)
    if key.public_key() != root.public_key():
        raise ConfigurationError(f"The key is another's: it does not belong to {root_cert}.")
    unsigned = wanted.unsigned(root_ends=root.not_valid_after_utc, now=_now())
    _write(out, signing.sign(root, key, unsigned))
    console().print(f"CRL:         {out}, number {unsigned.number}, {len(unsigned.entries)} revoked")
    console().print(f"Next update: {unsigned.next_update:%Y-%m-%d %H:%M} UTC")


@app.command()
def upload(
    crl: Annotated[Path, typer.Argument(metavar="FILE", help="The CRL (DER or PEM).")],
    *,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Serve a CRL that a root signed elsewhere: it is looked at first."""
    content = _read(crl)
    if content.lstrip().startswith(b"-----BEGIN"):
        try:
            content = x509.load_pem_x509_crl(content).public_bytes(Encoding.DER)
        except ValueError:
            raise ConfigurationError(f"{crl} is no CRL in PEM.") from None
    settings = load_settings(config_file, data=data)
    root = _with_roots(settings, lambda room: room.upload(content, actor=operator()))
    console().print(f"Served from now on: the CRL of root {root}")


def _with_roots(settings: Settings, act: Callable[[RootCrls], Awaitable[T]]) -> T:
    try:
        return in_database(
            settings,
            lambda database: act(
                RootCrls(
                    database=database,
                    public_http_url=settings.public_http_url,
                    lifetime=timedelta(seconds=settings.crl.root_lifetime),
                    clock=_now,
                )
            ),
        )
    except Problem as problem:
        raise ConfigurationError(problem.detail) from None


def read_list(path: Path) -> RootList:
    """A file of `export-root`. Raises ConfigurationError."""
    try:
        return RootList.model_validate_json(_read(path))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigurationError(f"{path} is no list of crl export-root: {place}: {first['msg']}.") from None


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError:
        raise ConfigurationError(f"{path} is no certificate in PEM.") from None


def _key(settings: Settings, uri: str) -> PrivateKey:
    password = ca_password(settings)
    secret = password.get_secret_value().encode() if password else b""
    try:
        return keystore.open_key(uri, directory=Path.cwd(), password=secret)
    except KeyStoreError as error:
        raise ConfigurationError(str(error)) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}.") from None


def _now() -> datetime:
    return datetime.now(UTC)
