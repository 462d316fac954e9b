"""The holders of an offline root's shares, at the terminal of a ceremony: they read, note, and type."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tests.support.terminal import Terminal

_CLEAR = "\x1b[H\x1b[2J\x1b[3J"


@dataclass
class Note:
    """What a holder wrote down."""

    words: list[str]
    fingerprint: str

    @property
    def confirmation(self) -> str:
        return self.fingerprint.replace(":", "")[-8:]


@dataclass
class People:
    """Who plays: the notes by the names of the holders."""

    notes: dict[str, Note] = field(default_factory=dict)

    def create_root(self, terminal: Terminal, *holders: str, password: str | None) -> tuple[int, str]:
        """Through `ceremony create-root`: its status, and what it said in the end. `password`: None when an intermediate's
        key is not made, so none is asked for.
        """
        if password is not None:
            self.choose_password(terminal, password)
        self.receive_all(terminal, *holders)
        return terminal.end()

    def choose_password(self, terminal: Terminal, password: str) -> None:
        terminal.answer("New password", password)
        terminal.answer("Repeat for confirmation", password)

    def receive_all(self, terminal: Terminal, *holders: str) -> None:
        for holder in holders:
            self.receive(terminal, holder)
            terminal.type(" ".join(self.notes[holder].words))
            self.confirm(terminal, holder)

    def open_root(self, terminal: Terminal, *holders: str) -> tuple[int, str]:
        """Through an act with a root that exists."""
        self.give_shares(terminal, *holders)
        return terminal.end()

    def give_shares(self, terminal: Terminal, *holders: str) -> None:
        for holder in holders:
            terminal.await_text("Name of its holder: ")
            terminal.type(holder)
            terminal.await_text("1> ")
            terminal.type(" ".join(self.notes[holder].words))

    def receive(self, terminal: Terminal, holder: str) -> None:
        """Up to where the words are to be typed again."""
        terminal.await_text(f"{holder} alone")
        self.look(terminal, holder)

    def look(self, terminal: Terminal, holder: str) -> None:
        terminal.await_text("Press Enter to see the share. ")
        terminal.type("")
        terminal.await_text("in their order:")
        shown, _ = terminal.await_text("And the fingerprint")
        numbered = {int(number): word for number, word in re.findall(r"(\d+)\. (\w+)", shown)}
        fingerprint, _ = terminal.await_text("Press Enter when all is written down. ")
        (digits,) = re.findall(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}", fingerprint)
        self.notes[holder] = Note([numbered[number] for number in sorted(numbered)], digits)
        terminal.type("")
        terminal.await_text(_CLEAR)
        terminal.await_text("1> ")

    def confirm(self, terminal: Terminal, holder: str) -> None:
        terminal.await_text("from your note: ")
        terminal.type(self.notes[holder].confirmation.lower())
        terminal.await_text(_CLEAR)
