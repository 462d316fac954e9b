"""Whether relying parties get CRLs that are new enough."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from acme_ca.refreshing import Remembered
from acme_ca.revocation.crl import CrlRules
from acme_ca.storage import crls
from acme_ca.storage.database import Database, DatabaseUnavailable

PAUSE = timedelta(seconds=10)
"""How long an answer is good: anyone may ask, and as often as they like."""
SHORT_PAUSE = timedelta(seconds=2)
"""The same of one that is not good."""
GOOD = {"ok", "finished"}


class Freshness:
    def __init__(self, *, database: Database, rules: CrlRules, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._rules = rules
        self._clock = clock
        self._state = Remembered[str]()

    async def look(self) -> str:
        """`ok`; `stale` when a CRL is missing, was not made anew in time, or is over; `unknown` without the database."""
        now = self._clock()
        if (state := self._state.at(now)) is not None:
            return state
        state = await self._look(now)
        return self._state.keep(state, now=now, lasts=PAUSE if state == "ok" else SHORT_PAUSE)

    async def _look(self, now: datetime) -> str:
        try:
            found = await crls.states(
                self._database, late=self._rules.late, root_warning=self._rules.root_warning, now=now
            )
        except DatabaseUnavailable:
            return "unknown"
        return "ok" if all(state.state in GOOD for state in found) else "stale"
