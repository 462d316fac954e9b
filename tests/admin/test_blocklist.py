"""The block list over the API."""

import secrets

import pytest
import pytest_asyncio

from acme_ca.admin.access import Role
from acme_ca.core.codes import Code
from tests.support.admin import assert_refused
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP


@pytest_asyncio.fixture(loop_scope="session")
async def served(new_ca):
    async with new_ca() as ca:
        yield ca, await ca.operator(Role.SECURITY_OFFICER, name="bob")


async def test_keys_are_blocked_listed_and_let_go(served):
    ca, bob = served
    keys = [secrets.token_hex(32) for _ in range(5)]
    done = await bob.post("/blocklist", {"keys": [keys[0].upper(), *keys[1:], keys[1]], "comment": "stolen"})
    assert done == {"added": 5, "ended_accounts": [], "living": 0, "living_certificates": []}
    assert (await bob.post("/blocklist", {"keys": keys[:1], "comment": "again"}))["added"] == 0
    found = await bob.pages("/blocklist", limit=2)
    assert sorted(one["spki_sha256"] for one in found) == sorted(keys)
    assert {(one["comment"], one["actor"]) for one in found} == {("stolen", "operator:bob")}
    await bob.delete(f"/blocklist/{keys[0]}", status=204)
    assert len(await bob.pages("/blocklist")) == 4
    assert_refused(await bob.ask("DELETE", f"/blocklist/{keys[0]}"), Code.NOT_FOUND, status=404)
    assert (
        await ca.sql(
            "SELECT count(*) FROM audit_event WHERE event = 'key.unblocked' AND source = '127.0.0.1'"
        )
        == 1
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"keys": [], "comment": "x"}, "keys"),
        ({"keys": ["zz"], "comment": "x"}, "keys.0"),
        ({"keys": ["0" * 64] * 10_001, "comment": "x"}, "keys"),
        ({"keys": ["0" * 64], "comment": ""}, "comment"),
        ({"keys": ["0" * 64]}, "comment"),
    ],
)
async def test_bad_input_blocks_nothing(served, body, field):
    ca, bob = served
    assert_refused(await bob.ask("POST", "/blocklist", body), Code.FIELD_INVALID, status=400, field=field)
    assert await ca.sql("SELECT count(*) FROM blocked_key") == 0


async def test_what_no_key_is_called_is_not_there(served):
    _, bob = served
    for key in ("%25", "0" * 63, "x" * 64, "%00"):
        assert (await bob.ask("DELETE", f"/blocklist/{key}")).status == 404
