"""Lists for operators: filtered, sorted, page by page.

A page begins behind the last row of the one before (keyset): rows that are added meanwhile are neither lost nor shown
twice, and the thousandth page costs what the first does. The SQL is put together from constants of this file, for
the filters that are set; every value is a parameter, and none of them is a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

from acme_ca.core import revocation
from acme_ca.core.identifiers import Identifier
from acme_ca.core.model import (
    AccountId,
    EabKeyId,
    IssuerId,
    Order,
    OrderId,
    ProfileRef,
    RevocationReason,
    Serial,
)
from acme_ca.core.states import AccountStatus, CertificateState, OrderStatus, certificate_state
from acme_ca.storage.accounts import AccountRecord
from acme_ca.storage.database import Database, Row
from acme_ca.storage.orders import order_of

Item = TypeVar("Item")

STRIDE = 5000
"""Rows that a list looks at in the order of its page before it goes another way."""
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


@dataclass(frozen=True, slots=True)
class _Key:
    """What rows are sorted by: a column, where it is not the id alone, and the id; and the indexes that have this order."""

    id: str
    column: str | None = None
    descending: bool = False
    covers: frozenset[str] = frozenset()
    """What the index with this order tells of a row."""
    indexes: tuple[str, ...] = ()
    """What other indexes begin with that go on in this order, the narrowest first."""

    @property
    def columns(self) -> list[str]:
        return [self.id] if self.column is None else [self.column, self.id]

    @property
    def order(self) -> str:
        return ", ".join(f"{column} DESC" if self.descending else column for column in self.columns)

    def behind(self, after: Position) -> _Condition:
        values = (after.id,) if self.column is None else (after.value, after.id)
        places = ", ".join("{}" for _ in values)
        way = "<" if self.descending else ">"
        return _Condition(self.columns[0], f"({', '.join(self.columns)}) {way} ({places})", values)

    def along(self, conditions: Sequence[_Condition]) -> list[_Condition]:
        """Those that bound a walk along an index with this order: rows that are passed over for them cost nothing."""
        first = next((name for name in self.indexes if any(one.on == name for one in conditions)), None)
        return [one for one in conditions if one.on in {self.columns[0], first}]


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
    """What is listed: its FROM, and the columns that are shown."""

    columns: str
    source: str


async def _rows(
    database: Database, listed: _List, conditions: Sequence[_Condition], key: _Key, *, few: bool, limit: int
) -> list[Row]:
    """The first `limit` rows.

    Which way is short depends on where in the order the rows are that fit, and no statistics know that. Conditions that
    the index of the order holds in itself are looked at there, for all rows if need be. With others: first a walk in the
    order of the page that gives up after STRIDE rows; what fits often enough is found on it. What does not is collected
    through the indexes of its conditions, and sorted. `few`: it is known to be little.
    """
    if all(condition.on in key.covers for condition in conditions):
        return await _glance(database, listed, conditions, key, limit=limit)
    bounds = key.along(conditions)
    rest = [condition for condition in conditions if condition not in bounds]
    if not few:
        rows = await _walk(database, listed, bounds, rest, key=key, limit=limit)
        if len(rows) == limit or not rest:
            return rows
    return await _collect(database, listed, conditions, key, limit=limit)


async def _glance(
    database: Database, listed: _List, conditions: Sequence[_Condition], key: _Key, *, limit: int
) -> list[Row]:
    """Reads an index, and of the table only the rows of the page."""
    statement = _Statement()
    fitting = f"SELECT {key.id} FROM {listed.source} c WHERE {statement.where(conditions)} ORDER BY {key.order} LIMIT {limit:d}"
    return await database.search(_these(listed, fitting, key), *statement.values)


async def _collect(
    database: Database, listed: _List, conditions: Sequence[_Condition], key: _Key, *, limit: int
) -> list[Row]:
    """OFFSET 0 keeps the planner from walking."""
    statement = _Statement()
    columns = ", ".join(key.columns)
    found = f"SELECT {columns} FROM {listed.source} c WHERE {statement.where(conditions)} OFFSET 0"
    fitting = f"SELECT {key.id} FROM ({found}) f ORDER BY {key.order} LIMIT {limit:d}"
    return await database.search(_these(listed, fitting, key), *statement.values)


def _these(listed: _List, ids: str, key: _Key) -> str:
    return f"SELECT {listed.columns} FROM {listed.source} c WHERE {key.id} = ANY (ARRAY({ids})) ORDER BY {key.order}"


async def _walk(
    database: Database,
    listed: _List,
    bounds: Sequence[_Condition],
    rest: Sequence[_Condition],
    *,
    key: _Key,
    limit: int,
) -> list[Row]:
    statement = _Statement()
    walked = f"SELECT * FROM {listed.source} c WHERE {statement.where(bounds)} ORDER BY {key.order} LIMIT {STRIDE if rest else limit:d}"
    return await database.search(
        f"SELECT {listed.columns} FROM ({walked}) c WHERE {statement.where(rest)} ORDER BY {key.order} LIMIT {limit:d}",
        *statement.values,
    )


# ---------------------------------------------------------------- certificates


class CertificateSort(StrEnum):
    """With a minus: the last one first."""

    RECORDED = "recorded"
    RECORDED_LAST = "-recorded"
    NOT_AFTER = "not_after"
    NOT_AFTER_LAST = "-not_after"
    SERIAL = "serial"
    SERIAL_LAST = "-serial"


_COVERED = frozenset({"recorded", "not_after", "good", "issuer", "profile", "service", "services"})
_BY_RECORDED = _Key("serial", "recorded", covers=_COVERED, indexes=("revoked", "service", "account"))
_BY_END = _Key("serial", "not_after", covers=_COVERED, indexes=("revoked",))
_BY_SERIAL = _Key("serial")
_CERTIFICATE_KEYS = {
    CertificateSort.RECORDED: _BY_RECORDED,
    CertificateSort.RECORDED_LAST: replace(_BY_RECORDED, descending=True),
    CertificateSort.NOT_AFTER: _BY_END,
    CertificateSort.NOT_AFTER_LAST: replace(_BY_END, descending=True),
    CertificateSort.SERIAL: _BY_SERIAL,
    CertificateSort.SERIAL_LAST: replace(_BY_SERIAL, descending=True),
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
)
_FEW = {"name", "beginning", "spki_sha256", "order", "held"}
"""Conditions that hardly ever leave many."""


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
    conditions, key = list(_of_certificates(wanted, now)), _CERTIFICATE_KEYS[sort]
    few = any(condition.on in _FEW for condition in conditions)
    if after is not None:
        conditions.append(key.behind(after))
    rows = await _rows(database, _CERTIFICATES, conditions, key, few=few, limit=limit + 1)
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


_CERTIFICATE_HAS = {
    "service": "service = {}",
    "profile": "profile = {}",
    "issuer": "issuer_id = {}",
    "account": "account_id = {}",
    "order": "order_id = {}",
    "spki_sha256": "spki_sha256 = {}",
}


def _of_certificates(wanted: CertificateFilter, now: datetime) -> Iterator[_Condition]:
    for name, text in _CERTIFICATE_HAS.items():
        if (value := getattr(wanted, name)) is not None:
            yield _Condition(name, text, (value,))
    if wanted.services:
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
    for word in (wanted.text or "").lower().split():
        yield _word(word)


def _in_state(state: CertificateState, now: datetime) -> Iterator[_Condition]:
    """As `core.states.certificate_state` has it."""
    if state is CertificateState.ON_HOLD:
        yield _Condition("held", "reason = 6", ())
    elif state is CertificateState.REVOKED:
        yield _Condition("revoked", "revoked IS NOT NULL", ())
        yield _Condition("reason", "reason <> 6", ())
    else:
        yield _Condition("good", "revoked IS NULL", ())
    if state is CertificateState.GOOD:
        yield _Condition("not_after", "not_after > {}", (now,))
    if state is CertificateState.EXPIRED:
        yield _Condition("not_after", "not_after <= {}", (now,))


def _in_time(wanted: CertificateFilter) -> Iterator[_Condition]:
    if wanted.ends_after is not None:
        yield _Condition("not_after", "not_after > {}", (wanted.ends_after,))
    if wanted.ends_until is not None:
        yield _Condition("not_after", "not_after <= {}", (wanted.ends_until,))
    if wanted.recorded_since is not None:
        yield _Condition("recorded", "recorded >= {}", (wanted.recorded_since,))
    if wanted.recorded_until is not None:
        yield _Condition("recorded", "recorded < {}", (wanted.recorded_until,))


_SERIAL = "serial BETWEEN {} AND {}"
_DIGITS = re.compile(r"[0-9a-f]{1,32}")


def _word(word: str) -> _Condition:
    texts, values = ["words @@ {}::tsquery", "service = {}"], [_whole(word) + ":*", word]
    digits = word.replace(":", "")
    if len(digits) >= SERIAL_BEGINNING and _DIGITS.fullmatch(digits):
        texts.append(_SERIAL)
        values += _range(digits)
    if len(digits) == len("0" * 32):
        texts += ["account_id = {}", "order_id = {}"]
        values += [word, word]
    return _Condition("text", f"({' OR '.join(texts)})", tuple(values))


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


_BY_ID = _Key("id", indexes=("account", "open"))
_ORDER_KEYS = {
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
_ORDERS = _List(
    columns=f"""c.id AS order_id, c.account_id AS order_account, c.status AS order_status, c.identifiers, c.authzs, c.expires,
        c.not_before, c.not_after, c.profile, c.profile_version, c.issuer_id, c.serial, c.replaces, c.renews, c.error, c.created, c.id,
        (SELECT array_agg(z.status) FROM authz z WHERE z.id = ANY (c.authzs) AND c.status = 'pending') AS authz_statuses,
        (SELECT min(z.expires) FROM authz z WHERE z.id = ANY (c.authzs) AND c.status = 'pending') AS authz_expires,
        {_SERVICE.format("c.account_id")} AS service""",
    source="orders",
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
    conditions, key = list(_of_orders(wanted, now)), _ORDER_KEYS[sort]
    few = wanted.name is not None or wanted.status is OrderStatus.PROCESSING
    if after is not None:
        conditions.append(key.behind(after))
    rows = await _rows(database, _ORDERS, conditions, key, few=few, limit=limit + 1)
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
    if wanted.service is not None:
        yield _Condition("service", f"c.account_id IN {_OF_SERVICES}", ([wanted.service],))
    if wanted.services:
        yield _Condition("services", f"c.account_id IN {_OF_SERVICES}", (wanted.services,))
    if wanted.name is not None:
        words, text = _whole("=" + wanted.name.value), str(wanted.name)
        yield _Condition("name", f"({_CERTIFIED} OR {_NOT_CERTIFIED})", (words, [text]))
    if wanted.profile is not None:
        yield _Condition("profile", "c.profile = {}", (wanted.profile,))


_CERTIFIED = "c.id = ANY (ARRAY(SELECT f.order_id FROM certificate f WHERE f.words @@ {}::tsquery))"
_NOT_CERTIFIED = "(c.status IN ('pending', 'invalid') AND c.identifiers @> {}::text[])"
_DEAD = "EXISTS (SELECT FROM authz z WHERE z.id = ANY (c.authzs) AND (z.status NOT IN ('pending', 'valid') OR z.expires <= {}))"
_WAITING = "EXISTS (SELECT FROM authz z WHERE z.id = ANY (c.authzs) AND z.status <> 'valid')"


def _with_status(status: OrderStatus, now: datetime) -> Iterator[_Condition]:
    """As `core.states.order_status` has it."""
    if status in {OrderStatus.VALID, OrderStatus.PROCESSING}:
        yield _Condition("status", f"c.status = '{status}'", ())
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
    AccountSort.CREATED: _Key("id"),
    AccountSort.CREATED_LAST: _Key("id", descending=True),
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
    conditions, key = list(_of_accounts(wanted)), _ACCOUNT_KEYS[sort]
    if after is not None:
        conditions.append(key.behind(after))
    rows = await _rows(database, _ACCOUNTS, conditions, key, few=False, limit=limit + 1)
    found = tuple(_found_account(row) for row in rows[:limit])
    return Page(found, Position(found[-1].id) if len(rows) > limit else None)


def _found_account(row: Row) -> AccountRecord:
    fields = dict(row) | {"status": AccountStatus(row["status"]), "contact": tuple(row["contact"])}
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
