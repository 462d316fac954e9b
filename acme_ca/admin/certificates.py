"""Certificates over the API: issued, renewed, looked at, taken back, had renewed."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import AfterValidator, AwareDatetime, Field, RootModel, model_validator

from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Call, File, Model, Route, conflict, not_found
from acme_ca.admin.paging import Page, PageQuery, invalid_field, moment_key, page, read_moment
from acme_ca.ca.keystore import KeyKind, PrivateKey
from acme_ca.core import csr, keys, renewal
from acme_ca.core.codes import Code
from acme_ca.core.csr import CertificateRequest
from acme_ca.core.identifiers import Identifier
from acme_ca.core.model import (
    PRINTABLE,
    AccountId,
    Certificate,
    EabKeyId,
    IssuerId,
    ProfileRef,
    PublicKey,
    RevocationReason,
    Serial,
    ShortText,
    read_serial,
)
from acme_ca.core.names import identifier_of
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.renewal import SuggestedWindow
from acme_ca.core.revocation import HOLD, MAX_COMMENT, REASONS, reason_name
from acme_ca.core.services import ServiceId, ServiceIdText
from acme_ca.lifecycle.issuing import Issued, NewKey, Wish
from acme_ca.storage import certificates, renewals
from acme_ca.storage.bulk import Filter

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

MAX_NAMES = 100
MAX_DAYS = 40 * 365
MAX_CSR = 48 * 1024
"""Characters: of PEM or base64."""


def _name(text: str) -> str:
    return identifier_of(text).value


Name = Annotated[str, Field(max_length=255), AfterValidator(_name)]
SerialText = Annotated[str, Field(min_length=1, max_length=100)]
Comment = Annotated[str, Field(max_length=MAX_COMMENT, pattern=PRINTABLE)]
Days = Annotated[int, Field(ge=1, le=MAX_DAYS)]
Csr = Annotated[str, Field(min_length=1, max_length=MAX_CSR)]
ReasonName = Literal[
    "unspecified",
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "privilegeWithdrawn",
    "aACompromise",
]


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


class IssuedView(CertificateView):
    chain: str
    """The certificates of its issuers, PEM, without the root."""
    private_key: str | None
    """The key that was made here, PKCS #8 in PEM. Shown now and never again; null: none was asked for."""


class Shown(RootModel[CertificateView | Page[CertificateView]]):
    """A certificate, or those of a service, newest first."""


class _KeyWish(Model):
    """Of requests for a certificate."""

    csr: Csr | None = None
    """PKCS #10, PEM or DER in base64. From it come the key and, where no names are given, the names."""
    generate_key: bool = False
    """Have the server make the key instead. It is in the answer and nowhere else."""
    key_type: KeyKind | None = None
    """Of the key that the server makes; null: what the profile takes."""
    validity_days: Days | None = None
    """null: as long as the profile gives."""

    @model_validator(mode="after")
    def _one_key(self) -> _KeyWish:
        if self.csr is not None and self.generate_key:
            raise ValueError("give a csr or have a key made (generate_key), not both")
        if self.key_type is not None and not self.generate_key:
            raise ValueError("key_type is for keys that the server makes: set generate_key, too")
        return self

    @property
    def key(self) -> CertificateRequest | NewKey | None:
        """Raises Problem (`badCSR`)."""
        if self.csr is not None:
            return csr.parse_csr(csr.read_text(self.csr))
        return NewKey(self.key_type) if self.generate_key else None


class NewCertificate(_KeyWish):
    names: Annotated[tuple[Name, ...], Field(max_length=MAX_NAMES)] = ()
    """DNS names and addresses; the first name is the common name. A csr must have just these."""
    profile: ShortText | None = None
    """null: the server's default."""
    service_id: ServiceIdText | None = None
    """For which it is: it then holds domains of this service only."""

    @model_validator(mode="after")
    def _some_key(self) -> NewCertificate:
        if self.csr is None and not self.generate_key:
            raise ValueError("give a csr, or have a key made (generate_key)")
        return self


class Renewal(_KeyWish):
    """Without csr and generate_key the new certificate holds the key of the old one."""

    serial: SerialText | None = None
    """Which certificate to renew,"""
    service_id: ServiceIdText | None = None
    """or of which service, when that has one."""

    @model_validator(mode="after")
    def _one_certificate(self) -> Renewal:
        if (self.serial is None) == (self.service_id is None):
            raise ValueError("give a serial or a service_id")
        return self


class Revocation(Model):
    reason: ReasonName = "unspecified"
    """RFC 5280 §5.3.1. With keyCompromise its key is refused from then on."""
    comment: Comment | None = None
    """Why: one line for operators."""
    invalid_since: AwareDatetime | None = None
    """When it became invalid, where that is known."""


class RevocationOf(Revocation):
    serial: SerialText
    """Hexadecimal, with or without colons."""


class Remark(Model):
    comment: Comment | None = None
    """Why: one line for operators."""


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


class BulkWish(Model):
    """Which certificates to take back: those that fit all that is given. Expired ones, and those that are revoked for
    good, are left alone.
    """

    service_id: ShortText | None = None
    issuer: ShortText | None = None
    account: ShortText | None = None
    """That ordered them."""
    eab_key: ShortText | None = None
    """Of the account that ordered them."""
    profile: ShortText | None = None
    name: Name | None = None
    """That they hold."""
    key_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    issued_from: AwareDatetime | None = None
    issued_before: AwareDatetime | None = None
    reason: ReasonName | Literal["certificateHold"] = "unspecified"
    comment: Comment | None = None
    """Why: one line for operators."""
    dry_run: bool = True
    """Only show what would be done."""
    expected: Annotated[int, Field(ge=0, le=10**12)] | None = None
    """The `count` that a dry run showed. With another number nothing is done."""
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """The `digest` that a dry run showed: just these certificates and no others."""

    @model_validator(mode="after")
    def _expected(self) -> BulkWish:
        if not self.dry_run and self.expected is None:
            raise ValueError("expected is missing: do a dry run first, and give its count")
        return self

    @property
    def filter(self) -> Filter:
        return Filter(
            service=None if self.service_id is None else ServiceId(self.service_id),
            issuer=None if self.issuer is None else IssuerId(self.issuer),
            account=None if self.account is None else AccountId(self.account),
            eab_key=None if self.eab_key is None else EabKeyId(self.eab_key),
            profile=self.profile,
            name=None if self.name is None else identifier_of(self.name),
            key_sha256=None if self.key_sha256 is None else bytes.fromhex(self.key_sha256),
            issued_from=self.issued_from,
            issued_before=self.issued_before,
        )


class Sampled(Model):
    serial: str
    names: list[str]


class BulkResult(Model):
    dry_run: bool
    count: int
    """How many would be taken back, or were."""
    digest: str | None
    """Names these certificates, of a dry run."""
    sample: list[Sampled]
    """The oldest of them, of a dry run."""


# ---------------------------------------------------------------- issuing


async def issue(admin: Admin, call: Call) -> IssuedView:
    wish: NewCertificate = call.body
    if call.services is not None and wish.service_id is None:
        raise invalid_field("service_id", "It is missing: your token is for certain services only.")
    call.check_service(wish.service_id)
    key = wish.key
    assert key is not None, "the model wants one"  # noqa: S101
    issued = await admin.issuing.issue(
        Wish(
            names=tuple(map(identifier_of, wish.names)),
            key=key,
            profile=wish.profile,
            service=None if wish.service_id is None else ServiceId(wish.service_id),
            days=wish.validity_days,
        ),
        actor=call.actor,
        privileged=_is_privileged(call),
    )
    return _issued(admin, issued)


async def renew(admin: Admin, call: Call) -> IssuedView:
    wish: Renewal = call.body
    if wish.service_id is not None:
        call.check_service(wish.service_id)
        serial = await admin.issuing.current(ServiceId(wish.service_id))
    else:
        serial = await _known(admin, call, wish.serial or "")
    issued = await admin.issuing.renew(
        serial, wish.key, days=wish.validity_days, actor=call.actor, privileged=_is_privileged(call)
    )
    return _issued(admin, issued)


def _is_privileged(call: Call) -> bool:
    """A service has no business with profiles that are not for services."""
    return call.services is None and call.principal.may(Permission.CERTIFICATES_ISSUE_ANY)


# ---------------------------------------------------------------- looking


async def show(admin: Admin, call: Call) -> Shown:
    """One path with two meanings: no service has the id of a serial number."""
    text = call.path["service_id"]
    if len(text) == SERIAL_LENGTH and read_serial(text) is not None:
        return Shown(await _view_of(admin, await _known(admin, call, text)))
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


SERIAL_LENGTH = 32


async def pem(admin: Admin, call: Call) -> File:
    """As ACME clients download it: the certificate and the chain of its issuer."""
    serial = await _known(admin, call, call.path["serial"])
    found = await admin.revocation.find(serial)
    if found.der is None:
        raise conflict("The certificate was never signed.")
    issuer = await admin.issuers.find(found.issuer)
    return File(_pem(found.der).encode() + issuer.chain_pem, "application/pem-certificate-chain")


# ---------------------------------------------------------------- taking back


async def revoke(admin: Admin, call: Call) -> CertificateView:
    return await _revoke(admin, call, call.path["serial"], call.body)


async def revoke_named(admin: Admin, call: Call) -> CertificateView:
    return await _revoke(admin, call, call.body.serial, call.body)


async def _revoke(admin: Admin, call: Call, text: str, wish: Revocation) -> CertificateView:
    serial = await _known(admin, call, text)
    await _taken_back(admin, call, serial, REASONS[wish.reason], wish)
    return await _view_of(admin, serial)


async def hold(admin: Admin, call: Call) -> CertificateView:
    serial = await _known(admin, call, call.path["serial"])
    await _taken_back(admin, call, serial, HOLD, Revocation(comment=call.body.comment))
    return await _view_of(admin, serial)


async def _taken_back(
    admin: Admin, call: Call, serial: Serial, reason: RevocationReason, wish: Revocation
) -> None:
    try:
        await admin.revocation.take_back(
            serial, by=call.actor, reason=reason, invalid_since=wish.invalid_since, comment=wish.comment
        )
    except Problem as problem:
        if problem.type is not ErrorType.ALREADY_REVOKED:
            raise
        raise conflict(problem.detail, Code.ALREADY_REVOKED) from None


async def release(admin: Admin, call: Call) -> CertificateView:
    serial = await _known(admin, call, call.path["serial"])
    await admin.revocation.release(serial, by=call.actor, comment=call.body.comment)
    return await _view_of(admin, serial)


async def revoke_many(admin: Admin, call: Call) -> BulkResult:
    wish: BulkWish = call.body
    reason = REASONS[wish.reason]
    if wish.expected is None or wish.dry_run:
        found = await admin.bulk.show(wish.filter, reason=reason)
        sample = [
            Sampled(serial=serial, names=[Identifier.from_text(name).value for name in names])
            for serial, names in found.sample
        ]
        return BulkResult(dry_run=True, count=found.count, digest=found.digest, sample=sample)
    done = await admin.bulk.revoke(
        wish.filter,
        expected=wish.expected,
        digest=wish.digest,
        reason=reason,
        comment=wish.comment,
        actor=call.actor,
    )
    return BulkResult(dry_run=False, count=done, digest=None, sample=[])


# ---------------------------------------------------------------- having renewed


async def move_window(admin: Admin, call: Call) -> CertificateView:
    serial = await _known(admin, call, call.path["serial"])
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
    return await _view_of(admin, serial)


def _window(
    admin: Admin, start: AwareDatetime | None, end: AwareDatetime, explanation_url: str | None
) -> SuggestedWindow:
    now = admin.clock().replace(microsecond=0)
    try:
        since = start or min(now, end - timedelta(seconds=1))
    except OverflowError:
        raise invalid_field("end", "Nothing can end so early.") from None
    window = SuggestedWindow(start=since, end=end)
    try:
        renewal.check_moved(window, explanation_url=explanation_url)
    except Problem as problem:
        raise invalid_field("end" if since >= end else "explanation_url", problem.detail) from None
    return window


# ---------------------------------------------------------------- answers


async def _known(admin: Admin, call: Call, text: str) -> Serial:
    """The serial number of a certificate that there is, and that the credential is for. Raises Problem."""
    serial = read_serial(text)
    found = None if serial is None else await certificates.find(admin.database, serial)
    missing = not_found("There is no certificate with this serial number.")
    if found is None:
        raise missing
    call.check_service(found.service, missing)
    return found.serial


async def _view_of(admin: Admin, serial: Serial) -> CertificateView:
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
        certificate=None if found.der is None else _pem(found.der),
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


def _pem(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()


def _issued(admin: Admin, issued: Issued) -> IssuedView:
    return IssuedView(
        **view(admin, issued.certificate).model_dump(),
        chain=issued.chain_pem.decode(),
        private_key=None if issued.key is None else _key_pem(issued.key),
    )


def _key_pem(key: PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


ROUTES = (
    Route(
        name="certificates.issue",
        method="POST",
        path="/certificates/issue",
        permission=Permission.CERTIFICATES_ISSUE,
        endpoint=issue,
        body=NewCertificate,
        answer=IssuedView,
        status=201,
        scoped=True,
        conflicts=True,
        summary="Have a certificate issued without ACME.",
    ),
    Route(
        name="certificates.renew",
        method="POST",
        path="/certificates/renew",
        permission=Permission.CERTIFICATES_ISSUE,
        endpoint=renew,
        body=Renewal,
        answer=IssuedView,
        status=201,
        scoped=True,
        conflicts=True,
        summary="Another certificate with the names, profile and service of one that is not revoked.",
    ),
    Route(
        name="certificates.revoke-named",
        method="POST",
        path="/certificates/revoke",
        permission=Permission.CERTIFICATES_REVOKE,
        endpoint=revoke_named,
        body=RevocationOf,
        answer=CertificateView,
        scoped=True,
        conflicts=True,
        summary="Take a certificate back; as `certificates.revoke`.",
    ),
    Route(
        name="certificates.revoke-bulk",
        method="POST",
        path="/certificates/revoke-bulk",
        permission=Permission.CERTIFICATES_REVOKE_MANY,
        endpoint=revoke_many,
        body=BulkWish,
        answer=BulkResult,
        dangerous=True,
        is_harmless=lambda call: call.body.dry_run,
        conflicts=True,
        summary="Take back all certificates that a filter finds: first to look, then to do it.",
    ),
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
        name="certificates.revoke",
        method="POST",
        path="/certificates/{serial}/revoke",
        permission=Permission.CERTIFICATES_REVOKE,
        endpoint=revoke,
        body=Revocation,
        answer=CertificateView,
        scoped=True,
        conflicts=True,
        summary="Take a certificate back for good.",
    ),
    Route(
        name="certificates.hold",
        method="POST",
        path="/certificates/{serial}/hold",
        permission=Permission.CERTIFICATES_REVOKE,
        endpoint=hold,
        body=Remark,
        answer=CertificateView,
        scoped=True,
        conflicts=True,
        summary="Revoke it until it is released, or revoked for good.",
    ),
    Route(
        name="certificates.release",
        method="POST",
        path="/certificates/{serial}/release",
        permission=Permission.CERTIFICATES_REVOKE,
        endpoint=release,
        body=Remark,
        answer=CertificateView,
        scoped=True,
        conflicts=True,
        summary="End a hold: it is good again.",
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
