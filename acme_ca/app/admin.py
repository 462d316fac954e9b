"""The rooms of the admin API, for one worker."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import partial

from acme_ca.acme.endpoints import Acme
from acme_ca.acme.preflight import Preflight
from acme_ca.admin.approvals import Approvals
from acme_ca.admin.rooms import Admin
from acme_ca.admin.routes import ROUTES
from acme_ca.app.shared import Shared
from acme_ca.app.sources import new_id, utc_now
from acme_ca.ca.rotation import Rotation
from acme_ca.config import ConfigurationError
from acme_ca.core.actors import Actor
from acme_ca.lifecycle.bulk import BulkRevocation
from acme_ca.lifecycle.eab import EabKeys
from acme_ca.lifecycle.issuing import Issuing
from acme_ca.lifecycle.services import Services
from acme_ca.public import Public
from acme_ca.revocation.crl import CrlRules
from acme_ca.revocation.revoke import Revocation
from acme_ca.revocation.root_crl import RootCrls


def admin_rooms(shared: Shared, acme: Acme, everyone: Public) -> Admin:
    settings = shared.settings.admin
    routes = {route.name: route for route in ROUTES}
    return Admin(
        database=shared.database,
        services=Services(
            database=shared.database,
            approval_required=shared.settings.services.approval_required,
            clock=utc_now,
            random_bytes=os.urandom,
        ),
        issuing=Issuing(
            database=shared.database,
            authority=shared.authority,
            issuers=shared.issuers,
            profiles=shared.profiles,
            default_profile=shared.settings.default_profile,
            policies=shared.policies,
            weak_keys=shared.weak_keys,
            clock=utc_now,
            log=shared.log,
        ),
        revocation=Revocation(database=shared.database, clock=utc_now),
        bulk=BulkRevocation(database=shared.database, clock=utc_now),
        issuers=shared.issuers,
        profiles=shared.profiles,
        urls=shared.urls,
        public_http_url=shared.settings.public_http_url,
        http01_port=shared.settings.validation.http01_port,
        approvals=Approvals(
            database=shared.database,
            lifetime=timedelta(seconds=settings.approval_lifetime),
            clock=utc_now,
            new_id=new_id,
        ),
        limits=acme.limits,
        preflight=Preflight(
            database=shared.database,
            orders=acme.orders,
            authorizations=acme.authorizations,
            limits=acme.limits,
            validator=shared.validator,
            urls=shared.urls,
            random_bytes=os.urandom,
        ),
        routes=routes,
        two_person=two_person(settings.two_person),
        policies=shared.policies,
        eab_keys=EabKeys(database=shared.database, clock=utc_now, random_bytes=os.urandom),
        new_id=new_id,
        rotation=partial(_rotation, shared),
        bundle=everyone.bundle,
        root_crls=RootCrls(
            database=shared.database,
            public_http_url=shared.settings.public_http_url,
            lifetime=timedelta(seconds=shared.settings.crl.root_lifetime),
            clock=utc_now,
        ),
        crl_rules=CrlRules.of(shared.settings.crl),
        default_profile=shared.settings.default_profile,
        own_identifier=shared.settings.own_identifier(),
        clock=utc_now,
        random_bytes=os.urandom,
    )


def two_person(names: tuple[str, ...]) -> frozenset[str]:
    """Raises ConfigurationError for a name of no dangerous act: nobody should believe themselves protected."""
    dangerous = frozenset(route.name for route in ROUTES if route.dangerous)
    if names == ("all",):
        return dangerous
    if unknown := sorted(set(names) - dangerous):
        raise ConfigurationError(
            f"ACME_CA_ADMIN__TWO_PERSON: there is no dangerous act {unknown[0]!r}; these are: {', '.join(sorted(dangerous))}."
        )
    return frozenset(names)


def _rotation(shared: Shared, actor: Actor) -> Rotation:
    return Rotation(
        database=shared.database,
        issuers=shared.issuers,
        open_key=shared.open_key,
        create_key=shared.create_key,
        base_url=shared.settings.public_http_url,
        actor=actor,
        clock=utc_now,
    )
