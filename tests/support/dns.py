"""A DNS server on loopback, UDP and TCP, that says what a test tells it to.

    with DnsServer() as dns:
        dns.add("www.example.test", "A", "127.0.0.1")
        dns.add("_acme-challenge.example.test", "TXT", "token")      # a tuple: several strings in one record
        dns.add("example.test", "CAA", (0, "issue", "ca.example.test"))
        dns.add("alias.example.test", "CNAME", "www.example.test")   # followed, unless authoritative_only
        dns.answer("broken.example.test", SERVFAIL)                  # to every type; or NXDOMAIN, REFUSED, DROP
        dns.answer("rebind.example.test", ["192.0.2.1"], ["127.0.0.1"], kind="A")  # first this, then that
        settings = {"resolvers": dns.address}

Unknown names get NXDOMAIN, names with other records or with names below them NODATA. `dns.queries` lists what was
asked. The server runs in threads: it serves tests that block as well as tests that await.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from enum import Enum
from typing import Any, Self

import dnslib
from dnslib import QTYPE, RCODE, RR

from tests.support.sockets import TcpServer

TTL = 300
_LARGEST_UDP = 1232


class Reply(Enum):
    NXDOMAIN = "NXDOMAIN"
    SERVFAIL = "SERVFAIL"
    REFUSED = "REFUSED"
    NODATA = "NODATA"
    DROP = "DROP"
    GARBAGE = "GARBAGE"


NXDOMAIN, SERVFAIL, REFUSED, NODATA, DROP, GARBAGE = Reply

Answer = Reply | list[Any]
"""What one query is answered with: a failure, or the values of the records."""


class DnsServer:
    """`authoritative_only`: a CNAME is answered alone, its target left to the asker (as by a zone's own name server)."""

    def __init__(self, host: str = "127.0.0.1", *, authoritative_only: bool = False) -> None:
        self.queries: list[tuple[str, str]] = []
        """(name in lower case, type) of each query so far."""
        self.tcp_queries = 0
        self._authoritative_only = authoritative_only
        self._records: dict[str, dict[str, list[Any]]] = {}
        self._scripts: dict[tuple[str, str | None], list[Answer]] = {}
        self._lock = threading.Lock()
        self._tcp, self._udp = _bind(self, host)
        self.host = host
        self.port = self._tcp.port
        self._thread = threading.Thread(target=self._serve_udp, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """`host:port`, as in `ACME_CA_VALIDATION__RESOLVERS`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def add(self, name: str, kind: str, *values: Any) -> None:
        """Adds records. TXT: str, bytes or a tuple of them. CAA: (flags, tag, value), or bytes as they go on the wire."""
        with self._lock:
            self._records.setdefault(_canonical(name), {}).setdefault(kind, []).extend(values)

    def remove(self, name: str, kind: str | None = None) -> None:
        """Forgets the records of a name (of one type, or all) and its script."""
        with self._lock:
            if kind is None:
                self._records.pop(_canonical(name), None)
            else:
                self._records.get(_canonical(name), {}).pop(kind, None)
            self._scripts.pop((_canonical(name), kind), None)

    def answer(self, name: str, *answers: Answer, kind: str | None = None) -> None:
        """Answers the queries for a name one after another as told; the last answer is repeated for ever."""
        with self._lock:
            self._scripts[_canonical(name), kind] = list(answers)

    def asked(self, name: str, kind: str) -> int:
        """How often this was asked."""
        return self.queries.count((_canonical(name), kind))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._udp.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._udp.close()
        self._tcp.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def respond(self, message: bytes, *, tcp: bool) -> bytes | None:
        """The wire form of the answer to a query; None for silence."""
        query = dnslib.DNSRecord.parse(message)
        name, kind = _canonical(str(query.q.qname)), QTYPE[query.q.qtype]
        with self._lock:
            self.queries.append((name, kind))
            self.tcp_queries += tcp
            reply = query.reply()
            outcome = self._fill(reply, name, kind)
        if outcome is DROP:
            return None
        if outcome is GARBAGE:
            return message[:2] + b"\x81\x80" + b"\xff" * 40
        packed = reply.pack()
        if tcp or len(packed) <= _LARGEST_UDP:
            return packed
        truncated = query.reply()
        truncated.header.tc = 1
        return truncated.pack()

    def _fill(self, reply: dnslib.DNSRecord, name: str, kind: str) -> Reply | None:
        for _ in range(16):
            answer = self._answer(name, kind)
            if isinstance(answer, Reply):
                if answer in {NXDOMAIN, SERVFAIL, REFUSED}:
                    reply.header.rcode = getattr(RCODE, answer.value)
                return answer
            alias, values = answer
            reply.add_answer(*(_record(name, "CNAME" if alias else kind, value) for value in values))
            if not alias or self._authoritative_only or kind == "CNAME":
                return None
            name = _canonical(values[0])
        return None

    def _answer(self, name: str, kind: str) -> Reply | tuple[bool, list[Any]]:
        """(whether it is a CNAME, its values)."""
        script = self._scripts.get((name, kind)) or self._scripts.get((name, None))
        if script:
            scripted = script.pop(0) if len(script) > 1 else script[0]
            return scripted if isinstance(scripted, Reply) else (False, scripted)
        records = self._records.get(name, {})
        if "CNAME" in records:
            return True, records["CNAME"]
        if records.get(kind):
            return False, records[kind]
        exists = bool(records) or any(other.endswith("." + name) for other in self._records)
        return NODATA if exists else NXDOMAIN

    def _serve_udp(self) -> None:
        while True:
            message, sender = self._udp.recvfrom(4096)
            if not message:  # shut down
                return
            # a query that is no DNS message, or one that came while the server was being closed
            with contextlib.suppress(dnslib.DNSError, BrokenPipeError):
                if (response := self.respond(message, tcp=False)) is not None:
                    self._udp.sendto(response, sender)


class _Tcp(TcpServer):
    def __init__(self, owner: DnsServer, host: str) -> None:
        self._owner = owner
        super().__init__(host)

    def serve(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        with stream:
            while size := stream.read(2):
                response = self._owner.respond(stream.read(struct.unpack("!H", size)[0]), tcp=True)
                if response is not None:
                    connection.sendall(struct.pack("!H", len(response)) + response)


def _bind(owner: DnsServer, host: str) -> tuple[_Tcp, socket.socket]:
    """TCP and UDP on the same free port."""
    while True:
        tcp = _Tcp(owner, host)
        udp = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind((host, tcp.port))
        except OSError:
            udp.close()
            tcp.close()
        else:
            return tcp, udp


def _record(name: str, kind: str, value: Any) -> RR:
    return RR(name, getattr(QTYPE, kind), rdata=_rdata(kind, value), ttl=TTL)


def _rdata(kind: str, value: Any) -> dnslib.RD:
    if kind == "CAA":
        return dnslib.RD(value if isinstance(value, bytes) else _caa(*value))
    if kind == "TXT":
        strings = value if isinstance(value, tuple) else (value,)
        return dnslib.TXT([text.encode() if isinstance(text, str) else text for text in strings])
    return getattr(dnslib, kind)(value)


def _caa(flags: int, tag: str, value: str) -> bytes:
    return bytes([flags, len(tag)]) + tag.encode() + value.encode("latin-1")


def _canonical(name: str) -> str:
    return name.lower().rstrip(".")
