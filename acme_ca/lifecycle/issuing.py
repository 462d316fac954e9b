"""Certificates that operators have issued, without an order: for a service that speaks no ACME, or for themselves.

The same rules hold as for orders, in the same functions: the name policy, the profile, the issuer's constraints, the
key, and the linter on the bytes that will be signed (lesson 2). What is not asked for is a proof of the names: the
operator vouches for them, by name, in the certificate's row and in the audit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from cryptography import x509

from acme_ca.ca import keystore, lint, profiles
from acme_ca.ca.authority import Authority, key_out_of_reach
from acme_ca.ca.issuers import Issuer
from acme_ca.ca.keystore import KeyKind, KeyUnavailable, PrivateKey
from acme_ca.ca.policies import Policies, unreadable
from acme_ca.ca.profiles import Profiles
from acme_ca.ca.served import Issuers
from acme_ca.core import csr, keys
from acme_ca.core.actors import Actor
from acme_ca.core.certificates import Certificate, IssuanceRequest, LintedCertificate
from acme_ca.core.codes import Code
from acme_ca.core.csr import CertificateRequest
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import Serial
from acme_ca.core.keys import KeyAlgorithm, PublicKey
from acme_ca.core.policy import NamePolicy
from acme_ca.core.problems import ErrorType, Problem, compound, conflict, malformed, not_found
from acme_ca.core.profiles import Profile
from acme_ca.core.services import Service, ServiceId
from acme_ca.core.states import ServiceState
from acme_ca.core.weakkeys import WeakKeys
from acme_ca.storage import certificates, services
from acme_ca.storage import keys as key_store
from acme_ca.storage.database import Database

Names = tuple[Identifier, ...]

MADE_HERE = {
    KeyAlgorithm.EC_P256: KeyKind.EC_P256,
    KeyAlgorithm.EC_P384: KeyKind.EC_P384,
    KeyAlgorithm.RSA: KeyKind.RSA_2048,
}
"""The kinds of keys that the server makes, the first that a profile allows when none is asked for."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that the server makes. `kind` None: the profile decides."""

    kind: KeyKind | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What an operator wants."""

    names: Names
    """Empty: those of the request."""
    key: CertificateRequest | NewKey
    profile: str | None = None
    """None: the one of orders that ask for none."""
    service: ServiceId | None = None
    days: int | None = None
    """How long it shall live; None: as long as the profile gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    certificate: Certificate
    chain_pem: bytes
    """Of its issuer, without the root."""
    key: PrivateKey | None = field(repr=False)
    """The one that was made here. Nothing else has it: not a file, not the database, not the log."""


class Issuing:
    def __init__(
        self,
        *,
        database: Database,
        authority: Authority,
        issuers: Issuers,
        profiles: Profiles,
        default_profile: str,
        policies: Policies,
        weak_keys: WeakKeys,
        clock: Callable[[], datetime],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._database = database
        self._authority = authority
        self._issuers = issuers
        self._profiles = profiles
        self._default_profile = default_profile
        self._policies = policies
        self._weak_keys = weak_keys
        self._clock = clock
        self._log = log

    async def issue(self, wish: Wish, *, actor: Actor, privileged: bool = False) -> Issued:
        """`privileged`: profiles that no client can order may be used, too.

        Raises Problem for everything that an order would be refused for; nothing is recorded then.
        """
        names = _wanted(wish.names, wish.key)
        profile = await self._profile(wish.profile or self._default_profile, privileged=privileged)
        await self._check_names(names, profile, wish.service)
        public_key, key = await _keys(wish.key, profile)
        return await self._certify(
            names, profile, public_key, key=key, service=wish.service, days=wish.days, actor=actor
        )

    async def renew(
        self,
        serial: Serial,
        key: CertificateRequest | NewKey | None,
        *,
        days: int | None,
        actor: Actor,
        privileged: bool = False,
    ) -> Issued:
        """Another certificate with the names, the service and the profile (its newest version) of this one. `key` None:
        it holds the key of the old one.

        Raises Problem as `issue`; `not-found`, and `conflict` for one that is revoked or was never signed.
        """
        old = await self.renewable(serial)
        profile = await self._profile(old.profile.name, privileged=privileged)
        service = ServiceId(old.service) if old.service is not None else None
        names = old.identifiers if key is None else _wanted(old.identifiers, key)
        await self._check_names(names, profile, service)
        public_key, private_key = (_key_of(old), None) if key is None else await _keys(key, profile)
        return await self._certify(
            names, profile, public_key, key=private_key, service=service, days=days, actor=actor
        )

    async def renewable(self, serial: Serial) -> Certificate:
        """Raises Problem: `not-found`; `conflict` for one that is revoked or was never signed."""
        found = await certificates.find(self._database, serial)
        if found is None:
            raise not_found("There is no certificate with this serial number.")
        if found.revoked is not None or found.der is None:
            what = "was never signed" if found.der is None else "is revoked or on hold"
            raise conflict(f"The certificate {what}: issue another instead.")
        return found

    async def current(self, service: ServiceId) -> Serial:
        """The certificate that a service has. Raises Problem: `not-found`, and `conflict` when it has several."""
        living = await certificates.newest_of_service(self._database, service, now=self._clock())
        if not living:
            raise not_found("The service has no living certificate to renew.")
        if len(living) > 1:
            shown = ", ".join(certificate.serial for certificate in living[:5])
            raise conflict(
                f"The service has {len(living)} certificates for different names: name the one to renew by its serial, "
                f"such as {shown}."
            )
        return living[0].serial

    # ------------------------------------------------------------ what can be refused

    async def _profile(self, name: str, *, privileged: bool) -> Profile:
        profile = await self._profiles.choose_unordered(name)
        if not profile.offered and not privileged:
            raise Problem(
                ErrorType.UNAUTHORIZED,
                f"The profile {name} is not offered to clients: certificates of it are for administrators to issue.",
                code=Code.FORBIDDEN,
            )
        return profile

    async def _check_names(self, names: Names, profile: Profile, service: ServiceId | None) -> None:
        refused = self._policies.of_service(service).violations(names)
        refused += profile.name_violations(names)
        refused += self._issuers.active().refused(names)
        if service is not None:
            refused += _not_of(await self._approved(service), names)
        if refused:
            raise compound(refused)
        if profile.allowed_services or profile.allowed_eab_keys:
            _check_entitled(profile, service)

    async def _approved(self, service: ServiceId) -> Service:
        found = await services.find(self._database, service)
        if found is None:
            raise not_found("There is no such service: register it first.")
        if found.state is not ServiceState.APPROVED:
            raise _not_approved(found.state)
        if not found.readable:
            raise unreadable()
        return found.service

    def _check_key(self, public_key: PublicKey, profile: Profile) -> None:
        keys.check_certificate_key(public_key, profile)
        self._weak_keys.check(public_key, ErrorType.BAD_CSR)

    # ------------------------------------------------------------ the acts

    async def _certify(
        self,
        names: Names,
        profile: Profile,
        public_key: PublicKey,
        *,
        key: PrivateKey | None,
        service: ServiceId | None,
        days: int | None,
        actor: Actor,
    ) -> Issued:
        """Prepare, lint, record, sign, store: as for orders."""
        self._check_key(public_key, profile)
        issuer = self._issuers.active()
        request = IssuanceRequest(
            identifiers=names,
            public_key=public_key,
            profile=profile,
            issuer=issuer.id,
            shard=issuer.open_shard,
            not_before=None,
            not_after=None if days is None else _end(self._clock(), days),
        )
        linted = self._lint(request, issuer, self._policies.of_service(service))
        recorded = await certificates.record_for_operator(
            self._database,
            linted,
            spki_sha256=keys.spki_sha256(public_key),
            service=service,
            requested_by=actor.name,
            now=self._clock(),
        )
        if recorded is None:
            raise await self._why_not(public_key, service)
        try:
            signed = await self._authority.sign(recorded)
        except KeyUnavailable as error:
            self._log.error("a key is out of reach", issuer=issuer.id, reason=str(error))
            await certificates.leave_unsigned(self._database, recorded.serial, actor=actor, now=self._clock())
            raise key_out_of_reach() from None
        await certificates.store(self._database, signed, now=self._clock(), source=actor.source)
        stored = await certificates.find(self._database, recorded.serial)
        assert stored is not None, "rows of certificates are never deleted"  # noqa: S101
        return Issued(certificate=stored, chain_pem=issuer.chain_pem, key=key)

    def _lint(self, request: IssuanceRequest, issuer: Issuer, policy: NamePolicy) -> LintedCertificate:
        prepared = self._authority.prepare(request)
        try:
            return lint.lint(prepared, policy=policy, issuer=issuer, now=self._clock())
        except lint.LintError as error:
            self._log.error("the linter refused a certificate", findings=error.findings)
            raise Problem(
                ErrorType.SERVER_INTERNAL,
                "The certificate failed this CA's own checks and was not signed: its log says which.",
            ) from None

    async def _why_not(self, public_key: PublicKey, service: ServiceId | None) -> Problem:
        if objection := await key_store.objection(self._database, keys.spki_sha256(public_key)):
            return Problem(ErrorType.BAD_CSR, f"The key is refused: {objection}.")
        if service is not None:
            await self._approved(service)
        await self._issuers.refresh()
        await self._profiles.refresh()
        return conflict("The issuer was retired, or the profile withdrawn, just now: try again.")


def _wanted(names: Names, key: CertificateRequest | NewKey) -> Names:
    """Raises Problem for none, and unless a request has just these."""
    if isinstance(key, CertificateRequest):
        names = names or tuple(sorted(key.identifiers))
        csr.check_names(key, names)
    if not names:
        raise malformed("There are no names for the certificate.", code=Code.FIELD_INVALID)
    return tuple(dict.fromkeys(names))


async def _keys(key: CertificateRequest | NewKey, profile: Profile) -> tuple[PublicKey, PrivateKey | None]:
    if isinstance(key, CertificateRequest):
        return key.public_key, None
    made = await asyncio.to_thread(keystore.generate, key.kind or _usual_kind(profile))
    return made.public_key(), made


def _usual_kind(profile: Profile) -> KeyKind:
    made = next((kind for algorithm, kind in MADE_HERE.items() if algorithm in profile.key_algorithms), None)
    if made is None:
        raise malformed(f"This server makes no keys for the profile {profile.name}: send a CSR.")
    return KeyKind.RSA_4096 if made is KeyKind.RSA_2048 and profile.min_rsa_bits > 2048 else made  # noqa: PLR2004


def _not_of(service: Service, names: Names) -> list[Problem]:
    rules = service.name_rules  # none: without a proof of control, no name is good
    return [
        Problem(
            ErrorType.REJECTED_IDENTIFIER,
            f"{name.value} is none of the domains of the service {service.service_id}.",
            identifier=name,
            code=Code.NAME_NOT_OF_SERVICE,
        )
        for name in names
        if not any(rule.matches(name) for rule in rules)
    ]


def _check_entitled(profile: Profile, service: ServiceId | None) -> None:
    if service not in profile.allowed_services:
        raise Problem(
            ErrorType.INVALID_PROFILE,
            f"The profile {profile.name} is for certain services and EAB keys: name one of these services.",
            code=Code.PROFILE_NOT_ALLOWED,
        )


def _not_approved(state: ServiceState) -> Problem:
    return conflict(
        f"The service is {state}: only approved ones have certificates.", Code.SERVICE_NOT_APPROVED
    )


def _end(now: datetime, days: int) -> datetime:
    """Both ends belong to the validity (RFC 5280 §4.1.2.5), as `profiles.validity` counts."""
    begin = now.replace(microsecond=0) - profiles.BACKDATING
    return begin + timedelta(days=days) - profiles.SECOND


def _key_of(certificate: Certificate) -> PublicKey:
    assert certificate.der is not None, "asked for of signed ones only"  # noqa: S101
    key = x509.load_der_x509_certificate(certificate.der).public_key()
    assert isinstance(key, PublicKey)  # noqa: S101
    return key
