"""Listening: a socket for each worker, and nobody shares a port unknowingly."""

import socket
import subprocess
import sys
import time

import pytest

from acme_ca.config import ConfigurationError, Endpoint
from acme_ca.server import sockets
from tests.support.server import free_ports


def endpoint(port: int, host: str = "127.0.0.1") -> Endpoint:
    return Endpoint(host=host, port=port)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(sockets, "PREDECESSOR_GRACE", 0.1)


def test_each_worker_has_its_own_socket_of_either_listener():
    https, http = free_ports(2)
    listeners = sockets.listen(endpoint(https), endpoint(http), workers=3)
    try:
        assert [held.getsockname()[1] for held in listeners.https] == [https] * 3
        assert [held.getsockname()[1] for held in listeners.http] == [http] * 3
        assert len({held.fileno() for held in listeners.https + listeners.http}) == 6
    finally:
        listeners.close()


def test_a_worker_keeps_its_own_sockets_and_closes_the_others():
    https, http = free_ports(2)
    listeners = sockets.listen(endpoint(https), endpoint(http), workers=3)
    try:
        own = listeners.keep_only(1)
        assert (own.https, own.http) == (listeners.https[1], listeners.http[1])
        assert [held.fileno() == -1 for held in listeners.https] == [True, False, True]
    finally:
        listeners.close()


@pytest.mark.parametrize("taken", ["HTTPS", "HTTP"])
def test_a_port_in_use_is_refused_even_by_one_of_our_own(impatient, taken):
    ports = dict(zip(("HTTPS", "HTTP"), free_ports(2), strict=True))
    others = free_ports(1)
    first = sockets.listen(endpoint(ports[taken]), endpoint(others[0]), workers=2)
    try:
        with pytest.raises(
            ConfigurationError, match=f"ACME_CA_{taken}_LISTEN: .* another program listens there"
        ):
            sockets.listen(endpoint(ports["HTTPS"]), endpoint(ports["HTTP"]), workers=2)
    finally:
        first.close()


def test_a_refusal_of_the_second_listener_frees_the_first(impatient):
    https, http = free_ports(2)
    with socket.create_server(("127.0.0.1", http)), pytest.raises(ConfigurationError):
        sockets.listen(endpoint(https), endpoint(http), workers=1)
    sockets.listen(endpoint(https), endpoint(http), workers=1).close()


def test_a_predecessor_that_is_just_leaving_is_waited_for(monkeypatch):
    monkeypatch.setattr(sockets, "PREDECESSOR_GRACE", 30.0)
    https, http = free_ports(2)
    leaving = socket.create_server(("127.0.0.1", https))
    program = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        pass_fds=[leaving.fileno()],
    )
    leaving.close()
    started = time.monotonic()
    program.communicate()
    sockets.listen(endpoint(https), endpoint(http), workers=1).close()
    assert time.monotonic() - started < sockets.PREDECESSOR_GRACE


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("192.0.2.1", "this machine does not have that address"),
        ("no-such-host.invalid", "cannot be resolved"),
    ],
)
def test_an_address_that_cannot_be_had_is_refused(host, says):
    with pytest.raises(ConfigurationError, match=f"ACME_CA_HTTPS_LISTEN: .*{says}"):
        sockets.listen(endpoint(8443, host), endpoint(8080), workers=1)


def test_the_unspecified_ipv6_address_takes_ipv4_too():
    https, http = free_ports(2)
    listeners = sockets.listen(endpoint(https, "::"), endpoint(http, "::"), workers=1)
    try:
        socket.create_connection(("127.0.0.1", https), timeout=5).close()
        socket.create_connection(("::1", http), timeout=5).close()
    finally:
        listeners.close()
