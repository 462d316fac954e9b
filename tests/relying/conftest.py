"""A running server for each key type, and the programs of those who rely on its certificates.

Without the programs the tests are skipped, or fail where all must be there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from acme_ca.core.actors import Actor
from acme_ca.core.ids import serial_text
from acme_ca.core.revocation import HOLD, RevocationReason
from acme_ca.revocation.revoke import Revocation
from acme_ca.storage import embedded
from acme_ca.storage.database import Database
from tests.support.acme_client import AcmeClient, PrivateKey
from tests.support.clients import find
from tests.support.dns import DnsServer
from tests.support.relying import Party
from tests.support.responders import HttpResponder
from tests.support.server import Server, command, running

OPERATOR = Actor("operator")
PATIENCE = 30.0
"""Seconds."""


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
    first_crl: bytes
    """Of the intermediate, from before anything was revoked."""
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def root(self) -> x509.Certificate:
        return self.party.root

    @property
    def intermediate(self) -> x509.Certificate:
        (intermediate,) = self.party.intermediates
        return intermediate

    def issue(
        self, name: str | None = None, *, key: PrivateKey | None = None, profile: str | None = None
    ) -> x509.Certificate:
        """`name`: one of its own by default."""
        name = name or f"host{next(self._numbers)}.example.test"
        self.dns.add(name, "A", "127.0.0.1")
        order = self.client.order(name, key=key, profile=profile)
        self.client.prove(order, self.web)
        finalized = self.client.acme.begin_finalization(
            order
        )  # the package's own next step sleeps for a second
        chain = self.client.post(finalized.body.certificate, None)
        return x509.load_pem_x509_certificate(chain.content)

    def fetch(self, url: str) -> bytes:
        """`url`: as a certificate has it, or a path."""
        with urlopen(url if "://" in url else self.server.http_base + url, timeout=10) as answer:
            content: bytes = answer.read()
        return content

    def crl_url(self, certificate: x509.Certificate) -> str:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        ((url,),) = (point.full_name for point in points)
        return str(url.value)

    def root_crl(self) -> bytes:
        return await_crl(_crl_of(self.server, self.root))

    def await_crl(self, url: str, wanted: Callable[[bytes], bool]) -> bytes:
        """The first that is as `wanted`, from now on."""
        return await_crl(url, wanted)

    def hold(self, certificate: x509.Certificate) -> None:
        serial = serial_text(certificate.serial_number)
        self._operate(lambda room: room.take_back(serial, by=OPERATOR, reason=HOLD))

    def release(self, certificate: x509.Certificate) -> None:
        serial = serial_text(certificate.serial_number)
        self._operate(lambda room: room.release(serial, by=OPERATOR))

    def revoke(
        self, certificate: x509.Certificate, reason: RevocationReason, *, since: datetime | None = None
    ) -> None:
        serial = serial_text(certificate.serial_number)
        self._operate(lambda room: room.take_back(serial, by=OPERATOR, reason=reason, invalid_since=since))

    def _operate(self, act: Callable[[Revocation], Awaitable[None]]) -> None:
        """As the command `acme-ca cert` does, beside the server."""

        async def work() -> None:
            async with Database.open(url, connections=1) as database:
                await act(Revocation(database=database, clock=lambda: datetime.now(UTC)))

        url = embedded.url_of_running(self.server.data / "postgres")
        assert url is not None
        asyncio.run(work())


@pytest.fixture(scope="session", params=["ec", "rsa"])
def ca(request, tmp_path_factory) -> Iterator[Ca]:
    """Tests take certificates of their own."""
    place = tmp_path_factory.mktemp(request.param)
    made = command(place, "init", "--key-type", request.param, "--cn", "Example", "--org", "Example")
    assert made.returncode == 0, made.stderr
    with (
        DnsServer() as dns,
        # One worker: another may serve the CRL of a second ago.
        running(place, VALIDATION__RESOLVERS=dns.address, WORKERS="1") as server,
        HttpResponder(port=server.http01_port) as web,
        AcmeClient(server) as client,
    ):
        client.register()
        party = _party(server, tmp_path_factory.mktemp("party"))
        first = await_crl(_crl_of(server, party.intermediates[0]))
        yield Ca(server=server, client=client, web=web, dns=dns, party=party, first_crl=first)


def _party(server: Server, place: Path) -> Party:
    with urlopen(f"{server.http_base}/ca/bundle.pem", timeout=10) as answer:
        bundle = x509.load_pem_x509_certificates(answer.read())
    root = x509.load_pem_x509_certificate(server.root.read_bytes())
    return Party(place=place, root=root, intermediates=tuple(c for c in bundle if c != root))


def _crl_of(server: Server, issuer: x509.Certificate) -> str:
    return f"{server.http_base}/crl/{issuer.fingerprint(hashes.SHA256()).hex()[:32]}/0.crl"


def await_crl(url: str, wanted: Callable[[bytes], bool] = bool) -> bytes:
    """The first that is as `wanted`, from now on."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with suppress(HTTPError), urlopen(url, timeout=10) as answer:
            crl: bytes = answer.read()
            if wanted(crl):
                return crl
        assert time.monotonic() < deadline, f"{url} is not as it should be"
        time.sleep(0.1)
