"""Many certificates taken back at once: shown first, then done, and never more than was shown."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from acme_ca.core import revocation
from acme_ca.core.actors import Actor
from acme_ca.core.codes import Code
from acme_ca.core.problems import Problem, conflict, malformed
from acme_ca.core.revocation import RevocationReason
from acme_ca.storage import bulk
from acme_ca.storage.bulk import Filter, Selection
from acme_ca.storage.database import Database


class BulkRevocation:
    def __init__(self, *, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def show(self, wanted: Filter, *, reason: RevocationReason) -> Selection:
        """What `revoke` would take back now. Raises Problem for a filter that finds everything."""
        _check(wanted)
        return await bulk.select(self._database, wanted, reason=reason, now=self._clock())

    async def revoke(
        self,
        wanted: Filter,
        *,
        expected: int,
        digest: str | None,
        reason: RevocationReason,
        comment: str | None,
        actor: Actor,
    ) -> int:
        """Take back what the filter finds, if that is `expected` many, and just those of `digest` where it is given.
        Returns how many. What is issued meanwhile is left alone. Broken off, it goes on where it was when it is asked
        for again, with the number that is left.

        Raises Problem: `malformed`; `conflict` when the filter finds others.
        """
        _check(wanted)
        begun = self._clock()
        revocation.check_circumstances(invalid_since=None, comment=comment, now=begun)
        found = await bulk.select(self._database, wanted, reason=reason, now=begun)
        if found.count != expected or digest not in {None, found.digest}:
            raise _others(found)
        return await self._take_back(
            wanted, most=expected, reason=reason, comment=comment, actor=actor, recorded_before=begun
        )

    async def revoke_all(
        self, wanted: Filter, *, reason: RevocationReason, comment: str | None, actor: Actor
    ) -> int:
        """Take back whatever the filter finds: for what has ended as a whole, such as a service. Broken off, it goes on
        where it was when it is asked for again.
        """
        _check(wanted)
        return await self._take_back(
            wanted, most=None, reason=reason, comment=comment, actor=actor, recorded_before=None
        )

    async def _take_back(
        self,
        wanted: Filter,
        *,
        most: int | None,
        reason: RevocationReason,
        comment: str | None,
        actor: Actor,
        recorded_before: datetime | None,
    ) -> int:
        done = 0
        last: str | None = ""
        while last is not None and (most is None or done < most):
            number, last = await bulk.revoke_batch(
                self._database,
                wanted,
                reason=reason,
                comment=comment,
                actor=actor,
                recorded_before=recorded_before,
                now=self._clock(),
                after=last,
                limit=bulk.BATCH if most is None else min(bulk.BATCH, most - done),
            )
            done += number
        return done


def _check(wanted: Filter) -> None:
    if wanted.is_empty:
        raise malformed(
            "The filter is empty: it would take back every certificate. Name at least one thing.",
            code=Code.FIELD_INVALID,
        )


def _others(found: Selection) -> Problem:
    return conflict(
        f"The filter finds {found.count} certificates now, and not those that were expected: look again, without doing it."
    )
