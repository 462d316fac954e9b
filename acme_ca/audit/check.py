"""A check of the whole database, or of a time: batch by batch, so that it can be interrupted and gone on with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from acme_ca.audit import crls, foundations, rules
from acme_ca.audit.findings import Background, Finding, Findings, Severity
from acme_ca.core.identifiers import Identifier
from acme_ca.core.policy import NamePolicy
from acme_ca.core.times import CLOCKS_APART
from acme_ca.storage import audit
from acme_ca.storage.audit import Scope
from acme_ca.storage.database import Database


@dataclass(frozen=True, slots=True)
class Position:
    """How far a check has come: behind this certificate, then this order, then this audit event, then this shard."""

    recorded: datetime
    serial: str = ""
    order: str | None = None
    """None: not all certificates are looked at yet."""
    event: int | None = None
    """None: not all orders are looked at yet."""
    issuer: str | None = None
    """None: not all audit events are looked at yet."""
    shard: int = -1


@dataclass(frozen=True, slots=True)
class Step:
    """A batch: what was found in it, and where it ends."""

    findings: Findings
    position: Position


async def background(
    database: Database, *, now: datetime, policy: NamePolicy, own: Identifier, evidence_kept: timedelta
) -> Background:
    """Read and judged once. `policy`, `own`, `evidence_kept`: today's name policy, the name in the server's own
    certificate, and for how long evidence is kept.
    """
    findings = Findings()
    since = await audit.complete_since(database)
    foundations.evidence(since, kept=evidence_kept, now=now, into=findings)
    return Background(
        issuers=foundations.issuers(await audit.issuers(database), findings),
        profiles=foundations.profiles(await audit.profiles(database), findings),
        evidence_since=since,
        found=tuple(findings.found),
        now=now,
        policy=policy,
        own=own,
    )


async def steps(
    database: Database, scope: Scope, background: Background, *, after: Position
) -> AsyncIterator[Step]:
    """The certificates of the scope, the orders, the audit events, the CRLs. Raises DatabaseUnavailable."""
    position: Position | None = after
    while position is not None:
        step = await _next(database, scope, background, position)
        position = step.position if step is not None else None
        if step is not None:
            yield step


async def _next(database: Database, scope: Scope, background: Background, position: Position) -> Step | None:
    """None: that was all."""
    if position.issuer is not None:
        return await _shard(database, scope, background, position, position.issuer)
    if position.event is not None:
        return await _events(database, scope, position, position.event)
    if position.order is not None:
        return await _orders(database, scope, position, position.order)
    return await _certificates(database, scope, background, position)


async def _certificates(database: Database, scope: Scope, background: Background, position: Position) -> Step:
    batch = await audit.certificates(database, scope, after=(position.recorded, position.serial))
    if not batch:
        out_of_time = await audit.recorded_out_of_time(database, after=background.now + CLOCKS_APART)
        findings = Findings([*background.found, *map(_out_of_time, out_of_time)])
        return Step(findings, replace(position, order=""))
    findings = Findings()
    for record in batch:
        rules.examine(record, background, findings)
    return Step(findings, Position(batch[-1].recorded, batch[-1].serial))


async def _orders(database: Database, scope: Scope, position: Position, done: str) -> Step:
    """Whether each that is valid has a certificate."""
    last, lost = await audit.valid_without_certificate(database, scope, after=done)
    findings = Findings(found=list(map(_uncertified, lost)))
    return Step(
        findings, replace(position, order=last) if last else replace(position, event=audit.BEFORE_EVENTS)
    )


async def _events(database: Database, scope: Scope, position: Position, done: int) -> Step:
    """Whether each certificate that the audit tells of is there, and each event can be read. Events name no issuer: a check
    of one leaves them out.
    """
    if scope.issuer is not None:
        return Step(Findings(), replace(position, issuer=""))
    last, lost = await audit.issued_without_row(database, scope, after=done)
    unreadable = await audit.unreadable_events(database, after=done, until=last)
    findings = Findings(found=[*map(_lost, lost), *(_unreadable(*event) for event in unreadable)])
    return Step(findings, replace(position, issuer="") if last is None else replace(position, event=last))


async def _shard(
    database: Database, scope: Scope, background: Background, position: Position, issuer: str
) -> Step | None:
    """Whatever the time of the scope: a CRL is about all certificates of its shard that live."""
    wanted = [id_ for id_ in background.issuers if scope.issuer in {None, id_}]
    record = await audit.shard(database, wanted, after=(issuer, position.shard), now=background.now)
    if record is None:
        return None
    findings = Findings()
    crls.examine(record, background, findings)
    return Step(findings, replace(position, issuer=record.issuer, shard=record.shard))


def _lost(object_: str) -> Finding:
    return Finding(
        Severity.ERROR, "audit.certificate", object_, "the audit says that it was issued, and it is not there"
    )


def _unreadable(id_: int, object_: str) -> Finding:
    says = f"the audit event {id_} has a time that no calendar has, or a detail that cannot be read"
    return Finding(Severity.ERROR, "audit.unreadable", object_, says)


def _uncertified(order: str) -> Finding:
    says = "the order is valid, and its certificate is not there"
    return Finding(Severity.ERROR, "certificate.missing", f"order:{order}", says)


def _out_of_time(serial: str) -> Finding:
    says = "it is recorded at a time that is not yet, or before 1970: no check would come to it"
    return Finding(Severity.ERROR, "certificate.recorded", f"certificate:{serial}", says)
