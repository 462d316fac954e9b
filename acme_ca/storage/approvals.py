"""Dangerous acts that wait for a second person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from acme_ca.core.actors import MACHINE, Actor
from acme_ca.storage import search
from acme_ca.storage.database import Columns, Database, from_json, to_json
from acme_ca.storage.search import CREATED, By, Page, Table, Wanted

Decision = Literal["approved", "rejected"]

_COLUMNS = (
    "id, action, request, reason, requested_by, created, expires, decided, decided_by, decision, outcome"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """`request`: path parameters and body of the act. `outcome`: status and body that it answered."""

    id: str
    action: str
    request: dict[str, Any]
    reason: str | None = None
    requested_by: str
    created: datetime
    expires: datetime
    decided: datetime | None = None
    decided_by: str | None = None
    decision: Decision | None = None
    outcome: dict[str, Any] | None = None


async def create(database: Database, approval: Approval, *, actor: Actor) -> None:
    await database.fetchrow_durably(
        """WITH made AS (
               INSERT INTO approval (id, action, request, reason, requested_by, created, expires)
               VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $6, 'approval.requested', $8, $9, 'approval:' || id,
                  json_build_object('action', action, 'request', request, 'reason', reason) FROM made RETURNING true""",
        approval.id,
        approval.action,
        to_json(approval.request),
        approval.reason,
        approval.requested_by,
        approval.created,
        approval.expires,
        actor.name,
        actor.source,
    )


class ApprovalState(StrEnum):
    WAITING = "waiting"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"


ApprovalSort = Literal[
    "created", "-created", "expires", "-expires", "action", "-action", "requested_by", "-requested_by"
]
APPROVALS = Table(
    source="""SELECT *, coalesce(decision, CASE WHEN expires <= moment.now THEN 'expired' ELSE 'waiting' END) AS state,
                     action COLLATE "C" AS by_action, requested_by COLLATE "C" AS by_asker
              FROM approval, moment""",
    columns=_COLUMNS,
    filters={
        "state": "state = {}",
        "action": "action = {}",
        "requested_by": "requested_by = {}",
        "decided_by": "decided_by = {}",
        **CREATED,
    },
    sorts={
        "created": By("created", datetime),
        "expires": By("expires", datetime),
        "action": By("by_action"),
        "requested_by": By("by_asker"),
    },
)


async def page(database: Database, wanted: Wanted, *, now: datetime) -> Page[Approval]:
    return await search.page(database, APPROVALS, wanted, now=now, read=_approval)


async def find(database: Database, approval: str) -> Approval | None:
    row = await database.fetchrow(f"SELECT {_COLUMNS} FROM approval WHERE id = $1", approval)
    return _approval(row) if row else None


async def decide(
    database: Database, approval: str, *, decision: Decision, actor: Actor, by: str, now: datetime
) -> Approval | None:
    """One decision, by another than who asked (who may withdraw what they asked for). None: not open; to be approved by
    who may have asked for it; or of somebody whose credential has ended since. Those of this machine's users do not end.
    """
    row = await database.fetchrow_durably(
        f"""WITH decided AS (
                UPDATE approval SET decided = $2, decided_by = $3, decision = $4
                WHERE id = $1 AND decided IS NULL AND expires > $2 AND (
                    $4 = 'rejected'
                    OR requested_by <> $3 AND NOT EXISTS ({_IN_BOTH_HANDS.format(by="$3", machine="$7")}) AND (
                        right(requested_by, length($7)) = $7 OR EXISTS (
                            SELECT FROM api_token t WHERE t.name = requested_by AND t.revoked IS NULL
                            AND t.created <= approval.created AND (t.expires IS NULL OR t.expires > $2)
                        )
                    )
                )
                RETURNING {_COLUMNS}
            ), event AS (
                INSERT INTO audit_event (at, event, actor, source, object, detail)
                SELECT $2, 'approval.' || $4::text, $5, $6, 'approval:' || id,
                       json_build_object('action', action, 'requested_by', requested_by) FROM decided
            )
            SELECT * FROM decided""",
        approval,
        now,
        by,
        decision,
        actor.name,
        actor.source,
        MACHINE,
    )
    return _approval(row) if row else None


_IN_BOTH_HANDS = """
    SELECT name FROM hands(requested_by) AS of_one (name)
    WHERE name IN (SELECT hands({by})) AND right(name, length({machine})) <> {machine}
    UNION ALL
    SELECT '' WHERE '' IN (SELECT hands(requested_by) UNION ALL SELECT hands({by}))"""
"""Who may have the credentials of both, who asked and who decides; '': nobody can tell. This machine's users do not
count: they have the server's keys and its database in any case.
"""


async def in_both_hands(database: Database, approval: str, *, by: str) -> str | None:
    """Somebody, as the audit names them, who may have the credentials of both; empty text: nobody can tell."""
    found: str | None = await database.fetchval(
        f"SELECT ({_IN_BOTH_HANDS.format(by='$2', machine='$3')} LIMIT 1) FROM approval WHERE id = $1",
        approval,
        by,
        MACHINE,
    )
    return found


async def keep_outcome(database: Database, approval: str, outcome: dict[str, Any]) -> None:
    await database.execute("UPDATE approval SET outcome = $2 WHERE id = $1", approval, to_json(outcome))


def _approval(row: Columns) -> Approval:
    fields: dict[str, Any] = dict(row)
    return Approval(**{**fields, "request": from_json(row["request"]), "outcome": from_json(row["outcome"])})
