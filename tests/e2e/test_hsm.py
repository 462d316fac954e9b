"""certbot and an issuer whose key was made inside an HSM (SoftHSM), from the command that makes it to its absence."""

import json
import time
import urllib.error
import urllib.request

import pytest

from tests.support import server
from tests.support.chains import assert_good
from tests.support.clients import Certbot, find
from tests.support.softhsm import PIN, SoftHsm

pytestmark = pytest.mark.client

PATIENCE = 60.0


@pytest.fixture
def hsm(tmp_path, monkeypatch) -> SoftHsm:
    return SoftHsm(tmp_path, monkeypatch)


@pytest.fixture
def served(hsm, tmp_path, dns):
    place = tmp_path / "server"
    place.mkdir()
    settings = {"VALIDATION__RESOLVERS": dns.address, "VALIDATION__RETRY_DELAY": "0.1", "WORKERS": "1"}
    with server.running(place, **settings) as started:
        yield started


def health(served) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(served.http_base + "/health") as answer:
            return answer.status, json.load(answer)["checks"]["issuer_key"]
    except urllib.error.HTTPError as answer:
        return answer.code, json.load(answer)["checks"]["issuer_key"]


def await_health(served, status: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while health(served)[0] != status:
        assert time.monotonic() < deadline, health(served)
        time.sleep(0.5)


def pin_file(directory):
    pin = directory / "pin"
    pin.write_text(PIN)
    pin.chmod(0o600)
    return pin


def test_a_key_is_moved_from_its_file_while_the_server_runs(served, hsm, new_hosts, tmp_path, openssl):
    (issuer,) = served.issuers("active")
    place = hsm.uri("issuing", pin_source=f"file:{pin_file(tmp_path)}")
    served.operate("key", "migrate", issuer, place)
    (served.data / "ca" / "intermediate.key").unlink()
    time.sleep(3)  # two seconds are promised
    certbot = Certbot(command=find("certbot"), server=served, home=tmp_path / "certbot")
    certbot.home.mkdir()
    (host,) = new_hosts(1)
    certbot.run("certonly", *certbot.http01, "-d", host, "--cert-name", "www")
    assert_good(certbot.issued("www"), host, root=served.root)
    hsm.go_away()
    said = certbot.fail("certonly", *certbot.http01, "-d", host, "--cert-name", "www", "--force-renewal")
    assert "out of reach" in said, "it is the HSM that signs"


def test_certbot_and_a_key_that_never_leaves_the_hsm(served, hsm, new_hosts, tmp_path, openssl):
    place = hsm.uri("issuing", pin_source=f"file:{pin_file(tmp_path)}")
    served.operate("ca", "create-intermediate", "--key-uri", place)
    (staged,) = served.issuers("staged")
    served.operate("ca", "activate", staged)
    time.sleep(3)  # two seconds are promised
    certbot = Certbot(command=find("certbot"), server=served, home=tmp_path / "certbot")
    certbot.home.mkdir()
    (host,) = new_hosts(1)
    certbot.run("certonly", *certbot.http01, "-d", host, "--cert-name", "www")
    issued = certbot.issued("www")
    assert_good(issued, host, root=served.root)
    assert issued.leaf.issuer.rfc4514_string() == "CN=Development Intermediate CA 2"
    assert health(served) == (200, "ok")

    hsm.go_away()
    said = certbot.fail("certonly", *certbot.http01, "-d", host, "--cert-name", "www", "--force-renewal")
    assert "out of reach" in said
    await_health(served, 503)

    hsm.come_back()
    await_health(served, 200)
    certbot.run("certonly", *certbot.http01, "-d", host, "--cert-name", "www", "--force-renewal")
    assert_good(certbot.issued("www"), host, root=served.root)
    served.stop()
    served.start_again()
    certbot.run("certonly", *certbot.http01, "-d", host, "--cert-name", "www", "--force-renewal")
    assert PIN not in served.log()
