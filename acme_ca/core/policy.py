"""The name policy: which names this server issues for, and for whom. One function, on every issuing path (lesson 2):
newOrder, newAuthz, finalize, the linter of what will be signed, and what operators issue ask `NamePolicy.violations`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from acme_ca.core.codes import Code
from acme_ca.core.identifiers import Identifier, Network
from acme_ca.core.names import NameRule, NameRuleText, RuleKind
from acme_ca.core.problems import ErrorType, Problem

MAX_RULES = 1000


class NameRules(BaseModel):
    """Which names are allowed and denied. Denied wins, also where a wildcard would only cover what is denied. Where any
    rule allows, what none allows is refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    allow: tuple[NameRuleText, ...] = Field(default=(), max_length=MAX_RULES)
    """Rules of which each name must match one; none: any name."""
    deny: tuple[NameRuleText, ...] = Field(default=(), max_length=MAX_RULES)
    """Rules of which no name may match any."""

    def denying(self, identifier: Identifier) -> NameRule | None:
        return next((rule for rule in self.deny if rule.denies(identifier)), None)

    def allowing(self, identifier: Identifier) -> NameRule | None:
        return next((rule for rule in self.allow if rule.matches(identifier)), None)

    def allows(self, identifier: Identifier) -> bool:
        return not self.allow or self.allowing(identifier) is not None


@dataclass(frozen=True, slots=True)
class Layer:
    """The rules of one who has a say. `who`: as sentences call it, `the service covina`."""

    who: str
    rules: NameRules


@dataclass(frozen=True, slots=True)
class Ruling:
    """What one of those who have a say says of a name."""

    who: str
    allowed: bool
    rule: NameRule | None
    """The one that denies it, or the first that allows it; None: there are rules of what is allowed, and none allows it, or
    there are none that allow, and none denies it.
    """


@dataclass(frozen=True, slots=True)
class NamePolicy:
    """Everybody who has a say is asked, and each can only take away. Without layers any name is allowed."""

    layers: tuple[Layer, ...] = ()

    @classmethod
    def of_settings(
        cls,
        *,
        allowed_domains: tuple[str, ...] = (),
        denied_domains: tuple[str, ...] = (),
        allowed_ip_networks: tuple[Network, ...] = (),
    ) -> NamePolicy:
        """Suffixes (`vcc.internal` means it and all below) and networks."""
        rules = NameRules(
            allow=(*_suffixes(allowed_domains), *_networks(allowed_ip_networks)),
            deny=_suffixes(denied_domains),
        )
        return cls((Layer("the server's settings", rules),)) if rules.allow or rules.deny else cls()

    def violations(self, identifiers: Iterable[Identifier]) -> list[Problem]:
        """A `rejectedIdentifier` problem for each identifier that may not be issued."""
        return [problem for identifier in identifiers if (problem := self._violation(identifier))]

    def rulings(self, identifier: Identifier) -> list[Ruling]:
        """What each layer says, in turn: the name is refused when one of them does not allow it."""
        return [_ruling(layer, identifier) for layer in self.layers]

    def _violation(self, identifier: Identifier) -> Problem | None:
        for layer in self.layers:
            if rule := layer.rules.denying(identifier):
                how = "denies it" if rule.matches(identifier) else "denies names that it could cover"
                return _refused(identifier, Code.NAME_DENIED, f"{rule} of {layer.who} {how}")
        for layer in self.layers:
            if not layer.rules.allows(identifier):
                return _refused(identifier, Code.NAME_NOT_ALLOWED, f"no rule of {layer.who} allows it")
        return None


def _ruling(layer: Layer, identifier: Identifier) -> Ruling:
    if rule := layer.rules.denying(identifier):
        return Ruling(layer.who, allowed=False, rule=rule)
    return Ruling(layer.who, allowed=layer.rules.allows(identifier), rule=layer.rules.allowing(identifier))


def _refused(identifier: Identifier, code: Code, reason: str) -> Problem:
    return Problem(
        ErrorType.REJECTED_IDENTIFIER,
        f"This CA does not issue for {identifier.value}: {reason}. Ask its operator to change the name policy.",
        identifier=identifier,
        code=code,
    )


def _suffixes(domains: Iterable[str]) -> tuple[NameRule, ...]:
    return tuple(NameRule(RuleKind.SUFFIX, domain) for domain in domains)


def _networks(networks: Iterable[Network]) -> tuple[NameRule, ...]:
    return tuple(NameRule(RuleKind.NETWORK, str(network)) for network in networks)
