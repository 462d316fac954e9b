"""The Unix socket of the admin API: for commands on this machine, without a token.

Whoever may open it is an administrator: its mode is 0600, its owner the server's user. The kernel takes names of a
hundred characters only; a longer one is reached through the folder's descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from acme_ca.config import ConfigurationError, Settings
from acme_ca.server.sockets import BACKLOG, PREDECESSOR_GRACE

FILE = "admin.sock"
LOCK = ".lock"
"""Behind the name of the socket: the file that its server keeps locked."""
_CONNECT_TIMEOUT = 5.0
"""Seconds."""


def place(settings: Settings) -> Path:
    return settings.admin.socket or settings.data / FILE


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """The socket, for all workers; it is gone afterwards. Raises ConfigurationError when another server has it.

    Who has the lock beside it has the socket: what is left of a server that was killed is in nobody's hands, and replaced.
    The workers of one whose supervisor alone was killed keep the lock until they have ended, too.
    """
    path = place(settings)
    with contextlib.ExitStack() as held:
        try:
            name = Path(held.enter_context(reachable(path)))
            _lock(name.with_name(name.name + LOCK), path, held)
            _clear(name)
            made = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            _bind(made, name)
        except OSError as error:
            raise ConfigurationError(
                f"ACME_CA_ADMIN__SOCKET: cannot listen on {path}: {error.strerror or error}."
            ) from None
        held.callback(_remove, name)
        yield made


def _lock(file: Path, path: Path, held: contextlib.ExitStack) -> None:
    """The file stays for ever: a lock on one that was deleted keeps nobody out."""
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    held.callback(os.close, lock)
    deadline = time.monotonic() + PREDECESSOR_GRACE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"ACME_CA_DATA: another server has the socket {path}; stop it, or give this one a directory of its own."
                ) from None
            time.sleep(0.05)
        else:
            return


def _bind(made: socket.socket, name: Path) -> None:
    before = os.umask(0o177)
    try:
        made.bind(str(name))
    finally:
        os.umask(before)
    made.listen(BACKLOG)


def _clear(path: Path) -> None:
    """What a server left behind that was killed. Raises OSError for anything else: it is somebody's file."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "a file that is no socket is there")
        path.unlink()


def _remove(name: Path) -> None:
    with contextlib.suppress(OSError):
        name.unlink()


@contextlib.contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A short name of the path, while the folder is open."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def connect(settings: Settings) -> socket.socket | None:
    """Connected to the server of these settings. None: none runs. Raises ConfigurationError when this user may not."""
    path = place(settings)
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.settimeout(_CONNECT_TIMEOUT)
    try:
        with reachable(path) as name:
            connected.connect(name)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        connected.close()
        return None
    except PermissionError:
        connected.close()
        raise ConfigurationError(
            f"{path}: only the server's own user and root may use this socket; give --server and --token instead."
        ) from None
    except OSError as error:
        connected.close()
        raise ConfigurationError(f"{path}: {error.strerror or error}.") from None
    connected.settimeout(None)
    return connected
