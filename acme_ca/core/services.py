"""The service registry: what is known of a service, and what follows from its registration.

The ids, the names of the fields and their meanings are those of the VCC PKI server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, NewType

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from acme_ca.core.names import NameRule, identifier_of
from acme_ca.core.states import SERVICE_TRANSITIONS, ServiceState
from acme_ca.core.texts import PRINTABLE, ShortText, WebAddress

ServiceId = NewType("ServiceId", str)

SERVICE_ID = r"^[a-z0-9][a-z0-9._-]{0,62}$"
MAX_NAMES = 100
"""As many as an order may have."""
MAX_WHOLE = 2**53 - 1
"""Beyond, JSON readers disagree about a number."""

_SERIAL = re.compile(r"[0-9a-f]{32}", re.ASCII)


def _no_serial(text: str) -> str:
    if _SERIAL.fullmatch(text):
        raise ValueError("32 hexadecimal digits are a certificate's serial number; choose another service id")
    return text


def _domain(text: str) -> str:
    """Canonical, as it stands in a certificate."""
    return identifier_of(text).value


def _none_twice(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise ValueError("one is named twice")
    return values


ServiceIdText = Annotated[str, Field(pattern=SERVICE_ID), AfterValidator(_no_serial)]
Domain = Annotated[str, Field(max_length=255), AfterValidator(_domain)]
Tag = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._:/-]{0,62}$")]
MetadataKey = Annotated[str, Field(min_length=1, max_length=100, pattern=PRINTABLE)]
MetadataValue = (
    bool
    | Annotated[int, Field(ge=-MAX_WHOLE, le=MAX_WHOLE)]
    | Annotated[float, Field(ge=-MAX_WHOLE, le=MAX_WHOLE)]
    | Annotated[str, Field(max_length=1000, pattern=PRINTABLE)]
)


class Service(BaseModel):
    """A service as its owner describes it. Shown to operators; nothing here is ever asked or fetched."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    service_id: ServiceIdText
    """What it is known by, for ever: lower-case letters, digits, `.`, `_`, `-`; no serial number."""
    name: ShortText
    """For people."""
    version: Annotated[str, Field(max_length=100, pattern=PRINTABLE)] = ""
    """Of the service's software."""
    owner: ShortText
    """Who answers for it: a person or a team."""
    contacts: tuple[ShortText, ...] = Field(default=(), max_length=20)
    """How they are reached: mail addresses, numbers, channels."""
    endpoints: tuple[WebAddress, ...] = Field(default=(), max_length=50)
    """Where it is served, http or https."""
    health_url: WebAddress | None = None
    """Where it tells of its health. This server never asks there."""
    metadata: dict[MetadataKey, MetadataValue] = Field(default_factory=dict, max_length=50)
    """Whatever else is worth knowing: text, numbers, true or false."""
    domains: Annotated[tuple[Domain, ...], AfterValidator(_none_twice)] = Field(
        default=(), max_length=MAX_NAMES
    )
    """Names and addresses that its certificates are for; with a wildcard, also the single names under it."""
    tags: Annotated[tuple[Tag, ...], AfterValidator(_none_twice)] = Field(default=(), max_length=50)
    """To find it by."""

    @property
    def name_rules(self) -> tuple[NameRule, ...]:
        """What EAB keys of the service are for; empty: the service has named no domains."""
        kinds = {True: "wildcard", False: "exact"}
        return tuple(NameRule.parse(f"{kinds[domain.startswith('*.')]}:{domain}") for domain in self.domains)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredService:
    """A service with what became of it here."""

    service: Service
    state: ServiceState
    created: datetime
    changed: datetime
    approved: datetime | None
    retired: datetime | None
    readable: bool = True
    """False: a later release described the service; all but its id is made up."""


def origins(state: ServiceState) -> list[ServiceState]:
    """The states that `state` may follow."""
    return [before for before, after in SERVICE_TRANSITIONS.items() if state in after]


def differences(before: Service, after: Service) -> dict[str, dict[str, Any]]:
    """What an audit tells of a change: of each field that is another now, both values."""
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    return {field: {"before": old[field], "after": new[field]} for field in new if old[field] != new[field]}
