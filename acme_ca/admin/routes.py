"""All routes of the admin API."""

from __future__ import annotations

from acme_ca.admin import approvals, audit, certificates, limits, services, tokens
from acme_ca.admin.frame import Route

ROUTES: tuple[Route, ...] = (
    *tokens.ROUTES,
    *approvals.ROUTES,
    *audit.ROUTES,
    *limits.ROUTES,
    *services.ROUTES,
    *certificates.ROUTES,
)
