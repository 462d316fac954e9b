"""Identifiers: `dns` (RFC 8555 §7.1.4, RFC 5890) and `ip` (RFC 8738).

An `Identifier` is always canonical: lower case, no trailing dot, A-labels checked, addresses in the text form of
RFC 5952. Everything that compares names compares identifiers, never strings from outside.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import idna

from acme_ca.core.problems import ErrorType, Problem, malformed

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_NAME = 253
MAX_LABEL = 63

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)


class IdentifierType(StrEnum):
    DNS = "dns"
    IP = "ip"


@dataclass(frozen=True, slots=True, order=True)
class Identifier:
    """A canonical identifier; `value` of a wildcard begins with `*.`. Made by `parse`, `dns` and `ip`."""

    type: IdentifierType
    value: str

    @property
    def wildcard(self) -> bool:
        return self.value.startswith("*.")

    @property
    def base(self) -> str:
        """The name whose control is proved: a wildcard's without `*.` (RFC 8555 §7.1.4)."""
        return self.value.removeprefix("*.")

    @property
    def address(self) -> Address:
        """The address of an `ip` identifier; ValueError for another type."""
        return ipaddress.ip_address(self.value)

    def as_json(self) -> dict[str, str]:
        return {"type": self.type.value, "value": self.value}

    def __str__(self) -> str:
        """`dns:example.org`: the text in which the database and the logs keep it."""
        return f"{self.type.value}:{self.value}"

    @classmethod
    def from_text(cls, text: str) -> Identifier:
        """The inverse of `str`, for text that this server wrote."""
        kind, _, value = text.partition(":")
        return cls(IdentifierType(kind), value)


def is_below(name: str, suffix: str) -> bool:
    """Whether a name is the suffix itself or below it, label by label."""
    return name == suffix or name.endswith("." + suffix)


def search_words(identifiers: Iterable[Identifier]) -> list[str]:
    """What a certificate is searched by: each name as `=web.a.example`, and all that it ends with from a label on:
    `web.a.example`, `a.example`, `example`. So a name and what is below a name are look-ups, and what an operator types is
    a prefix. Of a name with more labels the endings of the first ENDINGS: the database keeps a megabyte of words.
    """
    words: set[str] = set()
    for identifier in identifiers:
        words.add(f"={identifier.value}")
        words.update(_endings(identifier) if identifier.type is IdentifierType.DNS else [identifier.value])
    return list(words)


ENDINGS = 40


def _endings(name: Identifier) -> Iterator[str]:
    ending = name.value
    for _ in range(ENDINGS):
        yield ending
        _, _, ending = ending.partition(".")
        if not ending:
            return


def parse(kind: object, value: object) -> Identifier:
    """The identifier that a client named. Raises `Problem` (`malformed`, `rejectedIdentifier`, `unsupportedIdentifier`)."""
    if not isinstance(kind, str) or not isinstance(value, str):
        raise malformed('An identifier is an object with the strings "type" and "value".')
    if kind == IdentifierType.DNS:
        return dns(value)
    if kind == IdentifierType.IP:
        return ip(value)
    raise Problem(
        ErrorType.UNSUPPORTED_IDENTIFIER,
        'Identifiers of type "dns" and "ip" are supported; this one is neither.',
    )


def dns(text: str) -> Identifier:
    """A host name or wildcard for a certificate: letters, digits and hyphens (RFC 5280 §4.2.1.6, RFC 1123 §2.1)."""
    name = text.lower()
    base = name.removeprefix("*.")
    if not text.isascii():  # asked of the text: lower() turns some other letters into ASCII ones
        raise _refused(
            text, "it has characters outside ASCII; send the A-label form (xn--…) of an international name"
        )
    if len(name) > MAX_NAME:
        raise _refused(text, f"it is longer than {MAX_NAME} characters")
    labels = base.split(".")
    for label in labels:
        _check_label(text, label)
    if labels[-1].isdigit():
        raise _refused(text, 'its last label is a number; an address is an identifier of type "ip"')
    if name != base and len(labels) == 1:
        raise _refused(text, "a wildcard needs at least two labels below the asterisk")
    return Identifier(IdentifierType.DNS, name)


def ip(text: str) -> Identifier:
    """An address in the form of RFC 8738 §3: dotted quad, or IPv6 text (RFC 5952 is enforced there)."""
    try:
        if "%" in text:
            raise ValueError(text)  # noqa: TRY301  a zone is no part of an address in a certificate
        address = ipaddress.ip_address(text)
    except ValueError:
        raise _refused(text, "it is no IPv4 or IPv6 address") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        raise _refused(text, "it is an IPv4 address inside an IPv6 one; write the IPv4 address itself")
    if str(address) != text:
        raise _refused(
            text, f"it is not in the canonical text form, which is {address} (RFC 8738 §3, RFC 5952)"
        )
    return Identifier(IdentifierType.IP, text)


def read_address(text: str) -> Address | None:
    """Where a client asks from. An IPv4 address inside an IPv6 one is that IPv4 address. None: it is no address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _check_label(text: str, label: str) -> None:
    if not label:
        raise _refused(text, "it has an empty label; write it without a leading, trailing or doubled dot")
    if len(label) > MAX_LABEL:
        raise _refused(text, f"a label is longer than {MAX_LABEL} characters")
    if not _LABEL.fullmatch(label):
        raise _refused(
            text,
            "labels hold letters, digits and inner hyphens only (an asterisk only as the whole first label)",
        )
    if label[2:4] == "--":
        _check_a_label(text, label)


def _check_a_label(text: str, label: str) -> None:
    # "servers MUST … verify that identifier values that begin with the ASCII-Compatible Encoding prefix
    # xn-- are properly encoded" (RFC 8555 §7.1.4); other labels with hyphens there are reserved (RFC 5890 §2.3.1)
    try:
        proper = label.startswith("xn--") and idna.alabel(idna.ulabel(label)).decode() == label
    except (idna.IDNAError, UnicodeError, ValueError, IndexError):
        proper = False
    if not proper:
        raise _refused(text, "a label is no proper A-label (RFC 5891)")


def _refused(text: str, why: str) -> Problem:
    # The name is shown as a literal and cut: it is a stranger's text on its way to a terminal.
    shown = ascii(text if len(text) <= 80 else text[:80] + "…")  # noqa: PLR2004  a line's worth
    return Problem(ErrorType.REJECTED_IDENTIFIER, f"The identifier {shown} is refused: {why}.")
