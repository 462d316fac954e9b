"""What the database knows of public keys: the operator's block list, those revoked as compromised, those of accounts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from acme_ca.core.actors import Actor
from acme_ca.core.ids import AccountId
from acme_ca.storage import search
from acme_ca.storage.database import Database
from acme_ca.storage.search import CREATED, By, Page, Table, Wanted, holds

if TYPE_CHECKING:
    from acme_ca.storage.database import Connection


class Objection(StrEnum):
    """Why a key is refused: the end of a sentence."""

    BLOCKED = "it is on this CA's block list; make a fresh key"
    COMPROMISED = "a certificate with it was revoked because the key is compromised; make a fresh key"
    ACCOUNT = "it is the key of an ACME account; make the certificate a key of its own (RFC 8555 §11.1)"


REFUSED = """(EXISTS (SELECT FROM blocked_key WHERE spki_sha256 = {0})
              OR EXISTS (SELECT FROM certificate WHERE spki_sha256 = {0} AND reason = 1))"""
"""Whether the key may be nobody's, as a condition for statements that give it to somebody."""


async def objection(database: Database | Connection, spki_sha256: bytes) -> Objection | None:
    """What there is against the key, to be said to who was refused it."""
    found = await database.fetchrow(
        """SELECT EXISTS (SELECT FROM blocked_key WHERE spki_sha256 = $1) AS blocked,
                  EXISTS (SELECT FROM certificate WHERE spki_sha256 = $1 AND reason = 1) AS compromised,
                  EXISTS (SELECT FROM account WHERE spki_sha256 = $1) AS account""",
        spki_sha256,
    )
    assert found is not None, "a SELECT without FROM gives a row"  # noqa: S101
    return next((Objection[name.upper()] for name, holds in found.items() if holds), None)


# ---------------------------------------------------------------- the block list


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockedKey:
    """`living`: how many certificates with it are neither expired nor revoked for good."""

    spki_sha256: bytes
    comment: str
    actor: str
    created: datetime
    living: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocking:
    """What `block` did: the keys that were not on the list before, and the accounts that it ended."""

    keys: tuple[bytes, ...]
    accounts: tuple[AccountId, ...]


async def block(
    database: Database, spki_sha256s: Sequence[bytes], *, comment: str, actor: Actor, now: datetime
) -> Blocking:
    """Put keys on the list, and end the accounts that have them: one durable statement, an audit event for each."""
    row = await database.fetchrow_durably(
        """WITH added AS (
               INSERT INTO blocked_key (spki_sha256, comment, actor, created)
               SELECT DISTINCT key, $2, $3, $4::timestamptz FROM unnest($1::bytea[]) AS wanted (key)
               ON CONFLICT DO NOTHING RETURNING spki_sha256
           ), ended AS (
               UPDATE account SET status = 'revoked' WHERE spki_sha256 = ANY ($1) AND status = 'valid' RETURNING id
           ), told AS (
               INSERT INTO audit_event (at, event, actor, source, object, detail)
               SELECT $4, 'key.blocked', $3, $5, 'key:' || encode(spki_sha256, 'hex'), json_build_object('comment', $2) FROM added
               UNION ALL
               SELECT $4, 'account.revoked', $3, $5, 'account:' || id, json_build_object('why', 'its key is blocked') FROM ended
           )
           SELECT array(SELECT spki_sha256 FROM added) AS keys, array(SELECT id FROM ended) AS accounts""",
        spki_sha256s,
        comment,
        actor.name,
        now,
        actor.source,
    )
    assert row is not None, "a SELECT without FROM gives a row"  # noqa: S101
    return Blocking(keys=tuple(row["keys"]), accounts=tuple(row["accounts"]))


async def unblock(database: Database, spki_sha256: bytes, *, actor: Actor, now: datetime) -> bool:
    """Take a key off the list; accounts that ended stay so. False: it was not there."""
    row = await database.fetchrow_durably(
        """WITH gone AS (DELETE FROM blocked_key WHERE spki_sha256 = $1 RETURNING spki_sha256, comment)
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $3, 'key.unblocked', $2, $4, 'key:' || encode(spki_sha256, 'hex'), json_build_object('comment', comment)
           FROM gone RETURNING true""",
        spki_sha256,
        actor.name,
        now,
        actor.source,
    )
    return row is not None


BlockedKeySort = Literal["created", "-created", "actor", "-actor"]
BLOCKED = Table(
    source="""SELECT *, encode(spki_sha256, 'hex') COLLATE "C" AS id, actor COLLATE "C" AS by_actor FROM blocked_key, moment""",
    columns="""c.spki_sha256, c.comment, c.actor, c.created,
        (SELECT count(*) FROM certificate f WHERE f.spki_sha256 = c.spki_sha256 AND f.not_after > c.now
         AND (f.revoked IS NULL OR f.reason = 6)) AS living""",
    filters={"key": "spki_sha256 = {}", "actor": "actor = {}", "text": holds("comment"), **CREATED},
    sorts={"created": By("created", datetime), "actor": By("by_actor")},
)


async def blocked(database: Database, wanted: Wanted, *, now: datetime) -> Page[BlockedKey]:
    return await search.page(database, BLOCKED, wanted, now=now, read=lambda row: BlockedKey(**row))
