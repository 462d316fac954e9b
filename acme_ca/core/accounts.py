"""ACME accounts."""

from __future__ import annotations

from dataclasses import dataclass

from acme_ca.core.ids import AccountId, EabKeyId
from acme_ca.core.states import AccountStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An ACME account (RFC 8555 §7.1.2). `jwk` is the public key as canonical JSON (RFC 7638 §3)."""

    id: AccountId
    status: AccountStatus
    jwk: str
    thumbprint: str
    contact: tuple[str, ...] = ()
    terms_agreed: bool = False
    eab_key_id: EabKeyId | None = None
    eab_binding: dict[str, str] | None = None
    frozen: bool = False
    """By an operator: whatever it asks for is refused until one lifts that."""
