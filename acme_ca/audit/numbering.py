"""Whether the ids of the trail are those that the database gave out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from acme_ca.refreshing import Remembered
from acme_ca.storage import seals
from acme_ca.storage.database import Database, DatabaseUnavailable

PAUSE = timedelta(seconds=10)
"""How long an answer is good: anyone may ask, and as often as they like."""


class Numbering:
    def __init__(self, *, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._state = Remembered[str]()

    async def look(self) -> str:
        """`ok`; `odd ids` when an event, a seal or a target is above the last id that was given out; `unknown` without the
        database, or the right to look.
        """
        now = self._clock()
        if (state := self._state.at(now)) is not None:
            return state
        return self._state.keep(await self._look(), now=now, lasts=PAUSE)

    async def _look(self) -> str:
        try:
            above = await seals.above_drawn(self._database)
        except DatabaseUnavailable:
            above = None
        return "unknown" if above is None else "odd ids" if above else "ok"
