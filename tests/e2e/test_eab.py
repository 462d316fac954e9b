"""External account binding (RFC 8555 §7.3.4) from `acme-ca eab` to the clients, on a server that asks for it."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from acme import messages

from tests.support.acme_client import AcmeClient
from tests.support.chains import assert_good
from tests.support.clients import Certbot, Lego, find
from tests.support.parallel import at_once
from tests.support.server import Server, running

pytestmark = pytest.mark.client


@pytest.fixture(scope="module")
def strict(tmp_path_factory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("strict"), EAB_REQUIRED="true") as server:
        yield server


@dataclass(frozen=True)
class EabKey:
    kid: str
    hmac_key: str


def eab(server: Server, *arguments: str) -> str:
    """What `acme-ca eab` prints."""
    return server.operate("eab", *arguments)


def new_eab_key(server: Server, *options: str) -> EabKey:
    made = json.loads(eab(server, "create", "--owner", "Web team", *options, "--json"))
    assert made.pop("state") == "active"
    return EabKey(**made)


def register(server: Server, key: EabKey | None) -> str:
    """`valid`, or the type of the error."""
    with AcmeClient(server) as client:
        binding = {"external_account_binding": client.bind(key.kid, key.hmac_key)} if key else {}
        try:
            return client.register(**binding).body.status
        except messages.Error as error:
            return error.code


@pytest.mark.usefixtures("openssl")
def test_certbot_registers_with_a_key(strict, tmp_path):
    key = new_eab_key(strict)
    certbot = Certbot(command=find("certbot"), server=strict, home=tmp_path)
    certbot.fail("register")
    certbot.run("register", f"--eab-kid={key.kid}", f"--eab-hmac-key={key.hmac_key}")
    certbot.run("certonly", *certbot.http01, "--cert-name=main", "--domain=www.localhost")
    assert_good(certbot.issued("main"), "www.localhost", root=strict.root)


@pytest.mark.usefixtures("openssl")
def test_lego_registers_with_a_key(strict, tmp_path):
    key = new_eab_key(strict)
    lego = Lego(command=find("lego"), server=strict, home=tmp_path)
    wish = ("--domains=www.localhost", *lego.http01)
    lego.fail(*wish, "run")
    lego.run(*wish, "--eab", f"--kid={key.kid}", f"--hmac={key.hmac_key}", "run")
    assert_good(lego.issued("www.localhost"), "www.localhost", root=strict.root)


def test_the_text_for_people_has_the_words_for_both_clients(strict):
    said = eab(strict, "create", "--owner", "Web team")
    kid, hmac_key = (said.partition(label)[2].split()[0] for label in ("Key id:", "HMAC key:"))
    assert register(strict, EabKey(kid, hmac_key)) == "valid"
    for words in (("--eab-kid", "--eab-hmac-key"), ("--eab", "--kid", "--hmac")):
        (line,) = [line for line in said.splitlines() if all(f" {word}" in line for word in words)]
        assert kid in line
        assert hmac_key in line


def test_without_a_key_or_with_a_wrong_one_there_is_no_account(strict):
    good, other = new_eab_key(strict), new_eab_key(strict)
    assert register(strict, None) == "externalAccountRequired"
    assert register(strict, EabKey(good.kid, other.hmac_key)) == "unauthorized"
    assert register(strict, EabKey("unknown", good.hmac_key)) == "unauthorized"
    assert register(strict, good) == "valid"


def test_a_key_for_one_account_makes_one_account_however_many_ask_at_once(strict):
    """Lesson 14."""
    key = new_eab_key(strict, "--max-accounts", "1")
    answers = Counter(at_once([lambda: register(strict, key) for _ in range(8)]))
    assert answers == {"valid": 1, "unauthorized": 7}
    (listed,) = [found for found in json.loads(eab(strict, "list", "--json")) if found["id"] == key.kid]
    assert (listed["accounts"], listed["max_accounts"]) == (1, 1)


def test_a_revoked_key_makes_no_account(strict):
    key = new_eab_key(strict)
    eab(strict, "revoke", key.kid, "--yes")
    assert register(strict, key) == "unauthorized"


def test_no_secret_is_listed_or_logged(strict):
    """Lesson 15."""
    key = new_eab_key(strict)
    assert register(strict, key) == "valid"
    assert key.hmac_key not in eab(strict, "list") + eab(strict, "list", "--json")
    assert key.hmac_key not in strict.log() + strict.said()


def test_keys_can_be_made_while_the_server_is_down(tmp_path):
    with running(tmp_path, EAB_REQUIRED="true") as server:
        server.stop()
        key = new_eab_key(server)
        server.start_again()
        assert register(server, key) == "valid"


# ---------------------------------------------------------------- approved names, and the end of a key

FOLLOWS = 3.5
"""Seconds: every worker has noticed by then what an operator approved, also on a busy machine."""
NAMES = ("approved.example", "*.approved.example")
"""They lead nowhere: nobody could prove them."""


def approve(server: Server, key: EabKey) -> None:
    reason = ("--reason", "no way in from here", "--expires-in", "1 day", "--yes")
    server.operate("scope", "approve", "suffix:approved.example", "--eab-key", key.kid, *reason)
    time.sleep(FOLLOWS)


@pytest.mark.usefixtures("openssl")
def test_certbot_gets_approved_names_without_a_challenge(strict, tmp_path):
    key = new_eab_key(strict)
    approve(strict, key)
    certbot = Certbot(command=find("certbot"), server=strict, home=tmp_path)
    certbot.run("register", f"--eab-kid={key.kid}", f"--eab-hmac-key={key.hmac_key}")
    domains = [f"--domain={name}" for name in NAMES]
    certbot.run("certonly", *certbot.http01, "--cert-name=main", *domains)
    assert_good(certbot.issued("main"), *NAMES, root=strict.root)
    certbot.run("renew", *certbot.http01, "--force-renewal", "--no-random-sleep-on-renew")


@pytest.mark.usefixtures("openssl")
def test_lego_gets_approved_names_without_a_challenge(strict, tmp_path):
    key = new_eab_key(strict)
    approve(strict, key)
    lego = Lego(command=find("lego"), server=strict, home=tmp_path)
    bound = ("--eab", f"--kid={key.kid}", f"--hmac={key.hmac_key}")  # lego wants it of every command
    wish = [*(f"--domains={name}" for name in NAMES), *lego.http01, *bound]
    lego.run(*wish, "run")
    assert_good(lego.issued(NAMES[0]), *NAMES, root=strict.root)
    lego.run(*wish, "renew", "--days=91", "--no-random-sleep")


@pytest.mark.usefixtures("openssl")
def test_lesson_14_certbot_cannot_renew_when_its_key_is_revoked(strict, tmp_path):
    key = new_eab_key(strict)
    certbot = Certbot(command=find("certbot"), server=strict, home=tmp_path)
    certbot.run("register", f"--eab-kid={key.kid}", f"--eab-hmac-key={key.hmac_key}")
    certbot.run("certonly", *certbot.http01, "--cert-name=main", "--domain=www.localhost")
    said = eab(strict, "revoke", key.kid, "--reason", "left", "--revoke-certificates", "superseded", "--yes")
    assert "accounts frozen: 1" in said
    assert "Certificates revoked: 1" in said
    told = certbot.fail("renew", *certbot.http01, "--force-renewal", "--no-random-sleep-on-renew")
    assert "This account is frozen" in told


@pytest.mark.usefixtures("openssl")
def test_lesson_14_lego_cannot_renew_when_its_key_is_revoked(strict, tmp_path):
    key = new_eab_key(strict)
    lego = Lego(command=find("lego"), server=strict, home=tmp_path)
    bound = ("--eab", f"--kid={key.kid}", f"--hmac={key.hmac_key}")
    wish = ("--domains=www.localhost", *lego.http01, *bound)
    lego.run(*wish, "run")
    eab(strict, "revoke", key.kid, "--yes")
    assert "This account is frozen" in lego.fail(*wish, "renew", "--days=91", "--no-random-sleep")
