"""The rules of what a certificate was issued on: its order, the authorizations, their validations, the audit events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, TypeVar

from acme_ca.core.challenges import ChallengeType
from acme_ca.core.identifiers import Identifier, IdentifierType
from acme_ca.core.ids import AuthorizationId
from acme_ca.core.names import NameRule
from acme_ca.core.profiles import Profile
from acme_ca.core.states import AuthorizationStatus, OrderStatus
from acme_ca.storage.audit import AuthorizationRecord, CertificateRecord, OrderRecord

Found = Iterator[tuple[str, str]]
"""What is wrong: code and sentence."""
First = TypeVar("First")
Second = TypeVar("Second")

_WAS_VALID = {AuthorizationStatus.VALID, AuthorizationStatus.DEACTIVATED, AuthorizationStatus.REVOKED}


def judge_events(record: CertificateRecord) -> Found:
    """Of every certificate, the server's own included."""
    for code, rule in OF_ROW:
        for sentence in rule(record):
            yield code, sentence


def judge_order(record: CertificateRecord, order: OrderRecord, profile: Profile) -> Found:
    """The order, and those of its authorizations that are there."""
    yield from _apply(OF_ORDER, record, order)
    for authorization in record.authorizations:
        for code, sentence in (
            *_apply(OF_AUTHORIZATION, record, authorization),
            *_apply(OF_CHALLENGE, profile, authorization),
        ):
            yield code, f"{sentence} (authz {authorization.id})"


def missing_authorizations(record: CertificateRecord, order: OrderRecord) -> set[AuthorizationId]:
    return set(order.authorizations) - {authorization.id for authorization in record.authorizations}


def _apply(
    rules: tuple[tuple[str, Callable[[First, Second], Iterator[str]]], ...], first: First, second: Second
) -> Found:
    for code, rule in rules:
        for sentence in rule(first, second):
            yield code, sentence


# ---------------------------------------------------------------- the order


def _order_status(_: CertificateRecord, order: OrderRecord) -> Iterator[str]:
    if order.status != OrderStatus.VALID:
        yield f"the order is {order.status}, though its certificate is signed"


def _order_certificate(record: CertificateRecord, order: OrderRecord) -> Iterator[str]:
    if order.serial != record.serial:
        yield "the order names another certificate"


def _order_account(record: CertificateRecord, order: OrderRecord) -> Iterator[str]:
    if order.account_id != record.account_id:
        yield "the order is another account's"


def _order_names(record: CertificateRecord, order: OrderRecord) -> Iterator[str]:
    if order.identifiers != record.identifiers:
        yield "the order has other names"


def _order_profile(record: CertificateRecord, order: OrderRecord) -> Iterator[str]:
    if order.profile != record.profile:
        yield "the order pins another profile, or another version of it"


def _order_issuer(record: CertificateRecord, order: OrderRecord) -> Iterator[str]:
    if order.issuer != record.issuer:
        yield "the order pins another issuer"


def _order_time(record: CertificateRecord, order: OrderRecord) -> Iterator[str]:
    if not order.created <= record.recorded < order.expires:
        yield "the certificate was not recorded while the order was open"


def _order_authorizations(record: CertificateRecord, order: OrderRecord) -> Iterator[str]:
    proved = Counter(authorization.identifier for authorization in record.authorizations)
    if proved != Counter(record.identifiers) and not missing_authorizations(record, order):
        yield "the authorizations are for other names"


OF_ORDER: tuple[tuple[str, Callable[[CertificateRecord, OrderRecord], Iterator[str]]], ...] = (
    ("order.status", _order_status),
    ("order.certificate", _order_certificate),
    ("order.account", _order_account),
    ("order.names", _order_names),
    ("order.profile", _order_profile),
    ("order.issuer", _order_issuer),
    ("order.time", _order_time),
    ("authorization.names", _order_authorizations),
)


# ---------------------------------------------------------------- each authorization


def _authorization_account(record: CertificateRecord, authorization: AuthorizationRecord) -> Iterator[str]:
    if authorization.account_id != record.account_id:
        yield "an authorization is another account's"


def _authorization_status(_: CertificateRecord, authorization: AuthorizationRecord) -> Iterator[str]:
    if authorization.status not in _WAS_VALID or authorization.validated is None:
        yield f"an authorization is {authorization.status} and was never valid"


def _authorization_time(record: CertificateRecord, authorization: AuthorizationRecord) -> Iterator[str]:
    validated = authorization.validated
    if validated is not None and not validated <= record.recorded < authorization.expires:
        yield "an authorization was not valid when the certificate was recorded"


def _validation_missing(_: CertificateRecord, authorization: AuthorizationRecord) -> Iterator[str]:
    if not authorization.validations and authorization.scope is None:
        yield "an authorization has no record of a validation that succeeded"


def _validation_binding(_: CertificateRecord, authorization: AuthorizationRecord) -> Iterator[str]:
    if authorization.validations and not _bound(authorization):
        yield "a validation was made for another account or name, or by another challenge"


def _validation_time(_: CertificateRecord, authorization: AuthorizationRecord) -> Iterator[str]:
    validated, bound = authorization.validated, _bound(authorization)
    if validated is not None and bound and validated not in bound:
        yield "a validation was made at another time than its authorization says"


def _scope_covers(_: CertificateRecord, authorization: AuthorizationRecord) -> Iterator[str]:
    scope = authorization.scope
    if scope is None:
        return
    if not scope.is_theirs:
        yield "its name was approved for another account"
    if not NameRule.parse(scope.rule).matches(Identifier.from_text(authorization.identifier)):
        yield f"its name is not among those that were approved ({scope.rule})"


def _scope_time(record: CertificateRecord, authorization: AuthorizationRecord) -> Iterator[str]:
    scope, validated = authorization.scope, authorization.validated
    if scope is None or validated is None:
        return
    if not scope.created <= validated <= record.recorded < scope.expires:
        yield "its name was not approved when the certificate was recorded"
    if scope.revoked is not None and scope.revoked < record.recorded:
        yield "the approval of its name had been revoked when the certificate was recorded"


def _bound(authorization: AuthorizationRecord) -> set[object]:
    """When those validations were made that prove this very authorization."""
    proved = (authorization.account_id, authorization.identifier, authorization.challenge)
    return {
        validation.at
        for validation in authorization.validations
        if (validation.account_id, validation.identifier, validation.challenge) == proved
    }


OF_AUTHORIZATION: tuple[
    tuple[str, Callable[[CertificateRecord, AuthorizationRecord], Iterator[str]]], ...
] = (
    ("authorization.account", _authorization_account),
    ("authorization.status", _authorization_status),
    ("authorization.time", _authorization_time),
    ("validation.missing", _validation_missing),
    ("validation.binding", _validation_binding),
    ("validation.time", _validation_time),
    ("scope.names", _scope_covers),
    ("scope.time", _scope_time),
)


def _authorization_challenge(profile: Profile, authorization: AuthorizationRecord) -> Iterator[str]:
    identifier, challenge = Identifier.from_text(authorization.identifier), authorization.challenge
    if challenge is None and authorization.scope is not None:
        return
    if challenge is not None and challenge not in profile.challenges:
        yield f"the profile knows no proof by {challenge}"
    if identifier.wildcard and challenge != ChallengeType.DNS_01:
        yield f"a wildcard was authorized by {challenge}"
    if identifier.type is IdentifierType.IP and challenge == ChallengeType.DNS_01:
        yield "an address was authorized by dns-01"


OF_CHALLENGE: tuple[tuple[str, Callable[[Profile, AuthorizationRecord], Iterator[str]]], ...] = (
    ("authorization.challenge", _authorization_challenge),
)


# ---------------------------------------------------------------- key and audit events


def _account_key(record: CertificateRecord) -> Iterator[str]:
    if record.account_key_since is not None and record.account_key_since <= record.recorded:
        yield "the key was an account's when the certificate was recorded (RFC 8555 §11.1)"


def _compromised_key(record: CertificateRecord) -> Iterator[str]:
    if record.compromised_since is not None and record.compromised_since <= record.recorded:
        yield "the key was known as compromised when the certificate was recorded"


def _blocked_key(record: CertificateRecord) -> Iterator[str]:
    if record.blocked_since is not None and record.blocked_since <= record.recorded:
        yield "the key was on the block list when the certificate was recorded"


def _issued_once(record: CertificateRecord) -> Iterator[str]:
    times = sum(event.event == "certificate.issued" for event in record.events)
    if times != 1:
        yield f"the audit says {times} times that it was issued"


def _issued_to(record: CertificateRecord) -> Iterator[str]:
    told = (record.order_id, list(record.identifiers))
    actor = f"account:{record.account_id}" if record.account_id else record.requested_by or "server"
    for event in record.events:
        says = (event.detail.get("order"), event.detail.get("identifiers"))
        if event.event == "certificate.issued" and (event.actor, says) != (actor, told):
            yield "the audit says that it was issued to another account, for another order, or for other names"


def _recorded_first(record: CertificateRecord) -> Iterator[str]:
    if any(event.event == "certificate.issued" and event.at < record.recorded for event in record.events):
        yield "the audit says that it was issued before it was recorded"


def _revocation_told(record: CertificateRecord) -> Iterator[str]:
    revoked, reason, since = _told_of_revocation(record)
    if (revoked is None) is not (record.revoked is None):
        yield f"it is {'' if record.revoked else 'not '}revoked, and the audit says otherwise"
    elif (revoked, reason, since) != (record.revoked, record.reason, record.invalid_since):
        yield "the audit tells of another date of its revocation, or another reason"


def _told_of_revocation(record: CertificateRecord) -> tuple[datetime | None, Any, datetime | None]:
    """When, why, and since when it was invalid: of the first revocation the date, of the last the reason."""
    revoked, reason, since = None, None, None
    for event in record.events:
        if event.event in {"certificate.revoked", "certificate.held"}:
            revoked, reason = revoked or event.at, event.detail.get("reason")
            if (text := event.detail.get("invalid_since")) is not None:
                since = datetime.fromisoformat(text)
        elif event.event == "certificate.released":
            revoked, reason, since = None, None, None
    return revoked, reason, since


OF_ROW: tuple[tuple[str, Callable[[CertificateRecord], Iterator[str]]], ...] = (
    ("key.account", _account_key),
    ("key.compromised", _compromised_key),
    ("key.blocked", _blocked_key),
    ("audit.issued", _issued_once),
    ("audit.issued", _issued_to),
    ("audit.time", _recorded_first),
    ("audit.revoked", _revocation_told),
)
