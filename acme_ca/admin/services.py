"""The service registry over the API, as VCC services call it."""

from __future__ import annotations

import shlex
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Annotated

from pydantic import AwareDatetime, Field

from acme_ca.admin import lists
from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Call, Model, Route
from acme_ca.admin.lists import CreatedQuery, Name
from acme_ca.admin.paging import Page, invalid_field
from acme_ca.core.eab import EabKey
from acme_ca.core.identifiers import IdentifierType
from acme_ca.core.names import identifier_of
from acme_ca.core.problems import Problem
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.services import RegisteredService, Service, ServiceId, Tag
from acme_ca.core.states import ServiceState
from acme_ca.core.texts import ShortText
from acme_ca.storage import services as store
from acme_ca.storage.bulk import Filter
from acme_ca.storage.services import Retirement, ServiceSort

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin


HTTP = 80


class ServiceView(Service):
    state: ServiceState
    """`pending`: it waits for approval; `retired`: it gets no more certificates."""
    created: AwareDatetime
    changed: AwareDatetime
    approved: AwareDatetime | None
    retired: AwareDatetime | None
    readable: bool
    """false: a later release described it, and nothing but its id and its state is known here."""


class NewService(Service):
    eab: bool = False
    """Also make an EAB key for its ACME clients, limited to its domains."""


class EabLines(Model):
    """An EAB key, and how to use it. Shown now and never again."""

    kid: str
    hmac_key: str
    directory: str
    """What ACME clients call the server."""
    root_url: str
    """Where the root is that they have to trust; save it as `root.pem` and compare:"""
    root_sha256: str | None
    """Its fingerprint, in hexadecimal digits; null: the server does not know it."""
    certbot: str
    """One line to paste where `root.pem` is."""
    lego: str
    """The same for lego."""


class Registered(ServiceView):
    eab: EabLines | None
    """null: none was asked for."""


class Retired(ServiceView):
    eab_keys: list[str]
    """Ids of its EAB keys, which are revoked now."""
    accounts: list[str]
    """Ids of their accounts, which are frozen now."""
    certificates_revoked: int


class ServiceQuery(CreatedQuery):
    state: ServiceState | None = None
    tag: Tag | None = None
    """That it has."""
    owner: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Just this one."""
    domain: Name | None = None
    """A name or address that it is registered for, as it is written there."""
    text: ShortText | None = None
    """In the id, the name, the owner, a contact or a domain, in whatever case."""
    sort: ServiceSort = "service_id"
    """With a minus the last one first."""


class RetirementQuery(Model):
    revoke_certificates: bool = False
    """Also take back all certificates that it has (`cessationOfOperation`)."""


# ---------------------------------------------------------------- endpoints


async def register(admin: Admin, call: Call) -> Registered:
    """A credential for some services registers these only, and they wait for approval: their domains are their own word."""
    wish: NewService = call.body
    call.check_service(wish.service_id)
    if wish.eab:
        call.check_may(Permission.EAB_WRITE)
    service = Service.model_validate(wish.model_dump(exclude={"eab"}))
    made, key = await admin.services.register(
        service, with_eab_key=wish.eab, wait=call.services is not None, actor=call.actor
    )
    return Registered(**_fields(made), eab=None if key is None else _lines(admin, made, key))


async def list_services(admin: Admin, call: Call) -> Page[ServiceView]:
    query: ServiceQuery = call.query
    domain = None if query.domain is None else lists.name_of(query.domain, "domain").value
    wanted = lists.wanted(query, store.SERVICES, sort=query.sort, services=call.services, domain=domain)
    found = await store.page(admin.database, wanted, now=admin.clock())
    return lists.page(found, sort=query.sort, view=view)


async def show(admin: Admin, call: Call) -> ServiceView:
    return view(await admin.services.find(_service(call)))


async def change(admin: Admin, call: Call) -> ServiceView:
    service: Service = call.body
    if service.service_id != _service(call):
        raise invalid_field("service_id", "It is another than in the path; a service keeps its id.")
    if call.services is not None:
        before = (await admin.services.find(service.service_id)).service
        if set(service.domains) != set(before.domains):
            raise invalid_field("domains", "They are not for the service itself to change: ask an operator.")
    return view(await admin.services.change(service, actor=call.actor))


async def approve(admin: Admin, call: Call) -> ServiceView:
    return view(await admin.services.approve(call.path["service_id"], actor=call.actor))


async def retire(admin: Admin, call: Call) -> Retired:
    query: RetirementQuery = call.query
    service = _service(call)
    if query.revoke_certificates:
        call.check_may(Permission.CERTIFICATES_REVOKE_MANY)
    gone = await _ended(admin, call, service, again=query.revoke_certificates)
    revoked = 0
    if query.revoke_certificates:
        revoked = await admin.bulk.revoke_all(
            Filter(service=ServiceId(service)),
            reason=RevocationReason.CESSATION_OF_OPERATION,
            comment="The service is retired.",
            actor=call.actor,
        )
    return Retired(
        **_fields(gone.service),
        eab_keys=list(gone.eab_keys),
        accounts=list(gone.accounts),
        certificates_revoked=revoked,
    )


async def _ended(admin: Admin, call: Call, service: str, *, again: bool) -> Retirement:
    """`again`: it may be retired already, with certificates that are left: nobody asked for them, or that was broken off."""
    if again and (found := await admin.services.find(service)).state is ServiceState.RETIRED:
        return Retirement(service=found, eab_keys=(), accounts=())
    return await admin.services.retire(service, actor=call.actor)


async def make_eab_key(admin: Admin, call: Call) -> EabLines:
    service, key = await admin.services.make_eab_key(_service(call), actor=call.actor)
    return _lines(admin, service, key)


def _service(call: Call) -> str:
    """Raises Problem (`not-found`) for one that the credential is not for."""
    service = call.path["service_id"]
    call.check_service(service)
    return service


# ---------------------------------------------------------------- answers


def view(found: RegisteredService) -> ServiceView:
    return ServiceView(**_fields(found))


def _fields(found: RegisteredService) -> dict[str, object]:
    return {
        **found.service.model_dump(),
        "state": found.state,
        "created": found.created,
        "changed": found.changed,
        "approved": found.approved,
        "retired": found.retired,
        "readable": found.readable,
    }


def _lines(admin: Admin, registered: RegisteredService, key: EabKey) -> EabLines:
    hmac_key = urlsafe_b64encode(key.hmac_key).decode().rstrip("=")
    domains = registered.service.domains
    directory = admin.urls.directory
    binding = ["--server", directory, "--eab-kid", key.id, f"--eab-hmac-key={hmac_key}"]
    certbot = ["certbot", "certonly", *_certbot_challenge(admin, domains), *binding, "--agree-tos"]
    lego = ["lego", "--server", directory, "--accept-tos", "--eab", "--kid", key.id, f"--hmac={hmac_key}"]
    # lego wants a mail address for its own files
    lego += ["--email", f"{registered.service.service_id}@localhost", *_lego_challenge(admin, domains)]
    return EabLines(
        kid=key.id,
        hmac_key=hmac_key,
        directory=directory,
        root_url=f"{admin.public_http_url}/ca/root.pem",
        root_sha256=_root_fingerprint(admin),
        certbot=f"REQUESTS_CA_BUNDLE=root.pem {shlex.join(certbot)} --register-unsafely-without-email "
        + _names(domains, name="-d", address="--ip-address"),
        lego=f"LEGO_CA_CERTIFICATES=root.pem {shlex.join(lego)} "
        f"{_names(domains, name='--domains', address='--domains')} run",
    )


def _root_fingerprint(admin: Admin) -> str | None:
    try:
        root = admin.issuers.root_of(admin.issuers.active())
    except Problem:  # no issuer is in use: the key is good all the same
        return None
    return None if root is None else root.fingerprint


def _certbot_challenge(admin: Admin, domains: tuple[str, ...]) -> list[str]:
    if _has_wildcard(domains):
        return ["--manual", "--preferred-challenges", "dns"]
    port = [] if admin.http01_port == HTTP else ["--http-01-port", str(admin.http01_port)]
    return ["--standalone", *port, "--non-interactive"]


def _lego_challenge(admin: Admin, domains: tuple[str, ...]) -> list[str]:
    if _has_wildcard(domains):
        return ["--dns", "manual"]
    return ["--http"] if admin.http01_port == HTTP else ["--http", "--http.port", f":{admin.http01_port}"]


def _has_wildcard(domains: tuple[str, ...]) -> bool:
    return any(domain.startswith("*.") for domain in domains)


def _names(domains: tuple[str, ...], *, name: str, address: str) -> str:
    """Options."""
    kinds = {IdentifierType.DNS: name, IdentifierType.IP: address}
    return " ".join(f"{kinds[identifier_of(domain).type]} {shlex.quote(domain)}" for domain in domains)


ROUTES = (
    Route(
        name="services.register",
        method="POST",
        path="/services/register",
        permission=Permission.SERVICES_WRITE,
        endpoint=register,
        body=NewService,
        answer=Registered,
        status=201,
        scoped=True,
        conflicts=True,
        summary="Register a service, and get the line that sets up its ACME client.",
    ),
    Route(
        name="services.list",
        method="GET",
        path="/services",
        permission=Permission.SERVICES_READ,
        endpoint=list_services,
        query=ServiceQuery,
        answer=Page[ServiceView],
        scoped=True,
        summary="The services, by their ids.",
    ),
    Route(
        name="services.show",
        method="GET",
        path="/services/{service_id}",
        permission=Permission.SERVICES_READ,
        endpoint=show,
        answer=ServiceView,
        scoped=True,
        summary="One of them.",
    ),
    Route(
        name="services.change",
        method="PUT",
        path="/services/{service_id}",
        permission=Permission.SERVICES_WRITE,
        endpoint=change,
        body=Service,
        answer=ServiceView,
        scoped=True,
        conflicts=True,
        summary="Replace what is known of a service. Its EAB keys keep the domains that they were made for.",
    ),
    Route(
        name="services.approve",
        method="POST",
        path="/services/{service_id}/approve",
        permission=Permission.SERVICES_APPROVE,
        endpoint=approve,
        answer=ServiceView,
        conflicts=True,
        summary="Let a service have certificates; also one that was retired.",
    ),
    Route(
        name="services.retire",
        method="DELETE",
        path="/services/{service_id}",
        permission=Permission.SERVICES_WRITE,
        endpoint=retire,
        query=RetirementQuery,
        answer=Retired,
        scoped=True,
        dangerous=True,
        is_harmless=lambda call: not call.query.revoke_certificates,
        conflicts=True,
        summary="Retire a service: its EAB keys are revoked and their accounts frozen.",
    ),
    Route(
        name="services.make-eab-key",
        method="POST",
        path="/services/{service_id}/eab-keys",
        permission=Permission.EAB_WRITE,
        endpoint=make_eab_key,
        answer=EabLines,
        status=201,
        scoped=True,
        conflicts=True,
        summary="Another EAB key for the service, limited to its domains, with the lines that use it.",
    ),
)
