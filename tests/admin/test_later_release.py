"""Rows that a later release wrote: what cannot be read is shown as such beside all others, and lets nobody do anything."""

import pytest_asyncio

from acme_ca.core.codes import Code
from acme_ca.core.problems import ErrorType
from tests.support.admin import assert_refused
from tests.support.client import as_identifier, assert_problem
from tests.support.eab import add_eab_key, binding, bound_account, id_of
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.jose import Key

pytestmark = IN_SESSION_LOOP

RULES = """'{"allow": ["planet:mars"]}'"""


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def mixed(new_ca):
    """A CA where somebody tried a later release."""
    async with new_ca() as ca:
        yield ca


async def failing_order(account, name):
    wish = {"identifiers": [as_identifier(name)]}
    return await account.post(account.client.url("new-order"), wish, failing=True)


async def test_policies(mixed):
    operator = await mixed.operator()
    await add_eab_key(mixed, "of-later", service="later")
    account, other = await bound_account(mixed, "of-later"), await mixed.account()
    await operator.put("/policies/service:now", {"deny": ["suffix:secret.test"]})
    await mixed.sql(f"INSERT INTO policy (scope, body, changed) VALUES ('service:later', {RULES}, now())")
    await operator.put("/policies/service:later2", {})  # all processes look again
    shown = {policy["scope"]: policy["rules"] for policy in await operator.pages("/policies")}
    assert shown["service:later"] is None
    assert shown["service:now"] == {"allow": [], "deny": ["suffix:secret.test"]}
    assert (await operator.get("/policies/service:later"))["rules"] is None
    answer = await failing_order(account, mixed.name())
    assert_problem(answer, ErrorType.SERVER_INTERNAL, "later release", status=503)
    assert answer.json["code"] == Code.POLICY_UNREADABLE
    await other.order(mixed.name())
    question = {"names": ["a.example.test"], "service": "later"}
    assert_refused(
        await operator.ask("POST", "/policies/check", question, failing=True),
        Code.POLICY_UNREADABLE,
        status=503,
    )
    await operator.delete("/policies/service:later", status=204)
    await account.order(mixed.name())


async def test_eab_keys(mixed):
    operator = await mixed.operator()
    for kid in ("readable", "unreadable"):
        await add_eab_key(mixed, kid, service="mixed")
    account = await bound_account(mixed, "unreadable")
    await mixed.sql(
        """UPDATE eab_key SET restrictions = '{"moons": 2}', changed = now() WHERE id = 'unreadable'"""
    )
    await operator.put("/policies/server", {})
    shown = {key["id"]: key["restrictions"] for key in await operator.pages("/eab-keys", service="mixed")}
    assert shown["unreadable"] is None
    assert shown["readable"] is not None
    assert (await operator.get("/eab-keys/unreadable"))["restrictions"] is None
    refused = await failing_order(account, mixed.name())
    assert (refused.status, refused.json["code"]) == (503, Code.POLICY_UNREADABLE)
    key = Key.generate()
    wish = {"externalAccountBinding": binding(key, kid="unreadable")}
    refused = await mixed.client.post(mixed.client.url("new-account"), wish, key=key, failing=True)
    assert (refused.status, refused.json["code"]) == (503, Code.POLICY_UNREADABLE)
    for path in ("/explain", "/policies/check"):
        question = {"names": [mixed.name()], "eab_key": "unreadable"}
        answer = await operator.ask("POST", path, question, failing=True)
        told = answer.json["problem"] if answer.status == 200 else answer.json
        assert told["code"] == Code.POLICY_UNREADABLE
    answer = await operator.ask("GET", "/limits/usage", account=id_of(account), failing=True)
    assert_refused(answer, Code.POLICY_UNREADABLE, status=503)
    changed = await operator.ask("PATCH", "/eab-keys/unreadable", {"owner": "Mars"})
    assert (changed.status, changed.json["owner"], changed.json["restrictions"]) == (200, "Mars", None)
    kept = await mixed.sql("SELECT restrictions ->> 'moons' FROM eab_key WHERE id = 'unreadable'")
    assert kept == "2", "what is not given stays as it is"
    await operator.post("/eab-keys/unreadable/rotate")
    await operator.post("/eab-keys/unreadable/revoke", {"reason": "over"})


async def test_approved_scopes(mixed):
    operator, account, name = await mixed.operator(), await mixed.account(), mixed.name()
    wish = {"account": id_of(account), "reason": "test", "expires_in": "1 day"}
    later, good = [
        (await operator.post("/scopes", {**wish, "rule": f"exact:{one}"}, status=201))["id"]
        for one in (name, mixed.name())
    ]
    await mixed.sql(f"UPDATE approved_scope SET rule = 'planet:{name}' WHERE id = '{later}'")
    await operator.put("/policies/server", {})
    shown = {scope["id"]: scope["rule"] for scope in await operator.pages("/scopes", account=id_of(account))}
    assert shown[later] is None
    assert shown[good].startswith("exact:")
    assert (await operator.get(f"/scopes/{later}"))["rule"] is None
    assert (await (await account.order(name)).read())["status"] == "pending", "approves nothing"
    assert (await operator.post(f"/scopes/{later}/revoke", {"reason": "over"}))["authorizations"] == 0


async def test_services(mixed):
    operator = await mixed.operator()
    for one in ("later", "now"):
        wish = {"service_id": one, "name": one, "owner": "x", "domains": [mixed.name()]}
        await operator.post("/services/register", wish, status=201)
    await mixed.sql("""UPDATE service SET body = body || '{"moons": 2}' WHERE id = 'later'""")
    shown = {one["service_id"]: one for one in await operator.pages("/services")}
    assert (shown["later"]["readable"], shown["now"]["readable"]) == (False, True)
    assert not (await operator.get("/services/later"))["readable"]
    refused = await operator.ask("POST", "/services/later/eab-keys")
    assert_refused(refused, Code.POLICY_UNREADABLE, status=409)
    wish = {"service_id": "later", "name": "x", "owner": "y"}
    assert_refused(await operator.ask("PUT", "/services/later", wish), Code.POLICY_UNREADABLE, status=409)
    certificate = {"names": [mixed.name()], "service_id": "later", "generate_key": True}
    refused = await operator.ask("POST", "/certificates/issue", certificate, failing=True)
    assert_refused(refused, Code.POLICY_UNREADABLE, status=503)
    assert (await operator.delete("/services/later", status=200))["state"] == "retired"
    assert (await operator.post("/services/later/approve"))["state"] == "approved"


async def test_profiles(mixed):
    operator = await mixed.operator()
    await mixed.sql(
        "INSERT INTO profile (name, version, body, built_in, created) VALUES ('later', 1, '{\"moons\": 2}', false, now())"
    )
    shown = {one["name"]: one for one in await operator.pages("/profiles")}
    assert not shown["later"]["offered"]
    assert shown["server"]["offered"]
    assert (await operator.get("/profiles/later"))["profile"] == {"moons": 2}
    answer = await (await mixed.account()).new_order(mixed.name(), profile="later")
    assert_problem(answer, ErrorType.INVALID_PROFILE)
