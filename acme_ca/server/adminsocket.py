"""The Unix socket of the admin API: for commands on this machine, without a token.

Whoever may open it is an administrator: its mode is 0600, its owner the server's user. The kernel takes names of a
hundred characters only; a longer one is reached through the folder's descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from acme_ca.config import ConfigurationError, Settings
from acme_ca.server.sockets import BACKLOG

FILE = "admin.sock"
_CONNECT_TIMEOUT = 5.0
"""Seconds."""


def place(settings: Settings) -> Path:
    return settings.admin.socket or settings.data / FILE


def listen(settings: Settings) -> socket.socket:
    """A listening socket, for all workers. Raises ConfigurationError when another server has it."""
    path = place(settings)
    if (connected := connect(settings)) is not None:
        connected.close()
        raise ConfigurationError(f"ACME_CA_DATA: another server runs with {path.parent} already.")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with reachable(path) as name:
            _clear(Path(name))
            before = os.umask(0o177)
            try:
                listening.bind(name)
            finally:
                os.umask(before)
            listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            f"ACME_CA_ADMIN__SOCKET: cannot listen on {path}: {error.strerror or error}."
        ) from None
    return listening


def _clear(path: Path) -> None:
    """What a server left behind that was killed. Raises OSError for anything else: it is somebody's file."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "a file that is no socket is there")
        path.unlink()


def remove(settings: Settings) -> None:
    with contextlib.suppress(OSError):
        place(settings).unlink()


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
