"""Connections, the schema and its upgrades."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

SCHEMA_VERSION = 1
OLDEST_POSTGRESQL = 15
APPLICATION_NAME = "acme-ca"

_SCHEMA_LOCK = 0x61636D65  # "acme": pg_advisory_xact_lock's key while the schema is made or upgraded
_UPGRADE_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

Row = asyncpg.Record
if TYPE_CHECKING:  # generic in its stubs, not when it runs
    Connection = asyncpg.Connection[Row] | asyncpg.pool.PoolConnectionProxy[Row]


class DatabaseUnavailable(Exception):  # noqa: N818  the caller's word for it
    """PostgreSQL did not answer or refused the connection; nothing is known about the statement."""


class SchemaError(Exception):
    """The database is not one that this version can use: one sentence for the operator."""


class Database:
    """Two pools on one PostgreSQL: what `durable` ran is on disk when it returns; what `quick` ran is visible at
    once but a crash of PostgreSQL may lose the last fraction of a second (design, decision 6).

    asyncpg prepares each statement once per connection. Connections are not reset between uses: no code here
    leaves session state behind.
    """

    def __init__(self, durable: asyncpg.Pool[Row], quick: asyncpg.Pool[Row]) -> None:
        self.durable = durable
        self.quick = quick

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, dsn: str, *, connections: int) -> AsyncIterator[Database]:
        """Raises DatabaseUnavailable."""
        with unavailable_when_lost():
            async with _pool(dsn, connections, "on") as durable, _pool(dsn, connections, "off") as quick:
                yield cls(durable, quick)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A durable transaction, for the few acts that one statement cannot express."""
        with unavailable_when_lost():
            async with self.durable.acquire() as connection, connection.transaction():
                yield connection

    async def fetch(self, query: str, *arguments: Any) -> list[Row]:
        with unavailable_when_lost():
            return await self.quick.fetch(query, *arguments)

    async def fetchrow(self, query: str, *arguments: Any) -> Row | None:
        with unavailable_when_lost():
            return await self.quick.fetchrow(query, *arguments)

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        with unavailable_when_lost():
            return await self.quick.fetchval(query, *arguments)

    async def fetchrow_durably(self, query: str, *arguments: Any) -> Row | None:
        with unavailable_when_lost():
            return await self.durable.fetchrow(query, *arguments)

    async def execute(self, query: str, *arguments: Any) -> int:
        """The number of rows touched."""
        with unavailable_when_lost():
            tag = await self.quick.execute(query, *arguments)
        return int(tag.rpartition(" ")[2])


@contextlib.contextmanager
def unavailable_when_lost() -> Iterator[None]:
    try:
        yield
    except (
        OSError,
        asyncpg.PostgresConnectionError,
        asyncpg.CannotConnectNowError,
        asyncpg.TooManyConnectionsError,
        asyncpg.OperatorInterventionError,
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.InterfaceError,
    ) as error:
        raise DatabaseUnavailable(f"{type(error).__name__}: {error}") from error


def _pool(dsn: str, connections: int, synchronous_commit: str) -> asyncpg.Pool[Row]:
    return asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=connections,
        command_timeout=30,
        timeout=10,
        max_inactive_connection_lifetime=0,
        reset=_keep,
        server_settings={
            "application_name": APPLICATION_NAME,
            "synchronous_commit": synchronous_commit,
            "timezone": "UTC",
            "jit": "off",
            "plan_cache_mode": "force_generic_plan",
        },
    )


async def _keep(_: Connection) -> None:
    """Instead of asyncpg's reset query at every release (0.9 ms an issuance)."""


# ---------------------------------------------------------------- JSON columns


def to_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, separators=(",", ":"))


def from_json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


# ---------------------------------------------------------------- the schema


async def migrate(dsn: str) -> None:
    """Create the schema in an empty database, or bring an older one up to date: all or nothing, one process at a
    time. Raises SchemaError (too old a PostgreSQL, too new a database), DatabaseUnavailable.
    """
    with unavailable_when_lost():
        connection = await asyncpg.connect(
            dsn, timeout=10, server_settings={"application_name": APPLICATION_NAME}
        )
        try:
            _check_server(connection)
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
                await _bring_up_to_date(connection)
        finally:
            await connection.close()


def _check_server(connection: asyncpg.Connection[Row]) -> None:
    version = connection.get_server_version()
    if version.major < OLDEST_POSTGRESQL:
        raise SchemaError(
            f"ACME_CA_DATABASE_URL names a PostgreSQL {version.major}; version {OLDEST_POSTGRESQL} or later is needed."
        )


async def _bring_up_to_date(connection: asyncpg.Connection[Row]) -> None:
    if await connection.fetchval("SELECT to_regclass('schema_version')") is None:
        await connection.execute(schema_file().read_text(encoding="utf-8"))
        return
    found = await connection.fetchval("SELECT max(version) FROM schema_version")
    if found > SCHEMA_VERSION:
        raise SchemaError(
            f"The database of ACME_CA_DATABASE_URL has schema version {found}, this acme-ca knows {SCHEMA_VERSION}: "
            "run the newer acme-ca, or restore a backup."
        )
    for version, script in upgrades():
        if version > found:
            await connection.execute(script)
            await connection.execute("INSERT INTO schema_version (version) VALUES ($1)", version)


def schema_file() -> Path:
    """schema.sql: inside the package when installed from a wheel, at the top of a checkout."""
    packaged = Path(str(resources.files("acme_ca"))) / "schema.sql"
    return packaged if packaged.is_file() else packaged.parents[1] / "schema.sql"


def upgrades() -> list[tuple[int, str]]:
    """The numbered upgrade files, in order: (schema version they lead to, SQL)."""
    folder = Path(__file__).with_name("upgrades")
    files = sorted(folder.glob("*.sql")) if folder.is_dir() else []
    return [
        (int(match[1]), file.read_text(encoding="utf-8"))
        for file in files
        if (match := _UPGRADE_FILE.fullmatch(file.name))
    ]
