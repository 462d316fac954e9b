"""certbot and lego as commands, pointed at a test server, each with a folder of its own.

    certbot = Certbot(command="/usr/bin/certbot", server=server, home=tmp_path)
    certbot.run("certonly", *certbot.http01, "-d", "www.example.test", "--cert-name", "www")
    certbot.issued("www")

`run` fails the test when the command fails; `fail` when it succeeds. Both return what the command said. `attempt` takes
either.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.chains import Issued
from tests.support.dns import DnsServer
from tests.support.server import Server
from tests.support.sockets import TcpServer

TIME_LIMIT = 60.0
EMAIL = "owner@example.org"


_INSTALL = {
    "certbot": "pip install 'certbot>=5,<6' (in an environment of its own), and put it on PATH",
    "lego": "apt-get install lego",
    "openssl": "apt-get install openssl",
    "curl": "apt-get install curl",
    "setpriv": "apt-get install util-linux",
    "certtool": "apt-get install gnutls-bin",
    "ocsptool": "apt-get install gnutls-bin",
    "java": "apt-get install openjdk-17-jdk-headless",
    "javac": "apt-get install openjdk-17-jdk-headless",
    "softhsm2-util": "apt-get install softhsm2",
    "certutil": "apt-get install libnss3-tools",
    "chromium": "apt-get install chromium chromium-driver",
    "chromedriver": "apt-get install chromium-driver",
    "age": "apt-get install age",
    "age-keygen": "apt-get install age",
}


def find(command: str) -> str:
    """The path of a command. Without it the test is skipped, or fails under ACME_CA_REQUIRE_CLIENTS=1."""
    found = shutil.which(command)
    if found is None:
        reason = f"{command} is not installed: {_INSTALL[command]}."
        pytest.fail(reason) if os.environ.get("ACME_CA_REQUIRE_CLIENTS") == "1" else pytest.skip(reason)
    return found


@dataclass(frozen=True, kw_only=True)
class Command:
    """A client whose files are under `home`. `contact`: given with the registration."""

    command: str
    server: Server
    home: Path
    contact: str = EMAIL
    more_environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: str | Path) -> str:
        done = self.attempt(*arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def fail(self, *arguments: str | Path) -> str:
        done = self.attempt(*arguments)
        assert done.returncode != 0, done.stdout
        return done.stdout

    def attempt(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        ours = {"HOME": str(self.home), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **self._trust()}
        return subprocess.run(
            [self.command, *self._always(), *map(str, arguments)],
            env={**ours, **self.more_environment},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIME_LIMIT,
            check=False,
        )

    def _trust(self) -> dict[str, str]:
        raise NotImplementedError

    def _always(self) -> list[str]:
        raise NotImplementedError


class Certbot(Command):
    @property
    def http01(self) -> tuple[str, ...]:
        return (
            "--standalone",
            "--http-01-address=127.0.0.1",
            f"--http-01-port={self.server.http01_port}",
        )

    def dns01(self, hooks: DnsHooks) -> tuple[str, ...]:
        return (
            "--manual",
            "--preferred-challenges=dns",
            f"--manual-auth-hook={hooks.script} present _acme-challenge.$CERTBOT_DOMAIN $CERTBOT_VALIDATION",
            f"--manual-cleanup-hook={hooks.script} cleanup _acme-challenge.$CERTBOT_DOMAIN $CERTBOT_VALIDATION",
        )

    def issued(self, name: str) -> Issued:
        """`name`: as given by --cert-name."""
        lineage = self.home / "config" / "live" / name
        return Issued(chain=lineage / "fullchain.pem", key=lineage / "privkey.pem")

    def _trust(self) -> dict[str, str]:
        return {"REQUESTS_CA_BUNDLE": str(self.server.root)}

    def _always(self) -> list[str]:
        return [
            "--non-interactive",
            "--agree-tos",
            f"--email={self.contact}",
            f"--server={self.server.directory}",
            f"--config-dir={self.home / 'config'}",
            f"--work-dir={self.home / 'work'}",
            f"--logs-dir={self.home / 'logs'}",
        ]


class Lego(Command):
    @property
    def http01(self) -> tuple[str, ...]:
        return "--http", f"--http.port=127.0.0.1:{self.server.http01_port}"

    @property
    def tlsalpn01(self) -> tuple[str, ...]:
        return "--tls", f"--tls.port=127.0.0.1:{self.server.tlsalpn01_port}"

    def dns01(self, hooks: DnsHooks) -> tuple[str, ...]:
        """Needs EXEC_PATH, the script of the hooks, in the environment; there EXEC_SEQUENCE_INTERVAL, the seconds from
        one name to the next, is 60 by default.
        """
        return "--dns=exec", "--dns.disable-cp", f"--dns.resolvers={hooks.dns.address}"

    def issued(self, name: str) -> Issued:
        """`name`: the first of the names."""
        certificates = self.home / "certificates"
        file = name.replace("*", "_")
        return Issued(chain=certificates / f"{file}.crt", key=certificates / f"{file}.key")

    def _trust(self) -> dict[str, str]:
        return {"LEGO_CA_CERTIFICATES": str(self.server.root)}

    def _always(self) -> list[str]:
        return [
            "--accept-tos",
            f"--email={self.contact}",
            f"--server={self.server.directory}",
            f"--path={self.home}",
        ]


class DnsHooks(TcpServer):
    """Lets a client's hook change a DNS server: `script present NAME VALUE`, `script cleanup NAME VALUE`.

    The script ends when the record is there. `calls` keeps what was asked for.
    """

    def __init__(self, dns: DnsServer, directory: Path) -> None:
        self.dns = dns
        self.calls: list[tuple[str, str]] = []
        """(present or cleanup, name)."""
        super().__init__()
        self.script = directory / "dns-hook"
        self.script.write_text(_SCRIPT.format(host=self.host, port=self.port))
        self.script.chmod(0o755)

    def serve(self, connection) -> None:
        with connection.makefile("rw") as stream:
            action, name, value = stream.readline().split()
            self.calls.append((action, name.rstrip(".")))
            if action == "present":
                self.dns.add(name, "TXT", value)
            else:
                self.dns.remove(name, "TXT")
            stream.write("done\n")


_SCRIPT = """\
#!/usr/bin/env bash
exec 3<>/dev/tcp/{host}/{port}
echo "$*" >&3
read -r answer <&3
[ "$answer" = done ]
"""
