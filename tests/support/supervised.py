"""A supervisor over tiny workers, as a program: `python -m tests.support.supervised WORK [GRACE]`.

It prints "ready" when all workers are, and a line for each start of a worker: its number and process id.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Callable

from acme_ca import log
from acme_ca.server.supervisor import Supervisor, WorkerEnds


def obedient(ends: WorkerEnds) -> int:
    """Works until it is told to stop, or until the supervisor has died."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    _begin(ends)
    while not stopped and not select.select([ends.life], [], [], 0.02)[0]:
        pass
    _say(f"stopped {ends.number}")
    return 0


def stubborn(ends: WorkerEnds) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _begin(ends)
    time.sleep(60)
    return 0


def short_lived(ends: WorkerEnds) -> int:
    _begin(ends)
    return 3


def failing(ends: WorkerEnds) -> int:
    raise ValueError("this worker cannot begin")


def reloading(ends: WorkerEnds) -> int:
    signal.signal(signal.SIGHUP, lambda *_: _say(f"reloaded {ends.number}"))
    return obedient(ends)


def _begin(ends: WorkerEnds) -> None:
    _say(f"worker {ends.number} {os.getpid()}")
    ends.ready()


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def main() -> int:
    works: dict[str, Callable[[WorkerEnds], int]] = {
        work.__name__: work for work in (obedient, stubborn, short_lived, failing, reloading)
    }
    log.configure(as_json=True)
    supervisor = Supervisor(
        works[sys.argv[1]],
        workers=2,
        grace=float(sys.argv[2]) if sys.argv[2:] else 5.0,
        on_ready=lambda: _say("ready"),
        on_stop=lambda: _say("stopping"),
        healthy=lambda: not os.path.exists(os.environ.get("UNHEALTHY", "/nonexistent")),  # noqa: PTH110
    )
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
