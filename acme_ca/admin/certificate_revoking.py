"""Certificates that operators take back: one, or all that a filter finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AwareDatetime, Field, model_validator

from acme_ca.admin.access import Permission
from acme_ca.admin.certificates import CertificateView, Name, SerialText, known, view_of
from acme_ca.admin.frame import Call, Model, Route
from acme_ca.admin.lists import Id
from acme_ca.core.codes import Code
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AccountId, EabKeyId, IssuerId, Serial
from acme_ca.core.names import identifier_of
from acme_ca.core.problems import ErrorType, Problem, conflict
from acme_ca.core.revocation import HOLD, MAX_COMMENT, REASONS, FinalReason, RevocationReason
from acme_ca.core.services import ServiceId
from acme_ca.core.texts import PRINTABLE, ShortText
from acme_ca.storage.bulk import Filter

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

Comment = Annotated[str, Field(max_length=MAX_COMMENT, pattern=PRINTABLE)]


class Revocation(Model):
    reason: FinalReason = "unspecified"
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


class BulkWish(Model):
    """Which certificates to take back: those that fit all that is given. Expired ones, and those that are revoked for
    good, are left alone.
    """

    service_id: ShortText | None = None
    issuer: Id | None = None
    """All of its id: with the first digits of it nothing would be found, and nothing be taken back."""
    account: Id | None = None
    """That ordered them."""
    eab_key: ShortText | None = None
    """Of the account that ordered them."""
    profile: ShortText | None = None
    name: Name | None = None
    """That they hold."""
    key_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    issued_from: AwareDatetime | None = None
    issued_before: AwareDatetime | None = None
    reason: FinalReason | Literal["certificateHold"] = "unspecified"
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


# ---------------------------------------------------------------- endpoints


async def revoke(admin: Admin, call: Call) -> CertificateView:
    return await _revoke(admin, call, call.path["serial"], call.body)


async def revoke_named(admin: Admin, call: Call) -> CertificateView:
    return await _revoke(admin, call, call.body.serial, call.body)


async def _revoke(admin: Admin, call: Call, text: str, wish: Revocation) -> CertificateView:
    serial = await known(admin, call, text)
    await _taken_back(admin, call, serial, REASONS[wish.reason], wish)
    return await view_of(admin, serial)


async def hold(admin: Admin, call: Call) -> CertificateView:
    serial = await known(admin, call, call.path["serial"])
    await _taken_back(admin, call, serial, HOLD, Revocation(comment=call.body.comment))
    return await view_of(admin, serial)


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
    serial = await known(admin, call, call.path["serial"])
    await admin.revocation.release(serial, by=call.actor, comment=call.body.comment)
    return await view_of(admin, serial)


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


ROUTES = (
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
)
