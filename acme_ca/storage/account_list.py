"""The list of accounts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from acme_ca.core.ids import EabKeyId
from acme_ca.core.states import AccountStatus
from acme_ca.storage.accounts import AccountRecord
from acme_ca.storage.database import Database, Row
from acme_ca.storage.search import Condition, Index, Key, List, Page, Position, Search


class AccountSort(StrEnum):
    CREATED = "created"
    CREATED_LAST = "-created"


_KEYS = {
    AccountSort.CREATED: Key(id="id", indexes=(Index(tells=frozenset({"id"})),)),
    AccountSort.CREATED_LAST: Key(id="id", indexes=(Index(tells=frozenset({"id"})),), descending=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFilter:
    status: AccountStatus | None = None
    frozen: bool | None = None
    eab_key: EabKeyId | None = None
    service: str | None = None
    """Of its EAB key."""
    services: Sequence[str] = ()
    """One of these, when there are any: those that the asker is for."""
    contact: str | None = None
    """`mailto:` and the address."""
    thumbprint: str | None = None
    """Of its key (RFC 7638)."""


_ACCOUNTS = List(
    columns="""c.id, c.status, c.frozen, c.contact, c.thumbprint, c.eab_key_id, c.terms_agreed, c.created, c.created_from,
        (SELECT k.service FROM eab_key k WHERE k.id = c.eab_key_id) AS service""",
    source="account",
    finds=frozenset({"eab_key", "thumbprint", "service", "status", "frozen", "contact"}),
)
_HAS = {
    "status": "c.status = {}",
    "eab_key": "c.eab_key_id = {}",
    "thumbprint": "c.thumbprint = {}",
}


async def find(
    database: Database,
    wanted: AccountFilter,
    *,
    limit: int,
    sort: AccountSort = AccountSort.CREATED_LAST,
    after: Position | None = None,
) -> Page[AccountRecord]:
    """Raises Problem (`search-too-long`)."""
    key = _KEYS[sort]
    conditions = [*_conditions(wanted), *([key.behind(after)] if after is not None else ())]
    search = Search(database=database, listed=_ACCOUNTS, conditions=conditions, key=key, limit=limit + 1)
    rows = await search.rows()
    found = tuple(_found(row) for row in rows[:limit])
    return Page(found, Position(found[-1].id) if len(rows) > limit else None)


def _found(row: Row) -> AccountRecord:
    fields = dict(row) | {"status": AccountStatus(row["status"]), "contact": tuple(row["contact"])}
    fields.pop("seen", None)
    return AccountRecord(**fields)


def _conditions(wanted: AccountFilter) -> Iterator[Condition]:
    for name, text in _HAS.items():
        if (value := getattr(wanted, name)) is not None:
            yield Condition(name, text, (value,))
    for services in ([wanted.service] if wanted.service is not None else [], wanted.services):
        if services:
            keys = "(SELECT k.id FROM eab_key k WHERE k.service = ANY ({}::text[]))"
            yield Condition("service", f"c.eab_key_id IN {keys}", (services,))
    if wanted.frozen is not None:
        yield Condition("frozen", f"c.frozen IS {'NOT ' if wanted.frozen else ''}NULL", ())
    if wanted.contact is not None:
        yield Condition("contact", "c.contact @> {}::text[]", ([wanted.contact],))
