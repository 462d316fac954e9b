"""The built-in profiles, the ones that this process knows, and how long a certificate of a profile lives."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from acme_ca.core import actors
from acme_ca.core.keys import KeyAlgorithm
from acme_ca.core.problems import ErrorType, Problem, malformed
from acme_ca.core.profiles import ExtendedKeyUsage, KeyUsage, Profile, ProfileRef
from acme_ca.refreshing import Refresh
from acme_ca.storage import profiles as store
from acme_ca.storage.database import Database

BACKDATING = timedelta(minutes=1)
"""By how much a certificate begins before it is made: clients' clocks are late."""
MAX_BACKDATING = timedelta(hours=48)
"""How far in the past an order may wish the begin (the CA/Browser Forum's limit; an order has that long to finish)."""
MAX_POSTDATING = timedelta(days=30)
SECOND = timedelta(seconds=1)


SERVER = Profile(
    name="server",
    version=1,
    description="A TLS server.",
    validity=timedelta(days=90),
    max_validity=timedelta(days=398),
    key_algorithms=frozenset({KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384, KeyAlgorithm.RSA}),
    extended_key_usages=(ExtendedKeyUsage.SERVER_AUTH,),
)
"""The one of orders that ask for none, unless the operator chooses another."""


def _like_server(name: str, description: str, **differences: Any) -> Profile:
    """Checked like any other: a built-in profile that cannot work stops the start."""
    return Profile(**{**SERVER.model_dump(), "name": name, "description": description, **differences})


def _of_vcc(name: str, description: str, *, days: int, threshold: int, **differences: Any) -> Profile:
    return _like_server(
        name,
        description,
        validity=timedelta(days=days),
        max_validity=timedelta(days=days),
        renewal_threshold=timedelta(days=threshold),
        **differences,
    )


_SERVER, _CLIENT = ExtendedKeyUsage.SERVER_AUTH, ExtendedKeyUsage.CLIENT_AUTH
BUILT_IN: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        SERVER,
        _like_server("client", "A TLS client.", extended_key_usages=[_CLIENT]),
        _like_server(
            "mtls", "A service that is TLS server and client.", extended_key_usages=[_SERVER, _CLIENT]
        ),
        _like_server(
            "shortlived",
            "A TLS server, for seven days: too short for revocation to matter.",
            validity=timedelta(days=7),
            max_validity=timedelta(days=7),
            crl_distribution_point=False,
            ocsp=False,
            ca_issuers=False,
        ),
        _of_vcc(
            "clara_service_auth",
            "CLARA: services that authenticate to each other.",
            days=730,
            threshold=60,
            key_algorithms=[KeyAlgorithm.RSA, KeyAlgorithm.EC_P256],
            max_rsa_bits=2048,
            extended_key_usages=[_SERVER, _CLIENT],
            allowed_names=["exact:clara.vcc.internal", "wildcard:*.clara.vcc.internal"],
            compliance=["enhanced-audit"],
        ),
        _of_vcc(
            "clara_model_signing",
            "CLARA: signatures of models.",
            days=1825,
            threshold=90,
            key_algorithms=[KeyAlgorithm.RSA],
            min_rsa_bits=4096,
            max_rsa_bits=4096,
            key_usages=[KeyUsage.DIGITAL_SIGNATURE],
            extended_key_usages=[ExtendedKeyUsage.CODE_SIGNING],
            auto_renewal=False,
        ),
        _of_vcc(
            "covina_orchestrator",
            "COVINA: the orchestrator.",
            days=365,
            threshold=30,
            extended_key_usages=[_SERVER, _CLIENT],
            allowed_names=["suffix:covina.vcc.internal"],
        ),
        _of_vcc(
            "argus_api",
            "ARGUS: the programming interface.",
            days=730,
            threshold=45,
            allowed_names=["exact:argus.vcc.internal", "exact:api.argus.vcc.internal"],
        ),
        _of_vcc(
            "veritas_pipeline",
            "VERITAS: the pipeline, as a client.",
            days=365,
            threshold=30,
            extended_key_usages=[_CLIENT],
        ),
        _like_server("acme_server", "This server's own TLS certificate.", offered=False),
        _like_server(
            "ocsp_responder",
            "What this server signs its OCSP answers with.",
            offered=False,
            validity=timedelta(days=7),
            max_validity=timedelta(days=7),
            key_usages=[KeyUsage.DIGITAL_SIGNATURE],
            extended_key_usages=[ExtendedKeyUsage.OCSP_SIGNING],
            organizational_unit="OCSP responder",
            allowed_names=[],
            crl_distribution_point=False,  # nobody asks for its status (RFC 6960 §4.2.2.2.1)
            ocsp=False,
            ca_issuers=False,  # who asks for status has the issuer
        ),
        _like_server(
            "operator",
            "Operators who log in to this server's API with a certificate.",
            offered=False,
            validity=timedelta(days=30),
            max_validity=timedelta(days=90),
            extended_key_usages=[_CLIENT],
        ),
        _like_server(
            "audit_signer",
            "What this server seals its audit trail with.",
            offered=False,
            key_usages=[KeyUsage.DIGITAL_SIGNATURE],
            extended_key_usages=[ExtendedKeyUsage.AUDIT_SIGNING],
            organizational_unit="Audit signer",
            allowed_names=[],
        ),
    )
}


OWN = frozenset(name for name, profile in BUILT_IN.items() if not profile.offered)
"""What the server itself works with: no operator changes them."""
FOR_ITSELF = OWN - {"operator"}
"""Of these the server alone has certificates."""


class UnworkableProfile(Exception):  # noqa: N818  the name says it
    """What cannot be saved: sentences that say why."""


def read(document: object) -> Profile:
    """A profile from an operator's file or request; a version in it is left out of account. Raises UnworkableProfile."""
    try:
        return Profile.model_validate({**document, "version": 1} if isinstance(document, dict) else document)
    except ValidationError as error:
        reasons = (each for each in error.errors(include_url=False) if each["type"] != _FOLLOWS)
        raise UnworkableProfile(" ".join(map(_sentence, reasons))) from None


def _sentence(error: ErrorDetails) -> str:
    field = ".".join(map(str, error["loc"]))
    reason = _OF_KIND.get(error["type"]) or error["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{field}: {reason}." if field else f"{reason[:1].upper()}{reason[1:]}."


_FOLLOWS = "default_factory_not_called"
"""Says only that there is another error."""
_OF_KIND = {
    "extra_forbidden": "there is no such field",
    "missing": "this is missing",
    "model_type": "a profile is a table of fields",
}
"""Sentences that say more to an operator than pydantic's."""


async def register(database: Database, *, now: datetime) -> None:
    """Make the built-in profiles known, once for all replicas. What an operator has changed stays as it is."""
    for profile in BUILT_IN.values():
        await store.save(database, profile, built_in=True, actor=actors.SERVER, now=now)


# ---------------------------------------------------------------- the ones that this process knows


class Profiles:
    """Operators save and withdraw profiles while servers run: each process looks at the database every few seconds, and
    at once when it meets a name or a version that it does not know. Read by everyone, as of the last look.
    """

    def __init__(self, *, database: Database, log: structlog.typing.FilteringBoundLogger) -> None:
        self._database = database
        self._log = log
        self._versions: dict[ProfileRef, Profile | None] = {}
        self._newest: dict[str, Profile] = {}
        self._offered: dict[str, Profile] = {}
        self._withdrawn: frozenset[str] = frozenset()
        self.refresh = Refresh(self._look)

    async def _look(self) -> None:
        found = await store.versions(self._database)
        missing = [version.ref for version in found if version.ref not in self._versions]
        if missing:
            read = await store.bodies(self._database, missing)
            self._versions |= {ref: self._read(ref, body) for ref, body in read.items()}
        withdrawn = {version.ref.name: version.withdrawn is not None for version in found}
        self._newest = {
            version.ref.name: profile for version in found if (profile := self._versions.get(version.ref))
        }
        self._offered = {
            name: profile for name, profile in self._newest.items() if profile.offered and not withdrawn[name]
        }
        self._withdrawn = frozenset(name for name, is_so in withdrawn.items() if is_so)

    def _read(self, ref: ProfileRef, body: Mapping[str, Any]) -> Profile | None:
        """None: a later release has written it. What this one knew before stays in use beside it."""
        try:
            return Profile.model_validate(body)
        except ValidationError:
            self._log.error("a profile cannot be read by this release", profile=ref.name, version=ref.version)
            return None

    @property
    def offered(self) -> Mapping[str, Profile]:
        """What new orders may ask for, by name."""
        return self._offered

    async def choose(self, name: str) -> Profile:
        """For a new order. Raises Problem (`invalidProfile`)."""
        if name not in self._offered:
            await self.refresh()
        if name not in self._offered:
            raise Problem(
                ErrorType.INVALID_PROFILE,
                "This CA does not offer the profile: ask for one of meta.profiles in its directory.",
            )
        return self._offered[name]

    async def choose_unordered(self, name: str) -> Profile:
        """For an operator, who may also have what no client can order; but not what the server keeps for itself. Raises
        Problem (`invalidProfile`).
        """
        if name not in self._newest or name in self._withdrawn:
            await self.refresh()
        if name not in self._newest or name in self._withdrawn or name in FOR_ITSELF:
            raise Problem(
                ErrorType.INVALID_PROFILE,
                "There is no such profile, it is withdrawn, or it is the server's own: acme-ca profile list shows them.",
            )
        return self._newest[name]

    async def find(self, ref: ProfileRef) -> Profile:
        """The version that an order pins. Raises Problem (`serverInternal`) when this process cannot read it."""
        if ref not in self._versions:
            await self.refresh()
        profile = self._versions.get(ref)
        if profile is None:
            raise Problem(
                ErrorType.SERVER_INTERNAL,
                "The order's profile is of a later release than this server: finalize the order again later.",
                status=503,
                headers={"Retry-After": "60"},
            )
        return profile

    def own(self, name: str) -> Profile:
        """One of the server's own, which no order can ask for: the newest version. They are registered at the start."""
        return self._newest[name]


# ---------------------------------------------------------------- how long a certificate lives


def validity(
    profile: Profile,
    *,
    now: datetime,
    not_before: datetime | None,
    not_after: datetime | None,
    issuer_not_after: datetime,
) -> tuple[datetime, datetime]:
    """The notBefore and notAfter of a certificate made at `now`, UTC, whole seconds.

    Both ends belong to the validity (RFC 5280 §4.1.2.5): 90 days end a second before the 90th day is over. A wish of
    the order is met to the second or refused: it "MUST return an error" otherwise (RFC 8555 §7.4). Without a wish the
    profile decides, within the issuer's life. Raises `Problem`: `malformed` for a wish that cannot be met,
    `serverInternal` when the issuer has come to its end. To be asked for a new order, and again to issue.
    """
    if issuer_not_after <= now:
        raise Problem(
            ErrorType.SERVER_INTERNAL, "The CA's issuing certificate has expired; its operator must renew it."
        )
    _check_whole_seconds(not_before, "notBefore")
    _check_whole_seconds(not_after, "notAfter")
    begin = not_before or _earliest(now)
    end = not_after or min(begin + profile.validity - SECOND, issuer_not_after)
    _check_window(begin, end, now)
    for violation in length_violations(profile, now=now, not_before=not_before, not_after=not_after):
        raise violation
    if end > issuer_not_after:
        raise malformed(
            f"notAfter is after the end of the CA's issuing certificate, {issuer_not_after:%Y-%m-%dT%H:%M:%SZ}."
        )
    return begin, end


def _check_whole_seconds(wish: datetime | None, member: str) -> None:
    if wish is not None and wish.microsecond:
        raise malformed(
            f"{member} has a fraction of a second, which no certificate can hold; send whole seconds."
        )


def _check_window(begin: datetime, end: datetime, now: datetime) -> None:
    if begin < now - MAX_BACKDATING:
        raise malformed(
            f"notBefore is more than {MAX_BACKDATING // timedelta(hours=1)} hours ago; order with a later one."
        )
    if begin > now + MAX_POSTDATING:
        raise malformed(
            f"notBefore is more than {MAX_POSTDATING.days} days ahead; order nearer to that time."
        )
    if end <= begin:
        raise malformed("notAfter is not after notBefore; the certificate would never be valid.")
    if end <= now:
        raise malformed("notAfter is in the past; the certificate would be expired from the start.")


def length_violations(
    profile: Profile, *, now: datetime, not_before: datetime | None, not_after: datetime | None
) -> list[Problem]:
    """A `malformed` problem when the wishes of an order are for a longer validity than the profile gives."""
    begin = not_before or _earliest(now)
    if not_after is None or not_after - begin + SECOND <= profile.max_validity:
        return []
    return [
        malformed(
            f"From notBefore to notAfter is longer than the profile {profile.name} allows, which is "
            f"{profile.max_validity // SECOND} seconds with both ends counted; send an earlier notAfter or none."
        )
    ]


def _earliest(now: datetime) -> datetime:
    """When a certificate made at `now` begins, if nothing else is wished."""
    return now.replace(microsecond=0) - BACKDATING
