"""A server started by any command, where `tests.support.server.running` starts `acme-ca serve --dev`."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.server import Server, environment, free_ports


@contextmanager
def started(
    command: Sequence[str | Path], place: Path, *, without: Collection[str] = (), **settings: str
) -> Iterator[Server]:
    """A ready server with its working directory `place`; `settings` and `without` as for `environment`."""
    ports = free_ports(5)
    variables = environment(place, ports, settings, without=without)
    https, http, http01, tlsalpn01, dns = ports
    with (place / "stdout").open("wb") as stdout, (place / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            command, env=variables, cwd=place, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
        )
    server = Server(
        place=place,
        https_port=https,
        http_port=http,
        http01_port=http01,
        tlsalpn01_port=tlsalpn01,
        dns_port=dns,
        environment=variables,
        process=process,
    )
    try:
        server.await_ready()
        yield server
    finally:
        if process.poll() is None:
            server.stop()
