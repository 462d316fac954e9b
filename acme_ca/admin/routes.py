"""All routes of the admin API."""

from __future__ import annotations

from acme_ca.admin import (
    account_list,
    accounts,
    approvals,
    audit,
    blocklist,
    certificate_issuing,
    certificate_list,
    certificate_revoking,
    certificates,
    crl,
    eab,
    explain,
    issuers,
    limits,
    orders,
    policies,
    profiles,
    scopes,
    services,
    statistics,
    tokens,
)
from acme_ca.admin.frame import Route

ROUTES: tuple[Route, ...] = (
    *tokens.ROUTES,
    *approvals.ROUTES,
    *audit.ROUTES,
    *limits.ROUTES,
    *services.ROUTES,
    *certificate_issuing.ROUTES,
    *certificate_revoking.ROUTES,
    *certificates.ROUTES,
    *certificate_list.ROUTES,
    *eab.ROUTES,
    *accounts.ROUTES,
    *account_list.ROUTES,
    *orders.ROUTES,
    *statistics.ROUTES,
    *explain.ROUTES,
    *policies.ROUTES,
    *scopes.ROUTES,
    *issuers.ROUTES,
    *profiles.ROUTES,
    *crl.ROUTES,
    *blocklist.ROUTES,
)
