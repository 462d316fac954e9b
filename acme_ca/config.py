"""Every setting, checked at the start: defaults < TOML file < environment `ACME_CA_*`.

A nested setting is written with two underscores: `ACME_CA_VALIDATION__HTTP01_PORT`. Lists are comma-separated in the
environment. The TOML file is named by `ACME_CA_CONFIG` or `--config`.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from acme_ca.core import identifiers
from acme_ca.core.challenges import ChallengeType
from acme_ca.core.identifiers import Identifier, Network
from acme_ca.core.limits import Grouping, Limit, LimitKind
from acme_ca.core.names import NameRuleText
from acme_ca.core.policy import NamePolicy
from acme_ca.core.problems import Problem
from acme_ca.core.texts import web_address

ENV_PREFIX = "ACME_CA_"

_DATABASE_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:,/?@]*)(?::\d+)?"
_DATABASE_URL = re.compile(
    rf"postgres(?:ql)?://(?:[^/]*@)?{_DATABASE_HOST}(?:,{_DATABASE_HOST})*(?:[/?].*)?", re.ASCII | re.DOTALL
)


class ConfigurationError(Exception):
    """The start cannot go on: one sentence that names the setting. The command ends with status 2."""


# ---------------------------------------------------------------- kinds of values


def _split(value: Any) -> Any:
    return [part for raw in value.split(",") if (part := raw.strip())] if isinstance(value, str) else value


def _domain(value: str) -> str:
    try:
        suffix = identifiers.dns(value.removeprefix("."))
    except Problem as problem:
        raise ValueError(problem.detail) from None
    if suffix.wildcard:
        raise ValueError(f"{value!r} is a wildcard; write {suffix.base}, which means it and all names below")
    return suffix.value


def _is_true(value: Any) -> bool:
    """As pydantic reads a setting that is on or off."""
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError:
        return False


class Endpoint(BaseModel):
    """`host:port`, `[v6]:port`."""

    model_config = ConfigDict(frozen=True)

    host: str
    port: int = Field(ge=1, le=65535)

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\]:(\d+)|([^:\[\]]+):(\d+)", value)
        if not match:
            raise ValueError(f"{value!r} is not host:port")
        return {"host": match[1] or match[3], "port": int(match[2] or match[4])}

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class AddressEndpoint(Endpoint):
    """`address:port`: no name, so that nothing has to be resolved."""

    @field_validator("host")
    @classmethod
    def _is_address(cls, host: str) -> str:
        return str(ipaddress.ip_address(host))


def _zoned(value: Any) -> Any:
    """`[zone=]address:port` in the comma list → {"zone": …, "server": …}."""
    if not isinstance(value, str):
        return value
    zone, equals, server = value.rpartition("=")
    return {"zone": zone if equals else "", "server": server}


class Resolver(BaseModel):
    """A DNS server, for the names under `zone` (empty: for all others)."""

    model_config = ConfigDict(frozen=True)

    zone: str = ""
    server: AddressEndpoint

    @field_validator("zone")
    @classmethod
    def _canonical_zone(cls, zone: str) -> str:
        return _domain(zone) if zone else ""


Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_split)]
Domains = Annotated[tuple[Annotated[str, BeforeValidator(_domain)], ...], NoDecode, BeforeValidator(_split)]
Resolvers = Annotated[
    tuple[Annotated[Resolver, BeforeValidator(_zoned)], ...], NoDecode, BeforeValidator(_split)
]
Challenges = Annotated[tuple[ChallengeType, ...], NoDecode, BeforeValidator(_split)]
Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split)]
NameRuleList = Annotated[tuple[NameRuleText, ...], NoDecode, BeforeValidator(_split)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86400)]


def _limit(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return Limit.parse(value) if value.strip() else None


LimitText = Annotated[Limit | None, NoDecode, BeforeValidator(_limit)]
"""`300/3h`; empty: no limit."""


Url = Annotated[str, AfterValidator(web_address)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------- the sections


class ValidationSettings(Section):
    """How control of identifiers is proved."""

    http01_port: Port = 80
    tlsalpn01_port: Port = 443
    redirect_ports: Annotated[tuple[Port, ...], NoDecode, BeforeValidator(_split)] = ()
    """Ports that an http-01 redirect may go to beside 80, 443 and `http01_port`."""
    resolvers: Resolvers = ()
    """`host:port`, or `zone=host:port` for the names under a zone. Empty: the system's resolvers."""
    allow_networks: Networks = ()
    """Networks that validators may dial beyond the default (all unicast but loopback and link-local)."""
    refuse_networks: Networks = ()
    """Networks that validators never dial; wins over `allow_networks`."""
    challenges: Challenges = tuple(ChallengeType)
    timeout: Seconds = 10.0
    """Of one validation attempt, all its connections and DNS queries together."""
    attempts: Annotated[int, Field(ge=1, le=10)] = 2
    """How often a validation that failed to reach the client is tried."""
    retry_delay: Seconds = 2.0
    authorization_lifetime: Seconds = 7 * 86400.0
    """How long an unanswered authorization and its order stay open."""
    reuse: Annotated[float, Field(ge=0)] = 86400.0
    """How long a valid authorization is good for (further) orders of its account; 0: for its own order only."""
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Validations under way at once in one worker."""

    @field_validator("challenges")
    @classmethod
    def _some_challenge(cls, value: tuple[ChallengeType, ...]) -> tuple[ChallengeType, ...]:
        if not value:
            raise ValueError("name at least one challenge type")
        return value


class CaaSettings(Section):
    """CAA records (RFC 8659, RFC 8657)."""

    enabled: bool = True
    identities: Domains = ()
    """The issuer domain names that mean this CA. Empty: the host of `public_url`."""
    exempt_domains: Domains | None = None
    """Suffixes whose CAA records are not asked for. None: `policy.allowed_domains`, the operator's own; empty: no name is exempt."""


class PolicySettings(Section):
    """Which names may be issued at all."""

    allowed_domains: Domains = ()
    denied_domains: Domains = ()
    allowed_ip_networks: Networks = ()

    def name_policy(self) -> NamePolicy:
        return NamePolicy.of_settings(
            allowed_domains=self.allowed_domains,
            denied_domains=self.denied_domains,
            allowed_ip_networks=self.allowed_ip_networks,
        )


class CrlSettings(Section):
    """Certificate revocation lists (RFC 5280 §5). All but sizes in seconds."""

    lifetime: Seconds = 7 * 86400.0
    """From thisUpdate to nextUpdate: how long relying parties may go by a CRL when no newer one can be had."""
    refresh: Seconds = 3600.0
    """How old a CRL gets when nothing is revoked."""
    delta_lifetime: Seconds = 86400.0
    """As `lifetime`, of delta CRLs."""
    delta_base: Seconds = 86400.0
    """How long deltas refer to the same full CRL, so how much they collect."""
    root_lifetime: Seconds = 180 * 86400.0
    """As `lifetime`, of a root's CRL; it is signed again in the second half of it."""
    max_age: Annotated[int, Field(ge=0, le=86400)] = 60
    """How long HTTP caches may keep a CRL without asking again."""
    shard_budget: Annotated[int, Field(ge=1000)] = 1_000_000
    """Bytes of a shard's CRL if all its certificates were revoked: then the next shard is opened."""

    @model_validator(mode="after")
    def _refreshed_in_time(self) -> Self:
        if not self.refresh < self.delta_lifetime <= self.lifetime:
            raise ValueError("a CRL is refreshed before its delta ends, and that ends no later than the CRL")
        return self


class NonceSettings(Section):
    lifetime: Annotated[int, Field(ge=10, le=86400)] = 3600
    """Seconds."""


class OcspSettings(Section):
    """Answers about the status of certificates (RFC 6960)."""

    lifetime: Annotated[float, Field(ge=60, le=5 * 86400)] = 6 * 3600.0
    """Seconds that an answer is good for; a client that keeps it may take a revoked certificate for so long."""
    max_age: Annotated[float, Field(ge=0, le=86400)] = 60.0
    """Seconds that HTTP caches may keep an answer before they ask again."""
    kept: Annotated[int, Field(ge=0, le=10_000_000)] = 10_000
    """Signed answers that each worker keeps, 2 KB each."""


class ServiceSettings(Section):
    approval_required: bool = False
    """A service that registers waits for an administrator before it may have certificates."""


class AdminSettings(Section):
    """The operator's door."""

    socket: Path | None = None
    """The Unix socket for commands on this machine, mode 0600. None: `admin.sock` in the data directory."""
    listen: Annotated[Endpoint, NoDecode] | None = None
    """Beside the https listener: the API for client certificates of profile `operator`. None: no such listener."""
    two_person: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ()
    """Names of dangerous acts that a second person must approve, as docs/api.md lists them; `all` means each."""
    approval_lifetime: Seconds = 86400.0
    """How long an act waits for the second person."""


class AuditSettings(Section):
    """The audit trail, handed on: docs/audit.md."""

    syslog: str | None = None
    """`udp://host:514`, `tcp://host:601` or `unix:/dev/log`: every event as a message of RFC 5424."""
    webhook_url: Url | None = None
    """http or https: events are sent there, as JSON lines. Redirects are not followed."""
    webhook_secret: SecretStr | None = None
    """Signs what is sent (HMAC-SHA256). At least 16 characters."""
    webhook_allow_networks: Networks = ()
    """Networks that the webhook may be in beyond the default (all unicast but loopback and link-local)."""

    @field_validator("syslog")
    @classmethod
    def _syslog(cls, value: str | None) -> str | None:
        if value is not None and not _SYSLOG.fullmatch(value):
            raise ValueError("it is not of the form udp://host:port, tcp://host:port or unix:/path")
        return value

    @field_validator("webhook_url")
    @classmethod
    def _without_fragment(cls, value: str | None) -> str | None:
        return None if value is None else value.partition("#")[0]

    @field_validator("webhook_secret")
    @classmethod
    def _secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < _SHORTEST_SECRET:
            raise ValueError(f"it has fewer than {_SHORTEST_SECRET} characters")
        return value


_SYSLOG = re.compile(r"(udp|tcp)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[1-9]\d{0,4}|unix:/[^\0]+")
_SHORTEST_SECRET = 16


class LimitSettings(Section):
    """How much anyone may ask for: `300/3h` is 300 at once, and 300 in each 3 hours. Empty: any number."""

    orders_per_account: LimitText = Limit(10_000, timedelta(hours=1))
    """Orders, authorizations asked for without one, and changes of the account's contacts and key."""
    orders_per_eab_key: LimitText = None
    """Orders and authorizations asked for without one, of all accounts of an EAB key."""
    orders_per_network: LimitText = None
    """Orders, authorizations asked for without one, and changes of accounts, from one network."""
    certificates_per_eab_key: LimitText = None
    """Certificates of all accounts of an EAB key."""
    certificates_per_name_set: LimitText = Limit(300, timedelta(days=1))
    """Certificates for exactly the same names, whoever asks."""
    certificates_per_registered_name: LimitText = None
    """Certificates for names under one: the name right below a domain of `policy.allowed_domains`, else the last two labels."""
    accounts_per_network: LimitText = Limit(10_000, timedelta(hours=1))
    """New accounts from one network."""
    network_v4: Annotated[int, Field(ge=8, le=32)] = 32
    """Bits of an IPv4 address that make its network."""
    network_v6: Annotated[int, Field(ge=16, le=128)] = 48
    """Bits of an IPv6 address that make its network."""
    failures_before_pause: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """Failed validations of an account for a name, none of them a day after the one before, until it is paused for that name; 0: never."""
    help_url: Url | None = None
    """URL of a page about your limits, for those who meet one."""

    def of_kinds(self) -> dict[LimitKind, Limit]:
        """Those that are on."""
        limits = {kind: getattr(self, kind.setting) for kind in LimitKind}
        return {kind: limit for kind, limit in limits.items() if limit is not None}


class TestSettings(Section):
    """Misbehaviour on request, for tests of clients. Refused without `--dev`."""

    reject_nonces: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of good nonces that are answered with badNonce."""
    delay_issuance: Annotated[float, Field(ge=0, le=300)] = 0.0
    """Seconds that an order stays `processing`."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", validate_default=True
    )

    dev: bool = False
    """Development mode: other default ports of the validators, `.localhost` means loopback. Said loudly."""
    data: Path = Path("data")
    """Directory of the keys, the server's own certificate and the embedded database."""
    database_url: SecretStr | None = None
    """An external PostgreSQL (15 or later), `postgresql://…`. None: the embedded one."""
    database_connections: Annotated[int, Field(ge=1, le=200)] = 8
    """Connections of one worker."""
    https_listen: Annotated[Endpoint, NoDecode] = Endpoint(host="127.0.0.1", port=8443)
    http_listen: Annotated[Endpoint, NoDecode] = Endpoint(host="127.0.0.1", port=8080)
    public_url: str = "https://localhost:8443"
    """The base of every ACME URL; its host is in the server's own certificate."""
    public_http_url: str = "http://localhost:8080"
    """The base of the addresses in certificates (AIA)."""
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        default_factory=lambda: max(1, min(4, (os.cpu_count() or 1) // 2))
    )
    """Processes that serve. Half the processors, four at most: PostgreSQL needs the others as much."""
    ca_password: SecretStr | None = None
    ca_password_file: Path | None = None
    eab_required: bool = False
    eab_exempt_names: NameRuleList = ()
    """Where EAB is required: names that accounts without an EAB key may have all the same, as `suffix:dev.vcc.internal`."""
    weak_keys_files: Paths = ()
    """Published lists of weak keys: the form of Debian's openssl-blacklist, or SHA-256 of keys in hexadecimal."""
    trusted_proxies: Networks = ()
    """Networks of proxies whose X-Forwarded-For is believed; nobody else's is."""
    terms_of_service: Url | None = None
    """URL. When set, newAccount must agree to it."""
    website: Url | None = None
    default_profile: str = "server"
    max_identifiers: Annotated[int, Field(ge=1, le=100)] = 100
    max_contacts: Annotated[int, Field(ge=0, le=100)] = 10
    orders_page: Annotated[int, Field(ge=1, le=1000)] = 100
    shutdown_grace: Seconds = 10.0
    """Seconds that requests and validations under way get to finish after SIGTERM."""
    retention: Seconds = 30 * 86400.0
    """How long dead orders and authorizations are kept, with their validation records."""
    evidence_retention: Seconds = 400 * 86400.0
    """How long that is kept which a certificate was issued on: its order, the authorizations and their records."""

    validation: ValidationSettings = ValidationSettings()
    caa: CaaSettings = CaaSettings()
    policy: PolicySettings = PolicySettings()
    nonce: NonceSettings = NonceSettings()
    crl: CrlSettings = CrlSettings()
    ocsp: OcspSettings = OcspSettings()
    services: ServiceSettings = ServiceSettings()
    admin: AdminSettings = AdminSettings()
    limits: LimitSettings = LimitSettings()
    audit: AuditSettings = AuditSettings()
    test: TestSettings = TestSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings
        toml = os.environ.get(ENV_PREFIX + "CONFIG")
        file = (TomlConfigSettingsSource(settings_cls, Path(toml)),) if toml else ()
        return (init_settings, env_settings, *file)

    @field_validator("public_url", "public_http_url")
    @classmethod
    def _base_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if (
            parts.scheme not in {"http", "https"}
            or not parts.hostname
            or parts.query
            or parts.fragment
            or parts.path not in {"", "/"}
        ):
            raise ValueError(f"{value!r} is not of the form https://host[:port]")
        return value.rstrip("/")

    @field_validator("public_url")
    @classmethod
    def _https(cls, value: str) -> str:
        if not value.startswith("https://"):
            raise ValueError("ACME is spoken over https only (RFC 8555 §6.1)")
        return value

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _DATABASE_URL.fullmatch(value.get_secret_value()):
            raise ValueError("it is not of the form postgresql://user:password@host:port/database")
        return value

    @model_validator(mode="before")
    @classmethod
    def _dev_defaults(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not _is_true(value.get("dev")):
            return value
        validation = {"http01_port": 5002, "tlsalpn01_port": 5001} | dict(value.get("validation") or {})
        return {**value, "validation": validation}

    @model_validator(mode="after")
    def _test_settings_need_dev(self) -> Self:
        if not self.dev and self.test != TestSettings():
            raise ValueError(
                "ACME_CA_TEST__… make the server misbehave and need the development mode (--dev)"
            )
        return self

    @model_validator(mode="after")
    def _evidence_outlives_the_dead(self) -> Self:
        if self.evidence_retention < self.retention:
            raise ValueError("ACME_CA_EVIDENCE_RETENTION: it must not be less than ACME_CA_RETENTION")
        return self

    @property
    def wants_every_account_bound(self) -> bool:
        return self.eab_required and not self.eab_exempt_names

    def own_identifier(self) -> Identifier:
        """The name or address in `public_url`, for the server's own certificate. Raises ConfigurationError."""
        host = self.public_host
        is_address = ":" in host or host.replace(".", "").isdigit()
        try:
            return identifiers.ip(host) if is_address else identifiers.dns(host)
        except Problem as problem:
            raise ConfigurationError(f"ACME_CA_PUBLIC_URL: {problem.detail}") from None

    @property
    def public_host(self) -> str:
        return urlsplit(self.public_url).hostname or ""

    @property
    def tls_file(self) -> Path:
        """The server's own TLS key and chain."""
        return self.data / "tls" / "server.pem"

    @property
    def grouping(self) -> Grouping:
        """What counts as one network and one registered name."""
        return Grouping(
            v4_prefix=self.limits.network_v4,
            v6_prefix=self.limits.network_v6,
            domains=self.policy.allowed_domains,
        )

    @property
    def audit_checkpoint(self) -> Path:
        """The newest checkpoint of the audit. No backup holds it: it may be newer than the database that comes back."""
        return self.data / "audit-checkpoint.txt"

    @property
    def caa_identities(self) -> tuple[str, ...]:
        """What CAA records call this CA; nothing when `public_url` has an address: records then name it in vain."""
        if self.caa.identities:
            return self.caa.identities
        try:
            return (identifiers.dns(self.public_host).value,)
        except Problem:
            return ()

    @property
    def caa_exempt(self) -> tuple[str, ...]:
        """Suffixes for which no CAA record is asked."""
        own = self.policy.allowed_domains if self.caa.exempt_domains is None else self.caa.exempt_domains
        return (*own, "localhost") if self.dev else own


def load(**overrides: Any) -> Settings:
    """The settings; `overrides` are the command line's, above all. Raises ConfigurationError."""
    toml = os.environ.get(ENV_PREFIX + "CONFIG")
    if toml and not Path(toml).is_file():
        raise ConfigurationError(f"{ENV_PREFIX}CONFIG names {toml}, which is no file.")
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise ConfigurationError(_sentence(error)) from None
    except SettingsError as error:  # a section given as one value
        section = str(error).partition('"')[2].partition('"')[0]
        raise ConfigurationError(
            f"{(ENV_PREFIX + section).upper()}: this names a group of settings; set them one by one, as in "
            f"{(ENV_PREFIX + section).upper()}__…."
        ) from None
    except ValueError as error:
        raise ConfigurationError(
            f"ACME_CA_CONFIG: {toml} is no TOML file in UTF-8: {str(error).rstrip('.')}."
        ) from None


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    what = _OF_KIND.get(first["type"]) or first["msg"].removeprefix("Value error, ").rstrip(".")
    name = "__".join(_setting(first["loc"]))
    return f"{(ENV_PREFIX + name).upper()}: {what}." if name else f"{what}."


_OF_KIND = {
    "extra_forbidden": "there is no such setting",
    "model_type": "this names a group of settings; set them one by one",
    "missing": "this is missing",
}
"""Sentences that say more to an operator than pydantic's."""


def _setting(place: tuple[int | str, ...]) -> Iterator[str]:
    """The parts of a setting's name; what lies deeper in its value has no name of its own."""
    section: Any = Settings
    for part in place:
        yield str(part)
        field = section.model_fields.get(part)
        section = field.annotation if field else None
        if not (isinstance(section, type) and issubclass(section, Section)):
            return


# ---------------------------------------------------------------- beside the values

LEGACY_PASSWORD = "VCC_CA_PASSWORD"  # noqa: S105  the name of a variable
_NO_SETTINGS = frozenset(
    ENV_PREFIX + name for name in ("CONFIG", "IMPORT_PASSWORD", "REQUIRE_CLIENTS", "SERVER", "TOKEN")
)
"""Read by commands and scripts."""


def ca_password(settings: Settings) -> SecretStr | None:
    """The password of the CA keys: the setting, the first line of its file, or VCC_CA_PASSWORD; None when none is set.

    Raises ConfigurationError for a file that cannot be read or is empty.
    """
    if settings.ca_password is not None:
        return settings.ca_password
    if settings.ca_password_file is not None:
        return SecretStr(_first_line(settings.ca_password_file, setting="ACME_CA_CA_PASSWORD_FILE"))
    legacy = os.environ.get(LEGACY_PASSWORD)
    return SecretStr(legacy) if legacy else None


def _first_line(path: Path, *, setting: str) -> str:
    try:
        line = path.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except OSError as error:
        raise ConfigurationError(f"{setting}: {path} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{setting}: {path} is no text in UTF-8.") from None
    if not line:
        raise ConfigurationError(f"{setting}: the first line of {path} is empty; it must hold the password.")
    return line


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Those of the environment's names that begin as settings do but name none: probably a slip of the pen."""
    known = {ENV_PREFIX + name.upper() for name in _variable_names(Settings)} | _NO_SETTINGS
    return sorted(name for name in names if name.upper().startswith(ENV_PREFIX) and name.upper() not in known)


def _variable_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _variable_names(field.annotation, prefix + name + "__")
