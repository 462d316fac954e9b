"""Two-person approval as two operators meet it: each with a token, somewhere else than on the server's machine."""

import json
import re
import sys

import pexpect
import pytest

from tests.support.server import running


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("two"), ADMIN__TWO_PERSON="all") as started:
        yield started


def as_somebody(server, token, *arguments) -> tuple[int, str]:
    """What they read on their terminal, without its line breaks; questions are answered with yes."""
    way = ("--server", server.base, "--ca", str(server.root))
    child = pexpect.spawn(
        sys.executable,
        ["-m", "acme_ca", *arguments, *way],
        env={**server.environment, "ACME_CA_TOKEN": token, "TERM": "xterm"},
        cwd=server.place,
        encoding="utf-8",
        timeout=60,
    )
    read = ""
    while child.expect([r"\[y/N\]: ", pexpect.EOF]) == 0:
        read += child.before
        child.sendline("y")
    read += child.before
    child.close()
    return child.exitstatus, " ".join(re.sub(r"\x1b\[[0-9;]*m", "", read).split())


@pytest.fixture(scope="module")
def alice(server) -> str:
    """Her token."""
    return made(server, "alice")


def made(server, name, *way) -> str:
    words = ("token", "create", "--name", name, "--role", "administrator", "--json", *way)
    return str(json.loads(server.operate(*words))["token"])


def test_an_act_waits_for_another_person_and_not_for_the_same_ones_second_token(server, alice):
    bob = made(server, "bob")
    second = made(server, "second", "--server", server.base, "--ca", str(server.root), "--token", alice)
    server.operate("cert", "issue", "a.localhost", "--new-key", "a.key", "--out", "a.pem")
    status, said = as_somebody(server, alice, "cert", "revoke-many", "--name", "a.localhost")
    assert (status, "a second person must approve it before" in said) == (3, True), said
    (waiting,) = json.loads(server.operate("approval", "list", "--state", "waiting", "--json"))
    decide = ("approval", "approve", waiting["id"])
    assert " ".join(("acme-ca", *decide)) in said
    for token, why in ((alice, "You asked for this act yourself"), (second, "operator:alice may have both")):
        status, said = as_somebody(server, token, *decide)
        assert (status, why in said) == (1, True), said
    status, said = as_somebody(server, bob, *decide)
    assert status == 0, said
    asked, _, done = said.partition("Do it?")
    assert 'alice asks for certificates.revoke-bulk {"name": "a.localhost", ' in asked
    assert "null" not in asked, "what she left open is no news"
    assert "decided by bob" in done
    (found,) = json.loads(server.operate("cert", "list", "--name", "a.localhost", "--json"))
    assert found["status"] == "revoked"


def test_an_eab_key_ends_at_once_and_its_certificates_wait(server, alice):
    kid = json.loads(server.operate("eab", "create", "--owner", "Web", "--json"))["kid"]
    words = ("eab", "revoke", kid, "--revoke-certificates", "superseded")
    status, said = as_somebody(server, alice, *words)
    assert (status, f"Revoked: {kid}; accounts frozen: 0 Not done yet: a second person" in said) == (
        3,
        True,
    ), said
