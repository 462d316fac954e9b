"""The clocks of replicas, and which times from outside are taken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

CLOCKS_APART = timedelta(minutes=5)
"""By how much the clocks of replicas may differ, and how long a change may be under way. What lies further ahead than this
allows was written by a wrong one.
"""

FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)
RANGE = "a time after the first moment of the year 1 and before the last of 9999, in UTC"
"""Of those that can be kept, for refusals."""


def can_be_kept(time: datetime) -> bool:
    """Whether a database gives back what it was given.

    An offset may lead beyond the years of UTC; and the two moments at their ends, of which one is what some languages
    write for no time at all, are sent to PostgreSQL as infinities.
    """
    try:
        return FIRST < time.astimezone(UTC) < LAST
    except OverflowError:
        return False
