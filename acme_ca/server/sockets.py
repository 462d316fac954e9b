"""Listening sockets: each worker has its own on the same port (SO_REUSEPORT), and the kernel spreads the clients.

The supervisor makes them all and keeps them open, so that what waits in the backlog of a worker that died is
served by its successor.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from dataclasses import dataclass

from acme_ca.config import ConfigurationError, Endpoint

BACKLOG = 2048
PREDECESSOR_GRACE = 3.0
"""Seconds that the workers of a killed supervisor get to leave the port."""

Sockets = tuple[socket.socket, ...]


@dataclass(frozen=True, slots=True)
class Listeners:
    """For each worker, by its number, a socket of every listener. They listen; nobody accepts yet."""

    https: Sockets
    http: Sockets
    certified: Sockets = ()
    """Of the admin API for client certificates, where it is wanted."""

    def keep_only(self, number: int) -> OwnSockets:
        """In worker `number`: its sockets, the others closed, or the kernel would go on to fill their backlogs."""
        for sockets in (self.https, self.http, self.certified):
            _close(sockets[:number] + sockets[number + 1 :])
        return OwnSockets(
            https=self.https[number],
            http=self.http[number],
            certified=self.certified[number] if self.certified else None,
        )

    def close(self) -> None:
        _close(self.https + self.http + self.certified)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSockets:
    """One worker's."""

    https: socket.socket
    http: socket.socket
    certified: socket.socket | None = None


def listen(https: Endpoint, http: Endpoint, certified: Endpoint | None = None, *, workers: int) -> Listeners:
    """Raises ConfigurationError when an endpoint cannot be had, for instance because somebody else listens there."""
    wanted = {"ACME_CA_HTTPS_LISTEN": https, "ACME_CA_HTTP_LISTEN": http, "ACME_CA_ADMIN__LISTEN": certified}
    with contextlib.ExitStack() as opened:
        made = []
        for setting, endpoint in wanted.items():
            sockets = _listen(endpoint, workers, setting=setting) if endpoint else ()
            opened.callback(_close, sockets)
            made.append(sockets)
        opened.pop_all()
    return Listeners(*made)


def _listen(endpoint: Endpoint, count: int, *, setting: str) -> Sockets:
    with contextlib.ExitStack() as opened:
        try:
            family, address = _resolve(endpoint)
            _refuse_shared(family, address)
            sockets = tuple(opened.enter_context(_bound(family, address, shared=True)) for _ in range(count))
        except socket.gaierror as error:
            raise ConfigurationError(
                f"{setting}: the host of {endpoint} cannot be resolved ({error.strerror})."
            ) from None
        except OSError as error:
            raise ConfigurationError(f"{setting}: cannot listen on {endpoint}: {_reason(error)}.") from None
        opened.pop_all()
        return sockets


def _resolve(endpoint: Endpoint) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # A name may have both kinds of address; the one that clients try without IPv6 comes first.
    family, _, _, _, address = min(found, key=lambda item: item[0] is not socket.AF_INET)
    return family, address


def _refuse_shared(family: socket.AddressFamily, address: tuple[object, ...]) -> None:
    # SO_REUSEPORT would let a second server of this user share the port, silently, half of the clients each.
    deadline = time.monotonic() + PREDECESSOR_GRACE
    while True:
        try:
            _bound(family, address, shared=False).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _bound(family: socket.AddressFamily, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if (
            family == socket.AF_INET6
        ):  # "[::]" means every address of the machine, whatever the system's default
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; stop it, or choose another port"
    if error.errno == errno.EACCES:
        return "permission denied; ports below 1024 need CAP_NET_BIND_SERVICE"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    return (error.strerror or str(error)).lower()


def _close(sockets: Sockets) -> None:
    for opened in sockets:
        opened.close()
