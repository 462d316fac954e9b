"""`acme-ca backup` and `acme-ca restore`: local by nature, for they read and write keys."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from acme_ca.cli import audit
from acme_ca.cli.options import ConfigOption, DataOption, JsonOption, load_settings, operator
from acme_ca.config import ConfigurationError, Settings
from acme_ca.server import archive, database, encryption
from acme_ca.server import backup as backups
from acme_ca.server import restore as restores
from acme_ca.server.archive import Source, Target
from acme_ca.server.backup import Backup
from acme_ca.server.encryption import Recipient

app = typer.Typer()

STREAM = "-"
_BEGINNING = 64
MIN_PASSPHRASE = 8

FileArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="The backup; - for standard output or input.")
]


# ---------------------------------------------------------------- making


@app.command()
def backup(
    file: FileArgument,
    *,
    age_recipient: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY", help="Encrypt it for this public key (age1…, or ssh-…); may be repeated."
        ),
    ] = None,
    age_recipients_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Encrypt it for the public keys in a file, one in a line."),
    ] = None,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Encrypt it under a passphrase, which is asked for twice.")
    ] = False,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The same; the passphrase is the first line of a file."),
    ] = None,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Write all that a lost machine needs into one file: database, keys as they are stored, settings without passwords.

    The server may run meanwhile. Encrypted it is in the format of age (https://age-encryption.org), whose program opens
    it as well. The password of the CA keys is not in it, nor keys in an HSM or a cloud: keep those elsewhere.
    """
    settings = load_settings(config_file, data=data)
    to = _recipients(age_recipient or [], age_recipients_file)
    secret = _new_passphrase(ask=passphrase, file=passphrase_file)
    if to and secret is not None:
        raise ConfigurationError("A backup is encrypted for keys or under a passphrase, not both.")
    with database.reached(settings) as dsn, database.explained(), _target(file, to, secret) as target:
        made = asyncio.run(backups.make(settings, dsn, target))
        # Before the file has its name: killed in between, the audit tells of one too many, and never of one too few.
        asyncio.run(backups.note(dsn, made, actor=operator()))
    _tell(made, as_json=as_json, err=file == STREAM)
    if not to and secret is None:
        sys.stderr.write(
            "It is not encrypted: keep it as you keep keys. EAB keys and the server's TLS key are readable in it.\n"
        )


@contextmanager
def _target(file: str, to: list[Recipient], secret: str | None) -> Iterator[Target]:
    with ExitStack() as opened:
        out: BinaryIO
        out = _standard_output() if file == STREAM else opened.enter_context(archive.new_file(Path(file)))
        if to:
            yield opened.enter_context(encryption.for_recipients(out, to))
        elif secret is not None:
            yield opened.enter_context(encryption.under_passphrase(out, secret))
        else:
            yield out
        opened.close()
        if file == STREAM:
            out.flush()


def _standard_output() -> BinaryIO:
    if sys.stdout.isatty():
        raise ConfigurationError("A backup is not written to a terminal: name a file.")
    return sys.stdout.buffer


def _recipients(keys: list[str], file: Path | None) -> list[Recipient]:
    found = [encryption.recipient(key) for key in keys]
    if file is not None:
        found += encryption.recipients(_text(file, "--age-recipients-file"))
        if not found:
            raise ConfigurationError(f"--age-recipients-file: there is no key in {file}.")
    return found


def _new_passphrase(*, ask: bool, file: Path | None) -> str | None:
    if file is not None:
        chosen = _first_line(file)
    elif ask:
        _check_terminal()
        chosen = typer.prompt("Passphrase of the backup", hide_input=True, confirmation_prompt=True, err=True)
    else:
        return None
    if len(chosen) < MIN_PASSPHRASE:
        raise ConfigurationError(f"The passphrase of a backup needs {MIN_PASSPHRASE} characters or more.")
    return chosen


# ---------------------------------------------------------------- restoring


@app.command()
def restore(
    file: FileArgument,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Read all of it, and write nothing: is it whole?")
    ] = False,
    identity: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Private key of age (or SSH) that opens it; may be repeated."),
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its passphrase is the first line of a file.")
    ] = None,
    settings_to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the settings that are in it into a new file.")
    ] = None,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Bring a backup back, into an empty data directory and an empty database: wholly, or not at all.

    Every byte is verified before anything is there. The settings in it are not used: they are this machine's, as ever.
    """
    settings = load_settings(config_file, data=data)
    if settings_to is not None and os.path.lexists(settings_to):
        raise ConfigurationError(
            f"--settings-to: {settings_to} exists and is left as it is; give another name."
        )
    with _source(file, identity or [], passphrase_file) as source:
        read = restores.check(source) if check else restores.restore(settings, source, actor=operator())
    if settings_to is not None:
        _write_settings(settings_to, read.settings)
    _tell(read.backup, as_json=as_json, err=False)
    if check:
        sys.stderr.write("The backup is whole. Nothing was restored.\n")
    else:
        _verify_audit(settings)
        sys.stderr.write("Next: acme-ca serve. What was issued or revoked after the backup is not in it.\n")


def _verify_audit(settings: Settings) -> None:
    """What came back is what was backed up; whether that was sound, its seals say."""
    report = audit.verified(settings)
    sys.stderr.write(
        f"The audit trail: {report.events} events under {report.seals} seals verified; errors: {report.errors}.\n"
    )
    if report.errors:
        sys.stderr.write(
            "It was not sound when the backup was made: acme-ca audit verify names what is wrong.\n"
        )
        raise typer.Exit(audit.WRONG)


@contextmanager
def _source(file: str, identities: list[Path], passphrase_file: Path | None) -> Iterator[Source]:
    with ExitStack() as opened:
        raw = sys.stdin.buffer if file == STREAM else opened.enter_context(_open(Path(file)))
        beginning = raw.read(_BEGINNING)
        source = _Joined(beginning, raw)
        if not beginning.startswith(encryption.MAGIC):
            yield source
        elif encryption.is_under_passphrase(beginning):
            yield encryption.with_passphrase(source, _passphrase(passphrase_file))
        elif not identities:
            raise ConfigurationError("The backup is encrypted for keys: name one of them with --identity.")
        else:
            keys = [key for path in identities for key in encryption.identities(_text(path, "--identity"))]
            yield opened.enter_context(encryption.with_keys(source, keys))


class _Joined:
    """What was looked at, and the rest."""

    def __init__(self, beginning: bytes, rest: BinaryIO) -> None:
        self._beginning = beginning
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        if self._beginning and size >= 0:
            found, self._beginning = self._beginning[:size], self._beginning[size:]
            return found
        return self._rest.read(size)


def _passphrase(file: Path | None) -> str:
    if file is not None:
        return _first_line(file)
    _check_terminal()
    entered: str = typer.prompt("Passphrase of the backup", hide_input=True, err=True)
    return entered


def _write_settings(path: Path, text: str) -> None:
    try:
        with os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(text)
    except OSError as error:
        raise ConfigurationError(f"--settings-to: {path} cannot be written: {error.strerror}.") from None


# ---------------------------------------------------------------- parts


def _tell(backup: Backup, *, as_json: bool, err: bool) -> None:
    rows = backup.manifest.rows
    facts = {
        "id": backup.id,
        "made": backup.format.at,
        "acme_ca": backup.format.acme_ca,
        "schema_version": backup.format.schema_version,
        "public_url": backup.format.public_url,
        "certificates": rows.get("certificate", 0),
        "revoked": sum(backup.manifest.revoked.values()),
        "accounts": rows.get("account", 0),
        "audit_events": rows.get("audit_event", 0),
        "newest_crl_number": max((crl.number for crl in backup.manifest.crls), default=None),
        "newest_seal": backup.manifest.seal.id if backup.manifest.seal else None,
        "files": sum(member.name.startswith(f"{backups.DATA}/") for member in backup.manifest.members),
        "bytes": sum(member.size for member in backup.manifest.members),
    }
    if as_json:
        typer.echo(json.dumps(facts), err=err)
        return
    for name, value in facts.items():
        typer.echo(f"{name.replace('_', ' '):<18} {'none' if value is None else value}", err=err)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None


def _text(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{option}: {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{option}: {path} is no text in UTF-8.") from None


def _first_line(path: Path) -> str:
    line = _text(path, "--passphrase-file").partition("\n")[0].rstrip("\r")
    if not line:
        raise ConfigurationError(f"--passphrase-file: the first line of {path} is empty.")
    return line


def _check_terminal() -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError("There is nobody to ask for the passphrase: give it with --passphrase-file.")
