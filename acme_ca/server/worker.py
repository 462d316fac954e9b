"""One worker process: serves all listeners until it is told to stop, then finishes what is under way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from typing import cast

import uvloop
from aiohttp import web

from acme_ca import http, log
from acme_ca.app import Application
from acme_ca.config import Settings
from acme_ca.core.weakkeys import WeakKeys
from acme_ca.log import Logger
from acme_ca.server import hierarchy
from acme_ca.server.sockets import BACKLOG, Listeners, OwnSockets
from acme_ca.server.supervisor import WorkerEnds
from acme_ca.server.tls import ServerTls

HANDSHAKE_TIMEOUT = 10.0
"""Seconds for a client's TLS handshake."""
KEEPALIVE_TIMEOUT = 75.0
"""Seconds that a connection may be idle; also the limit for the head of a request to arrive."""
TRUST_INTERVAL = 5.0
"""Seconds."""
LINGER = 0.25
"""Seconds between the last accept and the end of idle connections: a request already on its way is still served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What all workers have in common; calling it is the life of one."""

    settings: Settings
    weak_keys: WeakKeys
    dsn: str
    tls: ServerTls
    listeners: Listeners
    local: socket.socket
    """The Unix socket of the admin API, which all workers share."""

    def __call__(self, ends: WorkerEnds) -> int:
        """Serve. Returns the exit status: 0 when told to stop, 1 when the background tasks failed."""
        own = self.listeners.keep_only(ends.number)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(self._serve(own, ends))

    async def _serve(self, sockets: OwnSockets, ends: WorkerEnds) -> int:
        logger = log.get(worker=ends.number)
        service = Service(self.tls, ends, grace=self.settings.shutdown_grace, log=logger)
        async with Application.open(
            self.settings,
            weak_keys=self.weak_keys,
            dsn=self.dsn,
            open_key=hierarchy.keys(self.settings),
            create_key=hierarchy.new_keys(self.settings),
            log=logger,
        ) as application:
            # What the start has made stays for good: the collector need not look at it again.
            gc.collect()
            gc.freeze()
            return await service.run(application, sockets, self.local)


class Service:
    """Serves an application on its sockets until a signal, or the supervisor's death, ends it.

    grace: seconds for the requests under way then.
    """

    def __init__(self, tls: ServerTls, ends: WorkerEnds, *, grace: float, log: Logger) -> None:
        self._tls = tls
        self._ends = ends
        self._grace = grace
        self._log = log
        self._stop = asyncio.Event()
        self._heed_supervisor()

    async def run(self, application: Application, sockets: OwnSockets, local: socket.socket) -> int:
        """The exit status: 0 when told to stop, 1 when the background tasks ended by themselves."""
        background = asyncio.create_task(application.background())
        self._tls.trust(issuer.certificate for issuer in application.issuers)
        sites = [
            await self._listen(application.https, sockets.https, tls=self._tls.context),
            await self._listen(application.http, sockets.http, tls=None),
            await self._listen(application.local, local, tls=None),
        ]
        if sockets.certified is not None:
            sites.append(await self._listen(application.certified, sockets.certified, tls=self._tls.clients))
        self._ends.ready()
        async with (
            _running(self._tls.watch()),
            _running(self._trust(application)),
            _running(self._stop.wait()) as told,
        ):
            await asyncio.wait({told, background}, return_when=asyncio.FIRST_COMPLETED)
            failed = background.done()
            await self._drain(sites, background, application)
        return int(failed)

    async def _trust(self, application: Application) -> None:
        """What new issuers have signed opens the admin API, too."""
        while True:
            await asyncio.sleep(TRUST_INTERVAL)
            self._tls.trust(issuer.certificate for issuer in application.issuers)

    def _heed_supervisor(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._tls.refresh)
        loop.add_reader(self._ends.life, self._supervisor_died)

    def _supervisor_died(self) -> None:
        asyncio.get_running_loop().remove_reader(self._ends.life)
        self._log.critical("the supervisor has died; stopping")
        self._stop.set()

    async def _listen(
        self, application: web.Application, listening: socket.socket, *, tls: ssl.SSLContext | None
    ) -> _Site:
        application.on_response_prepare.append(self._announce_the_end)
        runner = web.AppRunner(
            application,
            access_log=None,
            keepalive_timeout=KEEPALIVE_TIMEOUT,
            shutdown_timeout=self._grace,
        )
        await runner.setup()
        server = await asyncio.get_running_loop().create_server(
            http.protocol_of(cast("web.Server", runner.server)),  # set up a line ago
            sock=listening,
            backlog=BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT if tls else None,
        )
        return _Site(runner, server)

    async def _announce_the_end(self, _request: web.Request, response: web.StreamResponse) -> None:
        # A client that reads this opens no request on a connection that is about to be closed.
        if self._stop.is_set():
            response.headers["Connection"] = "close"
            response.force_close()

    async def _drain(
        self, sites: Sequence[_Site], background: asyncio.Task[None], application: Application
    ) -> None:
        """Requests first, for they may still begin validations; all within the grace."""
        deadline = time.monotonic() + self._grace
        for site in sites:
            site.server.close()
        await asyncio.sleep(LINGER)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                await asyncio.gather(*(site.runner.cleanup() for site in sites))
        background.cancel()
        (outcome,) = await asyncio.gather(background, return_exceptions=True)
        if isinstance(outcome, Exception):
            self._log.critical("the background tasks failed", exc_info=outcome)
        await application.finish(max(0.0, deadline - time.monotonic()))


@dataclass(frozen=True, slots=True)
class _Site:
    """One listener of this worker."""

    runner: web.AppRunner
    server: asyncio.Server


@contextlib.asynccontextmanager
async def _running(work: Coroutine[None, None, object]) -> AsyncIterator[asyncio.Task[object]]:
    """`work` runs beside the body and is cancelled after it."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
