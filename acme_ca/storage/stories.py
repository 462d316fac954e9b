"""What happened to an order: its authorizations, every validation with what was asked and answered, its certificate, and
what the audit tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from acme_ca.core.challenges import ChallengeType
from acme_ca.core.ids import AuthorizationId, OrderId
from acme_ca.core.orders import Authorization, Order
from acme_ca.storage import authorizations, details, orders
from acme_ca.storage.database import Database, Row, from_json
from acme_ca.storage.times import known, within


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """One attempt. `record`: a JSON object for each thing that was asked."""

    at: datetime
    challenge: ChallengeType
    error: dict[str, Any] | None
    """The problem document; None: it succeeded."""
    record: Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationStory:
    authorization: Authorization
    created: datetime
    service: str | None
    """Of the EAB key of its account."""
    validations: tuple[Validation, ...]
    """The first one first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Of the audit. `at` None: no time of our calendar."""

    at: datetime | None
    event: str
    actor: str
    source: str
    object: str
    detail: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderStory:
    order: Order
    created: datetime
    service: str | None
    authorizations: tuple[AuthorizationStory, ...]
    """In the order of the names; those that retention has deleted are missing."""
    events: tuple[Event, ...]
    """Of the order, its authorizations and its certificate, the first one first."""


_SERVICE = (
    "(SELECT k.service FROM account a JOIN eab_key k ON k.id = a.eab_key_id WHERE a.id = {}) AS service"
)


def _times(*columns: str) -> str:
    return ", ".join(f"{within(column)} AS {column}" for column in columns)


_ORDER = f"""id, account_id, status, identifiers, authzs, profile, profile_version, issuer_id, serial, replaces, renews, error,
    authz_statuses, {_times("created", "expires", "not_before", "not_after", "authz_expires")}"""
_AUTHORIZATION = f"""id, account_id, identifier, status, token, offered, challenge, scope_id, error,
    {_times("created", "expires", "validated")}"""


async def order(database: Database, id_: OrderId, *, now: datetime) -> OrderStory | None:
    row = await database.fetchrow(
        f"""SELECT {orders.COLUMNS}, o.created, {_SERVICE.format("o.account_id")}
            FROM (SELECT {_ORDER} FROM ({orders.SOURCE}) s WHERE s.id = $1) o""",
        id_,
    )
    if row is None:
        return None
    found = orders.order_of(row, now)
    told = await _authorizations(database, found.authorizations, now)
    objects = [
        f"order:{found.id}",
        *(f"authorization:{one}" for one in found.authorizations),
        *([f"certificate:{found.serial}"] if found.serial else []),
    ]
    return OrderStory(
        order=found,
        created=row["created"],
        service=row["service"],
        authorizations=tuple(told[id_] for id_ in found.authorizations if id_ in told),
        events=await events(database, objects),
    )


async def authorization(
    database: Database, id_: AuthorizationId, *, now: datetime
) -> AuthorizationStory | None:
    return (await _authorizations(database, [id_], now)).get(id_)


async def _authorizations(
    database: Database, ids: Sequence[AuthorizationId], now: datetime
) -> dict[AuthorizationId, AuthorizationStory]:
    rows = await database.fetch(
        f"""SELECT {authorizations.COLUMNS}, z.created, {_SERVICE.format("z.account_id")}
            FROM (SELECT {_AUTHORIZATION} FROM authz WHERE id = ANY ($1)) z""",
        list(ids),
    )
    validations = await database.fetch(
        f"""SELECT authz_id, {within("at")} AS at, challenge, error, record FROM validation
            WHERE authz_id = ANY ($1) ORDER BY id""",
        list(ids),
    )
    return {
        row["authz_id"]: AuthorizationStory(
            authorization=authorizations.authorization_of(row, now),
            created=row["created"],
            service=row["service"],
            validations=tuple(_validation(one) for one in validations if one["authz_id"] == row["authz_id"]),
        )
        for row in rows
    }


def _validation(row: Row) -> Validation:
    return Validation(
        at=row["at"],
        challenge=ChallengeType(row["challenge"]),
        error=from_json(row["error"]),
        record=from_json(row["record"]),
    )


MOST_EVENTS = 1000


async def events(database: Database, objects: Sequence[str]) -> tuple[Event, ...]:
    """What was done with these, the first MOST_EVENTS."""
    rows = await database.fetch(
        f"""SELECT {known("at")} AS at, event, actor, source, object, detail FROM audit_event WHERE object = ANY ($1)
            ORDER BY id LIMIT $2""",
        list(objects),
        MOST_EVENTS,
    )
    return tuple(Event(**dict(row) | {"detail": details.shown(row["detail"])}) for row in rows)
