"""`acme-ca crl`: look at the CRLs, have them made anew, sign for a root whose key is elsewhere."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import ValidationError

from acme_ca.ca import crls as signing
from acme_ca.ca import keystore
from acme_ca.ca.issuers import issuer_id
from acme_ca.ca.keystore import KeyStoreError, PrivateKey
from acme_ca.cli.lists import show_list
from acme_ca.cli.options import (
    ConfigOption,
    DataOption,
    JsonOption,
    console,
    load_settings,
    with_password,
)
from acme_ca.cli.remote import Api, command, minute, part, say, show_json, this_machine, whole_issuer_id
from acme_ca.config import ConfigurationError, Settings, ca_password
from acme_ca.core.root_list import RootList

T = TypeVar("T")

app = typer.Typer(help="Certificate revocation lists.", no_args_is_help=True)

IssuerOption = Annotated[
    str | None, typer.Option(metavar="ID", help="Of this issuer only: its id, or the first digits of it.")
]


# ---------------------------------------------------------------- looking


@command(app, "info")
def info(
    api: Api,
    *,
    issuer: IssuerOption = None,
    state: Annotated[str | None, typer.Option(help="ok, late, over, missing or finished.")] = None,
) -> None:
    """Show the newest CRL of every shard."""
    found = list(api.pages("/crl/info", issuer=whole_issuer_id(api, issuer), state=state))
    if api.as_json:
        show_json(found)
        return
    rows = [
        (
            *("" if shard[name] is None else str(shard[name]) for name in _COLUMNS),
            minute(shard["next_update"]),
        )
        for shard in found
    ]
    show_list(
        ("issuer", "shard", "state", "entries", "of", "next update (UTC)"), rows, spare=("of", "entries")
    )


_COLUMNS = ("issuer", "shard", "state", "entries", "certificates")


@command(app, "generate")
def generate(
    api: Api,
    *,
    issuer: IssuerOption = None,
    shard: Annotated[int | None, typer.Option(min=0, help="This shard only.")] = None,
    wait: Annotated[
        float,
        typer.Option(min=0, max=60, metavar="SECONDS", help="For how long to wait until they are published."),
    ] = 10.0,
) -> None:
    """Have CRLs made anew: a server that runs does so within seconds."""
    made = api.post("/crl/generate", {"issuer": whole_issuer_id(api, issuer), "shard": shard, "wait": wait})
    if api.as_json:
        show_json(made)
        return
    console().print(f"{made['asked']} CRLs are due.")
    for one in made["published"]:
        console().print(f"Published: {one['issuer']}/{one['shard']}, number {one['number']}")
    for one in made["pending"]:
        console().print(f"Waiting:   {one['issuer']}/{one['shard']}")


# ---------------------------------------------------------------- roots whose key is elsewhere


@command(app, "export-root")
def export_root(
    api: Api,
    issuer: Annotated[
        str, typer.Argument(metavar="ID", help="The root's id, or its first digits: see acme-ca ca list.")
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the list goes (JSON).")],
) -> None:
    """Write down what the root's next CRL says, to be signed where its key is."""
    wanted = _list_for(api, api.get(f"/issuers/{part(issuer)}")["id"])
    _write(out, wanted.model_dump_json(indent=2).encode() + b"\n")
    say(
        api,
        wanted.model_dump(mode="json"),
        f"List:    {out} ({len(wanted.revoked)} revoked)",
        f"There:   acme-ca crl sign-root --root-cert root.pem --key-uri … --list {out.name} --out root.crl",
        f"  or:    acme-ca ceremony sign-crl DIRECTORY --list {out.name}",
        "Then:    acme-ca crl upload root.crl",
    )


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
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Sign the CRL of a root. With --list no database is needed, nor a network."""
    settings = load_settings(config_file, data=data)
    root = _certificate(root_cert)
    wanted = read_list(list_file) if list_file is not None else _list_here(config_file, data, issuer_id(root))
    if wanted.issuer != issuer_id(root):
        raise ConfigurationError(f"The list is another root's: {root_cert} is not its certificate.")
    key = _key(with_password(settings, new=False), key_uri)
    if key.public_key() != root.public_key():
        raise ConfigurationError(f"The key is another's: it does not belong to {root_cert}.")
    unsigned = wanted.unsigned(root_ends=root.not_valid_after_utc, now=_now())
    _write(out, signing.sign(root, key, unsigned))
    if as_json:
        facts = {"issuer": unsigned.issuer, "number": unsigned.number, "revoked": len(unsigned.entries)}
        show_json({"crl": str(out), **facts, "next_update": unsigned.next_update.isoformat()})
        return
    console().print(f"CRL:         {out}, number {unsigned.number}, {len(unsigned.entries)} revoked")
    console().print(f"Next update: {unsigned.next_update:%Y-%m-%d %H:%M} UTC")


@command(app, "upload")
def upload(
    api: Api, crl: Annotated[Path, typer.Argument(metavar="FILE", help="The CRL (DER or PEM).")]
) -> None:
    """Serve a CRL that a root signed elsewhere: it is looked at first."""
    content = _read(crl)
    if content.lstrip().startswith(b"-----BEGIN"):
        try:
            content = x509.load_pem_x509_crl(content).public_bytes(Encoding.DER)
        except ValueError:
            raise ConfigurationError(f"{crl} is no CRL in PEM.") from None
    served = api.post("/crl/roots", {"crl": base64.b64encode(content).decode()})
    say(api, served, f"Served from now on: the CRL of root {served['issuer']}")


def _list_for(api: Api, root: str) -> RootList:
    return RootList.model_validate(api.get(f"/crl/roots/{part(root)}/list"))


def _list_here(config_file: Path | None, data: Path | None, root: str) -> RootList:
    """Of the server on this machine, or of its database."""
    with this_machine(config_file=config_file, data=data) as api:
        return _list_for(api, root)


def read_list(path: Path) -> RootList:
    """A file of `export-root`. Raises ConfigurationError."""
    try:
        return RootList.model_validate_json(_read(path))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        what = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{path} is no list of crl export-root: {place}: {what}.") from None


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
