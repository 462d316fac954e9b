"""The audit trail as rows: its events, and the seals over them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from acme_ca.storage import details
from acme_ca.storage.database import Database, Row
from acme_ca.storage.times import within

EVENT_BATCH = 5_000
SEAL_BATCH = 50

MOST_COMMON = "certificate.issued"
_FIRST = -(2**63)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """`at` None: a time that is none of the years 1970 to 9999. `detail`: the text of a JSON value, as it is stored."""

    id: int
    at: datetime | None
    event: str
    actor: str
    source: str
    object: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """See `audit.chain`. `signer`: certificate, DER."""

    id: int
    at: datetime
    origin: str
    first_event: int
    last_event: int
    entries: bytes = field(repr=False)
    previous: bytes = field(repr=False)
    hash: bytes = field(repr=False)
    signature: bytes = field(default=b"", repr=False)
    signer: bytes = field(default=b"", repr=False)


_EVENT = """
    id, CASE WHEN at >= '1970-01-01' AND at < '9999-12-31' THEN at END AS at, event, actor, source, object,
    detail::text AS detail"""
_SEAL = """
    s.id, CASE WHEN s.at >= '1970-01-01' AND s.at < '9999-12-31' THEN s.at ELSE '1970-01-01' END AS at, origin, first_event,
    last_event, entries, previous, hash, signature, coalesce(g.der, ''::bytea) AS signer"""
_SEALS = "audit_seal s LEFT JOIN audit_signer g ON g.sha256 = s.signer"


def event_of(row: Row) -> AuditEvent:
    return AuditEvent(**row)


async def settled(database: Database) -> int | None:
    """The id of the last event that no other can still come before; 0: there is none. None: writers were not to be
    interrupted now.
    """
    try:
        return await database.fetchval("SELECT audit_settled()") or 0
    except asyncpg.LockNotAvailableError:
        return None


async def above_drawn(database: Database) -> list[str] | None:
    """What has come above the last id that was drawn for an event: `event`, whose id somebody chose; `seal`; the name of a
    target. Behind a seal or a target that has, no event is sealed or handed on until ids come there. None: the rights that an
    older release gave do not suffice for the look.
    """
    try:
        rows = await database.fetch(
            """SELECT name FROM (
                   SELECT 'event' AS name, max(id) AS id FROM audit_event
                   UNION ALL SELECT 'seal', max(last_event) FROM audit_seal
                   UNION ALL SELECT target, last_event FROM audit_forward
               ) come WHERE id > (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM audit_event_id_seq)
               ORDER BY name COLLATE "C" """
        )
    except asyncpg.InsufficientPrivilegeError:
        return None
    return [row["name"] for row in rows]


async def last(database: Database) -> Seal | None:
    row = await database.fetchrow(f"SELECT {_SEAL} FROM {_SEALS} ORDER BY s.id DESC LIMIT 1")
    return Seal(**row) if row else None


async def find(database: Database, seal: int) -> Seal | None:
    row = await database.fetchrow(f"SELECT {_SEAL} FROM {_SEALS} WHERE s.id = $1", seal)
    return Seal(**row) if row else None


async def add(database: Database, seal: Seal, *, signer_sha256: bytes, signer_serial: str) -> bool:
    """Durably. False: it does not follow the last seal (any more), or its signer is revoked or on hold; and nothing was
    written.
    """
    row = await database.fetchrow_durably(
        """WITH signer AS (
               INSERT INTO audit_signer (sha256, der) SELECT $10, $11
               WHERE NOT EXISTS (SELECT FROM certificate WHERE serial = $12 AND revoked IS NOT NULL) ON CONFLICT DO NOTHING
           )
           INSERT INTO audit_seal (id, at, origin, first_event, last_event, entries, previous, hash, signature, signer)
           SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
           WHERE (SELECT coalesce(max(id), 0) FROM audit_seal) = $1::bigint - 1
             AND NOT EXISTS (SELECT FROM certificate WHERE serial = $12 AND revoked IS NOT NULL)
           ON CONFLICT DO NOTHING RETURNING true""",
        seal.id,
        seal.at,
        seal.origin,
        seal.first_event,
        seal.last_event,
        seal.entries,
        seal.previous,
        seal.hash,
        seal.signature,
        signer_sha256,
        seal.signer,
        signer_serial,
    )
    return row is not None


async def events(
    database: Database, *, after: int | None, until: int, limit: int = EVENT_BATCH
) -> list[AuditEvent]:
    """In the order of their ids, behind `after` (None: from the first) up to `until`."""
    rows = await database.fetch(
        f"""SELECT {_EVENT} FROM audit_event WHERE ($1::bigint IS NULL OR id > $1) AND id >= $2 AND id <= $3
            ORDER BY id LIMIT $4""",
        after,
        _FIRST if after is None else after,
        until,
        limit,
    )
    return [event_of(row) for row in rows]


async def all_events(database: Database, *, until: int) -> AsyncIterator[AuditEvent]:
    position = None
    while found := await events(database, after=position, until=until):
        for event in found:
            yield event
        position = found[-1].id


async def seals(database: Database, *, until: int) -> AsyncIterator[Seal]:
    """In the order of their ids, up to `until`."""
    position = _FIRST
    while True:
        rows = await database.fetch(
            f"SELECT {_SEAL} FROM {_SEALS} WHERE s.id > $1 AND s.id <= $2 ORDER BY s.id LIMIT {SEAL_BATCH}",
            position,
            until,
        )
        if not rows:
            return
        for row in rows:
            yield Seal(**row)
        position = rows[-1]["id"]


# ---------------------------------------------------------------- signers


async def signers(database: Database) -> list[bytes]:
    """Their certificates, DER: of every seal that there is or was."""
    rows = await database.fetch("SELECT der FROM audit_signer ORDER BY sha256")
    return [row["der"] for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """That a certificate was taken back, or is on hold, as its row or the audit has it."""

    at: datetime
    reason: int
    invalid_since: datetime | None = None


_ROW = f"{within('revoked')} AS at, coalesce(reason, 0) AS reason"
_EVENT_ROW = f"{within('at')} AS at, event, detail::text AS detail"


async def revoked_signers(database: Database, serials: Sequence[str]) -> dict[str, list[Revoked]]:
    """By serial, those that are revoked: as the certificate's row says, and as the last event about it does."""
    rows = await database.fetch(
        f"""SELECT serial, {_ROW}, {within("invalid_since")} AS invalid_since
            FROM certificate WHERE serial = ANY ($1) AND revoked IS NOT NULL""",
        serials,
    )
    found: dict[str, list[Revoked]] = {}
    for row in rows:
        revoked = Revoked(at=row["at"], reason=row["reason"], invalid_since=row["invalid_since"])
        found[row["serial"]] = [revoked]
    events = await database.fetch(
        f"""SELECT object, {_EVENT_ROW} FROM audit_event WHERE object = ANY ($1)
              AND event IN ('certificate.revoked', 'certificate.held', 'certificate.released') ORDER BY id""",
        [f"certificate:{serial}" for serial in serials],
    )
    for serial, told in _last_told(events).items():
        found.setdefault(serial, []).append(told)
    return found


def _last_told(events: Sequence[Row]) -> dict[str, Revoked]:
    """By serial. The first event of a revocation has its time, the last one that tells it the time since when it was
    invalid.
    """
    told: dict[str, Revoked] = {}
    for event in events:
        serial = event["object"].partition(":")[2]
        if event["event"] == "certificate.released":
            told.pop(serial, None)
            continue
        before, now = told.get(serial), _told(event)
        told[serial] = Revoked(
            at=before.at if before else now.at,
            reason=now.reason,
            invalid_since=now.invalid_since or (before.invalid_since if before else None),
        )
    return told


async def revoked_issuers(database: Database) -> dict[bytes, list[Revoked]]:
    """By certificate, DER, those that are revoked: as the row says, and as each event about it does."""
    rows = await database.fetch(f"SELECT der, {_ROW} FROM issuer WHERE revoked IS NOT NULL")
    found = {row["der"]: [Revoked(at=row["at"], reason=row["reason"])] for row in rows}
    events = await database.fetch(
        f"""SELECT der, {_EVENT_ROW} FROM issuer i JOIN audit_event e
            ON e.object = 'issuer:' || i.id AND event = 'issuer.revoked' ORDER BY e.id"""
    )
    for event in events:
        found.setdefault(event["der"], []).append(_told(event))
    return found


def _told(event: Row) -> Revoked:
    """Whatever was made of its detail: a changed event is told of elsewhere."""
    detail = details.members(event["detail"])
    reason, since = detail.get("reason"), detail.get("invalid_since")
    return Revoked(
        at=event["at"], reason=reason if isinstance(reason, int) else 0, invalid_since=_time(since)
    )


def _time(text: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return time if time and time.tzinfo else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The events that no seal covers yet. `since`: when the first of them happened; None: there is none."""

    events: int
    since: datetime | None


async def tail(database: Database, *, after: int | None) -> Tail:
    row = await database.fetchrow(
        """SELECT count(*) AS events, min(at) FILTER (WHERE at >= '1970-01-01' AND at < '9999-12-31') AS since
           FROM audit_event WHERE $1::bigint IS NULL OR id > $1""",
        after,
    )
    assert row is not None, "an aggregate gives a row"  # noqa: S101
    return Tail(events=row["events"], since=row["since"])


# ---------------------------------------------------------------- looking


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What is asked for; None: any. `since` and `until`: from when on, and before when."""

    object: str | None = None
    actor: str | None = None
    source: str | None = None
    event: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedEvent:
    """`seal`: the one that covers it; None: none yet."""

    event: AuditEvent
    seal: int | None


_SEALED = f"""
    SELECT {_EVENT}, (SELECT s.id FROM audit_seal s WHERE s.last_event >= e.id ORDER BY s.last_event LIMIT 1) AS seal
    FROM audit_event e"""


async def search(
    database: Database,
    filters: Filters,
    *,
    after: int | None,
    limit: int,
    newest_first: bool,
) -> list[SealedEvent]:
    """In the order of their times, then ids; in that order behind the event `after`, none where there is no such event.

    What is wanted is found in an index alone, which tells all but the object; events of an object are read and sorted.
    """
    conditions, values = _conditions(filters)
    if after is not None:
        values.append(after)
        sign, place = "<" if newest_first else ">", len(values)
        # Its time as it is stored: somebody may have made it one that no datetime has.
        conditions.append(f"(at, id) {sign} ((SELECT at FROM audit_event WHERE id = ${place}), ${place})")
    way = "DESC" if newest_first else "ASC"
    found = f"SELECT at, id FROM audit_event WHERE {' AND '.join(conditions) or 'true'}"
    whole = "OFFSET 0" if filters.object is not None else ""  # planned as if all of it were wanted
    # The column: `at` alone would be what is shown in its place, which no index has.
    rows = await database.search(
        f"""{_SEALED} WHERE e.id = ANY (ARRAY(
                SELECT id FROM ({found} {whole}) f ORDER BY f.at {way}, f.id {way} LIMIT {limit:d}
            )) ORDER BY e.at {way}, e.id {way}""",
        *values,
    )
    return [_sealed_of(row) for row in rows]


async def lines(database: Database, filters: Filters, *, after: int | None, limit: int) -> list[SealedEvent]:
    """In the order of their ids, as they are sealed; behind `after`."""
    conditions, values = _conditions(filters)
    if after is not None:
        values.append(after)
        conditions.append(f"id > ${len(values)}")
    rows = await database.search(
        f"{_SEALED} WHERE {' AND '.join(conditions) or 'true'} ORDER BY e.id LIMIT {limit:d}", *values
    )
    return [_sealed_of(row) for row in rows]


async def find_event(database: Database, event: int) -> SealedEvent | None:
    row = await database.fetchrow(f"{_SEALED} WHERE id = $1", event)
    return _sealed_of(row) if row else None


def _sealed_of(row: Row) -> SealedEvent:
    fields = dict(row)
    seal = fields.pop("seal")
    return SealedEvent(event=AuditEvent(**fields), seal=seal)


def _conditions(filters: Filters) -> tuple[list[str], list[Any]]:
    """Only what is asked for: a plan for any combination would use no index."""
    wanted = [
        ("object = ${}", filters.object),
        ("actor = ${}", filters.actor),
        ("source = ${}", filters.source),
        ("event = ${}", filters.event),
        ("at >= ${}", filters.since),
        ("at < ${}", filters.until),
    ]
    conditions: list[str] = []
    values: list[Any] = []
    for condition, value in wanted:
        if value is not None:
            values.append(value)
            conditions.append(condition.format(len(values)))
    # What makes the partial index fit (schema.sql).
    if filters.event is not None and filters.event != MOST_COMMON:
        conditions.append(f"event <> '{MOST_COMMON}'")
    return conditions, values


async def page_of_seals(database: Database, *, after: int | None, limit: int) -> list[Seal]:
    """The newest first; behind `after`."""
    rows = await database.fetch(
        f"SELECT {_SEAL} FROM {_SEALS} WHERE $1::bigint IS NULL OR s.id < $1 ORDER BY s.id DESC LIMIT $2",
        after,
        limit,
    )
    return [Seal(**row) for row in rows]


# ---------------------------------------------------------------- handing on


async def forwarded(database: Database, target: str) -> int | None:
    """The last event that the target has; None: it has none."""
    last: int | None = await database.fetchval(
        "SELECT last_event FROM audit_forward WHERE target = $1", target
    )
    return last


async def forward_to(database: Database, target: str, event: int, *, now: datetime) -> None:
    """It has all events up to that one; never goes back."""
    await database.execute(
        """INSERT INTO audit_forward (target, last_event, changed) VALUES ($1, $2, $3)
           ON CONFLICT (target) DO UPDATE SET last_event = $2, changed = $3 WHERE audit_forward.last_event < $2""",
        target,
        event,
        now,
    )
