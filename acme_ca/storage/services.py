"""The service registry. Services are retired, never deleted: certificates name them for ever."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from acme_ca.core import services
from acme_ca.core.model import AccountId, Actor, EabKeyId
from acme_ca.core.services import RegisteredService, Service, ServiceId
from acme_ca.core.states import ServiceState
from acme_ca.storage.database import Database, Row, from_json, to_json

_COLUMNS = "s.id, s.body, s.state, s.created, s.changed, s.approved, s.retired"


def _service_of(row: Row) -> RegisteredService:
    return RegisteredService(
        service=Service.model_validate({"service_id": row["id"], **from_json(row["body"])}),
        state=ServiceState(row["state"]),
        created=row["created"],
        changed=row["changed"],
        approved=row["approved"],
        retired=row["retired"],
    )


def _body_of(service: Service) -> str:
    return service.model_dump_json(exclude={"service_id"})


async def register(
    database: Database, service: Service, state: ServiceState, *, actor: Actor, now: datetime
) -> RegisteredService | None:
    """Store a new service, with the audit event. None: there is one with this id, also if it was retired."""
    row = await database.fetchrow_durably(
        f"""WITH s AS (
                INSERT INTO service (id, body, state, created, changed, approved)
                VALUES ($1, $2, $3, $4, $4, CASE WHEN $3 = 'approved' THEN $4::timestamptz END)
                ON CONFLICT DO NOTHING RETURNING *
            ), told AS (
                INSERT INTO audit_event (at, event, actor, source, object, detail)
                SELECT $4, 'service.registered', $5, $6, 'service:' || id, json_build_object('state', state, 'service', body) FROM s
            )
            SELECT {_COLUMNS} FROM s""",
        service.service_id,
        _body_of(service),
        state,
        now,
        actor.name,
        actor.source,
    )
    return _service_of(row) if row else None


async def find(database: Database, service: str) -> RegisteredService | None:
    row = await database.fetchrow(f"SELECT {_COLUMNS} FROM service s WHERE s.id = $1", service)
    return _service_of(row) if row else None


async def page(
    database: Database,
    *,
    state: ServiceState | None,
    tag: str | None,
    owner: str | None,
    among: Sequence[str] | None,
    after: str,
    limit: int,
) -> list[RegisteredService]:
    """The next services behind the id `after`, by their ids. `among`: only these; None: all."""
    rows = await database.fetch(
        f"""SELECT {_COLUMNS} FROM service s
            WHERE s.id > $1 AND ($2::text IS NULL OR s.state = $2) AND ($3::text IS NULL OR s.body -> 'tags' ? $3)
              AND ($4::text IS NULL OR s.body ->> 'owner' = $4) AND ($5::text[] IS NULL OR s.id = ANY ($5))
            ORDER BY s.id LIMIT $6""",
        after,
        state,
        tag,
        owner,
        among,
        limit,
    )
    return [_service_of(row) for row in rows]


async def change(
    database: Database, before: RegisteredService, service: Service, *, actor: Actor, now: datetime
) -> RegisteredService | None:
    """Replace what is known of a service, unless somebody did so since `before` was read, or it was retired: None."""
    row = await database.fetchrow_durably(
        f"""WITH s AS (
                UPDATE service SET body = $2, changed = $3
                WHERE id = $1 AND changed = $4 AND state = $5 AND state <> 'retired' RETURNING *
            ), told AS (
                INSERT INTO audit_event (at, event, actor, source, object, detail)
                SELECT $3, 'service.changed', $6, $7, 'service:' || id, $8 FROM s
            )
            SELECT {_COLUMNS} FROM s""",
        service.service_id,
        _body_of(service),
        now,
        before.changed,
        before.state,
        actor.name,
        actor.source,
        to_json(services.differences(before.service, service)),
    )
    return _service_of(row) if row else None


async def approve(
    database: Database, service: ServiceId, *, actor: Actor, now: datetime
) -> RegisteredService | None:
    """The service may have certificates, and its EAB keys that waited make accounts from now on. None: there is no such
    service, or it is approved already.
    """
    row = await database.fetchrow_durably(
        f"""WITH s AS (
                UPDATE service SET state = 'approved', approved = $2, retired = NULL, changed = $2
                WHERE id = $1 AND state = ANY ($3) RETURNING *
            ), keys AS (
                UPDATE eab_key SET approved = $2, changed = $2 FROM s
                WHERE eab_key.service = s.id AND eab_key.approved IS NULL AND eab_key.revoked IS NULL RETURNING eab_key.id
            ), told AS (
                INSERT INTO audit_event (at, event, actor, source, object)
                SELECT $2::timestamptz, 'service.approved', $4, $5, 'service:' || id FROM s
                UNION ALL SELECT $2, 'eab-key.approved', $4, $5, 'eab_key:' || id FROM keys
            )
            SELECT {_COLUMNS} FROM s""",
        service,
        now,
        services.origins(ServiceState.APPROVED),
        actor.name,
        actor.source,
    )
    return _service_of(row) if row else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """What ended with a service."""

    service: RegisteredService
    eab_keys: tuple[EabKeyId, ...]
    accounts: tuple[AccountId, ...]
    """Frozen."""


async def retire(database: Database, service: ServiceId, *, actor: Actor, now: datetime) -> Retirement | None:
    """The service gets no more certificates: its EAB keys are revoked, and what they made is frozen, in the same
    statement. None: there is no such service, or it is retired already.
    """
    row = await database.fetchrow_durably(
        f"""WITH s AS (
                UPDATE service SET state = 'retired', retired = $2, changed = $2
                WHERE id = $1 AND state = ANY ($3) RETURNING *
            ), keys AS (
                UPDATE eab_key SET revoked = $2, changed = $2 FROM s
                WHERE eab_key.service = s.id AND eab_key.revoked IS NULL RETURNING eab_key.id
            ), frozen AS (
                UPDATE account SET frozen = $2 FROM keys
                WHERE account.eab_key_id = keys.id AND account.frozen IS NULL AND account.status = 'valid'
                RETURNING account.id, keys.id AS key
            ), told AS (
                INSERT INTO audit_event (at, event, actor, source, object, detail)
                SELECT $2::timestamptz, 'service.retired', $4, $5, 'service:' || id, '{{}}'::json FROM s
                UNION ALL
                SELECT $2, 'eab-key.revoked', $4, $5, 'eab_key:' || id, json_build_object('why', 'its service is retired') FROM keys
                UNION ALL
                SELECT $2, 'account.frozen', $4, $5, 'account:' || id, json_build_object('eab_key', key) FROM frozen
            )
            SELECT {_COLUMNS}, array(SELECT id FROM keys ORDER BY id) AS keys, array(SELECT id FROM frozen ORDER BY id) AS accounts
            FROM s""",
        service,
        now,
        services.origins(ServiceState.RETIRED),
        actor.name,
        actor.source,
    )
    if row is None:
        return None
    return Retirement(service=_service_of(row), eab_keys=tuple(row["keys"]), accounts=tuple(row["accounts"]))
