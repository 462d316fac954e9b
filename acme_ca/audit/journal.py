"""How far a check has come, in a file: JSON lines, one for the scope and one for each batch.

A line is written after its batch was looked at. So a check that is killed loses one batch at most, and what it found
before is in the file. A last line that is cut off is as if it were not there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, astuple
from datetime import datetime
from pathlib import Path
from typing import Any

from acme_ca.audit.check import Position, Step
from acme_ca.audit.findings import Finding, Findings, Severity
from acme_ca.storage.audit import Scope


class Journal:
    """`total`: the findings of all batches so far."""

    def __init__(self, path: Path, scope: Scope, position: Position, total: Findings) -> None:
        self.scope = scope
        self.position = position
        self.total = total
        self._path = path

    @classmethod
    def begin(cls, path: Path, scope: Scope) -> Journal:
        """In place of an older one. Raises OSError."""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(_line(asdict(scope)))
        return cls(path, scope, Position(scope.since), Findings())

    @classmethod
    def resume(cls, path: Path) -> Journal:
        """Raises OSError when there is none, ValueError when it is not one."""
        try:
            lines = _whole_lines(path)
            scope = _scope_of(next(lines))
            journal = cls(path, scope, Position(scope.since), Findings())
            for line in lines:
                journal._take(_step_of(line))
        except (StopIteration, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no journal") from error
        return journal

    def write(self, step: Step) -> None:
        """Raises OSError."""
        with self._path.open("ab") as file:
            file.write(_line({"findings": asdict(step.findings), "position": astuple(step.position)}))
        self._take(step)

    def remove(self) -> None:
        """The check has come to its end."""
        self._path.unlink(missing_ok=True)

    def _take(self, step: Step) -> None:
        self.position = step.position
        self.total += step.findings


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, default=datetime.isoformat, separators=(",", ":")).encode() + b"\n"


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """What is behind the last whole line is taken off the file: the next line begins there."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    os.truncate(path, len(whole))
    return map(json.loads, whole.splitlines())


def _scope_of(line: dict[str, Any]) -> Scope:
    since, until = (datetime.fromisoformat(line[name]) for name in ("since", "until"))
    return Scope(since=since, until=until, issuer=line["issuer"])


def _step_of(line: dict[str, Any]) -> Step:
    recorded, *others = line["position"]
    found = [
        Finding(Severity(each["severity"]), each["code"], each["object"], each["sentence"])
        for each in line["findings"].pop("found")
    ]
    return Step(Findings(found, **line["findings"]), Position(datetime.fromisoformat(recorded), *others))
