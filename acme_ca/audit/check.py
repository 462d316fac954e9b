"""A check of the whole database, or of a time: batch by batch, so that it can be interrupted and gone on with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime

from cryptography import x509

from acme_ca.audit import crls, rules
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
    """How far a check has come: behind this certificate, then behind this audit event, then behind this shard."""

    recorded: datetime
    serial: str = ""
    event: int | None = None
    """None: not all certificates are looked at yet."""
    issuer: str | None = None
    """None: not all audit events are looked at yet."""
    shard: int = -1


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
    """The certificates of the scope, the audit events, the CRLs. Raises DatabaseUnavailable."""
    position: Position | None = after
    while position is not None:
        step = await _next(database, scope, background, position)
        position = step.position if step is not None else None
        if step is not None:
            yield step


async def _next(database: Database, scope: Scope, background: Background, position: Position) -> Step | None:
    """None: that was all."""
    if position.event is None:
        return await _certificates(database, scope, background, position)
    if position.issuer is None:
        return await _events(database, scope, position, position.event)
    return await _shard(database, scope, background, position, position.issuer)


async def _certificates(database: Database, scope: Scope, background: Background, position: Position) -> Step:
    batch = await audit.certificates(database, scope, after=(position.recorded, position.serial))
    findings = Findings()
    for record in batch:
        rules.examine(record, background, findings)
    if not batch:
        return Step(findings, replace(position, event=0))
    return Step(findings, Position(batch[-1].recorded, batch[-1].serial))


async def _events(database: Database, scope: Scope, position: Position, done: int) -> Step:
    """Whether each certificate that the audit tells of is there. Events name no issuer: a check of one leaves them out."""
    if scope.issuer is not None or done >= await audit.last_event(database):
        return Step(Findings(), replace(position, issuer=""))
    lost = await audit.issued_without_row(database, scope, after=done)
    findings = Findings(found=[_lost(object_) for _, object_ in lost])
    return Step(findings, replace(position, event=done + audit.EVENT_BATCH))


async def _shard(
    database: Database, scope: Scope, background: Background, position: Position, issuer: str
) -> Step | None:
    """Whatever the time of the scope: a CRL is about all certificates of its shard that live."""
    record = await audit.shard(database, scope.issuer, after=(issuer, position.shard), now=background.now)
    if record is None:
        return None
    findings = Findings()
    crls.examine(record, background, findings)
    return Step(findings, replace(position, issuer=record.issuer, shard=record.shard))


def _lost(object_: str) -> Finding:
    return Finding(
        Severity.ERROR, "audit.certificate", object_, "the audit says that it was issued, and it is not there"
    )
