"""Times of rows that somebody may have changed: PostgreSQL knows some that no datetime can be, and infinities."""

from __future__ import annotations

from datetime import UTC, datetime

FIRST_SHOWN = datetime(1970, 1, 1, tzinfo=UTC)
LAST_SHOWN = datetime(9999, 12, 30, tzinfo=UTC)


def known(column: str) -> str:
    """In SQL: its time; NULL where no `datetime` has it."""
    return f"CASE WHEN {column} > '0001-01-01' AND {column} < '9999-12-31 23:59:59.999999' THEN {column} END"


def within(column: str, *, since: str = f"{FIRST_SHOWN:%Y-%m-%d}") -> str:
    """In SQL: its time, or the nearest from which a day can still be taken, or added to it; NULL stays NULL."""
    last = f"{LAST_SHOWN:%Y-%m-%d}"
    return f"CASE WHEN {column} < '{since}' THEN '{since}' WHEN {column} > '{last}' THEN '{last}' ELSE {column} END"


def unbounded(column: str) -> str:
    """In SQL, for those who judge it: its time, and an infinity where no `datetime` has it. That comes without a time zone
    and cannot be compared with any time, so no rule passes it.
    """
    return f"""CASE WHEN {column} <= '0001-01-01' THEN '-infinity' WHEN {column} >= '9999-12-31 23:59:59.999999' THEN 'infinity'
               ELSE {column} END"""
