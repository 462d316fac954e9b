"""The data directory: what the server keeps on this machine.

<data>/             0755, so that everybody can read the root certificate
    root.pem        a copy of the root certificate, 0644
    ca/             0700: the keys and certificates of the hierarchy
    tls/            0700: the server's own certificate
    ocsp/           0700: the issuers' OCSP responders
    audit/          0700: the key that seals the audit
    audit-checkpoint.txt  how far the audit was sealed, against a trail cut off in the database
    admin.sock      0600: the way of commands on this machine, while the server runs; admin.sock.lock says whose it is
    postgres/       the embedded database
    restoring/      while a backup is being restored; nothing else begins here meanwhile (datadir.Filling)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from acme_ca.ca import folder
from acme_ca.config import ConfigurationError

SETTING = "ACME_CA_DATA"
RESTORING = "restoring"
WHOLE = "whole.json"
"""In the draft of a restore: nothing is missing there."""
ENDED = ".restored"
"""What the draft is called when all of it is in its place, until it is taken away."""
DATABASE = "postgres"
PATIENCE = 60.0
"""Seconds that a PostgreSQL whose restore was killed may take to end."""


def make(directory: Path) -> None:
    """Create `directory` when it is missing (an existing one keeps its mode). Raises ConfigurationError."""
    try:
        if not directory.is_dir():
            directory.mkdir(parents=True)
            directory.chmod(0o755)
    except OSError as error:
        raise ConfigurationError(f"{SETTING}: {directory} cannot be created: {_reason(error)}.") from None
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigurationError(f"{SETTING}: {directory} cannot be written by this user.")


@contextlib.contextmanager
def unchanged_when_refused(directory: Path) -> Iterator[None]:
    """What ends with ConfigurationError leaves nothing behind in `directory`, nor itself if it was not there.

    What others make meanwhile would be taken for ours, so they must wait. Raises ConfigurationError when this must.
    """
    with alone(directory):
        before = set(directory.iterdir())
        try:
            yield
        except ConfigurationError:
            for made in set(directory.iterdir()) - before:
                _remove(made)
            raise


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """In `directory`, which is made when it is missing, nobody else begins anything meanwhile.

    When ConfigurationError ends it, folders that were made and are empty go. Raises ConfigurationError.
    """
    with _held(directory):
        if (directory / RESTORING).exists():
            raise ConfigurationError(
                f"{SETTING}: a restore into {directory} was not finished; restore again, or empty the directory."
            )
        yield


@contextlib.contextmanager
def filling(directory: Path) -> Iterator[Filling]:
    """Nobody else begins anything in `directory` meanwhile. An exception takes away what was begun, unless it was whole.
    Raises ConfigurationError.
    """
    with _held(directory):
        begun = Filling(directory)
        try:
            yield begun
        except BaseException:
            begun.give_up()
            raise


class Filling:
    """What a restore puts into a directory: first in a folder where nobody looks for it, then, when all is there, in its
    place. Whenever it is killed, the next one begins anew or goes on:

    - before `complete`: there is a draft, with which nothing starts;
    - after it: the draft says that it is whole, and of what. Some of it may be in its place.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.draft = directory / RESTORING
        self._begun = False

    def left(self) -> str | None:
        """What `complete` was told by one that did not finish; None: there is nothing to go on with."""
        try:
            return (self.draft / WHOLE).read_text(encoding="utf-8")
        except OSError:
            return None

    def has(self, name: str) -> bool:
        """Whether this is in the draft, or in its place already."""
        return (self.draft / name).exists() or (self._directory / name).exists()

    def begin(self) -> Path:
        """An empty draft. Raises ConfigurationError: the directory is not empty."""
        _check_empty(self._directory)
        _remove_wholly(self.draft)
        # The user whom PostgreSQL runs as passes through; what is in it is private by itself.
        with written(self._directory):
            self.draft.mkdir(mode=0o711)
        self._begun = True
        return self.draft

    def complete(self, said: str) -> None:
        """All is there, durably. Raises ConfigurationError."""
        with written(self._directory):
            for place in self.draft.rglob("*"):
                if place.is_dir() and DATABASE not in place.relative_to(self.draft).parts[:1]:
                    folder.sync(place)
            folder.replace(self.draft / WHOLE, said.encode())
            folder.sync(self._directory)

    def finish(self) -> None:
        """Put all in its place: the database last, for without the files beside it it would be taken for whole. Raises
        ConfigurationError.
        """
        with written(self._directory):
            made = [path for path in self.draft.iterdir() if path.name != WHOLE]
            for path in sorted(made, key=lambda path: path.name == DATABASE):
                path.rename(self._directory / path.name)
            folder.sync(self._directory)
            # At once: an empty draft without a word in it could not be told from one that was never whole.
            ended = self.draft.rename(self._directory / ENDED)
            folder.sync(self._directory)
        _remove(ended)

    def give_up(self) -> None:
        if self._begun and self.left() is None:
            _remove(self.draft)


@contextlib.contextmanager
def written(directory: Path) -> Iterator[None]:
    """A disk that is full, or that fails, is a sentence. Raises ConfigurationError."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"{SETTING}: {directory} cannot be written: {_reason(error)}; put that right and restore again."
        ) from None


def _check_empty(directory: Path) -> None:
    there = {path.name for path in directory.iterdir()} - {"lost+found"}
    if there - {RESTORING}:
        again = " after a restore that was interrupted" if RESTORING in there else ""
        raise ConfigurationError(
            f"{SETTING}: {directory} is not empty{again}; a backup is restored into an empty directory."
        )
    owner = directory.stat().st_uid
    if os.geteuid() != owner:
        raise ConfigurationError(
            f"{SETTING}: {directory} belongs to user id {owner}; restore as that user, as whom the server runs."
        )


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[None]:
    missing = _missing(directory)
    make(directory)
    held = _claim(directory)
    try:
        yield
    except ConfigurationError:
        for made in missing:
            with contextlib.suppress(OSError):
                made.rmdir()
        raise
    finally:
        fcntl.flock(held, fcntl.LOCK_UN)  # children that were forked have the descriptor, too
        os.close(held)


def _claim(directory: Path) -> int:
    """The open folder, locked. Raises ConfigurationError."""
    try:
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigurationError(f"{SETTING}: {directory} cannot be read: {_reason(error)}.") from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise ConfigurationError(
            f"{SETTING}: another acme-ca is being set up or started in {directory}; wait until it is done."
        ) from None
    return held


def publish_root(directory: Path, pem: bytes) -> Path:
    """Put a copy of the root certificate where every user of the machine can read it; returns its path."""
    path = directory / "root.pem"
    if not path.is_file() or path.read_bytes() != pem:
        new = directory / "root.pem.new"
        new.write_bytes(pem)
        new.chmod(0o644)
        new.replace(path)
    return path


def _missing(directory: Path) -> list[Path]:
    """The folders that are not there yet, the innermost first."""
    absolute = directory.absolute()
    return [path for path in (absolute, *absolute.parents) if not path.exists()]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_wholly(path: Path) -> None:
    """A PostgreSQL that was killed a moment ago may still be writing there. Raises ConfigurationError."""
    deadline = time.monotonic() + PATIENCE
    _remove(path)
    while path.exists():
        if time.monotonic() > deadline:
            raise ConfigurationError(f"{SETTING}: {path} cannot be removed; empty the directory.")
        time.sleep(0.1)
        _remove(path)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
