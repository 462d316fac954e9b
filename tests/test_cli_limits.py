"""`acme-ca limits` against a server that runs."""

import json

import pytest

from tests.support.acme_client import AcmeClient
from tests.support.server import running


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Of one worker: a change shows at once, not only after the others have looked."""
    settings = {"LIMITS__ORDERS_PER_ACCOUNT": "5/1h", "WORKERS": "1"}
    with running(tmp_path_factory.mktemp("limits"), **settings) as started:
        yield started


@pytest.fixture(scope="module")
def account(server) -> str:
    with AcmeClient(server) as client:
        registered = client.register()
        client.order("a.localhost")
    return registered.uri.rpartition("/")[2]


def shown(server, *arguments):
    return json.loads(server.operate("limits", *arguments, "--json"))


def test_an_override_from_its_making_to_its_end(server, account):
    left = shown(server, "usage", "--account", account)["items"]
    assert [(one["kind"], one["limit"], one["left"]) for one in left] == [
        ("orders-per-account", "5/1 hour", 4)
    ]
    made = server.operate(
        *("limits", "override", "orders-per-account", account, "5000/1d"),
        *("--reason", "moves many hosts", "--expires-in", "2 days"),
    )
    assert made.strip() == f"orders-per-account of {account}: 5000/1 day"
    listed = server.operate("limits", "list")
    for word in (account, "5000/1 day", "moves many hosts", "5/1 hour", "Paused after 100 failed"):
        assert word in listed
    assert shown(server, "list")["overrides"][0]["subject"] == account
    assert shown(server, "usage", "--account", account)["items"][0]["left"] == 5000
    assert "5000/1 day" in server.operate("limits", "usage", "--account", account)
    assert server.operate("limits", "remove-override", "orders-per-account", account).strip() == "Removed."
    assert shown(server, "list")["overrides"] == []
    assert shown(server, "usage", "--account", account)["items"][0]["limit"] == "5/1 hour"


def test_pauses_that_are_not_there(server, account):
    assert shown(server, "pauses", "--account", account, "--name", "a.localhost") == []
    assert "account" in server.operate("limits", "pauses")
    assert server.operate("limits", "unpause", "--account", account).strip() == "Lifted: 0"


@pytest.mark.parametrize(
    "arguments",
    [
        ("override", "orders-per-account", "nobody", "5/1h", "--reason", "x"),
        ("override", "orders-per-network", "192.0.2.1", "none", "--reason", "x"),
        ("remove-override", "orders-per-network", "192.0.2.1"),
        ("usage", "--account", "nobody"),
        ("usage",),
        ("unpause",),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(server, arguments):
    with pytest.raises(AssertionError, match=r"acme-ca: .+\."):
        server.operate("limits", *arguments)
