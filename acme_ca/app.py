"""The composition root: settings become pools, rooms, web applications and background loops, and nothing is global."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca import http, log, public
from acme_ca.acme import endpoints
from acme_ca.acme.accounts import AccountRules, Accounts
from acme_ca.acme.authentication import Authenticator
from acme_ca.acme.authorizations import AuthorizationRules, Authorizations
from acme_ca.acme.limits import LimitRules, Limits
from acme_ca.acme.nonces import Nonces
from acme_ca.acme.orders import OrderRules, Orders
from acme_ca.acme.preflight import Preflight
from acme_ca.acme.renewals import Renewals
from acme_ca.acme.unpausing import Unpausing
from acme_ca.acme.urls import (
    KEY_CHANGE,
    NEW_ACCOUNT,
    NEW_AUTHZ,
    NEW_NONCE,
    NEW_ORDER,
    RENEWAL_INFO,
    REVOKE_CERT,
    Urls,
)
from acme_ca.admin import frame
from acme_ca.admin.approvals import Approvals
from acme_ca.admin.authentication import LONGEST_WAIT, Doorkeeper
from acme_ca.admin.described import add_description
from acme_ca.admin.rooms import Admin
from acme_ca.admin.routes import ROUTES
from acme_ca.audit.forwarding import Forwarding, Syslog, Target, Webhook, trusting
from acme_ca.audit.sealing import Sealing
from acme_ca.ca import profiles
from acme_ca.ca.authority import Authority
from acme_ca.ca.crls import CrlSigner
from acme_ca.ca.hierarchy import Hierarchy
from acme_ca.ca.issuers import Issuer
from acme_ca.ca.keystore import KeyUnavailable, PrivateKey
from acme_ca.ca.lint import LintError
from acme_ca.ca.own import OwnCertificate
from acme_ca.ca.policies import Policies
from acme_ca.ca.profiles import Profiles
from acme_ca.ca.responders import Responders
from acme_ca.ca.rotation import CreateKey, Rotation
from acme_ca.ca.served import Issuers, OpenKey, record_of
from acme_ca.config import ConfigurationError, Settings, ValidationSettings
from acme_ca.core.crl import History
from acme_ca.core.model import SERVER, Actor, IssuerKind
from acme_ca.core.problems import Problem
from acme_ca.core.states import IssuerState
from acme_ca.core.weakkeys import WeakKeys
from acme_ca.expiry import Expiry
from acme_ca.lifecycle.bulk import BulkRevocation
from acme_ca.lifecycle.eab import EabKeys
from acme_ca.lifecycle.issuing import Issuing
from acme_ca.lifecycle.services import Services
from acme_ca.log import Logger
from acme_ca.metrics import Metrics
from acme_ca.public import Public
from acme_ca.revocation import endpoints as revocation_endpoints
from acme_ca.revocation.crl import CrlRules, Publisher
from acme_ca.revocation.crl_files import CrlFiles
from acme_ca.revocation.freshness import Freshness
from acme_ca.revocation.ocsp import Ocsp, OcspRules
from acme_ca.revocation.revoke import Revocation
from acme_ca.revocation.root_crl import RootCrls
from acme_ca.revocation.shards import Shards
from acme_ca.storage import database as store
from acme_ca.storage import issuers as issuer_store
from acme_ca.storage import limits as limit_store
from acme_ca.storage import operations, roles, tokens
from acme_ca.storage.database import Database
from acme_ca.tasks import Background, Loop
from acme_ca.validation.network import AddressRules
from acme_ca.validation.resolver import Zones
from acme_ca.validation.validator import Validator

ATTEMPT_MARGIN = 15.0
"""Seconds that a validation may take beyond its own limits before another process takes it for dead."""
NONCE_SECRET_BYTES = 32
UNPAUSE_SECRET_BYTES = 32
CRL_INTERVAL = 1.0
"""Seconds at most from a revocation to its CRL, and again until every worker serves that."""
OCSP_RENEWAL_INTERVAL = 5.0
"""Seconds until an issuer that is new has an OCSP responder, or a responder whose file is lost another."""
ISSUERS_INTERVAL = 2.0
"""Seconds until every worker has noticed that an operator activated or retired an issuer."""
PROFILES_INTERVAL = 2.0
"""Seconds until every worker has noticed that an operator saved or withdrew a profile."""
POLICIES_INTERVAL = 2.0
"""Seconds until every worker has noticed that an operator changed a policy, a restriction, or approved a name."""
LIMITS_INTERVAL = 2.0
"""Seconds until every worker has noticed that an operator changed an override."""
SEALING_INTERVAL = 10.0
"""Seconds until an audit event is sealed."""
FORWARDING_INTERVAL = 5.0
"""Seconds until an audit event is handed on."""
EXPIRY_INTERVAL = 6 * 3600.0
"""Seconds. A few lines a day: none is missed for long when a lease outlives its process."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def new_id() -> str:
    """32 hexadecimal digits: 48 bits of milliseconds since 1970, so that ids sort by creation, and 80 random bits."""
    milliseconds = int(utc_now().timestamp() * 1000)
    return f"{milliseconds:012x}{os.urandom(10).hex()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a start makes known: the root that clients trust."""

    root_pem: bytes
    fingerprint: str
    """SHA-256, 64 hexadecimal digits."""


async def prepare(settings: Settings, seed: Hierarchy | None, *, dsn: str, open_key: OpenKey) -> Prepared:
    """Once, before the workers: the schema, the issuers and profiles, and the server's own certificates.

    `seed`: the hierarchy in the data directory, taken up when the database knows no issuer yet. Raises SchemaError,
    DatabaseUnavailable, ConfigurationError.
    """
    settings.own_identifier()  # before anything is written
    _two_person(settings.admin.two_person)
    if not await store.migrate(dsn):
        log.get().warning("the database has no role for servers", role=roles.NAME)
    async with Database.open(dsn, connections=1) as database:
        known = await _profiles(settings, database)
        await take_up(seed, database)
        issuers = Issuers(database=database, open_key=open_key, clock=utc_now, log=log.get())
        await issuers.refresh()
        root = _root(issuers, log.get())
        authority = _authority(settings, issuers)
        await _renew(_own_certificate(settings, issuers, known, database, authority), log.get())
        responders = _responders(settings, issuers, known, database, authority, logger=log.get())
        await responders.renew_when_due()
    return Prepared(root_pem=root.certificate.public_bytes(Encoding.PEM), fingerprint=root.fingerprint)


async def _profiles(settings: Settings, database: Database) -> Profiles:
    await profiles.register(database, now=utc_now())
    known = Profiles(database=database, log=log.get())
    await known.refresh()
    if settings.default_profile not in known.offered:
        raise ConfigurationError(
            "ACME_CA_DEFAULT_PROFILE: no such profile is offered; these are: "
            f"{', '.join(sorted(known.offered))}."
        )
    return known


async def _renew(own: OwnCertificate, to: Logger) -> None:
    """With the one there is, status can be served and orders taken while a key store is away, or the issuer may not issue
    for the server's own name.
    """
    try:
        await own.renew_when_due()
    except (KeyUnavailable, LintError, Problem) as error:
        reason = str(error).rstrip(".")
        if not own.file.exists():
            raise ConfigurationError(f"The server's own certificate cannot be made: {reason}.") from None
        to.error("the server's own certificate is not renewed", reason=reason)


async def take_up(seed: Hierarchy | None, database: Database) -> None:
    """Make a hierarchy known to a database that knows none. Raises ConfigurationError when it knows another."""
    known = {issuer.id for issuer in await issuer_store.all_issuers(database)}
    if seed is None:
        return
    if not known:
        await register(database, seed, now=utc_now())
    elif seed.intermediate.id not in known:
        raise ConfigurationError(
            "ACME_CA_DATA: the CA in its folder is another than the one in the database; give the folder of that one."
        )


def _root(issuers: Issuers, to: Logger) -> Issuer:
    """The root of the active issuer, whose key can be used or may come back. Without an active issuer the start goes on:
    the others still publish what was revoked.
    """
    if not list(issuers):
        raise ConfigurationError(
            "ACME_CA_DATABASE_URL: this database knows no CA, and there is none in ACME_CA_DATA: run `acme-ca init` or "
            "`acme-ca ca import` first."
        )
    try:
        active = issuers.active()
    except Problem as problem:
        to.error("nothing is issued", reason=problem.detail)
        root = next((issuer for issuer in issuers if issuer.kind is IssuerKind.ROOT), None)
    else:
        _check_key(active, issuers)
        root = issuers.root_of(active)
    if root is None:
        raise ConfigurationError(
            "The database knows no root of its active issuer; install it with acme-ca ca import."
        )
    return root


def _check_key(active: Issuer, issuers: Issuers) -> None:
    if active.key is None and not issuers.is_away(active.id):
        raise ConfigurationError(
            f"The key of the active issuer cannot be used: {issuers.trouble(active.id)} "
            "(settings ACME_CA_DATA, ACME_CA_CA_PASSWORD)."
        )


async def register(database: Database, hierarchy: Hierarchy, *, now: datetime) -> None:
    """Make root and intermediate known to the database: the intermediate is at once in use."""
    root = hierarchy.root
    for issuer, kind in ((root, IssuerKind.ROOT), (hierarchy.intermediate, IssuerKind.INTERMEDIATE)):
        parent = None if kind is IssuerKind.ROOT else root.id
        record = record_of(
            issuer, kind, parent=parent, key_uri=f"file:{kind}.key", state=IssuerState.ACTIVE, now=now
        )
        await issuer_store.register(database, record, actor=SERVER)


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
            yield await _Composition(
                settings=settings,
                issuers=issuers,
                weak_keys=weak_keys,
                database=database,
                validator=_validator(settings, log),
                open_key=open_key or _no_keys,
                create_key=create_key,
                known=known,
                policies=policies,
                log=log,
            ).application()

    async def background(self) -> None:
        """The background loops, until cancelled."""
        await self._background.run()

    async def finish(self, seconds: float) -> None:
        """Validations under way get so long to finish; the rest are put back for other processes."""
        await self._authorizations.drain(seconds)
        await self._background.release()


class _Composition:
    def __init__(
        self,
        *,
        settings: Settings,
        issuers: Issuers,
        weak_keys: WeakKeys,
        database: Database,
        validator: Validator,
        open_key: OpenKey,
        create_key: CreateKey,
        known: Profiles,
        policies: Policies,
        log: Logger,
    ) -> None:
        self._settings = settings
        self._issuers = issuers
        self._weak_keys = weak_keys
        self._profiles = known
        self._policies = policies
        self._database = database
        self._validator = validator
        self._open_key = open_key
        self._create_key = create_key
        self._log = log
        self._urls = Urls(settings.public_url)
        self._authority = _authority(settings, issuers)

    async def application(self) -> Application:
        if self._settings.dev:
            self._log.warning("development mode: not for production")
        acme = await self._acme()
        responders = _responders(
            self._settings,
            self._issuers,
            self._profiles,
            self._database,
            self._authority,
            logger=self._log,
        )
        await responders.refresh()
        everyone = Public(
            issuers=self._issuers,
            database=self._database,
            can_sign=self._authority.can_sign,
            ocsp=responders.health,
            crls=Freshness(
                database=self._database, rules=CrlRules.of(self._settings.crl), clock=utc_now
            ).look,
            clock=utc_now,
            dev=self._settings.dev,
        )
        history = History()
        crl_files = CrlFiles(database=self._database, history=history)
        https = self._web(endpoints.common_headers(acme))
        endpoints.add_routes(https, acme)
        plain = self._web(_undecorated)
        ocsp, max_age = self._ocsp(responders), timedelta(seconds=self._settings.ocsp.max_age)
        for application in (https, plain):
            public.add_routes(application, everyone)
            revocation_endpoints.add_crl_routes(
                application, crl_files, max_age=timedelta(seconds=self._settings.crl.max_age), clock=utc_now
            )
            revocation_endpoints.add_ocsp_routes(application, ocsp, max_age=max_age, clock=utc_now)
        metrics = Metrics(
            database=self._database, health=everyone.health, clock=utc_now, dev=self._settings.dev
        )
        public.add_metrics_route(plain, metrics)
        admin, doorkeeper = self._admin(acme, everyone), Doorkeeper(database=self._database, clock=utc_now)
        local, certified = (self._web(_undecorated) for _ in range(2))
        for application, identify in (
            (https, doorkeeper.by_token),
            (local, doorkeeper.by_socket),
            (certified, doorkeeper.by_certificate),
        ):
            frame.add_routes(application, admin, ROUTES, identify=identify)
            add_description(application, ROUTES, server=self._settings.public_url)
        return Application(
            https=https,
            http=plain,
            local=local,
            certified=certified,
            issuers=self._issuers,
            profiles=self._profiles,
            policies=self._policies,
            responders=responders,
            _background=self._background(acme, crl_files, self._publisher(history), responders),
            _authorizations=acme.authorizations,
        )

    def _admin(self, acme: endpoints.Acme, everyone: Public) -> Admin:
        settings = self._settings.admin
        routes = {route.name: route for route in ROUTES}
        return Admin(
            database=self._database,
            services=Services(
                database=self._database,
                approval_required=self._settings.services.approval_required,
                clock=utc_now,
                random_bytes=os.urandom,
            ),
            issuing=Issuing(
                database=self._database,
                authority=self._authority,
                issuers=self._issuers,
                profiles=self._profiles,
                default_profile=self._settings.default_profile,
                policies=self._policies,
                weak_keys=self._weak_keys,
                clock=utc_now,
                log=self._log,
            ),
            revocation=Revocation(database=self._database, clock=utc_now),
            bulk=BulkRevocation(database=self._database, clock=utc_now),
            issuers=self._issuers,
            urls=self._urls,
            public_http_url=self._settings.public_http_url,
            http01_port=self._settings.validation.http01_port,
            approvals=Approvals(
                database=self._database,
                lifetime=timedelta(seconds=settings.approval_lifetime),
                clock=utc_now,
                new_id=new_id,
            ),
            limits=acme.limits,
            preflight=Preflight(
                database=self._database,
                orders=acme.orders,
                authorizations=acme.authorizations,
                limits=acme.limits,
                validator=self._validator,
                urls=self._urls,
                random_bytes=os.urandom,
            ),
            routes=routes,
            two_person=_two_person(settings.two_person),
            policies=self._policies,
            eab_keys=EabKeys(database=self._database, clock=utc_now, random_bytes=os.urandom),
            new_id=new_id,
            rotation=self._rotation,
            bundle=everyone.bundle,
            root_crls=RootCrls(
                database=self._database,
                public_http_url=self._settings.public_http_url,
                lifetime=timedelta(seconds=self._settings.crl.root_lifetime),
                clock=utc_now,
            ),
            crl_rules=CrlRules.of(self._settings.crl),
            default_profile=self._settings.default_profile,
            own_identifier=self._settings.own_identifier(),
            clock=utc_now,
            random_bytes=os.urandom,
        )

    def _rotation(self, actor: Actor) -> Rotation:
        return Rotation(
            database=self._database,
            issuers=self._issuers,
            open_key=self._open_key,
            create_key=self._create_key,
            base_url=self._settings.public_http_url,
            actor=actor,
            clock=utc_now,
        )

    def _web(self, decorate: http.Decorate) -> web.Application:
        middleware = http.edge(
            log=self._log,
            new_request_id=lambda: os.urandom(8).hex(),
            decorate=decorate,
            trusted_proxies=self._settings.trusted_proxies,
        )
        return web.Application(middlewares=[middleware], client_max_size=http.MAX_BODY)

    async def _acme(self) -> endpoints.Acme:
        nonces = await self._nonces()
        unpausing = await self._unpausing()
        limits = self._limits(unpausing)
        await limits.refresh()
        authorizations = self._authorizations(limits)
        renewals = Renewals(
            database=self._database, issuers=self._issuers, profiles=self._profiles, clock=utc_now
        )
        settings = self._settings
        return endpoints.Acme(
            authenticator=Authenticator(
                database=self._database,
                nonces=nonces,
                urls=self._urls,
                weak_keys=self._weak_keys,
                clock=utc_now,
                random_bytes=os.urandom,
                reject=_rejecting(settings.test.reject_nonces),
            ),
            nonces=nonces,
            urls=self._urls,
            accounts=Accounts(
                database=self._database,
                urls=self._urls,
                limits=limits,
                rules=AccountRules(
                    eab_required=settings.wants_every_account_bound,
                    terms_of_service=settings.terms_of_service,
                    max_contacts=settings.max_contacts,
                ),
                weak_keys=self._weak_keys,
                clock=utc_now,
                new_id=new_id,
            ),
            orders=self._orders(authorizations, renewals, limits),
            authorizations=authorizations,
            renewals=renewals,
            revocation=Revocation(database=self._database, clock=utc_now),
            limits=limits,
            unpausing=unpausing,
            issuers=self._issuers,
            profiles=self._profiles,
            database=self._database,
            directory=self._directory(),
            orders_page=settings.orders_page,
            clock=utc_now,
        )

    async def _nonces(self) -> Nonces:
        secret = await operations.shared_secret(self._database, "nonce", os.urandom(NONCE_SECRET_BYTES))
        proposal = int.from_bytes(os.urandom(8), signed=True)
        return Nonces(
            secret=secret,
            epoch=await operations.nonce_epoch(self._database, proposal),
            lifetime=self._settings.nonce.lifetime,
            clock=utc_now,
            random_bytes=os.urandom,
        )

    async def _unpausing(self) -> Unpausing:
        secret = await operations.shared_secret(self._database, "unpause", os.urandom(UNPAUSE_SECRET_BYTES))
        return Unpausing(database=self._database, urls=self._urls, secret=secret, clock=utc_now)

    def _limits(self, unpausing: Unpausing) -> Limits:
        settings = self._settings
        return Limits(
            database=self._database,
            rules=LimitRules(
                limits=settings.limits.of_kinds(),
                grouping=settings.grouping,
                failures_before_pause=settings.limits.failures_before_pause,
                help_url=settings.limits.help_url,
            ),
            unpausing=unpausing,
            clock=utc_now,
        )

    def _authorizations(self, limits: Limits) -> Authorizations:
        validation = self._settings.validation
        return Authorizations(
            database=self._database,
            validator=self._validator,
            urls=self._urls,
            policies=self._policies,
            limits=limits,
            rules=AuthorizationRules(
                challenges=validation.challenges,
                lifetime=timedelta(seconds=validation.authorization_lifetime),
                reuse=timedelta(seconds=validation.reuse),
                attempt=_longest_attempt(validation),
                concurrency=validation.concurrency,
            ),
            clock=utc_now,
            random_bytes=os.urandom,
            new_id=new_id,
            log=self._log,
        )

    def _orders(self, authorizations: Authorizations, renewals: Renewals, limits: Limits) -> Orders:
        settings = self._settings
        return Orders(
            database=self._database,
            authority=self._authority,
            issuers=self._issuers,
            profiles=self._profiles,
            default_profile=settings.default_profile,
            policies=self._policies,
            weak_keys=self._weak_keys,
            authorizations=authorizations,
            renewals=renewals,
            limits=limits,
            rules=OrderRules(
                max_identifiers=settings.max_identifiers,
                lifetime=timedelta(seconds=settings.validation.authorization_lifetime),
                reuse=timedelta(seconds=settings.validation.reuse),
                delay_issuance=settings.test.delay_issuance,
            ),
            clock=utc_now,
            new_id=new_id,
            log=self._log,
        )

    def _directory(self) -> Mapping[str, Any]:
        """RFC 8555 §7.1.1."""
        settings, base = self._settings, self._settings.public_url
        # With names that need no EAB, accounts without are made: clients that are told `true` here would not even ask.
        meta: dict[str, Any] = {"externalAccountRequired": settings.wants_every_account_bound}
        if settings.caa.enabled and settings.caa_identities:
            meta["caaIdentities"] = list(settings.caa_identities)
        if settings.terms_of_service:
            meta["termsOfService"] = settings.terms_of_service
        if settings.website:
            meta["website"] = settings.website
        return {
            "newNonce": base + NEW_NONCE,
            "newAccount": base + NEW_ACCOUNT,
            "newOrder": base + NEW_ORDER,
            "newAuthz": base + NEW_AUTHZ,
            "revokeCert": base + REVOKE_CERT,
            "keyChange": base + KEY_CHANGE,
            "renewalInfo": base + RENEWAL_INFO,
            "meta": meta,
        }

    def _ocsp(self, responders: Responders) -> Ocsp:
        settings = self._settings.ocsp
        return Ocsp(
            database=self._database,
            responders=responders,
            rules=OcspRules(lifetime=timedelta(seconds=settings.lifetime), kept=settings.kept),
            clock=utc_now,
            log=self._log,
        )

    def _publisher(self, history: History) -> Publisher:
        return Publisher(
            database=self._database,
            signer=CrlSigner(issuers=self._issuers.find, open_key=self._open_key),
            rules=CrlRules.of(self._settings.crl),
            public_http_url=self._settings.public_http_url,
            history=history,
            clock=utc_now,
            log=self._log,
        )

    def _background(
        self, acme: endpoints.Acme, crl_files: CrlFiles, publisher: Publisher, responders: Responders
    ) -> Background:
        node = f"{socket.gethostname()}:{self._settings.data.resolve()}"
        own = _own_certificate(self._settings, self._issuers, self._profiles, self._database, self._authority)
        expiry = Expiry(database=self._database, clock=utc_now, log=self._log)
        shards = Shards(
            database=self._database,
            budget=self._settings.crl.shard_budget,
            clock=utc_now,
            log=self._log,
        )
        sealing = _sealing(
            self._settings, self._issuers, self._profiles, self._database, self._authority, logger=self._log
        )
        loops = (
            # Operators make, activate and retire issuers while this runs, and save profiles.
            Loop(name="issuers", interval=ISSUERS_INTERVAL, work=self._issuers.refresh),
            Loop(name="profiles", interval=PROFILES_INTERVAL, work=self._profiles.refresh),
            Loop(name="policies", interval=POLICIES_INTERVAL, work=self._policies.refresh),
            Loop(name="limits", interval=LIMITS_INTERVAL, work=acme.limits.tend),
            Loop(name="crl-files", interval=CRL_INTERVAL, work=crl_files.look),
            Loop(name="crl", interval=CRL_INTERVAL, work=publisher.publish_due, lease="crl"),
            Loop(name="crl-shards", interval=10, work=shards.tend, lease="crl-shards"),
            # Attempts are taken over row by row (SKIP LOCKED): every worker may look.
            Loop(name="attempts", interval=5, work=acme.authorizations.take_over),
            Loop(name="orders", interval=15, work=acme.orders.resume, lease="orders"),
            Loop(name="nonces", interval=60, work=self._delete_nonces, lease="nonces"),
            Loop(name="audit-seal", interval=SEALING_INTERVAL, work=sealing.seal_due, lease="audit-seal"),
            Loop(name="expiry", interval=EXPIRY_INTERVAL, work=expiry.warn, lease="expiry"),
            Loop(name="retention", interval=600, work=self._delete_dead, lease="retention"),
            Loop(
                name="own-certificate",
                interval=300,
                work=partial(_renew, own, self._log),
                lease=f"own-certificate {node}",
            ),
            Loop(
                name="ocsp-renewal",
                interval=OCSP_RENEWAL_INTERVAL,
                work=responders.renew_when_due,
                lease=f"ocsp-renewal {node}",
            ),
            Loop(name="ocsp-responders", interval=ISSUERS_INTERVAL, work=responders.refresh),
        )
        holder = f"{node}:{os.getpid()}"
        return Background(
            (*loops, *self._forwarding()),
            database=self._database,
            holder=holder,
            clock=utc_now,
            log=self._log,
        )

    def _forwarding(self) -> tuple[Loop, ...]:
        settings = self._settings.audit
        targets: list[Target] = []
        if settings.syslog is not None:
            targets.append(Syslog(settings.syslog, host=socket.gethostname()))
        if settings.webhook_url is not None:
            targets.append(self._webhook(settings.webhook_url))
        return tuple(
            Loop(
                name=f"audit-{target.name}",
                interval=FORWARDING_INTERVAL,
                work=Forwarding(target, database=self._database, clock=utc_now, log=self._log).forward,
                lease=f"audit-{target.name}",
            )
            for target in targets
        )

    def _webhook(self, url: str) -> Webhook:
        settings = self._settings.audit
        secret = settings.webhook_secret
        return Webhook(
            url=url,
            secret=secret.get_secret_value().encode() if secret else None,
            rules=AddressRules(allow=settings.webhook_allow_networks, setting="audit.webhook_allow_networks"),
            zones=Zones(self._settings.validation.resolvers),
            tls=self._trusting,
            clock=utc_now,
            dev=self._settings.dev,
        )

    def _trusting(self) -> ssl.SSLContext:
        return trusting(issuer.certificate for issuer in self._issuers if issuer.kind is IssuerKind.ROOT)

    async def _delete_nonces(self) -> None:
        await operations.delete_expired_nonces(self._database, utc_now())

    async def _delete_dead(self) -> None:
        now, settings = utc_now(), self._settings
        dead_before = now - timedelta(seconds=settings.retention)
        evidence_before = now - timedelta(seconds=settings.evidence_retention)
        while await operations.delete_dead(
            self._database, dead_before=dead_before, evidence_before=evidence_before
        ):
            pass
        while await limit_store.delete_full(self._database, now=now):
            pass
        while await limit_store.delete_old_pauses(self._database, now=now):
            pass
        await tokens.forget_failures(self._database, longest=LONGEST_WAIT, now=now)


# ---------------------------------------------------------------- parts


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


def _undecorated(_request: web.Request, _response: web.StreamResponse) -> None: ...


def _two_person(names: tuple[str, ...]) -> frozenset[str]:
    """Raises ConfigurationError for a name of no dangerous act: nobody should believe themselves protected."""
    dangerous = frozenset(route.name for route in ROUTES if route.dangerous)
    if names == ("all",):
        return dangerous
    if unknown := sorted(set(names) - dangerous):
        raise ConfigurationError(
            f"ACME_CA_ADMIN__TWO_PERSON: there is no dangerous act {unknown[0]!r}; these are: {', '.join(sorted(dangerous))}."
        )
    return frozenset(names)


def _authority(settings: Settings, issuers: Issuers) -> Authority:
    return Authority(
        issuers=issuers.get,
        public_http_url=settings.public_http_url,
        clock=utc_now,
        random_bytes=os.urandom,
    )


def _own_certificate(
    settings: Settings, issuers: Issuers, known: Profiles, database: Database, authority: Authority
) -> OwnCertificate:
    return OwnCertificate(
        settings.tls_file,
        identifiers=(settings.own_identifier(),),
        database=database,
        authority=authority,
        issuer=issuers.active,
        profile=lambda: known.own("acme_server"),
        clock=utc_now,
    )


def _responders(
    settings: Settings,
    issuers: Issuers,
    known: Profiles,
    database: Database,
    authority: Authority,
    *,
    logger: Logger,
) -> Responders:
    return Responders(
        settings.data / "ocsp",
        issuers=issuers,
        database=database,
        authority=authority,
        profile=lambda: known.own("ocsp_responder"),
        clock=utc_now,
        log=logger,
    )


def _sealing(
    settings: Settings,
    issuers: Issuers,
    known: Profiles,
    database: Database,
    authority: Authority,
    *,
    logger: Logger,
) -> Sealing:
    signer = OwnCertificate(
        settings.data / "audit" / "signer.pem",
        identifiers=(),
        database=database,
        authority=authority,
        issuer=issuers.active,
        profile=lambda: known.own("audit_signer"),
        clock=utc_now,
    )
    return Sealing(
        database=database,
        own=signer,
        issuer=issuers.active,
        origin=settings.public_url,
        checkpoint=settings.audit_checkpoint,
        clock=utc_now,
        log=logger,
    )


def _validator(settings: Settings, log: Logger) -> Validator:
    return Validator(
        settings=settings.validation,
        caa_enabled=settings.caa.enabled,
        caa_identities=settings.caa_identities,
        caa_exempt=settings.caa_exempt,
        dev=settings.dev,
        log=log,
    )


def _longest_attempt(validation: ValidationSettings) -> timedelta:
    tries = validation.attempts * (validation.timeout + validation.retry_delay)
    return timedelta(seconds=tries + ATTEMPT_MARGIN)


def _rejecting(share: float) -> Callable[[], bool]:
    return (lambda: random.random() < share) if share else (lambda: False)  # noqa: S311  no secret depends on it
