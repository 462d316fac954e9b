"""lego: registers, proves names in each way it knows, renews, revokes."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.chains import assert_good

pytestmark = pytest.mark.client


def domains(names) -> list[str]:
    return [f"--domains={name}" for name in names]


@pytest.mark.parametrize("challenge", ["http01", "tlsalpn01"])
@pytest.mark.parametrize("how_many", [1, 3], ids=["one name", "three names"])
def test_registers_and_issues(lego, new_hosts, how_many, challenge):
    hosts = new_hosts(how_many)
    lego.run(*domains(hosts), *getattr(lego, challenge), "run")
    assert_good(lego.issued(hosts[0]), *hosts, root=lego.server.root)
    (account,) = lego.home.glob("accounts/*/*/account.json")
    assert json.loads(account.read_text())["registration"]["uri"].startswith(lego.server.base)


def test_issues_a_wildcard_by_dns01(lego, hooks, new_hosts):
    (host,) = new_hosts(1)
    names = (f"*.{host}", host)
    lego.run(*domains(names), *lego.dns01(hooks), "run")
    assert_good(lego.issued(names[0]), *names, root=lego.server.root)
    assert hooks.calls.count(("present", f"_acme-challenge.{host}")) == 2


@pytest.mark.parametrize("challenge", ["http01", "tlsalpn01"])
def test_issues_for_an_address_from_lego_4_11_on(lego, challenge):
    """An older one asks for an address as if it were a name, and is told."""
    done = lego.attempt("--domains=127.0.0.1", *getattr(lego, challenge), "run")
    if done.returncode == 0:
        assert_good(lego.issued("127.0.0.1"), "127.0.0.1", root=lego.server.root)
    else:
        assert "403" in done.stdout
        assert "urn:ietf:params:acme:error:rejectedIdentifier" in done.stdout
        assert 'an address is an identifier of type "ip"' in done.stdout, "said to `dns` alone"
        assert list(lego.home.glob("certificates/*")) == []


def test_renews(lego, new_hosts):
    hosts = new_hosts(2)
    lego.run(*domains(hosts), *lego.http01, "run")
    before = lego.issued(hosts[0]).leaf
    lego.run(*domains(hosts), *lego.http01, "renew", "--days=91", "--no-random-sleep")
    after = lego.issued(hosts[0])
    assert after.leaf.serial_number != before.serial_number
    assert_good(after, *hosts, root=lego.server.root)


def test_revokes_with_its_account(lego, new_hosts):
    hosts = new_hosts(1)
    lego.run(*domains(hosts), *lego.http01, "run")
    revoke = (*domains(hosts), "revoke", "--keep", "--reason=4")
    lego.run(*revoke)
    assert "alreadyRevoked" in lego.fail(*revoke)


def test_uses_rsa_keys_for_account_and_certificate(lego, new_hosts):
    hosts = new_hosts(1)
    lego.run(*domains(hosts), "--key-type=rsa2048", *lego.http01, "run")
    issued = lego.issued(hosts[0])
    assert isinstance(issued.leaf.public_key(), rsa.RSAPublicKey)
    assert_good(issued, *hosts, root=lego.server.root)


def test_is_told_soon_why_a_validation_failed(lego, dns, new_hosts):
    """Lesson 33."""
    (host,) = new_hosts(1)
    dns.remove(host)
    dns.add(host, "A", "127.0.0.2")  # where nobody listens
    said = lego.fail(*domains([host]), *lego.http01, "run")
    assert "urn:ietf:params:acme:error:connection" in said
    assert "127.0.0.2" in said
