"""The certificates of the CA itself: looked at, made, and taken in and out of use."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import AwareDatetime, Field, StringConstraints

from acme_ca.admin import lists
from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Call, File, Model, Route
from acme_ca.admin.lists import Within
from acme_ca.admin.paging import Page, PageQuery, invalid_field
from acme_ca.ca import certify
from acme_ca.ca.constraints import NameConstraints
from acme_ca.ca.hierarchy import KEY_KINDS
from acme_ca.ca.issuers import Issuer, IssuerError
from acme_ca.ca.keystore import KeyKind, KeyStoreError
from acme_ca.ca.rotation import SHORTEST_PREFIX, NewIssuer, NewRoot
from acme_ca.config import ConfigurationError
from acme_ca.core.actors import SOCKET
from acme_ca.core.codes import Code
from acme_ca.core.der import Unreadable, strictly
from acme_ca.core.ids import serial_text
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.keys import key_name
from acme_ca.core.problems import conflict, not_found
from acme_ca.core.revocation import REASONS, FinalReason
from acme_ca.core.states import IssuerState
from acme_ca.core.texts import ShortText
from acme_ca.storage.issuers import IssuerSort

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

PEM = "application/x-pem-file"
MAX_PEM = 64 * 1024
MOST_OF_SUBJECT = 200
"""Characters that are compared, and that a cursor has."""
LONGEST_DAYS = 100 * 365
ROOT_DAYS = certify.ROOT_LIFETIME.days
INTERMEDIATE_DAYS = certify.INTERMEDIATE_LIFETIME.days

Pem = Annotated[str, StringConstraints(max_length=MAX_PEM)]
Days = Annotated[int, Field(ge=1, le=LONGEST_DAYS)]
Name = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class IssuerView(Model):
    """A CA certificate."""

    id: str
    """The first half of its SHA-256."""
    kind: IssuerKind
    state: IssuerState
    subject: str
    issuer: str
    key: str
    """Its kind, as in `EC secp256r1`."""
    serial: str
    not_before: AwareDatetime
    not_after: AwareDatetime
    days_left: int
    sha256: str
    """Of the certificate, with colons."""
    activated: AwareDatetime | None
    revoked: AwareDatetime | None
    """As a certificate of the CA above it."""
    signs: bool
    """Whether this server has its key at hand."""
    pem: str


class ChangedIssuer(IssuerView):
    notes: list[str]
    """What an operator should know about it now."""


class CaView(Model):
    """What issues now. `ca_initialized` false: nothing does."""

    ca_initialized: bool
    root: IssuerView | None
    intermediate: IssuerView | None


class WishForRoot(Model):
    common_name: Name = "VCC"
    """`VCC` gives `VCC Root CA`."""
    organization: Name = "VCC"
    """May be empty."""
    country: Annotated[str, StringConstraints(pattern=r"^([A-Za-z]{2})?$")] = ""
    """Two letters; may be empty."""
    key_type: Literal["ec", "rsa"] = "ec"
    """P-384, or RSA with 4096 bits."""
    validity_days: Days = ROOT_DAYS
    key_uri: ShortText | None = None
    """Where its key is made: `pkcs11:…`, `awskms:…`; null: an encrypted file beside the others."""
    additional: bool = False
    """Make it although there is a root."""


class WishForIntermediate(Model):
    common_name: Name | None = None
    """Null: after its root, with a number when that is taken."""
    parent: ShortText | None = None
    """Id of the CA that signs it; null: the root of the active issuer."""
    key_kind: KeyKind = KeyKind.EC_P256
    key_uri: ShortText | None = None
    """As of a root."""
    validity_days: Days = INTERMEDIATE_DAYS
    """Never beyond its parent's end."""
    activate: bool | None = None
    """Whether it issues at once; null: if nothing else does."""
    path_length: Annotated[int, Field(ge=0, le=20)] = 0
    """How many CAs may follow below it."""
    permit: Annotated[tuple[ShortText, ...], Field(max_length=100)] = ()
    """Name constraints: names and networks that it may issue for, and for no others of their kind."""
    exclude: Annotated[tuple[ShortText, ...], Field(max_length=100)] = ()
    """Name constraints: names and networks that it may not issue for."""


class WishForRequest(Model):
    common_name: Name | None = None
    key_kind: KeyKind = KeyKind.EC_P256
    key_uri: ShortText | None = None
    path_length: Annotated[int, Field(ge=0, le=20)] = 0
    permit: Annotated[tuple[ShortText, ...], Field(max_length=100)] = ()
    exclude: Annotated[tuple[ShortText, ...], Field(max_length=100)] = ()


class RequestView(Model):
    csr: str
    """PEM, for another CA to sign."""


class SignedElsewhere(Model):
    certificate: Pem
    """What came back, PEM; the certificates above it may follow, up to the root."""


class WishForCross(Model):
    by: ShortText
    """Id of the CA that signs; its key must be within reach."""
    validity_days: Days = INTERMEDIATE_DAYS


class WishForRevocation(Model):
    reason: FinalReason
    """Of RFC 5280 §5.3.1."""


# ---------------------------------------------------------------- looking


async def show_ca(admin: Admin, call: Call) -> CaView:
    used = await admin.rotation(call.actor).in_use()
    root, intermediate = used or (None, None)
    return CaView(
        ca_initialized=used is not None,
        root=_view(admin, root) if root else None,
        intermediate=_view(admin, intermediate) if intermediate else None,
    )


async def bundle(admin: Admin, _call: Call) -> File:
    content = admin.bundle()
    if not content:
        raise not_found("There is no CA yet.")
    return File(content, PEM)


class IssuerQuery(PageQuery):
    kind: IssuerKind | None = None
    state: IssuerState | None = None
    expiring_within: Within | None = None
    """As in `365 days`: what is not expired and ends within that time."""
    text: ShortText | None = None
    """In the id or the subject, in whatever case."""
    sort: IssuerSort = "created"
    """With a minus the last one first."""


async def list_issuers(admin: Admin, call: Call) -> Page[IssuerView]:
    query: IssuerQuery = call.query
    known = await admin.rotation(call.actor).all()  # in the order in which they were made
    by: dict[str, tuple[type, Callable[[Issuer], Any]]] = {
        "created": (int, known.index),
        "not_after": (datetime, lambda one: one.not_after),
        "subject": (str, lambda one: _subject(one)[:MOST_OF_SUBJECT]),
    }
    kind, value = by[query.sort.removeprefix("-")]
    found = lists.short(
        [one for one in known if _fits(one, query, admin.clock())],
        query,
        sort=query.sort,
        kind=kind,
        by=value,
        id_=lambda one: str(one.id),
    )
    return lists.page(found, sort=query.sort, view=lambda one: _view(admin, one))


def _fits(issuer: Issuer, query: IssuerQuery, now: datetime) -> bool:
    text = (query.text or "").lower()
    within = query.expiring_within
    return (
        query.kind in {None, issuer.kind}
        and query.state in {None, issuer.state(now)}
        and (within is None or now < issuer.not_after <= now + within)
        and (text in issuer.id or text in _subject(issuer).lower())
    )


def _subject(issuer: Issuer) -> str:
    return issuer.certificate.subject.rfc4514_string()


async def show(admin: Admin, call: Call) -> IssuerView:
    return _view(admin, await _find(admin, call))


# ---------------------------------------------------------------- making


async def create_root(admin: Admin, call: Call) -> IssuerView:
    wish: WishForRoot = call.body
    rotation = admin.rotation(call.actor)
    if not wish.additional and any(one.kind is IssuerKind.ROOT for one in await rotation.all()):
        raise conflict('There is a root already; with "additional" another is made beside it.', Code.EXISTS)
    kind, _ = KEY_KINDS[wish.key_type]
    with _refusals():
        made = await rotation.create_root(
            NewRoot(
                common_name=wish.common_name,
                organization=wish.organization,
                country=wish.country,
                key_uri=_place(call, "root"),
                key_kind=kind,
                lifetime=timedelta(days=wish.validity_days),
            )
        )
    return _view(admin, made)


async def create_intermediate(admin: Admin, call: Call) -> ChangedIssuer:
    wish: WishForIntermediate = call.body
    rotation = admin.rotation(call.actor)
    with _refusals():
        made = await rotation.create_intermediate(
            NewIssuer(
                common_name=wish.common_name,
                key_uri=_place(call, "intermediate"),
                key_kind=wish.key_kind,
                lifetime=timedelta(days=wish.validity_days),
                path_length=wish.path_length,
                name_constraints=_constraints(wish),
            ),
            parent=wish.parent,
        )
        if wish.activate or (wish.activate is None and await rotation.in_use() is None):
            made = await rotation.activate(made.id)
    return _changed(admin, made)


async def cross_sign(admin: Admin, call: Call) -> ChangedIssuer:
    wish: WishForCross = call.body
    subject = await _find(admin, call)
    with _refusals():
        made = await admin.rotation(call.actor).cross_sign(
            subject.id, by=wish.by, lifetime=timedelta(days=wish.validity_days)
        )
    return _changed(admin, made)


async def request(admin: Admin, call: Call) -> RequestView:
    wish: WishForRequest = call.body
    with _refusals():
        csr = await admin.rotation(call.actor).request(
            NewIssuer(
                common_name=wish.common_name,
                key_uri=_place(call, "intermediate"),
                key_kind=wish.key_kind,
                path_length=wish.path_length,
                name_constraints=_constraints(wish),
            )
        )
    return RequestView(csr=x509.load_der_x509_csr(csr).public_bytes(Encoding.PEM).decode())


async def install(admin: Admin, call: Call) -> ChangedIssuer:
    wish: SignedElsewhere = call.body
    first, *above = _certificates(wish.certificate)
    with _refusals():
        made = await admin.rotation(call.actor).install(first, above)
    return _changed(admin, made)


# ---------------------------------------------------------------- in and out of use


async def activate(admin: Admin, call: Call) -> ChangedIssuer:
    found = await _find(admin, call)
    with _refusals():
        changed = await admin.rotation(call.actor).activate(found.id)
    return _changed(admin, changed)


async def retire(admin: Admin, call: Call) -> ChangedIssuer:
    found = await _find(admin, call)
    with _refusals():
        changed = await admin.rotation(call.actor).retire(found.id)
    return _changed(admin, changed)


async def revoke(admin: Admin, call: Call) -> ChangedIssuer:
    wish: WishForRevocation = call.body
    found = await _find(admin, call)
    await admin.revocation.revoke_issuer(found.id, by=call.actor, reason=REASONS[wish.reason])
    return _changed(admin, await _find(admin, call))


# ---------------------------------------------------------------- parts


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What the CA cannot do, or its key stores, becomes a sentence for the operator."""
    try:
        yield
    except (IssuerError, KeyStoreError, ConfigurationError) as error:
        raise conflict(str(error)) from None


async def _find(admin: Admin, call: Call) -> Issuer:
    wanted = call.path["id"].lower()
    found = [one for one in await admin.rotation(call.actor).all() if one.id.startswith(wanted)]
    if len(wanted) < SHORTEST_PREFIX:
        raise not_found(f"Give {SHORTEST_PREFIX} digits or more of the issuer's id: see acme-ca ca list.")
    if not found:
        raise not_found("It is not clear which issuer is meant: no issuer has an id of these digits.")
    if len(found) > 1:
        raise conflict(f"It is not clear which issuer is meant: {len(found)} have an id of these digits.")
    return found[0]


def _place(call: Call, kind: str) -> str:
    """Where a new key is made. From afar nobody names a path of this machine, let alone a library for it to load."""
    uri: str | None = call.body.key_uri
    if uri is None:
        return f"file:{kind}-{secrets.token_hex(4)}.key"
    names_path = any(word in uri.lower() for word in _OF_THIS_MACHINE)
    if call.principal.source != SOCKET and (names_path or not _FROM_AFAR.fullmatch(uri)):
        raise invalid_field(
            "key_uri", "Paths of the server's machine, and PINs, are given there alone, through its socket."
        )
    return uri


_OF_THIS_MACHINE = ("module-path", "module-name", "pin-value", "pin-source")
_FROM_AFAR = re.compile(r"(?!file:)[a-z0-9]+:[^\s]+|file:[A-Za-z0-9_-][A-Za-z0-9._-]*")


def _constraints(wish: WishForIntermediate | WishForRequest) -> NameConstraints | None:
    try:
        return NameConstraints.parse(wish.permit, wish.exclude)
    except IssuerError as error:
        raise invalid_field("permit", str(error)) from None


def _certificates(pem: str) -> list[x509.Certificate]:
    try:
        with strictly():
            return x509.load_pem_x509_certificates(pem.encode())
    except (Unreadable, ValueError):
        raise invalid_field("certificate", "This is no certificate in PEM.") from None


def _view(admin: Admin, issuer: Issuer) -> IssuerView:
    certificate, now = issuer.certificate, admin.clock()
    return IssuerView(
        id=issuer.id,
        kind=issuer.kind,
        state=issuer.state(now),
        subject=_subject(issuer),
        issuer=certificate.issuer.rfc4514_string(),
        key=key_name(certificate.public_key()),
        serial=serial_text(certificate.serial_number),
        not_before=certificate.not_valid_before_utc,
        not_after=issuer.not_after,
        days_left=(issuer.not_after - now).days,
        sha256=bytes.fromhex(issuer.fingerprint).hex(":").upper(),
        activated=issuer.activated,
        revoked=issuer.revoked,
        signs=issuer.key is not None,
        pem=certificate.public_bytes(Encoding.PEM).decode(),
    )


def _changed(admin: Admin, issuer: Issuer) -> ChangedIssuer:
    return ChangedIssuer(**_view(admin, issuer).model_dump(), notes=list(_notes(admin, issuer)))


def _notes(admin: Admin, issuer: Issuer) -> Iterator[str]:
    if certify.is_loopback(admin.public_http_url) and issuer.kind is not IssuerKind.ROOT:
        yield (
            f"The public HTTP address is {admin.public_http_url}, which others cannot reach: CA certificates that are made here "
            "name neither CRL nor issuer."
        )
    if issuer.signs_leaves(admin.clock()) and issuer.refused([admin.own_identifier]):
        yield (
            f"It may not issue for {admin.own_identifier.value}, the server's own name: the TLS certificate that the server has "
            "is not renewed until an issuer that may is active."
        )


_READ, _WRITE = Permission.ISSUERS_READ, Permission.ISSUERS_WRITE

ROUTES = (
    Route(
        name="ca.info",
        method="GET",
        path="/ca/info",
        permission=_READ,
        endpoint=show_ca,
        answer=CaView,
        summary="The active issuer and its root.",
    ),
    Route(
        name="ca.bundle",
        method="GET",
        path="/ca/bundle",
        permission=None,
        endpoint=bundle,
        media_type=PEM,
        summary="The chain of the active issuer, and the roots to trust (PEM).",
    ),
    Route(
        name="ca.create_root",
        method="POST",
        path="/ca/root",
        permission=_WRITE,
        endpoint=create_root,
        body=WishForRoot,
        answer=IssuerView,
        status=201,
        summary="Make a root with a key of its own.",
        conflicts=True,
    ),
    Route(
        name="ca.create_intermediate",
        method="POST",
        path="/ca/intermediate",
        permission=_WRITE,
        endpoint=create_intermediate,
        body=WishForIntermediate,
        answer=ChangedIssuer,
        status=201,
        summary="Make an intermediate, staged: it signs nothing until it is activated. The first is so at once.",
        conflicts=True,
    ),
    Route(
        name="issuers.list",
        method="GET",
        path="/issuers",
        permission=_READ,
        endpoint=list_issuers,
        query=IssuerQuery,
        answer=Page[IssuerView],
        summary="Every CA certificate that is known: roots, intermediates, cross-signatures; oldest first.",
    ),
    Route(
        name="issuers.request",
        method="POST",
        path="/issuers/requests",
        permission=_WRITE,
        endpoint=request,
        body=WishForRequest,
        answer=RequestView,
        status=201,
        summary="Make a key, and a request for an intermediate that an offline or foreign root signs.",
        conflicts=True,
    ),
    Route(
        name="issuers.install",
        method="POST",
        path="/issuers/install",
        permission=_WRITE,
        endpoint=install,
        body=SignedElsewhere,
        answer=ChangedIssuer,
        status=201,
        summary="Install what another CA made of a request, staged. Every link of its chain is checked.",
        conflicts=True,
        max_body=2 * MAX_PEM,
    ),
    Route(
        name="issuers.show",
        method="GET",
        path="/issuers/{id}",
        permission=_READ,
        endpoint=show,
        answer=IssuerView,
        summary="One of them, by its id or the first digits of it.",
        conflicts=True,
    ),
    Route(
        name="issuers.activate",
        method="POST",
        path="/issuers/{id}/activate",
        permission=_WRITE,
        endpoint=activate,
        answer=ChangedIssuer,
        summary="Have it sign what is ordered from now on.",
        conflicts=True,
    ),
    Route(
        name="issuers.retire",
        method="POST",
        path="/issuers/{id}/retire",
        permission=_WRITE,
        endpoint=retire,
        answer=ChangedIssuer,
        summary="Have it sign status only: CRLs and OCSP go on while its certificates live.",
        dangerous=True,
        conflicts=True,
    ),
    Route(
        name="issuers.revoke",
        method="POST",
        path="/issuers/{id}/revoke",
        permission=_WRITE,
        endpoint=revoke,
        body=WishForRevocation,
        answer=ChangedIssuer,
        summary="Take a CA certificate back: the CRL of the CA above lists it, and it is retired.",
        dangerous=True,
        conflicts=True,
    ),
    Route(
        name="issuers.cross_sign",
        method="POST",
        path="/issuers/{id}/cross-sign",
        permission=_WRITE,
        endpoint=cross_sign,
        body=WishForCross,
        answer=ChangedIssuer,
        status=201,
        summary="Give a CA another certificate, below another root: clients are offered both chains.",
        conflicts=True,
    ),
)
