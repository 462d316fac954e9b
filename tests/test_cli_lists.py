"""Lists, the story of an order, statistics, health and explain, as commands against a server that runs."""

import json
import re
import sys

import pexpect
import pytest

from tests.support.acme_client import AcmeClient
from tests.support.server import running
from tests.support.terminal import Terminal


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


def test_what_a_bulk_revocation_asks_does_not_stand_in_its_json(server, tmp_path):
    server.operate("cert", "issue", "bulk.localhost", "--new-key", "bulk.key", "--out", "bulk.pem")
    words = ("cert", "revoke-many", "--name", "bulk.localhost", "--json")
    with (tmp_path / "out.json").open("wb") as out:
        terminal = Terminal(
            [sys.executable, "-m", "acme_ca", *words],
            variables=server.environment,
            place=server.place,
            stdout=out,
        )
        asked, _ = terminal.await_text("[y/N]")
        terminal.type("y")
        status, _ = terminal.end()
    assert (status, "bulk.localhost" in asked) == (0, True)
    assert json.loads((tmp_path / "out.json").read_text())["count"] == 1


def test_an_issuer_is_named_as_the_list_of_issuers_shows_it(server):
    (active,) = json.loads(server.operate("ca", "list", "--kind", "intermediate", "--json"))
    short = active["id"][:12]
    assert short in server.operate("ca", "list")
    own = json.loads(server.operate("cert", "list", "--issuer", short, "--json"))
    assert own == json.loads(server.operate("cert", "list", "--issuer", active["id"], "--json")) != []
    found = json.loads(server.operate("cert", "revoke-many", "--issuer", short, "--dry-run", "--json"))
    assert found["count"] > 0
    assert json.loads(server.operate("crl", "info", "--issuer", short, "--json"))
    assert status_of(server, "cert", "revoke-many", "--issuer", "0" * 12, "--dry-run")[0] == 1


@pytest.mark.parametrize(
    "words",
    ["token list --unused-since", "token list --since", "limits pauses --since", "audit list --until"],
)
def test_times_are_read_as_people_write_them(server, words):
    for time in ("2026-01-31", "2026-01-31T12:00:00", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00+02:00"):
        server.operate(*words.split(), time)
    for time in ("yesterday", "0001-01-01T00:00:00+14:00", "0001-01-01", "9999-12-31T23:59:59.999999"):
        status, told = status_of(server, *words.split(), time)
        assert (status, "2026-01-31" in told, words.split()[-1] in told) == (2, True, True), told


def on_a_terminal(server, columns, *arguments) -> list[str]:
    """The lines that somebody with so wide a terminal reads."""
    child = pexpect.spawn(
        sys.executable,
        ["-m", "acme_ca", *arguments],
        env={**server.environment, "TERM": "xterm", "COLUMNS": ""},
        cwd=server.place,
        dimensions=(24, columns),
        encoding="utf-8",
        timeout=30,
    )
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, child.before
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in child.before.splitlines()]


def test_lists_in_a_terminal_of_80_columns_cut_no_id(server, account):
    """What there is no room for is left out as a whole, and that is said; ids are there to be copied."""
    own = json.loads(server.operate("cert", "list", "--json"))[-1]
    lines = on_a_terminal(server, 80, "cert", "list")
    assert any(own["serial"] in line and ", ".join(own["names"]) in line for line in lines)
    assert "profile" not in lines[0], lines
    assert lines[-1].startswith("Left out, for want of room: recorded (UTC), profile")
    assert max(map(len, lines[:-1])) <= 80
    assert any(account in line and "valid" in line for line in on_a_terminal(server, 80, "account", "list"))
    wide = on_a_terminal(server, 200, "cert", "list")
    assert wide[0].split() == [
        "serial",
        "status",
        "recorded",
        "(UTC)",
        "ends",
        "(UTC)",
        "profile",
        "service",
        "names",
    ], wide
    assert "Left out" not in wide[-1]


@pytest.mark.parametrize(
    "words",
    [
        "token list --all",
        "order list",
        "profile list",
        "crl info",
        "limits list",
        "audit list --limit 20",
    ],
)
def test_no_list_is_wider_than_its_terminal_or_cut(server, account, words):
    lines = on_a_terminal(server, 80, *words.split())
    shown = [line for line in lines if not line.startswith("Left out")]
    assert max(map(len, shown), default=0) <= 80
    assert "…" not in "".join(shown), "a cut cell cannot be copied"


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
    status, told = status_of(server, "explain", "b.localhost", "--account", account)
    assert (status, told.splitlines()[-1].split(",")[0]) == (0, "It would be issued: profile server")
    for option, unknown, sentence in (
        ("--service", "none", "no such service"),
        ("--replaces", "0" * 32, "no certificate with this serial"),
    ):
        status, told = status_of(server, "explain", "b.localhost", option, unknown)
        assert status == 1
        assert sentence in told
