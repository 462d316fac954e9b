"""`acme-ca serve` as a process: its start, its restarts, and every setting that prevents the start."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import asyncpg
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from acme_ca.app.background import OWN_CERTIFICATE_INTERVAL
from acme_ca.server.tls import WATCH_INTERVAL
from acme_ca.storage.database import SCHEMA_VERSION
from tests.support.server import PASSWORD, Server, command, free_ports, running
from tests.support.tls import served_serial


def get(server: Server, path: str) -> bytes:
    with urllib.request.urlopen(server.base + path, context=server.tls(), timeout=10) as answer:
        return answer.read()


def get_plainly(server: Server, path: str) -> bytes:
    with urllib.request.urlopen(server.http_base + path, timeout=10) as answer:
        return answer.read()


def test_from_nothing_to_a_directory(tmp_path):
    place = tmp_path / "with space"
    place.mkdir()
    with running(place) as server:
        assert json.loads(get(server, "/acme/directory"))["newNonce"].startswith(server.base)
        assert get_plainly(server, "/ca/root.pem") == server.root.read_bytes()
        root = x509.load_pem_x509_certificate(server.root.read_bytes())
        assert root.fingerprint(hashes.SHA256()).hex(":").upper() in server.said()
        assert server.stop() == 0
    for line in server.log().splitlines():
        assert json.loads(line)["level"] in {"info", "warning"}, line
    assert PASSWORD not in server.log() + server.said()


def test_sigterm_during_the_start_leaves_no_process(tmp_path):
    with running(tmp_path) as server:
        server.stop()
        server.process = subprocess.Popen(
            server.process.args, env=dict(server.environment), cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        children = []
        while not children:  # the database is the first
            children = psutil.Process(server.process.pid).children(recursive=True)
        assert server.stop() == 0
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []


def test_a_killed_server_leaves_no_process_and_starts_again_at_once(tmp_path):
    with running(tmp_path) as server:
        fingerprint = server.root.read_bytes()
        processes = psutil.Process(server.process.pid).children(recursive=True)
        server.process.kill()
        server.process.wait()
        server.start_again()
        assert get_plainly(server, "/ca/root.pem") == fingerprint
        assert get(server, "/acme/directory")
        _, alive = psutil.wait_procs(processes, timeout=20)
        assert alive == []


def test_a_killed_worker_is_replaced_and_clients_hardly_notice(tmp_path):
    with running(tmp_path) as server:
        workers = [
            child
            for child in psutil.Process(server.process.pid).children()
            if child.name() != "postgres" and child.status() != psutil.STATUS_ZOMBIE
        ]
        assert len(workers) == 2
        workers[0].kill()
        for _ in range(10):  # some of them wait in the dead worker's backlog for its successor
            assert get(server, "/acme/directory")


async def test_its_own_certificate_is_replaced_when_it_was_revoked(tmp_path):
    """While it serves, and at every worker. What an attacker who had the key could show is known as revoked."""
    with running(tmp_path) as server:
        stolen = await served_serial(server.https_port)
        server.operate("cert", "revoke", f"{stolen:x}", "--reason", "keyCompromise", "--yes")
        deadline = time.monotonic() + OWN_CERTIFICATE_INTERVAL + WATCH_INTERVAL + 10
        while {await served_serial(server.https_port) for _ in range(8)} & {stolen}:
            assert time.monotonic() < deadline, server.log()
            await asyncio.sleep(0.2)
        assert json.loads(get(server, "/acme/directory"))["newNonce"].startswith(server.base)
        kept = x509.load_pem_x509_certificate((server.data / "tls" / "server.pem").read_bytes())
        assert await served_serial(server.https_port) == kept.serial_number


def test_a_dead_database_ends_the_server(tmp_path):
    with running(tmp_path) as server:
        (database,) = [c for c in psutil.Process(server.process.pid).children() if c.name() == "postgres"]
        database.kill()
        assert server.process.wait(20) == 1
        assert "the embedded PostgreSQL has ended" in server.log()
        server.start_again()
        assert get(server, "/acme/directory")


def test_it_may_be_reached_by_an_address(tmp_path):
    (port,) = free_ports(1)
    base = f"https://127.0.0.1:{port}"
    with running(tmp_path, HTTPS_LISTEN=f"127.0.0.1:{port}", PUBLIC_URL=base) as server:
        with urllib.request.urlopen(f"{base}/acme/directory", context=server.tls(), timeout=10) as answer:
            assert json.load(answer)["newNonce"].startswith(base)
        assert f"{base}/acme/directory" in server.said()


async def test_an_external_database_is_used_instead_of_the_embedded_one(tmp_path, empty_database_url):
    def serve() -> None:
        with running(tmp_path, DATABASE_URL=empty_database_url) as server:
            assert get(server, "/acme/directory")
            assert not (server.data / "postgres").exists()

    await asyncio.to_thread(serve)


def test_a_slip_of_the_pen_in_a_variable_is_named(tmp_path):
    with running(tmp_path, HTTPS_LISTENN="x") as server:
        assert slips(server.log()) == ["ACME_CA_HTTPS_LISTENN"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        pytest.param({}, "acme-ca init", id="there is no CA"),
        pytest.param({"WORKERS": "0"}, "ACME_CA_WORKERS", id="a wrong setting"),
        pytest.param({"CONFIG": "/nonexistent.toml"}, "ACME_CA_CONFIG", id="no settings file"),
    ],
)
def test_a_slip_of_the_pen_is_named_also_where_the_start_is_refused(tmp_path, settings, says):
    done = command(tmp_path, "serve", WORKRES="2", HTTPS_LISTENN="x", **settings)
    assert slips(done.stderr) == ["ACME_CA_HTTPS_LISTENN", "ACME_CA_WORKRES"]
    assert_refused(done, says)


def slips(stderr: str) -> list[str]:
    """The variables that are warned of, each once."""
    lines = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    return sorted(line["variable"] for line in lines if line["level"] == "warning" and "variable" in line)


# ---------------------------------------------------------------- starts that are refused


def sentences(stderr: str) -> list[str]:
    """Standard error without the log lines."""
    return [line for line in stderr.splitlines() if not line.startswith("{")]


def assert_refused(done: subprocess.CompletedProcess[str], says: str) -> None:
    assert done.returncode == 2, done.stderr
    (sentence,) = sentences(done.stderr)
    assert says in sentence
    assert sentence.endswith(".")
    assert done.stdout == ""


def files(place: Path) -> dict[str, bytes]:
    """But those of the database, which is started and stopped to be looked at."""
    found = (path for path in place.rglob("*") if path.is_file() and "postgres" not in path.parts)
    return {str(path): path.read_bytes() for path in found}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        pytest.param({"HTTPS_LISTEN": "here"}, "ACME_CA_HTTPS_LISTEN", id="no listen address"),
        pytest.param({"HTTPS_LISTEN": "192.0.2.1:8443"}, "ACME_CA_HTTPS_LISTEN", id="a foreign address"),
        pytest.param({"HTTP_LISTEN": "127.0.0.1:0"}, "ACME_CA_HTTP_LISTEN", id="no port"),
        pytest.param({"WORKERS": "0"}, "ACME_CA_WORKERS", id="no workers"),
        pytest.param({"PUBLIC_URL": "http://localhost"}, "ACME_CA_PUBLIC_URL", id="ACME without TLS"),
        pytest.param(
            {"PUBLIC_URL": "https://a_b"}, "ACME_CA_PUBLIC_URL", id="a host no certificate can hold"
        ),
        pytest.param({"CA_PASSWORD": "short"}, "ACME_CA_CA_PASSWORD", id="a short password for a new CA"),
        pytest.param({"DATABASE_URL": "mysql://db/x"}, "ACME_CA_DATABASE_URL", id="no PostgreSQL"),
        pytest.param(
            {"DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/x"}, "ACME_CA_DATABASE_URL", id="unreachable"
        ),
        pytest.param({"DATA": "/proc/acme-ca"}, "ACME_CA_DATA", id="a data directory that cannot be made"),
        pytest.param({"CONFIG": "/nonexistent.toml"}, "ACME_CA_CONFIG", id="no settings file"),
        pytest.param({"VALIDATION__TIMEOUT": "soon"}, "ACME_CA_VALIDATION__TIMEOUT", id="a nested setting"),
        pytest.param(
            {"WEAK_KEYS_FILES": "/nonexistent"}, "ACME_CA_WEAK_KEYS_FILES", id="no list of weak keys"
        ),
        pytest.param({"DEFAULT_PROFILE": "nonsense"}, "ACME_CA_DEFAULT_PROFILE", id="an unknown profile"),
    ],
)
def test_a_setting_that_prevents_the_start_is_named_and_nothing_is_written(tmp_path, settings, says):
    done = command(tmp_path, "serve", "--dev", **settings)
    assert_refused(done, says)
    assert "hunter2" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_password_and_a_terminal_the_start_is_refused(tmp_path):
    done = command(tmp_path, "serve", "--dev", without=("CA_PASSWORD",))
    assert_refused(done, "ACME_CA_CA_PASSWORD")
    assert list(tmp_path.iterdir()) == []


def test_a_password_file_that_cannot_be_read_is_refused(tmp_path):
    done = command(
        tmp_path, "serve", "--dev", without=("CA_PASSWORD",), CA_PASSWORD_FILE=str(tmp_path / "none")
    )
    assert_refused(done, "ACME_CA_CA_PASSWORD_FILE")
    assert list(tmp_path.iterdir()) == []


def test_production_does_not_make_a_ca(tmp_path):
    assert_refused(command(tmp_path, "serve"), "acme-ca init")
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_refused(tmp_path):
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        done = command(tmp_path, "serve", "--dev", HTTPS_LISTEN=f"127.0.0.1:{port}")
    assert_refused(done, "ACME_CA_HTTPS_LISTEN")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "settings", "says"),
    [
        pytest.param(lambda ca: None, {"CA_PASSWORD": "the wrong one"}, "password is wrong", id="password"),
        pytest.param(lambda ca: (ca / "intermediate.key").unlink(), {}, "cannot be read", id="no key"),
        pytest.param(
            lambda ca: (ca / "intermediate.key").write_bytes(b"x"), {}, "ACME_CA_DATA", id="a spoilt key"
        ),
        pytest.param(
            lambda ca: (ca / "intermediate.key").chmod(0o644), {}, "open to other users", id="a key for all"
        ),
        pytest.param(lambda ca: (ca / "root.pem").write_bytes(b"x"), {}, "ACME_CA_DATA", id="no certificate"),
    ],
)
def test_a_ca_that_cannot_be_used_prevents_the_start_and_stays_as_it_is(
    tmp_path, spoil: Callable[[Path], None], settings, says
):
    assert command(tmp_path, "init").returncode == 0
    spoil(tmp_path / "data" / "ca")
    before = files(tmp_path)
    assert_refused(command(tmp_path, "serve", **settings), says)
    assert files(tmp_path) == before


async def test_a_database_of_a_newer_version_prevents_the_start(tmp_path, database_url):
    connection = await asyncpg.connect(database_url)
    await connection.execute("INSERT INTO schema_version (version) VALUES ($1)", SCHEMA_VERSION + 1)
    await connection.close()
    done = await asyncio.to_thread(command, tmp_path, "serve", "--dev", DATABASE_URL=database_url)
    assert_refused(done, "ACME_CA_DATABASE_URL")
    assert list(tmp_path.iterdir()) == []


async def test_a_host_that_no_certificate_can_hold_prevents_the_start_before_the_database_is_touched(
    tmp_path, empty_database_url
):
    settings = {"DATABASE_URL": empty_database_url, "PUBLIC_URL": "https://a_b"}
    done = await asyncio.to_thread(command, tmp_path, "serve", "--dev", **settings)
    assert_refused(done, "ACME_CA_PUBLIC_URL")
    assert list(tmp_path.iterdir()) == []
    connection = await asyncpg.connect(empty_database_url)
    made = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    assert await connection.fetchval(made) == 0
    await connection.close()


# ---------------------------------------------------------------- the lines to paste


@pytest.mark.client
@pytest.mark.parametrize("client", ["certbot", "lego"])
def test_the_pasted_line_gives_a_certificate(tmp_path, client):
    if shutil.which(client) is None:
        reason = f"{client} is not installed"
        pytest.fail(reason) if os.environ.get("ACME_CA_REQUIRE_CLIENTS") else pytest.skip(reason)
    home = tmp_path / "home"
    home.mkdir()
    with running(tmp_path) as server:
        (line,) = [line for line in server.said().splitlines() if f" {client} " in line]
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=home,
            env={"PATH": os.environ["PATH"], "HOME": str(home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    pattern = "certificates/hello.localhost.crt" if client == "lego" else "live/hello.localhost/fullchain.pem"
    (chain,) = home.glob(f"acme-ca-{client}/{pattern}")
    leaf = x509.load_pem_x509_certificate(chain.read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["hello.localhost"]


def test_the_server_stops_within_the_time_a_service_manager_gives(tmp_path):
    with running(tmp_path) as server:
        started = time.monotonic()
        assert server.stop(signal.SIGINT) == 0
        assert time.monotonic() - started < 10, "Docker's patience"
