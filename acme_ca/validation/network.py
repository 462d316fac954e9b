"""The guarded network: the only place that opens connections to addresses that strangers choose (SSRF).

A name is resolved once, each address is judged, and the connection goes to that very address: a second answer of the
DNS server (rebinding) has nobody to fool. The rule holds for every hop, whoever named it: the order, a record, a redirect.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from types import TracebackType
from typing import Any, Self

from acme_ca.core.identifiers import Address
from acme_ca.core.identifiers import Network as Prefix
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.validation.record import Record, Unreachable
from acme_ca.validation.resolver import Dns, RecordType

MAX_ADDRESSES = 4
MAX_JUDGED = 32
RECEIVE_SIZE = 16 * 1024
MAX_RECEIVED = 256 * 1024
"""Bytes of TLS on one connection: a handshake with an endless chain is none."""

LOOPBACK: tuple[Address, ...] = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))
_LOOPBACK_NETWORKS: tuple[Prefix, ...] = (
    ipaddress.ip_network("127.0.0.0/8"),
    ipaddress.ip_network("::1/128"),
)

# The first row that holds an address decides (IANA special-purpose registries). An address of an internal network is
# what this CA is for: the private networks are allowed, and named.
_RULES: tuple[tuple[Prefix, str, bool], ...] = tuple(
    (ipaddress.ip_network(prefix), kind, allowed)
    for prefix, kind, allowed in (
        ("10.0.0.0/8", "private", True),
        ("172.16.0.0/12", "private", True),
        ("192.168.0.0/16", "private", True),
        ("0.0.0.0/8", "unspecified", False),
        ("127.0.0.0/8", "loopback", False),
        ("169.254.0.0/16", "link-local", False),
        ("192.0.0.0/24", "reserved", False),
        ("224.0.0.0/4", "multicast", False),
        ("240.0.0.0/4", "reserved", False),
        ("0.0.0.0/0", "unicast", True),
        ("fc00::/7", "private", True),
        ("::/128", "unspecified", False),
        ("::1/128", "loopback", False),
        ("fe80::/10", "link-local", False),
        ("ff00::/8", "multicast", False),
        ("::ffff:0:0/96", "IPv4-mapped", True),  # judged by the IPv4 address inside as well
        ("64:ff9b::/96", "NAT64", True),
        ("64:ff9b:1::/48", "NAT64", True),
        ("2000::/3", "unicast", True),
        ("::/0", "reserved", False),
    )
)

# Where clouds keep credentials. No setting opens these.
_METADATA = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "169.254.169.254",  # AWS, Azure, GCP and most others
        "169.254.170.2",  # AWS ECS
        "169.254.170.23",  # AWS EKS
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS EKS
        "fd20:ce::254",  # GCP
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "168.63.129.16",  # Azure's host
    )
)

_COMPATIBLE = ipaddress.ip_network("::/96")
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
_ISATAP = (0x00005EFE, 0x02005EFE)
_LOW = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRules:
    """Which addresses may be dialled: metadata never; then `refuse`; then `allow`; then the table."""

    allow: tuple[Prefix, ...] = ()
    refuse: tuple[Prefix, ...] = ()
    setting: str = "validation.allow_networks"
    """Where `allow` comes from."""

    def refusal(self, address: Address) -> str | None:
        """Why the address may not be dialled, as the end of a sentence; None when it may."""
        return next((why for face in _faces(address) if (why := self._refusal(face))), None)

    def _refusal(self, address: Address) -> str | None:
        if address in _METADATA:
            return "it is a cloud's metadata service, which this CA never dials"
        if any(address in network for network in self.refuse):
            return "it is in a network that validation.refuse_networks forbids"
        if any(address in network for network in self.allow):
            return None
        kind, allowed = next((kind, allowed) for network, kind, allowed in _RULES if address in network)
        return None if allowed else f"it is {kind}; its operator may list it in {self.setting}"


def _faces(address: Address) -> Iterator[Address]:
    """The address, and each IPv4 address that it carries inside: a gateway may deliver to that one."""
    yield address
    if address.version == 4:  # noqa: PLR2004
        return
    if address.ipv4_mapped:
        yield address.ipv4_mapped
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    number = int(address)
    compatible = address in _COMPATIBLE and not (address.is_loopback or address.is_unspecified)
    if compatible or any(address in prefix for prefix in _NAT64) or number >> 32 & _LOW in _ISATAP:
        yield ipaddress.IPv4Address(number & _LOW)


class Network:
    """The network as one try sees it. `close` ends its DNS questions; connections are closed by who dialled."""

    def __init__(
        self,
        *,
        rules: AddressRules,
        dns: Dns,
        record: Record,
        challenge_port: int,
        dev: bool,
        connect_timeout: float,
    ) -> None:
        """`challenge_port`: the one where `.localhost` is dialled, in development mode. `connect_timeout`: seconds per address."""
        self._rules = rules
        self._localhost_rules = AddressRules(allow=_LOOPBACK_NETWORKS, refuse=rules.refuse)
        self._challenge_port = challenge_port
        self._dev = dev
        self._connect_timeout = connect_timeout
        self.dns = dns
        self.record = record

    def close(self) -> None:
        self.dns.close()

    async def dial(self, host: str, port: int, *, called: str) -> Connection:
        """A connection to a host: a name, or an address in text form. `called` is how problems speak of it.

        Raises `Problem`: `dns` when the name cannot be resolved, `connection` when no address may be dialled or none
        answers. Up to four addresses are tried, of the first 32; IPv6 before IPv4.
        """
        addresses = await self.permitted(host, port, called)
        failure = ""
        for address in addresses:
            try:
                return await self._connect(address, port)
            except OSError as error:
                failure = reason(error)
        tried = ", ".join(map(str, addresses))
        raise Unreachable(
            ErrorType.CONNECTION,
            f"No connection to {called}, port {port} at {tried}: {failure}. "
            "See that the challenge server listens there and that firewalls let this CA reach it, then try again.",
        )

    async def permitted(self, host: str, port: int, called: str) -> list[Address]:
        """The addresses that `dial` tries. Raises `Problem` as it does, but for those that do not answer."""
        rules = self._rules
        if (literal := address_of(host)) is not None:
            addresses = [literal]
        elif is_localhost(host):
            self._check_localhost(port, called)
            addresses, rules = list(LOOPBACK), self._localhost_rules
        else:
            addresses = await self._resolve(host, called)
        refusals = {address: rules.refusal(address) for address in addresses}
        self._record_refusals(refusals, port)
        permitted = [address for address, why in refusals.items() if why is None]
        if not permitted:
            raise _refused(called, *next(iter(refusals.items())))
        return permitted[:MAX_ADDRESSES]

    def _check_localhost(self, port: int, called: str) -> None:
        # Names under .localhost "always return the IP loopback address" and never go to a DNS server (RFC 6761 §6.3).
        if not self._dev:
            raise Problem(
                ErrorType.CONNECTION,
                f"This CA does not dial {called}: names under .localhost mean loopback, for development mode only. "
                "Use a name that its DNS servers know.",
            )
        if port != self._challenge_port:
            raise Problem(
                ErrorType.CONNECTION,
                f"This CA does not dial {called}, port {port}: names under .localhost are dialled on the challenge's own "
                f"port {self._challenge_port} only.",
            )

    async def _resolve(self, host: str, called: str) -> list[Address]:
        answers = await asyncio.gather(
            self.dns.ask(host, RecordType.AAAA, called=called),
            self.dns.ask(host, RecordType.A, called=called),
            return_exceptions=True,
        )
        # A failure of one is no failure where the other has addresses.
        six, four = ([] if isinstance(answer, Problem) else _addresses(answer) for answer in answers)
        found = [address for pair in zip_longest(six, four) for address in pair if address is not None]
        if found:
            return found[:MAX_JUDGED]
        for answer in answers:
            if isinstance(answer, Problem):
                raise answer
        raise Unreachable(
            ErrorType.DNS,
            f"DNS has neither an AAAA nor an A record for {called}. Publish one, then try again.",
        )

    def _record_refusals(self, refusals: Mapping[Address, str | None], port: int) -> None:
        for address, why in refusals.items():
            if why is not None:
                with self.record.asking("connect", address=str(address), port=port) as entry:
                    entry["result"] = f"not dialled: {why}"

    async def _connect(self, address: Address, port: int) -> Connection:
        with self.record.asking("connect", address=str(address), port=port) as entry:
            try:
                async with asyncio.timeout(self._connect_timeout):
                    connection = await _open(address, port)
            except OSError as error:
                entry["result"] = reason(error)
                raise
            entry["result"] = "connected"
            return connection


class Connection:
    """A TCP connection to an address that was judged; TLS on request. A context manager: leaving it closes."""

    def __init__(self, sock: socket.socket, address: Address, port: int) -> None:
        self.peer = f"{address}, port {port}"
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._tls: ssl.SSLObject | None = None
        self._received = 0
        self._from_peer = ssl.MemoryBIO()
        self._to_peer = ssl.MemoryBIO()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    async def start_tls(self, context: ssl.SSLContext, *, server_name: str) -> ssl.SSLObject:
        """The TLS handshake. Raises OSError (ssl.SSLError among them)."""
        tls = context.wrap_bio(self._from_peer, self._to_peer, server_hostname=server_name)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._exchange()
        await self._send_plain(self._to_peer.read())
        self._tls = tls
        return tls

    async def send(self, message: bytes) -> None:
        """Raises OSError."""
        if self._tls is None:
            await self._send_plain(message)
        else:
            self._tls.write(message)
            await self._send_plain(self._to_peer.read())

    async def receive(self) -> bytes:
        """What has come, at most 16 KiB; empty when the peer has closed. Raises OSError."""
        if self._tls is None:
            return await self._receive_plain()
        while True:
            try:
                return self._tls.read(RECEIVE_SIZE)
            except ssl.SSLWantReadError:
                await self._exchange()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def _exchange(self) -> None:
        await self._send_plain(self._to_peer.read())
        # A peer that never stops sending must neither keep the loop from its other work nor go on for ever.
        await asyncio.sleep(0)
        if received := await self._receive_plain():
            self._received += len(received)
            if self._received > MAX_RECEIVED:
                raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
            self._from_peer.write(received)
        else:
            self._from_peer.write_eof()

    async def _send_plain(self, message: bytes) -> None:
        rest = memoryview(message)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                await _ready(self._socket, self._loop.add_writer, self._loop.remove_writer)

    async def _receive_plain(self) -> bytes:
        while True:
            try:
                return self._socket.recv(RECEIVE_SIZE)
            except BlockingIOError:
                await _ready(self._socket, self._loop.add_reader, self._loop.remove_reader)


def address_of(host: str) -> Address | None:
    """The address that a text is in itself; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_localhost(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


def reason(error: OSError) -> str:
    """Why a connection failed, in words that come from this machine and never from the peer."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "the handshake failed").lower().replace("_", " ")
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return os.strerror(error.errno).lower() if error.errno else "the connection failed"


def _addresses(answer: Any) -> list[Address]:
    if isinstance(answer, BaseException):
        raise answer
    return list(dict.fromkeys(ipaddress.ip_address(record.addr) for record in answer))


def _refused(called: str, address: Address, why: str | None) -> Problem:
    return Problem(
        ErrorType.CONNECTION,
        f"This CA does not dial {called} at {address}: {why}. Give the name an address that this CA may dial.",
    )


async def _open(address: Address, port: int) -> Connection:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await _connected(sock, (str(address), port))
    except BaseException:
        sock.close()
        raise
    return Connection(sock, address, port)


async def _connected(sock: socket.socket, address: tuple[str, int]) -> None:
    code = sock.connect_ex(address)
    if code == errno.EINPROGRESS:
        loop = asyncio.get_running_loop()
        await _ready(sock, loop.add_writer, loop.remove_writer)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


async def _ready(sock: socket.socket, watch: Callable[..., Any], unwatch: Callable[[int], Any]) -> None:
    """Waits until the socket can be read or written: half the CPU of the loop's own `sock_…` methods (measured)."""
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    watch(sock.fileno(), _wake, ready)
    try:
        await ready
    finally:
        unwatch(sock.fileno())


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
