"""Lists for operators: filtered, sorted, page by page.

A page begins behind the last row of the one before (keyset): rows that are added meanwhile are neither lost nor shown
twice, and the thousandth page costs what the first does. The SQL is put together from constants of this file, for
the filters that are set; every value is a parameter, and none of them is a pattern.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

from acme_ca.core import revocation
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AccountId, EabKeyId, IssuerId, OrderId, Serial
from acme_ca.core.orders import Order
from acme_ca.core.profiles import ProfileRef
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.states import AccountStatus, CertificateState, OrderStatus, certificate_state
from acme_ca.storage.accounts import AccountRecord
from acme_ca.storage.database import Database, Row, from_json
from acme_ca.storage.orders import order_of

Item = TypeVar("Item")

STRIDE = 5000
"""Rows that are looked up in the order of the page before a list goes another way."""
SORTED = 250_000
"""Entries of an index that are read as a whole and sorted at most."""
LITTLE = 6_000
"""Rows of the table that are collected at once,"""
MANY = 100_000
"""and that are collected at most."""
MEANINGS = 4
"""Searches that one of several words becomes at most."""
SERIAL_BEGINNING = 6
"""Digits from which on a word that somebody searches for is looked up as the beginning of a serial number."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ended: the last row's sort value, where that is not its id, and its id."""

    id: str
    value: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    items: tuple[Item, ...]
    end: Position | None
    """None: nothing follows."""


# ---------------------------------------------------------------- statements


@dataclass(frozen=True, slots=True)
class _Condition:
    """`text` has a `{}` for each value. `on`: what it is about, for `_Key.along`."""

    on: str
    text: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    """Tells of a row what conditions are about, so that none of the table is read for those that do not fit."""

    begins: str | None = None
    """The condition that makes it worth while; None: it has all rows."""
    tells: frozenset[str]
    sorting: frozenset[str] = frozenset()
    """Conditions that pick rows of it, which are sorted: it has not the order of the page. None: it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    """What rows are sorted by: a column, where it is not the id alone, and the id. `indexes`: the best first, that of all
    rows last.
    """

    id: str
    column: str | None = None
    indexes: tuple[_Index, ...]
    descending: bool = False

    @property
    def columns(self) -> list[str]:
        return [self.id] if self.column is None else [self.column, self.id]

    @property
    def names(self) -> str:
        return ", ".join(self.columns)

    def order(self, table: str) -> str:
        way = " DESC" if self.descending else ""
        return ", ".join(f"{table}.{column}{way}" for column in self.columns)

    def behind(self, after: Position) -> _Condition:
        values = (after.id,) if self.column is None else (after.value, after.id)
        places = ", ".join("{}" for _ in values)
        way = "<" if self.descending else ">"
        return _Condition(self.columns[0], f"({self.names}) {way} ({places})", values)

    def first(self, rows: Iterable[Row], limit: int) -> list[Row]:
        """Of several pages, in which a row may be more than once."""
        by_id = {row[self.id]: row for row in rows}
        ordered = sorted(
            by_id.values(), key=lambda row: [row[one] for one in self.columns], reverse=self.descending
        )
        return ordered[:limit]


class _Statement:
    """The parameters of a statement, while its text is put together."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def where(self, conditions: Sequence[_Condition]) -> str:
        return " AND ".join(self._text(condition) for condition in conditions) or "true"

    def _text(self, condition: _Condition) -> str:
        first = len(self.values) + 1
        self.values += condition.values
        return condition.text.format(*(f"${first + n}" for n in range(len(condition.values))))


@dataclass(frozen=True, slots=True)
class _List:
    """What is listed: its FROM, and the columns that are shown. `finds`: conditions that an index of the table finds."""

    columns: str
    source: str
    finds: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """Which way is short depends on where in the order the rows are that fit, and no statistics know that.

    What an index tells is looked at there, for all rows if need be. Of the rows that are left STRIDE are looked up in the
    order of the page: what fits often enough is among them. What does not is collected through the indexes of its
    conditions, and sorted.
    """

    database: Database
    listed: _List
    conditions: Sequence[_Condition]
    key: _Key
    limit: int

    async def rows(self) -> list[Row]:
        """The first `limit` rows."""
        index = await self._index()
        told = [one for one in self.conditions if one.on in index.tells]
        rest = [one for one in self.conditions if one.on not in index.tells]
        if not rest:
            return (await self._looked_up(index, told, rest, self.limit))[0]
        finding = [one for one in self.conditions if one.on in self.listed.finds]
        exact = [one for one in finding if one.on != "text"]
        if exact and await self._estimate(exact) <= LITTLE:
            return await self._collected(exact)
        rows, is_all = await self._looked_up(index, told, rest, STRIDE)
        if is_all or len(rows) == self.limit:
            return rows
        if any(one in rest for one in finding) and await self._estimate(finding) <= MANY:
            return await self._collected(finding)
        return (await self._looked_up(index, told, rest, None))[0]

    async def _index(self) -> _Index:
        """One in the order of the page, or with not too many rows to sort."""
        about = {None, *(one.on for one in self.conditions)}
        for index in self.key.indexes:
            if index.begins in about and (not index.sorting or await self._is_sorted_soon(index)):
                return index
        raise AssertionError("the last one has all rows, in order")

    async def _is_sorted_soon(self, index: _Index) -> bool:
        picking = [one for one in self.conditions if one.on in index.sorting]
        return bool(picking) and await self._estimate(picking) <= SORTED

    async def _estimate(self, conditions: Sequence[_Condition]) -> int:
        """How many rows PostgreSQL expects: exact enough for common values and for times."""
        statement = _Statement()
        text = f"EXPLAIN (FORMAT JSON) SELECT FROM {self.listed.source} c WHERE {statement.where(conditions)}"
        (row,) = await self.database.search(text, *statement.values)
        return int(from_json(row[0])[0]["Plan"]["Plan Rows"])

    async def _looked_up(
        self, index: _Index, told: Sequence[_Condition], rest: Sequence[_Condition], most: int | None
    ) -> tuple[list[Row], bool]:
        """Through the index, of the first `most` rows that it finds; whether these were all. None: of all."""
        statement = _Statement()
        seen = "NULL::bigint" if most is None else "(SELECT count(*) FROM found)"
        rows = await self.database.search(
            f"""WITH found AS MATERIALIZED ({self._found(statement, told, index, most)}), page AS (
                    SELECT c.* FROM found f, LATERAL (
                        SELECT {self.listed.columns} FROM {self.listed.source} c
                        WHERE c.{self.key.id} = f.{self.key.id} AND {statement.where(rest)} OFFSET 0
                    ) c ORDER BY {self.key.order("f")} LIMIT {self.limit:d}
                )
                SELECT p.*, s.seen FROM (SELECT {seen} AS seen) s LEFT JOIN page p ON true ORDER BY {self.key.order("p")}""",
            *statement.values,
        )
        is_all = most is None or rows[0]["seen"] < most
        return [row for row in rows if row[self.key.id] is not None], is_all

    def _found(
        self, statement: _Statement, told: Sequence[_Condition], index: _Index, most: int | None
    ) -> str:
        fitting = f"SELECT {self.key.names} FROM {self.listed.source} c WHERE {statement.where(told)}"
        source = "f" if index.sorting else "c"
        if (
            index.sorting
        ):  # OFFSET 0: planned as if all of it were wanted, or it would walk in the order of the page
            fitting = f"SELECT {self.key.names} FROM ({fitting} OFFSET 0) f"
        return f"{fitting} ORDER BY {self.key.order(source)}" + ("" if most is None else f" LIMIT {most:d}")

    async def _collected(self, finding: Sequence[_Condition]) -> list[Row]:
        """Through indexes for these alone."""
        statement = _Statement()
        rest = [one for one in self.conditions if one not in finding]
        found = f"SELECT * FROM {self.listed.source} c WHERE {statement.where(finding)} OFFSET 0"
        return await self.database.search(
            f"""SELECT {self.listed.columns} FROM {self.listed.source} c WHERE c.{self.key.id} = ANY (ARRAY(
                    SELECT {self.key.id} FROM ({found}) c WHERE {statement.where(rest)}
                    ORDER BY {self.key.order("c")} LIMIT {self.limit:d}
                )) ORDER BY {self.key.order("c")}""",
            *statement.values,
        )


# ---------------------------------------------------------------- certificates


class CertificateSort(StrEnum):
    """With a minus: the last one first."""

    RECORDED = "recorded"
    RECORDED_LAST = "-recorded"
    NOT_AFTER = "not_after"
    NOT_AFTER_LAST = "-not_after"


_RECORDED = frozenset({"recorded", "recorded since", "recorded until"})
_END = frozenset({"not_after", "ends after", "ends until"})
_TOLD = _RECORDED | _END | {"issuer", "profile", "service", "services"}
_REVOKED = _Index(begins="revoked", tells=_TOLD | {"revoked", "reason", "account"})
_OF_ACCOUNT = _Index(begins="account", tells=_TOLD | {"good", "account"})
_OF_SERVICE = _Index(begins="service", tells=_TOLD | {"good"})
_OF_ISSUER = _Index(begins="issuer", tells=_TOLD | {"good"})
_OF_ISSUER_BY_END = replace(_OF_ISSUER, tells=_OF_ISSUER.tells | {"account"})
_OF_PROFILE = _Index(begins="profile", tells=_TOLD | {"good"})
_ALL_BY_RECORDED = _Index(tells=_TOLD | {"good"})
_ALL_BY_END = _Index(tells=_TOLD | {"good", "account"})


def _by_recorded(*, descending: bool) -> _Key:
    """What ends late was recorded late. So what has such an end is met where the page begins, unless it is wanted of one
    issuer or profile alone, or from its other side: then few are sorted faster than all before them are passed.
    """
    by_end = [
        replace(_ALL_BY_END, begins=begins, sorting=_END)
        for begins in ("ends until" if descending else "ends after", "issuer", "profile")
    ]
    indexes = (_REVOKED, _OF_ACCOUNT, _OF_SERVICE, *by_end, _OF_PROFILE, _OF_ISSUER, _ALL_BY_RECORDED)
    return _Key(id="serial", column="recorded", indexes=indexes, descending=descending)


def _by_end(*, descending: bool) -> _Key:
    """Likewise."""
    by_recorded = [
        replace(_ALL_BY_RECORDED, begins=begins, sorting=_RECORDED)
        for begins in ("recorded until" if descending else "recorded since", "issuer", "profile")
    ]
    of_account = replace(_OF_ACCOUNT, sorting=frozenset({"account"}))
    of_service = replace(_OF_SERVICE, sorting=frozenset({"service"}))
    of_profile = replace(_OF_PROFILE, sorting=frozenset({"profile"}))
    indexes = (_REVOKED, of_account, of_service, *by_recorded, of_profile, _OF_ISSUER_BY_END, _ALL_BY_END)
    return _Key(id="serial", column="not_after", indexes=indexes, descending=descending)


_CERTIFICATE_KEYS = {
    CertificateSort.RECORDED: _by_recorded(descending=False),
    CertificateSort.RECORDED_LAST: _by_recorded(descending=True),
    CertificateSort.NOT_AFTER: _by_end(descending=False),
    CertificateSort.NOT_AFTER_LAST: _by_end(descending=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFilter:
    """What is set must hold, all of it."""

    state: CertificateState | None = None
    service: str | None = None
    services: Sequence[str] = ()
    """One of these, when there are any: those that the asker is for."""
    name: Identifier | None = None
    """The certificate has exactly this name or address."""
    below: str | None = None
    """It has this DNS name or one below it, wildcards too."""
    profile: str | None = None
    issuer: IssuerId | None = None
    account: AccountId | None = None
    order: OrderId | None = None
    serial: str | None = None
    """The whole serial number or its beginning: hexadecimal digits, lower case. The whole may lack leading zeros."""
    spki_sha256: bytes | None = None
    ends_after: datetime | None = None
    ends_until: datetime | None = None
    recorded_since: datetime | None = None
    recorded_until: datetime | None = None
    text: str | None = None
    """Words that an operator types, each of which must fit: the beginning of a name from one of its labels on, of an
    address, or of a serial number (SERIAL_BEGINNING digits); a service; the id of an account or order.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCertificate:
    serial: Serial
    state: CertificateState
    issuer: IssuerId
    account_id: AccountId | None
    order_id: OrderId | None
    service: str | None
    profile: ProfileRef
    identifiers: tuple[Identifier, ...]
    spki_sha256: bytes
    not_before: datetime
    not_after: datetime
    recorded: datetime
    revoked: datetime | None
    reason: RevocationReason | None
    comment: str | None
    signed: bool
    """False: recorded, and not (or never) signed."""


_CERTIFICATES = _List(
    columns="""serial, issuer_id, account_id, order_id, service, profile, profile_version, identifiers, spki_sha256, not_before,
        not_after, recorded, revoked, reason, comment, der IS NOT NULL AS signed""",
    source="certificate",
    finds=frozenset(
        {
            "name",
            "below",
            "text",
            "beginning",
            "spki_sha256",
            "order",
            "held",
            "revoked",
            "account",
            "service",
        }
    ),
)


async def certificates(
    database: Database,
    wanted: CertificateFilter,
    *,
    now: datetime,
    limit: int,
    sort: CertificateSort = CertificateSort.RECORDED_LAST,
    after: Position | None = None,
) -> Page[FoundCertificate]:
    """Raises DatabaseUnavailable also when the search takes too long."""
    key = _CERTIFICATE_KEYS[sort]
    conditions = [*_of_certificates(wanted, now), *([key.behind(after)] if after is not None else ())]
    rows: list[Row] = []
    for words in await _meanings(database, (wanted.text or "").lower().split()):
        rows += await _Search(
            database=database,
            listed=_CERTIFICATES,
            conditions=[*conditions, *words],
            key=key,
            limit=limit + 1,
        ).rows()
    rows = key.first(rows, limit + 1)
    found = tuple(_found_certificate(row, now) for row in rows[:limit])
    return Page(found, _end(found[-1], key) if len(rows) > limit else None)


def _end(last: FoundCertificate, key: _Key) -> Position:
    return Position(last.serial, None if key.column is None else getattr(last, key.column))


def _found_certificate(row: Row, now: datetime) -> FoundCertificate:
    reason = None if row["reason"] is None else RevocationReason(row["reason"])
    return FoundCertificate(
        serial=row["serial"],
        state=certificate_state(
            revoked=row["revoked"],
            held=reason is revocation.HOLD,
            not_after=row["not_after"],
            now=now,
        ),
        issuer=row["issuer_id"],
        account_id=row["account_id"],
        order_id=row["order_id"],
        service=row["service"],
        profile=ProfileRef(name=row["profile"], version=row["profile_version"]),
        identifiers=tuple(map(Identifier.from_text, row["identifiers"])),
        spki_sha256=row["spki_sha256"],
        not_before=row["not_before"],
        not_after=row["not_after"],
        recorded=row["recorded"],
        revoked=row["revoked"],
        reason=reason,
        comment=row["comment"],
        signed=row["signed"],
    )


# Whether there is such a profile at all, or such an issuer, is asked once, and not of each certificate.
_CERTIFICATE_HAS = {
    "service": "service = {}",
    "profile": "profile = {0} AND EXISTS (SELECT FROM profile p WHERE p.name = {0})",
    "issuer": "issuer_id = {0} AND EXISTS (SELECT FROM issuer i WHERE i.id = {0})",
    "account": "account_id = {}",
    "order": "order_id = {}",
    "spki_sha256": "spki_sha256 = {}",
}


def _of_certificates(wanted: CertificateFilter, now: datetime) -> Iterator[_Condition]:
    for name, text in _CERTIFICATE_HAS.items():
        if (value := getattr(wanted, name)) is not None:
            yield _Condition(name, text, (value,))
    if len(wanted.services) == 1:
        yield _Condition("service", "service = {}", tuple(wanted.services))
    elif wanted.services:
        yield _Condition("services", "service = ANY ({}::text[])", (wanted.services,))
    if wanted.state is not None:
        yield from _in_state(wanted.state, now)
    yield from _in_time(wanted)
    if wanted.name is not None:
        yield _Condition("name", "words @@ {}::tsquery", (_whole("=" + wanted.name.value),))
    if wanted.below is not None:
        yield _Condition("below", "words @@ {}::tsquery", (_whole(wanted.below),))
    if wanted.serial is not None:
        values = (*_range(wanted.serial), wanted.serial.zfill(32))
        yield _Condition("beginning", f"({_SERIAL} OR serial = {{}})", values)


def _in_state(state: CertificateState, now: datetime) -> Iterator[_Condition]:
    """As `core.states.certificate_state` has it; of what was signed, but for those that were revoked all the same."""
    if state is CertificateState.ON_HOLD:
        yield _Condition("held", "reason = 6", ())
    elif state is CertificateState.REVOKED:
        yield _Condition("revoked", "revoked IS NOT NULL", ())
        yield _Condition("reason", "reason <> 6", ())
    else:
        yield _Condition("good", "revoked IS NULL", ())
        yield _Condition("signed", "der IS NOT NULL", ())
    if state is CertificateState.GOOD:
        yield _Condition("ends after", "not_after > {}", (now,))
    if state is CertificateState.EXPIRED:
        yield _Condition("ends until", "not_after <= {}", (now,))


def _in_time(wanted: CertificateFilter) -> Iterator[_Condition]:
    if wanted.ends_after is not None:
        yield _Condition("ends after", "not_after > {}", (wanted.ends_after,))
    if wanted.ends_until is not None:
        yield _Condition("ends until", "not_after <= {}", (wanted.ends_until,))
    if wanted.recorded_since is not None:
        yield _Condition("recorded since", "recorded >= {}", (wanted.recorded_since,))
    if wanted.recorded_until is not None:
        yield _Condition("recorded until", "recorded < {}", (wanted.recorded_until,))


_SERIAL = "serial BETWEEN {} AND {}"
_DIGITS = re.compile(r"[0-9a-f]{1,32}")


async def _meanings(database: Database, words: Sequence[str]) -> list[tuple[_Condition, ...]]:
    """What the words can mean together; a row fits when it fits one of these.

    Each is a search of its own, which finds its way better than one for all of them would: what a word cannot mean,
    since there is no such service, account or order, is left out.
    """
    meanings = [await _meanings_of(database, word) for word in words]
    while math.prod(map(len, meanings)) > MEANINGS:
        longest = max(range(len(meanings)), key=lambda place: len(meanings[place]))
        meanings[longest] = [_any(meanings[longest])]
    return list(itertools.product(*meanings))


async def _meanings_of(database: Database, word: str) -> list[_Condition]:
    digits = word.replace(":", "")
    others = [_Condition("service", "service = {}", (word,))]
    if len(digits) >= SERIAL_BEGINNING and _DIGITS.fullmatch(digits):
        others.append(_Condition("beginning", _SERIAL, _range(digits)))
    if len(digits) == len("0" * 32):
        others.append(_Condition("account", "account_id = {}", (word,)))
        others.append(_Condition("order", "order_id = {}", (word,)))
    statement = _Statement()
    there = ", ".join(f"EXISTS (SELECT FROM certificate WHERE {statement.where([one])})" for one in others)
    (row,) = await database.search(f"SELECT ARRAY[{there}] AS there", *statement.values)
    name = _Condition("text", "words @@ {}::tsquery", (_whole(word) + ":*",))
    return [name, *(one for one, is_there in zip(others, row["there"], strict=True) if is_there)]


def _any(conditions: Sequence[_Condition]) -> _Condition:
    text = " OR ".join(condition.text for condition in conditions)
    return _Condition(
        "text", f"({text})", tuple(value for condition in conditions for value in condition.values)
    )


def _range(digits: str) -> tuple[str, str]:
    """Of serial numbers that begin so."""
    return digits.ljust(32, "0"), digits.ljust(32, "f")


def _whole(word: str) -> str:
    """The word in the language of tsquery, in which only quotes and backslashes mean anything inside quotes."""
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"


# ---------------------------------------------------------------- orders


class OrderSort(StrEnum):
    CREATED = "created"
    CREATED_LAST = "-created"


_ORDERS_BY_ID = _Key(
    id="id",
    indexes=(
        _Index(begins="account", tells=frozenset({"id", "account", "profile"})),
        _Index(begins="open", tells=frozenset({"id", "open", "profile"})),
        _Index(tells=frozenset({"id", "profile"})),
    ),
)
_ORDER_KEYS = {
    OrderSort.CREATED: _ORDERS_BY_ID,
    OrderSort.CREATED_LAST: replace(_ORDERS_BY_ID, descending=True),
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
_ORDERS = _List(
    columns=f"""c.id AS order_id, c.account_id AS order_account, c.status AS order_status, c.identifiers, c.authzs, c.expires,
        c.not_before, c.not_after, c.profile, c.profile_version, c.issuer_id, c.serial, c.replaces, c.renews, c.error, c.created, c.id,
        (SELECT array_agg(z.status) FROM authz z WHERE z.id = ANY (c.authzs) AND c.status = 'pending') AS authz_statuses,
        (SELECT min(z.expires) FROM authz z WHERE z.id = ANY (c.authzs) AND c.status = 'pending') AS authz_expires,
        {_SERVICE.format("c.account_id")} AS service""",
    source="orders",
    finds=frozenset({"name", "processing", "service", "open", "alive", "account"}),
)


async def orders(
    database: Database,
    wanted: OrderFilter,
    *,
    now: datetime,
    limit: int,
    sort: OrderSort = OrderSort.CREATED_LAST,
    after: Position | None = None,
) -> Page[FoundOrder]:
    """Raises DatabaseUnavailable also when the search takes too long."""
    key = _ORDER_KEYS[sort]
    conditions = [*_of_orders(wanted, now), *([key.behind(after)] if after is not None else ())]
    search = _Search(database=database, listed=_ORDERS, conditions=conditions, key=key, limit=limit + 1)
    rows = await search.rows()
    found = tuple(
        FoundOrder(order=order_of(row, now), created=row["created"], service=row["service"])
        for row in rows[:limit]
    )
    return Page(found, Position(found[-1].order.id) if len(rows) > limit else None)


def _of_orders(wanted: OrderFilter, now: datetime) -> Iterator[_Condition]:
    if wanted.status is not None:
        yield from _with_status(wanted.status, now)
    if wanted.account is not None:
        yield _Condition("account", "c.account_id = {}", (wanted.account,))
    for services in ([wanted.service] if wanted.service is not None else [], wanted.services):
        if services and wanted.account is not None:
            yield _Condition("account", f"{{}} IN {_OF_SERVICES}", (wanted.account, services))
        elif services:
            yield _Condition("service", f"c.account_id IN {_OF_SERVICES}", (services,))
    if wanted.name is not None:
        words, text = _whole("=" + wanted.name.value), str(wanted.name)
        yield _Condition("name", f"({_CERTIFIED} OR {_NOT_CERTIFIED})", (words, [text]))
    if wanted.profile is not None:
        yield _Condition("profile", f"c.{_CERTIFICATE_HAS['profile']}", (wanted.profile,))


_CERTIFIED = "c.id = ANY (ARRAY(SELECT f.order_id FROM certificate f WHERE f.words @@ {}::tsquery))"
_NOT_CERTIFIED = "(c.status IN ('pending', 'invalid') AND c.identifiers @> {}::text[])"
_DEAD = "EXISTS (SELECT FROM authz z WHERE z.id = ANY (c.authzs) AND (z.status NOT IN ('pending', 'valid') OR z.expires <= {}))"
_WAITING = "EXISTS (SELECT FROM authz z WHERE z.id = ANY (c.authzs) AND z.status <> 'valid')"


def _with_status(status: OrderStatus, now: datetime) -> Iterator[_Condition]:
    """As `core.states.order_status` has it."""
    if status in {OrderStatus.VALID, OrderStatus.PROCESSING}:
        yield _Condition(str(status), f"c.status = '{status}'", ())
        return
    yield _Condition("open", "c.status IN ('pending', 'invalid')", ())
    if status is OrderStatus.INVALID:
        yield _Condition("dead", f"(c.status = 'invalid' OR c.expires <= {{}} OR {_DEAD})", (now, now))
    else:
        yield _Condition("alive", f"c.status = 'pending' AND c.expires > {{}} AND NOT {_DEAD}", (now, now))
        yield _Condition("waiting", _WAITING if status is OrderStatus.PENDING else f"NOT {_WAITING}", ())


# ---------------------------------------------------------------- accounts


class AccountSort(StrEnum):
    CREATED = "created"
    CREATED_LAST = "-created"


_ACCOUNT_KEYS = {
    AccountSort.CREATED: _Key(id="id", indexes=(_Index(tells=frozenset({"id"})),)),
    AccountSort.CREATED_LAST: _Key(id="id", indexes=(_Index(tells=frozenset({"id"})),), descending=True),
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


_ACCOUNTS = _List(
    columns="""c.id, c.status, c.frozen, c.contact, c.thumbprint, c.eab_key_id, c.terms_agreed, c.created, c.created_from,
        (SELECT k.service FROM eab_key k WHERE k.id = c.eab_key_id) AS service""",
    source="account",
    finds=frozenset({"eab_key", "thumbprint", "service", "status", "frozen", "contact"}),
)
_ACCOUNT_HAS = {
    "status": "c.status = {}",
    "eab_key": "c.eab_key_id = {}",
    "thumbprint": "c.thumbprint = {}",
}


async def accounts(
    database: Database,
    wanted: AccountFilter,
    *,
    limit: int,
    sort: AccountSort = AccountSort.CREATED_LAST,
    after: Position | None = None,
) -> Page[AccountRecord]:
    """Raises DatabaseUnavailable also when the search takes too long."""
    key = _ACCOUNT_KEYS[sort]
    conditions = [*_of_accounts(wanted), *([key.behind(after)] if after is not None else ())]
    search = _Search(database=database, listed=_ACCOUNTS, conditions=conditions, key=key, limit=limit + 1)
    rows = await search.rows()
    found = tuple(_found_account(row) for row in rows[:limit])
    return Page(found, Position(found[-1].id) if len(rows) > limit else None)


def _found_account(row: Row) -> AccountRecord:
    fields = dict(row) | {"status": AccountStatus(row["status"]), "contact": tuple(row["contact"])}
    fields.pop("seen", None)
    return AccountRecord(**fields)


def _of_accounts(wanted: AccountFilter) -> Iterator[_Condition]:
    for name, text in _ACCOUNT_HAS.items():
        if (value := getattr(wanted, name)) is not None:
            yield _Condition(name, text, (value,))
    for services in ([wanted.service] if wanted.service is not None else [], wanted.services):
        if services:
            keys = "(SELECT k.id FROM eab_key k WHERE k.service = ANY ({}::text[]))"
            yield _Condition("service", f"c.eab_key_id IN {keys}", (services,))
    if wanted.frozen is not None:
        yield _Condition("frozen", f"c.frozen IS {'NOT ' if wanted.frozen else ''}NULL", ())
    if wanted.contact is not None:
        yield _Condition("contact", "c.contact @> {}::text[]", ([wanted.contact],))
