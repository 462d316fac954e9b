"""The service registry. Services are retired, never deleted: certificates name them for ever."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import ValidationError

from acme_ca.core import services
from acme_ca.core.actors import Actor
from acme_ca.core.eab import EabKey
from acme_ca.core.ids import AccountId, EabKeyId
from acme_ca.core.services import RegisteredService, Service, ServiceId
from acme_ca.core.states import ServiceState
from acme_ca.storage import eab, search
from acme_ca.storage.database import Columns, Database, from_json, to_json
from acme_ca.storage.search import CREATED, By, Page, Table, Wanted, holds

_COLUMNS = "s.id, s.body, s.state, s.created, s.changed, s.approved, s.retired"


def _service_of(row: Columns) -> RegisteredService:
    service = _read(row)
    return RegisteredService(
        service=service or Service.model_construct(service_id=row["id"], name=row["id"], owner="unknown"),
        readable=service is not None,
        state=ServiceState(row["state"]),
        created=row["created"],
        changed=row["changed"],
        approved=row["approved"],
        retired=row["retired"],
    )


def _read(row: Columns) -> Service | None:
    try:
        return Service.model_validate({"service_id": row["id"], **from_json(row["body"])})
    except ValidationError:
        return None


def _body_of(service: Service) -> str:
    return service.model_dump_json(exclude={"service_id"})


async def register(
    database: Database,
    service: Service,
    state: ServiceState,
    *,
    eab_key: EabKey | None = None,
    actor: Actor,
    now: datetime,
) -> RegisteredService | None:
    """Store a new service, with its first EAB key and the audit events: all or nothing. None: there is one with this id,
    also if it was retired.
    """
    async with database.transaction() as connection:
        row = await connection.fetchrow(
            f"""WITH s AS (
                    INSERT INTO service (id, body, state, created, changed, approved)
                    VALUES ($1, $2, $3, $4, $4, CASE WHEN $3 = 'approved' THEN $4::timestamptz END)
                    ON CONFLICT DO NOTHING RETURNING *
                ), told AS (
                    INSERT INTO audit_event (at, event, actor, source, object, detail)
                    SELECT $4, 'service.registered', $5, $6, 'service:' || id,
                           json_build_object('state', state, 'service', body) FROM s
                )
                SELECT {_COLUMNS} FROM s""",
            service.service_id,
            _body_of(service),
            state,
            now,
            actor.name,
            actor.source,
        )
        if row is not None and eab_key is not None:
            await eab.add(connection, eab_key, actor=actor)
    return _service_of(row) if row else None


async def add_eab_key(database: Database, service: RegisteredService, key: EabKey, *, actor: Actor) -> bool:
    """Another EAB key of the service, made for what it was when it was read. False: it was changed or retired since."""
    async with database.transaction() as connection:
        # locked until the key is there, for `retire` to find
        unchanged = await connection.fetchval(
            """SELECT true FROM service WHERE id = $1 AND state = $2 AND changed = $3 AND state <> 'retired' FOR SHARE""",
            service.service.service_id,
            service.state,
            service.changed,
        )
        if unchanged:
            await eab.add(connection, key, actor=actor)
    return unchanged is True


async def find(database: Database, service: str) -> RegisteredService | None:
    row = await database.fetchrow(f"SELECT {_COLUMNS} FROM service s WHERE s.id = $1", service)
    return _service_of(row) if row else None


ServiceSort = Literal[
    "service_id",
    "-service_id",
    "name",
    "-name",
    "owner",
    "-owner",
    "created",
    "-created",
    "changed",
    "-changed",
]
SERVICES = Table(
    source="""SELECT *, body ->> 'name' AS name, coalesce(body ->> 'owner', '') COLLATE "C" AS owner,
                     coalesce(body ->> 'name', '') COLLATE "C" AS by_name FROM service""",
    columns="id, body, state, created, changed, approved, retired",
    filters={
        "state": "state = {}",
        "tag": "body -> 'tags' ? {}",
        "owner": "owner = {}",
        "domain": "body -> 'domains' ? {}",
        "text": holds("id", "name", "owner", lists=("contacts", "domains")),
        "services": "id = ANY ({}::text[])",
        **CREATED,
    },
    sorts={
        "service_id": By(),
        "name": By("by_name"),
        "owner": By("owner"),
        "created": By("created", datetime),
        "changed": By("changed", datetime),
    },
)


async def page(database: Database, wanted: Wanted, *, now: datetime) -> Page[RegisteredService]:
    return await search.page(database, SERVICES, wanted, now=now, read=_service_of)


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


_BEFORE = "SELECT id, state AS before FROM service WHERE id = $1 FOR UPDATE"
"""Its state, held until it is changed."""


async def approve(
    database: Database, service: ServiceId, *, actor: Actor, now: datetime
) -> RegisteredService | None:
    """The service may have certificates, and its EAB keys that waited make accounts from now on. None: there is no such
    service, or it is approved already.
    """
    row = await database.fetchrow_durably(
        f"""WITH s AS (
                UPDATE service SET state = 'approved', approved = $2, retired = NULL, changed = $2
                FROM ({_BEFORE}) was WHERE service.id = was.id AND state = ANY ($3) RETURNING service.*, before
            ), keys AS (
                UPDATE eab_key SET approved = $2, changed = $2 FROM s
                WHERE eab_key.service = s.id AND eab_key.approved IS NULL AND eab_key.revoked IS NULL RETURNING eab_key.id
            ), told AS (
                INSERT INTO audit_event (at, event, actor, source, object, detail)
                SELECT $2::timestamptz, 'service.approved', $4, $5, 'service:' || id,
                       json_build_object('before', before, 'after', state) FROM s
                UNION ALL SELECT $2, 'eab-key.approved', $4, $5, 'eab_key:' || id,
                       json_build_object('reason', 'its service is approved') FROM keys
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
    transaction. None: there is no such service, or it is retired already.

    Three statements: the second must see the key that was made while the first waited for the service's row, the third
    the account of whoever used a key up while the second waited for the key's.
    """
    async with database.transaction() as connection:
        row = await connection.fetchrow(
            f"""WITH s AS (
                    UPDATE service SET state = 'retired', retired = $2, changed = $2
                    FROM ({_BEFORE}) was WHERE service.id = was.id AND state = ANY ($3) RETURNING service.*, before
                ), told AS (
                    INSERT INTO audit_event (at, event, actor, source, object, detail)
                    SELECT $2, 'service.retired', $4, $5, 'service:' || id,
                           json_build_object('before', before, 'after', state) FROM s
                )
                SELECT {_COLUMNS} FROM s""",
            service,
            now,
            services.origins(ServiceState.RETIRED),
            actor.name,
            actor.source,
        )
        if row is None:
            return None
        ended = await connection.fetch(
            """WITH ended AS (
                   UPDATE eab_key SET revoked = $2, changed = $2 WHERE service = $1 AND revoked IS NULL RETURNING id
               ), told AS (
                   INSERT INTO audit_event (at, event, actor, source, object, detail)
                   SELECT $2, 'eab-key.revoked', $3, $4, 'eab_key:' || id,
                          json_build_object('reason', 'its service is retired') FROM ended
               )
               SELECT id FROM ended ORDER BY id""",
            service,
            now,
            actor.name,
            actor.source,
        )
        keys = tuple(key["id"] for key in ended)
        frozen = await eab.freeze_accounts(connection, keys, actor=actor, now=now)
    return Retirement(service=_service_of(row), eab_keys=keys, accounts=frozen)
