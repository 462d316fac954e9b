"""Who may do what: roles, permissions, and the one table that joins them.

Rules of this file: every route of the API names one permission (`admin/routes.py`), every permission stands in ROLES, and
what no role has nobody may. A test walks all roles and routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from acme_ca.core.actors import Actor

OPERATOR_NAME = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"


class Role(StrEnum):
    VIEWER = "viewer"
    """Looks; for dashboards."""
    OPERATOR = "operator"
    """Keeps services running: registers, issues, revokes single certificates."""
    SECURITY_OFFICER = "security_officer"
    """Takes things back, approves, and proves what happened; issues nothing."""
    ADMINISTRATOR = "administrator"
    """Everything."""


class Permission(StrEnum):
    ACCOUNTS_READ = "accounts:read"
    ACCOUNTS_WRITE = "accounts:write"
    """Freeze, unfreeze, deactivate."""
    APPROVALS_READ = "approvals:read"
    APPROVALS_DECIDE = "approvals:decide"
    AUDIT_READ = "audit:read"
    BLOCKLIST_READ = "blocklist:read"
    BLOCKLIST_WRITE = "blocklist:write"
    CERTIFICATES_READ = "certificates:read"
    CERTIFICATES_ISSUE = "certificates:issue"
    CERTIFICATES_ISSUE_ANY = "certificates:issue-any"
    """Of profiles that ACME clients are not offered, such as `operator`."""
    CERTIFICATES_REVOKE = "certificates:revoke"
    """One at a time; also hold, release and have renewed."""
    CERTIFICATES_REVOKE_MANY = "certificates:revoke-many"
    CRL_READ = "crl:read"
    CRL_WRITE = "crl:write"
    EAB_READ = "eab:read"
    EAB_WRITE = "eab:write"
    EAB_APPROVE = "eab:approve"
    EAB_REVOKE = "eab:revoke"
    EXPLAIN = "explain"
    EXPLAIN_DRY_RUN = "explain:dry-run"
    """Has the server dial hosts."""
    ISSUERS_READ = "issuers:read"
    ISSUERS_WRITE = "issuers:write"
    LIMITS_READ = "limits:read"
    LIMITS_WRITE = "limits:write"
    ORDERS_READ = "orders:read"
    POLICIES_READ = "policies:read"
    POLICIES_WRITE = "policies:write"
    PROFILES_READ = "profiles:read"
    PROFILES_WRITE = "profiles:write"
    SCOPES_READ = "scopes:read"
    SCOPES_WRITE = "scopes:write"
    SERVICES_READ = "services:read"
    SERVICES_WRITE = "services:write"
    SERVICES_APPROVE = "services:approve"
    STATISTICS_READ = "statistics:read"
    TOKENS_READ = "tokens:read"
    TOKENS_WRITE = "tokens:write"
    TOKENS_REVOKE = "tokens:revoke"


_VIEWER = frozenset(
    {
        Permission.ACCOUNTS_READ,
        Permission.BLOCKLIST_READ,
        Permission.CERTIFICATES_READ,
        Permission.CRL_READ,
        Permission.EAB_READ,
        Permission.EXPLAIN,
        Permission.ISSUERS_READ,
        Permission.LIMITS_READ,
        Permission.ORDERS_READ,
        Permission.POLICIES_READ,
        Permission.PROFILES_READ,
        Permission.SCOPES_READ,
        Permission.SERVICES_READ,
        Permission.STATISTICS_READ,
    }
)
_ON_DUTY = _VIEWER | {
    Permission.ACCOUNTS_WRITE,
    Permission.APPROVALS_READ,
    Permission.AUDIT_READ,
    Permission.CERTIFICATES_REVOKE,
    Permission.CRL_WRITE,
    Permission.EAB_REVOKE,
    Permission.EXPLAIN_DRY_RUN,
}

ROLES: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: _VIEWER,
    Role.OPERATOR: _ON_DUTY
    | {
        Permission.CERTIFICATES_ISSUE,
        Permission.EAB_WRITE,
        Permission.LIMITS_WRITE,
        Permission.SERVICES_WRITE,
    },
    Role.SECURITY_OFFICER: _ON_DUTY
    | {
        Permission.APPROVALS_DECIDE,
        Permission.BLOCKLIST_WRITE,
        Permission.CERTIFICATES_REVOKE_MANY,
        Permission.EAB_APPROVE,
        Permission.SERVICES_APPROVE,
        Permission.TOKENS_READ,
        Permission.TOKENS_REVOKE,
    },
    Role.ADMINISTRATOR: frozenset(Permission),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks. `services`: what the credential is for; empty: everything."""

    name: str
    role: Role
    services: frozenset[str] = frozenset()
    source: str
    """The address that the request came from, or `socket`."""

    def may(self, permission: Permission) -> bool:
        return permission in ROLES[self.role]

    @property
    def actor(self) -> Actor:
        """As the audit names it."""
        return Actor(f"operator:{self.name}", self.source)
