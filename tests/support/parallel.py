"""Several acts at once, in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def at_once(acts: list[Callable[[], T]]) -> list[T]:
    """Runs each in a thread of its own; none begins before all are there."""
    barrier = threading.Barrier(len(acts))

    def wait_and(act: Callable[[], T]) -> T:
        barrier.wait(30)
        return act()

    with ThreadPoolExecutor(len(acts)) as threads:
        return list(threads.map(wait_and, acts))
