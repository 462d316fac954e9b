"""Work in a process of its own: what it opens, and the threads that libraries start for it, are gone when it ends.

The supervisor forks, so it must never have spoken to an HSM: PKCS #11 does not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

T = TypeVar("T")


def apart(work: Callable[[], T]) -> T:
    """What `work` returns, or raises, in a child process. Both must be picklable. Raises RuntimeError when it dies."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    child = fork.Process(target=_report, args=(work, theirs))
    child.start()
    theirs.close()
    try:
        succeeded, outcome = ours.recv()
    except EOFError:
        raise RuntimeError("a child process of the start has died; see its traceback above") from None
    except KeyboardInterrupt:
        child.terminate()
        raise
    finally:
        child.join()
        ours.close()
    if succeeded:
        result: T = outcome
        return result
    raise outcome


def _report(work: Callable[[], T], pipe: Connection) -> None:
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, signal.SIG_DFL)  # not the handlers of the parent
    try:
        outcome = (True, work())
    except Exception as error:  # noqa: BLE001  it is raised again, where it can be told
        pipe.send((False, error))
    else:
        pipe.send(outcome)
