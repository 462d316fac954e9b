"""The name policy: which names this server issues for, at all. One function, on every issuing path."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from acme_ca.core.identifiers import Identifier, IdentifierType, is_below
from acme_ca.core.problems import ErrorType, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class NamePolicy:
    """Suffixes (`vcc.internal` means it and all below) and networks. Denied wins over allowed.

    When any allow-list is set, a name or address that is on none is refused.
    """

    allowed_domains: tuple[str, ...] = ()
    denied_domains: tuple[str, ...] = ()
    allowed_ip_networks: tuple[Network, ...] = ()

    def violations(self, identifiers: Iterable[Identifier]) -> list[Problem]:
        """A `rejectedIdentifier` problem for each identifier that may not be issued."""
        return [problem for identifier in identifiers if (problem := self._violation(identifier))]

    def _violation(self, identifier: Identifier) -> Problem | None:
        reason = self._dns(identifier) if identifier.type is IdentifierType.DNS else self._ip(identifier)
        if reason is None:
            return None
        detail = f"This CA does not issue for {identifier.value}: {reason}. Ask its operator to change the name policy."
        return Problem(ErrorType.REJECTED_IDENTIFIER, detail, identifier=identifier)

    def _dns(self, identifier: Identifier) -> str | None:
        if denied := _suffix_of(identifier.base, self.denied_domains):
            return f"names under {denied} are denied"
        if identifier.wildcard and (covered := _covered_by(identifier.base, self.denied_domains)):
            return f"it would cover {covered}, which is denied"
        if self._has_allow_list and not _suffix_of(identifier.base, self.allowed_domains):
            return "it is under none of the allowed domains"
        return None

    def _ip(self, identifier: Identifier) -> str | None:
        address = identifier.address
        if self._has_allow_list and not any(address in network for network in self.allowed_ip_networks):
            return "it is in none of the allowed networks"
        return None

    @property
    def _has_allow_list(self) -> bool:
        return bool(self.allowed_domains or self.allowed_ip_networks)


def _suffix_of(name: str, suffixes: tuple[str, ...]) -> str | None:
    return next((suffix for suffix in suffixes if is_below(name, suffix)), None)


def _covered_by(base: str, suffixes: tuple[str, ...]) -> str | None:
    """The suffix that `*.base` matches: one label more than the base (RFC 6125 §6.4.3)."""
    return next((suffix for suffix in suffixes if suffix.partition(".")[2] == base), None)
