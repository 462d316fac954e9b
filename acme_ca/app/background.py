"""What a worker does beside its answers: loops, some of them under a lease that one process at a time has."""

from __future__ import annotations

import os
import socket
import ssl
from datetime import timedelta
from functools import partial

from acme_ca.acme.endpoints import Acme
from acme_ca.admin.authentication import LONGEST_WAIT
from acme_ca.app.own import renew
from acme_ca.app.shared import Shared
from acme_ca.app.sources import utc_now
from acme_ca.audit.forwarding import Forwarding, Syslog, Target, Webhook, trusting
from acme_ca.ca.responders import Responders
from acme_ca.ca.served import Issuers
from acme_ca.config import Settings
from acme_ca.core.issuers import IssuerKind
from acme_ca.expiry import Expiry
from acme_ca.revocation import crl
from acme_ca.revocation.crl import Publisher
from acme_ca.revocation.crl_files import CrlFiles
from acme_ca.revocation.shards import Shards
from acme_ca.storage import limits as limit_store
from acme_ca.storage import operations, tokens
from acme_ca.storage.database import Database
from acme_ca.tasks import Background, Loop
from acme_ca.validation.network import AddressRules
from acme_ca.validation.resolver import Zones

CRL_FILES_INTERVAL = 1.0
"""Seconds at most until every worker serves a CRL that is new."""
OCSP_RENEWAL_INTERVAL = 5.0
"""Seconds until an issuer that is new has an OCSP responder, or a responder whose file is lost another."""
OWN_CERTIFICATE_INTERVAL = 10.0
"""Seconds until the server's own certificate is replaced when it was revoked; the listeners show it WATCH_INTERVAL later."""
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


def background(
    shared: Shared, acme: Acme, crl_files: CrlFiles, publisher: Publisher, responders: Responders
) -> Background:
    node = f"{socket.gethostname()}:{shared.settings.data.resolve()}"
    own = shared.own
    expiry = Expiry(database=shared.database, clock=utc_now, log=shared.log)
    shards = Shards(
        database=shared.database,
        budget=shared.settings.crl.shard_budget,
        clock=utc_now,
        log=shared.log,
    )
    loops = (
        # Operators make, activate and retire issuers while this runs, and save profiles.
        Loop(name="issuers", interval=ISSUERS_INTERVAL, work=shared.issuers.refresh),
        Loop(name="profiles", interval=PROFILES_INTERVAL, work=shared.profiles.refresh),
        Loop(name="policies", interval=POLICIES_INTERVAL, work=shared.policies.refresh),
        Loop(name="limits", interval=LIMITS_INTERVAL, work=acme.limits.tend),
        Loop(name="crl-files", interval=CRL_FILES_INTERVAL, work=crl_files.look),
        Loop(name="crl", interval=crl.INTERVAL, work=publisher.publish_due, lease=crl.LEASE),
        Loop(name="crl-shards", interval=10, work=shards.tend, lease="crl-shards"),
        # Attempts are taken over row by row (SKIP LOCKED): every worker may look.
        Loop(name="attempts", interval=5, work=acme.authorizations.take_over),
        Loop(name="orders", interval=15, work=acme.orders.resume, lease="orders"),
        Loop(name="nonces", interval=60, work=partial(_delete_nonces, shared.database), lease="nonces"),
        Loop(name="audit-seal", interval=SEALING_INTERVAL, work=own.sealing().seal_due, lease="audit-seal"),
        Loop(name="expiry", interval=EXPIRY_INTERVAL, work=expiry.warn, lease="expiry"),
        Loop(
            name="retention",
            interval=600,
            work=partial(_delete_dead, shared.settings, shared.database),
            lease="retention",
        ),
        Loop(
            name="own-certificate",
            interval=OWN_CERTIFICATE_INTERVAL,
            work=partial(renew, own.server(), shared.log),
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
        (*loops, *_forwarding(shared)),
        database=shared.database,
        holder=holder,
        clock=utc_now,
        log=shared.log,
    )


def _forwarding(shared: Shared) -> tuple[Loop, ...]:
    settings = shared.settings.audit
    targets: list[Target] = []
    if settings.syslog is not None:
        targets.append(Syslog(settings.syslog, host=socket.gethostname()))
    if settings.webhook_url is not None:
        targets.append(_webhook(shared, settings.webhook_url))
    return tuple(
        Loop(
            name=f"audit-{target.name}",
            interval=FORWARDING_INTERVAL,
            work=Forwarding(target, database=shared.database, clock=utc_now, log=shared.log).forward,
            lease=f"audit-{target.name}",
        )
        for target in targets
    )


def _webhook(shared: Shared, url: str) -> Webhook:
    settings = shared.settings.audit
    secret = settings.webhook_secret
    return Webhook(
        url=url,
        secret=secret.get_secret_value().encode() if secret else None,
        rules=AddressRules(allow=settings.webhook_allow_networks, setting="audit.webhook_allow_networks"),
        zones=Zones(shared.settings.validation.resolvers),
        tls=partial(_trusting, shared.issuers),
        clock=utc_now,
        dev=shared.settings.dev,
    )


def _trusting(issuers: Issuers) -> ssl.SSLContext:
    return trusting(issuer.certificate for issuer in issuers if issuer.kind is IssuerKind.ROOT)


async def _delete_nonces(database: Database) -> None:
    await operations.delete_expired_nonces(database, utc_now())


async def _delete_dead(settings: Settings, database: Database) -> None:
    now = utc_now()
    dead_before = now - timedelta(seconds=settings.retention)
    evidence_before = now - timedelta(seconds=settings.evidence_retention)
    while await operations.delete_dead(database, dead_before=dead_before, evidence_before=evidence_before):
        pass
    while await limit_store.delete_full(database, now=now):
        pass
    while await limit_store.delete_old_pauses(database, now=now):
        pass
    await tokens.forget_failures(database, longest=LONGEST_WAIT, now=now)
