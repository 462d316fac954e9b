"""Approved scopes (`core.scopes`). Their rows stay: certificates were issued on them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from acme_ca.core.actors import Actor
from acme_ca.core.ids import EabKeyId
from acme_ca.core.names import NameRule
from acme_ca.core.scopes import ApprovedScope
from acme_ca.storage import search
from acme_ca.storage.database import Columns, Database
from acme_ca.storage.search import CREATED, SOON, By, Page, Table, Wanted, holds

_COLUMNS = "id, account_id, eab_key_id, rule, reason, approved_by, created, expires, revoked"


async def create(database: Database, scope: ApprovedScope, *, actor: Actor) -> bool:
    """False: the account or EAB key that it is for is not there, or has ended."""
    row = await database.fetchrow_durably(
        f"""WITH made AS (
               INSERT INTO approved_scope ({_COLUMNS})
               SELECT $1, $2::text, $3::text, $4, $5, $6, $7, $8, NULL
               WHERE EXISTS (SELECT FROM account WHERE id = $2 AND status = 'valid')
                  OR EXISTS (SELECT FROM eab_key WHERE id = $3 AND revoked IS NULL)
               RETURNING *
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT created, 'scope.approved', $6, $9, 'scope:' || id, json_strip_nulls(json_build_object(
               'account', account_id, 'eab_key', eab_key_id, 'rule', rule, 'reason', reason, 'expires', expires))
           FROM made RETURNING true""",
        scope.id,
        scope.account_id,
        scope.eab_key_id,
        str(scope.rule),
        scope.reason,
        scope.approved_by,
        scope.created,
        scope.expires,
        actor.source,
    )
    return row is not None


async def revoke(database: Database, scope: str, *, reason: str, actor: Actor, now: datetime) -> int | None:
    """End it, and the authorizations that it made: orders that are not finalized die with them. Returns how many; None:
    there is no such scope, or it was revoked before.

    Two statements: the second must see what an order made while the first waited for it.
    """
    async with database.transaction() as connection:
        ended = await connection.fetchval(
            "UPDATE approved_scope SET revoked = $2 WHERE id = $1 AND revoked IS NULL RETURNING true",
            scope,
            now,
        )
        if not ended:
            return None
        gone: int = await connection.fetchval(
            """WITH gone AS (
                   UPDATE authz SET status = 'revoked' WHERE scope_id = $1 AND status = 'valid' AND expires > $2 RETURNING id
               ), told AS (
                   INSERT INTO audit_event (at, event, actor, source, object, detail)
                   SELECT $2, 'scope.revoked', $3, $4, 'scope:' || $1,
                          json_build_object('reason', $5::text, 'authorizations', (SELECT count(*) FROM gone))
               )
               SELECT count(*) FROM gone""",
            scope,
            now,
            actor.name,
            actor.source,
            reason,
        )
    return gone


async def find(database: Database, scope: str) -> ApprovedScope | None:
    row = await database.fetchrow(f"SELECT {_COLUMNS} FROM approved_scope WHERE id = $1", scope)
    return _scope_of(row) if row else None


async def living(database: Database, *, now: datetime) -> list[ApprovedScope]:
    rows = await database.fetch(
        f"SELECT {_COLUMNS} FROM approved_scope WHERE revoked IS NULL AND expires > $1", now
    )
    return list(map(_scope_of, rows))


async def changed(database: Database, *, since: datetime, now: datetime) -> list[ApprovedScope]:
    """Those that began, expired or were revoked since then."""
    rows = await database.fetch(
        f"""SELECT {_COLUMNS} FROM approved_scope
            WHERE created >= $1 OR revoked >= $1 OR (expires >= $1 AND expires <= $2)""",
        since,
        now,
    )
    return list(map(_scope_of, rows))


async def has_living(database: Database, eab_key: EabKeyId, *, now: datetime) -> bool:
    found: bool = await database.fetchval(
        "SELECT EXISTS (SELECT FROM approved_scope WHERE eab_key_id = $1 AND revoked IS NULL AND expires > $2)",
        eab_key,
        now,
    )
    return found


ScopeSort = Literal["created", "-created", "expires", "-expires", "approved_by", "-approved_by"]
SCOPES = Table(
    source="""SELECT *, expires AS ends, approved_by COLLATE "C" AS by_approver,
                     CASE WHEN revoked IS NOT NULL THEN 'revoked' WHEN expires <= moment.now THEN 'expired' ELSE 'living' END AS state
              FROM approved_scope, moment""",
    columns=_COLUMNS,
    filters={
        "account": "account_id = {}",
        "eab_key": "eab_key_id = {}",
        "state": "state = {}",
        "rules": "rule = ANY ({}::text[])",
        "approved_by": "approved_by = {}",
        "text": holds("rule", "reason"),
        "expiring_within": f"revoked IS NULL AND {SOON}",
        **CREATED,
    },
    sorts={
        "created": By("created", datetime),
        "expires": By("ends", datetime),
        "approved_by": By("by_approver"),
    },
)


async def page(database: Database, wanted: Wanted, *, now: datetime) -> Page[ApprovedScope]:
    return await search.page(database, SCOPES, wanted, now=now, read=_scope_of)


def _scope_of(row: Columns) -> ApprovedScope:
    try:
        rule = NameRule.parse(row["rule"])
    except ValueError:
        rule = None
    return ApprovedScope(**{**row, "rule": rule})
