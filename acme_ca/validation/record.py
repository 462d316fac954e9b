"""What a validation keeps for the operator, and the failures that are worth another try."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from acme_ca.core.problems import Problem


class Unreachable(Problem):
    """What was asked for could not be reached (DNS, connection, TLS handshake): another try may succeed."""


class Refused(Unreachable):
    """A DNS server will not answer for this name: it is authoritative for other zones, and no resolver."""


class Record:
    """Everything asked in one validation, in order: JSON objects with the times in milliseconds."""

    def __init__(self) -> None:
        self._entries: list[dict[str, Any]] = []
        self._started = time.monotonic()

    @property
    def entries(self) -> tuple[dict[str, Any], ...]:
        return tuple(self._entries)

    @property
    def last(self) -> dict[str, Any]:
        """The latest question, with its answer if there is one; empty before the first."""
        return self._entries[-1] if self._entries else {}

    @contextmanager
    def asking(self, what: str, **question: Any) -> Iterator[dict[str, Any]]:
        """Notes a question before it is asked, so that one without an answer is on record too.

        Yields the entry; the caller adds the answer to it. `ms` is how long the answer took, `at_ms` when the
        question was asked, counted from the beginning of the validation.
        """
        started = time.monotonic()
        entry = {"asked": what, "at_ms": _milliseconds(started - self._started), **question}
        self._entries.append(entry)
        try:
            yield entry
        finally:
            entry["ms"] = _milliseconds(time.monotonic() - started)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)
