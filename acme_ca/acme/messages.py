"""What clients send and get: payloads read into values, values written as the objects of RFC 8555 §7.1."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from acme_ca.acme.jws import parse_object
from acme_ca.acme.urls import Urls
from acme_ca.core import base64url, identifiers
from acme_ca.core.accounts import Account
from acme_ca.core.challenges import ChallengeType
from acme_ca.core.identifiers import Identifier
from acme_ca.core.orders import Authorization, Order
from acme_ca.core.problems import ErrorType, Problem, compound, malformed
from acme_ca.core.renewal import CertId, SuggestedWindow, parse_cert_id
from acme_ca.core.states import AuthorizationStatus, ChallengeStatus, OrderStatus
from acme_ca.core.times import RANGE, can_be_kept

MAX_CONTACT = 320

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_LOCAL_PART = re.compile(r"[A-Za-z0-9.!#$&'*+/=^_`{|}~-]{1,64}", re.ASCII)


# ---------------------------------------------------------------- reading


def payload_of(raw: bytes) -> dict[str, Any]:
    return parse_object(raw, "The payload")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAccount:
    """RFC 8555 §7.3. `binding` is the externalAccountBinding, unchecked."""

    only_return_existing: bool
    terms_agreed: bool
    contact: Any
    binding: Any


def new_account(payload: Mapping[str, Any]) -> NewAccount:
    return NewAccount(
        only_return_existing=_flag(payload, "onlyReturnExisting"),
        terms_agreed=_flag(payload, "termsOfServiceAgreed"),
        contact=payload.get("contact"),
        binding=payload.get("externalAccountBinding"),
    )


def _flag(payload: Mapping[str, Any], member: str) -> bool:
    value = payload.get(member)
    if value is not None and not isinstance(value, bool):
        raise malformed(f'"{member}" must be true or false.')
    return value is True


def contacts(value: Any, *, most: int) -> tuple[str, ...]:
    """Contact URLs of an account: mailto with one plain address each (RFC 8555 §7.3)."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(contact, str) for contact in value):
        raise malformed('"contact" must be an array of strings.')
    if len(value) > most:
        raise Problem(ErrorType.INVALID_CONTACT, f"At most {most} contacts are kept; send fewer.")
    return tuple(_contact(contact) for contact in value)


def _contact(contact: str) -> str:
    scheme, colon, address = contact.partition(":")
    if not colon or len(contact) > MAX_CONTACT:
        raise Problem(ErrorType.INVALID_CONTACT, "A contact must be a URL such as mailto:admin@example.org.")
    if scheme.lower() != "mailto":
        raise Problem(
            ErrorType.UNSUPPORTED_CONTACT, "Contacts of other schemes than mailto are not supported."
        )
    local, at, domain = address.rpartition("@")
    try:
        proper = at and _LOCAL_PART.fullmatch(local) and not identifiers.dns(domain).wildcard
    except Problem:
        proper = False
    if not proper:
        raise Problem(
            ErrorType.INVALID_CONTACT,
            "A mailto contact must be one plain address, without header fields or a second address (RFC 8555 §7.3).",
        )
    return f"mailto:{address}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrder:
    """RFC 8555 §7.4. Identifiers are canonical and each stands once, in the client's order."""

    identifiers: tuple[Identifier, ...]
    not_before: datetime | None
    not_after: datetime | None
    replaces: CertId | None
    profile: str | None
    """Of draft-ietf-acme-profiles §4; whether it is offered is unchecked."""


def new_order(payload: Mapping[str, Any], *, most: int) -> NewOrder:
    return NewOrder(
        identifiers=_identifiers(payload.get("identifiers"), most),
        not_before=_timestamp(payload, "notBefore"),
        not_after=_timestamp(payload, "notAfter"),
        replaces=_replaces(payload.get("replaces")),
        profile=_profile(payload.get("profile")),
    )


def _profile(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise malformed('"profile" must be a string, the name of a profile in the directory.')
    return value


def _replaces(value: Any) -> CertId | None:
    """RFC 9773 §5."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise malformed('"replaces" must be the identifier of a certificate (RFC 9773 §4.1).')
    return parse_cert_id(value)


def _identifiers(value: Any, most: int) -> tuple[Identifier, ...]:
    if not isinstance(value, list) or not value:
        raise malformed('"identifiers" must be an array of at least one identifier.')
    if len(value) > most:
        raise malformed(
            f"An order may have {most} identifiers at the most; this one has {len(value)}. Split it."
        )
    found: dict[Identifier, None] = {}
    problems = []
    for item in value:
        try:
            found[identifier(item)] = None
        except Problem as problem:
            problems.append(
                replace(problem, members={"identifier": item}) if _is_identifier(item) else problem
            )
    if problems:
        raise compound(problems)
    return tuple(found)


def _is_identifier(value: Any) -> bool:
    members = {"type", "value"}
    return (
        isinstance(value, dict)
        and value.keys() == members
        and all(isinstance(value[name], str) for name in members)
    )


def identifier(value: Any) -> Identifier:
    if not isinstance(value, dict):
        raise malformed('An identifier is an object with the strings "type" and "value".')
    return identifiers.parse(value.get("type"), value.get("value"))


def _timestamp(payload: Mapping[str, Any], member: str) -> datetime | None:
    value = payload.get(member)
    if value is None:
        return None
    try:
        if not isinstance(value, str) or not _TIMESTAMP.fullmatch(value):
            raise ValueError(value)  # noqa: TRY301
        time = datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise malformed(
            f'"{member}" must be a date and time as in 2030-01-31T12:00:00Z (RFC 3339).'
        ) from None
    if not can_be_kept(time):
        raise malformed(f'"{member}" must be {RANGE}, as in 2030-01-31T12:00:00Z (RFC 3339).')
    return time


def csr_of(payload: Mapping[str, Any]) -> bytes:
    """The DER of the CSR in a finalize request (RFC 8555 §7.4)."""
    csr = payload.get("csr")
    if not isinstance(csr, str) or not csr:
        raise malformed('"csr" must be the CSR in DER, base64url without padding (RFC 8555 §7.4).')
    return base64url.decode(csr, 'The "csr"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """RFC 8555 §7.6. `reason` is unchecked."""

    certificate: bytes
    reason: Any


def revocation(payload: Mapping[str, Any]) -> Revocation:
    certificate = payload.get("certificate")
    if not isinstance(certificate, str) or not certificate:
        raise malformed(
            '"certificate" must be the certificate in DER, base64url without padding (RFC 8555 §7.6).'
        )
    return Revocation(
        certificate=base64url.decode(certificate, 'The "certificate"'), reason=payload.get("reason", 0)
    )


def renewal_info_object(window: SuggestedWindow, *, explanation_url: str | None) -> dict[str, Any]:
    """RFC 9773 §4.2."""
    suggested = {"start": timestamp(window.start), "end": timestamp(window.end)}
    return {
        "suggestedWindow": suggested,
        **({"explanationURL": explanation_url} if explanation_url else {}),
    }


def wants_deactivation(payload: Mapping[str, Any]) -> bool:
    return payload.get("status") == "deactivated"


# ---------------------------------------------------------------- writing


def timestamp(time: datetime) -> str:
    """RFC 3339 in whole seconds, UTC."""
    return time.isoformat(timespec="seconds").removesuffix("+00:00") + "Z"


def account_object(account: Account, urls: Urls) -> dict[str, Any]:
    """RFC 8555 §7.1.2."""
    members: dict[str, Any] = {"status": account.status, "orders": urls.orders(account.id)}
    if account.contact:
        members["contact"] = account.contact
    if account.terms_agreed:
        members["termsOfServiceAgreed"] = True
    if account.eab_binding is not None:
        members["externalAccountBinding"] = account.eab_binding
    return members


def order_object(order: Order, urls: Urls) -> dict[str, Any]:
    """RFC 8555 §7.1.3."""
    members: dict[str, Any] = {
        "status": order.status,
        "expires": timestamp(order.expires),
        "identifiers": [identifier.as_json() for identifier in order.identifiers],
        "authorizations": [urls.authorization(authorization) for authorization in order.authorizations],
        "finalize": urls.finalize(order.id),
        "profile": order.profile.name,
    }
    if order.not_before is not None:
        members["notBefore"] = timestamp(order.not_before)
    if order.not_after is not None:
        members["notAfter"] = timestamp(order.not_after)
    if order.replaces is not None:
        members["replaces"] = order.replaces
    if order.error is not None:
        members["error"] = order.error
    if order.status is OrderStatus.VALID and order.serial is not None:
        members["certificate"] = urls.certificate(order.serial)
    return members


def authorization_object(authorization: Authorization, urls: Urls) -> dict[str, Any]:
    """RFC 8555 §7.1.4."""
    members: dict[str, Any] = {
        "identifier": {"type": authorization.identifier.type, "value": authorization.identifier.base},
        "status": authorization.status,
        "expires": timestamp(authorization.expires),
        "challenges": [challenge_object(authorization, kind, urls) for kind in _shown(authorization)],
    }
    if authorization.identifier.wildcard:
        members["wildcard"] = True
    return members


def _shown(authorization: Authorization) -> Sequence[ChallengeType]:
    # "For valid authorizations, the challenge that was validated. For invalid authorizations, the challenge that was
    # attempted and failed." (RFC 8555 §7.1.4)
    settled = authorization.status not in {AuthorizationStatus.PENDING, AuthorizationStatus.EXPIRED}
    return (authorization.decisive,) if settled and authorization.decisive else authorization.offered


def challenge_object(authorization: Authorization, kind: ChallengeType, urls: Urls) -> dict[str, Any]:
    """RFC 8555 §8."""
    status = authorization.challenge_status(kind)
    members: dict[str, Any] = {
        "type": kind,
        "url": urls.challenge(authorization.id, kind),
        "status": status,
        "token": authorization.token,
    }
    if status is ChallengeStatus.VALID and authorization.validated is not None:
        members["validated"] = timestamp(authorization.validated)
    if status is ChallengeStatus.INVALID:
        members["error"] = authorization.error
    return members


def pem(der: bytes) -> bytes:
    """A certificate in the strict textual encoding of RFC 7468."""
    text = base64.b64encode(der).decode()
    lines = "\n".join(text[start : start + 64] for start in range(0, len(text), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n".encode()
