"""EAB keys and their accounts over the admin API: what operators do with them, and what clients notice."""

import base64
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.admin.access import Role
from acme_ca.core.actors import Actor
from acme_ca.core.codes import Code
from acme_ca.core.eab import Restrictions
from acme_ca.core.problems import ErrorType
from acme_ca.storage import eab
from acme_ca.storage.database import Database
from tests.support.admin import assert_refused
from tests.support.client import assert_problem
from tests.support.eab import add_eab_key, binding, id_of
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.jose import Key

pytestmark = IN_SESSION_LOOP


async def register(ca, made):
    """newAccount with the key as the API showed it."""
    key = Key.generate()
    secret = base64.urlsafe_b64decode(made["hmac_key"] + "=")
    bound = binding(key, kid=made["id"], secret=secret)
    return await ca.client.post(ca.client.url("new-account"), {"externalAccountBinding": bound}, key=key), key


async def account_of(ca, made):
    answer, key = await register(ca, made)
    assert answer.status == 201, answer
    return type(await ca.account())(ca.client, key, answer.location)


async def test_a_key_is_made_used_and_shown_without_its_secret(ca):
    one = await ca.operator(Role.OPERATOR)
    wish = {"owner": "Web team", "service": "web", "contact": ["web@example.org"], "max_accounts": 1}
    made = await one.post("/eab-keys", wish, status=201)
    assert (made["state"], made["accounts"], made["owner"]) == ("active", 0, "Web team")
    account = await account_of(ca, made)
    shown = await one.get(f"/eab-keys/{made['id']}")
    assert "hmac_key" not in shown
    assert (shown["state"], shown["accounts"]) == ("used_up", 1)
    seen = await one.get(f"/accounts/{id_of(account)}")
    assert (seen["eab_key"], seen["service"], seen["frozen"]) == (made["id"], "web", None)


async def test_of_two_changes_at_once_neither_undoes_the_other(ca):
    """Who corrects the owner does not bring back names that somebody has just taken away."""
    await add_eab_key(ca, "twice-changed")
    async with Database.open(ca.dsn, connections=1) as database:
        seen = await eab.find(database, "twice-changed")
        assert seen is not None
        narrow = Restrictions(orders_per_day=1)
        who = {"actor": Actor("operator"), "now": datetime.now(UTC)}
        await eab.change(database, seen, replace(seen, restrictions=narrow, max_accounts=3), **who)
        changed = await eab.change(database, seen, replace(seen, owner="y", contact=("y@a.example",)), **who)
    assert changed == replace(seen, restrictions=narrow, max_accounts=3, owner="y", contact=("y@a.example",))


async def test_a_key_waits_for_a_security_officers_approval(ca):
    one, officer = await ca.operator(Role.OPERATOR), await ca.operator(Role.SECURITY_OFFICER)
    made = await one.post("/eab-keys", {"owner": "x", "pending": True}, status=201)
    assert made["state"] == "pending"
    refused, _ = await register(ca, made)
    assert assert_problem(refused, ErrorType.UNAUTHORIZED)["code"] == Code.EAB_KEY_UNUSABLE
    path = f"/eab-keys/{made['id']}/approve"
    assert_refused(await one.ask("POST", path), Code.FORBIDDEN, status=403)
    assert (await officer.post(path))["state"] == "active"
    await account_of(ca, made)
    assert_refused(await officer.ask("POST", path), Code.CONFLICT, "active", status=409)


async def test_another_secret_ends_the_old_one_at_once(ca):
    one = await ca.operator(Role.OPERATOR)
    made = await one.post("/eab-keys", {"owner": "x"}, status=201)
    account = await account_of(ca, made)
    again = await one.post(f"/eab-keys/{made['id']}/rotate")
    assert (again["id"], again["accounts"]) == (made["id"], 1)
    assert again["hmac_key"] != made["hmac_key"]
    refused, _ = await register(ca, made)
    assert_problem(refused, ErrorType.UNAUTHORIZED)
    await account_of(ca, again)
    assert (await account.new_order(ca.name())).status == 201, "accounts go on"


async def test_what_is_changed_holds_at_once_for_its_accounts(ca):
    one = await ca.operator(Role.OPERATOR)
    made = await one.post("/eab-keys", {"owner": "x", "max_accounts": 5}, status=201)
    account = await account_of(ca, made)
    path, allowed = f"/eab-keys/{made['id']}", ca.name()
    change = {"restrictions": {"names": {"allow": [f"exact:{allowed}"]}}, "owner": "y"}
    answer = await one.ask("PATCH", path, change)
    assert (answer.status, answer.json["owner"], answer.json["max_accounts"]) == (200, "y", 5)
    assert answer.json["restrictions"]["names"] == {"allow": [f"exact:{allowed}"], "deny": []}
    assert_problem(await account.new_order(ca.name()), ErrorType.REJECTED_IDENTIFIER, made["id"])
    assert (await account.new_order(allowed)).status == 201
    await one.ask("PATCH", path, {"max_accounts": None, "restrictions": {}})
    assert (await one.get(path))["max_accounts"] is None
    assert (await account.new_order(ca.name())).status == 201
    told = await ca.sql(
        f"SELECT detail::text FROM audit_event WHERE object = 'eab_key:{made['id']}' AND event = 'eab-key.changed' "
        "ORDER BY id LIMIT 1"
    )
    assert '"owner": "x"' in told.replace('":"', '": "')
    assert "exact:" in told


BAD = {
    "owner": {"owner": ""},
    "max_accounts": {"owner": "x", "max_accounts": 0},
    "restrictions.names.allow.0": {"owner": "x", "restrictions": {"names": {"allow": ["nonsense"]}}},
    "restrictions.source_networks.0": {"owner": "x", "restrictions": {"source_networks": ["10.0.0.1/8"]}},
    "restrictions.invented": {"owner": "x", "restrictions": {"invented": 1}},
    "expires_in": {"owner": "x", "expires_in": "yesterday"},
    "service": {"owner": "x", "service": "\u0007"},
}


@pytest.mark.parametrize("field", BAD)
async def test_a_wish_that_cannot_be_met_names_the_field(ca, field):
    one = await ca.operator(Role.OPERATOR)
    before = await ca.sql("SELECT count(*) FROM eab_key")
    document = assert_refused(await one.ask("POST", "/eab-keys", BAD[field]), Code.FIELD_INVALID, status=400)
    assert any(error["field"].startswith(field) for error in document["errors"]), document
    assert await ca.sql("SELECT count(*) FROM eab_key") == before


async def test_fewer_accounts_than_there_are(ca):
    one = await ca.operator(Role.OPERATOR)
    made = await one.post("/eab-keys", {"owner": "x"}, status=201)
    await account_of(ca, made)
    await account_of(ca, made)
    answer = await one.ask("PATCH", f"/eab-keys/{made['id']}", {"max_accounts": 1})
    assert_refused(answer, Code.CONFLICT, status=409)
    assert_refused(
        await one.ask("PATCH", f"/eab-keys/{made['id']}", {"owner": ""}), Code.FIELD_INVALID, status=400
    )


# ---------------------------------------------------------------- lists


async def test_keys_are_found_by_owner_service_contact_state_and_text(new_ca):
    async with new_ca() as ca:
        one = await ca.operator()
        made = {}
        for owner, service, contact in (
            ("Web team", "web", "web@example.org"),
            ("Mail team", "mail", "mail@example.org"),
            ("100%", None, "_@example.org"),
        ):
            wish = {"owner": owner, "service": service, "contact": [contact]}
            made[owner] = (await one.post("/eab-keys", wish, status=201))["id"]
        await one.post(f"/eab-keys/{made['Mail team']}/revoke", {"reason": "over"})

        async def found(**query):
            return {key["owner"] for key in await one.pages("/eab-keys", limit=1, **query)}

        assert await found() == set(made)
        assert await found(owner="Web team") == {"Web team"}
        assert await found(service="mail") == {"Mail team"}
        assert await found(contact="web@example.org") == {"Web team"}
        assert await found(state="revoked") == {"Mail team"}
        assert await found(state="active") == {"Web team", "100%"}
        assert await found(text="TEAM") == {"Web team", "Mail team"}
        assert await found(text="%") == {"100%"}, "lesson 26"
        assert await found(text="_") == {"100%"}
        assert await found(text=made["Web team"]) == {"Web team"}
        assert_refused(
            await one.ask("GET", "/eab-keys", state="lost"), Code.FIELD_INVALID, status=400, field="state"
        )
        assert_refused(await one.ask("GET", "/eab-keys/nonesuch"), Code.NOT_FOUND, status=404)


async def test_a_token_for_a_service_sees_and_ends_only_its_keys(new_ca):
    async with new_ca() as ca:
        everybody = await ca.operator()
        mine = await everybody.post("/eab-keys", {"owner": "mine", "service": "web"}, status=201)
        other = await everybody.post("/eab-keys", {"owner": "other", "service": "mail"}, status=201)
        nobodys = await everybody.post("/eab-keys", {"owner": "nobody's"}, status=201)
        scoped = await ca.operator(services=("web",))
        assert [key["owner"] for key in await scoped.pages("/eab-keys")] == ["mine"]
        assert [key["owner"] for key in await scoped.pages("/eab-keys", service="mail")] == []
        path = f"/eab-keys/{mine['id']}"
        for method, url, body in (
            ("POST", "/eab-keys", {"owner": "x", "service": "web"}),
            ("PATCH", path, {"restrictions": {}}),
            ("POST", f"{path}/approve", None),
        ):
            answer = await scoped.ask(method, url, body)
            assert_refused(answer, Code.FORBIDDEN, status=403), "it would lift what holds the service itself"
        missing = (await scoped.ask("GET", "/eab-keys/nonesuch")).json["detail"]
        for key in (other, nobodys):
            path = f"/eab-keys/{key['id']}"
            for method, tail, body in (
                ("GET", "", None),
                ("POST", "/rotate", None),
                ("POST", "/revoke", {"reason": "x"}),
                ("POST", "/revoke-certificates", {"reason": "superseded", "comment": "x"}),
            ):
                answer = await scoped.ask(method, path + tail, body)
                assert_refused(answer, Code.NOT_FOUND, status=404)
                assert answer.json["detail"] == missing, "nor is it told that there is one"
        account = id_of(await account_of(ca, other))
        for method, tail, body in (("GET", "", None), ("POST", "/freeze", {"reason": "x"})):
            answer = await scoped.ask(method, f"/accounts/{account}{tail}", body)
            assert_refused(answer, Code.NOT_FOUND, status=404)
        own = id_of(await account_of(ca, mine))
        assert (await scoped.post(f"/accounts/{own}/freeze", {"reason": "x"}))["frozen"] is not None


# ---------------------------------------------------------------- the end of a key


async def test_lesson_14_revoking_a_key_over_the_api_freezes_and_takes_back(ca):
    one = await ca.operator(Role.SECURITY_OFFICER)
    maker = await ca.operator(Role.OPERATOR)
    made = await maker.post("/eab-keys", {"owner": "x"}, status=201)
    account = await account_of(ca, made)
    leaf, *_ = await (await account.order(ca.name())).issue(ca.web)
    path = f"/eab-keys/{made['id']}"
    wish = {"reason": "privilegeWithdrawn", "comment": "left the house"}
    early = await one.ask("POST", f"{path}/revoke-certificates", wish)
    assert_refused(early, Code.CONFLICT, "first", status=409)
    ended = await one.post(f"{path}/revoke", {"reason": "left the house"})
    assert (ended["eab_key"]["state"], ended["frozen"]) == ("revoked", [id_of(account)])
    assert_problem(await account.new_order(ca.name()), ErrorType.UNAUTHORIZED, "frozen", status=403)
    assert_problem(await account.revoke(leaf.public_bytes(Encoding.DER)), ErrorType.UNAUTHORIZED, "frozen")
    assert_refused(await one.ask("POST", f"{path}/revoke", {"reason": "x"}), Code.CONFLICT, status=409)
    for body in ({"reason": "certificateHold", "comment": "x"}, {"reason": "because", "comment": "x"}):
        answer = await one.ask("POST", f"{path}/revoke-certificates", body)
        assert_refused(answer, Code.FIELD_INVALID, status=400, field="reason")
    assert (await one.post(f"{path}/revoke-certificates", wish))["revoked"] == 1
    assert (await one.post(f"{path}/revoke-certificates", wish))["revoked"] == 0
    assert_refused(await maker.ask("POST", f"{path}/revoke-certificates", wish), Code.FORBIDDEN, status=403)
    thaw = await one.ask("POST", f"/accounts/{id_of(account)}/unfreeze", {"reason": "x"})
    assert_refused(thaw, Code.CONFLICT, "EAB key", status=409)
    for act in ("approve", "rotate"):
        answer = await (await ca.operator()).ask("POST", f"{path}/{act}")
        assert_refused(answer, Code.CONFLICT, "revoked", status=409)


async def test_an_account_is_frozen_thawed_and_ended(ca):
    one = await ca.operator(Role.OPERATOR)
    account = await ca.account()
    path = f"/accounts/{id_of(account)}"
    assert (await one.post(f"{path}/freeze", {"reason": "too busy"}))["frozen"] is not None
    assert_problem(await account.new_order(ca.name()), ErrorType.UNAUTHORIZED, "frozen", status=403)
    assert_refused(await one.ask("POST", f"{path}/freeze", {"reason": "x"}), Code.CONFLICT, status=409)
    assert (await one.post(f"{path}/unfreeze", {"reason": "better"}))["frozen"] is None
    assert_refused(await one.ask("POST", f"{path}/unfreeze", {"reason": "x"}), Code.CONFLICT, status=409)
    assert (await account.new_order(ca.name())).status == 201
    assert (await one.post(f"{path}/deactivate", {"reason": "over"}))["status"] == "deactivated"
    assert_problem(await account.new_order(ca.name()), ErrorType.UNAUTHORIZED, status=401)
    assert_refused(await one.ask("POST", f"{path}/deactivate", {"reason": "x"}), Code.CONFLICT, status=409)
    assert_refused(await one.ask("GET", "/accounts/nonesuch"), Code.NOT_FOUND, status=404)
    assert_refused(
        await one.ask("POST", f"{path}/freeze", {}), Code.FIELD_INVALID, status=400, field="reason"
    )
    told = await ca.sql(
        f"SELECT array_agg(event || ' ' || actor || ' ' || (detail ->> 'reason') ORDER BY id) FROM audit_event "
        f"WHERE object = 'account:{id_of(account)}' AND event <> 'account.created'"
    )
    who = f"operator:{one.name}"
    assert told == [
        f"account.frozen {who} too busy",
        f"account.unfrozen {who} better",
        f"account.deactivated {who} over",
    ]
