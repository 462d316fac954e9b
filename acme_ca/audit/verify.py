"""Whether the audit trail is what was sealed: every event and every seal, against the signatures and the root.

It reads the database directly and believes nothing in it: the hashes come from signed checkpoints, the signatures from
keys that the root vouches for (`audit.signers`). What follows the last seal is not proved; what was cut off at the end is
found by a checkpoint that was kept elsewhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace

from acme_ca.audit import chain, signers
from acme_ca.audit.chain import Checkpoint
from acme_ca.audit.findings import Finding, Severity
from acme_ca.audit.signers import Doubts, Trust
from acme_ca.storage import seals
from acme_ca.storage.database import Database
from acme_ca.storage.seals import AuditEvent, Seal, Tail

MOST_FINDINGS = 10_000
"""That are named; all are counted."""
MOST_MOVED = 200
"""Changed events of one seal that are compared with each other, to tell a change of places from a change."""


_NO_TAIL = Tail(events=0, since=None)


@dataclass(slots=True, kw_only=True)
class Report:
    """`last`: the checkpoint that the trail ends with; None: nothing is sealed yet. `tail`: what is not sealed yet."""

    seals: int = 0
    events: int = 0
    errors: int = 0
    findings: list[Finding] = field(default_factory=list)
    last: Checkpoint | None = None
    tail: Tail = _NO_TAIL

    def add(self, code: str, object_: str, sentence: str) -> None:
        self.errors += 1
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(Severity.ERROR, code, object_, sentence))


async def verify(
    database: Database,
    trust: Trust,
    *,
    checkpoints: Sequence[Checkpoint] = (),
    own: Checkpoint | None = None,
) -> Report:
    """`checkpoints`: such as were kept elsewhere. `own`: the one of the data directory, where the signing key is, too.
    Raises DatabaseUnavailable.
    """
    report = Report()
    newest = await seals.last(database)
    if newest is not None:
        report.last = Checkpoint.of(newest)
    agreeing = [one for one in dict.fromkeys(checkpoints) if await _agrees(database, one, report)]
    if own is not None and own not in checkpoints:
        await _agrees(database, own, report)
    if newest is not None:
        doubts = Doubts(await signers.withdrawals(database, trust), agreeing)
        await _Verifier(database, trust, doubts, report).run(newest)
    report.tail = await seals.tail(database, after=newest.last_event if newest else None)
    return report


async def _agrees(database: Database, kept: Checkpoint, report: Report) -> bool:
    """Whether the trail still has it."""
    if report.last is None or report.last.seal < kept.seal:
        ends = f"seal {report.last.seal}" if report.last else "no seal at all"
        report.add(
            "trail.cut-off",
            f"audit_seal:{kept.seal}",
            f"the kept checkpoint is of seal {kept.seal} (event {kept.last_event}), and the trail ends with {ends}",
        )
        return False
    found = await seals.find(database, kept.seal)
    if found is not None and Checkpoint.of(found) != kept:
        report.add("trail.replaced", f"audit_seal:{kept.seal}", "it is not the one of the kept checkpoint")
        return False
    return found is not None


class _Verifier:
    """One pass over seals and events together, both in the order of their ids."""

    def __init__(self, database: Database, trust: Trust, doubts: Doubts, report: Report) -> None:
        self._database = database
        self._trust = trust
        self._doubts = doubts
        self._report = report
        self._events: AsyncIterator[AuditEvent]
        self._ahead: AuditEvent | None = None

    async def run(self, newest: Seal) -> None:
        self._events = seals.all_events(self._database, until=newest.last_event)
        previous: Seal | None = None
        async for seal in seals.seals(self._database, until=newest.id):
            self._report.seals += 1
            await self._skip_to(seal, previous)
            found = await self._take(seal.last_event)
            self._report.events += len(found)
            self._judge_seal(seal, previous)
            self._judge_events(seal, found)
            previous = seal
        for first, sentence in self._doubts.left():
            self._report.add("seal.compromised", f"audit_seal:{first}", sentence)

    async def _skip_to(self, seal: Seal, previous: Seal | None) -> None:
        """Events of seals that are missing: nothing is known of them."""
        lost = seal.id - (previous.id if previous else 0) - 1
        if lost > 0:
            first = (previous.id if previous else 0) + 1
            self._report.add(
                "seal.missing",
                f"audit_seal:{first}",
                "it is not there" if lost == 1 else f"it and the {lost - 1} seals after it are not there",
            )
            await self._take(seal.first_event - 1)

    async def _take(self, until: int) -> dict[int, AuditEvent]:
        """The next events up to that id."""
        taken: dict[int, AuditEvent] = {}
        if self._ahead is not None:
            if self._ahead.id > until:
                return taken
            taken[self._ahead.id] = self._ahead
            self._ahead = None
        async for event in self._events:
            if event.id > until:
                self._ahead = event
                break
            taken[event.id] = event
        return taken

    def _judge_seal(self, seal: Seal, previous: Seal | None) -> None:
        add, object_ = self._report.add, f"audit_seal:{seal.id}"
        if chain.hash_of(seal) != seal.hash:
            add("seal.changed", object_, "its numbers, its list of events or its hash were changed")
        if objection := self._trust.objection(seal):
            add("seal.signature", object_, objection)
        elif doubt := self._doubts.consider(seal):
            add("seal.revoked", object_, doubt)
        if not _follows(seal, previous):
            add("seal.order", object_, "it does not follow the seal before it")

    def _judge_events(self, seal: Seal, found: dict[int, AuditEvent]) -> None:
        entries = dict(chain.read_entries(seal.entries))
        changed = [
            event for id_, event in found.items() if id_ in entries and chain.digest(event) != entries[id_]
        ]
        moved = dict(_moved(changed, entries))
        for id_ in sorted(entries.keys() | found.keys()):
            object_ = f"audit_event:{id_}"
            if id_ not in found:
                self._report.add("event.missing", object_, f"it is in seal {seal.id}, and not there")
            elif id_ not in entries:
                self._report.add("event.inserted", object_, f"it was not there when seal {seal.id} was made")
        for event in changed:
            says = "it is not as it was sealed"
            if event.id in moved:
                says = f"it was event {moved[event.id]}: they were given another order"
            self._report.add(
                "event.moved" if event.id in moved else "event.changed", f"audit_event:{event.id}", says
            )


def _follows(seal: Seal, previous: Seal | None) -> bool:
    """Where the one before is missing, that is told of."""
    if seal.id == 1:
        return seal.previous == chain.NOTHING
    if previous is None or previous.id != seal.id - 1:
        return True
    return seal.previous == previous.hash and seal.first_event == previous.last_event + 1


def _moved(changed: Sequence[AuditEvent], entries: dict[int, bytes]) -> Iterator[tuple[int, int]]:
    """Of the changed events those that were sealed under another's id."""
    if len(changed) > MOST_MOVED:
        return
    for event in changed:
        for id_, digest in entries.items():
            if id_ != event.id and chain.digest(replace(event, id=id_)) == digest:
                yield event.id, id_
                break
