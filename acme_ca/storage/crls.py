"""CRLs: which are due, what they list, the newest of each shard."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from cryptography import x509

from acme_ca.core.actors import Actor
from acme_ca.core.crl import Base, Entry, Newest, Scope
from acme_ca.core.ids import IssuerId, Serial, serial_text
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.times import CLOCKS_APART
from acme_ca.storage.database import Database, Row, to_json
from acme_ca.storage.times import known, within


class Shard(NamedTuple):
    issuer: IssuerId
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DueCrl:
    """A CRL that has to be made anew. `wishes`: the entries of the queue that ask for it."""

    shard: Shard
    of_root: bool
    is_named: bool
    """Certificates say where it is to be found: those of CAs, where it is a root's."""
    scope: Scope
    issuer_ends: datetime
    key_uri: str | None
    newest: Newest | None
    wishes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCrl:
    """A CRL and its delta, to be stored at once. `base_entries`: of a full CRL that becomes the base; None: the base stays."""

    shard: Shard
    number: int
    this_update: datetime
    next_update: datetime
    entries: int
    der: bytes = field(repr=False)
    delta: bytes | None = field(repr=False)
    urls: tuple[str, ...]
    base: Base
    base_entries: bytes | None = field(repr=False)


class Listing(NamedTuple):
    """What a full CRL lists, and the holds that ended."""

    entries: list[Entry]
    released: list[Serial]


# ---------------------------------------------------------------- what is due

_TIMES = f"{within('c.this_update')} AS this_update, {within('c.next_update')} AS next_update"
# No base is newer than the CRL that rests on it.
_NEWEST = f"""c.number, {_TIMES}, c.entries, c.urls, c.base_number,
    least({within("c.base_at")}, {within("c.this_update")}) AS base_at,
    {within("c.lists_after", since="1950-01-01")} AS lists_after"""

_SHARDS = """issuer i CROSS JOIN LATERAL generate_series(0, i.open_shard) AS s (shard)
    LEFT JOIN crl c ON c.issuer_id = i.id AND c.shard = s.shard"""

# Of a root: CA certificates say that its CRL is to be had here. Another's root has its own elsewhere.
_IS_NAMED = """(i.kind = 'intermediate' OR EXISTS (
    SELECT FROM issuer child WHERE child.parent_id = i.id
       AND position(convert_to('/crl/' || i.id || '/0.crl', 'UTF8') IN child.der) > 0))"""
IS_EXPECTED = f"(c.number IS NOT NULL OR {_IS_NAMED})"


def is_signed_by(issuer: str) -> str:
    """Of a CA certificate, in SQL: its parent has the key of the issuer with this id. The parent may be another certificate
    of the same CA, one that is cross-signed or made again; a relying party takes either for the signer.
    """
    return f"parent_id IN (SELECT p.id FROM issuer p JOIN issuer s USING (spki_sha256) WHERE s.id = {issuer})"


def is_finished(now: str) -> str:
    """Of a shard, in SQL: all of it has expired, and was listed once more since. What a clock that was ahead has listed was
    not: `now` is SQL, too.
    """
    return f"coalesce(c.this_update > c.ends AND c.this_update <= {now}, false)"


async def wish(database: Database, *, issuer: IssuerId | None, shard: int | None, now: datetime) -> int:
    """Make CRLs due: the shard's, all of an issuer, or all. Returns how many."""
    return await database.execute(
        """INSERT INTO crl_due (issuer_id, shard, at)
           SELECT i.id, s.shard, $3 FROM issuer i CROSS JOIN LATERAL generate_series(0, i.open_shard) AS s (shard)
           WHERE i.kind <> 'cross' AND i.not_after > $3 AND ($1::text IS NULL OR i.id = $1)
             AND ($2::integer IS NULL OR s.shard = $2)""",
        issuer,
        shard,
        now,
    )


async def due(
    database: Database,
    *,
    refresh: timedelta,
    root_refresh: timedelta,
    also: Sequence[tuple[IssuerId, int]] = (),
    now: datetime,
) -> list[DueCrl]:
    """CRLs that were never made, that something in the queue asks for, or whose time has come: those for the queue first;
    those whose thisUpdate is still to come, since the clock went back; and those of the shards `also`.

    Issuers sign CRLs until they expire, retired ones as well; shards until all their certificates have.
    """
    rows = await database.fetch(
        f"""SELECT i.id, i.der, i.kind, {within("i.not_after")} AS not_after, i.key_uri, s.shard, {_NEWEST}, w.ids, {_IS_NAMED} AS is_named
            FROM {_SHARDS}
            LEFT JOIN (SELECT issuer_id, shard, array_agg(id) AS ids FROM crl_due GROUP BY issuer_id, shard) w
                ON w.issuer_id = i.id AND w.shard = s.shard
            WHERE i.kind <> 'cross' AND i.not_after > $1 AND NOT {is_finished("$1")}
              AND (w.ids IS NOT NULL OR c.this_update <= CASE WHEN i.kind = 'root' THEN $3 ELSE $2::timestamptz END
                   OR c.this_update > $1
                   OR (c.number IS NULL AND (i.key_uri IS NOT NULL OR {_IS_NAMED}))
                   OR (i.id, s.shard) IN (SELECT * FROM unnest($4::text[], $5::integer[])))
            ORDER BY w.ids IS NULL, c.this_update NULLS FIRST""",
        now,
        now - refresh,
        now - root_refresh,
        [issuer for issuer, _ in also],
        [number for _, number in also],
    )
    return [
        DueCrl(
            shard=Shard(row["id"], row["shard"]),
            of_root=row["kind"] == IssuerKind.ROOT,
            is_named=row["is_named"],
            scope=scope_of(row["kind"], row["der"], row["shard"]),
            issuer_ends=row["not_after"],
            key_uri=row["key_uri"],
            newest=None if row["number"] is None else _newest_of(row),
            wishes=tuple(row["ids"] or ()),
        )
        for row in rows
    ]


def scope_of(kind: str, der: bytes, shard: int) -> Scope:
    """What the CRL of an issuer's shard is about."""
    if kind == IssuerKind.ROOT:
        return Scope.CAS
    extensions = x509.load_der_x509_certificate(der).extensions
    may_sign_cas = extensions.get_extension_for_class(x509.BasicConstraints).value.path_length != 0
    return Scope.BOTH if may_sign_cas and shard == 0 else Scope.LEAVES


def _newest_of(row: Row) -> Newest:
    return Newest(
        number=row["number"],
        this_update=row["this_update"],
        next_update=row["next_update"],
        entries=row["entries"],
        urls=tuple(row["urls"]),
        base=Base(number=row["base_number"], at=row["base_at"], lists_after=row["lists_after"]),
    )


async def newest(database: Database, shard: Shard) -> Newest | None:
    row = await database.fetchrow(
        f"SELECT {_NEWEST} FROM crl c WHERE c.issuer_id = $1 AND c.shard = $2", shard.issuer, shard.number
    )
    return _newest_of(row) if row else None


async def wishes(database: Database, shard: Shard) -> list[int]:
    rows = await database.fetch(
        "SELECT id FROM crl_due WHERE issuer_id = $1 AND shard = $2", shard.issuer, shard.number
    )
    return [row["id"] for row in rows]


# ---------------------------------------------------------------- what is listed


async def listing(database: Database, shard: Shard, scope: Scope, *, lists_after: datetime) -> Listing:
    """What ends after `lists_after`."""
    found = Listing([], [])
    if scope is not Scope.CAS:
        found = await asyncio.to_thread(_leaves, await _changed_leaves(database, shard, lists_after))
    if scope is not Scope.LEAVES:
        found.entries.extend(await _cas(database, shard.issuer, lists_after))
    return found


async def _changed_leaves(database: Database, shard: Shard, lists_after: datetime) -> list[Row]:
    return await database.fetch(
        f"""SELECT serial, {within("revoked")} AS revoked, reason, {known("invalid_since")} AS invalid_since FROM certificate
           WHERE issuer_id = $1 AND shard = $2 AND status_changed IS NOT NULL AND not_after > $3""",
        shard.issuer,
        shard.number,
        lists_after,
    )


def _leaves(rows: list[Row]) -> Listing:
    """Takes its time when there are many."""
    return Listing(
        [
            Entry(
                row["serial"],
                _second(row["revoked"]),
                row["reason"],
                _second(row["invalid_since"]) if row["invalid_since"] else None,
            )
            for row in rows
            if row["revoked"] is not None
        ],
        [row["serial"] for row in rows if row["revoked"] is None],
    )


async def _cas(database: Database, issuer: IssuerId, lists_after: datetime) -> list[Entry]:
    rows = await database.fetch(
        f"""SELECT der, {within("revoked")} AS revoked, reason FROM issuer
            WHERE {is_signed_by("$1")} AND revoked IS NOT NULL AND not_after > $2""",
        issuer,
        lists_after,
    )
    return [
        Entry(
            serial_text(x509.load_der_x509_certificate(row["der"]).serial_number),
            _second(row["revoked"]),
            row["reason"],
        )
        for row in rows
    ]


def _second(time: datetime) -> datetime:
    return time.replace(microsecond=0)


async def base_entries(database: Database, shard: Shard) -> tuple[int, bytes]:
    """The number of the base, and what it listed (`core.crl.pack`)."""
    row = await database.fetchrow(
        "SELECT base_number, base FROM crl WHERE issuer_id = $1 AND shard = $2", shard.issuer, shard.number
    )
    assert row is not None, "there is a base once there is a CRL"  # noqa: S101
    return row["base_number"], row["base"]


# ---------------------------------------------------------------- storing


async def store(
    database: Database,
    crl: SignedCrl,
    *,
    after: int | None,
    wishes: Sequence[int],
    event: str,
    actor: Actor,
    now: datetime,
    detail: Mapping[str, object],
) -> bool:
    """Keep a CRL in the place of number `after` (None: of none), with the audit event; the wishes that it fulfils go in the
    same durable statement. False: another came first, and nothing was changed.
    """
    row = await database.fetchrow_durably(
        """WITH stored AS (
               INSERT INTO crl (issuer_id, shard, number, this_update, next_update, entries, der, delta, urls, base_number,
                                base_at, lists_after, base, opened, counted)
               SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, coalesce($13, ''::bytea), o.opened,
                      o.opened - interval '1 hour'
               FROM (SELECT coalesce((SELECT closed FROM crl WHERE issuer_id = $1 AND shard = $2 - 1),
                                     (SELECT created FROM issuer WHERE id = $1)) AS opened) o
               ON CONFLICT (issuer_id, shard) DO UPDATE SET number = $3, this_update = $4, next_update = $5, entries = $6,
                   der = $7, delta = $8, urls = $9, base_number = $10, base_at = $11, lists_after = $12,
                   base = CASE WHEN $13::bytea IS NULL THEN crl.base ELSE $13 END
               WHERE crl.number = $14 AND crl.number < $3
               RETURNING issuer_id, shard
           ), fulfilled AS (
               DELETE FROM crl_due WHERE id = ANY ($15) AND EXISTS (SELECT FROM stored)
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $16, $19, $17, $20, 'crl:' || issuer_id || '/' || shard, $18 FROM stored RETURNING true""",
        crl.shard.issuer,
        crl.shard.number,
        crl.number,
        crl.this_update,
        crl.next_update,
        crl.entries,
        crl.der,
        crl.delta,
        list(crl.urls),
        crl.base.number,
        crl.base.at,
        crl.base.lists_after,
        crl.base_entries,
        after,
        list(wishes),
        now,
        actor.name,
        to_json(dict(detail)),
        event,
        actor.source,
    )
    return row is not None


# ---------------------------------------------------------------- the size of shards


async def count(database: Database, *, settled: datetime, now: datetime) -> dict[Shard, int]:
    """How many certificates the open shards of issuers in use have taken in.

    Those recorded until `settled` are counted once; the few since then each time. `settled` is so long ago that no
    replica's clock is as far behind. What was counted by a clock that was ahead is counted anew.
    """
    rows = await database.fetch(
        """WITH open AS (
               SELECT c.issuer_id, c.shard FROM issuer i JOIN crl c ON c.issuer_id = i.id AND c.shard = i.open_shard
               WHERE i.kind = 'intermediate' AND i.state = 'active' AND i.not_after > $2 AND (c.counted <= $1 OR c.counted > $3)
           ), counted AS (
               UPDATE crl SET counted = $1, taken = CASE WHEN crl.counted > $3 THEN 0 ELSE taken END + (
                   SELECT count(*) FROM certificate d WHERE d.issuer_id = crl.issuer_id AND d.shard = crl.shard
                      AND d.recorded > CASE WHEN crl.counted > $3 THEN '-infinity' ELSE crl.counted END AND d.recorded <= $1)
               FROM open WHERE crl.issuer_id = open.issuer_id AND crl.shard = open.shard
               RETURNING crl.issuer_id, crl.shard, crl.taken
           )
           SELECT issuer_id, shard, taken + (
               SELECT count(*) FROM certificate d WHERE d.issuer_id = counted.issuer_id AND d.shard = counted.shard
                  AND d.recorded > $1) AS taken
           FROM counted""",
        settled,
        now,
        now + CLOCKS_APART,
    )
    return {Shard(row["issuer_id"], row["shard"]): row["taken"] for row in rows}


async def open_next(database: Database, shard: Shard, *, taken: int, actor: Actor, now: datetime) -> bool:
    """New certificates belong to the next shard. False: they do not belong to this one any more."""
    row = await database.fetchrow_durably(
        """WITH opened AS (
               UPDATE issuer SET open_shard = open_shard + 1 WHERE id = $1 AND open_shard = $2 RETURNING id, open_shard
           ), closed AS (
               UPDATE crl SET closed = $3 WHERE issuer_id = $1 AND shard = $2 AND EXISTS (SELECT FROM opened)
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $3, 'crl.shard-opened', $4, $6, 'crl:' || id || '/' || open_shard, json_build_object('after', $5::bigint)
           FROM opened RETURNING true""",
        shard.issuer,
        shard.number,
        now,
        actor.name,
        taken,
        actor.source,
    )
    return row is not None


async def find_ends(database: Database, *, settled: timedelta, now: datetime) -> int:
    """Note of shards that were closed `settled` ago when their last certificate ends: by then all that were issued for
    them are recorded. Returns of how many.

    By whatever clock they were: looked for from the end that comes last, where those of a closed shard are.
    """
    return await database.execute(
        """UPDATE crl SET ends = coalesce((
               SELECT d.not_after FROM certificate d WHERE d.issuer_id = crl.issuer_id AND d.shard = crl.shard
               ORDER BY d.not_after DESC LIMIT 1), closed)
           WHERE closed <= $2::timestamptz - $1::interval AND ends IS NULL""",
        settled,
        now,
    )


async def forget_wishes(database: Database, now: datetime) -> int:
    """What nobody will fulfil any more: of issuers that expired, and of shards that are finished."""
    return await database.execute(
        f"""DELETE FROM crl_due d USING issuer i
            WHERE i.id = d.issuer_id AND (i.not_after <= $1 OR EXISTS (
                SELECT FROM crl c WHERE c.issuer_id = d.issuer_id AND c.shard = d.shard AND {is_finished("$1")}))""",
        now,
    )


# ---------------------------------------------------------------- how they are


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardState:
    """For operators. `state`: `ok`; `late`, not refreshed in time; `missing`; `over`, its nextUpdate has passed; `finished`,
    all its certificates have expired.
    """

    shard: Shard
    created: datetime
    """The issuer."""
    of_root: bool
    state: str
    number: int | None
    this_update: datetime | None
    next_update: datetime | None
    entries: int | None
    size: int | None
    """Bytes."""
    delta_size: int | None
    taken: int | None
    """Certificates, as of the last count."""
    due: int
    """How many wishes wait."""


async def states(
    database: Database, *, late: timedelta, root_warning: timedelta, now: datetime
) -> list[ShardState]:
    """Of every shard of issuers that live and have their CRL here. `late`: the age at which a CRL should have been made
    anew. `root_warning`: the remaining life at which a root's should.
    """
    rows = await database.fetch(
        f"""SELECT i.id, i.kind, {within("i.created")} AS created, s.shard, c.number, {_TIMES}, c.entries, octet_length(c.der) AS size,
                   octet_length(c.delta) AS delta_size, c.taken,
                   coalesce(w.due, 0) AS due,
                   CASE WHEN c.number IS NULL THEN 'missing' WHEN {is_finished("$1")} THEN 'finished'
                        WHEN c.next_update <= $1 THEN 'over'
                        WHEN i.kind <> 'root' AND c.this_update <= $2 THEN 'late'
                        WHEN i.kind = 'root' AND c.next_update <= $3 AND c.next_update < i.not_after THEN 'late'
                        ELSE 'ok' END AS state
            FROM {_SHARDS}
            LEFT JOIN (SELECT issuer_id, shard, count(*) AS due FROM crl_due GROUP BY issuer_id, shard) w
                ON w.issuer_id = i.id AND w.shard = s.shard
            WHERE i.kind <> 'cross' AND i.not_after > $1 AND {IS_EXPECTED}
            ORDER BY i.created, i.id, s.shard""",
        now,
        now - late,
        now + root_warning,
    )
    return [
        ShardState(
            shard=Shard(row["id"], row["shard"]),
            of_root=row["kind"] == IssuerKind.ROOT,
            **{name: row[name] for name in _STATE},
        )
        for row in rows
    ]


_STATE = (
    "created",
    "state",
    "number",
    "this_update",
    "next_update",
    "entries",
    "size",
    "delta_size",
    "taken",
    "due",
)


# ---------------------------------------------------------------- serving


class Files(NamedTuple):
    """What is served of a shard."""

    number: int
    this_update: datetime
    der: bytes
    delta: bytes | None


async def files(database: Database, shard: Shard) -> Files | None:
    row = await database.fetchrow(
        f"SELECT number, {within('this_update')}, der, delta FROM crl WHERE issuer_id = $1 AND shard = $2",
        shard.issuer,
        shard.number,
    )
    return Files(*row) if row else None


class Numbers(NamedTuple):
    number: int
    base_number: int


async def numbers(database: Database) -> dict[Shard, Numbers]:
    """Of the newest CRL of every shard."""
    rows = await database.fetch("SELECT issuer_id, shard, number, base_number FROM crl")
    return {Shard(row["issuer_id"], row["shard"]): Numbers(row["number"], row["base_number"]) for row in rows}
