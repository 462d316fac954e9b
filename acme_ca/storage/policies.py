"""The name policies that operators keep beside the settings: of the whole server, and of services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from acme_ca.core.actors import Actor
from acme_ca.core.policy import NameRules
from acme_ca.storage.database import Database, from_json


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPolicy:
    """`scope`: `server` or `service:ID`. `body`: of NameRules, unread, since another release may have written it."""

    scope: str
    body: Mapping[str, Any]
    changed: datetime


async def all_policies(database: Database) -> list[StoredPolicy]:
    rows = await database.fetch("SELECT scope, body, changed FROM policy ORDER BY scope")
    return [
        StoredPolicy(scope=row["scope"], body=from_json(row["body"]), changed=row["changed"]) for row in rows
    ]


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
