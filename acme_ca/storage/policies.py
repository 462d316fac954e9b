"""The name policies that operators keep beside the settings: of the whole server, and of services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from acme_ca.core.actors import Actor
from acme_ca.core.policy import NameRules
from acme_ca.storage import search
from acme_ca.storage.database import Columns, Database, from_json
from acme_ca.storage.search import By, Page, Table, Wanted, holds


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPolicy:
    """`scope`: `server` or `service:ID`. `body`: of NameRules, unread, since another release may have written it."""

    scope: str
    body: Mapping[str, Any]
    changed: datetime


async def bodies(database: Database) -> dict[str, str]:
    """By scope, of all there are: JSON, unread."""
    return {row["scope"]: row["body"] for row in await database.fetch("SELECT scope, body FROM policy")}


async def find(database: Database, scope: str) -> StoredPolicy | None:
    row = await database.fetchrow("SELECT scope, body, changed FROM policy WHERE scope = $1", scope)
    return _policy(row) if row else None


PolicySort = Literal["scope", "-scope", "changed", "-changed"]
POLICIES = Table(
    source="SELECT *, scope AS id FROM policy",
    columns="scope, body, changed",
    filters={
        "rule": "(body -> 'allow' ? {0} OR body -> 'deny' ? {0})",
        "text": holds("scope", lists=("allow", "deny")),
        "changed_since": "changed >= {}",
        "changed_before": "changed < {}",
    },
    sorts={"scope": By(), "changed": By("changed", datetime)},
)


async def page(database: Database, wanted: Wanted, *, now: datetime) -> Page[StoredPolicy]:
    return await search.page(database, POLICIES, wanted, now=now, read=_policy)


def _policy(row: Columns) -> StoredPolicy:
    return StoredPolicy(scope=row["scope"], body=from_json(row["body"]), changed=row["changed"])


async def put(database: Database, scope: str, rules: NameRules, *, actor: Actor, now: datetime) -> None:
    """Replace the rules of a scope, or make its first."""
    await database.fetchrow_durably(
        """WITH before AS (
               SELECT body FROM policy WHERE scope = $1
           ), saved AS (
               INSERT INTO policy (scope, body, changed) VALUES ($1, $2, $3)
               ON CONFLICT (scope) DO UPDATE SET body = excluded.body, changed = excluded.changed RETURNING scope, body
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $3, 'policy.changed', $4, $5, 'policy:' || scope,
                  json_build_object('before', (SELECT body FROM before), 'after', body) FROM saved RETURNING true""",
        scope,
        rules.model_dump_json(),
        now,
        actor.name,
        actor.source,
    )


async def delete(database: Database, scope: str, *, actor: Actor, now: datetime) -> bool:
    """False: the scope has no rules."""
    row = await database.fetchrow_durably(
        """WITH gone AS (DELETE FROM policy WHERE scope = $1 RETURNING scope, body)
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $2, 'policy.changed', $3, $4, 'policy:' || scope, json_build_object('before', body, 'after', NULL)
           FROM gone RETURNING true""",
        scope,
        now,
        actor.name,
        actor.source,
    )
    return row is not None
