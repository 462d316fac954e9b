"""Keys for external account binding (RFC 8555 §7.3.4), and what their accounts may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from acme_ca.core.codes import Code
from acme_ca.core.identifiers import Network, read_address
from acme_ca.core.ids import EabKeyId
from acme_ca.core.policy import NameRules
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.texts import ShortText


class Restrictions(BaseModel):
    """What the accounts of an EAB key may do, whether or not the server requires EAB."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    names: NameRules = NameRules()
    """Which names their orders may have, as far as server, service and profile allow them."""
    source_networks: tuple[Network, ...] = Field(default=(), max_length=200)
    """From where they may make accounts, order and finalize; none: from anywhere."""
    profiles: tuple[ShortText, ...] = Field(default=(), max_length=200)
    """Which profiles they may order; none: any. An order that asks for none gets the server's default if that is one of
    these, and the first of these otherwise."""
    orders_per_day: int | None = Field(default=None, ge=1, le=1_000_000)
    """How many orders all of them together may place; none: what the server's limits allow."""
    certificates_per_day: int | None = Field(default=None, ge=1, le=1_000_000)
    """How many certificates all of them together may get; none: what the server's limits allow."""

    def check_source(self, client: str) -> None:
        """Raises Problem (`unauthorized`) for a request from the address `client` that is in none of the networks."""
        if self.source_networks and not any(_is_in(client, network) for network in self.source_networks):
            raise Problem(
                ErrorType.UNAUTHORIZED,
                f"The EAB key of this account is not for requests from {client}: ask the CA's operator.",
                code=Code.SOURCE_NOT_ALLOWED,
            )

    def check_profile(self, profile: str) -> None:
        """Raises Problem (`invalidProfile`)."""
        if self.profiles and profile not in self.profiles:
            raise Problem(
                ErrorType.INVALID_PROFILE,
                f"The EAB key of this account is not for the profile: ask for one of {', '.join(self.profiles)}.",
                code=Code.PROFILE_NOT_ALLOWED,
            )


def _is_in(client: str, network: Network) -> bool:
    """Fail closed: what is no address is in no network."""
    address = read_address(client)
    return address is not None and address in network


UNRESTRICTED = Restrictions()


class EabKeyState(StrEnum):
    PENDING = "pending"
    """It waits for approval."""
    ACTIVE = "active"
    USED_UP = "used_up"
    """It made as many accounts as it may; they go on."""
    EXPIRED = "expired"
    """It makes no further accounts; those that it made go on."""
    REVOKED = "revoked"
    """It makes no accounts, and those that it made are frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EabKey:
    """A key for external account binding (RFC 8555 §7.3.4). `max_accounts` None: any number of accounts."""

    id: EabKeyId
    hmac_key: bytes = field(repr=False)
    owner: str
    service: str | None = None
    contact: tuple[str, ...] = ()
    max_accounts: int | None = None
    accounts: int = 0
    restrictions: Restrictions | None = UNRESTRICTED
    """None: a later release wrote them, so that this one lets its accounts do nothing."""
    created: datetime
    approved: datetime | None
    """None: it waits for approval."""
    expires: datetime | None = None
    """None: never."""
    revoked: datetime | None = None

    def state(self, now: datetime) -> EabKeyState:
        if self.revoked is not None:
            return EabKeyState.REVOKED
        if self.approved is None:
            return EabKeyState.PENDING
        if self.expires is not None and self.expires <= now:
            return EabKeyState.EXPIRED
        if self.max_accounts is not None and self.accounts >= self.max_accounts:
            return EabKeyState.USED_UP
        return EabKeyState.ACTIVE
