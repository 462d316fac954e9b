"""Certificates without an order: operators have them issued and renewed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import Field, model_validator

from acme_ca.admin.access import Permission
from acme_ca.admin.certificates import CertificateView, Name, SerialText, known, view
from acme_ca.admin.frame import Call, Model, Route
from acme_ca.admin.paging import invalid_field
from acme_ca.ca.keystore import KeyKind, PrivateKey
from acme_ca.core import csr
from acme_ca.core.csr import CertificateRequest
from acme_ca.core.names import identifier_of
from acme_ca.core.services import ServiceId, ServiceIdText
from acme_ca.core.texts import ShortText
from acme_ca.lifecycle.issuing import Issued, NewKey, Wish

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

MAX_NAMES = 100
MAX_DAYS = 40 * 365
MAX_CSR = 48 * 1024
"""Characters: of PEM or base64."""

Days = Annotated[int, Field(ge=1, le=MAX_DAYS)]
Csr = Annotated[str, Field(min_length=1, max_length=MAX_CSR)]


class IssuedView(CertificateView):
    chain: str
    """The certificates of its issuers, PEM, without the root."""
    private_key: str | None
    """The key that was made here, PKCS #8 in PEM. Shown now and never again; null: none was asked for."""


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


# ---------------------------------------------------------------- endpoints


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
        serial = await known(admin, call, wish.serial or "")
    issued = await admin.issuing.renew(
        serial, wish.key, days=wish.validity_days, actor=call.actor, privileged=_is_privileged(call)
    )
    return _issued(admin, issued)


def _is_privileged(call: Call) -> bool:
    """A service has no business with profiles that are not for services."""
    return call.services is None and call.principal.may(Permission.CERTIFICATES_ISSUE_ANY)


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
)
