"""A command that no server waits for: it serves the admin API for itself. Loads all of a server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator

import aiohttp
from aiohttp import web

from acme_ca import log
from acme_ca.app import Application, take_up
from acme_ca.ca.hierarchy import Hierarchy
from acme_ca.ca.served import OpenKey
from acme_ca.cli.options import operator, with_password
from acme_ca.cli.remote import LOCAL, Api, asking, made
from acme_ca.config import Settings
from acme_ca.server import database, hierarchy, weakkeys
from acme_ca.storage.database import Database


@contextlib.contextmanager
def own(
    settings: Settings, *, as_json: bool = False, seed: Hierarchy | None = None, keys: bool = False
) -> Iterator[Api]:
    """No server runs: this process serves the API for itself, on a socket that nobody else finds. `seed`: make the database
    when there is none yet, and this CA known to it. `keys`: with those of the CA. Raises ConfigurationError.
    """
    settings = with_password(settings, new=False) if keys else settings
    with (
        database.reached(settings, make=seed is not None) as dsn,
        tempfile.TemporaryDirectory(prefix="acme-ca-") as folder,
        asyncio.Runner() as runner,
    ):
        path = os.path.join(folder, "own.sock")  # noqa: PTH118  a name for sockets
        if seed is not None:
            runner.run(_take_up(seed, dsn))
        serving = _serving(settings, dsn, path, hierarchy.keys(settings) if keys else None)
        runner.run(serving.__aenter__())
        try:
            connector = made(runner, lambda: aiohttp.UnixConnector(path=path))
            with asking(runner, connector, {}) as session:
                yield Api(runner, session, LOCAL, as_json=as_json)
        finally:
            runner.run(serving.__aexit__(None, None, None))


async def _take_up(seed: Hierarchy, dsn: str) -> None:
    async with Database.open(dsn, connections=1) as opened:
        await take_up(seed, opened, actor=operator())


@contextlib.asynccontextmanager
async def _serving(settings: Settings, dsn: str, path: str, open_key: OpenKey | None) -> AsyncIterator[None]:
    async with Application.open(
        settings,
        weak_keys=weakkeys.load(settings),
        dsn=dsn,
        open_key=open_key,
        create_key=hierarchy.new_keys(settings),
        log=log.quiet(),
    ) as application:
        runner = web.AppRunner(application.local, access_log=None)
        await runner.setup()
        try:
            await web.UnixSite(runner, path).start()
            yield
        finally:
            await runner.cleanup()
