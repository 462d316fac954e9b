"""Name policies and approved scopes over the admin API."""

import pytest

from acme_ca.admin.access import Role
from acme_ca.core.codes import Code
from acme_ca.core.problems import ErrorType
from tests.support.admin import assert_refused
from tests.support.client import assert_problem
from tests.support.eab import add_eab_key, bound_account, id_of
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP


async def test_a_policy_is_put_looked_at_and_taken_away(new_ca):
    async with new_ca() as ca:
        one, account, denied = await ca.operator(), await ca.account(), ca.name()
        saved = await one.put("/policies/server", {"deny": [f"exact:{denied}"]})
        assert saved["rules"] == {"allow": [], "deny": [f"exact:{denied}"]}
        assert_problem(await account.new_order(denied), ErrorType.REJECTED_IDENTIFIER, "the server denies it")
        await one.put("/policies/service:web", {"allow": ["suffix:web.example"]})
        assert [policy["scope"] for policy in await one.pages("/policies", limit=1)] == [
            "server",
            "service:web",
        ]
        assert (await one.get("/policies/service:web"))["rules"]["allow"] == ["suffix:web.example"]
        await one.delete("/policies/server", status=204)
        assert (await account.new_order(denied)).status == 201
        assert_refused(await one.ask("DELETE", "/policies/server"), Code.NOT_FOUND, status=404)
        assert_refused(await one.ask("GET", "/policies/server"), Code.NOT_FOUND, status=404)
        told = await ca.sql(
            "SELECT array_agg(event || ' ' || object || ' ' || (detail ->> 'before' IS NULL) ORDER BY id) FROM audit_event "
            "WHERE event LIKE 'policy.%'"
        )
        assert told == [
            "policy.changed policy:server true",
            "policy.changed policy:service:web true",
            "policy.changed policy:server false",
        ]


@pytest.mark.parametrize(
    ("scope", "body", "field"),
    [
        ("server", {"deny": ["nonsense"]}, "deny.0"),
        ("server", {"denied": []}, "denied"),
        ("everybody", {}, "scope"),
        ("service:", {}, "scope"),
        ("service:UPPER", {}, "scope"),
    ],
)
async def test_a_policy_that_is_none_is_refused(ca, scope, body, field):
    answer = await (await ca.operator()).ask("PUT", f"/policies/{scope}", body)
    assert_refused(answer, Code.FIELD_INVALID, status=400, field=field)


async def test_an_operator_does_not_rule(ca):
    one = await ca.operator(Role.OPERATOR)
    assert_refused(await one.ask("PUT", "/policies/server", {}), Code.FORBIDDEN, status=403)
    assert_refused(await one.ask("DELETE", "/policies/server"), Code.FORBIDDEN, status=403)
    assert_refused(await one.ask("POST", "/scopes", {}), Code.FORBIDDEN, status=403)


async def test_what_names_are_asked_for_is_answered_as_an_order_would_be(new_ca):
    async with new_ca(policy={"denied_domains": "secret.example"}) as ca:
        one = await ca.operator()
        await one.put("/policies/service:web", {"allow": ["suffix:web.example"]})
        await add_eab_key(ca, "of-web", service="web")
        names = ["a.web.example", "b.example", "x.secret.example", "not a name", "192.0.2.1"]

        async def codes(**whom):
            verdicts = (await one.post("/policies/check", {"names": names, **whom}))["names"]
            assert [verdict["name"] for verdict in verdicts] == names
            assert all(verdict["allowed"] is (verdict["code"] is None) for verdict in verdicts)
            return [verdict["code"] for verdict in verdicts]

        assert await codes() == [None, None, Code.NAME_DENIED, "rejected-identifier", None]
        bound = [None, Code.NAME_NOT_ALLOWED, Code.NAME_DENIED, "rejected-identifier", Code.NAME_NOT_ALLOWED]
        assert await codes(service="web") == await codes(eab_key="of-web") == bound
        account = await bound_account(ca, "of-web")
        problem = assert_problem(await account.new_order("b.example"), ErrorType.REJECTED_IDENTIFIER)
        assert problem["subproblems"][0]["code"] == Code.NAME_NOT_ALLOWED
        both = {"names": ["a.example"], "eab_key": "of-web", "service": "web"}
        assert_refused(await one.ask("POST", "/policies/check", both), Code.FIELD_INVALID, status=400)
        nobody = {"names": ["a.example"], "eab_key": "nonesuch"}
        assert_refused(await one.ask("POST", "/policies/check", nobody), Code.NOT_FOUND, status=404)


# ---------------------------------------------------------------- approved scopes


async def test_the_life_of_a_scope(ca):
    one, account, name = await ca.operator(), await ca.account(), ca.name()
    wish = {"account": id_of(account), "rule": f"exact:{name}", "reason": "no way in", "expires_in": "1 day"}
    made = await one.post("/scopes", wish, status=201)
    assert (made["state"], made["approved_by"], made["rule"]) == (
        "living",
        f"operator:{one.name}",
        f"exact:{name}",
    )
    order = await account.order(name)
    assert order.object["status"] == "ready"
    ((told,),) = [(await one.get(f"/orders/{order.url.rpartition('/')[2]}"))["authorizations"]]
    assert (told["scope"], told["status"]) == (made["id"], "valid")
    assert (
        told["approval"] == f"approved by scope {made['id']} (exact:{name}) of operator:{one.name}: no way in"
    )
    assert await one.get(f"/scopes/{made['id']}") == made
    assert made in await one.pages("/scopes", account=id_of(account), state="living")
    assert await one.pages("/scopes", account=id_of(account), state="revoked") == []
    ended = await one.post(f"/scopes/{made['id']}/revoke", {"reason": "over"})
    assert (ended["scope"]["state"], ended["authorizations"]) == ("revoked", 1)
    assert_problem(await order.finalize(), ErrorType.ORDER_NOT_READY)
    again = await one.ask("POST", f"/scopes/{made['id']}/revoke", {"reason": "over"})
    assert_refused(again, Code.CONFLICT, status=409)
    assert_refused(
        await one.ask("POST", "/scopes/nonesuch/revoke", {"reason": "x"}), Code.NOT_FOUND, status=404
    )


SCOPE = {"rule": "exact:a.example", "reason": "r", "expires_in": "1 day"}
BAD_SCOPES = {
    "nobody's": ({}, "account"),
    "of both": ({"account": "a", "eab_key": "b"}, "account"),
    "of an account that is not there": ({"account": "a"}, "account"),
    "of a key that is not there": ({"eab_key": "b"}, "eab_key"),
    "an expression": ({"eab_key": "b", "rule": "regex:.*"}, "rule"),
    "a network": ({"eab_key": "b", "rule": "network:10.0.0.0/8"}, "rule"),
    "no rule": ({"eab_key": "b", "rule": "a.example"}, "rule"),
    "for ever": ({"eab_key": "b", "expires_in": None}, "expires_in"),
    "for too long": ({"eab_key": "b", "expires_in": "100 years"}, "expires_in"),
    "without a reason": ({"eab_key": "b", "reason": ""}, "reason"),
}


@pytest.mark.parametrize("which", BAD_SCOPES)
async def test_a_scope_that_is_none_is_refused(ca, which):
    members, field = BAD_SCOPES[which]
    answer = await (await ca.operator()).ask("POST", "/scopes", {**SCOPE, **members})
    assert_refused(answer, Code.FIELD_INVALID, status=400, field=field)


async def test_two_persons_approve_names_where_that_is_wanted(new_ca):
    async with new_ca(admin={"two_person": "scopes.approve"}) as ca:
        one, other, account = await ca.operator(), await ca.operator(), await ca.account()
        asked = await one.post("/scopes", {**SCOPE, "account": id_of(account)}, status=202)
        assert (await account.order("a.example")).object["status"] == "pending"
        await other.post(f"/approvals/{asked['id']}/approve")
        assert (await account.order("a.example")).object["status"] == "ready"
