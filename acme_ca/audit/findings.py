"""What a check finds, and what it holds the database against."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Self

from acme_ca.ca.issuers import Issuer
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import IssuerId
from acme_ca.core.policy import NamePolicy
from acme_ca.core.profiles import Profile, ProfileRef


class Severity(StrEnum):
    ERROR = "error"
    """What must not be."""
    NOTE = "note"
    """In order, and worth a look."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`code` names the rule and never changes its meaning; `object` is named as audit events name it."""

    severity: Severity
    code: str
    object: str
    sentence: str


@dataclass(slots=True)
class Findings:
    """Those of a batch, and what was counted beside them."""

    found: list[Finding] = field(default_factory=list)
    certificates: int = 0
    own: int = 0
    """Certificates of the server itself: no order asks for them."""
    operators: int = 0
    """Certificates that operators had issued, without an order."""
    unsigned: int = 0
    """Recorded, and not (or never) signed."""
    unproved: int = 0
    """Older than the evidence that is kept: judged without (all of) it."""
    approved: int = 0
    """With a name that an administrator approved and nobody proved."""
    crls: int = 0
    """Shards looked at."""

    def __iadd__(self, others: Findings) -> Self:
        self.found += others.found
        self.certificates += others.certificates
        self.own += others.own
        self.operators += others.operators
        self.unsigned += others.unsigned
        self.unproved += others.unproved
        self.approved += others.approved
        self.crls += others.crls
        return self

    def of(self, severity: Severity) -> list[Finding]:
        return [finding for finding in self.found if finding.severity is severity]


@contextlib.contextmanager
def judging(code: str, object_: str, into: Findings) -> Iterator[None]:
    """Whatever a damaged row does to a rule is found wrong, under `code`; it neither ends the check nor passes."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  a row may hold anything
        sentence = f"a row holds what no rule can judge ({type(error).__name__})"
        into.found.append(Finding(Severity.ERROR, code, object_, sentence))


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """What is the same for all certificates. Today's settings make no error of what was in order when it was done."""

    issuers: Mapping[IssuerId, Issuer]
    profiles: Mapping[ProfileRef, Profile]
    evidence_since: datetime | None
    """Since when the evidence is complete; None: ever."""
    found: tuple[Finding, ...]
    """What is wrong with these."""
    now: datetime
    policy: NamePolicy
    own: Identifier
    """The name or address in the server's own certificate."""
