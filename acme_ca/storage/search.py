"""Lists for operators: filtered, sorted, page by page.

A page begins behind the last row of the one before (keyset): rows that are added meanwhile are neither lost nor shown
twice, and the thousandth page costs what the first does. The SQL is put together from constants of the lists' own
files, for the filters that are set; every value is a parameter, and none of them is a pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from acme_ca.storage.database import Columns, Database, Row, from_json
from acme_ca.storage.times import FIRST_SHOWN, LAST_SHOWN

Item = TypeVar("Item")

STRIDE = 5000
"""Rows that are looked up in the order of the page before a list goes another way."""
SORTED = 250_000
"""Entries of an index that are read as a whole and sorted at most."""
LITTLE = 6_000
"""Rows of the table that are collected at once,"""
MANY = 100_000
"""and that are collected at most."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ended: the last row's sort value, where that is not its id, and its id."""

    id: str
    value: datetime | str | int | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    items: tuple[Item, ...]
    end: Position | None
    """None: nothing follows."""


@dataclass(frozen=True, slots=True)
class Condition:
    """`text` has a `{}` for each value. `on`: what it is about, in the words of `Index.tells`."""

    on: str
    text: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Tells of a row what conditions are about, so that none of the table is read for those that do not fit."""

    begins: str | None = None
    """The condition that makes it worth while; None: it has all rows."""
    tells: frozenset[str]
    sorting: frozenset[str] = frozenset()
    """Conditions that pick rows of it, which are sorted: it has not the order of the page. None: it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What rows are sorted by: a column, where it is not the id alone, and the id. `indexes`: the best first, that of all
    rows last.
    """

    id: str
    column: str | None = None
    indexes: tuple[Index, ...] = ()
    descending: bool = False
    table: str | None = None
    """Whose times are shown as `storage.times.within` reads them: where a page ended at the first or the last of these, it is
    looked up which time the row has.
    """

    @property
    def columns(self) -> list[str]:
        return [self.id] if self.column is None else [self.column, self.id]

    @property
    def names(self) -> str:
        return ", ".join(self.columns)

    def order(self, table: str) -> str:
        way = " DESC" if self.descending else ""
        return ", ".join(f"{table}.{column}{way}" for column in self.columns)

    def behind(self, after: Position) -> Condition:
        values = (after.id,) if self.column is None else (after.value, after.id)
        places = ", ".join("{}" for _ in values)
        if self.table is not None and after.value in {FIRST_SHOWN, LAST_SHOWN}:
            values = (after.id, after.id)
            places = f"(SELECT {self.column} FROM {self.table} WHERE {self.id} = {{}}), {{}}"
        way = "<" if self.descending else ">"
        return Condition(self.columns[0], f"({self.names}) {way} ({places})", values)

    def first(self, rows: Iterable[Row], limit: int) -> list[Row]:
        """Of several pages, in which a row may be more than once."""
        by_id = {row[self.id]: row for row in rows}
        ordered = sorted(
            by_id.values(), key=lambda row: [row[one] for one in self.columns], reverse=self.descending
        )
        return ordered[:limit]


class Statement:
    """The parameters of a statement, while its text is put together. `values`: those that it begins with."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    def where(self, conditions: Sequence[Condition]) -> str:
        return " AND ".join(self._text(condition) for condition in conditions) or "true"

    def _text(self, condition: Condition) -> str:
        first = len(self.values) + 1
        self.values += condition.values
        return condition.text.format(*(f"${first + n}" for n in range(len(condition.values))))


@dataclass(frozen=True, slots=True)
class List:
    """What is listed: its FROM, and the columns that are shown. `finds`: conditions that an index of the table finds."""

    columns: str
    source: str
    finds: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Which way is short depends on where in the order the rows are that fit, and no statistics know that.

    What an index tells is looked at there, for all rows if need be. Of the rows that are left STRIDE are looked up in the
    order of the page: what fits often enough is among them. What does not is collected through the indexes of its
    conditions, and sorted.
    """

    database: Database
    listed: List
    conditions: Sequence[Condition]
    key: Key
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

    async def _index(self) -> Index:
        """One in the order of the page, or with not too many rows to sort."""
        about = {None, *(one.on for one in self.conditions)}
        for index in self.key.indexes:
            if index.begins in about and (not index.sorting or await self._is_sorted_soon(index)):
                return index
        raise AssertionError("the last one has all rows, in order")

    async def _is_sorted_soon(self, index: Index) -> bool:
        picking = [one for one in self.conditions if one.on in index.sorting]
        return bool(picking) and await self._estimate(picking) <= SORTED

    async def _estimate(self, conditions: Sequence[Condition]) -> int:
        """How many rows PostgreSQL expects: exact enough for common values and for times."""
        statement = Statement()
        text = f"EXPLAIN (FORMAT JSON) SELECT FROM {self.listed.source} c WHERE {statement.where(conditions)}"
        (row,) = await self.database.search(text, *statement.values)
        return int(from_json(row[0])[0]["Plan"]["Plan Rows"])

    async def _looked_up(
        self, index: Index, told: Sequence[Condition], rest: Sequence[Condition], most: int | None
    ) -> tuple[list[Row], bool]:
        """Through the index, of the first `most` rows that it finds; whether these were all. None: of all."""
        statement = Statement()
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

    def _found(self, statement: Statement, told: Sequence[Condition], index: Index, most: int | None) -> str:
        fitting = f"SELECT {self.key.names} FROM {self.listed.source} c WHERE {statement.where(told)}"
        source = "f" if index.sorting else "c"
        if (
            index.sorting
        ):  # OFFSET 0: planned as if all of it were wanted, or it would walk in the order of the page
            fitting = f"SELECT {self.key.names} FROM ({fitting} OFFSET 0) f"
        return f"{fitting} ORDER BY {self.key.order(source)}" + ("" if most is None else f" LIMIT {most:d}")

    async def _collected(self, finding: Sequence[Condition]) -> list[Row]:
        """Through indexes for these alone."""
        statement = Statement()
        rest = [one for one in self.conditions if one not in finding]
        found = f"SELECT * FROM {self.listed.source} c WHERE {statement.where(finding)} OFFSET 0"
        return await self.database.search(
            f"""SELECT {self.listed.columns} FROM {self.listed.source} c WHERE c.{self.key.id} = ANY (ARRAY(
                    SELECT {self.key.id} FROM ({found}) c WHERE {statement.where(rest)}
                    ORDER BY {self.key.order("c")} LIMIT {self.limit:d}
                )) ORDER BY {self.key.order("c")}""",
            *statement.values,
        )


# ---------------------------------------------------------------- short lists


@dataclass(frozen=True, slots=True)
class By:
    """A column that a table is sorted by, in which nothing is NULL, and of which kind its values are. None: the id."""

    column: str | None = None
    kind: type[datetime | str | int] = str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A list that is short enough to be filtered and sorted as a whole for each page: some 100,000 rows.

    `source`: a SELECT of the rows, which can ask `moment` for `now`. `id`: a column that is unique there, of text in the
    order of its bytes. `filters`: conditions by name, with `{}` for what is wanted.
    """

    source: str
    columns: str
    id: str = "id"
    filters: Mapping[str, str]
    sorts: Mapping[str, By]

    def key(self, sort: str) -> Key:
        by = self.sorts[sort.removeprefix("-")]
        return Key(id=self.id, column=by.column, descending=sort.startswith("-"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A page of a table: what must hold, all of it (None: whatever); one of its sorts, with a minus the last one first; and
    behind what the page begins.
    """

    filters: Mapping[str, Any]
    sort: str
    after: Position | None = None
    limit: int


async def page(
    database: Database,
    table: Table,
    wanted: Wanted,
    *,
    now: datetime,
    read: Callable[[Columns], Item],
) -> Page[Item]:
    """Raises Problem (`search-too-long`)."""
    key, statement = table.key(wanted.sort), Statement(now)
    conditions = [
        Condition(name, table.filters[name], (value,))
        for name, value in wanted.filters.items()
        if value is not None
    ]
    if wanted.after is not None:
        conditions.append(key.behind(wanted.after))
    order = key.order("c")
    rows = await database.search(
        f"""WITH moment AS (SELECT $1::timestamptz AS now)
            SELECT {table.columns}, c.{key.columns[-1]} AS end_id, c.{key.columns[0]} AS end_value FROM (
                SELECT * FROM ({table.source}) c WHERE {statement.where(conditions)} ORDER BY {order} LIMIT {wanted.limit + 1:d}
            ) c ORDER BY {order}""",
        *statement.values,
    )
    found = [dict(row) for row in rows[: wanted.limit]]
    ends = [(row.pop("end_id"), row.pop("end_value")) for row in found]
    id_, value = ends[-1] if len(rows) > wanted.limit else (None, None)
    end = None if id_ is None else Position(id_, None if key.column is None else value)
    return Page(tuple(map(read, found)), end)


NEVER = "'9999-12-31T23:59:59Z'::timestamptz"
"""Where a time has not come and is not set: it sorts as the last."""
SOON = "ends > (SELECT now FROM moment) AND ends <= (SELECT now FROM moment) + {}::interval"
"""A filter of tables with a column `ends`: what is not over, and will be within that time."""
CREATED = {"created_since": "created >= {}", "created_before": "created < {}"}


def holds(*columns: str, lists: Sequence[str] = ()) -> str:
    """A condition: the text is in one of them, in whatever case. `lists`: of texts, in the column `body`.

    The collation is said: ids have one that knows the case of A to Z alone, and both sides must be made small alike.
    """
    in_columns = f'strpos({_small(columns)}, lower({{0}} COLLATE "default")) > 0'
    if not lists:
        return in_columns
    return f"({in_columns} OR strpos({_small([_texts_in(one) for one in lists])}, {_AS_JSON}) > 0)"


def _small(columns: Sequence[str]) -> str:
    return f"lower(concat_ws(E'\\n', {', '.join(columns)}) COLLATE \"default\")"


def _texts_in(field: str) -> str:
    """As JSON writes them, without what is around them and between them. A tenth of what taking it apart costs."""
    inside = f"substr(body ->> '{field}', 3, greatest(length(body ->> '{field}') - 4, 0))"
    return f"""replace({inside}, '", "', E'\\n')"""


_AS_JSON = """(SELECT substr(quoted, 2, length(quoted) - 2) FROM (SELECT to_json(lower({0} COLLATE "default"))::text AS quoted) once)"""


# ---------------------------------------------------------------- texts


def whole(word: str) -> str:
    """The word in the language of tsquery, in which only quotes and backslashes mean anything inside quotes."""
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"
