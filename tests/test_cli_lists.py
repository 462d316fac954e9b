"""Lists, the story of an order, statistics, health and explain, as commands against a server that runs."""

import json

import pytest

from tests.support.acme_client import AcmeClient
from tests.support.server import running


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("lists"), POLICY__DENIED_DOMAINS="denied.example") as started:
        yield started


@pytest.fixture(scope="module")
def account(server) -> str:
    with AcmeClient(server) as client:
        registered = client.register()
        client.order("a.localhost")
    return registered.uri.rpartition("/")[2]


def status_of(server, *arguments) -> tuple[int, str]:
    done = server.command(*arguments)
    return done.returncode, done.stdout + done.stderr


def test_an_order_and_its_story(server, account):
    (order,) = json.loads(server.operate("order", "list", "--name", "a.localhost", "--json"))
    assert (order["account"], order["status"]) == (account, "pending")
    assert order["id"] in server.operate("order", "list")
    story = server.operate("order", "show", order["id"])
    assert "It waits for the proof of a.localhost (no challenge answered yet)." in story
    assert account in story
    assert json.loads(server.operate("order", "show", order["id"], "--json"))["id"] == order["id"]
    assert status_of(server, "order", "show", "0" * 32)[0] == 1


def test_accounts_and_certificates(server, account):
    (found,) = json.loads(server.operate("account", "list", "--status", "valid", "--json"))
    assert found["id"] == account
    assert account in server.operate("account", "list")
    own = json.loads(server.operate("cert", "list", "--status", "good", "--json"))
    assert own
    assert own[0]["serial"] in server.operate("cert", "list", own[0]["serial"][:12])
    assert json.loads(server.operate("cert", "list", "%", "--json")) == []
    assert status_of(server, "cert", "list", "--serial", "x")[0] == 1


def test_statistics_and_health(server, account):
    assert "certificates" in server.operate("db", "stats")
    assert json.loads(server.operate("db", "stats", "--json"))["counts"]["accounts"]["number"] == 1
    url = ("--url", server.http_base)
    assert status_of(server, "health", "check", *url)[0] == 0
    assert json.loads(server.operate("health", "check", *url, "--json"))["status"] == "ok"
    assert status_of(server, "health", "check", "--url", "http://127.0.0.1:1")[0] == 2
    assert status_of(server, "health", "check", "--url", "file:///etc/passwd")[0] == 2


def test_explain(server, account):
    status, told = status_of(server, "explain", "a.denied.example", "--account", account)
    assert status == 1
    assert "name-denied" in told
    assert "It would not be issued." in told
    found = json.loads(status_of(server, "explain", "b.localhost", "--json")[1])
    assert found["would_issue"]
