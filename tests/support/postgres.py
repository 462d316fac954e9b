"""A PostgreSQL for one test process, and fresh databases in it."""

from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from acme_ca.storage.embedded import EmbeddedPostgres

SCHEMA = Path(__file__).resolve().parents[2] / "schema.sql"
TEMPLATE = "template_acme"
# A test's data is worth nothing after a crash.
QUICK = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "max_connections": "200",
}


class Cluster:
    """Databases are copied from a template that is made once."""

    def __init__(self, directory: Path) -> None:
        self._server = EmbeddedPostgres(directory, settings=QUICK)
        self._numbers = count(1)
        self._has_template = False
        self._url = ""

    def start(self) -> None:
        self._url = self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def url(self, database: str) -> str:
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{database}"))

    async def create(self) -> str:
        """A database with `schema.sql` applied; returns its name."""
        if not self._has_template:
            await self._make_template()
        return await self._create(f"CREATE DATABASE {{}} TEMPLATE {TEMPLATE}")

    async def copy(self, database: str) -> str:
        """A database like `database`, which nobody may be connected to; returns its name."""
        return await self._create(f"CREATE DATABASE {{}} TEMPLATE {database}")

    async def create_empty(self, *, locale: str = "C") -> str:
        """A database without any table; returns its name."""
        return await self._create(f"CREATE DATABASE {{}} TEMPLATE template0 LOCALE '{locale}'")

    async def drop(self, name: str) -> None:
        await self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def _create(self, statement: str) -> str:
        name = f"test_{next(self._numbers)}"
        await self._execute(statement.format(name))
        return name

    async def _make_template(self) -> None:
        await self._execute(f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)")
        await self._execute(f"CREATE DATABASE {TEMPLATE}")
        await self._execute(SCHEMA.read_text(), database=TEMPLATE)
        self._has_template = True

    async def _execute(self, statement: str, *, database: str = "postgres") -> None:
        connection = await asyncpg.connect(self.url(database))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()
