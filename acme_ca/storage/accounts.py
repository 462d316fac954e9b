"""Accounts, their EAB keys, and the statement that begins every signed request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

import asyncpg

from acme_ca.core.model import Account, AccountId, Authorization, Certificate, EabKey, EabKeyId, Order
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.states import AccountStatus
from acme_ca.storage import certificates, operations, orders
from acme_ca.storage.database import Database, Row, from_json, to_json

if TYPE_CHECKING:
    from acme_ca.storage.database import Connection

_ACCOUNT = """
    a.id AS account_id, a.status AS account_status, a.jwk, a.thumbprint, a.contact, a.terms_agreed IS NOT NULL AS terms_agreed,
    a.eab_key_id, a.eab_binding"""


class Resource(Enum):
    """What a URL with an id names; its rows are read together with the account that must own them."""

    ORDER = f"{orders.ORDER_COLUMNS} FROM signer a LEFT JOIN ({orders.ORDER_SOURCE}) o ON o.id = $5 AND o.account_id = a.id"
    AUTHORIZATION = (
        f"{orders.AUTHORIZATION_COLUMNS} FROM signer a LEFT JOIN authz z ON z.id = $5 AND z.account_id = a.id"
    )
    CERTIFICATE = f"{certificates.COLUMNS} FROM signer a LEFT JOIN certificate c ON c.serial = $5 AND c.account_id = a.id"


OwnedResource = Order | Authorization | Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class SpentNonce:
    """The numbers of a nonce that was found authentic, to be spent: see `acme.nonces`."""

    value: int
    expires: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """What the database knows about a signed request."""

    nonce_was_fresh: bool
    epoch: int | None
    """The epoch of the nonce table now."""
    account: Account | None
    resource: OwnedResource | None = None


# ---------------------------------------------------------------- the statement of every signed request

_SPEND = """
WITH spent AS (
    INSERT INTO nonce (value, expires) SELECT $1, $2 FROM nonce_epoch WHERE epoch = $3
    ON CONFLICT DO NOTHING RETURNING true AS fresh
), signer AS (
    SELECT a.*, spent.fresh, nonce_epoch.epoch FROM (VALUES (1)) AS always
    LEFT JOIN spent ON true LEFT JOIN nonce_epoch ON true LEFT JOIN account a ON a.{key} = $4
)
SELECT a.fresh, a.epoch, {account}"""

_BY_ID = _SPEND.format(key="id", account=_ACCOUNT)
_BY_KEY = _SPEND.format(key="thumbprint", account=_ACCOUNT) + " FROM signer a"
_WITHOUT_RESOURCE = _BY_ID + " FROM signer a"
_WITH_RESOURCE = {resource: f"{_BY_ID}, {resource.value}" for resource in Resource}


async def spend_nonce(
    database: Database,
    nonce: SpentNonce,
    account: AccountId,
    *,
    resource: Resource | None,
    resource_id: str,
    now: datetime,
) -> Signer:
    """Spend a nonce and read the account that claims to sign, with the thing it asks for if that is its own:
    one round trip. The nonce is spent whatever becomes of the request (RFC 8555 §6.5).
    """
    if resource is None:
        row = await database.fetchrow(_WITHOUT_RESOURCE, nonce.value, nonce.expires, nonce.epoch, account)
    else:
        query = _WITH_RESOURCE[resource]
        row = await database.fetchrow(query, nonce.value, nonce.expires, nonce.epoch, account, resource_id)
    return _signer(row, resource, now)


async def spend_nonce_by_key(database: Database, nonce: SpentNonce, thumbprint: str) -> Signer:
    """The same for a request that carries its key: the account is the one with that key, if any."""
    row = await database.fetchrow(_BY_KEY, nonce.value, nonce.expires, nonce.epoch, thumbprint)
    return _signer(row, None, None)


def _signer(row: Row | None, resource: Resource | None, now: datetime | None) -> Signer:
    assert row is not None, "a LEFT JOIN on a constant row gives a row"  # noqa: S101
    return Signer(
        nonce_was_fresh=row["fresh"] is True,
        epoch=row["epoch"],
        account=_account(row) if row["account_id"] is not None else None,
        resource=_resource(row, resource, now) if resource is not None and now is not None else None,
    )


def _resource(row: Row, resource: Resource, now: datetime) -> OwnedResource | None:
    if resource is Resource.ORDER:
        return orders.order_of(row, now) if row["order_id"] is not None else None
    if resource is Resource.AUTHORIZATION:
        return orders.authorization_of(row, now) if row["authz_id"] is not None else None
    return certificates.certificate_of(row) if row["serial"] is not None else None


def _account(row: Row) -> Account:
    return Account(
        id=row["account_id"],
        status=AccountStatus(row["account_status"]),
        jwk=row["jwk"],
        thumbprint=row["thumbprint"],
        contact=tuple(row["contact"]),
        terms_agreed=row["terms_agreed"],
        eab_key_id=row["eab_key_id"],
        eab_binding=from_json(row["eab_binding"]),
    )


# ---------------------------------------------------------------- acts on accounts


async def create(
    database: Database, account: Account, *, spki_sha256: bytes, now: datetime, client: str
) -> tuple[Account, bool]:
    """Create the account and use up its EAB key, or find the one that has its key already.

    Returns the account and whether it is new. Raises Problem when the EAB key cannot be used (any more).
    """
    async with database.transaction() as connection:
        created = await connection.fetchval(
            """INSERT INTO account (id, status, jwk, thumbprint, spki_sha256, contact, terms_agreed, eab_key_id, eab_binding,
                                    created, created_from)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING RETURNING id""",
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
                f"SELECT {_ACCOUNT} FROM account a WHERE thumbprint = $1", account.thumbprint
            )
            assert row is not None, "accounts are never deleted"  # noqa: S101
            return _account(row), False
        if account.eab_key_id is not None:
            await _use_up(connection, account.eab_key_id)
        await operations.record_event(
            connection,
            at=now,
            event="account.created",
            actor=f"account:{account.id}",
            object_=f"account:{account.id}",
            detail={"contact": list(account.contact), "eab_key": account.eab_key_id, "from": client},
        )
    return account, True


async def _use_up(connection: Connection, key: EabKeyId) -> None:
    used = await connection.fetchval(
        """UPDATE eab_key SET accounts = accounts + 1
           WHERE id = $1 AND revoked IS NULL AND (max_accounts IS NULL OR accounts < max_accounts) RETURNING true""",
        key,
    )
    if not used:
        raise Problem(
            ErrorType.UNAUTHORIZED,
            "This external account key is revoked or has been used for as many accounts as it may: ask the CA's operator for another.",
        )


async def update(
    database: Database,
    account: AccountId,
    *,
    contact: tuple[str, ...] | None,
    status: AccountStatus | None,
    now: datetime,
) -> Account | None:
    """Change contacts, or end the account. None when it is no longer valid: a deactivated one stays as it is."""
    row = await database.fetchrow_durably(
        f"""WITH a AS (
                UPDATE account SET contact = coalesce($2, contact), status = coalesce($3, status)
                WHERE id = $1 AND status = 'valid' RETURNING *
            ), event AS (
                INSERT INTO audit_event (at, event, actor, object, detail)
                SELECT $4, 'account.' || coalesce($3, 'updated'), 'account:' || id, 'account:' || id,
                       json_build_object('contact', contact) FROM a
            )
            SELECT {_ACCOUNT} FROM a""",
        account,
        contact,
        status,
        now,
    )
    return _account(row) if row else None


async def change_key(
    database: Database, account: Account, *, jwk: str, thumbprint: str, spki_sha256: bytes, now: datetime
) -> AccountId | None:
    """Replace the account's key (RFC 8555 §7.3.5). Returns the id of the account that has the new key already, or None.

    Raises Problem when the key was changed or the account ended in the meantime.
    """
    try:
        row = await database.fetchrow_durably(
            """WITH changed AS (
                   UPDATE account SET jwk = $3, thumbprint = $4, spki_sha256 = $5
                   WHERE id = $1 AND thumbprint = $2 AND status = 'valid' RETURNING id
               )
               INSERT INTO audit_event (at, event, actor, object, detail)
               SELECT $6, 'account.key-changed', 'account:' || id, 'account:' || id,
                      json_build_object('before', $2::text, 'after', $4::text) FROM changed RETURNING true""",
            account.id,
            account.thumbprint,
            jwk,
            thumbprint,
            spki_sha256,
            now,
        )
    except asyncpg.UniqueViolationError:
        holder: AccountId | None = await database.fetchval(
            "SELECT id FROM account WHERE thumbprint = $1", thumbprint
        )
        return holder
    if row is None:
        raise Problem(
            ErrorType.UNAUTHORIZED, "The account's key was changed meanwhile, or the account has ended."
        )
    return None


# ---------------------------------------------------------------- EAB keys

_EAB_KEY = "id, hmac_key, owner, max_accounts, accounts, created, revoked"


async def create_eab_key(database: Database, key: EabKey) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            f"INSERT INTO eab_key ({_EAB_KEY}) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            *(getattr(key, column.strip()) for column in _EAB_KEY.split(",")),
        )
        await operations.record_event(
            connection,
            at=key.created,
            event="eab-key.created",
            actor="operator",
            object_=f"eab_key:{key.id}",
            detail={"owner": key.owner, "max_accounts": key.max_accounts},
        )


async def eab_keys(database: Database) -> list[EabKey]:
    rows = await database.fetch(f"SELECT {_EAB_KEY} FROM eab_key ORDER BY created, id")
    return [_eab_key(row) for row in rows]


async def eab_key(database: Database, key: str) -> EabKey | None:
    row = await database.fetchrow(f"SELECT {_EAB_KEY} FROM eab_key WHERE id = $1", key)
    return _eab_key(row) if row else None


async def revoke_eab_key(database: Database, key: str, *, now: datetime) -> bool:
    """False: there is no such key, or it was revoked before."""
    row = await database.fetchrow_durably(
        """WITH gone AS (UPDATE eab_key SET revoked = $2 WHERE id = $1 AND revoked IS NULL RETURNING id)
           INSERT INTO audit_event (at, event, actor, object)
           SELECT $2, 'eab-key.revoked', 'operator', 'eab_key:' || id FROM gone RETURNING true""",
        key,
        now,
    )
    return row is not None


def _eab_key(row: Row) -> EabKey:
    fields: dict[str, Any] = dict(row)
    return EabKey(**fields)
