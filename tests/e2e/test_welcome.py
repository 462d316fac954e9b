"""From a checkout to a first certificate: `scripts/serve`, then the lines it prints, pasted by an ordinary user."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.chains import Issued, assert_good
from tests.support.clients import find
from tests.support.server import ROOT, Server, started

pytestmark = pytest.mark.client

NOBODY = 65534
STEP_DOWN = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
# The capability is for a client that lies where only root may look (a checkout under /root).
REACH = (
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
    "--securebits=+no_setuid_fixup",
)
NOT_GIVEN = ("DATA", "CA_PASSWORD", "VALIDATION__RESOLVERS", "VALIDATION__ALLOW_NETWORKS", "WORKERS")
ISSUED = {
    "certbot": Issued(
        chain=Path("acme-ca-certbot/live/hello.localhost/fullchain.pem"),
        key=Path("acme-ca-certbot/live/hello.localhost/privkey.pem"),
    ),
    "lego": Issued(
        chain=Path("acme-ca-lego/certificates/hello.localhost.crt"),
        key=Path("acme-ca-lego/certificates/hello.localhost.key"),
    ),
}


@contextmanager
def empty_directory(*, mode: int) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="acme-ca-test-"))
    directory.chmod(mode)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="module", params=[0o755, 0o700], ids=["in an open folder", "in a private folder"])
def checkout(request) -> Iterator[Server]:
    """The server of `scripts/serve`, without any setting but the addresses, in an empty folder with a space in its name."""
    with empty_directory(mode=request.param) as directory:
        place = directory / "an empty place"
        place.mkdir()
        with started([ROOT / "scripts" / "serve"], place, without=NOT_GIVEN) as server:
            yield server


@pytest.mark.usefixtures("openssl", "curl")
@pytest.mark.parametrize("client", ["certbot", "lego"])
def test_the_printed_line_pasted_by_an_ordinary_user_gives_a_certificate(checkout, client):
    command = find(client)
    (line,) = [line for line in checkout.said().splitlines() if f" {client} " in line]
    with empty_directory(mode=0o755) as home:
        if os.geteuid() == 0:
            os.chown(home, NOBODY, NOBODY)
        pasted = subprocess.run(
            [*as_ordinary_user(command), "bash", "-c", line],
            cwd=home,
            env={"HOME": str(home), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert pasted.returncode == 0, pasted.stdout + pasted.stderr
        issued = Issued(chain=home / ISSUED[client].chain, key=home / ISSUED[client].key)
        assert_good(issued, "hello.localhost", root=checkout.root)
        if os.geteuid() == 0:
            assert issued.key.stat().st_uid == NOBODY


def as_ordinary_user(command: str) -> tuple[str, ...]:
    """The words before a command; none when we are an ordinary user."""
    if os.geteuid() != 0:
        return ()
    find("setpriv")
    # By way of a shell: the first program is still found with root's capabilities.
    asked = [*STEP_DOWN, "bash", "-c", '"$0" --version', command]
    tried = subprocess.run(asked, cwd="/", capture_output=True, check=False)
    return STEP_DOWN if tried.returncode == 0 else (*STEP_DOWN, *REACH)


def test_the_development_mode_is_said_loudly(checkout):
    assert "DEVELOPMENT MODE" in checkout.said()
    assert '"development mode' in checkout.log()


def test_the_password_of_the_ca_was_made_and_is_nobody_elses(checkout):
    assert "Made a password for the CA keys" in checkout.log()
    password = checkout.data / "ca-password"
    assert password.stat().st_mode & 0o777 == 0o600
    assert password.read_text().strip() not in checkout.said() + checkout.log()
