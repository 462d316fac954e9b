"""All routes of the admin API."""

from __future__ import annotations

from acme_ca.admin import (
    accounts,
    approvals,
    audit,
    certificates,
    eab,
    limits,
    policies,
    scopes,
    services,
    tokens,
)
from acme_ca.admin.frame import Route

ROUTES: tuple[Route, ...] = (
    *tokens.ROUTES,
    *approvals.ROUTES,
    *audit.ROUTES,
    *limits.ROUTES,
    *services.ROUTES,
    *certificates.ROUTES,
    *eab.ROUTES,
    *accounts.ROUTES,
    *policies.ROUTES,
    *scopes.ROUTES,
)
