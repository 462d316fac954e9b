"""Name rules: which identifiers a profile, a policy or an approval is about. Written `kind:value`, as in
`suffix:vcc.internal`.

Regular expressions are matched by the engine of pydantic, which takes time linear in the name's length for every
pattern: none can be made to run for ever by a client's name. It knows no look-around and no backreferences.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Self

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import SchemaError, SchemaValidator, core_schema

from acme_ca.core import identifiers
from acme_ca.core.identifiers import Identifier, IdentifierType, Network, is_below
from acme_ca.core.problems import Problem

MAX_PATTERN = 256
"""Characters of a regular expression."""


class RuleKind(StrEnum):
    EXACT = "exact"
    """That name, wildcard or address."""
    SUFFIX = "suffix"
    """The name and all below it, wildcards too."""
    WILDCARD = "wildcard"
    """`*.a.example`: the names with one label in place of the asterisk, and that wildcard."""
    REGEX = "regex"
    """Names that the expression matches from beginning to end; never a wildcard, which stands for more than its text."""
    NETWORK = "network"
    """The addresses in `10.0.0.0/8`, `2001:db8::/32`."""


@dataclass(frozen=True, slots=True)
class NameRule:
    """Made by `parse`; `value` is canonical."""

    kind: RuleKind
    value: str

    @classmethod
    def parse(cls, text: object) -> Self:
        """The inverse of `str`, for an operator's text. Raises ValueError with a sentence."""
        if isinstance(text, cls):
            return text
        kind, colon, value = text.partition(":") if isinstance(text, str) else ("", "", "")
        if not colon or kind not in _READERS:
            raise ValueError(
                f"a name rule is written kind:value, with one of the kinds {', '.join(_READERS)}; {text!r} is not"
            )
        return cls(RuleKind(kind), _READERS[RuleKind(kind)](value))

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"

    @property
    def identifier(self) -> Identifier | None:
        """The only one that the rule can match; None for a rule that may match several."""
        return identifier_of(self.value) if self.kind is RuleKind.EXACT else None

    def matches(self, identifier: Identifier) -> bool:
        if self.kind is RuleKind.EXACT:
            return identifier.value == self.value  # no name looks like an address
        if self.kind is RuleKind.NETWORK:
            return identifier.type is IdentifierType.IP and identifier.address in _network(self.value)
        return identifier.type is IdentifierType.DNS and self._matches_name(identifier)

    def _matches_name(self, name: Identifier) -> bool:
        if self.kind is RuleKind.SUFFIX:
            return is_below(name.base, self.value)
        if self.kind is RuleKind.WILDCARD:
            return name.value.partition(".")[2] == self._base
        return not name.wildcard and _pattern(self.value).isinstance_python(name.value)

    def denies(self, identifier: Identifier) -> bool:
        """Whether the rule is against the identifier, where it says what is denied."""
        return self.may_be_covered(identifier) if identifier.wildcard else self.matches(identifier)

    def may_be_covered(self, wildcard: Identifier) -> bool:
        """Whether a certificate for the wildcard may be good for a name that the rule matches (RFC 6125 §6.4.3). What a
        regular expression shares with the names under a wildcard is not looked into: it may.
        """
        if self.kind is RuleKind.NETWORK:
            return False
        if self.kind is RuleKind.REGEX or self.value == wildcard.value:
            return True
        if self.kind is RuleKind.SUFFIX and is_below(wildcard.base, self.value):
            return True
        return self.value.partition(".")[2] == wildcard.base and self.kind is not RuleKind.WILDCARD

    def overlaps(self, other: NameRule) -> bool:
        """Whether an identifier may match both. What a regular expression shares with a set of names is not looked into."""
        for one, another in ((self, other), (other, self)):
            if one.identifier is not None:
                return another.matches(one.identifier)
        kinds = {self.kind, other.kind}
        if RuleKind.NETWORK in kinds:
            return len(kinds) == 1 and _network(self.value).overlaps(_network(other.value))
        return RuleKind.REGEX in kinds or self._reaches(other) or other._reaches(self)

    def _reaches(self, other: NameRule) -> bool:
        """Of suffixes and wildcards: whether the topmost that the other matches is matched by this one, too."""
        if self.kind is RuleKind.SUFFIX:
            return is_below(other._base, self.value)
        if other.kind is RuleKind.SUFFIX:
            return other.value.partition(".")[2] == self._base
        return other._base == self._base

    @property
    def _base(self) -> str:
        return self.value.removeprefix("*.")


NameRuleText = Annotated[
    NameRule,
    PlainValidator(NameRule.parse),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["suffix:vcc.internal"]}),
]
"""A field of a model: text outside, a NameRule inside."""


# ---------------------------------------------------------------- reading


def _exact(value: str) -> str:
    return identifier_of(value).value


def identifier_of(value: str) -> Identifier:
    """A name or an address, whichever it looks like. Raises ValueError with a sentence."""
    is_address = ":" in value or value.replace(".", "").isdigit()
    return _read(identifiers.ip if is_address else identifiers.dns, value)


def _suffix(value: str) -> str:
    name = _read(identifiers.dns, value)
    if name.wildcard:
        raise ValueError(f"suffix:{value} has a wildcard; suffix:{name.base} means it and all names below")
    return name.value


def _wildcard(value: str) -> str:
    name = _read(identifiers.dns, value)
    if not name.wildcard:
        raise ValueError(f"wildcard:{value} has no asterisk; write wildcard:*.{value}")
    return name.value


def _read(reader: Callable[[str], Identifier], value: str) -> Identifier:
    try:
        return reader(value)
    except Problem as problem:
        raise ValueError(problem.detail.rstrip(".")) from None


def _regex(value: str) -> str:
    if len(value) > MAX_PATTERN:
        raise ValueError(
            f"a regular expression has at most {MAX_PATTERN} characters; this one has {len(value)}"
        )
    if not value.isprintable() or not value:
        raise ValueError(f"the regular expression {value!r} is empty or has characters that do not print")
    try:
        _compiled(
            value
        )  # by itself first: inside a group, brackets that it does not match up would close that group
        _pattern(value)
    except SchemaError as error:
        reason = str(error).strip().splitlines()[-1].rpartition("rror: ")[2].rstrip(".")
        raise ValueError(f"the regular expression {value!r} cannot be used: {reason}") from None
    return value


def _network_text(value: str) -> str:
    try:
        network = ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f"network:{value} is no network: {error}") from None
    inner = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if inner and network.prefixlen >= _MAPPED:  # no identifier is in it: what should deny would deny nothing
        better = f"network:{inner}/{network.prefixlen - _MAPPED}"
        raise ValueError(f"network:{value} is IPv4 inside IPv6; write {better}")
    return str(network)


_MAPPED = 96
"""Bits before an IPv4 address inside an IPv6 one."""


@lru_cache(maxsize=1024)
def _network(value: str) -> Network:
    return ipaddress.ip_network(value)


@lru_cache(maxsize=1024)
def _pattern(value: str) -> SchemaValidator:
    return _compiled(rf"\A(?:{value})\z")


def _compiled(pattern: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))


_READERS: dict[str, Callable[[str], str]] = {
    RuleKind.EXACT: _exact,
    RuleKind.SUFFIX: _suffix,
    RuleKind.WILDCARD: _wildcard,
    RuleKind.REGEX: _regex,
    RuleKind.NETWORK: _network_text,
}
