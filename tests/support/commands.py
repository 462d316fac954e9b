"""`acme-ca` as processes that begin where the imports end: forked from one that has loaded the program.

Each command is a process with its own environment, folder, standard streams and exit status, and does what
`python -m acme_ca` does. Only half a second of imports is not done again for every one of the suite's many commands;
tests of starting itself run `python -m acme_ca`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, CompletedProcess
from typing import Any

from acme_ca.cli import PARTS

PACKAGE = "acme_ca"
_REQUEST_LIMIT = 200_000
_NUMBER = 4
"""Bytes of a number in an answer."""


# ---------------------------------------------------------------- in the test's process


def run(*arguments: str, variables: Mapping[str, str], place: Path, limit: float) -> CompletedProcess[str]:
    """Run `acme-ca` to its end, at most `limit` seconds, without standard input. Raises subprocess.TimeoutExpired."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        answers, theirs = socket.socketpair()
        with answers, Path(os.devnull).open() as nothing:
            with theirs:
                streams = [nothing.fileno(), stdout.fileno(), stderr.fileno(), theirs.fileno()]
                request = {"arguments": arguments, "variables": dict(variables), "place": str(place)}
                socket.send_fds(_loaded(), [json.dumps(request).encode()], streams)
            status = _status(answers, limit)
        for stream in (stdout, stderr):
            stream.seek(0)
        words = [sys.executable, "-m", PACKAGE, *arguments]
        return CompletedProcess(words, status, stdout.read(), stderr.read())


def _status(answers: socket.socket, limit: float) -> int:
    """The exit status of the process whose id comes first."""
    pid = _number(answers)
    answers.settimeout(limit)
    try:
        return _number(answers)
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        raise subprocess.TimeoutExpired(PACKAGE, limit) from None


def _number(answers: socket.socket) -> int:
    received = answers.recv(_NUMBER, socket.MSG_WAITALL)
    assert received, "the process that starts commands has ended"
    return int.from_bytes(received, signed=True)


_starting = threading.Lock()
_control: socket.socket | None = None


def _loaded() -> socket.socket:
    """Where the process listens that has loaded the program; it ends with this one."""
    global _control
    with _starting:
        if _control is None:
            _control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                words = [sys.executable, "-m", __name__, str(theirs.fileno())]
                started = subprocess.Popen(
                    words, pass_fds=[theirs.fileno()], stdin=DEVNULL, stdout=DEVNULL, env=_clean()
                )
            atexit.register(_end, _control, started)
    return _control


def _clean() -> dict[str, str]:
    """No setting, should one be read on import."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("ACME_CA_", "VCC_"))}
    return ours | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def _end(control: socket.socket, started: subprocess.Popen[bytes]) -> None:
    control.close()
    started.wait(10)


# ---------------------------------------------------------------- in the process that has loaded the program


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    for module in ("own", *(part.partition(":")[0] for part in PARTS.values())):
        importlib.import_module(f"{PACKAGE}.cli.{module}")
    assert len([*Path("/proc/self/task").iterdir()]) == 1, "a process with threads is not to be forked"
    gc.freeze()
    if request := _serve(control):
        _become(**request)
        runpy.run_module(PACKAGE, run_name="__main__", alter_sys=True)


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; returns it in the child, and None here when no more will come."""
    running: dict[int, tuple[int, int]] = {}
    ready = select.poll()
    ready.register(control, select.POLLIN)
    while True:
        for file, _ in ready.poll():
            if file != control.fileno():
                ready.unregister(file)
                _answer(file, *running.pop(file))
                continue
            content, files, *_ = socket.recv_fds(control, _REQUEST_LIMIT, 4)
            if not content:
                return None
            *streams, answers = files
            if (pid := os.fork()) == 0:
                _close(control.detach(), answers, *running, *(other for _, other in running.values()))
                return {**json.loads(content), "streams": streams}
            os.write(answers, pid.to_bytes(_NUMBER, signed=True))
            _close(*streams)
            running[ended := os.pidfd_open(pid)] = pid, answers
            ready.register(ended, select.POLLIN)


def _answer(ended: int, pid: int, answers: int) -> None:
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):  # nobody waits any more
        os.write(answers, os.waitstatus_to_exitcode(status).to_bytes(_NUMBER, signed=True))
    _close(answers, ended)


def _close(*files: int) -> None:
    for file in files:
        os.close(file)


def _become(
    *, arguments: Sequence[str], variables: Mapping[str, str], place: str, streams: Sequence[int]
) -> None:
    """A process that was started just now."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    _close(*streams)
    os.chdir(place)
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    sys.argv[1:] = arguments


if __name__ == "__main__":
    main()
