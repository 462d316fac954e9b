"""Credentials of the admin API over the API itself."""

from acme_ca.admin.access import Role
from acme_ca.core.codes import Code
from tests.support.admin import Operator, assert_refused
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP


async def test_the_life_of_a_token(new_ca):
    async with new_ca() as ca:
        administrator = await ca.operator(name="alice")
        wish = {"name": "robot", "role": "operator", "services": ["covina"], "expires_in": "90 days"}
        made = await administrator.post("/tokens", wish, status=201)
        assert (made["role"], made["services"], made["last_used"]) == ("operator", ["covina"], None)
        assert_refused(await administrator.ask("POST", "/tokens", wish), Code.EXISTS, status=409)
        shown = await administrator.get(f"/tokens/{made['id']}")
        assert "token" not in shown
        await Operator(ca.client, made["token"]).ask("GET", "/tokens")
        assert (await administrator.get(f"/tokens/{made['id']}"))["last_used"] is not None
        ended = await administrator.post(f"/tokens/{made['id']}/revoke")
        assert ended["revoked"] is not None
        again = await administrator.ask("POST", f"/tokens/{made['id']}/revoke")
        assert_refused(again, Code.CONFLICT, status=409)
        assert [one["name"] for one in await administrator.pages("/tokens")] == ["alice"]
        assert {one["name"] for one in await administrator.pages("/tokens", all="true")} == {"alice", "robot"}
        await administrator.post("/tokens", wish, status=201)  # the name is free again


async def test_the_audit_says_who_from_where(new_ca):
    async with new_ca() as ca:
        administrator = await ca.operator(name="alice")
        made = await administrator.post("/tokens", {"name": "robot", "role": "viewer"}, status=201)
        await administrator.post(f"/tokens/{made['id']}/revoke")
        said = await ca.sql(
            "SELECT array_agg(event || ' ' || actor || ' ' || source ORDER BY id) FROM audit_event "
            f"WHERE object = 'token:{made['id']}'"
        )
        assert said == [
            "token.created operator:alice 127.0.0.1",
            "token.revoked operator:alice 127.0.0.1",
        ]


async def test_the_last_use_is_noted_to_the_minute_only(new_ca):
    """Every request would be a row written."""
    async with new_ca() as ca:
        one = await ca.operator(Role.ADMINISTRATOR)
        await one.get("/tokens")
        first = await ca.sql("SELECT last_used FROM api_token")
        await one.get("/tokens")
        assert await ca.sql("SELECT last_used FROM api_token") == first
        await ca.sql("UPDATE api_token SET last_used = now() + interval '1 year'")  # a clock was ahead
        await one.get("/tokens")
        assert await ca.sql("SELECT last_used < now() FROM api_token")


async def test_no_token_has_the_name_of_a_user_of_this_machine(ca):
    """In the audit nobody could tell them apart."""
    wish = {"name": "root@localhost", "role": "viewer"}
    answer = await (await ca.operator()).ask("POST", "/tokens", wish)
    assert_refused(answer, Code.FIELD_INVALID, status=400, field="name")
