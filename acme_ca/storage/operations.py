"""What keeps the server going: nonce epochs, shared secrets, leases, audit events, retention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from acme_ca.core.actors import Actor
from acme_ca.core.times import CLOCKS_APART
from acme_ca.storage.database import Database, to_json

if TYPE_CHECKING:
    from acme_ca.storage.database import Connection


NONCE_MARGIN = 300
"""Seconds."""


async def record_event(
    connection: Connection, *, at: datetime, event: str, actor: Actor, object_: str, detail: Mapping[str, Any]
) -> None:
    """Write an audit event inside the caller's transaction."""
    await connection.execute(
        "INSERT INTO audit_event (at, event, actor, source, object, detail) VALUES ($1, $2, $3, $4, $5, $6)",
        at,
        event,
        actor.name,
        actor.source,
        object_,
        to_json(dict(detail)),
    )


# ---------------------------------------------------------------- nonces


async def nonce_epoch(database: Database, proposal: int) -> int:
    """The epoch of the nonce table; `proposal` (63 random bits) becomes it when a crash emptied the table."""
    await database.execute("INSERT INTO nonce_epoch (epoch) VALUES ($1) ON CONFLICT DO NOTHING", proposal)
    epoch: int = await database.fetchval("SELECT epoch FROM nonce_epoch")
    return epoch


async def shared_secret(database: Database, name: str, proposal: bytes) -> bytes:
    """The secret that all replicas share under `name`; the first proposal wins."""
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO secret (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING", name, proposal
        )
        value: bytes = await connection.fetchval("SELECT value FROM secret WHERE name = $1", name)
    return value


async def delete_expired_nonces(database: Database, now: datetime) -> int:
    """Keeps them a little longer than they are good: the clocks of replicas differ."""
    return await database.execute("DELETE FROM nonce WHERE expires < $1", int(now.timestamp()) - NONCE_MARGIN)


# ---------------------------------------------------------------- leases


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """`until`: when it would have ended. None: nobody had one."""

    holder: str | None = None
    until: datetime | None = None


async def take_lease(
    database: Database, name: str, holder: str, *, now: datetime, seconds: float
) -> Lease | None:
    """Take or renew the lease: whoever gets it works alone on `name` for so many seconds. None: it is another's.

    What it returns is the lease of another that was taken over since it went on for too long: who took it had a wrong clock,
    and may have died since. `seconds` must be the same for all who take it.
    """
    row = await database.fetchrow(
        """WITH another AS (SELECT holder, expires FROM lease WHERE name = $1 AND holder <> $2 AND expires > $5)
           INSERT INTO lease (name, holder, expires) VALUES ($1, $2, $3)
           ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires = excluded.expires
           WHERE lease.holder = excluded.holder OR lease.expires <= $4 OR lease.expires > $5
           RETURNING (SELECT holder FROM another) AS before, (SELECT expires FROM another) AS until""",
        name,
        holder,
        now + timedelta(seconds=seconds),
        now,
        _latest_end(now, seconds),
    )
    return Lease(holder=row["before"], until=row["until"]) if row else None


async def is_leased(database: Database, name: str, *, now: datetime, seconds: float) -> bool:
    """Whether some process works on `name`. `seconds`: as for `take_lease`."""
    found: bool = await database.fetchval(
        "SELECT EXISTS (SELECT FROM lease WHERE name = $1 AND expires > $2 AND expires <= $3)",
        name,
        now,
        _latest_end(now, seconds),
    )
    return found


def _latest_end(now: datetime, seconds: float) -> datetime:
    """Of a lease that somebody with a good clock has taken."""
    return now + timedelta(seconds=seconds) + CLOCKS_APART


async def release_leases(database: Database, holder: str) -> None:
    await database.execute("DELETE FROM lease WHERE holder = $1", holder)


# ---------------------------------------------------------------- retention (lesson 25)

_BATCH = 5000

# ARRAY makes of every deletion a look-up by key, however many rows are kept.
_DELETE_ORDERS = f"""
    DELETE FROM orders WHERE id = ANY (ARRAY(
        SELECT id FROM orders WHERE expires < $1 AND {{}} ORDER BY expires LIMIT {_BATCH}))"""
_DELETE_AUTHORIZATIONS = f"""
    WITH dead AS (
        SELECT id FROM authz WHERE expires < $1 AND {{}} ORDER BY expires LIMIT {_BATCH}
    ), records AS (
        DELETE FROM validation WHERE authz_id = ANY (ARRAY(SELECT id FROM dead))
    )
    DELETE FROM authz WHERE id = ANY (ARRAY(SELECT id FROM dead))"""
DELETE_DEAD = (
    _DELETE_ORDERS.format("status IN ('pending', 'invalid')"),
    _DELETE_AUTHORIZATIONS.format("validated IS NULL"),
)
DELETE_EVIDENCE = (
    _DELETE_ORDERS.format("status = 'valid'"),
    _DELETE_AUTHORIZATIONS.format("validated IS NOT NULL"),
)


async def delete_dead(database: Database, *, dead_before: datetime, evidence_before: datetime) -> int:
    """Delete a batch of orders, authorizations and validation records.

    What came to nothing goes when it ended before `dead_before`; what a certificate was issued on, when it ended before
    `evidence_before`: valid orders, and authorizations that were validated. Certificates, accounts and audit events
    stay. Returns how many orders and authorizations went; 0: nothing is left to do.
    """
    await _note_deletion(database, evidence_before)
    gone = 0
    for statement in DELETE_DEAD:
        gone += await database.execute(statement, dead_before)
    for statement in DELETE_EVIDENCE:
        gone += await database.execute(statement, evidence_before)
    return gone


async def _note_deletion(database: Database, evidence_before: datetime) -> None:
    """Before anything goes: an auditor must not take for missing what was deleted in order."""
    await database.execute(
        """INSERT INTO evidence (complete_since) VALUES ($1)
           ON CONFLICT (only_row) DO UPDATE SET complete_since = excluded.complete_since
           WHERE evidence.complete_since < excluded.complete_since""",
        evidence_before,
    )
