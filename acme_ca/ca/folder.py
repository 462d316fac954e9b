"""A folder of keys and certificates that comes into being wholly, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


class FolderExists(Exception):  # noqa: N818  the name says it
    """There is something at the place where a new folder should go: one sentence. It is left as it is."""


@contextlib.contextmanager
def new_folder(directory: Path) -> Iterator[Path]:
    """A draft, of mode 0700, that is put at `directory` when the body has ended, and is thrown away when it fails.

    Raises FolderExists when there is anything at `directory` but an empty folder, OSError when nothing can be written
    there. What a crash may leave is a hidden folder beside `directory`.
    """
    if _occupied(directory):
        raise FolderExists(f"{directory} exists and is left as it is; name another place or move it away.")
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        yield draft
        sync(draft)
        _move(draft, directory)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync(directory.parent)


def write(path: Path, content: bytes) -> None:
    """A new file, durably. Raises OSError, also when it exists."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: bytes) -> None:
    """A file, durably, in place of the one that may be there: at no moment is it half of it. Raises OSError."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    write(draft, content)
    move(draft, path)


def move(draft: Path, path: Path) -> None:
    """A file to its place, durably, whatever is there. Raises OSError."""
    draft.replace(path)
    sync(path.parent)


def _occupied(directory: Path) -> bool:
    try:
        return any(directory.iterdir())
    except FileNotFoundError:
        return False
    except OSError:  # a file, or a folder that is not ours to look into
        return True


def _move(draft: Path, directory: Path) -> None:
    try:
        draft.rename(directory)  # takes the place of an empty folder only
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise FolderExists(
                f"{directory} was made by someone else at the same time and is left as it is."
            ) from None
        raise


def sync(folder: Path) -> None:
    """The names in it are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
