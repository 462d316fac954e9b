"""CAA: who may issue for a name (RFC 8659), which account and by which challenge (RFC 8657)."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

import pycares

from acme_ca.core.challenges import Attempt, ChallengeType
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.validation.record import Refused
from acme_ca.validation.resolver import Dns, RecordType

STRIDE = 6
"""Names that are asked for at once."""
_CRITICAL = 0x80
_KNOWN_TAGS = frozenset({"issue", "issuewild", "iodef"})
_NO_ISSUER = "no property names this CA"

_WORD = r"[A-Za-z0-9](?:-*[A-Za-z0-9])*"
_DOMAIN = re.compile(rf"{_WORD}(?:\.{_WORD})*", re.ASCII)
_PARAMETER = re.compile(rf"({_WORD})[ \t]*=[ \t]*([\x21-\x3a\x3c-\x7e]*)", re.ASCII)
_METHODS = re.compile(r"[A-Za-z0-9-]+(?:,[A-Za-z0-9-]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class CaaRecord:
    flags: int
    tag: str
    value: str


@dataclass(frozen=True, slots=True)
class IssueValue:
    """The value of an `issue` or `issuewild` property. `parameters`: (tag in lower case, value), as written."""

    issuer: str
    parameters: tuple[tuple[str, str], ...]

    def all(self, tag: str) -> list[str]:
        return [value for name, value in self.parameters if name == tag]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaaRules:
    """`identities`: the issuer domain names that mean this CA; without any, every `issue` property forbids.
    `exempt`: suffixes that are not asked about.
    """

    identities: tuple[str, ...]
    exempt: tuple[str, ...]

    def __post_init__(self) -> None:
        # An empty name would make `issue ";"`, which forbids, mean this CA.
        if not all(_DOMAIN.fullmatch(name) for name in self.identities):
            raise ValueError(f"CAA needs domain names that mean this CA, not {self.identities!r}")


async def check(attempt: Attempt, dns: Dns, rules: CaaRules) -> None:
    """Returns when CAA lets this CA issue for the name. Raises `Problem`: `caa`, or `dns` when a lookup failed."""
    name = attempt.identifier.base
    if any(name == suffix or name.endswith("." + suffix) for suffix in rules.exempt):
        return
    # RFC 8659 §3: climb, without the root itself, to the first name that has CAA records. Nearly always there are none
    # on the whole way: the steps are asked together, which costs half of one after the other.
    # An organisation's own servers often know its zones and nothing above: where all that is above is REFUSED, the way
    # up ends. (A resolver says SERVFAIL when somebody else's server refuses.)
    refused: Refused | None = None
    labels = name.split(".")
    steps = [".".join(labels[start:]) for start in range(len(labels))]
    for first in range(0, len(steps), STRIDE):
        stride = steps[first : first + STRIDE]
        answers = await asyncio.gather(
            *(dns.ask(step, RecordType.CAA) for step in stride), return_exceptions=True
        )
        for step, answer in zip(stride, answers, strict=True):
            if isinstance(answer, Refused) and step != name:
                refused = refused or answer
                continue
            if isinstance(answer, BaseException):
                raise answer
            if refused is not None:
                raise refused  # it was no end of the way: above it there are answers
            if answer:
                _judge([_record(one) for one in answer], attempt, step, rules.identities)
                return


def forbidden(records: list[CaaRecord], attempt: Attempt, identities: tuple[str, ...]) -> str | None:
    """Why the records keep this CA from issuing, as the end of a sentence. None: they do not."""
    by_tag: dict[str, list[CaaRecord]] = {}
    for record in records:
        by_tag.setdefault(record.tag.lower(), []).append(record)
    # A critical property that is not understood forbids (RFC 8659 §4.1).
    if any(
        record.flags & _CRITICAL and tag not in _KNOWN_TAGS
        for tag, group in by_tag.items()
        for record in group
    ):
        return "a critical property is unknown to this CA"
    wild = by_tag.get("issuewild") if attempt.identifier.wildcard else None
    decisive = wild or by_tag.get("issue")
    if not decisive:
        return None
    reasons = [_unmet(parse_issue(record.value), attempt, identities) for record in decisive]
    return None if None in reasons else next((why for why in reasons if why != _NO_ISSUER), _NO_ISSUER)


def parse_issue(value: str) -> IssueValue | None:
    """RFC 8659 §4.2: `[issuer] [";" [parameters]]`. None when malformed, which authorizes nobody."""
    issuer, semicolon, rest = value.partition(";")
    issuer = issuer.strip(" \t")
    if issuer and not _DOMAIN.fullmatch(issuer):
        return None
    rest = rest.strip(" \t")
    if not semicolon or not rest:
        return IssueValue(issuer.lower(), ())
    found = [_PARAMETER.fullmatch(part.strip(" \t")) for part in rest.split(";")]
    parameters = tuple((match[1].lower(), match[2]) for match in found if match)
    return IssueValue(issuer.lower(), parameters) if len(parameters) == len(found) else None


def _unmet(value: IssueValue | None, attempt: Attempt, identities: tuple[str, ...]) -> str | None:
    """Why one property does not authorize. Unknown parameters are the issuer's own matter: this CA has none."""
    if value is None or value.issuer not in identities:
        return _NO_ISSUER
    if not _account_fits(value.all("accounturi"), attempt.account_url):
        return "accounturi names another account than the one that made the order"
    if not _method_fits(value.all("validationmethods"), attempt.challenge):
        return f"validationmethods does not list {attempt.challenge}"
    return None


def _account_fits(uris: list[str], account_url: str) -> bool:
    # Several accounturi in one property cannot be satisfied (RFC 8657 §3).
    return not uris or uris == [account_url]


def _method_fits(lists: list[str], challenge: ChallengeType) -> bool:
    # Nor can several validationmethods, or a value outside the grammar (RFC 8657 §4).
    if not lists:
        return True
    return len(lists) == 1 and bool(_METHODS.fullmatch(lists[0])) and challenge in lists[0].split(",")


def _judge(records: list[CaaRecord], attempt: Attempt, name: str, identities: tuple[str, ...]) -> None:
    why = forbidden(records, attempt, identities)
    if why is not None:
        raise Problem(
            ErrorType.CAA,
            f"The CAA records at {name} do not let this CA issue for {attempt.identifier.value}: {why}. "
            f"If it may, {_remedy(attempt, identities)}.",
        )


def _remedy(attempt: Attempt, identities: tuple[str, ...]) -> str:
    if not identities:
        return "ask the CA's operator to give it a name that records can name"
    tag = "issuewild" if attempt.identifier.wildcard else "issue"
    return f'publish there: 0 {tag} "{identities[0]}"'


def _record(found: pycares.CAARecordData) -> CaaRecord:
    return CaaRecord(flags=found.critical, tag=_text(found.tag), value=_text(found.value))


def _text(value: str | bytes) -> str:
    # pycares leaves as bytes what is not ASCII (such a value is malformed, which the grammar finds) and ends a value
    # at a NUL byte, which only the zone's own operator could write there.
    return value if isinstance(value, str) else value.decode("latin-1")
