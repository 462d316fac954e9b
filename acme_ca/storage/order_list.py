"""The list of orders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AccountId
from acme_ca.core.orders import Order
from acme_ca.core.states import OrderStatus
from acme_ca.storage.certificate_list import OF_PROFILE
from acme_ca.storage.database import Database
from acme_ca.storage.orders import order_of
from acme_ca.storage.search import Condition, Index, Key, List, Page, Position, Search, whole
from acme_ca.storage.times import within


class OrderSort(StrEnum):
    CREATED = "created"
    CREATED_LAST = "-created"


_BY_ID = Key(
    id="id",
    indexes=(
        Index(begins="account", tells=frozenset({"id", "account", "profile"})),
        Index(begins="open", tells=frozenset({"id", "open", "profile"})),
        Index(tells=frozenset({"id", "profile"})),
    ),
)
_KEYS = {
    OrderSort.CREATED: _BY_ID,
    OrderSort.CREATED_LAST: replace(_BY_ID, descending=True),
}
"""Ids begin with the time at which they were made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFilter:
    status: OrderStatus | None = None
    account: AccountId | None = None
    service: str | None = None
    """Of the EAB key of its account."""
    services: Sequence[str] = ()
    """One of these, when there are any: those that the asker is for."""
    name: Identifier | None = None
    profile: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundOrder:
    order: Order
    created: datetime
    service: str | None


_SERVICE = "(SELECT k.service FROM account a JOIN eab_key k ON k.id = a.eab_key_id WHERE a.id = {})"
_OF_SERVICES = (
    "(SELECT a.id FROM account a JOIN eab_key k ON k.id = a.eab_key_id WHERE k.service = ANY ({}::text[]))"
)
_ORDERS = List(
    columns=f"""c.id AS order_id, c.account_id AS order_account, c.status AS order_status, c.identifiers, c.authzs,
        {within("c.expires")} AS expires, {within("c.not_before")} AS not_before, {within("c.not_after")} AS not_after,
        c.profile, c.profile_version, c.issuer_id, c.serial, c.replaces, c.renews, c.error, {within("c.created")} AS created, c.id,
        (SELECT array_agg(z.status) FROM authz z WHERE z.id = ANY (c.authzs) AND c.status = 'pending') AS authz_statuses,
        (SELECT {within("min(z.expires)")} FROM authz z WHERE z.id = ANY (c.authzs) AND c.status = 'pending') AS authz_expires,
        {_SERVICE.format("c.account_id")} AS service""",
    source="orders",
    finds=frozenset({"name", "processing", "service", "open", "alive", "account"}),
)


async def find(
    database: Database,
    wanted: OrderFilter,
    *,
    now: datetime,
    limit: int,
    sort: OrderSort = OrderSort.CREATED_LAST,
    after: Position | None = None,
) -> Page[FoundOrder]:
    """Raises Problem (`search-too-long`)."""
    key = _KEYS[sort]
    conditions = [*_conditions(wanted, now), *([key.behind(after)] if after is not None else ())]
    search = Search(database=database, listed=_ORDERS, conditions=conditions, key=key, limit=limit + 1)
    rows = await search.rows()
    found = tuple(
        FoundOrder(order=order_of(row, now), created=row["created"], service=row["service"])
        for row in rows[:limit]
    )
    return Page(found, Position(found[-1].order.id) if len(rows) > limit else None)


def _conditions(wanted: OrderFilter, now: datetime) -> Iterator[Condition]:
    if wanted.status is not None:
        yield from _with_status(wanted.status, now)
    if wanted.account is not None:
        yield Condition("account", "c.account_id = {}", (wanted.account,))
    for services in ([wanted.service] if wanted.service is not None else [], wanted.services):
        if services and wanted.account is not None:
            yield Condition("account", f"{{}} IN {_OF_SERVICES}", (wanted.account, services))
        elif services:
            yield Condition("service", f"c.account_id IN {_OF_SERVICES}", (services,))
    if wanted.name is not None:
        words, text = whole("=" + wanted.name.value), str(wanted.name)
        yield Condition("name", f"({_CERTIFIED} OR {_NOT_CERTIFIED})", (words, [text]))
    if wanted.profile is not None:
        yield Condition("profile", f"c.{OF_PROFILE}", (wanted.profile,))


_CERTIFIED = "c.id = ANY (ARRAY(SELECT f.order_id FROM certificate f WHERE f.words @@ {}::tsquery))"
_NOT_CERTIFIED = "(c.status IN ('pending', 'invalid') AND c.identifiers @> {}::text[])"
_DEAD = "EXISTS (SELECT FROM authz z WHERE z.id = ANY (c.authzs) AND (z.status NOT IN ('pending', 'valid') OR z.expires <= {}))"
_WAITING = "EXISTS (SELECT FROM authz z WHERE z.id = ANY (c.authzs) AND z.status <> 'valid')"


def _with_status(status: OrderStatus, now: datetime) -> Iterator[Condition]:
    """As `core.states.order_status` has it."""
    if status in {OrderStatus.VALID, OrderStatus.PROCESSING}:
        yield Condition(str(status), f"c.status = '{status}'", ())
        return
    yield Condition("open", "c.status IN ('pending', 'invalid')", ())
    if status is OrderStatus.INVALID:
        yield Condition("dead", f"(c.status = 'invalid' OR c.expires <= {{}} OR {_DEAD})", (now, now))
    else:
        yield Condition("alive", f"c.status = 'pending' AND c.expires > {{}} AND NOT {_DEAD}", (now, now))
        yield Condition("waiting", _WAITING if status is OrderStatus.PENDING else f"NOT {_WAITING}", ())
