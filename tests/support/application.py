"""The real application in the test's own process: a real database, a real hierarchy, real sockets on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import structlog
from aiohttp import ClientSession, TCPConnector, web
from cryptography import x509
from structlog.testing import LogCapture
from yarl import URL

from acme_ca import http
from acme_ca.admin.access import Role
from acme_ca.app import Application, prepare
from acme_ca.ca import certify
from acme_ca.ca.certify import Parent
from acme_ca.ca.constraints import NameConstraints
from acme_ca.ca.hierarchy import Hierarchy
from acme_ca.ca.issuers import Issuer, issuer
from acme_ca.ca.keystore import KeyKind, KeyStoreError, KeyUnavailable, PrivateKey, generate
from acme_ca.ca.served import record_of
from acme_ca.config import Settings
from acme_ca.core.actors import Actor
from acme_ca.core.ids import IssuerId
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.states import IssuerState
from acme_ca.server import weakkeys
from acme_ca.storage import issuers
from acme_ca.storage.database import Database
from tests.support.admin import Operator, operator
from tests.support.client import Account, Client, Order
from tests.support.dns import DnsServer
from tests.support.responders import HttpResponder

PUBLIC_URL = "https://ca.test"
PUBLIC_HTTP_URL = "http://ca.test"


@dataclass
class World:
    """What lies outside of the CA: the DNS, and the web server that all names lead to."""

    dns: DnsServer
    web: HttpResponder
    _numbers: Iterator[int] = field(default_factory=count)

    def name(self) -> str:
        """A name that no other test has, and that leads to `web`."""
        made = f"n{next(self._numbers)}.example.test"
        self.dns.add(made, "A", "127.0.0.1")
        return made


@contextmanager
def world() -> Iterator[World]:
    with DnsServer() as dns, HttpResponder() as web:
        yield World(dns, web)


class Keys(dict[str, PrivateKey | None]):
    """A key store: keys by their URIs."""

    def open(self, uri: str) -> PrivateKey:
        if (key := self.get(uri)) is None:
            raise KeyUnavailable(f"The key {uri} is out of reach.")
        return key

    def create(self, uri: str, kind: KeyKind) -> tuple[str, PrivateKey]:
        if uri in self:
            raise KeyStoreError(f"There is a key at {uri} already.")
        self[uri] = made = generate(kind)
        return uri, made


@dataclass
class Ca:
    """A running CA and what a test needs beside it. `client` speaks ACME; `dsn` names the database."""

    client: Client
    plain: Client
    """Speaks to the listener without TLS."""
    application: Application
    hierarchy: Hierarchy
    keys: Keys
    settings: Settings
    dsn: str
    world: World
    log: LogCapture

    @property
    def web(self) -> HttpResponder:
        return self.world.web

    @property
    def dns(self) -> DnsServer:
        return self.world.dns

    def name(self) -> str:
        return self.world.name()

    async def account(self, **payload: Any) -> Account:
        return await self.client.register(**payload)

    async def operator(self, role: Role = Role.ADMINISTRATOR, **token: Any) -> Operator:
        """Somebody with a new token of the admin API."""
        return await operator(self.client, self.dsn, role, **token)

    async def ready(self, account: Account, names: int = 1) -> Order:
        """An order of the account that awaits its CSR."""
        order = await account.order(*(self.name() for _ in range(names)))
        return await order.prove(self.web)

    async def add_issuer(
        self, *, name: str = "Successor", constraints: NameConstraints | None = None
    ) -> tuple[Issuer, Parent]:
        """Another intermediate in use, with its key in the key store; and the root of its own that it is below."""
        now = datetime.now(UTC)
        root_key, key = (generate(KeyKind.EC_P256) for _ in range(2))
        root = Parent(certificate=certify.make_root(certify.root_name(name), root_key, now=now), key=root_key)
        below = certify.make_intermediate(
            certify.intermediate_name(root.certificate.subject),
            key.public_key(),
            root,
            name_constraints=constraints,
            now=now,
        )
        self.keys[f"file:{name}.key"] = key
        parent = await self.register(root.certificate, IssuerKind.ROOT)
        issuer = await self.register(
            below, IssuerKind.INTERMEDIATE, parent=parent.id, key_uri=f"file:{name}.key"
        )
        return issuer, root

    async def register(
        self,
        certificate: x509.Certificate,
        kind: IssuerKind,
        *,
        parent: IssuerId | None = None,
        key_uri: str | None = None,
    ) -> Issuer:
        """A CA certificate, in use."""
        record = record_of(
            issuer(certificate, None, chain=()),
            kind,
            parent=parent,
            key_uri=key_uri,
            state=IssuerState.ACTIVE,
            now=datetime.now(UTC),
        )
        async with Database.open(self.dsn, connections=1) as database:
            assert await issuers.register(database, record, actor=Actor("operator"))
        await self.application.issuers.refresh()
        return await self.application.issuers.find(record.id)

    async def retire(self, issuer: Issuer) -> None:
        async with Database.open(self.dsn, connections=1) as database:
            retired = IssuerState.RETIRED
            assert await issuers.change_state(
                database, issuer.id, retired, actor=Actor("operator"), now=datetime.now(UTC)
            )
        await self.application.issuers.refresh()

    async def sql(self, statement: str) -> Any:
        """Run one statement in the database, beside the server; the first value of its result."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    def logged(self, event: str) -> list[Any]:
        return [entry for entry in self.log.entries if entry["event"] == event]


@asynccontextmanager
async def at_work(ca: Ca) -> AsyncIterator[None]:
    """With the background loops of the server."""
    task = asyncio.create_task(ca.application.background())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def settings_for(around: World, place: Path, **settings: Any) -> Settings:
    """Settings of a CA that finds the world; `settings` win, `validation` member by member."""
    validation = {
        "http01_port": around.web.port,
        "tlsalpn01_port": 1,
        "resolvers": around.dns.address,
        "allow_networks": "127.0.0.0/8,::1/128",
        "attempts": 1,
        "timeout": 30,
        "retry_delay": 0.01,
    }
    return Settings(
        **{
            "data": place,
            "public_url": PUBLIC_URL,
            "public_http_url": PUBLIC_HTTP_URL,
            **settings,
            "validation": {**validation, **settings.get("validation", {})},
        }
    )


@asynccontextmanager
async def serving(
    dsn: str,
    hierarchy: Hierarchy,
    around: World,
    place: Path,
    keys: Keys | None = None,
    **settings: Any,
) -> AsyncIterator[Ca]:
    """A CA on the database `dsn` with its files in `place`. Several may share a database, as workers do.

    `keys`: its key store, with more than the hierarchy's key or with another in its place.
    """
    keys = Keys({"file:intermediate.key": hierarchy.intermediate.key}) if keys is None else keys
    chosen = settings_for(around, place, **settings)
    captured = LogCapture()
    log = structlog.wrap_logger(
        None,
        processors=[structlog.processors.format_exc_info, captured],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    await prepare(chosen, hierarchy, dsn=dsn, open_key=keys.open)
    async with (
        Application.open(
            chosen,
            weak_keys=weakkeys.load(chosen),
            dsn=dsn,
            open_key=keys.open,
            create_key=keys.create,
            log=log,
        ) as application,
        _listening(application.https) as https,
        _listening(application.http) as plain,
        ClientSession(connector=TCPConnector(limit=0, family=socket.AF_INET)) as session,
    ):
        yield Ca(
            client=Client(session, server=https, public_url=chosen.public_url, log=captured.entries),
            plain=Client(session, server=plain, public_url=chosen.public_http_url),
            application=application,
            hierarchy=hierarchy,
            keys=keys,
            settings=chosen,
            dsn=dsn,
            world=around,
            log=captured,
        )


@asynccontextmanager
async def _listening(application: web.Application) -> AsyncIterator[URL]:
    """Served as a worker serves it, but without TLS."""
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    assert runner.server is not None
    server = await asyncio.get_running_loop().create_server(http.protocol_of(runner.server), "127.0.0.1", 0)
    try:
        yield URL.build(scheme="http", host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await runner.cleanup()
