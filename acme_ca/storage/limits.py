"""Rate limits: buckets, overrides of limits, and pauses."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from acme_ca.core import limits
from acme_ca.core.actors import Actor
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AccountId
from acme_ca.core.limits import Charge, Limit, LimitKind
from acme_ca.core.times import CLOCKS_APART
from acme_ca.storage import search
from acme_ca.storage.database import Columns, Database, Row
from acme_ca.storage.search import CREATED, NEVER, SOON, By, Page, Table, Wanted, holds

FORGOTTEN_AFTER = timedelta(days=1)
"""A failure that the next does not follow within this time does not count any more."""
_BATCH = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A bucket is empty: when it has a token again."""

    charge: Charge
    free_at: datetime


@dataclass(frozen=True, slots=True)
class Paused:
    """Identifiers that the account may not order until somebody lifts the pause."""

    identifiers: tuple[Identifier, ...]


# ---------------------------------------------------------------- buckets, inside other statements

Parameters = tuple[list[str], list[timedelta], list[timedelta], list[bool]]


def parameters(charges: Sequence[Charge]) -> Parameters:
    """The first four of the database's `spend`. `charges` are sorted."""
    return (
        [charge.key for charge in charges],
        [charge.limit.interval for charge in charges],
        [charge.limit.slack for charge in charges],
        [charge.spends for charge in charges],
    )


def admitted(source: str, *, first: int, moment: int) -> str:
    """A CTE: the rows of `source` with `refused` and `free_at`, each evaluated once. `first`: the number of the first of
    `parameters` in the statement; `moment`: that of now.
    """
    places = ", ".join(f"${number}" for number in (*range(first, first + 4), moment))
    return f"""admitted AS MATERIALIZED (
    SELECT {source}.*, s.refused, s.free_at FROM {source}, LATERAL spend({places}) AS s
)"""


def all_admitted(source: str) -> str:
    """As `admitted`, where nothing is limited: no bucket is touched."""
    return f"""admitted AS (
    SELECT {source}.*, NULL::integer AS refused, NULL::timestamptz AS free_at FROM {source}
)"""


REFUSAL_COLUMNS = "(SELECT refused FROM admitted) AS refused, (SELECT free_at FROM admitted) AS limit_free_at"


def refusal_of(row: Row, charges: Sequence[Charge]) -> Refused | None:
    place = row["refused"]
    return None if place is None else Refused(charge=charges[place - 1], free_at=row["limit_free_at"])


# ---------------------------------------------------------------- buckets by themselves


async def spend(database: Database, charges: Sequence[Charge], *, now: datetime) -> Refused | None:
    """Take a token from each bucket, or from none."""
    row = await database.fetchrow(
        "SELECT refused, free_at AS limit_free_at FROM spend($1, $2, $3, $4, $5)", *parameters(charges), now
    )
    return refusal_of(row, charges) if row else None


async def give_back(database: Database, charges: Sequence[Charge]) -> None:
    """Put back the tokens that were taken. One by one: nobody waits for a bucket while holding another."""
    for charge in charges:
        await database.execute(
            "UPDATE bucket SET full_at = full_at - $2::interval WHERE key = $1",
            charge.key,
            charge.limit.interval,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """How full a bucket is. Nothing was taken to find out."""

    charge: Charge
    left: int
    free_at: datetime
    """When there is a token: now, or later."""
    full_at: datetime


async def peek(database: Database, charges: Sequence[Charge], *, now: datetime) -> list[Level]:
    """What `charges` would meet."""
    rows = await database.fetch(
        "SELECT key, full_at FROM bucket WHERE key = ANY ($1)", [charge.key for charge in charges]
    )
    full_at = {row["key"]: row["full_at"] for row in rows}
    return [_level(charge, full_at.get(charge.key), now) for charge in charges]


def _level(charge: Charge, full_at: datetime | None, now: datetime) -> Level:
    return Level(
        charge=charge,
        left=limits.left(charge.limit, full_at, now=now),
        free_at=limits.free_at(charge.limit, full_at, now=now),
        full_at=limits.ends(charge.limit, full_at, now=now),
    )


async def delete_full(database: Database, *, now: datetime) -> int:
    """Delete a batch of full buckets. Returns how many; 0: none is left. It waits for none that is in use, so that nobody
    who holds one waits for it (lesson 34).
    """
    return await database.execute(
        f"""DELETE FROM bucket WHERE key = ANY (ARRAY(
                SELECT key FROM bucket WHERE full_at < $1 LIMIT {_BATCH} FOR UPDATE SKIP LOCKED))""",
        now - CLOCKS_APART,
    )


async def add_refusals(database: Database, refused: Mapping[str, int]) -> None:
    """`refused`: how many more, by kind."""
    kinds = sorted(refused)
    await database.execute(
        """INSERT INTO limit_refusal AS r (kind, refusals) SELECT * FROM unnest($1::text[], $2::bigint[])
           ON CONFLICT (kind) DO UPDATE SET refusals = r.refusals + excluded.refusals""",
        kinds,
        [refused[kind] for kind in kinds],
    )


async def refusals_by_kind(database: Database) -> dict[str, int]:
    rows = await database.fetch("SELECT kind, refusals FROM limit_refusal ORDER BY kind")
    return {row["kind"]: row["refusals"] for row in rows}


# ---------------------------------------------------------------- overrides


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """Another limit for one subject than for all others of its kind."""

    kind: LimitKind
    subject: str
    limit: Limit
    reason: str
    created: datetime
    expires: datetime | None


_KINDS = ", ".join(f"'{kind}'" for kind in LimitKind)
"""Of overrides; a later release may know others."""
_LIVING = f"""SELECT bucket, kind, subject, amount, period, reason, created, expires FROM limit_override, moment
              WHERE kind IN ({_KINDS}) AND (expires IS NULL OR expires > moment.now)"""
OverrideSort = Literal["kind", "-kind", "subject", "-subject", "created", "-created", "expires", "-expires"]
OVERRIDES = Table(
    source=f"""SELECT *, bucket AS id, left(subject, 200) AS by_subject, coalesce(expires, {NEVER}) AS ends FROM ({_LIVING}) o""",
    columns="kind, subject, amount, period, reason, created, expires",
    filters={
        "kind": "kind = {}",
        "subject": "subject = {}",
        "text": holds("subject", "reason"),
        "expiring_within": SOON,
        **CREATED,
    },
    sorts={
        "kind": By(),
        "subject": By("by_subject"),
        "created": By("created", datetime),
        "expires": By("ends", datetime),
    },
)


async def page_of_overrides(database: Database, wanted: Wanted, *, now: datetime) -> Page[Override]:
    """Of those that have not expired."""
    return await search.page(database, OVERRIDES, wanted, now=now, read=_override)


async def overrides(database: Database, *, now: datetime) -> list[Override]:
    """All that have not expired."""
    rows = await database.fetch(f"WITH moment AS (SELECT $1::timestamptz AS now) {_LIVING}", now)
    return [_override(row) for row in rows]


def _override(row: Columns) -> Override:
    return Override(
        kind=LimitKind(row["kind"]),
        subject=row["subject"],
        limit=Limit(row["amount"], timedelta(seconds=row["period"])),
        reason=row["reason"],
        created=row["created"],
        expires=row["expires"],
    )


async def put_override(database: Database, override: Override, *, actor: Actor) -> None:
    """In the place of the one that there is for the subject. Its bucket is full: who gets a larger one need not wait."""
    await database.fetchrow_durably(
        """WITH before AS (
               SELECT amount, period, expires FROM limit_override WHERE bucket = $10
           ), put AS (
               INSERT INTO limit_override (kind, subject, amount, period, reason, created, expires, bucket)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $10)
               ON CONFLICT (bucket) DO UPDATE SET amount = excluded.amount, period = excluded.period,
                   reason = excluded.reason, created = excluded.created, expires = excluded.expires
           ), filled AS (
               DELETE FROM bucket WHERE key = $10
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $6, 'limit.overridden', $8, $9, 'limit:' || $10, json_build_object(
               'subject', $2::text, 'before', (SELECT row_to_json(before) FROM before), 'amount', $3::integer, 'period', $4::integer,
               'reason', $5::text, 'expires', $7::timestamptz) RETURNING true""",
        override.kind,
        override.subject,
        override.limit.amount,
        int(override.limit.period.total_seconds()),
        override.reason,
        override.created,
        override.expires,
        actor.name,
        actor.source,
        limits.bucket_key(override.kind, override.subject),
    )


async def remove_override(
    database: Database, kind: LimitKind, subject: str, *, actor: Actor, now: datetime
) -> bool:
    """False: there is none."""
    row = await database.fetchrow_durably(
        """WITH removed AS (
               DELETE FROM limit_override WHERE bucket = $1 RETURNING subject, amount, period, expires
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $2, 'limit.override-removed', $3, $4, 'limit:' || $1,
                  json_build_object('before', row_to_json(removed)) FROM removed RETURNING true""",
        limits.bucket_key(kind, subject),
        now,
        actor.name,
        actor.source,
    )
    return row is not None


# ---------------------------------------------------------------- pauses

COUNTED = """counted AS (
    INSERT INTO pause AS p (account_id, identifier, failures, failed, paused)
    SELECT account_id, identifier, 1, $5, CASE WHEN $8 <= 1 THEN $5::timestamptz END FROM settled
    ON CONFLICT (account_id, identifier) DO UPDATE SET failed = $5,
        failures = CASE WHEN p.failed < $9 THEN 1 ELSE p.failures + 1 END,
        paused = CASE WHEN p.paused IS NOT NULL THEN p.paused
                      WHEN $8 <= CASE WHEN p.failed < $9 THEN 1 ELSE p.failures + 1 END THEN $5::timestamptz END
    RETURNING account_id, identifier, failures, paused
), noted AS (
    INSERT INTO audit_event (at, event, actor, object, detail)
    SELECT $5, 'account.paused', 'server', 'account:' || account_id,
           json_build_object('identifier', identifier, 'failures', failures) FROM counted WHERE paused = $5
)"""
"""CTEs behind `settled`, the authorization that failed at $5: it is one failure more of its account for its name, and at
$8 in a row, none of them before $9, the account is paused for it.
"""
FORGIVEN = """forgiven AS (
    DELETE FROM pause p USING settled s WHERE p.account_id = s.account_id AND p.identifier = s.identifier
)"""
"""A CTE behind `settled`, an authorization that became valid: what failed before it does not count."""

PAUSED = """paused AS (
    SELECT p.identifier FROM acting JOIN pause p
    ON p.account_id = acting.id AND p.identifier = ANY ({identifiers}) AND p.paused IS NOT NULL
)"""
"""A CTE behind `acting`: those of the identifiers that it is paused for."""


def paused_of(row: Row) -> Paused | None:
    """From the column `paused`, an array of identifiers or NULL."""
    names = row["paused"]
    return Paused(tuple(map(Identifier.from_text, names))) if names else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    account: AccountId
    identifier: Identifier
    failures: int
    failed: datetime
    """The last time."""
    paused: datetime


PauseSort = Literal[
    "account",
    "-account",
    "identifier",
    "-identifier",
    "failures",
    "-failures",
    "failed",
    "-failed",
    "paused",
    "-paused",
]
PAUSES = Table(
    source="SELECT *, account_id || ' ' || identifier AS id, failures::bigint AS times FROM pause WHERE paused IS NOT NULL",
    columns="account_id, identifier, failures, failed, paused",
    filters={
        "account": "account_id = {}",
        "identifier": "identifier = {}",
        "paused_since": "paused >= {}",
        "paused_before": "paused < {}",
    },
    sorts={
        "account": By(),
        "identifier": By("identifier"),
        "failures": By("times", int),
        "failed": By("failed", datetime),
        "paused": By("paused", datetime),
    },
)


async def page_of_pauses(database: Database, wanted: Wanted, *, now: datetime) -> Page[Pause]:
    return await search.page(database, PAUSES, wanted, now=now, read=_pause)


async def pauses(database: Database, *, account: AccountId, limit: int) -> list[Pause]:
    """Of an account, by identifier: the first of them."""
    rows = await database.fetch(
        """SELECT account_id, identifier, failures, failed, paused FROM pause
           WHERE paused IS NOT NULL AND account_id = $1 ORDER BY identifier LIMIT $2""",
        account,
        limit,
    )
    return [_pause(row) for row in rows]


def _pause(row: Columns) -> Pause:
    return Pause(
        account=row["account_id"],
        identifier=Identifier.from_text(row["identifier"]),
        failures=row["failures"],
        failed=row["failed"],
        paused=row["paused"],
    )


async def paused_among(
    database: Database, account: AccountId, identifiers: Collection[Identifier]
) -> set[Identifier]:
    """Those of the identifiers that the account is paused for."""
    rows = await database.fetch(
        "SELECT identifier FROM pause WHERE account_id = $1 AND identifier = ANY ($2) AND paused IS NOT NULL",
        account,
        [str(identifier) for identifier in identifiers],
    )
    return {Identifier.from_text(row["identifier"]) for row in rows}


async def unpause(
    database: Database,
    *,
    account: AccountId | None,
    identifiers: Collection[Identifier] | None,
    actor: Actor,
    now: datetime,
) -> list[Identifier]:
    """Lift pauses: of the account, or of all; for the identifiers, or for any. Failures are counted from nothing again.

    Returns what was lifted, an identifier for each account.
    """
    row = await database.fetchrow_durably(
        """WITH lifted AS (
               DELETE FROM pause WHERE paused IS NOT NULL AND ($1::text IS NULL OR account_id = $1)
                   AND ($2::text[] IS NULL OR identifier = ANY ($2)) RETURNING account_id, identifier, failures, paused
           ), told AS (
               INSERT INTO audit_event (at, event, actor, source, object, detail)
               SELECT $3, 'account.unpaused', $4, $5, 'account:' || account_id, json_build_object(
                   'identifier', identifier, 'failures', failures, 'since', paused) FROM lifted
           )
           SELECT array_agg(identifier ORDER BY identifier) AS identifiers FROM lifted""",
        account,
        None if identifiers is None else [str(identifier) for identifier in identifiers],
        now,
        actor.name,
        actor.source,
    )
    assert row is not None, "an aggregate gives a row"  # noqa: S101
    return [Identifier.from_text(identifier) for identifier in row["identifiers"] or ()]


async def delete_old_pauses(database: Database, *, now: datetime) -> int:
    """Delete a batch of failures that do not count any more, and pauses of accounts that have ended."""
    return await database.execute(
        f"""DELETE FROM pause WHERE ctid = ANY (ARRAY(
                SELECT p.ctid FROM pause p JOIN account a ON a.id = p.account_id
                WHERE (p.paused IS NULL AND p.failed < $1) OR a.status <> 'valid'
                LIMIT {_BATCH} FOR UPDATE OF p SKIP LOCKED))""",
        now - FORGOTTEN_AFTER,
    )
