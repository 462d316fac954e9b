"""Orders and the authorizations that they wait for. Times are aware datetimes in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from acme_ca.core.challenges import ChallengeType, proving
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AccountId, AuthorizationId, IssuerId, OrderId, ScopeId, Serial
from acme_ca.core.profiles import ProfileRef
from acme_ca.core.states import AuthorizationStatus, ChallengeStatus, OrderStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """Control of one identifier by one account (RFC 8555 §7.1.4).

    All its challenges share `token`. The first that the client answers is `challenge`: it alone decides what
    becomes of the authorization. One of an approved name has a `scope_id` instead, and is valid from its beginning.
    """

    id: AuthorizationId
    account_id: AccountId
    identifier: Identifier
    status: AuthorizationStatus
    expires: datetime
    token: str
    offered: tuple[ChallengeType, ...]
    challenge: ChallengeType | None = None
    validated: datetime | None = None
    scope_id: ScopeId | None = None
    error: dict[str, Any] | None = None

    @property
    def decisive(self) -> ChallengeType | None:
        """The challenge that decided, or is about to. For an approved name one that stands for it, since clients look for
        a challenge that is valid.
        """
        if self.scope_id is None:
            return self.challenge
        return next(iter(self.offered), min(proving(self.identifier)))

    def challenge_status(self, kind: ChallengeType) -> ChallengeStatus:
        if kind is not self.decisive:
            return ChallengeStatus.PENDING
        if self.validated is not None:
            return ChallengeStatus.VALID
        return ChallengeStatus.INVALID if self.error is not None else ChallengeStatus.PROCESSING


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order (RFC 8555 §7.1.3). `status` is the one to show: computed, see `core.states.order_status`."""

    id: OrderId
    account_id: AccountId
    status: OrderStatus
    identifiers: tuple[Identifier, ...]
    authorizations: tuple[AuthorizationId, ...]
    expires: datetime
    not_before: datetime | None
    not_after: datetime | None
    profile: ProfileRef
    issuer: IssuerId
    serial: Serial | None = None
    replaces: str | None = None
    """The identifier of the certificate that this order's is to replace (RFC 9773 §5)."""
    renews: tuple[Identifier, ...] = ()
    """The names that it shares with that certificate, if its renewal was due when the order was placed: limits do not count
    them."""
    error: dict[str, Any] | None = None
