"""Once, before the workers: the schema, the issuers and profiles, and the server's own certificates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca import log
from acme_ca.app.admin import two_person
from acme_ca.app.own import Own, authority, renew
from acme_ca.app.sources import utc_now
from acme_ca.ca import profiles
from acme_ca.ca.hierarchy import Hierarchy
from acme_ca.ca.issuers import Issuer
from acme_ca.ca.profiles import Profiles
from acme_ca.ca.served import Issuers, OpenKey, record_of
from acme_ca.config import ConfigurationError, Settings
from acme_ca.core.actors import SERVER, Actor
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.problems import Problem
from acme_ca.core.states import IssuerState
from acme_ca.log import Logger
from acme_ca.storage import database as store
from acme_ca.storage import issuers as issuer_store
from acme_ca.storage import roles
from acme_ca.storage.database import Database


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
    two_person(settings.admin.two_person)
    if not await store.migrate(dsn):
        log.get().warning("the database has no role for servers", role=roles.NAME)
    async with Database.open(dsn, connections=1) as database:
        known = await _profiles(settings, database)
        await take_up(seed, database)
        issuers = Issuers(database=database, open_key=open_key, clock=utc_now, log=log.get())
        await issuers.refresh()
        root = _root(issuers, log.get())
        own = Own(
            settings=settings,
            database=database,
            issuers=issuers,
            profiles=known,
            authority=authority(settings, issuers),
            log=log.get(),
        )
        await renew(own.server(), log.get())
        await own.responders().renew_when_due()
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


async def take_up(seed: Hierarchy | None, database: Database, *, actor: Actor = SERVER) -> None:
    """Make a hierarchy known to a database that knows none. Raises ConfigurationError when it knows another."""
    known = {issuer.id for issuer in await issuer_store.all_issuers(database)}
    if seed is None:
        return
    if not known:
        await register(database, seed, actor=actor, now=utc_now())
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


async def register(database: Database, hierarchy: Hierarchy, *, actor: Actor = SERVER, now: datetime) -> None:
    """Make root and intermediate known to the database: the intermediate is at once in use."""
    root = hierarchy.root
    for issuer, kind in ((root, IssuerKind.ROOT), (hierarchy.intermediate, IssuerKind.INTERMEDIATE)):
        parent = None if kind is IssuerKind.ROOT else root.id
        record = record_of(
            issuer, kind, parent=parent, key_uri=f"file:{kind}.key", state=IssuerState.ACTIVE, now=now
        )
        await issuer_store.register(database, record, actor=actor)
