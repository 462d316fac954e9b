"""`acme-ca blocklist`: keys that are neither certified nor an account's."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key
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
from acme_ca.config import ConfigurationError
from acme_ca.core import keys
from acme_ca.core.der import Unreadable, strictly
from acme_ca.core.model import Certificate
from acme_ca.storage import certificates
from acme_ca.storage import keys as key_store
from acme_ca.storage.database import Database
from acme_ca.storage.keys import BlockedKey, Blocking

BATCH = 10_000
"""Keys that one statement takes in."""
MOST_SHOWN = 50
"""Certificates that are named for a person; --json names all."""

app = typer.Typer(help="Keys that are neither certified nor an account's.", no_args_is_help=True)

KeyArgument = Annotated[
    str,
    typer.Argument(
        metavar="KEY",
        help="SHA-256 of its SubjectPublicKeyInfo (hexadecimal or base64), or a PEM file: certificate, CSR or public key.",
    ),
]
CommentOption = Annotated[str, typer.Option(help="Why: a note for operators.")]


@app.command()
def add(
    key: KeyArgument,
    *,
    comment: CommentOption,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Block a key, end the account that has it, and say which living certificates hold it."""
    settings = load_settings(config_file, data=data)
    wanted = [_key_of(key)]
    done = in_database(settings, lambda database: _block(database, wanted, comment))
    if as_json:
        typer.echo(json.dumps({"spki_sha256": wanted[0].hex(), **done.facts}, indent=2))
        return
    console().print(f"{'Blocked' if done.added else 'Blocked before'}: {wanted[0].hex()}")
    _tell(done)


@app.command("import")
def import_keys(
    file: Annotated[
        Path,
        typer.Argument(help="One SPKI hash a line; empty lines and what follows a # are left out."),
    ],
    *,
    comment: CommentOption,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Block the keys that a file lists: all of them, or none when a line is no hash."""
    settings = load_settings(config_file, data=data)
    wanted = list(_listed(file))
    done = in_database(settings, lambda database: _block(database, wanted, comment))
    if as_json:
        typer.echo(json.dumps(done.facts, indent=2))
        return
    console().print(f"Blocked: {done.added} of the {len(set(wanted))} listed keys; the others were before.")
    _tell(done)


@app.command()
def remove(key: KeyArgument, *, config_file: ConfigOption = None, data: DataOption = None) -> None:
    """Take a key off the list. Accounts that ended with it stay so."""
    settings = load_settings(config_file, data=data)
    wanted = _key_of(key)
    if not in_database(
        settings, lambda database: key_store.unblock(database, wanted, actor=operator(), now=_now())
    ):
        raise ConfigurationError(f"The key {wanted.hex()} is not blocked: see acme-ca blocklist list.")
    console().print(f"Not blocked any more: {wanted.hex()}")


@app.command("list")
def list_keys(
    *, as_json: JsonOption = False, config_file: ConfigOption = None, data: DataOption = None
) -> None:
    """Show the blocked keys, and how many living certificates hold each."""
    found = in_database(
        load_settings(config_file, data=data), lambda database: key_store.blocked(database, now=_now())
    )
    if as_json:
        typer.echo(json.dumps([_facts(key) for key in found], indent=2))
        return
    table = Table(box=None)
    table.add_column("SPKI SHA-256", overflow="fold", min_width=32)
    table.add_column("since (UTC)", no_wrap=True)
    table.add_column("living", no_wrap=True)
    table.add_column("comment", overflow="fold")
    for key in found:
        table.add_row(key.spki_sha256.hex(), f"{key.created:%Y-%m-%d %H:%M}", str(key.living), key.comment)
    console().print(table)


def _facts(key: BlockedKey) -> dict[str, Any]:
    return {
        "spki_sha256": key.spki_sha256.hex(),
        "comment": key.comment,
        "actor": key.actor,
        "created": key.created.isoformat(timespec="seconds"),
        "living_certificates": key.living,
    }


# ---------------------------------------------------------------- blocking


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    added: int
    accounts: Sequence[str]
    living: Sequence[Certificate]

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "added": self.added,
            "ended_accounts": list(self.accounts),
            "living_certificates": [certificate.serial for certificate in self.living],
        }


async def _block(database: Database, wanted: Sequence[bytes], comment: str) -> _Done:
    done: list[Blocking] = []
    living: list[Certificate] = []
    for start in range(0, len(wanted), BATCH):
        batch = wanted[start : start + BATCH]
        done.append(await key_store.block(database, batch, comment=comment, actor=operator(), now=_now()))
        living += await certificates.living_with_keys(database, batch, now=_now())
    return _Done(
        added=sum(len(one.keys) for one in done),
        accounts=[account for one in done for account in one.accounts],
        living=living,
    )


def _tell(done: _Done) -> None:
    out = console()
    for account in done.accounts:
        out.print(f"Ended:   account {account}; its client has to make a new one, with another key.")
    if not done.living:
        out.print("Held by: no living certificate")
        return
    out.print(f"Held by: {len(done.living)} living certificates")
    for certificate in done.living[:MOST_SHOWN]:
        names = ", ".join(identifier.value for identifier in certificate.identifiers)
        out.print(f"  {certificate.serial}  until {certificate.not_after:%Y-%m-%d %H:%M}  {names}")
    if len(done.living) > MOST_SHOWN:
        out.print(f"  … and {len(done.living) - MOST_SHOWN} more: --json shows all")
    out.print(
        "They stay valid. Have their holders renew with fresh keys (acme-ca cert window), and revoke them: "
        "acme-ca cert revoke SERIAL --reason keyCompromise"
    )


def _now() -> datetime:
    return datetime.now(UTC)


# ---------------------------------------------------------------- reading keys

_HEX = re.compile(r"[0-9a-fA-F]{64}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{43}=")
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_LOADERS: dict[bytes, Callable[[bytes], object]] = {
    b"CERTIFICATE": lambda pem: x509.load_pem_x509_certificate(pem).public_key(),
    b"CERTIFICATE REQUEST": lambda pem: x509.load_pem_x509_csr(pem).public_key(),
    b"NEW CERTIFICATE REQUEST": lambda pem: x509.load_pem_x509_csr(pem).public_key(),
    b"PUBLIC KEY": load_pem_public_key,
}


def _key_of(text: str) -> bytes:
    """The SPKI hash that an argument is or, being the path of a file, leads to."""
    found = _hash_of(text) or _in_file(Path(text))
    if found is None:
        raise ConfigurationError(
            f"{text} is neither the SHA-256 of a public key (64 hexadecimal digits, or base64) nor a file."
        )
    return found


def _hash_of(text: str) -> bytes | None:
    plain = text.replace(":", "")
    if _HEX.fullmatch(plain):
        return bytes.fromhex(plain)
    try:
        return base64.b64decode(text, validate=True) if _BASE64.fullmatch(text) else None
    except binascii.Error:
        return None


def _in_file(path: Path) -> bytes | None:
    """Of the file's first PEM block: in a chain, that is the leaf."""
    try:
        block = _PEM.search(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}).") from None
    if block is None or block[1] not in _LOADERS:
        raise ConfigurationError(
            f"{path} does not begin with a PEM certificate, CSR or public key (of a private key, take the public one: "
            f"openssl pkey -in {path} -pubout)."
        )
    try:
        with strictly():
            key = keys.supported(_LOADERS[block[1]](block[0]))
    except Unreadable:
        raise ConfigurationError(f"{path} is damaged: its first PEM block cannot be read.") from None
    if key is None:
        raise ConfigurationError(f"The key in {path} is of a kind or size that this CA never accepts.")
    return keys.spki_sha256(key)


def _listed(path: Path) -> Iterator[bytes]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is no text in UTF-8.") from None
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        if (key := _hash_of(text)) is None:
            raise ConfigurationError(
                f"{path}, line {number}: this is no SHA-256 of a public key (64 hexadecimal digits, or base64)."
            )
        yield key
