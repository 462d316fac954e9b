"""Handing audit events on, to syslog and to a webhook: in their order, at least once, behind the acts' back.

How far a target has come is kept in the database. A target that does not take a batch is left alone for a while that
doubles, and then gets half as many events: they may have been more than it takes. Nothing waits for it, and nothing is
lost.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import hmac
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit

import h11
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca import __version__
from acme_ca.audit import chain
from acme_ca.core.problems import Problem
from acme_ca.storage import seals
from acme_ca.storage.database import Database
from acme_ca.storage.seals import AuditEvent
from acme_ca.validation.network import AddressRules, Connection, Network
from acme_ca.validation.record import Record
from acme_ca.validation.resolver import Dns, Zones

BATCH = 500
"""Events at once, at most."""
GROWTH = 16
"""After a success one more, and a part of so many: a target that takes less than BATCH is seldom asked too much."""
TIMEOUT = 10.0
"""Seconds for a batch."""
ROUND = timedelta(seconds=20)
"""How long one round goes on."""
FIRST_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(minutes=5)


class Undelivered(Exception):  # noqa: N818  the name says it
    """The target did not take the events: why, as the end of a sentence."""


class Target(Protocol):
    """Where events go."""

    @property
    def name(self) -> str: ...

    async def send(self, events: Sequence[AuditEvent]) -> None:
        """All of them, in order. Raises Undelivered, OSError, Problem."""


class Forwarding:
    def __init__(
        self,
        target: Target,
        *,
        database: Database,
        clock: Callable[[], datetime],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._target = target
        self._database = database
        self._clock = clock
        self._log = log
        self._batch = BATCH
        self._pause = timedelta(0)
        self._again: datetime | None = None

    async def forward(self) -> int:
        """Hand on what is settled and was not yet; returns how many events. To be called in one process at a time."""
        begun = self._clock()
        if (
            self._again is not None and begun < self._again <= begun + LONGEST_PAUSE
        ):  # a clock may be set back
            return 0
        until = await self._until()
        sent = 0
        while until and self._clock() < begun + ROUND and (done := await self._next(until)):
            sent += done
        return sent

    async def _until(self) -> int:
        """No event up to there can still come before another."""
        settled = await seals.settled(self._database)
        if settled is None and (last := await seals.last(self._database)):
            return last.last_event
        return settled or 0

    async def _next(self, until: int) -> int:
        after = await seals.forwarded(self._database, self._target.name)
        events = await seals.events(self._database, after=after, until=until, limit=self._batch)
        if not events:
            return 0
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._target.send(events)
        except (Undelivered, OSError, Problem) as error:  # TimeoutError is an OSError
            self._wait(len(events), str(error) or type(error).__name__)
            return 0
        self._pause, self._again = timedelta(0), None
        self._batch = min(self._batch + self._batch // GROWTH + 1, BATCH)
        await seals.forward_to(self._database, self._target.name, events[-1].id, now=self._clock())
        return len(events)

    def _wait(self, events: int, reason: str) -> None:
        self._batch = max(events // 2, 1)
        self._pause = min(max(self._pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        self._again = self._clock() + self._pause
        self._log.warning(
            "audit events are not handed on",
            target=self._target.name,
            events=events,
            reason=reason,
            pause=self._pause.total_seconds(),
        )


# ---------------------------------------------------------------- syslog

_PRIORITY = 13 * 8 + 5
"""Facility log audit, severity notice (RFC 5424 §6.2.1)."""
_LONGEST = 60_000
"""Bytes of a message: a datagram holds no more."""


def syslog_message(event: AuditEvent, *, host: str) -> bytes:
    """RFC 5424 §6: the event's name as MSGID, its line as MSG."""
    name = "".join(letter for letter in event.event if "!" <= letter <= "~")[:32] or "-"
    head = f"<{_PRIORITY}>1 {chain.moment(event.at) or '-'} {host[:255] or '-'} acme-ca - {name} - "
    return (head + chain.line(event).replace("\n", " ")).encode()[:_LONGEST]


class Syslog:
    """`url`: `udp://host:port`, `tcp://host:port` (octet counting, RFC 6587 §3.4.1), `unix:/dev/log`."""

    name = "syslog"

    def __init__(self, url: str, *, host: str) -> None:
        self._url = urlsplit(url)
        self._host = host
        self._send: Callable[[Sequence[bytes]], Awaitable[None]] = {
            "udp": self._datagrams,
            "tcp": self._stream,
            "unix": self._datagrams,
        }[self._url.scheme]

    async def send(self, events: Sequence[AuditEvent]) -> None:
        await self._send([syslog_message(event, host=self._host) for event in events])

    async def _stream(self, messages: Sequence[bytes]) -> None:
        _, writer = await asyncio.open_connection(self._url.hostname, self._url.port)
        try:
            writer.write(b"".join(b"%d %s" % (len(message), message) for message in messages))
            await writer.drain()
        finally:
            writer.close()
            await writer.wait_closed()

    async def _datagrams(self, messages: Sequence[bytes]) -> None:
        loop = asyncio.get_running_loop()
        family, address = await self._address(loop)
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            await loop.sock_connect(sock, address)
            for message in messages:
                await loop.sock_sendall(sock, message)

    async def _address(self, loop: asyncio.AbstractEventLoop) -> tuple[int, Any]:
        if self._url.scheme == "unix":
            return socket.AF_UNIX, self._url.path
        found = await loop.getaddrinfo(self._url.hostname, self._url.port, type=socket.SOCK_DGRAM)
        return found[0][0], found[0][4]


# ---------------------------------------------------------------- the webhook

_MAX_RECEIVED = 64 * 1024
_DELIVERED = range(200, 300)
_PORTS = {"http": 80, "https": 443}
SIGNATURE = "Acme-Ca-Signature"
MEDIA_TYPE = "application/jsonl"


def signature_of(secret: bytes, timestamp: str, body: bytes) -> str:
    """What the receiver computes again: HMAC-SHA256 over the timestamp (seconds since 1970), a full stop, and the body."""
    digest = hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def trusting(roots: Iterable[x509.Certificate]) -> ssl.SSLContext:
    """The roots of the system, and these: the CA's own."""
    context = ssl.create_default_context()
    for root in roots:
        context.load_verify_locations(cadata=root.public_bytes(Encoding.DER))
    return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Dials as validators do: the address that is connected to is judged first; redirects are not followed."""

    url: str
    secret: bytes | None = field(repr=False)
    rules: AddressRules
    zones: Zones
    tls: Callable[[], ssl.SSLContext]
    """Which servers to trust."""
    clock: Callable[[], datetime]
    dev: bool
    name: str = "webhook"

    async def send(self, events: Sequence[AuditEvent]) -> None:
        url = urlsplit(self.url)
        body = "".join(f"{chain.line(event)}\n" for event in events).encode()
        port = url.port or _PORTS[url.scheme]
        record = Record()
        network = Network(
            rules=self.rules,
            dns=Dns(self.zones, timeout=TIMEOUT, record=record),
            record=record,
            challenge_port=port,
            dev=self.dev,
            connect_timeout=TIMEOUT / 3,
        )
        try:
            with await network.dial(url.hostname or "", port, called=url.hostname or "") as connection:
                if url.scheme == "https":
                    await connection.start_tls(self.tls(), server_name=url.hostname or "")
                status = await self._post(connection, body)
        finally:
            network.close()
        if status not in _DELIVERED:
            raise Undelivered(f"it answered {status} to {len(body)} bytes")

    async def _post(self, connection: Connection, body: bytes) -> int:
        """The status of the answer, whose body is not read."""
        url = urlsplit(self.url)
        headers = [
            ("Host", url.netloc.rpartition("@")[2]),
            ("User-Agent", f"acme-ca/{__version__}"),
            ("Content-Type", MEDIA_TYPE),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        if self.secret is not None:
            timestamp = str(int(self.clock().timestamp()))
            headers.append((SIGNATURE, signature_of(self.secret, timestamp, body)))
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_RECEIVED)
        request = http.send(h11.Request(method="POST", target=target, headers=headers)) or b""
        await connection.send(request + (http.send(h11.Data(data=body)) or b""))
        http.send(h11.EndOfMessage())
        try:
            return await _status(connection, http)
        except h11.RemoteProtocolError:
            raise Undelivered("its answer is no HTTP") from None


async def _status(connection: Connection, http: h11.Connection) -> int:
    received = 0
    while True:
        event = http.next_event()
        if isinstance(event, h11.Response):
            return event.status_code
        if event is h11.NEED_DATA:
            more = await connection.receive()
            received += len(more)
            if not more or received > _MAX_RECEIVED:
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            http.receive_data(more)
