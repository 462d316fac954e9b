"""The statuses of RFC 8555 §7.1.6 and every legal transition between them.

Rules of this file: a status changes along the tables below or not at all; the diagrams in
`docs/architecture.md` are generated from these tables; the CHECKs in `schema.sql` list the stored words.

An order stores `pending`, `processing`, `valid` or `invalid`. Whether a stored `pending` order is `ready`, or
`invalid` because one of its authorizations died, follows from its authorizations: `order_status` says so, and
nothing has to be written to the order when a validation ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum


class AccountStatus(StrEnum):
    VALID = "valid"
    DEACTIVATED = "deactivated"
    REVOKED = "revoked"


class OrderStatus(StrEnum):
    PENDING = "pending"
    READY = "ready"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


class AuthorizationStatus(StrEnum):
    PENDING = "pending"
    VALID = "valid"
    INVALID = "invalid"
    DEACTIVATED = "deactivated"
    EXPIRED = "expired"
    REVOKED = "revoked"


class ChallengeStatus(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"


class IssuerState(StrEnum):
    """Not of the RFC: what an issuer's key is used for."""

    STAGED = "staged"
    """Made, and published; signs nothing yet."""
    ACTIVE = "active"
    RETIRED = "retired"
    """Signs status only: CRLs and OCSP responders."""
    EXPIRED = "expired"


class ServiceState(StrEnum):
    """Not of the RFC: whether a service of the registry may have certificates."""

    PENDING = "pending"
    """Registered, where an administrator has to approve it first."""
    APPROVED = "approved"
    RETIRED = "retired"


class CertificateState(StrEnum):
    """Not of the RFC: what people are told a certificate is."""

    GOOD = "good"
    EXPIRED = "expired"
    ON_HOLD = "on_hold"
    """Revoked until it is released."""
    REVOKED = "revoked"


ACCOUNT_TRANSITIONS: dict[AccountStatus, frozenset[AccountStatus]] = {
    AccountStatus.VALID: frozenset({AccountStatus.DEACTIVATED, AccountStatus.REVOKED}),
    AccountStatus.DEACTIVATED: frozenset(),
    AccountStatus.REVOKED: frozenset(),
}

ORDER_TRANSITIONS: dict[OrderStatus, frozenset[OrderStatus]] = {
    # A ready order falls back to invalid, never to pending: what made it ready can only die.
    OrderStatus.PENDING: frozenset({OrderStatus.READY, OrderStatus.INVALID}),
    OrderStatus.READY: frozenset({OrderStatus.PROCESSING, OrderStatus.INVALID}),
    OrderStatus.PROCESSING: frozenset({OrderStatus.VALID, OrderStatus.INVALID}),
    OrderStatus.VALID: frozenset(),
    OrderStatus.INVALID: frozenset(),
}

AUTHORIZATION_TRANSITIONS: dict[AuthorizationStatus, frozenset[AuthorizationStatus]] = {
    AuthorizationStatus.PENDING: frozenset(
        {
            AuthorizationStatus.VALID,
            AuthorizationStatus.INVALID,
            AuthorizationStatus.DEACTIVATED,
            AuthorizationStatus.EXPIRED,
        }
    ),
    AuthorizationStatus.VALID: frozenset(
        {AuthorizationStatus.DEACTIVATED, AuthorizationStatus.EXPIRED, AuthorizationStatus.REVOKED}
    ),
    AuthorizationStatus.INVALID: frozenset(),
    AuthorizationStatus.DEACTIVATED: frozenset(),
    AuthorizationStatus.EXPIRED: frozenset(),
    AuthorizationStatus.REVOKED: frozenset(),
}

CHALLENGE_TRANSITIONS: dict[ChallengeStatus, frozenset[ChallengeStatus]] = {
    ChallengeStatus.PENDING: frozenset({ChallengeStatus.PROCESSING}),
    # processing → processing is the retry of RFC 8555 §8.2
    ChallengeStatus.PROCESSING: frozenset(
        {ChallengeStatus.PROCESSING, ChallengeStatus.VALID, ChallengeStatus.INVALID}
    ),
    ChallengeStatus.VALID: frozenset(),
    ChallengeStatus.INVALID: frozenset(),
}

ISSUER_TRANSITIONS: dict[IssuerState, frozenset[IssuerState]] = {
    IssuerState.STAGED: frozenset({IssuerState.ACTIVE, IssuerState.RETIRED, IssuerState.EXPIRED}),
    # active → active: activated once more, it is again the one that new orders are for
    IssuerState.ACTIVE: frozenset({IssuerState.ACTIVE, IssuerState.RETIRED, IssuerState.EXPIRED}),
    # back into service when its successor fails
    IssuerState.RETIRED: frozenset({IssuerState.ACTIVE, IssuerState.EXPIRED}),
    IssuerState.EXPIRED: frozenset(),
}

SERVICE_TRANSITIONS: dict[ServiceState, frozenset[ServiceState]] = {
    ServiceState.PENDING: frozenset({ServiceState.APPROVED, ServiceState.RETIRED}),
    ServiceState.APPROVED: frozenset({ServiceState.RETIRED}),
    # retired by mistake, or needed once more; its EAB keys stay revoked
    ServiceState.RETIRED: frozenset({ServiceState.APPROVED}),
}


def issuer_state(stored: IssuerState, *, not_after: datetime, now: datetime) -> IssuerState:
    """The state of an issuer at `now`: one past its end is `expired`, whatever is stored."""
    return IssuerState.EXPIRED if not_after <= now else stored


def authorization_status(
    stored: AuthorizationStatus, *, expires: datetime, now: datetime
) -> AuthorizationStatus:
    """The status of an authorization at `now`: a live one past its end is `expired`."""
    live = AuthorizationStatus.EXPIRED in AUTHORIZATION_TRANSITIONS[stored]
    return AuthorizationStatus.EXPIRED if live and expires <= now else stored


def order_status(
    stored: OrderStatus, *, authorizations: Iterable[AuthorizationStatus], expires: datetime, now: datetime
) -> OrderStatus:
    """The status of an order at `now` from its stored status and the statuses of its authorizations at `now`."""
    if stored is not OrderStatus.PENDING:
        return stored
    if expires <= now:
        return OrderStatus.INVALID
    statuses = set(authorizations)
    if statuses == {AuthorizationStatus.VALID}:
        return OrderStatus.READY
    return (
        OrderStatus.PENDING
        if statuses <= {AuthorizationStatus.VALID, AuthorizationStatus.PENDING}
        else OrderStatus.INVALID
    )


def certificate_state(
    *, revoked: datetime | None, held: bool, not_after: datetime, now: datetime
) -> CertificateState:
    """What was revoked stays so when its time is over."""
    if revoked is not None:
        return CertificateState.ON_HOLD if held else CertificateState.REVOKED
    return CertificateState.GOOD if not_after > now else CertificateState.EXPIRED
