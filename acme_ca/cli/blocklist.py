"""`acme-ca blocklist`: keys that are neither certified nor an account's."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from rich.table import Table

from acme_ca.admin.blocklist import MOST_KEYS
from acme_ca.cli.lists import SORT, BeforeOption, SinceOption, TextOption
from acme_ca.cli.options import (
    console,
)
from acme_ca.cli.remote import Api, command, minute, say, show_json
from acme_ca.config import ConfigurationError
from acme_ca.core import keys
from acme_ca.core.der import Unreadable, strictly
from acme_ca.storage.keys import BlockedKeySort

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


@command(app, "add")
def add(api: Api, key: KeyArgument, *, comment: CommentOption) -> None:
    """Block a key, end the account that has it, and say which living certificates hold it."""
    wanted = _key_of(key).hex()
    done = _block(api, [wanted], comment)
    if api.as_json:
        show_json({"spki_sha256": wanted, **done})
        return
    console().print(f"{'Blocked' if done['added'] else 'Blocked before'}: {wanted}")
    _tell(done)


@command(app, "import")
def import_keys(
    api: Api,
    file: Annotated[
        Path,
        typer.Argument(help="One SPKI hash a line; empty lines and what follows a # are left out."),
    ],
    *,
    comment: CommentOption,
) -> None:
    """Block the keys that a file lists: all of them, or none when a line is no hash."""
    wanted = list(dict.fromkeys(key.hex() for key in _listed(file)))
    done = _block(api, wanted, comment)
    if api.as_json:
        show_json(done)
        return
    others = "; the others were before" * (done["added"] < len(wanted))
    console().print(f"Blocked: {done['added']} of the {len(wanted)} listed keys{others}.")
    _tell(done)


@command(app, "remove")
def remove(api: Api, key: KeyArgument) -> None:
    """Take a key off the list. Accounts that ended with it stay so."""
    wanted = _key_of(key).hex()
    api.delete(f"/blocklist/{wanted}")
    say(api, {"spki_sha256": wanted}, f"Not blocked any more: {wanted}")


@command(app, "list")
def list_keys(
    api: Api,
    *,
    actor: Annotated[
        str | None, typer.Option(help="Only what they blocked; as the audit names them.")
    ] = None,
    text: TextOption = None,
    since: SinceOption = None,
    before: BeforeOption = None,
    sort: Annotated[BlockedKeySort | None, typer.Option(help=SORT)] = None,
) -> None:
    """Show the blocked keys, and how many living certificates hold each."""
    found = list(
        api.pages("/blocklist", actor=actor, text=text, created_since=since, created_before=before, sort=sort)
    )
    if api.as_json:
        show_json(found)
        return
    table = Table(box=None)
    table.add_column("SPKI SHA-256", overflow="fold", min_width=32)
    table.add_column("since (UTC)", no_wrap=True)
    table.add_column("living", no_wrap=True)
    table.add_column("comment", overflow="fold")
    for key in found:
        table.add_row(
            key["spki_sha256"], minute(key["created"]), str(key["living_certificates"]), key["comment"]
        )
    console().print(table)


# ---------------------------------------------------------------- blocking


def _block(api: Api, keys: Sequence[str], comment: str) -> dict[str, Any]:
    """In batches; what the server said of all of them together."""
    said = [
        api.post("/blocklist", {"keys": keys[start : start + MOST_KEYS], "comment": comment})
        for start in range(0, len(keys), MOST_KEYS)
    ]
    return {
        "added": sum(one["added"] for one in said),
        "ended_accounts": [account for one in said for account in one["ended_accounts"]],
        "living": sum(one["living"] for one in said),
        "living_certificates": [held for one in said for held in one["living_certificates"]],
    }


def _tell(done: dict[str, Any]) -> None:
    out = console()
    for account in done["ended_accounts"]:
        out.print(f"Ended:   account {account}; its client has to make a new one, with another key.")
    if not done["living"]:
        out.print("Held by: no living certificate")
        return
    out.print(f"Held by: {done['living']} living certificates")
    shown = done["living_certificates"][:MOST_SHOWN]
    for certificate in shown:
        names = ", ".join(certificate["names"])
        out.print(f"  {certificate['serial']}  until {minute(certificate['not_after'])}  {names}")
    if done["living"] > len(shown):
        out.print(f"  … and {done['living'] - len(shown)} more: --json shows more of them")
    out.print(
        "They stay valid. Have their holders renew with fresh keys (acme-ca cert window), and revoke them: "
        "acme-ca cert revoke SERIAL --reason keyCompromise"
    )


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
