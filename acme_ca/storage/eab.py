"""Keys for external account binding (RFC 8555 §7.3.4)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from acme_ca.core.actors import Actor
from acme_ca.core.codes import Code
from acme_ca.core.eab import EabKey, Restrictions
from acme_ca.core.ids import AccountId, EabKeyId
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.storage import search
from acme_ca.storage.database import Columns, Database, from_json, to_json
from acme_ca.storage.operations import record_event
from acme_ca.storage.search import CREATED, NEVER, SOON, By, Page, Table, Wanted, holds

if TYPE_CHECKING:
    from acme_ca.storage.database import Connection

_COLUMNS = """id, hmac_key, owner, service, contact, max_accounts, accounts, restrictions, created, approved, expires, revoked"""


async def create(database: Database, key: EabKey, *, actor: Actor) -> None:
    async with database.transaction() as connection:
        await add(connection, key, actor=actor)


async def add(connection: Connection, key: EabKey, *, actor: Actor) -> None:
    """`create`, inside the caller's transaction."""
    await connection.fetchrow(
        f"""WITH made AS (
               INSERT INTO eab_key ({_COLUMNS}, changed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $9)
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           VALUES ($9, 'eab-key.created', $13, $14, 'eab_key:' || $1, json_build_object(
               'owner', $3::text, 'service', $4::text, 'contact', $5::text[], 'max_accounts', $6::integer,
               'restrictions', $8::jsonb, 'approved', $10::timestamptz IS NOT NULL, 'expires', $11::timestamptz))
           RETURNING true""",
        key.id,
        key.hmac_key,
        key.owner,
        key.service,
        key.contact,
        key.max_accounts,
        key.accounts,
        _text_of(key.restrictions),
        key.created,
        key.approved,
        key.expires,
        key.revoked,
        actor.name,
        actor.source,
    )


async def find(database: Database, key: str) -> EabKey | None:
    row = await database.fetchrow(f"SELECT {_COLUMNS} FROM eab_key WHERE id = $1", key)
    return _key_of(row) if row else None


EabKeySort = Literal["created", "-created", "expires", "-expires", "owner", "-owner", "accounts", "-accounts"]
KEYS = Table(
    source=f"""
        SELECT *, coalesce(expires, {NEVER}) AS ends, owner COLLATE "C" AS by_owner, accounts::bigint AS made,
               CASE WHEN revoked IS NOT NULL THEN 'revoked' WHEN approved IS NULL THEN 'pending'
                    WHEN expires <= moment.now THEN 'expired' WHEN accounts >= max_accounts THEN 'used_up' ELSE 'active' END AS state
        FROM eab_key, moment""",
    columns=_COLUMNS,
    filters={
        "owner": "owner = {}",
        "service": "service = {}",
        "services": "service = ANY ({}::text[])",
        "contact": "{} = ANY (contact)",
        "state": "state = {}",
        "text": holds("id", "owner", "service", "array_to_string(contact, E'\\n')"),
        "expiring_within": f"approved IS NOT NULL AND revoked IS NULL AND {SOON}",
        **CREATED,
    },
    sorts={
        "created": By("created", datetime),
        "expires": By("ends", datetime),
        "owner": By("by_owner"),
        "accounts": By("made", int),
    },
)


async def page(database: Database, wanted: Wanted, *, now: datetime) -> Page[EabKey]:
    return await search.page(database, KEYS, wanted, now=now, read=_key_of)


async def change(
    database: Database, before: EabKey, after: EabKey, *, actor: Actor, now: datetime
) -> EabKey | None:
    """Replace what an operator may change: owner, contact, number of accounts, restrictions, end. What is the same in
    both stays as it is by now: somebody else may have changed that meanwhile. None: it was revoked meanwhile, or has made
    more accounts than it should be allowed.
    """
    told = {
        "before": _changeable(before),
        "after": {
            name: value for name, value in _changeable(after).items() if _changeable(before)[name] != value
        },
    }
    row = await database.fetchrow_durably(
        f"""WITH changed AS (
               UPDATE eab_key SET changed = $7,
                   owner = CASE WHEN 'owner' = ANY ($11::text[]) THEN $2 ELSE owner END,
                   contact = CASE WHEN 'contact' = ANY ($11) THEN $3 ELSE contact END,
                   max_accounts = CASE WHEN 'max_accounts' = ANY ($11) THEN $4 ELSE max_accounts END,
                   restrictions = CASE WHEN 'restrictions' = ANY ($11) THEN $5 ELSE restrictions END,
                   expires = CASE WHEN 'expires' = ANY ($11) THEN $6 ELSE expires END
               WHERE id = $1 AND revoked IS NULL AND ($4::integer IS NULL OR accounts <= $4) RETURNING *
           ), told AS (
               INSERT INTO audit_event (at, event, actor, source, object, detail)
               SELECT $7, 'eab-key.changed', $8, $9, 'eab_key:' || id, $10 FROM changed
           )
           SELECT {_COLUMNS} FROM changed""",
        before.id,
        after.owner,
        after.contact,
        after.max_accounts,
        _text_of(after.restrictions),
        after.expires,
        now,
        actor.name,
        actor.source,
        to_json(told),
        list(told["after"]),
    )
    return _key_of(row) if row else None


def _changeable(key: EabKey) -> dict[str, Any]:
    return {
        "owner": key.owner,
        "contact": list(key.contact),
        "max_accounts": key.max_accounts,
        "restrictions": from_json(_text_of(key.restrictions)),
        "expires": key.expires.isoformat() if key.expires else None,
    }


async def approve(database: Database, key: str, *, actor: Actor, now: datetime) -> EabKey | None:
    """It may make accounts from now on. None: there is no such key, or it does not wait."""
    row = await database.fetchrow_durably(
        f"""WITH approved AS (
               UPDATE eab_key SET approved = $2, changed = $2 WHERE id = $1 AND approved IS NULL AND revoked IS NULL RETURNING *
           ), told AS (
               INSERT INTO audit_event (at, event, actor, source, object)
               SELECT $2, 'eab-key.approved', $3, $4, 'eab_key:' || id FROM approved
           )
           SELECT {_COLUMNS} FROM approved""",
        key,
        now,
        actor.name,
        actor.source,
    )
    return _key_of(row) if row else None


async def rotate(
    database: Database, key: str, hmac_key: bytes, *, actor: Actor, now: datetime
) -> EabKey | None:
    """Another secret under the same id: the old one makes no account any more. None: there is no such key, or it is revoked."""
    row = await database.fetchrow_durably(
        f"""WITH rotated AS (
               UPDATE eab_key SET hmac_key = $2, changed = $3 WHERE id = $1 AND revoked IS NULL RETURNING *
           ), told AS (
               INSERT INTO audit_event (at, event, actor, source, object)
               SELECT $3, 'eab-key.rotated', $4, $5, 'eab_key:' || id FROM rotated
           )
           SELECT {_COLUMNS} FROM rotated""",
        key,
        hmac_key,
        now,
        actor.name,
        actor.source,
    )
    return _key_of(row) if row else None


def _key_of(row: Columns) -> EabKey:
    fields: dict[str, Any] = dict(row)
    return EabKey(
        **{
            **fields,
            "contact": tuple(row["contact"]),
            "restrictions": _restrictions_of(row),
        }
    )


def _restrictions_of(row: Columns) -> Restrictions | None:
    try:
        return Restrictions.model_validate(from_json(row["restrictions"]))
    except ValidationError:
        return None


def _text_of(restrictions: Restrictions | None) -> str | None:
    return None if restrictions is None else restrictions.model_dump_json(exclude_defaults=True)


async def use_up(connection: Connection, key: EabKeyId, *, hmac_key: bytes | None, now: datetime) -> None:
    """Count one more account of the key, inside the transaction that makes it. Raises Problem when the key may make none
    (any more), or has another secret by now.
    """
    used = await connection.fetchval(
        """UPDATE eab_key SET accounts = accounts + 1
           WHERE id = $1 AND hmac_key = $2 AND approved IS NOT NULL AND revoked IS NULL
             AND (expires IS NULL OR expires > $3) AND (max_accounts IS NULL OR accounts < max_accounts)
           RETURNING true""",
        key,
        hmac_key,
        now,
    )
    if not used:
        raise Problem(
            ErrorType.UNAUTHORIZED,
            "This external account key is revoked, expired or not approved yet, or has been used for as many accounts as it "
            "may: ask the CA's operator for another.",
            code=Code.EAB_KEY_UNUSABLE,
        )


# ---------------------------------------------------------------- the end of a key


async def revoke(
    database: Database, key: str, *, reason: str, actor: Actor, now: datetime
) -> tuple[AccountId, ...] | None:
    """End the key and freeze its accounts: those that were frozen now. None: there is no such key, or it was revoked
    before.

    The key ends by a statement of its own: whoever used it up while that waited has made an account that is to be frozen.
    """
    async with database.transaction() as connection:
        ended = await connection.fetchval(
            "UPDATE eab_key SET revoked = $2, changed = $2 WHERE id = $1 AND revoked IS NULL RETURNING true",
            key,
            now,
        )
        if not ended:
            return None
        frozen = await freeze_accounts(connection, [key], actor=actor, now=now)
        await record_event(
            connection,
            at=now,
            event="eab-key.revoked",
            actor=actor,
            object_=f"eab_key:{key}",
            detail={"reason": reason, "accounts": len(frozen)},
        )
    return frozen


async def freeze_accounts(
    connection: Connection, keys: Sequence[str], *, actor: Actor, now: datetime
) -> tuple[AccountId, ...]:
    """Those of revoked keys that are not frozen yet."""
    rows = await connection.fetch(
        """WITH frozen AS (
               UPDATE account SET frozen = $2 WHERE eab_key_id = ANY ($1) AND frozen IS NULL AND status = 'valid'
               RETURNING id, eab_key_id
           ), told AS (
               INSERT INTO audit_event (at, event, actor, source, object, detail)
               SELECT $2, 'account.frozen', $3, $4, 'account:' || id,
                      json_build_object('reason', 'its EAB key is revoked', 'eab_key', eab_key_id) FROM frozen
           )
           SELECT id FROM frozen ORDER BY id""",
        keys,
        now,
        actor.name,
        actor.source,
    )
    return tuple(row["id"] for row in rows)


# ---------------------------------------------------------------- what holds for a key's accounts


async def restrictions(
    database: Database, keys: Collection[str]
) -> Mapping[EabKeyId, tuple[str | None, Mapping[str, Any]]]:
    """Of those keys that exist: their service and restrictions, unread, since another release may have written them."""
    rows = await database.fetch(
        "SELECT id, service, restrictions FROM eab_key WHERE id = ANY ($1)", list(keys)
    )
    return {row["id"]: (row["service"], from_json(row["restrictions"])) for row in rows}


async def changed_since(database: Database, since: datetime) -> list[EabKeyId]:
    rows = await database.fetch("SELECT id FROM eab_key WHERE changed >= $1", since)
    return [row["id"] for row in rows]
