"""Approved scopes: names that an administrator approved for an account, or for the accounts of an EAB key. Their
authorizations are born valid, without a challenge and without CAA.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from acme_ca.core.identifiers import Identifier, IdentifierType
from acme_ca.core.ids import AccountId, EabKeyId, ScopeId
from acme_ca.core.names import NameRule, RuleKind

KINDS = frozenset({RuleKind.EXACT, RuleKind.SUFFIX, RuleKind.WILDCARD})
"""What can be approved: names, and whole parts of the tree. An expression says too little of what it is for."""


class ScopeState(StrEnum):
    LIVING = "living"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovedScope:
    """`account_id` or `eab_key_id`: whose names these are; the other is None."""

    id: ScopeId
    account_id: AccountId | None = None
    eab_key_id: EabKeyId | None = None
    rule: NameRule | None
    """None: a later release wrote it, and nothing is approved by it here."""
    reason: str
    approved_by: str
    """As the audit names them: `operator:olga`."""
    created: datetime
    expires: datetime
    revoked: datetime | None = None

    def state(self, now: datetime) -> ScopeState:
        if self.revoked is not None:
            return ScopeState.REVOKED
        return ScopeState.EXPIRED if self.expires <= now else ScopeState.LIVING

    def sentence(self) -> str:
        return f"approved by scope {self.id} ({self.rule}) of {self.approved_by}: {self.reason}"


def covering(identifier: Identifier) -> list[NameRule]:
    """All rules by which a scope approves the identifier: those of KINDS that match it."""
    rules = [NameRule(RuleKind.EXACT, identifier.value)]
    if identifier.type is IdentifierType.DNS:
        labels = identifier.base.split(".")
        rules += [NameRule(RuleKind.SUFFIX, ".".join(labels[place:])) for place in range(len(labels))]
        rules.append(NameRule(RuleKind.WILDCARD, f"*.{identifier.value.partition('.')[2]}"))
    return rules
