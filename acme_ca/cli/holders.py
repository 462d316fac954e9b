"""The holders of the shares: people at a terminal, or files in a rehearsal."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import typer
from pydantic import BaseModel, ConfigDict, ValidationError

from acme_ca.ca import shares
from acme_ca.ca.shares import Share, ShareError
from acme_ca.config import ConfigurationError

CONFIRMED = 8
"""Hexadecimal digits at the end of the root's fingerprint that each holder types."""
CLEAR = "\x1b[H\x1b[2J\x1b[3J"
"""Empties the screen and what can be scrolled back to."""
COLUMNS = 3


class Holders(Protocol):
    rehearsal: bool

    def hand_out(self, holder: str, share: Share, fingerprint: str) -> Share:
        """Show a share to its holder; the share as he noted it, after he has proved that and confirmed the root."""

    def collect(self) -> list[tuple[str, Share]]:
        """As many shares as are needed, each with its holder's name."""


def holders(answers: Path | None) -> Holders:
    """Raises ConfigurationError when there is neither a file of answers nor a terminal."""
    if answers is not None:
        return Files(answers)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigurationError("A ceremony needs a terminal for the holders, or --answers for a rehearsal.")
    return Terminal()


# ---------------------------------------------------------------- people


class Terminal:
    """The holders are talked to by standard error, which is no file: shares are shown there. Standard output is free for
    the transcript, and whatever reads that.
    """

    rehearsal = False

    def hand_out(self, holder: str, share: Share, fingerprint: str) -> Share:
        try:
            self._show(holder, share, fingerprint)
            noted = self._typed_again(holder, share, fingerprint)
            self._confirm(holder, fingerprint)
        finally:
            _say(CLEAR)
        return noted

    def collect(self) -> list[tuple[str, Share]]:
        given: list[tuple[str, Share]] = []
        while not given or len(given) < given[0][1].threshold:
            of = f" of {given[0][1].threshold}" if given else ""
            try:
                name = _ask(f"{CLEAR}Share {len(given) + 1}{of}. Name of its holder: ")
                given.append((name, _read_share(name, [share for _, share in given])))
            finally:
                _say(CLEAR)
        return given

    def _show(self, holder: str, share: Share, fingerprint: str) -> None:
        _say(f"{CLEAR}This screen is for {holder} alone. Everyone else turns away.\n")
        _ask("Press Enter to see the share. ")
        _say(f"{CLEAR}{holder}, write down these {shares.WORDS} words in their order:\n\n{_table(share)}\n")
        _say(f"And the fingerprint of the root, which is no secret:\n\n  {fingerprint}\n\n")
        _ask("Press Enter when all is written down. ")

    def _typed_again(self, holder: str, share: Share, fingerprint: str) -> Share:
        while True:
            _say(f"{CLEAR}{holder}, type your {shares.WORDS} words from your note.\n")
            try:
                noted = shares.read(_words())
                if noted.words == share.words:
                    return noted
                raise ShareError("This is a share, but not yours.")  # noqa: TRY301
            except ShareError as error:
                _say(f"{error}\n")
            if _ask("Press Enter to type it again, or type show to see the share again: ") == "show":
                self._show(holder, share, fingerprint)

    def _confirm(self, holder: str, fingerprint: str) -> None:
        expected = fingerprint.replace(":", "")[-CONFIRMED:]
        question = f"{holder}, type the last {CONFIRMED} digits of the root's fingerprint from your note: "
        while _ask(question).replace(":", "").replace(" ", "").upper() != expected:
            _say("The fingerprint ends otherwise. Look at your note again.\n")


def _read_share(name: str, others: Sequence[Share]) -> Share:
    _say(f"{CLEAR}{name}, type the {shares.WORDS} words of your share.\n")
    while True:
        try:
            share = shares.read(_words())
            shares.check_goes_with(share, others)
        except ShareError as error:
            _say(f"{error} Try again, or give up with Ctrl-C.\n")
        else:
            return share


def _words() -> str:
    """As many as a share has, on as many lines as it takes."""
    _say("In one line or several; four letters of each word suffice.\n")
    typed: list[str] = []
    while len(typed) < shares.WORDS:
        typed += _ask(f"{len(typed) + 1}> ").split()
    return " ".join(typed)


def _table(share: Share) -> str:
    numbered = [f"{number:>4}. {word:<10}" for number, word in enumerate(share.words, 1)]
    rows = -(-len(numbered) // COLUMNS)
    return "".join("".join(numbered[row::rows]) + "\n" for row in range(rows))


def _ask(question: str) -> str:
    """A line that is typed. Not by `input`: what it may keep as history, the next holder could call up."""
    _say(question)
    line = sys.stdin.readline()
    if not line:
        raise typer.Abort
    return line.strip()


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


# ---------------------------------------------------------------- files


class _Answers(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    shares: dict[str, Path] = {}
    """By holder: the file that the share is read from; in create-root, written to."""
    new_shares: dict[str, Path] = {}
    """In reshare: the files that the shares of the new holders are written to."""


class Files:
    """For rehearsals and tests: whoever has the files has the root."""

    rehearsal = True

    def __init__(self, answers: Path) -> None:
        try:
            read = _Answers.model_validate(tomllib.loads(answers.read_text()))
        except (OSError, ValidationError, tomllib.TOMLDecodeError, UnicodeDecodeError):
            raise ConfigurationError(
                f"{answers} is no file of answers: a table [shares] with a line NAME = FILE for each holder."
            ) from None
        self._given = {name: answers.parent / path for name, path in read.shares.items()}
        self._received = self._given | {name: answers.parent / path for name, path in read.new_shares.items()}

    def hand_out(self, holder: str, share: Share, fingerprint: str) -> Share:  # noqa: ARG002
        path = self._received.get(holder)
        if path is None:
            raise ConfigurationError(f"The answers name no file for the share of {holder}.")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise ConfigurationError(f"The share {path} cannot be written: {error.strerror}.") from None
        with os.fdopen(descriptor, "w") as file:
            file.write(" ".join(share.words) + "\n")
        return _from_file(path)

    def collect(self) -> list[tuple[str, Share]]:
        return [(name, _from_file(path)) for name, path in self._given.items()]


def _from_file(path: Path) -> Share:
    try:
        return shares.read(path.read_text())
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"The share {path} cannot be read.") from None
    except ShareError as error:
        raise ConfigurationError(f"{path}: {error}") from None
