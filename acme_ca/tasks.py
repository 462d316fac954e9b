"""Background loops: each under a lease in the database, or safe to run in every worker at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from acme_ca.storage import operations
from acme_ca.storage.database import Database, DatabaseUnavailable

LEASE_ROUNDS = 3
"""For how many intervals of its loop a lease lasts; each round renews it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """`work` is awaited every `interval` seconds. `lease`: only the process that holds it works, None: each one does."""

    name: str
    interval: float
    work: Callable[[], Awaitable[object]]
    lease: str | None = None


class Background:
    """Runs the loops until cancelled. A loop that fails is logged and goes on: the next round may find things mended."""

    def __init__(
        self,
        loops: Sequence[Loop],
        *,
        database: Database,
        holder: str,
        clock: Callable[[], datetime],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._loops = loops
        self._database = database
        self._holder = holder
        self._clock = clock
        self._log = log
        self._told: set[tuple[str, str]] = set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for loop in self._loops:
                group.create_task(self._repeat(loop), name=loop.name)

    async def release(self) -> None:
        """After the end: the leases are free for other processes at once."""
        with contextlib.suppress(DatabaseUnavailable):  # then they expire
            await operations.release_leases(self._database, self._holder)

    async def _repeat(self, loop: Loop) -> None:
        while True:
            try:
                if await self._is_ours(loop):
                    await loop.work()
            except DatabaseUnavailable as error:
                self._log.error("background work waits for the database", loop=loop.name, reason=str(error))
            except asyncio.CancelledError:
                if (own := asyncio.current_task()) is None or own.cancelling():
                    raise
                self._log.exception("background work failed", loop=loop.name)  # something in it was cancelled
            except Exception:  # noqa: BLE001  the next round may find things mended
                self._log.exception("background work failed", loop=loop.name)
            await asyncio.sleep(loop.interval)

    async def _is_ours(self, loop: Loop) -> bool:
        if loop.lease is None:
            return True
        taken = await operations.take_lease(
            self._database,
            loop.lease,
            self._holder,
            now=self._clock(),
            seconds=LEASE_ROUNDS * loop.interval,
        )
        if taken and taken.holder and taken.until:
            self._tell(loop.lease, taken.holder, taken.until)
        return taken is not None

    def _tell(self, lease: str, holder: str, until: datetime) -> None:
        """Once: two that live, and whose clocks are apart, take it from each other in turn."""
        if (lease, holder) not in self._told:
            self._told.add((lease, holder))
            self._log.warning(
                "a lease was to last too long and is taken over",
                lease=lease,
                holder=holder,
                until=until.isoformat(),
            )
