"""What a process remembers of the database, and how it looks again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Refresh:
    """Reads something anew and remembers it, one reader at a time: two at once could leave behind what the older one had
    read. When a call returns, a whole look that began after the call has ended: what was committed before is known. Calls
    that wait for the same look share it.
    """

    def __init__(self, read: Callable[[], Awaitable[None]]) -> None:
        """`read` is awaited, and remembers what it finds; what it raises reaches the call that it was awaited for."""
        self._read = read
        self._lock = asyncio.Lock()
        self._begun = 0
        self._ended = 0
        """The number of the last look that was a whole one."""

    async def __call__(self) -> None:
        asked = self._begun
        async with self._lock:
            if self._ended > asked:
                return
            self._begun += 1
            await self._read()
            self._ended = self._begun


class Remembered(Generic[Answer]):
    """An answer that is good for a while: many may ask. Of one from the time before a clock was set back nobody knows how old
    it is, so it is forgotten.
    """

    def __init__(self) -> None:
        self._kept: tuple[datetime, datetime, Answer] | None = None

    def at(self, now: datetime) -> Answer | None:
        """None: there is none that is good."""
        if self._kept is None:
            return None
        since, until, answer = self._kept
        return answer if since <= now < until else None

    def keep(self, answer: Answer, *, now: datetime, lasts: timedelta) -> Answer:
        self._kept = (now, now + lasts, answer)
        return answer
