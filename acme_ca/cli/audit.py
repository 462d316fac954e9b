"""`acme-ca audit`: proving what was issued."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from acme_ca.audit import check as checks
from acme_ca.audit import verify as trail
from acme_ca.audit.chain import Checkpoint
from acme_ca.audit.findings import Finding, Findings, Severity
from acme_ca.audit.journal import Journal
from acme_ca.audit.signers import Trust
from acme_ca.cli.lists import show_list
from acme_ca.cli.options import (
    ConfigOption,
    DataOption,
    JsonOption,
    console,
    in_database,
    load_settings,
    read_time,
)
from acme_ca.cli.remote import Api, command, show_json
from acme_ca.config import ConfigurationError, Settings
from acme_ca.core.ids import IssuerId
from acme_ca.core.issuers import IssuerKind
from acme_ca.server import datadir, hierarchy
from acme_ca.storage import audit, issuers
from acme_ca.storage.audit import Scope
from acme_ca.storage.database import Database
from acme_ca.storage.issuers import IssuerRecord

WRONG = 1
"""Exit status when the check found an error."""
INTERRUPTED = 130
LINES_AT_ONCE = 10_000

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


@app.command()
def verify(
    *,
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The root to trust (PEM); without it the one in the data directory."
        ),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Of audit checkpoint, kept elsewhere: finds a trail that was cut off."
        ),
    ] = None,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Verify the audit trail: every event and seal, by the signatures. Names what was changed, left out, put in or moved.

    It reads the database itself, for it must not trust the server. Exit status 0: all is well, 1: something is wrong,
    2: it could not be verified.
    """
    settings = load_settings(config_file, data=data)
    kept = [_kept(file) for file in checkpoint or ()]
    own = _kept(settings.audit_checkpoint) if settings.audit_checkpoint.exists() else None
    trusted, whence = _trusted(settings, root)
    report, fingerprint = in_database(settings, lambda database: _verify(database, trusted, kept, own))
    whence = whence or "of the database, which proves nothing against who can write there: give --root"
    _tell_trail(report, f"{fingerprint} ({whence})", as_json=as_json)
    raise typer.Exit(WRONG if report.errors else 0)


def verified(settings: Settings) -> trail.Report:
    """The audit trail of a database that came back, by the root that came with it. Raises ConfigurationError."""
    trusted, _ = _trusted(settings, None)
    report, _ = in_database(settings, lambda database: _verify(database, trusted))
    return report


def _kept(file: Path) -> Checkpoint:
    try:
        return Checkpoint.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no checkpoint"
        raise ConfigurationError(f"--checkpoint: {file} cannot be read: {reason}.") from None


def _trusted(settings: Settings, root: Path | None) -> tuple[x509.Certificate | None, str]:
    """The root of a file, and which; None where there is none."""
    here = hierarchy.place(settings) / "root.pem"
    if root is None and not here.exists():
        return None, ""
    file = root or here
    try:
        return x509.load_pem_x509_certificate(file.read_bytes()), str(file)
    except (OSError, ValueError):
        raise ConfigurationError(f"--root: {file} is no certificate in PEM that can be read.") from None


async def _verify(
    database: Database,
    trusted: x509.Certificate | None,
    kept: Sequence[Checkpoint] = (),
    own: Checkpoint | None = None,
) -> tuple[trail.Report, str]:
    records = await issuers.all_issuers(database)
    if trusted is None:
        found = next((record for record in records if record.kind is IssuerKind.ROOT), None)
        if found is None:
            raise ConfigurationError("There is no root in the database: give one with --root.")
        trusted = x509.load_der_x509_certificate(found.der)
    trust = Trust(trusted, list(_certificates(records)))
    report = await trail.verify(database, trust, checkpoints=kept, own=own)
    return report, trusted.fingerprint(SHA256()).hex()


def _certificates(records: Sequence[IssuerRecord]) -> Iterator[x509.Certificate]:
    for record in records:
        with contextlib.suppress(ValueError):  # one that was spoilt vouches for nobody
            yield x509.load_der_x509_certificate(record.der)


def _tell_trail(report: trail.Report, root: str, *, as_json: bool) -> None:
    tail, last = report.tail, report.last
    if as_json:
        document = {
            "root": root,
            "seals": report.seals,
            "events": report.events,
            "unsealed": tail.events,
            "unsealed_since": tail.since and tail.since.isoformat(),
            "checkpoint": last.text if last else None,
            "errors": report.errors,
            "findings": [_listed(finding) for finding in report.findings],
        }
        typer.echo(json.dumps(document, indent=2))
        return
    out = console()
    for finding in report.findings:
        out.print(f"{finding.code}  {finding.object}: {finding.sentence}")
    if report.errors > len(report.findings):
        out.print(f"… and {report.errors - len(report.findings)} more.")
    until = f", the last of {last.at:%Y-%m-%d %H:%M:%S} UTC" if last else ""
    out.print(f"{report.events} events under {report.seals} seals{until}; errors: {report.errors}.")
    since = f" since {tail.since:%Y-%m-%d %H:%M:%S} UTC" if tail.since else ""
    out.print(f"Not sealed yet, so not proved: {tail.events}{since}.")
    out.print(f"Trusted root: {root}")


# ---------------------------------------------------------------- looking


ObjectOption = Annotated[
    str | None, typer.Option("--object", metavar="OBJECT", help="As in certificate:SERIAL or account:ID.")
]
ActorOption = Annotated[
    str | None, typer.Option(help="As in operator:alice, account:ID or server.", metavar="ACTOR")
]
SourceOption = Annotated[
    str | None, typer.Option("--from", metavar="ADDRESS", help="From this address, or socket: this machine.")
]
EventOption = Annotated[str | None, typer.Option(help="As in certificate.revoked.", metavar="EVENT")]
SinceOption = Annotated[str | None, typer.Option(metavar="TIME", help="From then on; UTC, ISO 8601.")]
UntilOption = Annotated[str | None, typer.Option(metavar="TIME", help="Before then; UTC, ISO 8601.")]


@command(app, "list")
def list_events(
    api: Api,
    *,
    object_: ObjectOption = None,
    actor: ActorOption = None,
    source: SourceOption = None,
    event: EventOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
) -> None:
    """Show who did what, the newest first."""
    query = _query(since, until, object=object_, actor=actor, source=source, event=event)
    found = list(api.pages("/audit/events", most=limit, **query))
    if api.as_json:
        show_json(found)
        return
    rows = [
        (
            str(one["id"]),
            f"{datetime.fromisoformat(one['at']):%Y-%m-%d %H:%M:%S}" if one["at"] else "?",
            one["event"],
            one["actor"],
            one["source"],
            one["object"],
            json.dumps(one["detail"], ensure_ascii=False),
        )
        for one in found
    ]
    show_list(
        ("id", "time (UTC)", "event", "actor", "from", "object", "detail"),
        rows,
        folds={"actor", "object", "detail"},
        spare=("detail", "from"),
    )


@command(app, "export")
def export(
    api: Api,
    *,
    object_: ObjectOption = None,
    actor: ActorOption = None,
    source: SourceOption = None,
    event: EventOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
) -> None:
    """Write events as JSON lines, the oldest first: as they are sealed, with the number of their seal."""
    query = _query(since, until, object=object_, actor=actor, source=source, event=event)
    after, path = None, "/audit/export"
    while lines := api.get(path, after=after, limit=LINES_AT_ONCE, **query):
        last = json.loads(lines.splitlines()[-1])["id"]
        if after is not None and last <= after:
            raise api.goes_round(path)
        sys.stdout.buffer.write(lines)
        after = last
    sys.stdout.buffer.flush()


@command(app, "checkpoint")
def checkpoint(api: Api) -> None:
    """Print the newest checkpoint, to be kept elsewhere for audit verify --checkpoint."""
    found = api.get("/audit/checkpoint")
    if api.as_json:
        show_json(found)
    else:
        typer.echo(found["text"], nl=False)


def _query(since: str | None, until: str | None, **wanted: str | None) -> dict[str, Any]:
    times = {
        name: _read_time(text, f"--{name}").isoformat()
        for name, text in (("since", since), ("until", until))
        if text is not None
    }
    return {**wanted, **times}


def _time(text: str | None, option: str, default: datetime) -> datetime:
    return default if text is None else _read_time(text, option)


def _read_time(text: str, option: str) -> datetime:
    try:
        return read_time(text)
    except ValueError as error:
        raise ConfigurationError(f"{option}: {error}") from None


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
        own=settings.own_identifier(),
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
