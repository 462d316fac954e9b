"""The data directory: what the server keeps on this machine.

<data>/             0755, so that everybody can read the root certificate
    root.pem        a copy of the root certificate, 0644
    ca/             0700: the keys and certificates of the hierarchy
    tls/            0700: the server's own certificate
    ocsp/           0700: the issuers' OCSP responders
    postgres/       the embedded database
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from acme_ca.config import ConfigurationError

SETTING = "ACME_CA_DATA"


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
    """A start that ends with ConfigurationError leaves nothing behind in `directory`, nor itself if it was not there."""
    root = _topmost_missing(directory)
    before = set(directory.iterdir()) if root is None and directory.is_dir() else set()
    try:
        yield
    except ConfigurationError:
        for made in {root} if root is not None else _entries(directory) - before:
            _remove(made)
        raise


def publish_root(directory: Path, pem: bytes) -> Path:
    """Put a copy of the root certificate where every user of the machine can read it; returns its path."""
    path = directory / "root.pem"
    if not path.is_file() or path.read_bytes() != pem:
        new = directory / "root.pem.new"
        new.write_bytes(pem)
        new.chmod(0o644)
        new.replace(path)
    return path


def _topmost_missing(directory: Path) -> Path | None:
    absolute = directory.absolute()
    missing = [path for path in (absolute, *absolute.parents) if not path.exists()]
    return missing[-1] if missing else None


def _entries(directory: Path) -> set[Path]:
    return set(directory.iterdir()) if directory.is_dir() else set()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
