"""CRLs over the API."""

import base64

import pytest
import pytest_asyncio

from acme_ca.admin import crl
from acme_ca.core.codes import Code
from tests.support.admin import assert_refused
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP


@pytest_asyncio.fixture(loop_scope="session")
async def served(new_ca):
    async with new_ca() as ca:
        yield ca, await ca.operator(name="alice")


async def test_without_a_publisher_nobody_is_kept_waiting(served):
    ca, alice = served
    made = await alice.post("/crl/generate", {"wait": 30})
    assert made["asked"] == 2
    assert made["published"] == []
    assert {one["issuer"] for one in made["pending"]} >= {ca.hierarchy.intermediate.id}


async def test_one_shard_is_asked_for(served):
    ca, alice = served
    made = await alice.post("/crl/generate", {"issuer": ca.hierarchy.intermediate.id, "shard": 0, "wait": 0})
    assert (made["asked"], len(made["pending"])) == (1, 1)
    (shard,) = await alice.pages("/crl/info", issuer=ca.hierarchy.intermediate.id)
    assert (shard["state"], shard["due"]) == ("missing", 1)


async def test_what_is_published_meanwhile_is_told(served, monkeypatch):
    """The wait ends when the publisher has taken the wishes away."""
    ca, alice = served
    await ca.sql("INSERT INTO lease (name, holder, expires) VALUES ('crl', 'x', now() + interval '1 minute')")
    looked = crl._somebody_publishes

    async def publish(admin):
        await admin.database.execute("DELETE FROM crl_due")
        return await looked(admin)

    monkeypatch.setattr(crl, "_somebody_publishes", publish)
    made = await alice.post("/crl/generate", {"wait": 20})
    assert made["pending"] == []
    assert len(made["published"]) == made["asked"] - 1, "the root is not named anywhere"


async def test_a_shard_that_opens_meanwhile_has_none_shown_twice(served):
    ca, alice = served
    first = ca.hierarchy.intermediate.id
    second = "2" * 32
    await ca.sql(
        "INSERT INTO issuer (id, der, kind, parent_id, spki_sha256, state, not_before, not_after, created, activated) "
        f"SELECT '{second}', 'x', kind, parent_id, 'x', state, not_before, not_after, created + interval '1 s', activated "
        f"FROM issuer WHERE id = '{first}'"
    )
    await ca.sql("UPDATE issuer SET open_shard = 1 WHERE kind = 'intermediate'")
    begun = await alice.get("/crl/info", limit=3)
    assert [(one["issuer"], one["shard"]) for one in begun["items"]] == [(first, 0), (first, 1), (second, 0)]
    await ca.sql(f"UPDATE issuer SET open_shard = 10 WHERE id IN ('{first}', '{second}')")
    rest = await alice.get("/crl/info", cursor=begun["next"])
    assert [(one["issuer"], one["shard"]) for one in rest["items"]] == [
        (second, number) for number in range(1, 11)
    ]


@pytest.mark.parametrize("wish", [{"issuer": "0" * 32}, {"shard": 999}])
async def test_what_is_not_there(served, wish):
    _, alice = served
    assert_refused(await alice.ask("POST", "/crl/generate", wish), Code.NOT_FOUND, status=404)
    assert_refused(await alice.ask("GET", f"/crl/roots/{'0' * 32}/list"), Code.NOT_FOUND, status=404)


async def test_the_list_of_a_root(served):
    ca, alice = served
    found = await alice.get(f"/crl/roots/{ca.hierarchy.root.id}/list")
    assert (found["issuer"], found["above"], found["revoked"]) == (ca.hierarchy.root.id, 0, [])


@pytest.mark.parametrize(
    "given",
    ["", "!!", base64.b64encode(b"no crl").decode(), "-----BEGIN X509 CRL-----\nAA\n-----END X509 CRL-----"],
)
async def test_what_is_no_crl_is_refused(served, given):
    _, alice = served
    answer = await alice.ask("POST", "/crl/roots", {"crl": given})
    assert answer.status == 400, answer
