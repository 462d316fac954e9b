"""One worker's service: what a client notices of its end, over real sockets."""

import asyncio
import os
import signal
import socket
import tempfile
import time
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from acme_ca import log
from acme_ca.config import Endpoint
from acme_ca.server import sockets, worker
from acme_ca.server.supervisor import WorkerEnds
from acme_ca.server.tls import ServerTls
from acme_ca.server.worker import LINGER, Service
from tests.support.server import free_ports
from tests.support.tls import renew, served_serial


@dataclass
class SlowApplication:
    """Answers /slow after `release`; its background notes how it was ended."""

    entered: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    background_ended: bool = False
    background_fails: bool = False

    def __post_init__(self) -> None:
        self.https, self.http, self.local = self._web(), self._web(), self._web()
        self.issuers = ()

    def _web(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/slow", self._slow)
        application.router.add_get("/quick", self._quick)
        return application

    async def _slow(self, request: web.Request) -> web.Response:
        self.entered.set()
        await self.release.wait()
        return web.Response(text="done")

    async def _quick(self, request: web.Request) -> web.Response:
        return web.Response(text="quick")

    async def background(self) -> None:
        try:
            if self.background_fails:
                raise ValueError("the background is broken")
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.background_ended = True

    async def finish(self, seconds: float) -> None:
        self.seconds_left = seconds


@dataclass
class Served:
    """A service under way in this process, and what plays the supervisor."""

    application: SlowApplication
    https_port: int
    http_port: int
    task: asyncio.Task
    life: int
    readiness: int

    def kill_supervisor(self) -> None:
        os.close(self.life)

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.https_port}{path}"


async def serve(tls: ServerTls, *, grace: float = 5.0, application: SlowApplication | None = None) -> Served:
    application = application or SlowApplication()
    https, http = free_ports(2)
    places = (Endpoint(host="127.0.0.1", port=port) for port in (https, http))
    listeners = sockets.listen(*places, workers=1)
    life, held = os.pipe()
    told, readiness = os.pipe()
    service = Service(tls, WorkerEnds(0, life, readiness), grace=grace, log=log.get())
    local = socket.socket(socket.AF_UNIX)
    local.bind(f"{tempfile.mkdtemp()}/admin.sock")
    task = asyncio.create_task(service.run(application, listeners.keep_only(0), local))
    assert await asyncio.to_thread(os.read, told, 1) == b"\0"
    return Served(application, https, http, task, held, readiness)


async def test_a_request_under_way_at_sigterm_gets_its_answer(tls):
    served = await serve(tls, grace=60.0)
    async with aiohttp.ClientSession() as client:
        slow = asyncio.create_task(client.get(served.url("/slow"), ssl=False))
        await served.application.entered.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(2 * LINGER)
        assert not served.task.done()
        assert not served.application.background_ended
        served.application.release.set()
        response = await slow
        assert (response.status, await response.text()) == (200, "done")
        assert await served.task == 0
    assert served.application.background_ended
    assert 0 <= served.application.seconds_left < 60.0, "what the request took is not given twice"


async def test_after_sigterm_nobody_is_accepted_and_idle_connections_end(tls):
    served = await serve(tls)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.http_port)
    writer.write(b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200 OK" in await reader.readuntil(b"quick")
    os.kill(os.getpid(), signal.SIGTERM)
    assert await served.task == 0
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", served.http_port)


async def test_a_keepalive_client_is_told_of_the_end(tls, monkeypatch):
    monkeypatch.setattr(worker, "LINGER", 3.0)  # so that a moment's pause of the machine is not its end
    served = await serve(tls)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.http_port)
    ask = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"
    writer.write(ask)
    assert b"Connection: close" not in await reader.readuntil(b"quick")
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(LINGER / 5)
    writer.write(ask)
    assert b"Connection: close" in await reader.readuntil(b"quick")
    assert await served.task == 0
    writer.close()


async def test_a_request_that_takes_longer_than_the_grace_is_not_waited_for(tls):
    served = await serve(tls, grace=0.3)
    async with aiohttp.ClientSession() as client:
        slow = asyncio.create_task(client.get(served.url("/slow"), ssl=False))
        await served.application.entered.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        started = time.monotonic()
        assert await served.task == 0
        assert time.monotonic() - started < 30, "nobody ends it"
        slow.cancel()


async def test_a_worker_ends_when_its_supervisor_has_died(tls):
    served = await serve(tls)
    served.kill_supervisor()
    assert await served.task == 0
    assert served.application.background_ended


async def test_a_broken_background_ends_the_worker_with_status_1(tls):
    served = await serve(tls, application=SlowApplication(background_fails=True))
    assert await served.task == 1


async def test_sighup_loads_the_certificate_again(tls, tmp_path):
    served = await serve(tls)
    renew(tmp_path / "server.pem", 1007)
    assert await served_serial(served.https_port) == 1001
    os.kill(os.getpid(), signal.SIGHUP)
    async with asyncio.timeout(30):
        while await served_serial(served.https_port) != 1007:  # noqa: ASYNC110  the signal comes when it comes
            await asyncio.sleep(0.05)
    served.kill_supervisor()
    await served.task


async def test_a_client_that_never_shakes_hands_is_dropped(tls, monkeypatch):
    monkeypatch.setattr(worker, "HANDSHAKE_TIMEOUT", 0.2)
    served = await serve(tls)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.https_port)
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()
    served.kill_supervisor()
    await served.task


async def test_half_a_request_is_not_waited_for_for_ever(tls, monkeypatch):
    monkeypatch.setattr(worker, "KEEPALIVE_TIMEOUT", 0.2)
    served = await serve(tls)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.http_port)
    writer.write(b"GET /quick HTTP/1.1\r\nHost:")
    async with asyncio.timeout(30):
        await reader.read()
    writer.close()
    served.kill_supervisor()
    await served.task
