"""What operators watch, in figures: cheap to read however large the tables are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from acme_ca.core.ids import IssuerId
from acme_ca.storage.crls import is_finished
from acme_ca.storage.database import Database
from acme_ca.storage.limits import refusals_by_kind
from acme_ca.storage.times import within

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCertificateEnd:
    """When the newest certificate of its kind for the server itself ends."""

    issuer: IssuerId
    profile: str
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlFigures:
    """Of the newest CRLs of an issuer, all shards together."""

    issuer: IssuerId
    crls: int
    entries: int
    oldest: datetime
    """The first thisUpdate,"""
    newest: datetime
    """the last,"""
    first_end: datetime
    """and the first nextUpdate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlEnd:
    issuer: IssuerId
    shard: int
    next_update: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    certificates: int | None
    """As PostgreSQL's statistics estimate it, without counting; None: not known yet."""
    recorded_last_hour: int
    stale_orders: int
    """In `processing`, with a certificate recorded before the time that was asked for."""
    overdue_validations: int
    """Challenges whose attempt another process should have taken over by the time that was asked for."""
    crl_due: int
    """Changes that wait for a CRL,"""
    crl_due_since: datetime | None
    """and the oldest of them."""
    paused_accounts: int
    refusals: Mapping[str, int]
    """How often a limit of each kind has refused something."""
    crls: tuple[CrlFigures, ...]
    own: tuple[OwnCertificateEnd, ...]


async def figures(database: Database, *, now: datetime, stale: datetime) -> Figures:
    """`stale`: what should have happened by then and has not is counted."""
    row = await database.fetchrow(
        f"""SELECT (SELECT nullif(reltuples, -1)::bigint FROM pg_class WHERE oid = 'certificate'::regclass) AS certificates,
                  (SELECT count(*) FROM certificate WHERE recorded > $1) AS recorded_last_hour,
                  (SELECT count(*) FROM orders o JOIN certificate c ON c.serial = o.serial
                   WHERE o.status = 'processing' AND c.recorded < $2) AS stale_orders,
                  (SELECT count(*) FROM authz WHERE attempt_due < $2) AS overdue_validations,
                  (SELECT count(*) FROM crl_due) AS crl_due, (SELECT {within("min(at)")} FROM crl_due) AS crl_due_since,
                  (SELECT count(DISTINCT account_id) FROM pause WHERE paused IS NOT NULL) AS paused_accounts""",
        now - HOUR,
        stale,
    )
    assert row is not None, "a SELECT without FROM gives a row"  # noqa: S101
    refusals = await refusals_by_kind(database)
    return Figures(**row, refusals=refusals, crls=await _crls(database, now), own=await _own(database, now))


async def _crls(database: Database, now: datetime) -> tuple[CrlFigures, ...]:
    rows = await database.fetch(
        f"""SELECT c.issuer_id AS issuer, count(*) AS crls, sum(c.entries) AS entries,
                  min({within("c.this_update")}) FILTER (WHERE NOT {is_finished("$1")}) AS oldest,
                  max({within("c.this_update")}) FILTER (WHERE NOT {is_finished("$1")}) AS newest,
                  min({within("c.next_update")}) FILTER (WHERE NOT {is_finished("$1")}) AS first_end
           FROM crl c JOIN issuer i ON i.id = c.issuer_id AND i.not_after > $1 GROUP BY c.issuer_id ORDER BY 1""",
        now,
    )
    return tuple(CrlFigures(**row) for row in rows)


async def ending_crls(database: Database, now: datetime) -> list[CrlEnd]:
    """Those of which a quarter of their life is left, or nothing, though their issuer lives on."""
    rows = await database.fetch(
        f"""SELECT c.issuer_id AS issuer, c.shard, shown.ends AS next_update
           FROM crl c JOIN issuer i ON i.id = c.issuer_id AND i.not_after > $1 AND c.next_update < i.not_after, LATERAL (
               SELECT {within("c.this_update")} AS begins, {within("c.next_update")} AS ends
           ) shown
           WHERE shown.ends - $1 <= (shown.ends - shown.begins) / 4 AND NOT {is_finished("$1")}
           ORDER BY 1, 2""",
        now,
    )
    return [CrlEnd(**row) for row in rows]


async def _own(database: Database, now: datetime) -> tuple[OwnCertificateEnd, ...]:
    rows = await database.fetch(
        f"""SELECT c.issuer_id AS issuer, c.profile, {within("max(c.not_after)")} AS not_after
           FROM certificate c JOIN issuer i ON i.id = c.issuer_id AND i.not_after > $1
           WHERE c.account_id IS NULL AND c.der IS NOT NULL GROUP BY c.issuer_id, c.profile ORDER BY 1, 2""",
        now,
    )
    return tuple(OwnCertificateEnd(**row) for row in rows)


# ---------------------------------------------------------------- how many there are


@dataclass(frozen=True, slots=True)
class Count:
    number: int
    estimated: bool
    """By PostgreSQL's statistics, because there are too many to count."""


COUNTED = ("certificate", "account", "orders", "authz", "eab_key", "service", "audit_event")


async def counts(
    database: Database, tables: Sequence[str] = COUNTED, *, at_most: int = 10_000
) -> dict[str, Count]:
    """Rows of the tables, of COUNTED: counted up to `at_most`, estimated beyond. Where PostgreSQL's estimate is far beyond,
    nothing is counted.
    """
    assert set(tables) <= set(COUNTED)  # noqa: S101  they become part of the statement
    rows = await database.fetch(
        " UNION ALL ".join(
            f"""SELECT '{table}' AS name, CASE WHEN reltuples <= 2 * $1
                    THEN (SELECT count(*) FROM (SELECT FROM {table} LIMIT $1 + 1) s) ELSE $1 + 1 END AS counted,
                    reltuples::bigint AS estimate FROM pg_class WHERE oid = '{table}'::regclass"""
            for table in tables
        ),
        at_most,
    )
    return {
        row["name"]: Count(max(row["counted"], row["estimate"]), estimated=True)
        if row["counted"] > at_most
        else Count(row["counted"], estimated=False)
        for row in rows
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What is told of certificates beside their number; `revoked` includes what has expired since."""

    recorded_last_hour: int
    recorded_last_day: int
    ending_in_a_day: int
    ending_in_a_week: int
    ending_in_a_month: int
    """30 days; these three are not revoked, and the longer times include the shorter."""
    revoked: int
    on_hold: int
    processing_orders: int
    frozen_accounts: int
    database_bytes: int
    postgresql: str
    schema_version: int


async def statistics(database: Database, *, now: datetime) -> Statistics:
    """Read from indexes alone."""
    (row,) = await database.search(
        """SELECT recent.*, ending.*,
               (SELECT count(*) FROM certificate WHERE revoked IS NOT NULL) AS revoked,
               (SELECT count(*) FROM certificate WHERE reason = 6) AS on_hold,
               (SELECT count(*) FROM orders WHERE status = 'processing') AS processing_orders,
               (SELECT count(*) FROM account WHERE frozen IS NOT NULL) AS frozen_accounts,
               pg_database_size(current_database()) AS database_bytes, current_setting('server_version') AS postgresql,
               (SELECT max(version) FROM schema_version) AS schema_version
           FROM (SELECT count(*) FILTER (WHERE recorded > $2) AS recorded_last_hour, count(*) AS recorded_last_day
                 FROM certificate WHERE recorded > $3) AS recent,
                (SELECT count(*) FILTER (WHERE not_after <= $4) AS ending_in_a_day,
                        count(*) FILTER (WHERE not_after <= $5) AS ending_in_a_week, count(*) AS ending_in_a_month
                 FROM certificate WHERE revoked IS NULL AND not_after > $1 AND not_after <= $6) AS ending""",
        now,
        now - HOUR,
        now - DAY,
        now + DAY,
        now + 7 * DAY,
        now + 30 * DAY,
    )
    return Statistics(**row)
