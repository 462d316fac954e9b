"""The supervisor, over real processes: who is replaced, who is stopped, and with what status."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.server import ROOT


class Supervised:
    """`tests.support.supervised` under way."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.supervised", *arguments],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def read_until(self, wanted: str) -> list[str]:
        lines = []
        while wanted not in lines:
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            lines.append(line.strip())
        return lines

    def workers(self) -> dict[int, int]:
        """Process ids by number, of all that begin until they are ready."""
        begun = [line.split() for line in self.read_until("ready") if line.startswith("worker")]
        return {int(number): int(pid) for _, number, pid in begun}

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@contextmanager
def supervised(*arguments: str, **variables: str) -> Iterator[Supervised]:
    program = Supervised(*arguments, **variables)
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.process.kill()
        program.process.communicate()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_workers_and_the_status_is_0(kind):
    with supervised("obedient") as program:
        workers = program.workers()
        assert set(workers) == {0, 1}
        program.process.send_signal(kind)
        status, out, _ = program.end()
        assert status == 0
        assert out.split("\n")[:1] == ["stopping"]
        assert {"stopped 0", "stopped 1"} <= set(out.splitlines())


def test_a_worker_that_is_killed_gets_a_successor():
    with supervised("obedient") as program:
        workers = program.workers()
        os.kill(workers[1], signal.SIGKILL)
        line = program.process.stdout.readline().split()
        assert line[:2] == ["worker", "1"]
        assert int(line[2]) != workers[1]
        assert is_alive(workers[0])
        program.process.terminate()
        assert program.end()[0] == 0


@pytest.mark.parametrize("work", ["short_lived", "failing"])
def test_workers_that_die_at_once_are_given_up(work):
    with supervised(work) as program:
        status, _, err = program.end()
        assert status == 1
        assert "giving up: a worker dies whenever it is started" in err
        assert ("this worker cannot begin" in err) == (work == "failing")


def test_workers_end_when_the_supervisor_is_killed():
    with supervised("obedient") as program:
        workers = program.workers()
        program.process.kill()
        out, _ = program.process.communicate(timeout=30)  # ends when the last worker has closed its output
        assert {"stopped 0", "stopped 1"} <= set(out.splitlines())
        deadline = time.monotonic() + 30
        while any(is_alive(pid) for pid in workers.values()):
            assert time.monotonic() < deadline


def test_a_worker_that_does_not_stop_is_killed_after_the_grace(monkeypatch):
    with supervised("stubborn", "-4.5") as program:  # grace and margin: half a second
        workers = program.workers()
        program.process.terminate()
        status, _, err = program.end()
        assert status == 0
        assert "workers are killed" in err
        assert not any(is_alive(pid) for pid in workers.values())


def test_a_second_ctrl_c_hurries():
    with supervised("stubborn", "60") as program:
        program.workers()
        program.process.send_signal(signal.SIGINT)
        program.read_until("stopping")
        program.process.send_signal(signal.SIGINT)
        assert program.end()[0] == 0


def test_sighup_is_passed_on():
    with supervised("reloading") as program:
        program.workers()
        program.process.send_signal(signal.SIGHUP)
        said = {program.process.stdout.readline().strip() for _ in range(2)}
        assert said == {"reloaded 0", "reloaded 1"}
        program.process.terminate()
        assert program.end()[0] == 0


def test_a_dead_database_ends_everything_with_status_1(tmp_path):
    sign = tmp_path / "dead"
    with supervised("obedient", UNHEALTHY=str(sign)) as program:
        program.workers()
        sign.touch()
        program.process.send_signal(signal.SIGCHLD)
        status, _, err = program.end()
        assert status == 1
        assert "the embedded PostgreSQL has ended" in err
