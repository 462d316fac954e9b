"""`acme-ca cert`: look at a certificate, take it back, put it on hold."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

import typer
from rich.table import Table

from acme_ca.cli.options import ConfigOption, DataOption, JsonOption, console, in_database, load_settings
from acme_ca.config import ConfigurationError, Settings
from acme_ca.core.model import Certificate, Serial, read_serial
from acme_ca.core.problems import Problem
from acme_ca.core.revocation import HOLD, REASONS, reason_name
from acme_ca.revocation.revoke import ByOperator, Revocation

T = TypeVar("T")

app = typer.Typer(help="Single certificates: look, revoke, hold.", no_args_is_help=True)

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
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"],
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
    _acting(
        load_settings(config_file, data=data),
        lambda room: room.take_back(
            wanted, by=ByOperator(), reason=REASONS[reason], invalid_since=since, comment=comment
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
    _acting(
        load_settings(config_file, data=data),
        lambda room: room.take_back(wanted, by=ByOperator(), reason=HOLD, comment=comment),
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
    _acting(
        load_settings(config_file, data=data),
        lambda room: room.release(wanted, by=ByOperator(), comment=comment),
    )
    console().print(f"Released: {wanted}")


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
    facts = _facts(_acting(load_settings(config_file, data=data), lambda room: room.find(wanted)))
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


def _acting(settings: Settings, act: Callable[[Revocation], Awaitable[T]]) -> T:
    """Raises ConfigurationError for what is refused."""
    try:
        return in_database(
            settings, lambda database: act(Revocation(database=database, clock=lambda: datetime.now(UTC)))
        )
    except Problem as problem:
        raise ConfigurationError(problem.detail) from None


def _facts(certificate: Certificate) -> dict[str, Any]:
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
    }


def _status(certificate: Certificate) -> str:
    if certificate.reason is not None:
        return "on hold" if certificate.reason is HOLD else "revoked"
    return "expired" if certificate.not_after < datetime.now(UTC) else "good"


def _second(time: datetime | None) -> str | None:
    return time.isoformat(timespec="seconds") if time else None
