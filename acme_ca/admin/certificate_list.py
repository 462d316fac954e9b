"""The list of certificates: every filter that people and programs ask for."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import AwareDatetime, Field

from acme_ca.admin import lists
from acme_ca.admin.access import Permission
from acme_ca.admin.certificates import CertificateStatus
from acme_ca.admin.frame import Call, Model, Route
from acme_ca.admin.lists import Id, Name, Sha256, Within, Word
from acme_ca.admin.paging import Page, PageQuery, invalid_field
from acme_ca.core.ids import AccountId, IssuerId, OrderId
from acme_ca.core.profiles import ProfileRef
from acme_ca.core.revocation import reason_name
from acme_ca.core.states import CertificateState
from acme_ca.storage import certificate_list
from acme_ca.storage.certificate_list import CertificateFilter, CertificateSort, FoundCertificate

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

MOST_WORDS = 10


class CertificateQuery(PageQuery):
    status: CertificateState | None = None
    """Revoked and on hold win over expired. What was recorded and not signed is neither good nor expired."""
    service: Word | None = None
    name: Name | None = None
    """A DNS name, wildcard or address that it has; `.a.example`: a.example or anything below it."""
    profile: Word | None = None
    issuer: Id | None = None
    account: Id | None = None
    """That ordered it."""
    order: Id | None = None
    serial: Annotated[str, Field(min_length=4, max_length=100)] | None = None
    """Hexadecimal, with or without colons: all of it, or at least 4 digits of its beginning."""
    key_sha256: Sha256 | None = None
    """SHA-256 of its public key (SubjectPublicKeyInfo), hexadecimal."""
    expiring_within: Within | None = None
    """As in `30 days`: what is good and ends within that time."""
    issued_since: AwareDatetime | None = None
    issued_before: AwareDatetime | None = None
    text: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """Words that must all fit: the beginning of a name from one of its labels on, of an address, or of a serial number
    (6 digits); a service; the id of an account or order.
    """
    sort: CertificateSort | None = None
    """With a minus the last one first. The usual: `-not_after` for expired ones, `not_after` with `expiring_within`, else
    `-recorded`."""


class ListedCertificate(Model):
    serial: str
    """32 hexadecimal digits."""
    status: CertificateStatus
    names: list[str]
    not_before: AwareDatetime
    not_after: AwareDatetime
    recorded: AwareDatetime
    """When it was written down, before it was signed."""
    profile: ProfileRef
    issuer: str
    service_id: str | None
    account: str | None
    order: str | None
    key_sha256: str
    revoked: AwareDatetime | None
    reason: str | None
    comment: str | None


async def find(admin: Admin, call: Call) -> Page[ListedCertificate]:
    query: CertificateQuery = call.query
    now = admin.clock()
    wanted, sort = _filter(admin, call, query), _sort(query)
    found = await certificate_list.find(
        admin.database,
        wanted,
        now=now,
        limit=query.limit,
        sort=sort,
        after=lists.after(query.cursor, sort=sort, kind=datetime),
    )
    return lists.page(found, sort=sort, view=_view)


def _sort(query: CertificateQuery) -> CertificateSort:
    if query.sort is not None:
        return query.sort
    if query.expiring_within is not None:
        return CertificateSort.NOT_AFTER
    expired = query.status is CertificateState.EXPIRED
    return CertificateSort.NOT_AFTER_LAST if expired else CertificateSort.RECORDED_LAST


def _filter(admin: Admin, call: Call, query: CertificateQuery) -> CertificateFilter:
    now = admin.clock()
    if query.text is not None and len(query.text.split()) > MOST_WORDS:
        raise invalid_field("text", f"It has more than {MOST_WORDS} words.")
    below = query.name is not None and query.name.startswith(".")
    ending = query.expiring_within
    return CertificateFilter(
        state=CertificateState.GOOD if query.status is None and ending is not None else query.status,
        service=query.service,
        **lists.services(call),
        name=None if query.name is None or below else lists.name_of(query.name),
        below=lists.suffix_of(query.name) if query.name is not None and below else None,
        profile=query.profile,
        issuer=None if query.issuer is None else IssuerId(query.issuer),
        account=None if query.account is None else AccountId(query.account),
        order=None if query.order is None else OrderId(query.order),
        serial=None if query.serial is None else _beginning(query.serial),
        spki_sha256=None if query.key_sha256 is None else bytes.fromhex(query.key_sha256),
        ends_after=None if ending is None else now,
        ends_until=None if ending is None else now + ending,
        recorded_since=query.issued_since,
        recorded_until=query.issued_before,
        text=query.text,
    )


def _beginning(text: str) -> str:
    digits = text.strip().lower().removeprefix("0x").replace(":", "")
    if not 4 <= len(digits) <= 32 or set(digits) - set("0123456789abcdef"):  # noqa: PLR2004  as the field says
        raise invalid_field("serial", "It is no serial number or its beginning: 4 to 32 hexadecimal digits.")
    return digits


def _view(found: FoundCertificate) -> ListedCertificate:
    unsigned = not found.signed and found.revoked is None
    return ListedCertificate(
        serial=found.serial,
        status=CertificateStatus.UNSIGNED if unsigned else CertificateStatus(found.state),
        names=[identifier.value for identifier in found.identifiers],
        not_before=found.not_before,
        not_after=found.not_after,
        recorded=found.recorded,
        profile=found.profile,
        issuer=found.issuer,
        service_id=found.service,
        account=found.account_id,
        order=found.order_id,
        key_sha256=found.spki_sha256.hex(),
        revoked=found.revoked,
        reason=None if found.reason is None else reason_name(found.reason),
        comment=found.comment,
    )


ROUTES = (
    Route(
        name="certificates.list",
        method="GET",
        path="/certificates",
        permission=Permission.CERTIFICATES_READ,
        endpoint=find,
        query=CertificateQuery,
        answer=Page[ListedCertificate],
        scoped=True,
        summary="Certificates that fit all filters, in pages.",
    ),
)
