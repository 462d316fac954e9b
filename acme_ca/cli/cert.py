"""`acme-ca cert`: look at a certificate, take it back, put it on hold, have it renewed."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

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
from acme_ca.core import renewal
from acme_ca.core.model import Certificate, Serial, read_serial
from acme_ca.core.problems import Problem
from acme_ca.core.renewal import SuggestedWindow
from acme_ca.core.revocation import HOLD, REASONS, reason_name
from acme_ca.revocation.revoke import Revocation
from acme_ca.storage import renewals
from acme_ca.storage.database import Database

T = TypeVar("T")

app = typer.Typer(help="Single certificates: look, revoke, hold, have renewed.", no_args_is_help=True)

TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]

SerialArgument = Annotated[
    str, typer.Argument(metavar="SERIAL", help="The serial number, hexadecimal; colons are welcome.")
]
CommentOption = Annotated[str | None, typer.Option(help="Why: a note for operators.")]
Reason = Literal[
    "unspecified",
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "privilegeWithdrawn",
    "aACompromise",
]


@app.command()
def revoke(
    serial: SerialArgument,
    *,
    reason: Annotated[Reason, typer.Option(help="The reason of RFC 5280 §5.3.1.")] = "unspecified",
    comment: CommentOption = None,
    invalid_since: Annotated[
        datetime | None,
        typer.Option(
            formats=TIMES,
            help="When it became invalid (UTC), where that is known: the key was stolen then.",
        ),
    ] = None,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Take a certificate back for good.

    With keyCompromise its key is refused from then on. A certificate that is revoked already can be given that reason,
    and no other.
    """
    since = invalid_since.replace(tzinfo=UTC) if invalid_since else None
    wanted = _serial(serial)
    in_revocation(
        load_settings(config_file, data=data),
        lambda room: room.take_back(
            wanted, by=operator(), reason=REASONS[reason], invalid_since=since, comment=comment
        ),
    )
    console().print(f"Revoked ({reason}): {wanted}")


@app.command()
def hold(
    serial: SerialArgument,
    *,
    comment: CommentOption = None,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Put a certificate on hold: revoked until it is released, or revoked for good."""
    wanted = _serial(serial)
    in_revocation(
        load_settings(config_file, data=data),
        lambda room: room.take_back(wanted, by=operator(), reason=HOLD, comment=comment),
    )
    console().print(f"On hold: {wanted}")


@app.command()
def release(
    serial: SerialArgument,
    *,
    comment: CommentOption = None,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """End a hold: the certificate is good again."""
    wanted = _serial(serial)
    in_revocation(
        load_settings(config_file, data=data),
        lambda room: room.release(wanted, by=operator(), comment=comment),
    )
    console().print(f"Released: {wanted}")


@app.command()
def window(
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
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Set when clients renew certificates (ARI, RFC 9773).

    A client that asks for renewal information sees it the next time it asks: within six hours.
    """
    if clear == bool(start or end or explanation_url) or not (clear or end):
        raise ConfigurationError("Give either --end, perhaps with --start and --explanation-url, or --clear.")
    wanted = [_serial(serial) for serial in serials]
    moved = _moved(start, end, explanation_url) if end else None
    settings = load_settings(config_file, data=data)
    done = in_database(settings, lambda database: _set_windows(database, wanted, moved, explanation_url))
    _tell_windows(wanted, done, cleared=clear, as_json=as_json)


def _moved(start: datetime | None, end: datetime, explanation_url: str | None) -> SuggestedWindow:
    until = end.replace(tzinfo=UTC)
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        since = start.replace(tzinfo=UTC) if start else min(now, until - timedelta(seconds=1))
        chosen = SuggestedWindow(start=since, end=until)
        renewal.check_moved(chosen, explanation_url=explanation_url)
    except OverflowError:
        raise ConfigurationError("--end: nothing can end so early.") from None
    except Problem as problem:
        raise ConfigurationError(problem.detail) from None
    return chosen


async def _set_windows(
    database: Database, serials: Sequence[Serial], moved: SuggestedWindow | None, explanation_url: str | None
) -> list[Serial]:
    now, actor = datetime.now(UTC), operator()
    if moved is None:
        return await renewals.clear_windows(database, serials, actor=actor, now=now)
    return await renewals.move_windows(
        database, serials, moved, explanation_url=explanation_url, actor=actor, now=now
    )


def _tell_windows(wanted: Sequence[Serial], done: Sequence[Serial], *, cleared: bool, as_json: bool) -> None:
    """Raises ConfigurationError when nothing was done."""
    left = sorted(set(wanted) - set(done))
    if as_json:
        typer.echo(json.dumps({"changed": done, "unchanged": left}, indent=2))
    else:
        for serial in done:
            console().print(f"{'Computed again' if cleared else 'Moved'}: {serial}")
    if left:
        why = "has no window set" if cleared else "is unknown, revoked, or expires before the window is over"
        raise ConfigurationError(f"Not changed, since each {why}: {', '.join(left)}.")


@app.command()
def info(
    serial: SerialArgument,
    *,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Show what is known of a certificate."""
    wanted = _serial(serial)
    facts = _facts(in_revocation(load_settings(config_file, data=data), lambda room: room.find(wanted)))
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    table = Table(show_header=False, box=None)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for fact, value in facts.items():
        if value is not None:
            shown = ", ".join(value) if isinstance(value, list) else str(value)
            table.add_row(fact.replace("_", " "), shown)
    console().print(table)


def _serial(text: str) -> Serial:
    serial = read_serial(text)
    if serial is None:
        raise ConfigurationError("This is no serial number: give up to 32 hexadecimal digits.")
    return serial


def in_revocation(settings: Settings, act: Callable[[Revocation], Awaitable[T]]) -> T:
    """Raises ConfigurationError for what is refused."""
    try:
        return in_database(
            settings, lambda database: act(Revocation(database=database, clock=lambda: datetime.now(UTC)))
        )
    except Problem as problem:
        raise ConfigurationError(problem.detail) from None


def _facts(certificate: Certificate) -> dict[str, Any]:
    moved = certificate.moved
    return {
        "serial": certificate.serial,
        "status": _status(certificate),
        "identifiers": [str(identifier) for identifier in certificate.identifiers],
        "not_before": _second(certificate.not_before),
        "not_after": _second(certificate.not_after),
        "profile": certificate.profile.name,
        "account": certificate.account_id,
        "issuer": certificate.issuer,
        "shard": certificate.shard,
        "signed": certificate.der is not None,
        "revoked": _second(certificate.revoked),
        "reason": None if certificate.reason is None else reason_name(certificate.reason),
        "invalid_since": _second(certificate.invalid_since),
        "comment": certificate.comment,
        "renewal_window": [str(_second(moved.start)), str(_second(moved.end))] if moved else None,
        "explanation_url": certificate.explanation_url,
    }


def _status(certificate: Certificate) -> str:
    if certificate.reason is not None:
        return "on hold" if certificate.reason is HOLD else "revoked"
    return "expired" if certificate.not_after < datetime.now(UTC) else "good"


def _second(time: datetime | None) -> str | None:
    return time.isoformat(timespec="seconds") if time else None
