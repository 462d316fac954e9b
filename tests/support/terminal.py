"""A program with a person at the keyboard, before 80 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from tests.support.server import environment, free_ports

PATIENCE = 60.0
"""Seconds without a sign of the program."""


class Terminal:
    def __init__(
        self,
        words: Sequence[str],
        *,
        variables: Mapping[str, str],
        place: Path | None = None,
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
    ) -> None:
        """`stdout`, `stderr`: where that goes instead of to the terminal."""
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        self._said = b""
        self.process = subprocess.Popen(
            words,
            env=dict(variables),
            cwd=place,
            stdin=theirs,
            stdout=stdout or theirs,
            stderr=stderr or theirs,
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509  single-threaded here
        )
        os.close(theirs)

    @classmethod
    def of_command(
        cls,
        place: Path,
        *arguments: str,
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
        **settings: str,
    ) -> Self:
        """`acme-ca` with the environment of a server at `place`, without the password of its keys."""
        variables = environment(place, free_ports(5), settings, without=("CA_PASSWORD",))
        words = [sys.executable, "-m", "acme_ca", *arguments]
        return cls(words, variables=variables, place=place, stdout=stdout, stderr=stderr)

    def answer(self, question: str, secret: str) -> None:
        """Type what is not to be seen, once the program has turned the echo off: what came before that is thrown away."""
        self.await_text(question)
        while termios.tcgetattr(self._ours)[3] & termios.ECHO:
            time.sleep(0.01)
        self.type(secret)

    def type(self, line: str) -> None:
        os.write(self._ours, line.encode() + b"\n")

    def await_text(self, *texts: str) -> tuple[str, str]:
        """What was shown before the first of the texts, and which one it is. AssertionError when none comes."""
        while True:
            found = [(self._said.find(text.encode()), text) for text in texts]
            if there := [(place, text) for place, text in found if place >= 0]:
                place, text = min(there)
                before, self._said = self._said[:place], self._said[place + len(text.encode()) :]
                return before.decode(), text
            try:
                self._said += self._more()
            except OSError:  # the last one at the terminal has gone, or is silent
                raise AssertionError(f"{texts} did not come, but: {self._said.decode()}") from None

    def _more(self) -> bytes:
        if not select.select([self._ours], [], [], PATIENCE)[0]:
            raise TimeoutError
        return os.read(self._ours, 4096)

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C, again after a while as a person does: one that comes on the way into a question is only seen behind it. As
        `end`.
        """
        self.process.send_signal(signal.SIGINT)
        with suppress(OSError):  # the last one at the terminal has gone
            while self.process.poll() is None:
                if select.select([self._ours], [], [], 5.0)[0]:
                    self._said += os.read(self._ours, 4096)
                else:
                    self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> tuple[int, str]:
        """Its status, and what it said since the last text that was awaited."""
        try:
            while more := self._more():
                self._said += more
        except TimeoutError:
            raise AssertionError(f"nothing more came than: {self._said.decode()}") from None
        except OSError:  # the last one at the terminal has gone
            pass
        os.close(self._ours)
        return self.process.wait(30), self._said.decode()


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
