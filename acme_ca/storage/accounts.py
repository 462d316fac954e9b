"""Accounts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import asyncpg

from acme_ca.core.accounts import Account
from acme_ca.core.actors import Actor
from acme_ca.core.ids import AccountId, EabKeyId
from acme_ca.core.problems import ErrorType, Problem, conflict
from acme_ca.core.states import AccountStatus
from acme_ca.storage import eab, keys, operations
from acme_ca.storage.database import Database, to_json
from acme_ca.storage.keys import Objection
from acme_ca.storage.signers import ACCOUNT_COLUMNS, account_of

if TYPE_CHECKING:
    from acme_ca.storage.database import Connection


async def find(database: Database, account: AccountId) -> Account | None:
    row = await database.fetchrow(f"SELECT {ACCOUNT_COLUMNS} FROM account a WHERE id = $1", account)
    return account_of(row) if row else None


async def asking_for(
    database: Database, service: str, *, now: datetime
) -> tuple[AccountId | None, EabKeyId] | None:
    """Who orders for a service, and by which of its EAB keys: its newest account that may act, else whoever will use its
    newest key that makes accounts, else the newest of its keys. None: it has no key.
    """
    row = await database.fetchrow(
        """SELECT a.id AS account, k.id AS eab_key
           FROM eab_key k LEFT JOIN account a ON a.eab_key_id = k.id AND a.status = 'valid' AND a.frozen IS NULL
           WHERE k.service = $1
           ORDER BY a.id IS NULL, k.revoked IS NOT NULL OR k.approved IS NULL OR coalesce(k.expires <= $2, false)
                    OR coalesce(k.accounts >= k.max_accounts, false), a.created DESC, k.created DESC, k.id LIMIT 1""",
        service,
        now,
    )
    return (row["account"], row["eab_key"]) if row else None


async def create(
    database: Database,
    account: Account,
    *,
    spki_sha256: bytes,
    now: datetime,
    client: str,
    hmac_key: bytes | None = None,
) -> tuple[Account, bool]:
    """Create the account and use up its EAB key, or find the one that has its key already. `hmac_key`: what the binding
    was verified with.

    Returns the account and whether it is new. Raises Problem when the key is refused, or the EAB key cannot be used
    (any more).
    """
    async with database.transaction() as connection:
        created = await connection.fetchval(
            f"""INSERT INTO account (id, status, jwk, thumbprint, spki_sha256, contact, terms_agreed, eab_key_id, eab_binding,
                                     created, created_from)
                SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11 WHERE NOT {keys.REFUSED.format("$5")}
                ON CONFLICT DO NOTHING RETURNING id""",
            account.id,
            account.status,
            account.jwk,
            account.thumbprint,
            spki_sha256,
            account.contact,
            now if account.terms_agreed else None,
            account.eab_key_id,
            to_json(account.eab_binding),
            now,
            client,
        )
        if created is None:
            row = await connection.fetchrow(
                f"SELECT {ACCOUNT_COLUMNS} FROM account a WHERE thumbprint = $1", account.thumbprint
            )
            if row is None:
                raise await _why_not(connection, spki_sha256)
            return account_of(row), False
        if account.eab_key_id is not None:
            await eab.use_up(connection, account.eab_key_id, hmac_key=hmac_key, now=now)
        await operations.record_event(
            connection,
            at=now,
            event="account.created",
            actor=Actor(f"account:{account.id}", client),
            object_=f"account:{account.id}",
            detail={"contact": list(account.contact), "eab_key": account.eab_key_id},
        )
    return account, True


async def _why_not(connection: Connection, spki_sha256: bytes) -> Problem:
    """Why no account was made with this key, which none has."""
    if refusal := await _refusal(connection, spki_sha256):
        return refusal
    # whoever had the key has just changed to another
    return conflict("The key was another account's until now: try again.")


async def _refusal(database: Database | Connection, spki_sha256: bytes) -> Problem | None:
    objection = await keys.objection(database, spki_sha256)
    if objection is None or objection is Objection.ACCOUNT:
        return None
    return Problem(ErrorType.BAD_PUBLIC_KEY, f"The account key is refused: {objection}.")


async def update(
    database: Database,
    account: AccountId,
    *,
    contact: tuple[str, ...] | None,
    status: AccountStatus | None,
    client: str,
    now: datetime,
) -> Account | None:
    """Change contacts, or end the account. None when it is no longer valid: a deactivated one stays as it is."""
    row = await database.fetchrow_durably(
        f"""WITH a AS (
                UPDATE account c SET contact = coalesce($2, c.contact), status = coalesce($3, c.status)
                FROM (SELECT id, status AS status_before, contact AS contact_before FROM account WHERE id = $1 FOR UPDATE) was
                WHERE c.id = was.id AND c.status = 'valid' AND c.frozen IS NULL RETURNING c.*, status_before, contact_before
            ), event AS (
                INSERT INTO audit_event (at, event, actor, source, object, detail)
                SELECT $4, 'account.' || coalesce($3, 'updated'), 'account:' || id, $5, 'account:' || id, json_build_object(
                       'before', json_build_object('status', status_before, 'contact', contact_before),
                       'after', json_build_object('status', status, 'contact', contact)) FROM a
            )
            SELECT {ACCOUNT_COLUMNS} FROM a""",
        account,
        contact,
        status,
        now,
        client,
    )
    return account_of(row) if row else None


async def change_key(
    database: Database,
    account: Account,
    *,
    jwk: str,
    thumbprint: str,
    spki_sha256: bytes,
    client: str,
    now: datetime,
) -> AccountId | None:
    """Replace the account's key (RFC 8555 §7.3.5). Returns the id of the account that has the new key already, or None.

    Raises Problem when the new key is refused, or the key was changed or the account ended in the meantime.
    """
    try:
        row = await database.fetchrow_durably(
            f"""WITH changed AS (
                   UPDATE account SET jwk = $3, thumbprint = $4, spki_sha256 = $5
                   WHERE id = $1 AND thumbprint = $2 AND status = 'valid' AND frozen IS NULL AND NOT {keys.REFUSED.format("$5")} RETURNING id
               )
               INSERT INTO audit_event (at, event, actor, source, object, detail)
               SELECT $6, 'account.key-changed', 'account:' || id, $7, 'account:' || id,
                      json_build_object('before', $2::text, 'after', $4::text) FROM changed RETURNING true""",
            account.id,
            account.thumbprint,
            jwk,
            thumbprint,
            spki_sha256,
            now,
            client,
        )
    except asyncpg.UniqueViolationError:
        holder: AccountId | None = await database.fetchval(
            "SELECT id FROM account WHERE thumbprint = $1", thumbprint
        )
        if holder is not None:
            return holder
        row = None  # whoever had the key has just changed to another
    if row is None:
        raise await _refusal(database, spki_sha256) or Problem(
            ErrorType.UNAUTHORIZED,
            "The account's key was changed meanwhile, or the account has ended or is frozen.",
        )
    return None


# ---------------------------------------------------------------- operators


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRecord:
    """An account as operators see it. `service`: of its EAB key."""

    id: AccountId
    status: AccountStatus
    frozen: datetime | None
    contact: tuple[str, ...]
    thumbprint: str
    eab_key_id: EabKeyId | None
    service: str | None
    terms_agreed: datetime | None
    created: datetime
    created_from: str


async def record(database: Database, account: AccountId) -> AccountRecord | None:
    row = await database.fetchrow(
        """SELECT a.id, a.status, a.frozen, a.contact, a.thumbprint, a.eab_key_id, k.service, a.terms_agreed, a.created,
                  a.created_from
           FROM account a LEFT JOIN eab_key k ON k.id = a.eab_key_id WHERE a.id = $1""",
        account,
    )
    if row is None:
        return None
    return AccountRecord(**{**row, "status": AccountStatus(row["status"]), "contact": tuple(row["contact"])})


async def freeze(database: Database, account: AccountId, *, reason: str, actor: Actor, now: datetime) -> bool:
    """It can do nothing from now on. False: there is no such living account, or it is frozen already."""
    row = await database.fetchrow_durably(
        """WITH done AS (
               UPDATE account SET frozen = $2 WHERE id = $1 AND status = 'valid' AND frozen IS NULL RETURNING id
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $2, 'account.frozen', $3, $4, 'account:' || id, json_build_object('reason', $5::text)
           FROM done RETURNING true""",
        account,
        now,
        actor.name,
        actor.source,
        reason,
    )
    return row is not None


async def unfreeze(
    database: Database, account: AccountId, *, reason: str, actor: Actor, now: datetime
) -> bool:
    """It may act again. False: there is no such account, it is not frozen, or its EAB key is revoked."""
    row = await database.fetchrow_durably(
        """WITH done AS (
               UPDATE account SET frozen = NULL FROM (SELECT id, frozen AS since FROM account WHERE id = $1 FOR UPDATE) was
               WHERE account.id = was.id AND frozen IS NOT NULL
                 AND NOT EXISTS (SELECT FROM eab_key k WHERE k.id = account.eab_key_id AND k.revoked IS NOT NULL)
               RETURNING account.id, since
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $2, 'account.unfrozen', $3, $4, 'account:' || id, json_build_object('reason', $5::text, 'since', since)
           FROM done RETURNING true""",
        account,
        now,
        actor.name,
        actor.source,
        reason,
    )
    return row is not None


async def deactivate(
    database: Database, account: AccountId, *, reason: str, actor: Actor, now: datetime
) -> bool:
    """End it for good, as its holder could (RFC 8555 §7.3.6). False: there is no such account, or it had ended."""
    row = await database.fetchrow_durably(
        """WITH done AS (
               UPDATE account SET status = 'deactivated' WHERE id = $1 AND status = 'valid' RETURNING id, status, contact
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $2, 'account.deactivated', $3, $4, 'account:' || id, json_build_object(
                  'reason', $5::text, 'before', json_build_object('status', 'valid', 'contact', contact),
                  'after', json_build_object('status', status, 'contact', contact)) FROM done RETURNING true""",
        account,
        now,
        actor.name,
        actor.source,
        reason,
    )
    return row is not None
