"""A service from its registration to the end of its key: what its owner pastes, and what its operator sees."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from tests.support.clients import find
from tests.support.server import Server, running

pytestmark = pytest.mark.client


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    with running(tmp_path_factory.mktemp("strict"), EAB_REQUIRED="true") as server:
        yield server


@pytest.fixture
def machine(strict, tmp_path) -> Path:
    """The service's own: its owner has saved the root."""
    (tmp_path / "root.pem").write_bytes(strict.root.read_bytes())
    # certbot's folders are the system's, unless it is told otherwise
    settings = tmp_path / ".config" / "letsencrypt" / "cli.ini"
    settings.parent.mkdir(parents=True)
    folders = (f"{name}-dir = {tmp_path / 'certbot' / name}\n" for name in ("config", "work", "logs"))
    settings.write_text("".join(folders))
    return tmp_path


def paste(line: str, machine: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", line],
        cwd=machine,
        env={"PATH": os.environ["PATH"], "HOME": str(machine), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )


def register(server: Server, service: str, *domains: str) -> dict:
    options = [option for domain in domains for option in ("--domain", domain)]
    return json.loads(server.operate("service", "register", service, "--owner", "Trade", *options, "--json"))


def certificates_of(server: Server, service: str) -> list[dict]:
    return json.loads(server.operate("cert", "list", "--service", service, "--json"))


def test_registered_pasted_seen_revoked_refused_and_read(strict, machine):
    find("lego")
    made = register(strict, "orders", "orders.localhost", "www.orders.localhost")
    line, kid = made["eab"]["lego"], made["eab"]["kid"]
    done = paste(line, machine)
    assert done.returncode == 0, done.stdout
    (leaf, *_) = x509.load_pem_x509_certificates(
        (machine / ".lego" / "certificates" / "orders.localhost.crt").read_bytes()
    )
    (seen,) = certificates_of(strict, "orders")
    assert seen["serial"] == f"{leaf.serial_number:032x}"

    strict.operate("eab", "revoke", kid, "--reason", "The machine was sold.", "--yes")
    renewal = paste(line.removesuffix(" run") + " renew --days 1000 --no-random-sleep", machine)
    assert renewal.returncode != 0
    assert "unauthorized" in renewal.stdout
    assert len(certificates_of(strict, "orders")) == 1

    told = json.loads(strict.operate("audit", "list", "--object", f"eab_key:{kid}", "--json"))
    (revoked,) = [event for event in told if event["event"] == "eab-key.revoked"]
    assert revoked["detail"]["reason"] == "The machine was sold."
    assert revoked["actor"].startswith("operator:")
    account = strict.operate("audit", "list", "--object", f"account:{seen['account']}", "--json")
    (frozen,) = [event for event in json.loads(account) if event["event"] == "account.frozen"]
    assert frozen["detail"]["eab_key"] == kid


def test_the_certbot_line_works_as_it_is(strict, machine):
    find("certbot")
    made = register(strict, "bills", "bills.localhost")
    done = paste(made["eab"]["certbot"], machine)
    assert done.returncode == 0, done.stdout
    (seen,) = certificates_of(strict, "bills")
    (leaf, *_) = x509.load_pem_x509_certificates(
        (machine / "certbot" / "config" / "live" / "bills.localhost" / "fullchain.pem").read_bytes()
    )
    assert seen["serial"] == f"{leaf.serial_number:032x}"


def test_the_key_is_for_the_domains_of_its_service(strict, machine):
    find("lego")
    made = register(strict, "letters", "letters.localhost")
    other = made["eab"]["lego"].replace("letters.localhost", "bills.localhost")
    done = paste(other, machine)
    assert done.returncode != 0
    assert "rejectedIdentifier" in done.stdout
    assert certificates_of(strict, "letters") == []
