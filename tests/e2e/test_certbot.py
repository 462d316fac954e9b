"""certbot 5: registers, proves names in each way it knows, renews, revokes."""

import re
from datetime import datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.chains import assert_good
from tests.support.clients import Certbot
from tests.support.issuing import names_of

pytestmark = pytest.mark.client


def domains(names) -> list[str]:
    return [f"--domain={name}" for name in names]


def test_registers_and_changes_its_contact(certbot):
    certbot.run("register")
    changed = Certbot(
        command=certbot.command, server=certbot.server, home=certbot.home, contact="new@example.org"
    )
    changed.run("update_account")
    said = certbot.run("show_account")
    assert f"Account URL: {certbot.server.base}/" in said
    assert "new@example.org" in said


@pytest.mark.parametrize("how_many", [1, 3], ids=["one name", "three names"])
def test_issues_by_http01(certbot, new_hosts, how_many):
    hosts = new_hosts(how_many)
    certbot.run("certonly", *certbot.http01, "--cert-name=main", *domains(hosts))
    assert_good(certbot.issued("main"), *hosts, root=certbot.server.root)


def test_issues_a_wildcard_by_dns01(certbot, hooks, new_hosts):
    (host,) = new_hosts(1)
    names = (f"*.{host}", host)
    certbot.run("certonly", *certbot.dns01(hooks), "--cert-name=wild", *domains(names))
    assert_good(certbot.issued("wild"), *names, root=certbot.server.root)
    assert hooks.calls.count(("present", f"_acme-challenge.{host}")) == 2


def test_issues_for_an_ip_address(certbot):
    certbot.run("certonly", *certbot.http01, "--cert-name=address", "--ip-address=127.0.0.1")
    assert_good(certbot.issued("address"), "127.0.0.1", root=certbot.server.root)


def test_renews(certbot, new_hosts):
    hosts = new_hosts(2)
    certbot.run("certonly", *certbot.http01, "--cert-name=main", *domains(hosts))
    before = certbot.issued("main").leaf
    certbot.run("renew", "--force-renewal", "--no-random-sleep-on-renew")
    after = certbot.issued("main")
    assert after.leaf.serial_number != before.serial_number
    assert after.leaf.public_key() != before.public_key()
    assert_good(after, *hosts, root=certbot.server.root)


def test_renews_when_the_operator_moves_its_window(certbot, new_hosts):
    """RFC 9773: 90 days are left, and nothing but the renewal information says that it is time."""
    certbot.run("certonly", *certbot.http01, "--cert-name=main", *domains(new_hosts(1)))
    before = certbot.issued("main").leaf
    renew = ("renew", "--no-random-sleep-on-renew")
    assert "not yet due for renewal" in certbot.run(*renew)
    assert certbot.issued("main").leaf == before
    certbot.server.operate("cert", "window", f"{before.serial_number:x}", "--end", "2020-01-01")
    assert "not yet due for renewal" in certbot.run(*renew), "it was told to ask again in six hours"
    let_six_hours_pass(certbot, "main")
    certbot.run(*renew)
    after = certbot.issued("main").leaf
    assert after.serial_number != before.serial_number
    assert names_of(after) == names_of(before)
    let_six_hours_pass(certbot, "main")
    assert "not yet due for renewal" in certbot.run(*renew), "the new one has a window of its own"
    assert certbot.issued("main").leaf == after


def let_six_hours_pass(certbot: Certbot, name: str) -> None:
    """For what certbot wrote down when it asked: the time before which it does not ask again."""
    file = certbot.home / "config" / "renewal" / f"{name}.conf"
    text, found = re.subn(
        r"(?<=^ari_retry_after = ).+$",
        lambda time: (datetime.fromisoformat(time[0]) - timedelta(hours=6)).isoformat(timespec="seconds"),
        file.read_text(),
        flags=re.MULTILINE,
    )
    assert found == 1, file.read_text()
    file.write_text(text)


def test_revokes_with_its_account(certbot, new_hosts):
    certbot.run("certonly", *certbot.http01, "--cert-name=main", *domains(new_hosts(1)))
    revoke = (
        "revoke",
        "--no-delete-after-revoke",
        "--reason=superseded",
        f"--cert-path={certbot.issued('main').chain}",
    )
    certbot.run(*revoke)
    assert "This certificate is revoked already" in certbot.fail(*revoke)


def test_revokes_an_rsa_certificate_with_its_key_and_no_account(certbot, new_hosts, tmp_path):
    certbot.run("certonly", *certbot.http01, "--cert-name=main", "--key-type=rsa", *domains(new_hosts(1)))
    issued = certbot.issued("main")
    assert isinstance(issued.leaf.public_key(), rsa.RSAPublicKey)
    stranger = Certbot(command=certbot.command, server=certbot.server, home=tmp_path / "stranger")
    stranger.home.mkdir()
    revoke = (
        "revoke",
        "--no-delete-after-revoke",
        "--reason=keycompromise",
        f"--cert-path={issued.chain}",
        f"--key-path={issued.key}",
    )
    stranger.run(*revoke)
    assert "This certificate is revoked already" in stranger.fail(*revoke)
    assert not list(stranger.home.glob("config/accounts/**/regr.json"))


def test_is_told_soon_why_a_validation_failed(certbot, dns, new_hosts):
    """Lesson 33."""
    (host,) = new_hosts(1)
    dns.remove(host)
    dns.add(host, "A", "127.0.0.2")  # where nobody listens
    said = certbot.fail("certonly", *certbot.http01, *domains([host]))
    assert host in said
    assert "connection refused" in said
    assert "127.0.0.2" in said
