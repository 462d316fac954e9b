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
    restoring/      while a backup is being restored; nothing else begins here meanwhile
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from acme_ca.ca import folder
from acme_ca.config import ConfigurationError

SETTING = "ACME_CA_DATA"
RESTORING = "restoring"


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
def filled(directory: Path) -> Iterator[Path]:
    """A draft of all that will be in `directory`, which must be empty; it is put there when the body has ended.

    What a crash leaves is the draft alone, which the next call takes away; or, in the instant of putting things in their
    places, some of them and a draft, with which nothing starts. Raises ConfigurationError.
    """
    with _held(directory):
        draft = directory / RESTORING
        _check_empty(directory)
        _remove(draft)
        draft.mkdir(
            mode=0o711
        )  # the user whom PostgreSQL runs as passes through; what is in it is private by itself
        try:
            yield draft
        except BaseException:
            _remove(draft)
            raise
        # The database last: without the files beside it, it would be taken for whole.
        for made in sorted(draft.iterdir(), key=lambda path: path.name == "postgres"):
            made.rename(directory / made.name)
        draft.rmdir()
        folder.sync(directory)


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


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
