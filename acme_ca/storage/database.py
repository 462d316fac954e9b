"""Connections, the schema and its upgrades."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import asyncpg

from acme_ca.core.codes import Code
from acme_ca.core.problems import Problem, malformed
from acme_ca.storage import roles

SCHEMA_VERSION = 1
OLDEST_POSTGRESQL = 15
APPLICATION_NAME = "acme-ca"

_CONNECT_TIMEOUT = 10.0
_STATEMENT_TIMEOUT = 30.0
_PATIENCE = 5.0
_CLOSE_TIMEOUT = 5.0
"""Seconds."""

SEARCH_LIMIT = 10
"""Seconds."""
_SEARCHING = f"""SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL statement_timeout = '{SEARCH_LIMIT}s';
    SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL random_page_cost = 1.1"""

_SCHEMA_LOCK = 0x61636D65  # "acme": pg_advisory_xact_lock's key while the schema is made or upgraded
_UPGRADE_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")

Row = asyncpg.Record
Columns = Row | Mapping[str, Any]
"""A row, or some columns of one."""
if TYPE_CHECKING:  # generic in its stubs, not when it runs
    Connection = asyncpg.Connection[Row]


class DatabaseUnavailable(Exception):  # noqa: N818  the caller's word for it
    """PostgreSQL did not answer or refused the connection; nothing is known about the statement."""


class SchemaError(Exception):
    """The database is not one that this version can use: one sentence for the operator."""


class Database:
    """Two sets of connections to one PostgreSQL: what `_durable` ran is on disk when it returns; what `_quick` ran is
    visible at once but a crash of PostgreSQL may lose the last fraction of a second: docs/architecture.md, Durability.

    asyncpg prepares each statement once per connection. Connections are not reset between uses: no code here
    leaves session state behind.
    """

    def __init__(self, durable: _Connections, quick: _Connections, *, searches: int) -> None:
        """`searches`: how many may run at once, so that those of operators leave connections to issuing."""
        self._durable = durable
        self._quick = quick
        self._searches = asyncio.Semaphore(searches)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, dsn: str, *, connections: int) -> AsyncIterator[Database]:
        """At most `connections` of each set. Raises DatabaseUnavailable."""
        async with (
            _Connections(dsn, connections, "on", as_server=True) as durable,
            _Connections(dsn, connections, "off", as_server=True) as quick,
        ):
            yield cls(durable, quick, searches=max(1, connections // 4))

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A durable transaction, for the few acts that one statement cannot express."""
        async with self._durable.lend() as connection, connection.transaction():
            yield connection

    async def fetch(self, query: str, *arguments: Any) -> list[Row]:
        async with self._quick.lend() as connection:
            return await connection.fetch(query, *arguments)

    async def fetchrow(self, query: str, *arguments: Any) -> Row | None:
        async with self._quick.lend() as connection:
            return await connection.fetchrow(query, *arguments)

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        async with self._quick.lend() as connection:
            return await connection.fetchval(query, *arguments)

    async def fetchrow_durably(self, query: str, *arguments: Any) -> Row | None:
        async with self._durable.lend() as connection:
            return await connection.fetchrow(query, *arguments)

    async def search(self, query: str, *arguments: Any) -> list[Row]:
        """Rows of a statement that was put together for a filter: planned for these very values, cut off after
        SEARCH_LIMIT, on one core, of indexes that are in memory, and not kept among the prepared statements that issuing needs.

        Raises Problem (`search-too-long`).
        """
        async with self._searches, self._quick.lend() as connection:
            try:
                async with connection.transaction(readonly=True):
                    await connection.execute(_SEARCHING)
                    statement = await connection.prepare(query)
                    return await statement.fetch(*arguments)
            except asyncpg.QueryCanceledError:
                raise _too_long() from None

    async def change(self, query: str, *arguments: Any) -> Row | None:
        """The row of a durable statement that was put together for a filter: planned for these very values."""
        async with self._durable.lend() as connection, connection.transaction():
            await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            statement = await connection.prepare(query)
            return await statement.fetchrow(*arguments)

    async def execute(self, query: str, *arguments: Any) -> int:
        """The number of rows touched."""
        async with self._quick.lend() as connection:
            tag = await connection.execute(query, *arguments)
        return int(tag.rpartition(" ")[2])


@contextlib.asynccontextmanager
async def patient(dsn: str) -> AsyncIterator[Connection]:
    """A connection for work on the whole database, whose statements may take hours. Raises DatabaseUnavailable."""
    async with _Connections(dsn, 1, "on", limit=None) as connections, connections.lend() as connection:
        await connection.execute("SET statement_timeout = 0")  # whatever the server's own default is
        await connection.execute("SET idle_in_transaction_session_timeout = 0")
        yield connection


class _Connections:
    """Up to `most` connections, opened when needed, the last used first.

    asyncpg's own pool makes a task of every release, a tenth of what a short statement costs in all.
    """

    def __init__(
        self,
        dsn: str,
        most: int,
        synchronous_commit: str,
        *,
        limit: float | None = _STATEMENT_TIMEOUT,
        as_server: bool = False,
    ) -> None:
        """`limit`: seconds that a statement may take; None: any time. `as_server`: with the rights of a server alone
        (`storage.roles`), where the database knows that role.
        """
        self._dsn = dsn
        self._as_server = as_server
        self._limit = limit
        self._settings = {
            "application_name": APPLICATION_NAME,
            "synchronous_commit": synchronous_commit,
            "timezone": "UTC",
            "jit": "off",
            # Each statement here is a few look-ups by key: planning it again for its values costs more than it finds.
            "plan_cache_mode": "force_generic_plan",
        }
        self._places = asyncio.Semaphore(most)
        self._idle: list[asyncpg.Connection[Row]] = []

    async def __aenter__(self) -> Self:
        async with self.lend():  # a database that is out of reach is found out at the start
            return self

    async def __aexit__(self, *_: object) -> None:
        while self._idle:
            connection = self._idle.pop()
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=_CLOSE_TIMEOUT)

    def lend(self) -> _Loan:
        return _Loan(self)

    async def take(self) -> asyncpg.Connection[Row]:
        if self._places.locked():
            async with asyncio.timeout(_PATIENCE):
                await self._places.acquire()
        else:
            await self._places.acquire()
        try:
            while self._idle:
                if not (connection := self._idle.pop()).is_closed():
                    return connection
            return await self._connect()
        except BaseException:
            self._places.release()
            raise

    async def _connect(self) -> asyncpg.Connection[Row]:
        connection = await asyncpg.connect(
            self._dsn,
            timeout=_CONNECT_TIMEOUT,
            command_timeout=self._limit,
            server_settings=self._settings,
        )
        if self._as_server:
            try:
                await roles.take(connection)
            except BaseException:
                connection.terminate()
                raise
        return connection

    def give_back(self, connection: asyncpg.Connection[Row], *, usable: bool) -> None:
        if usable and not connection.is_closed():
            self._idle.append(connection)
        else:
            connection.terminate()
        self._places.release()


class _Loan:
    """One use of a connection. Cut off in the middle of a statement, it is not used again."""

    __slots__ = ("_connection", "_from")

    def __init__(self, connections: _Connections) -> None:
        self._from = connections

    async def __aenter__(self) -> asyncpg.Connection[Row]:
        try:
            self._connection = await self._from.take()
        except _UNAVAILABLE as error:
            raise _unavailable(error) from error
        return self._connection

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        answered = error is None or isinstance(error, (asyncpg.PostgresError, Problem, SchemaError))
        self._from.give_back(self._connection, usable=answered)
        if isinstance(error, _UNAVAILABLE):
            raise _unavailable(error) from error


_UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.OperatorInterventionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


def _too_long() -> Problem:
    return malformed(
        f"The search took longer than {SEARCH_LIMIT} seconds and was cut off: give more filters, or a narrower time.",
        code=Code.SEARCH_TOO_LONG,
    )


def _unavailable(error: BaseException) -> DatabaseUnavailable:
    return DatabaseUnavailable(f"{type(error).__name__}: {error}")


# ---------------------------------------------------------------- JSON columns


_COMPACT = json.JSONEncoder(separators=(",", ":"))


def to_json(value: Any) -> str | None:
    return None if value is None else _COMPACT.encode(value)


def from_json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


# ---------------------------------------------------------------- the schema


async def migrate(dsn: str) -> bool:
    """Create the schema in an empty database, or bring an older one up to date: all or nothing, one process at a
    time. Returns whether servers have a role of their own. Raises SchemaError (too old a PostgreSQL, too new a
    database), DatabaseUnavailable.
    """
    async with _Connections(dsn, 1, "on") as connections, connections.lend() as connection:
        _check_server(connection)
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
            await _bring_up_to_date(connection)
            return await roles.grant(connection)


def _check_server(connection: asyncpg.Connection[Row]) -> None:
    version = connection.get_server_version()
    if version.major < OLDEST_POSTGRESQL:
        raise SchemaError(
            f"ACME_CA_DATABASE_URL names a PostgreSQL {version.major}; version {OLDEST_POSTGRESQL} or later is needed."
        )


async def create(connection: Connection, version: int) -> None:
    """In the caller's transaction: the schema as it was at `version`, in an empty database, where nobody else makes one
    meanwhile. Raises SchemaError: the PostgreSQL is too old, the database is not empty, the version is not known.
    """
    _check_server(connection)
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
    if await connection.fetchval(_ANYTHING):
        raise SchemaError(
            "The database of ACME_CA_DATABASE_URL is not empty; a backup is restored into an empty one."
        )
    await connection.execute(schema_file(version).read_text(encoding="utf-8"))


async def upgrade(connection: Connection) -> None:
    """In the caller's transaction: bring the schema up to date. Raises SchemaError."""
    await _bring_up_to_date(connection)


_ANYTHING = """SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%')"""


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


def schema_file(version: int = SCHEMA_VERSION) -> Path:
    """schema.sql: inside the package when installed from a wheel, at the top of a checkout. Of an older version, which a
    backup may have: `schema_0001.sql` beside the upgrade that ended it. Raises SchemaError.
    """
    if version != SCHEMA_VERSION:
        older = Path(__file__).with_name("upgrades") / f"schema_{version:04}.sql"
        if not older.is_file():
            raise SchemaError(
                f"The backup has schema version {version}, and this acme-ca knows {SCHEMA_VERSION}: use the acme-ca that made it, "
                "or a newer one."
            )
        return older
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
