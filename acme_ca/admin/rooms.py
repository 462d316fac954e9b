"""The rooms behind the endpoints of the admin API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from acme_ca.acme.limits import Limits
from acme_ca.acme.preflight import Preflight
from acme_ca.acme.urls import Urls
from acme_ca.admin.approvals import Approvals
from acme_ca.admin.frame import Route
from acme_ca.ca.policies import Policies
from acme_ca.ca.profiles import Profiles
from acme_ca.ca.rotation import Rotation
from acme_ca.ca.served import Issuers
from acme_ca.core.actors import Actor
from acme_ca.core.identifiers import Identifier
from acme_ca.lifecycle.bulk import BulkRevocation
from acme_ca.lifecycle.eab import EabKeys
from acme_ca.lifecycle.issuing import Issuing
from acme_ca.lifecycle.services import Services
from acme_ca.revocation.crl import CrlRules
from acme_ca.revocation.revoke import Revocation
from acme_ca.revocation.root_crl import RootCrls
from acme_ca.storage.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """`two_person`: names of the routes that a second person must approve."""

    database: Database
    approvals: Approvals
    limits: Limits
    preflight: Preflight
    services: Services
    issuing: Issuing
    revocation: Revocation
    bulk: BulkRevocation
    issuers: Issuers
    profiles: Profiles
    urls: Urls
    public_http_url: str
    http01_port: int
    """Where clients answer http-01 challenges."""
    routes: Mapping[str, Route]
    """By their names."""
    two_person: frozenset[str]
    policies: Policies
    eab_keys: EabKeys
    new_id: Callable[[], str] = field(repr=False)
    rotation: Callable[[Actor], Rotation]
    """What that operator does with issuers."""
    bundle: Callable[[], bytes]
    """PEM: the chain of the active issuer, and the roots; empty without a CA."""
    root_crls: RootCrls
    crl_rules: CrlRules
    default_profile: str
    own_identifier: Identifier
    """Of the server's own certificate."""
    clock: Callable[[], datetime] = field(repr=False)
    random_bytes: Callable[[int], bytes] = field(repr=False)
