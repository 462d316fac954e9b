"""`acme-ca cert`: have certificates issued, look at them, take them back, have them renewed."""

from __future__ import annotations

import contextlib
import os
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from acme_ca.ca.keystore import KeyKind
from acme_ca.cli.options import console
from acme_ca.cli.remote import (
    Api,
    Refused,
    YesOption,
    command,
    confirm,
    part,
    say,
    show_facts,
    show_json,
    whole_issuer_id,
)
from acme_ca.config import ConfigurationError
from acme_ca.core.ids import Serial, read_serial
from acme_ca.core.revocation import FinalReason

app = typer.Typer(help="Certificates: issue, look, revoke, hold, have renewed.", no_args_is_help=True)

TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]

SerialArgument = Annotated[
    str, typer.Argument(metavar="SERIAL", help="The serial number, hexadecimal; colons are welcome.")
]
IssuerOption = Annotated[
    str | None, typer.Option(metavar="ID", help="Of this issuer: its id, or the first digits of it.")
]
CommentOption = Annotated[str | None, typer.Option(help="Why: a note for operators.")]
ReasonOption = Annotated[FinalReason, typer.Option(help="The reason of RFC 5280 §5.3.1.")]
CsrOption = Annotated[
    Path | None, typer.Option("--csr", metavar="FILE", help="A PKCS #10 request, PEM or DER.")
]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--new-key", metavar="FILE", help="Have the server make the key, and write it to this new file."
    ),
]
KeyTypeOption = Annotated[
    KeyKind | None, typer.Option(help="Of the key that the server makes; without it what the profile takes.")
]
DaysOption = Annotated[
    int | None, typer.Option(min=1, help="How long it is valid; without it as the profile says.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="For the certificate and its chain (PEM).")
]


# ---------------------------------------------------------------- issuing


@command(app, "issue", keys=True)
def issue(
    api: Api,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME…", help="Names and addresses; without them those of the CSR."),
    ] = None,
    *,
    csr: CsrOption = None,
    new_key: KeyOption = None,
    key_type: KeyTypeOption = None,
    profile: Annotated[str | None, typer.Option(help="Without it the server's default.")] = None,
    service: Annotated[str | None, typer.Option(metavar="ID", help="For which it is.")] = None,
    days: DaysOption = None,
    out: OutOption = None,
) -> None:
    """Have a certificate issued without ACME."""
    if (csr is None) == (new_key is None):
        raise ConfigurationError("Give either --csr or --new-key.")
    wish = {"names": names or [], "profile": profile, "service_id": service, "validity_days": days}
    _obtain(api, "/certificates/issue", wish, csr=csr, new_key=new_key, key_type=key_type, out=out)


@command(app, "renew", keys=True)
def renew(
    api: Api,
    serial: Annotated[
        str | None, typer.Argument(metavar="SERIAL", help="The serial number, hexadecimal.")
    ] = None,
    *,
    service: Annotated[
        str | None, typer.Option(metavar="ID", help="Instead: the certificate of this service.")
    ] = None,
    csr: CsrOption = None,
    new_key: KeyOption = None,
    key_type: KeyTypeOption = None,
    days: DaysOption = None,
    out: OutOption = None,
) -> None:
    """Have another one issued with the same names, profile and service; without --csr and --new-key for the same key."""
    if (serial is None) == (service is None):
        raise ConfigurationError("Give either a serial number or --service.")
    if csr is not None and new_key is not None:
        raise ConfigurationError("Give --csr or --new-key, not both.")
    which = {"service_id": service} if serial is None else {"serial": _serial(serial)}
    wish = {**which, "validity_days": days}
    _obtain(api, "/certificates/renew", wish, csr=csr, new_key=new_key, key_type=key_type, out=out)


def _obtain(
    api: Api,
    path: str,
    wish: dict[str, Any],
    *,
    csr: Path | None,
    new_key: Path | None,
    key_type: KeyKind | None,
    out: Path | None,
) -> None:
    if csr is not None:
        wish["csr"] = _request(csr)
    if new_key is None and key_type is not None:
        raise ConfigurationError("--key-type is for --new-key.")
    with _new_file(new_key) as keep_key:
        made = api.post(path, {**wish, "generate_key": new_key is not None, "key_type": key_type})
        if new_key is not None:
            keep_key(made.pop("private_key"))
    chain = made["certificate"] + made["chain"]
    if out is not None:
        out.write_text(chain, encoding="ascii")
    if api.as_json:
        show_json(made)
    elif out is None:
        typer.echo(chain, nl=False)
    else:
        console().print(f"Issued: {made['serial']}, until {made['not_after'][:10]}")


def _request(file: Path) -> str:
    """As the API takes it."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"--csr: {file} cannot be read ({error.strerror or error}).") from None
    if content.lstrip().startswith(b"-----"):
        return content.decode("ascii", errors="replace")
    return b64encode(content).decode()


@contextlib.contextmanager
def _new_file(path: Path | None) -> Iterator[Callable[[str], object]]:
    """For a key: made before the key is, so that none is lost for want of a place; taken away when none comes."""
    if path is None:
        yield lambda _: None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigurationError(f"--new-key: {path} cannot be made ({error.strerror}).") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        try:
            yield stream.write
        except BaseException:
            path.unlink()
            raise


# ---------------------------------------------------------------- looking


@command(app, "info")
def info(api: Api, serial: SerialArgument) -> None:
    """Show what is known of a certificate."""
    facts = api.get(f"/certificates/{_serial(serial)}")
    if api.as_json:
        show_json(facts)
        return
    profile = facts.pop("profile")
    pem = facts.pop("certificate")
    show_facts(
        {**facts, "profile": f"{profile['name']}, version {profile['version']}", "signed": pem is not None}
    )


# ---------------------------------------------------------------- taking back


@command(app, "revoke")
def revoke(
    api: Api,
    serial: SerialArgument,
    *,
    reason: ReasonOption = "unspecified",
    comment: CommentOption = None,
    invalid_since: Annotated[
        datetime | None,
        typer.Option(
            formats=TIMES,
            help="When it became invalid (UTC), where that is known: the key was stolen then.",
        ),
    ] = None,
    yes: YesOption = False,
) -> None:
    """Take a certificate back for good.

    With keyCompromise its key is refused from then on. A certificate that is revoked already can be given that reason,
    and no other.
    """
    if not yes:
        found = api.get(f"/certificates/{_serial(serial)}")
        of = (
            f"of the service {found['service_id']}"
            if found["service_id"]
            else f"of profile {found['profile']['name']}"
        )
        confirm(f"Revoke {found['serial']} ({', '.join([*found['names'], of])}) for good?", yes=yes)
    circumstances = {"reason": reason, "comment": comment, "invalid_since": _utc(invalid_since)}
    _act(api, serial, "revoke", circumstances, f"Revoked ({reason})")


@command(app, "hold")
def hold(api: Api, serial: SerialArgument, *, comment: CommentOption = None) -> None:
    """Put a certificate on hold: revoked until it is released, or revoked for good."""
    _act(api, serial, "hold", {"comment": comment}, "On hold")


@command(app, "release")
def release(api: Api, serial: SerialArgument, *, comment: CommentOption = None) -> None:
    """End a hold: the certificate is good again."""
    _act(api, serial, "release", {"comment": comment}, "Released")


def _act(api: Api, serial: str, act: str, body: dict[str, Any], done: str) -> None:
    found = api.post(f"/certificates/{_serial(serial)}/{act}", body)
    say(api, found, f"{done}: {found['serial']}")


@command(app, "revoke-many")
def revoke_many(
    api: Api,
    *,
    service: Annotated[str | None, typer.Option(metavar="ID", help="Of this service.")] = None,
    issuer: IssuerOption = None,
    account: Annotated[str | None, typer.Option(metavar="ID", help="That this account ordered.")] = None,
    eab_key: Annotated[
        str | None, typer.Option(metavar="KID", help="That accounts of this EAB key ordered.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Of this profile.")] = None,
    name: Annotated[str | None, typer.Option(help="That hold this name or address.")] = None,
    key_sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="That hold the key with this SHA-256.")
    ] = None,
    issued_from: Annotated[
        datetime | None, typer.Option(formats=TIMES, help="Issued since then (UTC).")
    ] = None,
    issued_before: Annotated[
        datetime | None, typer.Option(formats=TIMES, help="Issued before that (UTC).")
    ] = None,
    reason: ReasonOption = "unspecified",
    comment: CommentOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    yes: YesOption = False,
) -> None:
    """Take back all certificates that fit everything that is given, after they were shown. Broken off, it goes on where it
    was when it is asked for again.
    """
    wish = {
        "service_id": service,
        "issuer": whole_issuer_id(api, issuer),
        "account": account,
        "eab_key": eab_key,
        "profile": profile,
        "name": name,
        "key_sha256": key_sha256,
        "issued_from": _utc(issued_from),
        "issued_before": _utc(issued_before),
        "reason": reason,
        "comment": comment,
    }
    found = api.post("/certificates/revoke-bulk", {**wish, "dry_run": True})
    if dry_run or not found["count"]:
        if api.as_json:
            show_json(found)
        else:
            _show_found(found, console())
        return
    if not yes:
        _show_found(found, console(stderr=True))  # of the question: the answer may go to a program
    confirm(f"Take back {found['count']} certificates ({reason})?", yes=yes)
    act = {**wish, "dry_run": False, "expected": found["count"], "digest": found["digest"]}
    done = api.post("/certificates/revoke-bulk", act)
    say(api, done, f"Revoked ({reason}): {done['count']} certificates")


def _show_found(found: dict[str, Any], console: Console) -> None:
    table = Table(box=None)
    table.add_column("serial", no_wrap=True)
    table.add_column("names", overflow="fold")
    for one in found["sample"]:
        table.add_row(one["serial"], ", ".join(one["names"]))
    console.print(table)
    shown = len(found["sample"])
    console.print(
        f"{found['count']} certificates{f'; the oldest {shown} are shown' * (shown < found['count'])}."
    )


# ---------------------------------------------------------------- having renewed


@command(app, "window")
def window(
    api: Api,
    serials: Annotated[list[str], typer.Argument(metavar="SERIAL…", help="Serial numbers, hexadecimal.")],
    *,
    start: Annotated[
        datetime | None,
        typer.Option(formats=TIMES, help="From when clients renew (UTC); without it from now."),
    ] = None,
    end: Annotated[
        datetime | None, typer.Option(formats=TIMES, help="Until when (UTC); it may be past: then at once.")
    ] = None,
    explanation_url: Annotated[
        str | None, typer.Option(help="Where people read why; clients show it or log it.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Undo it: the window is computed again.")] = False,
) -> None:
    """Set when clients renew certificates (ARI, RFC 9773).

    A client that asks for renewal information sees it the next time it asks: within six hours.
    """
    if clear == bool(start or end or explanation_url) or not (clear or end):
        raise ConfigurationError("Give either --end, perhaps with --start and --explanation-url, or --clear.")
    wanted = [_serial(serial) for serial in serials]
    wish = {"start": _utc(start), "end": _utc(end), "explanation_url": explanation_url}
    refused = {serial: why for serial in wanted if (why := _moved(api, serial, wish)) is not None}
    done = [serial for serial in wanted if serial not in refused]
    if api.as_json:
        show_json({"changed": done, "unchanged": sorted(refused)})
    else:
        for serial in done:
            console().print(f"{'Computed again' if clear else 'Moved'}: {serial}")
    if refused:
        raise ConfigurationError("Not changed: " + " ".join(f"{one}: {why}" for one, why in refused.items()))


def _moved(api: Api, serial: Serial, wish: dict[str, Any]) -> str | None:
    """Why not; None: it is."""
    try:
        api.post(f"/certificates/{part(serial)}/renewal-window", wish)
    except Refused as refused:
        return str(refused)
    return None


# ---------------------------------------------------------------- parts


def _serial(text: str) -> Serial:
    serial = read_serial(text)
    if serial is None:
        raise ConfigurationError("This is no serial number: give up to 32 hexadecimal digits.")
    return serial


def _utc(time: datetime | None) -> str | None:
    return None if time is None else time.replace(tzinfo=UTC).isoformat()
