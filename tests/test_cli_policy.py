"""`acme-ca policy`, `scope`, `account` and `eab`, run as processes beside no server: on the database itself."""

import asyncio
import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from acme_ca.storage.database import Database
from tests.support import records
from tests.support.server import command

Run = Callable[..., Any]


@pytest.fixture
async def run(tmp_path, database_url) -> Run:
    """Runs a command. With `--json` what it printed, as values; else its lines; `fails`: what it said to standard error."""

    def act(*arguments: str, fails: int = 0) -> Any:
        done: subprocess.CompletedProcess[str] = command(tmp_path, *arguments, DATABASE_URL=database_url)
        assert done.returncode == fails, (done.stdout, done.stderr)
        if fails and done.stderr:
            return done.stderr.splitlines()
        return json.loads(done.stdout) if "--json" in arguments else done.stdout.splitlines()

    return act


async def test_a_policy_is_set_asked_shown_and_taken_away(run):
    def act() -> None:
        assert run("policy", "set", "server", "--deny", "suffix:secret.example", "--yes") == ["Saved: server"]
        said = run("policy", "check", "a.secret.example", "b.example", fails=1)
        assert said[1] == "b.example: allowed"
        assert "suffix:secret.example of the server denies it" in " ".join(said)
        assert run("policy", "check", "b.example") == ["b.example: allowed"]
        (shown,) = run("policy", "list", "--json")
        assert (shown["scope"], shown["rules"]["deny"]) == ("server", ["suffix:secret.example"])
        assert run("policy", "show", "server", "--json") == shown
        for arguments in (("list",), ("show", "server")):
            assert any("suffix:secret.example" in line for line in run("policy", *arguments))
        assert run("policy", "delete", "server", "--yes") == ["Deleted: server"]
        assert run("policy", "delete", "server", "--yes", fails=1) == [
            "acme-ca: There is no policy of this scope: it sets no rules."
        ]
        (sentence,) = run("policy", "set", "server", "--deny", "nonsense", "--yes", fails=1)
        assert "deny.0" in sentence
        assert "--yes" in " ".join(run("policy", "set", "server", fails=2)), "nobody is there to ask"

    await asyncio.to_thread(act)


async def test_an_account_is_frozen_gets_names_approved_and_ends(run, database_url):
    async with Database.open(database_url, connections=1) as database:
        account = (await records.account(database)).id

    def act() -> None:
        assert run("account", "freeze", account, "--reason", "busy", "--yes") == [f"Frozen: {account}"]
        assert run("account", "show", account, "--json")["frozen"] is not None
        assert run("account", "unfreeze", account, "--reason", "better") == [
            f"Not frozen any more: {account}"
        ]
        wish = ("--account", account, "--reason", "no way in", "--expires-in", "1 day", "--yes")
        scope = run("scope", "approve", "suffix:a.example", *wish, "--json")["id"]
        assert [one["id"] for one in run("scope", "list", "--account", account, "--json")] == [scope]
        assert any("no way in" in line for line in run("scope", "show", scope))
        (ended,) = run("scope", "revoke", scope, "--reason", "over", "--yes")
        assert ended == f"Revoked: {scope}; authorizations ended with it: 0"
        assert run("scope", "list", "--state", "living", "--json") == []
        assert run("account", "deactivate", account, "--reason", "over", "--yes") == [
            f"Deactivated: {account}"
        ]
        run("account", "freeze", account, "--reason", "x", "--yes", fails=1)

    await asyncio.to_thread(act)


async def test_an_eab_key_is_approved_changed_rotated_and_revoked(run):
    def act() -> None:
        restrictions = ("--allow", "suffix:a.example", "--network", "10.0.0.0/8", "--orders-per-day", "5")
        made = run("eab", "create", "--owner", "Web", "--pending", *restrictions, "--json")
        kid = made["kid"]
        assert made["state"] == "pending"
        assert run("eab", "approve", kid, "--json")["state"] == "active"
        assert run("eab", "update", kid, fails=2) == ["acme-ca: Say what is to be changed."]
        changed = run("eab", "update", kid, "--network", "10.1.0.0/16", "--owner", "Web team", "--json")
        assert changed["owner"] == "Web team"
        assert changed["restrictions"]["source_networks"] == ["10.1.0.0/16"]
        assert changed["restrictions"]["names"]["allow"] == ["suffix:a.example"], "what is not given stays"
        assert changed["restrictions"]["orders_per_day"] == 5
        free = run("eab", "update", kid, "--unrestricted", "--json")["restrictions"]
        assert (free["names"]["allow"], free["source_networks"], free["orders_per_day"]) == ([], [], None)
        assert run("eab", "rotate", kid, "--yes", "--json")["hmac_key"] != made["hmac_key"]
        assert any("Web team" in line for line in run("eab", "show", kid))
        said = run("eab", "revoke", kid, "--revoke-certificates", "superseded", "--yes")
        assert said == [f"Revoked: {kid}; accounts frozen: 0", "Certificates revoked: 0"]
        assert [key["id"] for key in run("eab", "list", "--state", "revoked", "--json")] == [kid]
        left = run("eab", "revoke", kid, "--revoke-certificates", "superseded", "--yes")
        assert left == ["Certificates revoked: 0"], "it goes on where it ended"
        (sentence,) = run("eab", "revoke", kid, "--yes", fails=1)
        assert "revoked already" in sentence

    await asyncio.to_thread(act)


async def test_what_a_later_release_wrote_is_shown_as_such(run, database_url):
    def before() -> str:
        run("policy", "set", "server", "--deny", "suffix:a.example", "--yes")
        return str(run("eab", "create", "--owner", "x", "--json")["kid"])

    kid = await asyncio.to_thread(before)
    async with Database.open(database_url, connections=1) as database:
        await database.execute("""UPDATE policy SET body = '{"moons": 2}'""")
        await database.execute("""UPDATE eab_key SET restrictions = '{"moons": 2}'""")

    def after() -> None:
        for arguments in (("policy", "list"), ("policy", "show", "server"), ("eab", "show", kid)):
            assert "written by a later release" in " ".join(" ".join(run(*arguments)).split())
        said = " ".join(run("eab", "update", kid, "--allow", "suffix:a.example", fails=2))
        assert "--unrestricted replaces them all" in said, said
        run("eab", "update", kid, "--allow", "suffix:a.example", "--unrestricted")
        assert run("eab", "show", kid, "--json")["restrictions"]["names"]["allow"] == ["suffix:a.example"]

    await asyncio.to_thread(after)
