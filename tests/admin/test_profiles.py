"""Profiles over the API."""

import pytest
import pytest_asyncio

from acme_ca.core.codes import Code
from tests.support.admin import assert_refused
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP

WISH = {
    "name": "printer",
    "description": "Printers",
    "validity": "30 days",
    "max_validity": "30 days",
    "key_algorithms": ["ECDSA"],
    "extended_key_usages": ["serverAuth"],
}


@pytest_asyncio.fixture(loop_scope="session")
async def served(new_ca):
    async with new_ca() as ca:
        yield ca, await ca.operator(name="alice")


async def test_the_life_of_a_profile(served):
    ca, alice = served
    shown = await alice.get("/profiles/server")
    wish = {**shown["profile"], "name": "printer", "description": "Printers"}
    assert await alice.post("/profiles", {"profile": wish}) == {
        "name": "printer",
        "version": 1,
        "saved": True,
    }
    assert await alice.post("/profiles", {"profile": wish}) == {
        "name": "printer",
        "version": 1,
        "saved": False,
    }
    changed = await alice.post("/profiles", {"profile": {**wish, "description": "All printers"}})
    assert (changed["version"], changed["saved"]) == (2, True)
    assert (await alice.get("/profiles/printer"))["profile"]["description"] == "All printers"
    assert (await alice.get("/profiles/printer", version=1))["profile"]["description"] == "Printers"
    found = await alice.pages("/profiles/printer/versions", limit=1)
    assert [one["version"] for one in found] == [1, 2]
    assert (await alice.post("/profiles/printer/withdraw"))["offered"] is False
    assert_refused(await alice.ask("POST", "/profiles/printer/withdraw"), Code.CONFLICT, status=409)
    assert (await alice.post("/profiles/printer/offer"))["offered"] is True
    assert_refused(await alice.ask("POST", "/profiles/printer/offer"), Code.CONFLICT, status=409)
    said = await ca.sql(
        "SELECT array_agg(event ORDER BY id) FROM audit_event WHERE object = 'profile:printer' AND actor = 'operator:alice'"
    )
    assert said == ["profile.saved", "profile.saved", "profile.withdrawn", "profile.offered"]


async def test_every_profile_is_listed_once(served):
    _, alice = served
    names = [one["name"] for one in await alice.pages("/profiles", limit=3)]
    assert names == sorted(set(names))
    assert "server" in names


@pytest.mark.parametrize(
    "profile",
    [
        {},
        {"name": "x"},
        {**WISH, "colour": "red"},
        {**WISH, "name": "UPPER"},
        {**WISH, "validity": "-1 days"},
        {**WISH, "key_algorithms": []},
    ],
)
async def test_what_cannot_work_is_not_saved(served, profile):
    ca, alice = served
    assert_refused(
        await alice.ask("POST", "/profiles", {"profile": profile}),
        Code.FIELD_INVALID,
        status=400,
        field="profile",
    )
    assert await ca.sql("SELECT count(*) FROM profile WHERE NOT built_in") == 0


async def test_what_must_stay_stays(served):
    _, alice = served
    own = await alice.get("/profiles/ocsp_responder")
    assert own["own"] is True
    for answer in (
        await alice.ask("POST", "/profiles", {"profile": own["profile"]}),
        await alice.ask("POST", "/profiles/ocsp_responder/withdraw"),
        await alice.ask("POST", "/profiles/server/withdraw"),
    ):
        assert_refused(answer, Code.CONFLICT, status=409)


async def test_what_is_not_there(served):
    _, alice = served
    for method, path in (
        ("GET", "/profiles/none"),
        ("GET", "/profiles/server?version=99"),
        ("GET", "/profiles/none/versions"),
        ("POST", "/profiles/none/withdraw"),
        ("POST", "/profiles/%25/offer"),
    ):
        assert_refused(await alice.ask(method, path), Code.NOT_FOUND, status=404)


async def test_a_cursor_of_another_list_is_refused(served):
    _, alice = served
    page = await alice.get("/profiles", limit=1)
    answer = await alice.ask("GET", "/profiles/client/versions", cursor=page["next"] + "x")
    assert_refused(answer, Code.FIELD_INVALID, status=400, field="cursor")
