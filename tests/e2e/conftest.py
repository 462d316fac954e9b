"""A started server per test process, a DNS server in which its clients' names are, and the clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support.clients import Certbot, DnsHooks, Lego, find
from tests.support.dns import DnsServer
from tests.support.server import Server, running

# ---------------------------------------------------------------- the server and its surroundings


@pytest.fixture(scope="session")
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, dns: DnsServer) -> Iterator[Server]:
    """Shared by the tests of one process: they take names of their own and leave its ports free."""
    with running(
        tmp_path_factory.mktemp("server"),
        VALIDATION__RESOLVERS=dns.address,
        VALIDATION__RETRY_DELAY="0.1",
    ) as started:
        yield started


@pytest.fixture(scope="session")
def new_hosts(dns: DnsServer) -> Callable[[int], list[str]]:
    """Makes so many names that nobody else has, with the address of this machine."""
    numbers = count(1)

    def make(how_many: int) -> list[str]:
        names = [f"host{next(numbers)}.example.test" for _ in range(how_many)]
        for name in names:
            dns.add(name, "A", "127.0.0.1")
        return names

    return make


@pytest.fixture
def hooks(dns: DnsServer, tmp_path: Path) -> Iterator[DnsHooks]:
    with DnsHooks(dns, tmp_path) as listening:
        yield listening


# ---------------------------------------------------------------- the clients


@pytest.fixture
def openssl() -> str:
    return find("openssl")


@pytest.fixture
def curl() -> str:
    return find("curl")


@pytest.fixture
def certbot(server: Server, tmp_path: Path, openssl: str) -> Certbot:
    """certbot, pointed at the shared server, without an account."""
    return Certbot(command=find("certbot"), server=server, home=tmp_path)


@pytest.fixture
def lego(server: Server, tmp_path: Path, openssl: str, hooks: DnsHooks) -> Lego:
    """lego, pointed at the shared server, without an account."""
    more = {"EXEC_PATH": str(hooks.script), "EXEC_SEQUENCE_INTERVAL": "1", "EXEC_POLLING_INTERVAL": "1"}
    return Lego(command=find("lego"), server=server, home=tmp_path, more_environment=more)
