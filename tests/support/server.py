"""A real server in an empty place: its own data directory, its own ports, a process of its own."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import commands

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery staple"
START_LIMIT = 120.0
STOP_LIMIT = 60.0
SERVE = (sys.executable, "-m", "acme_ca", "serve")


@dataclass(kw_only=True)
class Server:
    """Where a server is, and the ports on which its validators look for the clients."""

    place: Path
    https_port: int
    http_port: int
    http01_port: int
    tlsalpn01_port: int
    dns_port: int
    started_by: Sequence[str | Path]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def data(self) -> Path:
        return self.place / "data"

    @property
    def root(self) -> Path:
        """The root certificate, for clients to trust."""
        return self.data / "root.pem"

    @property
    def base(self) -> str:
        return f"https://localhost:{self.https_port}"

    @property
    def http_base(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def directory(self) -> str:
        return f"{self.base}/acme/directory"

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.root))

    def said(self) -> str:
        """Standard output so far."""
        return (self.place / "stdout").read_text()

    def log(self) -> str:
        """Standard error so far."""
        return (self.place / "stderr").read_text()

    def issuers(self, state: str) -> list[str]:
        """The ids of the intermediates in that state."""
        found = json.loads(self.operate("ca", "list", "--json"))
        return [
            issuer["id"] for issuer in found if (issuer["kind"], issuer["state"]) == ("intermediate", state)
        ]

    def await_ready(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while "is ready" not in self.said() or "lego " not in self.said():
            status = self.process.poll()
            assert status is None, f"acme-ca serve ended with {status}:\n{self.log()}"
            assert time.monotonic() < deadline, f"acme-ca serve is not ready:\n{self.log()}"
            time.sleep(0.02)

    def operate(self, *arguments: str) -> str:
        """What `acme-ca` prints, beside the running server."""
        done = self.command(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `acme-ca` to its end, beside the running server."""
        return commands.run(*arguments, variables=self.environment, place=self.place, limit=STOP_LIMIT)

    @property
    def running(self) -> bool:
        return hasattr(self, "process") and self.process.poll() is None

    def stop(self, kind: signal.Signals = signal.SIGTERM) -> int:
        """Send `kind` and wait; the exit status."""
        self.process.send_signal(kind)
        try:
            return self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"acme-ca serve did not stop:\n{self.log()}") from None

    def start_again(self) -> None:
        """For the first time, after `stop`, or after its process was killed: the same place, the same ports."""
        self.process = _launch(self.started_by, self.place, self.environment)
        self.await_ready()


def assert_audited(server: Server) -> None:
    """All that the server issued and revoked is in order."""
    settings = {**server.environment, "ACME_CA_DEV": "true"}
    done = commands.run("audit", "check", variables=settings, place=server.place, limit=START_LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr


def free_ports(count: int) -> list[int]:
    """TCP ports on loopback that are free, all different.

    They are below those that the system gives to whoever asks for any, and each test process has some of its own: what
    is free now is free when the test uses it.
    """
    return [port for _, port in zip(range(count), _free_ports, strict=False)]


def _unused() -> Iterator[int]:
    """For ever. Where the system gives out all ports, one that was free a moment ago."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    each = (_LAST_PORT - _FIRST_PORT) // processes
    place = random.randrange(each)
    while True:
        place = (place + 1) % each
        wanted = _FIRST_PORT + number * each + place if lowest > _LAST_PORT else 0
        with suppress(OSError):
            yield _bound(wanted)


def _bound(port: int) -> int:
    """The port, after it was found free. Raises OSError."""
    with socket.create_server(("127.0.0.1", port)) as held:
        found: int = held.getsockname()[1]
    return found


_FIRST_PORT, _LAST_PORT = 12_000, 32_000
_free_ports = _unused()


def environment(
    place: Path, ports: list[int], settings: Mapping[str, str], *, without: Collection[str] = ()
) -> dict[str, str]:
    """A clean environment with the settings of a server at `place`; `settings` win, those in `without` are left out.

    Both are without the prefix ACME_CA_.
    """
    https, http, http01, tlsalpn01, dns = ports
    ours = {
        "DATA": str(place / "data"),
        "HTTPS_LISTEN": f"127.0.0.1:{https}",
        "HTTP_LISTEN": f"127.0.0.1:{http}",
        "PUBLIC_URL": f"https://localhost:{https}",
        "PUBLIC_HTTP_URL": f"http://127.0.0.1:{http}",  # pkilint wants a dot in the hosts of certificates' URLs
        "VALIDATION__HTTP01_PORT": str(http01),
        "VALIDATION__TLSALPN01_PORT": str(tlsalpn01),
        "VALIDATION__RESOLVERS": f"127.0.0.1:{dns}",
        "VALIDATION__ALLOW_NETWORKS": "127.0.0.0/8,::1/128",
        "CA_PASSWORD": PASSWORD,
        "WORKERS": "2",
        **settings,
    }
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("ACME_CA_", "VCC_"))
    }
    return {
        **inherited,
        "PYTHONPATH": str(ROOT),
        **{f"ACME_CA_{name}": value for name, value in ours.items() if name not in without},
    }


def running(place: Path, **settings: str) -> AbstractContextManager[Server]:
    """A ready server in the empty folder `place`; `settings` by their names without the prefix: `EAB_REQUIRED="true"`."""
    return started([*SERVE, "--dev"], place, **settings)


@contextmanager
def started(
    words: Sequence[str | Path], place: Path, *, without: Collection[str] = (), **settings: str
) -> Iterator[Server]:
    """A ready server by any command, with its working directory `place`; `settings`, `without` as for `environment`."""
    server = prepared(words, place, without=without, **settings)
    try:
        server.start_again()
        yield server
    finally:
        if server.running:
            server.stop()


def prepared(
    words: Sequence[str | Path], place: Path, *, without: Collection[str] = (), **settings: str
) -> Server:
    """A server that `start_again` starts; else as `started`."""
    ports = free_ports(5)
    https, http, http01, tlsalpn01, dns = ports
    return Server(
        place=place,
        https_port=https,
        http_port=http,
        http01_port=http01,
        tlsalpn01_port=tlsalpn01,
        dns_port=dns,
        started_by=words,
        environment=environment(place, ports, settings, without=without),
    )


def command(
    place: Path, *arguments: str, without: Collection[str] = (), **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run `acme-ca` to its end, with the environment of a server at `place` (`settings` as for `running`)."""
    variables = environment(place, free_ports(5), settings, without=without)
    return commands.run(*arguments, variables=variables, place=place, limit=START_LIMIT)


def _launch(
    words: Sequence[str | Path], place: Path, variables: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    with (place / "stdout").open("wb") as stdout, (place / "stderr").open("ab") as stderr:
        return subprocess.Popen(
            words,
            env=dict(variables),
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
