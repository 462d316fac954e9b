"""The database as a whole: read as it was at one moment, and written into an empty one.

Rows go in PostgreSQL's own text format (COPY), the same for every version. Unlogged tables stay behind: what is spent or
counted there must not come back. So do leases, which are of processes.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

import asyncpg

from acme_ca.core.actors import Actor
from acme_ca.storage import database
from acme_ca.storage.database import SchemaError
from acme_ca.storage.operations import record_event

if TYPE_CHECKING:
    from acme_ca.storage.database import Connection

_LEFT_OUT = ["schema_version", "lease"]

_TABLES = """
    SELECT c.relname AS name, array_agg(a.attname::text ORDER BY a.attnum) AS columns,
        ARRAY(SELECT p.relname::text FROM pg_constraint f JOIN pg_class p ON p.oid = f.confrelid
              WHERE f.conrelid = c.oid AND f.contype = 'f' AND p.oid <> c.oid) AS above
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relpersistence = 'p'
      AND c.relname <> ALL ($1::text[]) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    GROUP BY c.oid, c.relname ORDER BY c.relname"""

_COUNTERS = """
    SELECT c.relname AS name, a.attname AS column,
        pg_get_serial_sequence(format('%I.%I', n.nspname, c.relname), a.attname) AS sequence
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE n.nspname = current_schema() AND c.relkind = 'r' AND c.relpersistence = 'p' AND a.attidentity <> ''
    ORDER BY 1, 2"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlNumber:
    issuer: str
    shard: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """The newest of the audit."""

    id: int
    hash: str
    """SHA-256, hexadecimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a database must still say after it came back."""

    crls: tuple[CrlNumber, ...]
    revoked: Mapping[str, int]
    """How many certificates of each issuer are revoked or on hold."""
    seal: Seal | None


# ---------------------------------------------------------------- reading


class Snapshot:
    """The database at one moment, while others go on writing."""

    def __init__(self, connection: Connection, version: int) -> None:
        self._connection = connection
        self.version = version

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, dsn: str) -> AsyncIterator[Snapshot]:
        """Raises DatabaseUnavailable."""
        async with (
            database.patient(dsn) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            version: int = await connection.fetchval("SELECT max(version) FROM schema_version")
            yield cls(connection, version)

    async def tables(self) -> list[Table]:
        """In the order in which their rows can be written: none refers to a later one."""
        return await _tables(self._connection)

    async def copy(self, table: Table, sink: Callable[[bytes], Coroutine[Any, Any, None]]) -> int:
        """All its rows; how many there were."""
        tag = await self._connection.copy_from_table(table.name, columns=table.columns, output=sink)
        return _count(tag)

    async def counters(self) -> dict[str, int]:
        """The last number that each identity column gave out, by `table.column`. Ask when the rows are read."""
        rows = await self._connection.fetch(
            f'SELECT name, "column", pg_sequence_last_value(sequence::regclass) AS last FROM ({_COUNTERS}) AS counters'
        )
        return {f"{row['name']}.{row['column']}": row["last"] for row in rows if row["last"] is not None}

    async def standing(self) -> Standing:
        return await _standing(self._connection)


# ---------------------------------------------------------------- writing


class Refill:
    """An empty database that is filled in one transaction: nobody sees a part of it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, dsn: str, *, version: int) -> AsyncIterator[Refill]:
        """At the end, unless an exception ends it, the schema is brought up to date and all is kept.

        Raises SchemaError (the database is not empty, the version not known), DatabaseUnavailable.
        """
        async with database.patient(dsn) as connection, connection.transaction():
            await database.create(connection, version)
            yield cls(connection)
            await database.upgrade(connection)

    async def tables(self) -> list[Table]:
        """Those that have to be filled, in that order."""
        return await _tables(self._connection)

    async def fill(self, table: Table, rows: AsyncIterator[bytes]) -> int:
        """How many rows there were. Raises SchemaError: they are none of this table."""
        try:
            tag = await self._connection.copy_to_table(table.name, columns=table.columns, source=rows)
        except asyncpg.IntegrityConstraintViolationError as error:
            raise SchemaError(f"The rows of table {table.name} do not fit: {error}.") from None
        except asyncpg.DataError:  # its words would show what is in the row
            raise SchemaError(f"The rows of table {table.name} cannot be read.") from None
        return _count(tag)

    async def set_counters(self, counters: Mapping[str, int]) -> None:
        """Numbers that were given out are not given out again. Raises SchemaError: there is no such counter."""
        known = {
            f"{row['name']}.{row['column']}": row["sequence"]
            for row in await self._connection.fetch(_COUNTERS)
        }
        for name, last in counters.items():
            if name not in known:
                raise SchemaError(f"There is no counter {name}.")
            await self._connection.execute("SELECT setval($1::text::regclass, $2)", known[name], last)

    async def standing(self) -> Standing:
        return await _standing(self._connection)

    async def note(
        self, *, at: datetime, event: str, actor: Actor, object_: str, detail: Mapping[str, Any]
    ) -> None:
        """An audit event of this act."""
        await record_event(self._connection, at=at, event=event, actor=actor, object_=object_, detail=detail)


async def note(
    dsn: str, *, at: datetime, event: str, actor: Actor, object_: str, detail: Mapping[str, Any]
) -> None:
    """An audit event about the whole database. Raises DatabaseUnavailable."""
    async with database.patient(dsn) as connection:
        await record_event(connection, at=at, event=event, actor=actor, object_=object_, detail=detail)


async def has_note(dsn: str, *, at: datetime, event: str, object_: str) -> bool:
    """Whether this act is in the database, which may be empty. Raises DatabaseUnavailable."""
    async with database.patient(dsn) as connection:
        if await connection.fetchval("SELECT to_regclass('audit_event') IS NULL"):
            return False
        found: bool = await connection.fetchval(
            "SELECT EXISTS (SELECT FROM audit_event WHERE object = $1 AND event = $2 AND at = $3)",
            object_,
            event,
            at,
        )
        return found


# ---------------------------------------------------------------- parts


async def _tables(connection: Connection) -> list[Table]:
    rows = {row["name"]: row for row in await connection.fetch(_TABLES, _LEFT_OUT)}
    above = {name: set(row["above"]) & set(rows) for name, row in rows.items()}
    return [
        Table(name=name, columns=tuple(rows[name]["columns"]))
        for name in TopologicalSorter(above).static_order()
    ]


def _count(tag: str) -> int:
    return int(tag.rpartition(" ")[2])


async def _standing(connection: Connection) -> Standing:
    numbers = await connection.fetch("SELECT issuer_id, shard, number FROM crl ORDER BY issuer_id, shard")
    revoked = await connection.fetch(
        "SELECT issuer_id, count(*) FROM certificate WHERE revoked IS NOT NULL GROUP BY issuer_id ORDER BY 1"
    )
    seal = await connection.fetchrow("SELECT id, hash FROM audit_seal ORDER BY id DESC LIMIT 1")
    return Standing(
        crls=tuple(CrlNumber(issuer=row[0], shard=row[1], number=row[2]) for row in numbers),
        revoked={row[0]: row[1] for row in revoked},
        seal=None if seal is None else Seal(id=seal["id"], hash=seal["hash"].hex()),
    )
