"""One worker: its web applications and its background loops."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from aiohttp import web

from acme_ca import http, public
from acme_ca.acme import endpoints
from acme_ca.acme.authorizations import Authorizations
from acme_ca.acme.urls import Urls
from acme_ca.admin import frame
from acme_ca.admin.authentication import Doorkeeper
from acme_ca.admin.described import add_description
from acme_ca.admin.routes import ROUTES
from acme_ca.app.acme import acme_rooms
from acme_ca.app.admin import admin_rooms
from acme_ca.app.background import background
from acme_ca.app.own import authority
from acme_ca.app.shared import Shared
from acme_ca.app.sources import utc_now
from acme_ca.audit.numbering import Numbering
from acme_ca.ca.crls import CrlSigner
from acme_ca.ca.keystore import KeyUnavailable, PrivateKey
from acme_ca.ca.policies import Policies
from acme_ca.ca.profiles import Profiles
from acme_ca.ca.responders import Responders
from acme_ca.ca.rotation import CreateKey
from acme_ca.ca.served import Issuers, OpenKey
from acme_ca.config import Settings
from acme_ca.core.crl import History
from acme_ca.core.weakkeys import WeakKeys
from acme_ca.log import Logger
from acme_ca.metrics import Metrics
from acme_ca.public import Public
from acme_ca.revocation import endpoints as revocation_endpoints
from acme_ca.revocation.crl import CrlRules, Publisher
from acme_ca.revocation.crl_files import CrlFiles
from acme_ca.revocation.freshness import Freshness
from acme_ca.revocation.ocsp import Ocsp, OcspRules
from acme_ca.storage.database import Database
from acme_ca.tasks import Background
from acme_ca.validation.validator import Validator


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """One worker: what it serves and what it does beside."""

    https: web.Application
    http: web.Application
    local: web.Application
    """The admin API for processes of this machine, through the Unix socket."""
    certified: web.Application
    """The admin API for client certificates."""
    issuers: Issuers
    profiles: Profiles
    policies: Policies
    responders: Responders
    _background: Background = field(repr=False)
    _authorizations: Authorizations = field(repr=False)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        *,
        weak_keys: WeakKeys,
        dsn: str,
        open_key: OpenKey | None,
        create_key: CreateKey,
        log: Logger,
    ) -> AsyncIterator[Application]:
        """`open_key` None: for those who sign nothing."""
        async with Database.open(dsn, connections=settings.database_connections) as database:
            issuers = Issuers(database=database, open_key=open_key, clock=utc_now, log=log)
            await issuers.refresh()
            known = Profiles(database=database, log=log)
            await known.refresh()
            policies = _policies(settings, database, log)
            await policies.refresh()
            shared = Shared(
                settings=settings,
                database=database,
                issuers=issuers,
                profiles=known,
                policies=policies,
                authority=authority(settings, issuers),
                validator=_validator(settings, log),
                weak_keys=weak_keys,
                open_key=open_key or _no_keys,
                create_key=create_key,
                urls=Urls(settings.public_url),
                log=log,
            )
            yield await _application(shared)

    async def background(self) -> None:
        """The background loops, until cancelled."""
        await self._background.run()

    async def finish(self, seconds: float) -> None:
        """Validations under way get so long to finish; the rest are put back for other processes."""
        await self._authorizations.drain(seconds)
        await self._background.release()


async def _application(shared: Shared) -> Application:
    if shared.settings.dev:
        shared.log.warning("development mode: not for production")
    responders = shared.own.responders()
    await responders.refresh()
    acme, everyone = await acme_rooms(shared), _public(shared, responders)
    history = History()
    crl_files = CrlFiles(database=shared.database, history=history)
    https = _web(shared, endpoints.common_headers(acme))
    endpoints.add_routes(https, acme)
    plain, local, certified = (_web(shared) for _ in range(3))
    _add_status(shared, (https, plain), everyone, crl_files, responders)
    public.add_metrics_route(plain, _metrics(shared, everyone))
    admin, doorkeeper = (
        admin_rooms(shared, acme, everyone),
        Doorkeeper(database=shared.database, clock=utc_now),
    )
    for application, identify in (
        (https, doorkeeper.by_token),
        (local, doorkeeper.by_socket),
        (certified, doorkeeper.by_certificate),
    ):
        frame.add_routes(application, admin, ROUTES, identify=identify)
        add_description(application, ROUTES, server=shared.settings.public_url)
    return Application(
        https=https,
        http=plain,
        local=local,
        certified=certified,
        issuers=shared.issuers,
        profiles=shared.profiles,
        policies=shared.policies,
        responders=responders,
        _background=background(shared, acme, crl_files, _publisher(shared, history), responders),
        _authorizations=acme.authorizations,
    )


def _add_status(
    shared: Shared,
    applications: Sequence[web.Application],
    everyone: Public,
    crl_files: CrlFiles,
    responders: Responders,
) -> None:
    """What relying parties and probes read, over HTTPS and over plain HTTP."""
    ocsp, settings = _ocsp(shared, responders), shared.settings
    for application in applications:
        public.add_routes(application, everyone)
        revocation_endpoints.add_crl_routes(
            application, crl_files, max_age=timedelta(seconds=settings.crl.max_age), clock=utc_now
        )
        revocation_endpoints.add_ocsp_routes(
            application, ocsp, max_age=timedelta(seconds=settings.ocsp.max_age), clock=utc_now
        )


def _public(shared: Shared, responders: Responders) -> Public:
    crl_rules = CrlRules.of(shared.settings.crl)
    return Public(
        issuers=shared.issuers,
        database=shared.database,
        can_sign=shared.authority.can_sign,
        ocsp=responders.health,
        crls=Freshness(database=shared.database, rules=crl_rules, clock=utc_now).look,
        audit=Numbering(database=shared.database, clock=utc_now).look,
        clock=utc_now,
        dev=shared.settings.dev,
    )


def _metrics(shared: Shared, everyone: Public) -> Metrics:
    return Metrics(database=shared.database, health=everyone.health, clock=utc_now, dev=shared.settings.dev)


def _undecorated(_request: web.Request, _response: web.StreamResponse) -> None: ...


def _web(shared: Shared, decorate: http.Decorate = _undecorated) -> web.Application:
    middleware = http.edge(
        log=shared.log,
        new_request_id=lambda: os.urandom(8).hex(),
        decorate=decorate,
        trusted_proxies=shared.settings.trusted_proxies,
    )
    return web.Application(middlewares=[middleware], client_max_size=http.MAX_BODY)


def _ocsp(shared: Shared, responders: Responders) -> Ocsp:
    settings = shared.settings.ocsp
    return Ocsp(
        database=shared.database,
        responders=responders,
        rules=OcspRules(lifetime=timedelta(seconds=settings.lifetime), kept=settings.kept),
        clock=utc_now,
        log=shared.log,
    )


def _publisher(shared: Shared, history: History) -> Publisher:
    return Publisher(
        database=shared.database,
        signer=CrlSigner(issuers=shared.issuers.find, open_key=shared.open_key),
        rules=CrlRules.of(shared.settings.crl),
        public_http_url=shared.settings.public_http_url,
        history=history,
        clock=utc_now,
        log=shared.log,
    )


def _policies(settings: Settings, database: Database, logger: Logger) -> Policies:
    return Policies(
        database=database,
        settings=settings.policy.name_policy(),
        unbound_names=settings.eab_exempt_names if settings.eab_required else None,
        clock=utc_now,
        log=logger,
    )


def _no_keys(uri: str) -> PrivateKey:
    raise KeyUnavailable(f"The key {uri} is not opened here: the password of the CA keys is missing.")


def _validator(settings: Settings, log: Logger) -> Validator:
    return Validator(
        settings=settings.validation,
        caa_enabled=settings.caa.enabled,
        caa_identities=settings.caa_identities,
        caa_exempt=settings.caa_exempt,
        dev=settings.dev,
        log=log,
    )
