"""What is found out of an order before it is placed (`acme/preflight.py`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from acme_ca.core.identifiers import Identifier
from acme_ca.core.policy import Ruling
from acme_ca.core.problems import Problem


class Verdict(StrEnum):
    OK = "ok"
    REFUSED = "refused"
    WARNING = "warning"
    """The order would be taken; its client may meet this later."""
    UNKNOWN = "unknown"
    """It was not told enough to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`code`: as in the ACME problem document. `name`: what it is about, where that is one of the names."""

    step: str
    verdict: Verdict
    detail: str
    code: str | None = None
    name: str | None = None
    members: dict[str, Any] = field(default_factory=dict)
    """Further facts, JSON-ready."""


Facts = dict[str, Any]


class Trial:
    """What was found out so far."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.first: Problem | None = None
        """The first refusal of newOrder."""

    def say(
        self,
        step: str,
        verdict: Verdict,
        detail: str,
        *,
        name: Identifier | None = None,
        facts: Facts | None = None,
    ) -> None:
        who = None if name is None else name.value
        self.findings.append(
            Finding(step=step, verdict=verdict, detail=detail, name=who, members=facts or {})
        )

    def judge(
        self,
        step: str,
        judge: Callable[[], object],
        good: str,
        *,
        name: Identifier | None = None,
        facts: Facts | None = None,
    ) -> None:
        try:
            judge()
        except Problem as problem:
            self.refuse(step, problem)
        else:
            self.say(step, Verdict.OK, good, name=name, facts=facts)

    def judge_names(
        self,
        step: str,
        judge: Callable[[], object],
        names: Collection[Identifier],
        rulings: Callable[[Identifier], list[Ruling]] = lambda _: [],
        *,
        good: Callable[[Identifier, list[Ruling]], str] | None = None,
    ) -> None:
        """`judge` refuses some or all of the names, or none; each finding tells whose rules say what of its name, and in
        words that `good` has for those that are not refused.
        """
        good = good or _allowed
        refused: list[Problem] = []
        try:
            judge()
        except Problem as problem:
            refused = self.refuse(step, problem, rulings)
        for name in names:
            if not any(one.identifier in {None, name} for one in refused):
                said = rulings(name)
                self.say(step, Verdict.OK, good(name, said), name=name, facts=_rules(said))

    def refuse(
        self,
        step: str,
        problem: Problem,
        rulings: Callable[[Identifier], list[Ruling]] = lambda _: [],
        *,
        each: Sequence[Problem] = (),
    ) -> list[Problem]:
        """Returns the refusals that the problem consists of: `each`, where newOrder says them in one sentence."""
        self.first = self.first or problem
        refused = list(each or problem.subproblems or [problem])
        for one in refused:
            said = [] if one.identifier is None else rulings(one.identifier)
            self.findings.append(refusal(step, one, facts=_rules(said)))
        return refused


def refusal(
    step: str, problem: Problem, verdict: Verdict = Verdict.REFUSED, *, facts: Facts | None = None
) -> Finding:
    name = None if problem.identifier is None else problem.identifier.value
    return Finding(
        step=step,
        verdict=verdict,
        detail=problem.detail,
        code=code_of(problem),
        name=name,
        members=facts or {},
    )


def code_of(problem: Problem) -> str:
    return str(problem.document()["code"])


def _rules(rulings: list[Ruling]) -> Facts:
    said = [
        {"of": one.who, "allowed": one.allowed, "rule": None if one.rule is None else str(one.rule)}
        for one in rulings
    ]
    return {"rules": said} if said else {}


def _allowed(name: Identifier, rulings: list[Ruling]) -> str:
    by = [f"{one.rule} of {one.who}" for one in rulings if one.rule is not None]
    silent = [one.who for one in rulings if one.rule is None]
    if not rulings:
        return f"Nobody has rules for {name.value}: any name is allowed."
    unopposed = f"no rule of {', '.join(silent)} is against it" if silent else ""
    if not by:
        return f"{name.value} is allowed: {unopposed}."
    return f"{name.value} is allowed by {', '.join(by)}{'; ' * bool(silent)}{unopposed}."
