"""The file of a backup: a tar that `tar` reads, and that is read here with more suspicion.

Members are regular files of at most LIMIT bytes, so that neither side holds more than one in memory; what is longer is cut
into several. Links, devices, folders, extensions, absolute names and names with `..` are not written and not accepted.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tarfile import BLOCKSIZE, RECORDSIZE, TarInfo
from typing import BinaryIO, Protocol

from acme_ca.ca import folder
from acme_ca.config import ConfigurationError

LIMIT = 16 * 1024 * 1024
"""Bytes of a member."""
_CONTROL = 32


class DamagedBackup(ConfigurationError):  # noqa: N818  the name says it
    """The file is no backup, or not all of one, or not as it was made: one sentence."""


class Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Target(Protocol):
    def write(self, content: bytes, /) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    name: str
    mode: int
    content: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """Hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


class Writer:
    def __init__(self, target: Target, *, at: int) -> None:
        """`at`: the time that members bear, seconds since 1970."""
        self._target = target
        self._at = at
        self._written = 0

    def add(self, member: Member) -> None:
        """Raises ValueError when its name or its content is too long, ConfigurationError when it cannot be written."""
        if len(member.content) > LIMIT:
            raise ValueError(f"it has more than {LIMIT} bytes")
        header = TarInfo(member.name)
        header.size = len(member.content)
        header.mode = member.mode
        header.mtime = self._at
        self._write(header.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"))
        self._write(member.content)
        self._write(bytes(-len(member.content) % BLOCKSIZE))

    def end(self) -> None:
        self._write(bytes(2 * BLOCKSIZE))
        self._write(bytes(-self._written % RECORDSIZE))

    def _write(self, content: bytes) -> None:
        try:
            self._target.write(content)
        except OSError as error:
            raise _unwritable(error) from None
        self._written += len(content)


def members(source: Source) -> Iterator[Member]:
    """In their order. Raises DamagedBackup."""
    while any(block := _read(source, BLOCKSIZE)):
        header = _header(block)
        content = _read(source, header.size)
        if any(_read(source, -header.size % BLOCKSIZE)):
            raise DamagedBackup(f"The backup has something behind {header.name} that does not belong to it.")
        yield Member(name=header.name, mode=header.mode & 0o755, content=content)
    while rest := _some(source, RECORDSIZE):
        if any(rest):
            raise DamagedBackup("The backup goes on behind its end.")


def _header(block: bytes) -> TarInfo:
    try:
        header = TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError):
        raise DamagedBackup("The file is no backup of acme-ca, or it is damaged.") from None
    if header.type != tarfile.REGTYPE or header.linkname or not _is_plain(header.name):
        raise DamagedBackup(f"The backup has a member that no backup has: {header.name[:100]!r}.")
    if not 0 <= header.size <= LIMIT:
        raise DamagedBackup(f"The backup's member {header.name} has an impossible size.")
    return header


def _is_plain(name: str) -> bool:
    parts = name.split("/")
    return not any(part in {"", ".", ".."} for part in parts) and all(ord(char) >= _CONTROL for char in name)


def _read(source: Source, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        more = _some(source, size - len(found))
        if not more:
            raise DamagedBackup("The backup is cut off: a part of it is missing.")
        found += more
    return bytes(found)


def _some(source: Source, size: int) -> bytes:
    try:
        return source.read(size)
    except OSError as error:
        raise DamagedBackup(f"The backup cannot be read: {error.strerror or error}.") from None


# ---------------------------------------------------------------- the file itself


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file of mode 0600 that has its name when all of it is on disk; never in the place of another.

    What a crash leaves is `.NAME.partial`, which the next one of this name replaces. Of two that are made at once, the one
    that began first gives way. Raises ConfigurationError.
    """
    draft = path.with_name(f".{path.name}.partial")
    try:
        draft.unlink(missing_ok=True)
        if os.path.lexists(path):
            raise ConfigurationError(f"{path} exists and is left as it is; give another name.")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                _publish(file, draft, path)
            except BaseException:
                if _is_ours(file, draft):
                    draft.unlink()
                raise
    except FileExistsError:
        raise _overtaken(path) from None
    except OSError as error:
        raise _unwritable(error) from None


def _publish(file: BinaryIO, draft: Path, path: Path) -> None:
    """Raises FileExistsError when another one has the name meanwhile, ConfigurationError when it took the draft's."""
    if not _linked(file, draft, path):
        _reserved(file, draft, path)
    folder.sync(path.parent)


def _linked(file: BinaryIO, draft: Path, path: Path) -> bool:
    """Whether the open file, whatever its draft's name stands for by now, has got its name: a link takes nobody's place.
    False: not every file system has links, nor every system /proc.
    """
    try:
        with _opened(Path("/proc/self/fd")) as descriptors:
            os.link(str(file.fileno()), path, src_dir_fd=descriptors, follow_symlinks=True)
    except FileExistsError:
        raise
    except OSError:
        if _is_ours(file, draft):
            return False
        raise _overtaken(path) from None  # a file that has no name any more gets none
    if _is_ours(file, draft):
        draft.unlink(missing_ok=True)
    return True


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _reserved(file: BinaryIO, draft: Path, path: Path) -> None:
    """By a file of that name, empty for a moment, in whose place the draft goes: others that begin now give way to it."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    ours = False
    try:
        if _is_ours(file, draft):
            draft.replace(path)
        ours = _is_ours(file, path)
    finally:
        if not ours:
            path.unlink(missing_ok=True)
    if not ours:
        raise _overtaken(path)


def _overtaken(path: Path) -> ConfigurationError:
    return ConfigurationError(f"Another backup {path} was made meanwhile, and this one is thrown away.")


def _is_ours(file: BinaryIO, name: Path) -> bool:
    """And not what another one has put in its place, which is not whole."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(name))
    except FileNotFoundError:
        return False


def _unwritable(error: OSError) -> ConfigurationError:
    return ConfigurationError(f"The backup cannot be written: {error.strerror or error}.")
