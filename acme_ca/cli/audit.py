"""`acme-ca audit`: proving what was issued."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from acme_ca.app import own_identifier
from acme_ca.audit import check as checks
from acme_ca.audit.findings import Finding, Findings, Severity
from acme_ca.audit.journal import Journal
from acme_ca.cli.options import ConfigOption, DataOption, JsonOption, console, in_database, load_settings
from acme_ca.config import ConfigurationError, Settings
from acme_ca.core.model import IssuerId
from acme_ca.server import datadir
from acme_ca.storage import audit
from acme_ca.storage.audit import Scope
from acme_ca.storage.database import Database

WRONG = 1
"""Exit status when the check found an error."""
INTERRUPTED = 130

app = typer.Typer(help="Proving what was issued.", no_args_is_help=True)


@app.callback()
def _group() -> None: ...


@app.command()
def check(
    *,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Certificates recorded from then on; UTC, ISO 8601.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Certificates recorded before then; now without this.")
    ] = None,
    issuer: Annotated[
        str | None, typer.Option(metavar="ID", help="Certificates of this issuer alone.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a check that was cut off.")] = False,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Verify again every certificate (its signature, row, order, authorizations, validations, audit) and every CRL.

    Exit status 0: all is well, 1: something is wrong, 2: the check could not be made, 130: it was interrupted.
    """
    settings = load_settings(config_file, data=data)
    if resume and (since or until or issuer):
        raise ConfigurationError(
            "--resume goes on with what was asked for before: leave out the other options."
        )
    now = datetime.now(UTC)
    wish = Scope(
        since=_time(since, "--since", datetime.fromtimestamp(0, UTC)),
        until=min(_time(until, "--until", now), now),
        issuer=None if issuer is None else IssuerId(issuer),
    )
    try:
        journal = _run(settings, None if resume else wish)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. To go on: acme-ca audit check --resume\n")
        raise typer.Exit(INTERRUPTED) from None
    journal.remove()
    _tell(journal.scope, journal.total, as_json=as_json)
    raise typer.Exit(WRONG if journal.total.of(Severity.ERROR) else 0)


def _time(text: str | None, option: str, default: datetime) -> datetime:
    if text is None:
        return default
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigurationError(f"{option}: write the time as 2026-01-31 or 2026-01-31T12:00:00Z.") from None


# ---------------------------------------------------------------- the check


def _run(settings: Settings, wish: Scope | None) -> Journal:
    """`wish` None: the check that was cut off."""
    datadir.make(settings.data)
    place = settings.data / "audit-check.jsonl"
    return in_database(settings, lambda database: _check(settings, database, place, wish))


async def _check(settings: Settings, database: Database, place: Path, wish: Scope | None) -> Journal:
    background = await checks.background(
        database,
        now=datetime.now(UTC),
        policy=settings.policy.name_policy(),
        own=own_identifier(settings),
        evidence_kept=timedelta(seconds=settings.evidence_retention),
    )
    if wish and wish.issuer is not None and wish.issuer not in background.issuers:
        raise ConfigurationError("--issuer: there is no issuer with this id.")
    journal = _resumed(place) if wish is None else _begun(place, wish)
    done, position = journal.total.certificates, journal.position
    left = await audit.count(database, journal.scope, after=(position.recorded, position.serial))
    with _progress() as progress:
        task = progress.add_task("Certificates", total=done + left, completed=done)
        async for step in checks.steps(database, journal.scope, background, after=position):
            journal.write(step)
            progress.advance(task, step.findings.certificates)
    return journal


def _begun(place: Path, wish: Scope) -> Journal:
    try:
        return Journal.begin(place, wish)
    except OSError as error:
        raise ConfigurationError(f"ACME_CA_DATA: {place} cannot be written: {error.strerror}.") from None


def _resumed(place: Path) -> Journal:
    try:
        return Journal.resume(place)
    except FileNotFoundError:
        raise ConfigurationError("--resume: there is no check that was cut off.") from None
    except (OSError, ValueError):
        raise ConfigurationError(f"--resume: {place} cannot be read; begin anew without --resume.") from None


def _progress() -> Progress:
    """On a terminal alone, and not where the list goes."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


# ---------------------------------------------------------------- what it says


def _tell(scope: Scope, total: Findings, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_document(scope, total), indent=2))
        return
    out = console()
    for finding in sorted(total.found, key=lambda finding: finding.severity):
        out.print(f"{finding.severity:5}  {finding.code}  {finding.object}: {finding.sentence}")
    errors, notes = (len(total.of(severity)) for severity in Severity)
    out.print(
        f"{total.certificates} certificates, recorded before {scope.until:%Y-%m-%d %H:%M:%S} UTC; errors: {errors}, notes: {notes}."
    )
    out.print(
        f"Of these {total.own} of the server itself, {total.operators} of operators, {total.unsigned} not signed, "
        f"{total.unproved} older than the evidence that is kept, "
        f"{total.approved} with a name that an administrator approved. {total.crls} CRLs."
    )


def _document(scope: Scope, total: Findings) -> dict[str, Any]:
    return {
        "since": scope.since.isoformat(),
        "until": scope.until.isoformat(),
        "issuer": scope.issuer,
        "certificates": total.certificates,
        "own": total.own,
        "operators": total.operators,
        "unsigned": total.unsigned,
        "unproved": total.unproved,
        "approved": total.approved,
        "crls": total.crls,
        "errors": [_listed(finding) for finding in total.of(Severity.ERROR)],
        "notes": [_listed(finding) for finding in total.of(Severity.NOTE)],
    }


def _listed(finding: Finding) -> dict[str, str]:
    return {name: value for name, value in asdict(finding).items() if name != "severity"}
