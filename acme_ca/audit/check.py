"""A check of the whole database, or of a time: batch by batch, so that it can be interrupted and gone on with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime

from cryptography import x509

from acme_ca.audit import rules
from acme_ca.audit.findings import Background, Finding, Findings, Severity
from acme_ca.ca import issuers as ca_issuers
from acme_ca.ca.issuers import Issuer
from acme_ca.core.identifiers import Identifier
from acme_ca.core.policy import NamePolicy
from acme_ca.storage import audit, issuers, profiles
from acme_ca.storage.audit import Scope
from acme_ca.storage.database import Database
from acme_ca.storage.issuers import IssuerRecord


@dataclass(frozen=True, slots=True)
class Position:
    """How far a check has come: behind this certificate, and then behind this audit event."""

    recorded: datetime
    serial: str = ""
    event: int | None = None
    """None: not all certificates are looked at yet."""


@dataclass(frozen=True, slots=True)
class Step:
    """A batch: what was found in it, and where it ends."""

    findings: Findings
    position: Position


async def background(database: Database, *, now: datetime, policy: NamePolicy, own: Identifier) -> Background:
    """Read once. `policy`, `own`: today's name policy, and the name in the server's own certificate."""
    return Background(
        issuers={record.id: _issuer(record) for record in await issuers.all_issuers(database)},
        profiles={profile.ref: profile for profile in await profiles.all_versions(database)},
        evidence_since=await audit.complete_since(database),
        now=now,
        policy=policy,
        own=own,
    )


def _issuer(record: IssuerRecord) -> Issuer:
    return ca_issuers.issuer(x509.load_der_x509_certificate(record.der), None, chain=())


async def steps(
    database: Database, scope: Scope, background: Background, *, after: Position
) -> AsyncIterator[Step]:
    """The certificates of the scope, then the audit events. Raises DatabaseUnavailable."""
    position = after
    while position.event is None:
        step = await _certificates(database, scope, background, position)
        yield step
        position = step.position
    async for step in _events(database, scope, position):
        yield step


async def _certificates(database: Database, scope: Scope, background: Background, position: Position) -> Step:
    batch = await audit.certificates(database, scope, after=(position.recorded, position.serial))
    findings = Findings()
    for record in batch:
        rules.examine(record, background, findings)
    if not batch:
        return Step(findings, replace(position, event=0))
    return Step(findings, Position(batch[-1].recorded, batch[-1].serial))


async def _events(database: Database, scope: Scope, position: Position) -> AsyncIterator[Step]:
    """Whether each certificate that the audit tells of is there. Events name no issuer: a check of one leaves them out."""
    if scope.issuer is not None:
        return
    last, done = await audit.last_event(database), position.event or 0
    while done < last:
        lost = await audit.issued_without_row(database, scope, after=done)
        done += audit.EVENT_BATCH
        yield Step(Findings(found=[_lost(object_) for _, object_ in lost]), replace(position, event=done))


def _lost(object_: str) -> Finding:
    return Finding(
        Severity.ERROR, "audit.certificate", object_, "the audit says that it was issued, and it is not there"
    )
