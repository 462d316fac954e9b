"""DNS for the validators, on c-ares: resolvers per zone, CNAMEs followed across zones, nothing remembered.

c-ares keeps every answer for its TTL, and "no such record" for an hour; pycares (and aiodns above it) has no switch
for that. A TXT record published a moment after the first look would stay invisible, a withdrawn one would count.
So a channel lives as long as one try of a validation and no longer. It runs in the event loop itself: no thread.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import pycares

from acme_ca.config import Resolver
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.validation.record import Record, Refused, Unreachable

MAX_CNAMES = 10
QUERY_TRIES = 2
# The first wait for an answer as a share of the whole try; c-ares doubles it for the second.
QUERY_SHARE = 0.2
SHOWN_ANSWERS = 20
SHOWN_LENGTH = 255

_TICK = 0.1
_STATUS = {
    None: "NOERROR",
    pycares.errno.ARES_ENODATA: "NODATA",
    pycares.errno.ARES_ENOTFOUND: "NXDOMAIN",
    pycares.errno.ARES_ESERVFAIL: "SERVFAIL",
    pycares.errno.ARES_EREFUSED: "REFUSED",
    pycares.errno.ARES_ENOTIMP: "NOTIMP",
    pycares.errno.ARES_EFORMERR: "FORMERR",
    pycares.errno.ARES_ETIMEOUT: "no answer",
    pycares.errno.ARES_ECONNREFUSED: "no connection to the DNS server",
    pycares.errno.ARES_EBADRESP: "an answer that cannot be read",
}
_EMPTY = ("NODATA", "NXDOMAIN")


class RecordType(IntEnum):
    A = pycares.QUERY_TYPE_A
    AAAA = pycares.QUERY_TYPE_AAAA
    CNAME = pycares.QUERY_TYPE_CNAME
    TXT = pycares.QUERY_TYPE_TXT
    CAA = pycares.QUERY_TYPE_CAA


@dataclass(frozen=True, slots=True)
class Zones:
    """Which DNS servers know which names: those of the longest configured zone, else the system's."""

    resolvers: tuple[Resolver, ...]

    def servers(self, name: str) -> tuple[str, ...]:
        """`address:port` of each server to ask, in order. Empty: the system's resolvers."""
        zone = max(
            (resolver.zone for resolver in self.resolvers if _within(name, resolver.zone)),
            key=len,
            default="",
        )
        return tuple(str(resolver.server) for resolver in self.resolvers if resolver.zone == zone)


class Dns:
    """The DNS questions of one try. `close` ends all of them."""

    def __init__(self, zones: Zones, *, timeout: float, record: Record) -> None:
        """`timeout`: seconds that the try may take."""
        self._zones = zones
        self._timeout = timeout
        self._record = record
        self._channels: dict[tuple[str, ...], _Channel] = {}

    async def ask(self, name: str, kind: RecordType, *, called: str | None = None) -> list[Any]:
        """The records of that type at the name, or at the end of its CNAMEs, as pycares' `…RecordData`.

        No such name and no such record are an empty list. Raises `Problem` (`dns`) for everything else; `called` is
        how it speaks of the name when that came from a stranger.
        """
        called = called or name
        chain = [_canonical(name)]
        while True:
            asked = chain[-1]
            try:
                answer = await self._query(asked, kind, called)
            except Refused as refused:
                if asked == chain[0]:
                    raise
                raise Unreachable(refused.type, refused.detail) from None  # of another zone, behind a CNAME
            _follow(answer, chain, called)
            found = [
                record.data
                for record in answer
                if record.type == kind and _canonical(record.name) == chain[-1]
            ]
            # An authoritative server leaves the target of a CNAME into another zone to the asker.
            if found or chain[-1] == asked:
                return found

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    async def _query(self, name: str, kind: RecordType, called: str) -> list[pycares.DNSRecord]:
        servers = self._zones.servers(name)
        with self._record.asking(
            "dns", name=name, type=kind.name, servers=list(servers) or "system"
        ) as entry:
            try:
                records, error = await self._channel(servers).query(name, kind)
            except pycares.AresError:
                raise _unaskable(called) from None
            entry["status"] = status = _STATUS.get(error, "an error")
            entry["answers"] = [_shown(record) for record in records[:SHOWN_ANSWERS]]
        if error is not None and status not in _EMPTY:
            raise _failed(called, kind, servers, status)
        return records

    def _channel(self, servers: tuple[str, ...]) -> _Channel:
        if servers not in self._channels:
            self._channels[servers] = _Channel(servers, timeout=self._timeout * QUERY_SHARE)
        return self._channels[servers]


class _Channel:
    """A c-ares channel whose sockets and timer are the event loop's."""

    def __init__(self, servers: Sequence[str], *, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._reading: set[int] = set()
        self._writing: set[int] = set()
        self._pending = 0
        self._timer: asyncio.TimerHandle | None = None
        self._channel = pycares.Channel(
            servers=servers or None, timeout=timeout, tries=QUERY_TRIES, sock_state_cb=self._watch
        )

    async def query(self, name: str, kind: RecordType) -> tuple[list[pycares.DNSRecord], int | None]:
        """The answer section and c-ares' error (None: there are records). Raises pycares.AresError for a bad name."""
        answer: asyncio.Future[tuple[list[pycares.DNSRecord], int | None]] = self._loop.create_future()
        self._start_timer()
        self._pending += 1
        try:
            self._channel.query(name, kind, callback=functools.partial(_settle, answer))
            return await answer
        finally:
            self._pending -= 1

    def close(self) -> None:
        # Cancelling calls back here and now; pycares destroys the channel later, in a thread of its own, which must
        # find nothing left to tell the loop.
        self._channel.cancel()
        for fd in self._reading:
            self._loop.remove_reader(fd)
        for fd in self._writing:
            self._loop.remove_writer(fd)
        self._reading.clear()
        self._writing.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._channel.close()

    def _watch(self, fd: int, readable: bool, writable: bool) -> None:  # noqa: FBT001  c-ares calls it
        if readable:
            self._loop.add_reader(fd, self._channel.process_read_fd, fd)
            self._reading.add(fd)
        elif fd in self._reading:
            self._loop.remove_reader(fd)
            self._reading.discard(fd)
        if writable:
            self._loop.add_writer(fd, self._channel.process_write_fd, fd)
            self._writing.add(fd)
        elif fd in self._writing:
            self._loop.remove_writer(fd)
            self._writing.discard(fd)

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_TICK, self._tick)

    def _tick(self) -> None:
        """Lets c-ares notice what has timed out: it asks again, or the next server, or gives up."""
        self._timer = None
        if self._pending:
            self._channel.process_fd(pycares.ARES_SOCKET_BAD, pycares.ARES_SOCKET_BAD)
            self._start_timer()


def _settle(
    answer: asyncio.Future[tuple[list[pycares.DNSRecord], int | None]],
    result: pycares.DNSResult | None,
    error: int | None,
) -> None:
    if not answer.done():
        answer.set_result((result.answer if result is not None else [], error))


def _follow(answer: Sequence[pycares.DNSRecord], chain: list[str], called: str) -> None:
    """Lengthens the chain by the CNAMEs in the answer that lead on from its end."""
    aliases = {
        _canonical(record.name): _canonical(record.data.cname)
        for record in answer
        if isinstance(record.data, pycares.CNAMERecordData)
    }
    while (target := aliases.get(chain[-1])) is not None:
        if target in chain:
            raise Problem(ErrorType.DNS, f"The CNAME records of {called} go round in a circle. Correct them.")
        if len(chain) > MAX_CNAMES:
            raise Problem(
                ErrorType.DNS,
                f"More than {MAX_CNAMES} CNAME records follow one another from {called}. Shorten the chain.",
            )
        chain.append(target)


def _canonical(name: str | bytes) -> str:
    text = name if isinstance(name, str) else name.decode("latin-1")
    return text.lower().rstrip(".")


def _within(name: str, zone: str) -> bool:
    return not zone or name == zone or name.endswith("." + zone)


def _shown(record: pycares.DNSRecord) -> dict[str, str]:
    """A record for the operator's eyes: printable, and cut."""
    values = [value if isinstance(value, str) else ascii(value) for value in vars(record.data).values()]
    return {
        "name": str(record.name),
        "type": _type_name(record.type),
        "value": " ".join(values)[:SHOWN_LENGTH],
    }


def _type_name(number: int) -> str:
    return RecordType(number).name if number in RecordType.__members__.values() else f"TYPE{number}"


def _unaskable(called: str) -> Problem:
    return Problem(ErrorType.DNS, f"{called} cannot be asked for in DNS: it is too long or malformed.")


def _failed(called: str, kind: RecordType, servers: Sequence[str], status: str) -> Problem:
    whom = ", ".join(servers) if servers else "this CA's own resolver"
    kind_of_failure = Refused if status == "REFUSED" else Unreachable
    return kind_of_failure(
        ErrorType.DNS,
        f"The DNS query for the {kind.name} records of {called} to {whom} failed: {status}. "
        "See that the zone's name servers answer, then try again.",
    )
