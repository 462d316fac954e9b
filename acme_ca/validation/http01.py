"""http-01 (RFC 8555 §8.3): a file on port 80 of the name itself.

h11 reads the responses, over connections of the guarded network: each hop of a redirect is judged like the first.
Nothing that a peer says is repeated in a problem, only its kind: a status, a length.
"""

from __future__ import annotations

import errno
import hmac
import os
import ssl
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import SplitResult, urljoin, urlsplit

import h11

from acme_ca import __version__
from acme_ca.core import identifiers
from acme_ca.core.challenges import Attempt
from acme_ca.core.identifiers import Identifier
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.validation.network import Connection, Network, address_of, reason
from acme_ca.validation.record import Unreachable

MAX_REDIRECTS = 10
MAX_URL = 2048
MAX_HEAD = 16 * 1024
MAX_RECEIVED = 64 * 1024
MAX_WHITE_SPACE = 1024

_SCHEME_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OK = 200
_USER_AGENT = f"acme-ca/{__version__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where http-01 begins, and where redirects may lead beside that, 80 and 443."""

    challenge: int
    redirect: tuple[int, ...] = ()

    def permit(self, port: int) -> bool:
        return port in {*_SCHEME_PORTS.values(), self.challenge, *self.redirect}


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """`host`: a canonical name, or an address without brackets. `target`: path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The Host header: with the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _SCHEME_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """`body` of a redirect or an error is not read. `source`: the address and port it came from."""

    status: int
    location: bytes | None
    body: bytes
    source: str


async def prove(attempt: Attempt, network: Network, *, ports: Ports, redirect_tls: ssl.SSLContext) -> None:
    """Returns when the identifier serves the key authorization. Raises `Problem`."""
    expected = attempt.key_authorization.encode()
    limit = len(expected) + MAX_WHITE_SPACE
    hops = [first_url(attempt.identifier, attempt.token, ports.challenge)]
    while True:
        response = await _get(hops, network, limit=limit, redirect_tls=redirect_tls)
        if response.status not in _REDIRECTS:
            break
        hops.append(_next_hop(hops, response, ports))
    _judge(response, expected, limit=limit, asked=_asked(hops))


def first_url(identifier: Identifier, token: str, port: int) -> Url:
    return Url(scheme="http", host=identifier.value, port=port, target=f"/.well-known/acme-challenge/{token}")


def redirected(url: Url, location: bytes, ports: Ports) -> Url | str:
    """Where a redirect leads, or why it is not followed (the end of a sentence)."""
    if len(location) > MAX_URL or not all(0x21 <= byte <= 0x7E for byte in location):  # noqa: PLR2004  printable ASCII
        return "its Location is too long, or has characters that a URL cannot have"
    text = location.decode()
    try:
        given, parts = urlsplit(text), urlsplit(urljoin(str(url), text))
        port = _SCHEME_PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError:
        return "its Location is no URL"
    if given.scheme and not given.netloc:
        return "its Location names a scheme and no host"
    return _permitted(parts, port, ports)


def _permitted(parts: SplitResult, port: int, ports: Ports) -> Url | str:
    if parts.scheme not in _SCHEME_PORTS:
        return "it leads to another scheme than http and https"
    if "@" in parts.netloc:
        return "its Location holds user information"
    host = _canonical_host(parts)
    if host is None:
        return "its Location names no valid host"
    if not ports.permit(port):
        return f"it leads to port {port}, which is neither 80 nor 443 nor one of validation.redirect_ports"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(scheme=parts.scheme, host=host, port=port, target=target)


def _canonical_host(parts: SplitResult) -> str | None:
    host = parts.hostname or ""
    if "%" in host:  # an IPv6 zone, or an escape
        return None
    if (address := address_of(host)) is not None:
        return str(address)
    try:
        identifier = identifiers.dns(host.removesuffix("."))
    except Problem:
        return None
    return None if identifier.wildcard or "[" in parts.netloc else identifier.value


def _next_hop(hops: list[Url], response: Response, ports: Ports) -> Url:
    if len(hops) > MAX_REDIRECTS:
        _refuse(hops, response, f"it is one more than the {MAX_REDIRECTS} that are followed")
    if response.location is None:
        _refuse(hops, response, "it has no Location, or several")
    url = redirected(hops[-1], response.location, ports)
    if isinstance(url, str):
        _refuse(hops, response, url)
    if url in hops:
        _refuse(hops, response, "it leads round in a circle")
    return url


def _refuse(hops: list[Url], response: Response, why: str) -> NoReturn:
    raise Problem(
        ErrorType.INCORRECT_RESPONSE,
        f"{_asked(hops)} at {response.source} was answered with a redirect (status {response.status}) that is not "
        f"followed: {why}. Let the challenge's URL answer with the file itself.",
    )


def _asked(hops: list[Url]) -> str:
    """What was asked, in words that hold nothing of a peer's."""
    return f"GET {hops[0]}" if len(hops) == 1 else f"Redirect {len(hops) - 1} of GET {hops[0]}"


async def _get(hops: list[Url], network: Network, *, limit: int, redirect_tls: ssl.SSLContext) -> Response:
    url = hops[-1]
    called = url.host if len(hops) == 1 else f"the host of redirect {len(hops) - 1} of {hops[0]}"
    with await network.dial(url.host, url.port, called=called) as connection:
        where = f"{_asked(hops)} at {connection.peer}"
        with network.record.asking("http", url=str(url), address=connection.peer) as entry:
            try:
                if url.scheme == "https":
                    await connection.start_tls(redirect_tls, server_name=url.host)
                response = await _exchange(connection, url, limit)
            except h11.RemoteProtocolError:
                entry["result"] = "not HTTP"
                raise _not_http(where) from None
            except OSError as error:
                entry["result"] = reason(error)
                raise _broken(where, error) from None
            entry.update(status=response.status, length=len(response.body))
    return response


async def _exchange(connection: Connection, url: Url, limit: int) -> Response:
    """Raises h11.RemoteProtocolError and OSError. Reads little more than `limit` of the body."""
    peer = _Peer(connection)
    await peer.ask(url)
    head = await peer.head()
    locations = [value for name, value in head.headers if name == b"location"]
    return Response(
        status=head.status_code,
        location=locations[0] if len(locations) == 1 else None,
        body=await peer.body(limit) if head.status_code == _OK else b"",
        source=connection.peer,
    )


class _Peer:
    """HTTP/1.1 with one peer for one request: h11 on a connection, with a bound on all that is received."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._received = 0

    async def ask(self, url: Url) -> None:
        headers = [
            ("Host", url.authority),
            ("User-Agent", _USER_AGENT),
            ("Accept", "*/*"),
            ("Connection", "close"),
        ]
        request = self._http.send(h11.Request(method="GET", target=url.target, headers=headers))
        self._http.send(h11.EndOfMessage())
        await self._connection.send(request or b"")

    async def head(self) -> h11.Response:
        while not isinstance(event := await self._event(), h11.Response):
            pass  # an informational response (1xx)
        return event

    async def body(self, limit: int) -> bytes:
        body = b""
        while len(body) <= limit and isinstance(event := await self._event(), h11.Data):
            body += event.data
        return body

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            received = await self._connection.receive()
            if not received and not self._received:
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            self._received += len(received)
            if self._received > MAX_RECEIVED:
                raise h11.RemoteProtocolError(f"more than {MAX_RECEIVED} bytes")
            self._http.receive_data(received)
        return event


def _not_http(where: str) -> Problem:
    return Problem(
        ErrorType.INCORRECT_RESPONSE,
        f"{where} was answered with something that is no HTTP/1.1 response, or an oversized or broken one. "
        "See that a web server answers there.",
    )


def _broken(where: str, error: OSError) -> Problem:
    kind = ErrorType.TLS if isinstance(error, ssl.SSLError) else ErrorType.CONNECTION
    return Unreachable(
        kind, f"{where} got no response: {reason(error)}. See that the web server answers, then try again."
    )


def _judge(response: Response, expected: bytes, *, limit: int, asked: str) -> None:
    where = f"{asked} at {response.source}"
    if response.status != _OK:
        raise Problem(
            ErrorType.INCORRECT_RESPONSE,
            f"{where} was answered with status {response.status} instead of 200. "
            "Let the web server serve the challenge's file there.",
        )
    if len(response.body) > limit:
        raise Problem(
            ErrorType.INCORRECT_RESPONSE,
            f"{where} was answered with more than {limit} bytes; the key authorization has {len(expected)}. "
            "Let the web server serve the challenge's file alone.",
        )
    # White space at the end of the body is ignored, all of it and not only CRLF (RFC 8555 §8.3).
    body = response.body.rstrip()
    if not hmac.compare_digest(body, expected):
        raise Problem(
            ErrorType.UNAUTHORIZED,
            f"{where} was answered with {len(body)} bytes that are not the key authorization of {len(expected)} bytes. "
            "Serve the token, a dot, and the thumbprint of the account key that made the order.",
        )
