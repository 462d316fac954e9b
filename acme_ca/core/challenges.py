"""Challenges (RFC 8555 §8): what each can prove, an attempt at one, and its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from acme_ca.core.identifiers import Identifier, IdentifierType
from acme_ca.core.ids import AuthorizationId
from acme_ca.core.names import NameRule, RuleKind
from acme_ca.core.problems import Problem


class ChallengeType(StrEnum):
    HTTP_01 = "http-01"
    DNS_01 = "dns-01"
    TLS_ALPN_01 = "tls-alpn-01"


def proving(identifier: Identifier) -> frozenset[ChallengeType]:
    """The challenges that can prove control of an identifier."""
    if identifier.type is IdentifierType.IP:
        return _PROVING_ADDRESSES
    return _PROVING_WILDCARDS if identifier.wildcard else _PROVING_NAMES


def proving_any(rule: NameRule) -> frozenset[ChallengeType]:
    """The challenges that can prove control of something that the rule matches."""
    if rule.kind is RuleKind.NETWORK:
        return _PROVING_ADDRESSES
    return _PROVING_NAMES if rule.identifier is None else proving(rule.identifier)


_PROVING_NAMES = frozenset(ChallengeType)
_PROVING_WILDCARDS = frozenset({ChallengeType.DNS_01})
"""RFC 8555 §8.3, RFC 8737 §3."""
_PROVING_ADDRESSES = frozenset({ChallengeType.HTTP_01, ChallengeType.TLS_ALPN_01})
"""RFC 8738 §7."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One validation to make: what is claimed, by which challenge, for whom."""

    authorization_id: AuthorizationId
    identifier: Identifier
    challenge: ChallengeType
    token: str
    thumbprint: str
    """The account key's JWK thumbprint (RFC 7638), base64url: with the token it is the key authorization."""
    account_url: str
    """For CAA `accounturi` (RFC 8657 §3)."""

    @property
    def key_authorization(self) -> str:
        """RFC 8555 §8.1."""
        return f"{self.token}.{self.thumbprint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a validation found. `record` is kept for the operator: one JSON object per thing asked."""

    problem: Problem | None
    """None: the client controls the identifier."""
    record: tuple[dict[str, Any], ...] = ()
