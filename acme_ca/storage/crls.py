"""CRLs: which are due, what they list, the newest of each shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from cryptography import x509

from acme_ca.core.crl import Base, Entry, Newest
from acme_ca.core.model import IssuerId, IssuerKind, Serial, serial_text
from acme_ca.storage.database import Database, Row, to_json


class Shard(NamedTuple):
    issuer: IssuerId
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DueCrl:
    """A CRL that has to be made anew. `wishes`: the entries of the queue that ask for it."""

    shard: Shard
    of_cas: bool
    """A root's: it lists CA certificates."""
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

_NEWEST = (
    """c.number, c.this_update, c.next_update, c.entries, c.urls, c.base_number, c.base_at, c.lists_after"""
)

_SHARDS = """issuer i CROSS JOIN LATERAL generate_series(0, i.open_shard) AS s (shard)
    LEFT JOIN crl c ON c.issuer_id = i.id AND c.shard = s.shard"""


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
    database: Database, *, refresh: timedelta, root_refresh: timedelta, now: datetime
) -> list[DueCrl]:
    """CRLs that were never made, that something in the queue asks for, or whose time has come: those for the queue first.

    Issuers sign CRLs until they expire, retired ones as well.
    """
    rows = await database.fetch(
        f"""SELECT i.id, i.kind, i.not_after, i.key_uri, s.shard, {_NEWEST}, w.ids
            FROM {_SHARDS}
            LEFT JOIN LATERAL (SELECT array_agg(d.id) AS ids FROM crl_due d WHERE d.issuer_id = i.id AND d.shard = s.shard) w ON true
            WHERE i.kind <> 'cross' AND i.not_after > $1
              AND (w.ids IS NOT NULL OR c.number IS NULL OR c.this_update <= CASE WHEN i.kind = 'root' THEN $3 ELSE $2::timestamptz END)
            ORDER BY w.ids IS NULL, c.this_update NULLS FIRST""",
        now,
        now - refresh,
        now - root_refresh,
    )
    return [
        DueCrl(
            shard=Shard(row["id"], row["shard"]),
            of_cas=row["kind"] == IssuerKind.ROOT,
            issuer_ends=row["not_after"],
            key_uri=row["key_uri"],
            newest=None if row["number"] is None else _newest_of(row),
            wishes=tuple(row["ids"] or ()),
        )
        for row in rows
    ]


def _newest_of(row: Row) -> Newest:
    return Newest(
        number=row["number"],
        this_update=row["this_update"],
        next_update=row["next_update"],
        entries=row["entries"],
        urls=tuple(row["urls"]),
        base=Base(number=row["base_number"], at=row["base_at"], lists_after=row["lists_after"]),
    )


# ---------------------------------------------------------------- what is listed


async def listing(database: Database, shard: Shard, *, lists_after: datetime) -> Listing:
    """Of a shard of leaves: those that end after `lists_after`."""
    rows = await database.fetch(
        """SELECT serial, revoked, reason, invalid_since FROM certificate
           WHERE issuer_id = $1 AND shard = $2 AND status_changed IS NOT NULL AND not_after > $3""",
        shard.issuer,
        shard.number,
        lists_after,
    )
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


async def ca_listing(database: Database, issuer: IssuerId, *, lists_after: datetime) -> Listing:
    """Of a root: the CA certificates that it signed."""
    rows = await database.fetch(
        "SELECT der, revoked, reason FROM issuer WHERE parent_id = $1 AND revoked IS NOT NULL AND not_after > $2",
        issuer,
        lists_after,
    )
    entries = [
        Entry(
            serial_text(x509.load_der_x509_certificate(row["der"]).serial_number),
            _second(row["revoked"]),
            row["reason"],
        )
        for row in rows
    ]
    return Listing(entries, [])


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
    actor: str,
    now: datetime,
    detail: Mapping[str, object],
) -> bool:
    """Keep a CRL in the place of number `after` (None: of none), with the audit event; the wishes that it fulfils go in the
    same durable statement. False: another came first, and nothing was changed.
    """
    row = await database.fetchrow_durably(
        """WITH stored AS (
               INSERT INTO crl (issuer_id, shard, number, this_update, next_update, entries, der, delta, urls, base_number,
                                base_at, lists_after, base)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, coalesce($13, ''::bytea))
               ON CONFLICT (issuer_id, shard) DO UPDATE SET number = $3, this_update = $4, next_update = $5, entries = $6,
                   der = $7, delta = $8, urls = $9, base_number = $10, base_at = $11, lists_after = $12,
                   base = CASE WHEN $13::bytea IS NULL THEN crl.base ELSE $13 END
               WHERE crl.number = $14 AND crl.number < $3
               RETURNING issuer_id, shard
           ), fulfilled AS (
               DELETE FROM crl_due WHERE id = ANY ($15) AND EXISTS (SELECT FROM stored)
           )
           INSERT INTO audit_event (at, event, actor, object, detail)
           SELECT $16, $19, $17, 'crl:' || issuer_id || '/' || shard, $18 FROM stored RETURNING true""",
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
        actor,
        to_json(dict(detail)),
        event,
    )
    return row is not None


# ---------------------------------------------------------------- serving


class Files(NamedTuple):
    """What is served of a shard."""

    number: int
    this_update: datetime
    der: bytes
    delta: bytes | None


async def files(database: Database, shard: Shard) -> Files | None:
    row = await database.fetchrow(
        "SELECT number, this_update, der, delta FROM crl WHERE issuer_id = $1 AND shard = $2",
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
