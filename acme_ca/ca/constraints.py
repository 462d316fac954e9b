"""Name constraints of CA certificates (RFC 5280 §4.2.1.10), as far as they bind DNS names and addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from cryptography import x509

from acme_ca.ca.issuers import IssuerError
from acme_ca.core import identifiers
from acme_ca.core.identifiers import Identifier, IdentifierType, Network
from acme_ca.core.problems import Problem

Subtree = str | Network
"""A DNS name, which stands for itself and all names below it, or a network."""
EVERY_ADDRESS: tuple[Subtree, ...] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
NO_NAME = "none.invalid"
"""Permitted alone it permits no DNS name that exists (RFC 6761 §6.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameConstraints:
    """Excluded wins. Where nothing of a kind (DNS names, addresses) is permitted, all of that kind is."""

    permitted: tuple[Subtree, ...] = ()
    excluded: tuple[Subtree, ...] = ()

    @classmethod
    def parse(cls, permitted: Iterable[str], excluded: Iterable[str] = ()) -> Self | None:
        """From `vcc.internal` and `10.0.0.0/8`; None when there are none. Raises IssuerError.

        When names of one kind only are permitted, the other kind is excluded as a whole: whoever permits
        `vcc.internal` does not mean "and any address".
        """
        allowed, denied = ([_subtree(text) for text in texts] for texts in (permitted, excluded))
        if allowed and not any(isinstance(subtree, str) for subtree in allowed):
            # Excluding all names is an empty name, on which Java's validator ends in an exception.
            allowed.append(NO_NAME)
        if allowed and all(isinstance(subtree, str) for subtree in allowed):
            denied = [subtree for subtree in denied if isinstance(subtree, str)] + [*EVERY_ADDRESS]
        return cls(permitted=tuple(allowed), excluded=tuple(denied)) if allowed or denied else None

    @classmethod
    def of(cls, certificate: x509.Certificate | x509.CertificateSigningRequest) -> Self | None:
        """Those in a certificate or request, DNS names and addresses only; None when it has none."""
        try:
            value = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound:
            return None
        return cls(permitted=_subtrees(value.permitted_subtrees), excluded=_subtrees(value.excluded_subtrees))

    def extension(self) -> x509.NameConstraints:
        return x509.NameConstraints(
            permitted_subtrees=_general_names(self.permitted), excluded_subtrees=_general_names(self.excluded)
        )

    def permits(self, identifier: Identifier) -> bool:
        """Whether a certificate below may hold the name. A wildcard must cover no excluded name either."""
        kind: type[str] | tuple[type, ...] = str if identifier.type is IdentifierType.DNS else _NETWORKS
        subtree = _of_identifier(identifier)
        permitted = [allowed for allowed in self.permitted if isinstance(allowed, kind)]
        if permitted and not any(_within(subtree, allowed) for allowed in permitted):
            return False
        return not any(_within(subtree, denied) or _covers(identifier, denied) for denied in self.excluded)

    def beyond(self, parent: NameConstraints) -> Subtree | None:
        """The first that is permitted here but not under `parent`, None when there is none."""
        return next((subtree for subtree in self.permitted if not parent._allows(subtree)), None)

    def _allows(self, subtree: Subtree) -> bool:
        alike = [
            allowed for allowed in self.permitted if isinstance(allowed, str) == isinstance(subtree, str)
        ]
        if alike and not any(_within(subtree, allowed) for allowed in alike):
            return False
        return not any(_within(subtree, denied) for denied in self.excluded)


_NETWORKS = (ipaddress.IPv4Network, ipaddress.IPv6Network)


def _subtree(text: str) -> Subtree:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        if "/" in text:
            raise IssuerError(f"{text!r} is no network such as 10.0.0.0/8 for a name constraint.") from None
    try:
        name = identifiers.dns(text)
    except Problem as problem:
        raise IssuerError(f"A name constraint cannot be used. {problem.detail}") from None
    if name.wildcard:
        raise IssuerError(f"A name constraint is no wildcard: {name.base} means it and all names below.")
    return name.value


def _subtrees(names: Iterable[x509.GeneralName] | None) -> tuple[Subtree, ...]:
    found: list[Subtree] = []
    for name in names or ():
        if isinstance(name, x509.DNSName):
            found.append(name.value.lower())
        elif isinstance(name, x509.IPAddress) and isinstance(name.value, _NETWORKS):
            found.append(name.value)
    return tuple(found)


def _general_names(subtrees: tuple[Subtree, ...]) -> list[x509.GeneralName] | None:
    """None for no subtree at all: an empty list is not well-formed."""
    return [
        x509.DNSName(subtree) if isinstance(subtree, str) else x509.IPAddress(subtree) for subtree in subtrees
    ] or None


def _of_identifier(identifier: Identifier) -> Subtree:
    return (
        identifier.value
        if identifier.type is IdentifierType.DNS
        else ipaddress.ip_network(identifier.address)
    )


def _within(inner: Subtree, outer: Subtree) -> bool:
    if isinstance(inner, str) or isinstance(outer, str):
        return isinstance(inner, str) and isinstance(outer, str) and _below(inner, outer)
    if isinstance(inner, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and inner.subnet_of(outer)


def _below(name: str, suffix: str) -> bool:
    # A leading dot is in no RFC, but in certificates: the names below, without the name itself.
    return not suffix or name == suffix or name.endswith("." + suffix.removeprefix("."))


def _covers(identifier: Identifier, denied: Subtree) -> bool:
    """Whether a wildcard stands for the denied name: one label more than its base (RFC 9525 §6.3)."""
    return identifier.wildcard and isinstance(denied, str) and denied.partition(".")[2] == identifier.base
