"""Certificates over the API: looked at, and when their clients renew them."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import AfterValidator, AwareDatetime, Field, RootModel, model_validator

from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Call, File, Model, Route
from acme_ca.admin.paging import Page, PageQuery, invalid_field, moment_key, page, read_moment
from acme_ca.core import keys, renewal
from acme_ca.core.certificates import Certificate
from acme_ca.core.ids import Serial, read_serial
from acme_ca.core.keys import PublicKey
from acme_ca.core.names import identifier_of
from acme_ca.core.problems import Problem, conflict, not_found
from acme_ca.core.profiles import ProfileRef
from acme_ca.core.renewal import SuggestedWindow
from acme_ca.core.revocation import HOLD, reason_name
from acme_ca.core.times import can_be_kept
from acme_ca.storage import certificates, renewals

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

SERIAL_LENGTH = 32


def _name(text: str) -> str:
    return identifier_of(text).value


Name = Annotated[str, Field(max_length=255), AfterValidator(_name)]
SerialText = Annotated[str, Field(min_length=1, max_length=100)]


class CertificateStatus(StrEnum):
    GOOD = "good"
    ON_HOLD = "on_hold"
    REVOKED = "revoked"
    EXPIRED = "expired"
    UNSIGNED = "unsigned"
    """Recorded, and never signed; it can be revoked all the same."""


class Window(Model):
    start: AwareDatetime
    end: AwareDatetime


class CertificateView(Model):
    serial: str
    """32 hexadecimal digits."""
    status: CertificateStatus
    names: list[str]
    not_before: AwareDatetime
    not_after: AwareDatetime
    profile: ProfileRef
    issuer: str
    shard: int
    """Of its issuer's CRL."""
    service_id: str | None
    account: str | None
    """That ordered it."""
    requested_by: str | None
    """The operator who had it issued, where no account ordered it."""
    key_sha256: str | None
    """SHA-256 of its public key (SubjectPublicKeyInfo), hexadecimal."""
    revoked: AwareDatetime | None
    reason: str | None
    invalid_since: AwareDatetime | None
    comment: str | None
    renewal_window: Window | None
    """Where an operator has set one."""
    explanation_url: str | None
    certificate: str | None
    """PEM; null: it is not signed."""


class Shown(RootModel[CertificateView | Page[CertificateView]]):
    """A certificate, or those of a service, newest first."""


class NewWindow(Model):
    """When clients renew it (ARI, RFC 9773). They see it the next time they ask: within six hours."""

    start: AwareDatetime | None = None
    """null: now."""
    end: AwareDatetime | None = None
    """It may be past: then clients renew at once. null: undo what was set; the window is computed again."""
    explanation_url: Annotated[str, Field(max_length=500)] | None = None
    """Where people read why."""

    @model_validator(mode="after")
    def _whole(self) -> NewWindow:
        if self.end is None and (self.start is not None or self.explanation_url is not None):
            raise ValueError("a window has an end")
        return self


# ---------------------------------------------------------------- looking


async def show(admin: Admin, call: Call) -> Shown:
    """One path with two meanings: no service has the id of a serial number."""
    text = call.path["service_id"]
    if len(text) == SERIAL_LENGTH and read_serial(text) is not None:
        return Shown(await view_of(admin, await known(admin, call, text)))
    call.check_service(text)
    await admin.services.find(text)
    query: PageQuery = call.query
    found = await certificates.of_service(
        admin.database,
        text,
        before=read_moment(query.cursor) if query.cursor else None,
        limit=query.limit + 1,
    )
    return Shown(
        page(
            found,
            query.limit,
            view=lambda row: view(admin, row[1]),
            key=lambda row: moment_key(row[0], row[1].serial),
        )
    )


async def pem(admin: Admin, call: Call) -> File:
    """As ACME clients download it: the certificate and the chain of its issuer."""
    serial = await known(admin, call, call.path["serial"])
    found = await admin.revocation.find(serial)
    if found.der is None:
        raise conflict("The certificate was never signed.")
    issuer = await admin.issuers.find(found.issuer)
    return File(pem_text(found.der).encode() + issuer.chain_pem, "application/pem-certificate-chain")


# ---------------------------------------------------------------- having renewed


async def move_window(admin: Admin, call: Call) -> CertificateView:
    serial = await known(admin, call, call.path["serial"])
    wish: NewWindow = call.body
    now = admin.clock()
    if wish.end is None:
        done = await renewals.clear_windows(admin.database, [serial], actor=call.actor, now=now)
    else:
        done = await renewals.move_windows(
            admin.database,
            [serial],
            _window(admin, wish.start, wish.end, wish.explanation_url),
            explanation_url=wish.explanation_url,
            actor=call.actor,
            now=now,
        )
    if not done:
        why = "has no window set" if wish.end is None else "is revoked, or expires before the window is over"
        raise conflict(f"The certificate {why}.")
    return await view_of(admin, serial)


def _window(
    admin: Admin, start: AwareDatetime | None, end: AwareDatetime, explanation_url: str | None
) -> SuggestedWindow:
    now = admin.clock().replace(microsecond=0)
    try:
        since = start or min(now, end - timedelta(seconds=1))
    except OverflowError:
        raise _too_early() from None
    if not can_be_kept(since):
        raise _too_early()
    window = SuggestedWindow(start=since, end=end)
    try:
        renewal.check_moved(window, explanation_url=explanation_url)
    except Problem as problem:
        raise invalid_field("end" if since >= end else "explanation_url", problem.detail) from None
    return window


def _too_early() -> Problem:
    return invalid_field("end", "Nothing can end so early.")


# ---------------------------------------------------------------- answers


async def known(admin: Admin, call: Call, text: str) -> Serial:
    """The serial number of a certificate that there is, and that the credential is for. Raises Problem."""
    serial = read_serial(text)
    found = None if serial is None else await certificates.find(admin.database, serial)
    missing = not_found("There is no certificate with this serial number.")
    if found is None:
        raise missing
    call.check_service(found.service, missing)
    return found.serial


async def view_of(admin: Admin, serial: Serial) -> CertificateView:
    return view(admin, await admin.revocation.find(serial))


def view(admin: Admin, found: Certificate) -> CertificateView:
    return CertificateView(
        serial=found.serial,
        status=_status(admin, found),
        names=[identifier.value for identifier in found.identifiers],
        not_before=found.not_before,
        not_after=found.not_after,
        profile=found.profile,
        issuer=found.issuer,
        shard=found.shard,
        service_id=found.service,
        account=found.account_id,
        requested_by=found.requested_by,
        key_sha256=None if found.der is None else _key_sha256(found.der),
        revoked=found.revoked,
        reason=None if found.reason is None else reason_name(found.reason),
        invalid_since=found.invalid_since,
        comment=found.comment,
        renewal_window=Window(start=found.moved.start, end=found.moved.end) if found.moved else None,
        explanation_url=found.explanation_url,
        certificate=None if found.der is None else pem_text(found.der),
    )


def _status(admin: Admin, found: Certificate) -> CertificateStatus:
    if found.reason is not None:
        return CertificateStatus.ON_HOLD if found.reason is HOLD else CertificateStatus.REVOKED
    if found.der is None:
        return CertificateStatus.UNSIGNED
    expired = found.not_after < admin.clock()
    return CertificateStatus.EXPIRED if expired else CertificateStatus.GOOD


def _key_sha256(der: bytes) -> str:
    key = x509.load_der_x509_certificate(der).public_key()
    assert isinstance(key, PublicKey)  # noqa: S101  of a kind that is certified
    return keys.spki_sha256(key).hex()


def pem_text(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()


ROUTES = (
    Route(
        name="certificates.show",
        method="GET",
        path="/certificates/{service_id}",
        permission=Permission.CERTIFICATES_READ,
        endpoint=show,
        query=PageQuery,
        answer=Shown,
        scoped=True,
        summary="The certificates of a service, newest first; or the one with this serial number (32 digits).",
    ),
    Route(
        name="certificates.pem",
        method="GET",
        path="/certificates/{serial}/pem",
        permission=Permission.CERTIFICATES_READ,
        endpoint=pem,
        media_type="application/pem-certificate-chain",
        scoped=True,
        conflicts=True,
        summary="The certificate with its chain, for a server's configuration.",
    ),
    Route(
        name="certificates.move-window",
        method="POST",
        path="/certificates/{serial}/renewal-window",
        permission=Permission.CERTIFICATES_REVOKE,
        endpoint=move_window,
        body=NewWindow,
        answer=CertificateView,
        scoped=True,
        conflicts=True,
        summary="Set when its client renews it, or undo that.",
    ),
)
