"""A running server for each key type, and the programs of those who rely on its certificates.

Without the programs the tests are skipped, or fail where all must be there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.request import urlopen

import pytest
from cryptography import x509

from tests.support.acme_client import AcmeClient, leaf
from tests.support.clients import find
from tests.support.dns import DnsServer
from tests.support.relying import Party
from tests.support.responders import HttpResponder
from tests.support.server import Server, command, running


@pytest.fixture(scope="session", autouse=True)
def _programs():
    for program in ("openssl", "certtool", "ocsptool", "java", "javac"):
        find(program)


@dataclass(frozen=True, kw_only=True)
class Ca:
    """A server, an account, and what relying parties have of the CA."""

    server: Server
    client: AcmeClient
    web: HttpResponder
    dns: DnsServer
    party: Party
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def root(self) -> x509.Certificate:
        return self.party.root

    @property
    def intermediate(self) -> x509.Certificate:
        (intermediate,) = self.party.intermediates
        return intermediate

    def issue(self) -> x509.Certificate:
        """For a name of its own."""
        name = f"host{next(self._numbers)}.example.test"
        self.dns.add(name, "A", "127.0.0.1")
        return leaf(self.client.issue(name, web=self.web))

    def fetch(self, url: str) -> bytes:
        """`url`: as a certificate has it, or a path."""
        with urlopen(url if "://" in url else self.server.http_base + url, timeout=10) as answer:
            content: bytes = answer.read()
        return content

    def operate(self, *words: str) -> str:
        """The command `acme-ca`, beside the server."""
        done = command(self.server.place, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session", params=["ec", "rsa"])
def ca(request, tmp_path_factory) -> Iterator[Ca]:
    """Tests take certificates of their own."""
    place = tmp_path_factory.mktemp(request.param)
    made = command(place, "init", "--key-type", request.param, "--cn", "Example", "--org", "Example")
    assert made.returncode == 0, made.stderr
    with (
        DnsServer() as dns,
        running(place, VALIDATION__RESOLVERS=dns.address) as server,
        HttpResponder(port=server.http01_port) as web,
        AcmeClient(server) as client,
    ):
        client.register()
        party = _party(server, tmp_path_factory.mktemp("party"))
        yield Ca(server=server, client=client, web=web, dns=dns, party=party)


def _party(server: Server, place: Path) -> Party:
    with urlopen(f"{server.http_base}/ca/bundle.pem", timeout=10) as answer:
        bundle = x509.load_pem_x509_certificates(answer.read())
    root = x509.load_pem_x509_certificate(server.root.read_bytes())
    return Party(place=place, root=root, intermediates=tuple(c for c in bundle if c != root))
