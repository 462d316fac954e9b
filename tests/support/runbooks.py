r"""Runbooks that are carried out: every command of a page in docs/runbooks/, in its order, as a reader would type it.

A page's commands are in fenced blocks of the kind `console`; no other fenced blocks are allowed but `text` and `toml`, so
that nothing is shown that is not tried:

    ```console
    $ acme-ca ca list
    …  active  …
    $ cat > answers.toml <<END
    > [shares]
    > END
    ```

A line with `$ ` begins a command, lines with `> ` go on with it (as does a line that ends with a backslash). The others
are what it prints: each must occur in its output, in this order, where `…` stands for anything. A command whose status
is not 0 fails, unless the first line below it is `(refused)`.

Commands are run by bash, one after the other; directory and variables are kept. The settings of a server (ACME_CA_…)
are in the environment, `acme-ca` and its `python3` are on the PATH. `systemctl start|stop|restart acme-ca` starts and stops a real server
with those settings; it is ready when the command is over. Names below example.test lead to this machine.

What a reader does not see is said in a comment on the line before a block; it holds for that block:

    <!-- runbook: receive Alice Bob -->     its command hands out shares of a root at a terminal, to these holders
    <!-- runbook: give Alice Bob -->        its command opens a root at a terminal, with the shares that they noted
    <!-- runbook: password -->              its command asks at a terminal for a new password of the CA's keys, twice
    <!-- runbook: give Alice Bob, receive Dora Bob -->    one after the other
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.dns import DnsServer
from tests.support.holders import People
from tests.support.server import PASSWORD, SERVE, Server, prepared
from tests.support.terminal import Terminal

TIME_LIMIT = 150.0
REFUSED = "(refused)"
_BLOCK = re.compile(
    r"(?:^<!-- runbook: (?P<players>.*?) -->\n+)?^```(?P<kind>\w*)\n(?P<content>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_SERVICE = re.compile(r"(?:sudo )?systemctl (start|stop|restart) acme-ca")
_KINDS = {"console", "text", "toml"}


@dataclass(frozen=True, kw_only=True)
class Step:
    command: str
    expected: tuple[str, ...]
    players: tuple[tuple[str, ...], ...] = ()
    """Who plays at a terminal, act by act: what they do, and their names."""


def steps(page: str) -> list[Step]:
    """AssertionError for a page that shows what is not tried."""
    found: list[Step] = []
    for block in _BLOCK.finditer(page):
        assert block["kind"] in _KINDS, f"a block of the kind {block['kind']!r}"
        if block["kind"] == "console":
            acts = (block["players"] or "").split(",")
            players = tuple(tuple(act.split()) for act in acts if act)
            found += _steps_of(block["content"], players)
    return found


def _steps_of(content: str, players: tuple[tuple[str, ...], ...]) -> Iterator[Step]:
    before, *parts = re.split(r"^\$ ", content, flags=re.MULTILINE)
    assert not before.strip(), f"output without a command: {before}"
    for part in parts:
        first, *rest = part.rstrip("\n").split("\n")
        typed = [first]
        while rest and rest[0].startswith("> "):
            typed.append(rest.pop(0).removeprefix("> "))
        expected = tuple(line.strip() for line in rest if line.strip())
        yield Step(command="\n".join(typed), expected=expected, players=players)


class Reader:
    """Somebody who carries out a page on the machine of a server, which is not running yet."""

    def __init__(self, server: Server, desk: Path) -> None:
        self._server = server
        self._state = desk / "state"
        self._people = People()
        self._variables = {**server.environment, "PATH": f"{_with_command(desk)}:{os.environ['PATH']}"}
        self._desk = desk / "desk"
        self._desk.mkdir()

    def carry_out(self, step: Step) -> None:
        status, said = self._do(step)
        refused = step.expected[:1] == (REFUSED,)
        assert (status != 0) is refused, f"$ {step.command}\nended with {status}:\n{said}"
        position = 0
        for line in step.expected[refused:]:
            pattern = ".*".join(re.escape(part) for part in line.split("…"))
            match = re.compile(pattern).search(said, position)
            assert match, f"$ {step.command}\ndid not print\n  {line}\nbut\n{said}"
            position = match.end()

    def _do(self, step: Step) -> tuple[int, str]:
        if service := _SERVICE.fullmatch(step.command):
            return self._serve(service.group(1)), ""
        return self._play(step) if step.players else self._run(step.command)

    def _serve(self, act: str) -> int:
        if act != "start":
            assert self._server.stop() == 0
        if act != "stop":
            self._server.start_again()
        return 0

    def _run(self, command: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", f"{self._resume}\n{command}\nexport -p > {self._state}"],
            env=self._variables,
            cwd=self._desk,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIME_LIMIT,
            check=False,
        )
        return done.returncode, done.stdout

    def _play(self, step: Step) -> tuple[int, str]:
        """Without the password of the CA's keys: an offline machine does not have it."""
        words = ["bash", "-c", f"{self._resume}\nunset ACME_CA_CA_PASSWORD\n{step.command}"]
        terminal = Terminal(words, variables=self._variables, place=self._desk)
        for act, *names in step.players:
            if act == "password":
                self._people.choose_password(terminal, PASSWORD)
            elif act == "receive":
                self._people.receive_all(terminal, *names)
            else:
                assert act == "give", act
                self._people.give_shares(terminal, *names)
        return terminal.end()

    @property
    def _resume(self) -> str:
        """To the directory and the variables that the commands before have left."""
        return f'if [ -f {self._state} ]; then . {self._state}; cd "$PWD"; fi\nset -aeo pipefail'


@contextmanager
def reader(place: Path, dns: DnsServer) -> Iterator[Reader]:
    """Whatever server the page started is stopped."""
    server = prepared(SERVE, place, VALIDATION__RESOLVERS=dns.address, VALIDATION__RETRY_DELAY="0.1")
    try:
        yield Reader(server, place)
    finally:
        if server.running:
            server.stop()


def _with_command(place: Path) -> Path:
    """A folder with `acme-ca` in it, of this source, whichever is installed; and the Python that it runs on."""
    folder = place / "bin"
    folder.mkdir()
    for name, words in (("acme-ca", "-m acme_ca"), ("python3", "")):
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (folder / name).chmod(0o755)
    return folder
