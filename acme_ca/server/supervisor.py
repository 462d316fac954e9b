"""The supervisor: forks the workers, replaces those that die, passes signals on, and ends when they have.

It does nothing else: single-threaded, no event loop, so that forking is safe at any time. The workers hold one end
of a pipe whose other end only the supervisor has: however it dies, they notice.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from acme_ca import log

QUICK_DEATH = 10.0
"""A worker that lived for fewer seconds than this died at once."""
QUICK_DEATHS = 6
"""So many times in a row, and the supervisor gives up."""
FIRST_DELAY = 0.1
STOP_MARGIN = 5.0
"""Seconds beyond the grace before a worker that does not end is killed."""

Work = Callable[["WorkerEnds"], int]
"""The body of a worker; returns its exit status."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(frozen=True, slots=True)
class WorkerEnds:
    """A worker's ends of the pipes to the supervisor."""

    number: int
    life: int
    """Readable, at its end, when the supervisor has died."""
    readiness: int

    def ready(self) -> None:
        """Tell the supervisor that this worker serves."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.readiness, bytes([self.number]))


@dataclass(slots=True)
class _Place:
    """One of the workers, through all its lives. Times are those of the monotonic clock, in seconds."""

    number: int
    pid: int | None = None
    started: float = 0.0
    start_at: float | None = 0.0
    quick_deaths: int = 0
    ready: bool = False


class Supervisor:
    """`run` keeps `workers` processes at `work` until a signal ends it.

    on_ready: called once, when all serve. on_stop: called once, before the workers are told to end.
    healthy: asked when a child process ended; False (the database has died) ends everything with status 1.
    """

    def __init__(
        self,
        work: Work,
        *,
        workers: int,
        grace: float,
        on_ready: Callable[[], None],
        on_stop: Callable[[], None],
        healthy: Callable[[], bool],
    ) -> None:
        self._work = work
        self._places = [_Place(number) for number in range(workers)]
        self._grace = grace
        self._on_ready, self._on_stop, self._healthy = on_ready, on_stop, healthy
        self._announced = False
        self._kill_at: float | None = None
        self._status = 0
        self._log = log.get(process="supervisor")

    def run(self, interrupted: Callable[[], bool] = lambda: False) -> int:
        """The exit status: 0 after a signal, 1 when the workers or the database could not be kept alive.

        interrupted: whether a signal has come before this could notice it.
        """
        with self._pipes(), self._watching_signals():
            if interrupted():
                self._stop(0)
            while self._kill_at is None or any(place.pid for place in self._places):
                self._start_due()
                self._wait()
        return self._status

    def _start_due(self) -> None:
        now = time.monotonic()
        for place in self._places:
            if place.start_at is not None and place.start_at <= now and self._kill_at is None:
                place.start_at, place.started, place.ready = None, now, False
                place.pid = self._fork(place.number)

    def _wait(self) -> None:
        readable, _, _ = select.select([self._signal_pipe, self._readiness[0]], [], [], self._patience())
        if self._readiness[0] in readable:
            self._note_ready(os.read(self._readiness[0], 512))
        if self._signal_pipe in readable:
            for number in os.read(self._signal_pipe, 512):
                self._on_signal(number)
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._kill()

    def _patience(self) -> float | None:
        due = [
            place.start_at for place in self._places if place.start_at is not None and self._kill_at is None
        ]
        due += [self._kill_at] if self._kill_at is not None else []
        return max(0.0, min(due) - time.monotonic()) if due else None

    # ------------------------------------------------------------ what happens

    def _note_ready(self, numbers: bytes) -> None:
        for number in numbers:
            self._places[number].ready = True
        if not self._announced and self._kill_at is None and all(place.ready for place in self._places):
            self._announced = True
            self._on_ready()

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP:
            self._tell(signal.SIGHUP)
        elif self._kill_at is None:
            self._log.info("stopping", signal=signal.Signals(number).name)
            self._stop(0)
        elif number == signal.SIGINT:
            self._kill()

    def _reap(self) -> None:
        for place in self._places:
            if place.pid is not None:
                pid, status = os.waitpid(place.pid, os.WNOHANG)
                if pid:
                    place.pid = None
                    self._on_death(place, os.waitstatus_to_exitcode(status))
        if self._kill_at is None and not self._healthy():
            self._log.critical("the embedded PostgreSQL has ended; see its log in the data directory")
            self._stop(1)

    def _on_death(self, place: _Place, status: int) -> None:
        if self._kill_at is not None:
            return
        now = time.monotonic()
        place.quick_deaths = place.quick_deaths + 1 if now - place.started < QUICK_DEATH else 0
        if place.quick_deaths >= QUICK_DEATHS:
            self._log.critical(
                "giving up: a worker dies whenever it is started", worker=place.number, status=status
            )
            self._stop(1)
            return
        delay = FIRST_DELAY * 2 ** (place.quick_deaths - 1) if place.quick_deaths else 0.0
        self._log.error("worker died", worker=place.number, status=status, restart_in=delay)
        place.start_at = now + delay

    # ------------------------------------------------------------ stopping

    def _stop(self, status: int) -> None:
        self._status = status
        self._kill_at = time.monotonic() + self._grace + STOP_MARGIN
        self._on_stop()
        self._tell(signal.SIGTERM)

    def _kill(self) -> None:
        self._log.warning("workers are killed", left=sum(place.pid is not None for place in self._places))
        self._kill_at = time.monotonic() + STOP_MARGIN
        self._tell(signal.SIGKILL)

    def _tell(self, kind: signal.Signals) -> None:
        for place in self._places:
            if place.pid is not None:  # not reaped yet, so the id is still that process's
                os.kill(place.pid, kind)

    # ------------------------------------------------------------ processes and pipes

    def _fork(self, number: int) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        # No signal may find the child with the supervisor's handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._become_worker(number)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        return pid

    def _become_worker(self, number: int) -> None:
        """Never returns: what the supervisor would clean up behind it is not this process's to clean up."""
        status = 1
        try:
            self._leave_supervisor()
            status = self._work(WorkerEnds(number, self._life[0], self._readiness[1]))
        except BaseException:  # noqa: BLE001  nothing may unwind into the supervisor's frames
            self._log.critical("worker failed", worker=number, exc_info=True)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _leave_supervisor(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # Ctrl-C reaches all processes; the supervisor will say what to do
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for end in (self._life[1], self._readiness[0], self._signal_pipe, self._wakeup):
            os.close(end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    @contextlib.contextmanager
    def _pipes(self) -> Iterator[None]:
        self._life, self._readiness = os.pipe(), os.pipe()
        self._signal_pipe, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        try:
            yield
        finally:
            for end in (*self._life, *self._readiness, self._signal_pipe, self._wakeup):
                os.close(end)

    @contextlib.contextmanager
    def _watching_signals(self) -> Iterator[None]:
        before = {kind: signal.signal(kind, _noted_by_the_pipe) for kind in _SIGNALS}
        signal.set_wakeup_fd(self._wakeup)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for kind, handler in before.items():
                signal.signal(kind, handler)


def _noted_by_the_pipe(_number: int, _frame: object) -> None:
    """Python writes the signal's number into the wake-up pipe; `_wait` reads it there."""
