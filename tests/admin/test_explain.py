"""`explain`: what it says is what newOrder says, with the same codes."""

from base64 import b64encode
from dataclasses import replace

import pytest
import pytest_asyncio

from acme_ca.acme import preflight
from acme_ca.admin.access import Role
from acme_ca.ca.constraints import NameConstraints
from acme_ca.core.codes import Code
from acme_ca.core.eab import Restrictions
from acme_ca.core.policy import NameRules
from acme_ca.core.renewal import CertId
from tests.support import issuing
from tests.support.admin import assert_refused
from tests.support.eab import add_eab_key, bound_account
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP


def identity(account) -> str:
    return account.url.rpartition("/")[2]


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def strict(new_ca):
    """A CA with rules to meet."""
    settings = {
        "policy": {"denied_domains": ["denied.example.test"]},
        "limits": {"orders_per_account": "1/1h"},
        "caa": {"identities": ["ca.example"]},
    }
    async with new_ca(**settings) as ca:
        yield ca


def codes(document):
    """Of a problem: of its subproblems, when it has some."""
    return sorted(one["code"] for one in document.get("subproblems") or [document])


async def both(ca, account, *names, profile=None):
    """What explain says, and then newOrder."""
    operator = await ca.operator()
    wish = {"names": list(names), "account": identity(account), "client": "127.0.0.1", "profile": profile}
    told = await operator.post("/explain", wish)
    answer = await account.new_order(*names, **({} if profile is None else {"profile": profile}))
    return told, answer


CASES = {
    "denied": (["a.denied.example.test"], None),
    "two denied": (["a.denied.example.test", "b.denied.example.test"], None),
    "no such profile": (["n.example.test"], "nothing"),
    "profile not offered": (["n.example.test"], "ocsp"),
    "a name that the profile is not for": (["n.example.test"], "operator"),
}


@pytest.mark.parametrize(("names", "profile"), CASES.values(), ids=list(CASES))
async def test_refusals_are_those_of_new_order(strict, names, profile):
    told, answer = await both(strict, await strict.account(), *names, profile=profile)
    assert not told["would_issue"]
    assert answer.status >= 400
    assert told["problem"]["code"] == answer.json["code"]
    assert told["problem"]["detail"] == answer.json["detail"]
    assert codes(told["problem"]) == codes(answer.json)
    refused = [step["code"] for step in told["steps"] if step["verdict"] == "refused"]
    assert set(codes(answer.json)) <= set(refused)


async def test_what_would_be_issued(strict):
    account, name = await strict.account(), strict.name()
    told, answer = await both(strict, account, name)
    assert (told["would_issue"], told["problem"]) == (True, None)
    assert answer.status == 201
    assert told["profile"]["name"] == "server"
    assert told["issuer"] == strict.hierarchy.intermediate.id
    reach = [step for step in told["steps"] if step["step"] == "reach"]
    assert {step["facts"]["challenge"] for step in reach} == {"http-01", "dns-01", "tls-alpn-01"}
    http = next(step for step in reach if step["facts"]["challenge"] == "http-01")
    assert (http["verdict"], http["facts"]["addresses"]) == ("ok", ["127.0.0.1"])
    assert http["facts"]["servers"]
    assert [step["verdict"] for step in told["steps"] if step["step"] == "caa"] == ["ok"] * 3
    assert "dry_run" not in {step["step"] for step in told["steps"]}


async def test_a_limit_is_looked_at_and_not_spent(strict):
    account = await strict.account()
    for _ in range(3):
        told, _ = await both_of_explain(strict, account)
        assert told["would_issue"]
    await account.order(strict.name())
    told, answer = await both(strict, account, strict.name())
    assert told["problem"]["code"] == answer.json["code"] == Code.LIMIT_REACHED


async def both_of_explain(ca, account):
    operator = await ca.operator()
    wish = {"names": [ca.name()], "account": identity(account), "client": "127.0.0.1"}
    return await operator.post("/explain", wish), None


async def test_frozen_and_ended_accounts(strict):
    operator, account = await strict.operator(), await strict.account()
    await operator.post(f"/accounts/{identity(account)}/freeze", {"reason": "test"})
    told, answer = await both(strict, account, strict.name())
    assert told["problem"]["code"] == answer.json["code"] == Code.ACCOUNT_FROZEN
    await operator.post(f"/accounts/{identity(account)}/deactivate", {"reason": "test"})
    told, answer = await both(strict, account, strict.name())
    assert told["problem"]["code"] == answer.json["code"] == Code.ACCOUNT_ENDED


async def test_caa_and_addresses_that_may_not_be_dialled_are_warnings(strict):
    operator = await strict.operator()
    forbidden, inside = strict.name(), "metadata.example.test"
    strict.dns.add(forbidden, "CAA", (0, "issue", "other.example"))
    strict.dns.add(inside, "A", "169.254.169.254")
    told = await operator.post("/explain", {"names": [forbidden, inside, "nowhere.example.test"]})
    assert told["would_issue"]
    warned = {
        (step["step"], step["name"], step["code"]) for step in told["steps"] if step["verdict"] == "warning"
    }
    assert ("caa", forbidden, "caa") in warned
    assert ("reach", inside, "connection") in warned
    assert ("reach", "nowhere.example.test", "dns") in warned


async def test_a_dry_run_dials_under_the_same_rules_and_stores_nothing(strict):
    operator, name = await strict.operator(), strict.name()
    strict.dns.add("imds.example.test", "A", "169.254.169.254")
    before = await strict.sql("SELECT (SELECT count(*) FROM authz) + (SELECT count(*) FROM validation)")
    told = await operator.post("/explain", {"names": [name, "imds.example.test"], "dry_run": True})
    runs = {
        (step["name"], step["facts"]["challenge"]): step
        for step in told["steps"]
        if step["step"] == "dry_run"
    }
    assert runs[name, "http-01"]["verdict"] == "ok"
    assert "127.0.0.1" in str(runs[name, "http-01"]["facts"]["record"])
    unpublished = runs[name, "dns-01"]
    assert (unpublished["verdict"], unpublished["code"]) == ("ok", None), "nobody publishes a made-up token"
    refused = runs["imds.example.test", "http-01"]
    assert refused["verdict"] == "warning"
    assert "metadata" in refused["detail"]
    assert "connected" not in str(refused["facts"]["record"])
    after = await strict.sql("SELECT (SELECT count(*) FROM authz) + (SELECT count(*) FROM validation)")
    assert after == before


async def test_nobody_is_asked_about_names_that_no_order_may_have(strict):
    """Whoever may explain does not get the server to look into what its policy denies."""
    operator, inside = await strict.operator(), "printer.denied.example.test"
    strict.dns.add(inside, "A", "127.0.0.1")
    told = await operator.post("/explain", {"names": [strict.name(), inside], "dry_run": True})
    asked = {step["name"] for step in told["steps"] if step["step"] in {"reach", "caa", "dry_run"}}
    assert inside not in asked
    assert asked, "the other name is looked at"


async def test_a_pause_comes_before_the_profile_as_in_new_order(strict):
    account, name = await strict.account(), strict.name()
    await strict.sql(f"INSERT INTO pause VALUES ('{identity(account)}', 'dns:{name}', 3, now(), now())")
    operator = await strict.operator()
    profile = (await operator.get("/profiles/server"))["profile"]
    profile |= {"name": "chosen", "description": "For one key.", "allowed_eab_keys": ["another"]}
    await operator.post("/profiles", {"profile": profile})
    told, answer = await both(strict, account, name, profile="chosen")
    assert told["problem"]["code"] == answer.json["code"] == Code.PAUSED


async def test_for_which_names_an_account_is_paused(strict):
    """However many others it is paused for."""
    account, names = await strict.account(), [strict.name() for _ in range(3)]
    await strict.sql(
        f"INSERT INTO pause SELECT '{identity(account)}', 'dns:a' || n || '.test', 3, now(), now() FROM generate_series(1, 1500) n"
    )
    for name, paused in zip(names, ("now()", "NULL", "now()"), strict=True):
        await strict.sql(
            f"INSERT INTO pause VALUES ('{identity(account)}', 'dns:{name}', 3, now(), {paused})"
        )
    told, answer = await both(strict, account, *names)
    assert told["problem"]["code"] == answer.json["code"] == Code.PAUSED
    assert all(name in told["problem"]["detail"] for name in (names[0], names[2]))
    for name, verdict in zip(names, ("refused", "ok", "refused"), strict=True):
        (step,) = found(told, "pauses", name)
        assert (step["verdict"], step["name"]) == (verdict, name)


async def test_for_which_names_the_issuer_may_issue(new_ca):
    async with new_ca() as ca:
        await ca.add_issuer(constraints=NameConstraints.parse(["vcc.internal"]))
        names = {
            "a.vcc.internal": ("ok", None),
            "b.example.org": ("refused", Code.NAME_NOT_OF_ISSUER),
            "c.vcc.internal": ("ok", None),
        }
        told, answer = await both(ca, await ca.account(), *names)
        assert told["problem"]["code"] == answer.json["code"]
        assert codes(told["problem"]) == codes(answer.json)
        for name, expected in names.items():
            (step,) = found(told, "issuer", name)
            assert (step["verdict"], step["code"]) == expected
            assert name in step["detail"]


async def test_who_may_have_the_server_dial(strict):
    viewer = await strict.operator(Role.VIEWER)
    await viewer.post("/explain", {"names": [strict.name()]})
    answer = await viewer.ask(
        "POST", "/explain", {"names": ["a.example.test"], "dry_run": True}, failing=True
    )
    assert_refused(answer, Code.FORBIDDEN, status=403)


async def test_a_csr_is_judged(strict):
    told = await (await strict.operator()).post(
        "/explain",
        {"names": ["n.example.test"], "csr": b64encode(issuing.csr("other.example.test")).decode()},
    )
    (refused,) = [step for step in told["steps"] if step["verdict"] == "refused"]
    assert (refused["step"], refused["code"]) == ("csr", "bad-csr")


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"names": []}, "names"),
        ({"names": ["a_b"]}, "names"),
        ({"names": ["a.example"] * 101}, "names"),
        ({"names": ["a.example"], "client": "here"}, "client"),
        ({"names": ["a.example"], "csr": "no"}, "csr"),
        ({"names": ["a.example"], "account": "me"}, "account"),
        ({"names": ["a.example"], "nonsense": 1}, "nonsense"),
        ({"names": ["a.example"], "replaces": "x.y"}, "replaces"),
        ({"names": ["a.example"], "replaces": "0" * 32}, "replaces"),
        ({"names": ["a.example"], "replaces": "nonsense"}, "replaces"),
        ({"names": ["a.example"], "service": "web", "eab_key": "k"}, "service"),
        ({"names": ["a.example"], "account": "0" * 32, "eab_key": "k"}, "eab_key"),
    ],
)
async def test_bad_questions_are_refused_with_their_field(strict, wish, field):
    answer = await (await strict.operator()).ask("POST", "/explain", wish, failing=True)
    assert_refused(answer, Code.FIELD_INVALID, status=400, field=field)


async def test_who_is_not_there(strict):
    operator = await strict.operator()
    for who in ({"account": "0" * 32}, {"eab_key": "none"}, {"service": "none"}):
        answer = await operator.ask("POST", "/explain", {"names": ["a.example"], **who}, failing=True)
        assert_refused(answer, Code.NOT_FOUND, status=404)


# ---------------------------------------------------------------- by whose rule


def found(told, step, name=None):
    return [one for one in told["steps"] if one["step"] == step and name in {None, one["name"]}]


async def test_by_whose_rule_each_name_is_allowed_or_not(new_ca):
    async with new_ca(policy={"allowed_domains": "example.test"}) as ca:
        operator = await ca.operator()
        await add_eab_key(
            ca,
            "narrow",
            service="web",
            restrictions=Restrictions(names=NameRules(allow=["suffix:example.test"])),
        )
        await operator.put("/policies/server", {"deny": ["suffix:secret.example.test"]})
        await operator.put("/policies/service:web", {"allow": ["regex:[a-z0-9.]+"]})
        good, denied, other = "a.example.test", "a.secret.example.test", "b-1.example.test"
        told = await operator.post("/explain", {"names": [good, denied, other], "eab_key": "narrow"})
        assert not told["would_issue"]
        (allowed,) = found(told, "names", good)
        assert (allowed["verdict"], allowed["code"]) == ("ok", None)
        assert allowed["facts"]["rules"] == [
            {"of": "the server's settings", "allowed": True, "rule": "suffix:example.test"},
            {"of": "the server", "allowed": True, "rule": None},
            {"of": "the service web", "allowed": True, "rule": "regex:[a-z0-9.]+"},
            {"of": "the EAB key narrow", "allowed": True, "rule": "suffix:example.test"},
        ]
        assert "suffix:example.test of the EAB key narrow" in allowed["detail"]
        (refused,) = found(told, "names", denied)
        assert (refused["verdict"], refused["code"]) == ("refused", Code.NAME_DENIED)
        assert {"of": "the server", "allowed": False, "rule": "suffix:secret.example.test"} in refused[
            "facts"
        ]["rules"]
        (refused,) = found(told, "names", other)
        assert (refused["verdict"], refused["code"]) == ("refused", Code.NAME_NOT_ALLOWED)
        assert {"of": "the service web", "allowed": False, "rule": None} in refused["facts"]["rules"]


async def test_by_which_rule_of_the_profile_and_of_the_names_that_need_no_key(new_ca):
    async with new_ca(eab_required=True, eab_exempt_names=["suffix:open.test"]) as ca:
        operator = await ca.operator()
        profile = (await operator.get("/profiles/server"))["profile"]
        profile |= {"name": "narrow", "allowed_names": ["suffix:open.test", "exact:b.example.test"]}
        profile |= {"denied_names": ["exact:x.open.test"]}
        await operator.post("/profiles", {"profile": profile})
        wish = {"names": ["a.open.test", "c.example.test", "x.open.test"], "profile": "narrow"}
        told = await operator.post("/explain", wish)
        (open_,) = found(told, "names", "a.open.test")
        exempt = {"of": "the names that need no EAB key", "allowed": True, "rule": "suffix:open.test"}
        assert exempt in open_["facts"]["rules"]
        (closed,) = found(told, "names", "c.example.test")
        assert (closed["verdict"], closed["code"]) == ("refused", Code.EAB_KEY_MISSING)
        (fits,) = found(told, "profile", "a.open.test")
        assert fits["facts"]["rules"] == [
            {"of": "the profile narrow", "allowed": True, "rule": "suffix:open.test"}
        ]
        (denied,) = found(told, "profile", "x.open.test")
        assert (denied["verdict"], denied["code"]) == ("refused", Code.NAME_NOT_IN_PROFILE)
        assert denied["facts"]["rules"] == [
            {"of": "the profile narrow", "allowed": False, "rule": "exact:x.open.test"}
        ]
        (misfit,) = found(told, "profile", "c.example.test")
        assert (misfit["verdict"], misfit["code"]) == ("refused", Code.NAME_NOT_IN_PROFILE)
        assert misfit["facts"]["rules"] == [{"of": "the profile narrow", "allowed": False, "rule": None}]


async def test_by_whose_approval_a_name_needs_no_challenge(strict):
    operator, account, name = await strict.operator(name="alice"), await strict.account(), strict.name()
    wish = {
        "account": identity(account),
        "rule": f"suffix:{name}",
        "reason": "no way in",
        "expires_in": "1 day",
    }
    scope = await operator.post("/scopes", wish, status=201)
    told = await operator.post("/explain", {"names": [f"a.{name}"], "account": identity(account)})
    (approved,) = found(told, "challenges")
    assert approved["facts"] == {
        "scope": scope["id"],
        "rule": f"suffix:{name}",
        "approved_by": "operator:alice",
        "reason": "no way in",
    }
    assert "approved by scope" in approved["detail"]
    assert found(told, "reach") == [], "nobody is asked about it"


async def test_no_word_of_an_eab_key_where_there_is_none(strict):
    told = await (await strict.operator()).post("/explain", {"names": [strict.name()]})
    (request,) = found(told, "request")
    assert request["detail"].startswith("No EAB key")
    assert (told["account"], told["eab_key"], told["service"]) == (None, None, None)


async def test_from_where_and_for_which_profile_a_key_is(strict):
    operator, restrictions = (
        await strict.operator(),
        Restrictions(source_networks=["10.0.0.0/8"], profiles=["mtls"]),
    )
    await add_eab_key(strict, "inside", restrictions=restrictions)
    wish = {"names": [strict.name()], "eab_key": "inside"}
    told = await operator.post("/explain", wish)
    assert [one["verdict"] for one in found(told, "request")] == ["unknown", "ok"]
    told = await operator.post("/explain", {**wish, "client": "192.0.2.1", "profile": "server"})
    assert [one["code"] for one in found(told, "request")] == [
        Code.SOURCE_NOT_ALLOWED,
        Code.PROFILE_NOT_ALLOWED,
    ]
    assert told["problem"]["code"] == Code.SOURCE_NOT_ALLOWED, "what newOrder says first"


# ---------------------------------------------------------------- services, and tokens for some of them


async def test_a_service_is_its_newest_account_or_else_its_newest_key(new_ca):
    async with new_ca() as ca:
        operator, name = await ca.operator(), ca.name()

        async def ask():
            return await operator.post("/explain", {"names": [name], "service": "web"})

        wish = {"service_id": "web", "name": "Web", "owner": "x", "domains": [name]}
        await operator.post("/services/register", wish, status=201)
        told = await ask()
        assert (told["would_issue"], told["problem"]["code"]) == (False, Code.EAB_KEY_MISSING)
        assert (told["service"], told["eab_key"]) == ("web", None)
        await add_eab_key(ca, "first", service="web", most=1)
        told = await ask()
        assert (told["would_issue"], told["eab_key"], told["account"]) == (True, "first", None)
        account = await bound_account(ca, "first")
        await add_eab_key(ca, "second", service="web")
        told = await ask()
        assert (told["would_issue"], told["account"]) == (True, identity(account)), (
            "its key is used up; it goes on"
        )
        await operator.post("/eab-keys/first/revoke", {"reason": "over"})
        told = await ask()
        assert (told["would_issue"], told["eab_key"], told["account"]) == (True, "second", None)
        await operator.delete("/services/web", status=200)
        told = await ask()
        assert told["problem"]["code"] == Code.EAB_KEY_UNUSABLE


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def two_services(new_ca):
    """Services `ours` and `theirs`, each with a key and an account."""
    async with new_ca() as ca:
        accounts = {}
        for service in ("ours", "theirs"):
            await add_eab_key(ca, f"key-of-{service}", service=service)
            accounts[service] = await bound_account(ca, f"key-of-{service}")
        yield ca, accounts


async def test_a_token_for_a_service_asks_for_its_own(two_services):
    ca, accounts = two_services
    token, name = await ca.operator(Role.VIEWER, services=("ours",)), ca.name()
    for who in (
        {"service": "ours"},
        {"eab_key": "key-of-ours"},
        {"account": identity(accounts["ours"])},
    ):
        told = await token.post("/explain", {"names": [name], **who})
        assert (told["would_issue"], told["service"]) == (True, "ours"), told
    assert_refused(
        await token.ask("POST", "/explain", {"names": [name]}),
        Code.FIELD_INVALID,
        status=400,
        field="service",
    )


async def test_a_token_for_a_service_learns_nothing_of_another(two_services):
    """What is another's and what is not there get the same answer, to the letter."""
    ca, accounts = two_services
    token, unbound = await ca.operator(Role.OPERATOR, services=("ours",)), await ca.account()
    for theirs, nobodys in (
        ({"service": "theirs"}, {"service": "nobody"}),
        ({"eab_key": "key-of-theirs"}, {"eab_key": "nobody"}),
        ({"account": identity(accounts["theirs"])}, {"account": "0" * 32}),
        ({"account": identity(unbound)}, {"account": "0" * 32}),
    ):
        answers = [
            await token.ask("POST", "/explain", {"names": [ca.name()], "dry_run": dry_run, **who})
            for dry_run in (False, True)
            for who in (theirs, nobodys)
        ]
        for answer in answers:
            assert_refused(answer, Code.NOT_FOUND, status=404)
        assert len({answer.body for answer in answers}) == 1, theirs
    name = ca.name()
    chain = await (await accounts["theirs"].order(name)).issue(ca.web)
    serial, cert_id = f"{chain[0].serial_number:032x}", CertId.of(chain[0])
    nobodys = str(replace(cert_id, serial=cert_id.serial + 1))
    bodies = {
        (await token.ask("POST", "/explain", {"names": [name], "service": "ours", "replaces": one})).body
        for one in (serial, "f" * 32, str(cert_id), nobodys)
    }
    assert len(bodies) == 1


async def test_a_token_for_a_service_is_not_told_how_much_others_have_used_of_a_limit(two_services):
    """A name set's certificates are counted whoever orders them, and a network's orders."""
    ca, accounts = two_services
    name = ca.name()
    await (await accounts["theirs"].order(name)).issue(ca.web)
    wish = {"names": [name], "account": identity(accounts["ours"]), "client": "127.0.0.1"}
    token, operator = await ca.operator(Role.VIEWER, services=("ours",)), await ca.operator()
    for_service, for_all = [
        {step["detail"] for step in found(await who.post("/explain", wish), "limits")}
        for who in (token, operator)
    ]
    shared = f"certificates-per-name-set of dns:{name}"
    assert f"{shared}: 299 left." in for_all
    assert f"{shared}: not reached." in for_service
    assert any(
        detail.startswith("orders-per-account") and detail.endswith(" left.") for detail in for_service
    )


# ---------------------------------------------------------------- renewals


async def test_a_renewal_is_explained_as_new_order_answers_it(new_ca):
    settings = {"orders_per_account": "1/1h", "certificates_per_name_set": "1/1 day"}
    async with new_ca(limits=settings) as ca:
        operator, account, name = await ca.operator(), await ca.account(), ca.name()
        (leaf, *_) = await (await account.order(name)).issue(ca.web)
        serial, cert_id = f"{leaf.serial_number:032x}", str(CertId.of(leaf))

        async def ask(*names, replaces=serial, who=account):
            wish = {"names": names, "account": identity(who), "client": "127.0.0.1", "replaces": replaces}
            return await operator.post("/explain", wish)

        early = await ask(name)
        assert early["problem"]["code"] == Code.LIMIT_REACHED
        assert "not due yet" in found(early, "replaces")[0]["detail"]
        await ca.sql(
            "UPDATE certificate SET window_start = now() - interval '1 h', window_end = now() + interval '1 h'"
        )
        for way in (serial, cert_id):
            due = await ask(name, replaces=way)
            assert due["would_issue"], due
            assert found(due, "limits") == []
        more = await ask(name, ca.name())
        assert more["problem"]["code"] == Code.LIMIT_REACHED
        assert (await account.new_order(name, ca.name(), replaces=cert_id)).json["code"] == Code.LIMIT_REACHED
        stranger, nothing = await ca.account(), ca.name()
        for names, who in (([name], stranger), ([nothing], account)):
            told, answer = await ask(*names, who=who), await who.new_order(*names, replaces=cert_id)
            assert told["problem"]["detail"] == answer.json["detail"]
        before = await ca.sql("SELECT count(*) FROM orders")
        await account.order(name, replaces=cert_id)
        taken, answer = await ask(name), await account.new_order(name, replaces=cert_id)
        assert taken["problem"]["code"] == answer.json["code"] == "already-replaced"
        foreign = found(await ask(name, who=stranger), "replaces")
        assert [step["code"] for step in foreign] == ["unauthorized"], (
            "and nothing more of what is not theirs"
        )
        await ca.sql("UPDATE orders SET expires = now() - interval '1 h' WHERE status = 'pending'")
        assert (await ask(name))["would_issue"], "a dead order holds nothing"
        assert await ca.sql("SELECT count(*) FROM orders WHERE status = 'pending'") == 1, (
            "and is left as it is"
        )
        assert await ca.sql("SELECT count(*) FROM orders") == before + 1


async def test_a_new_account_of_the_service_may_replace(new_ca):
    async with new_ca() as ca:
        operator, name = await ca.operator(), ca.name()
        for kid, service in (("old", "web"), ("new", "web"), ("foreign", "other")):
            await add_eab_key(ca, kid, service=service)
        (leaf, *_) = await (await (await bound_account(ca, "old")).order(name)).issue(ca.web)
        wish = {"names": [name], "replaces": str(CertId.of(leaf))}
        assert (await operator.post("/explain", {**wish, "eab_key": "new"}))["would_issue"]
        told = await operator.post("/explain", {**wish, "eab_key": "foreign"})
        assert told["problem"]["code"] == "unauthorized"
        await ca.sql(
            "UPDATE certificate SET account_id = NULL, order_id = NULL, requested_by = 'operator:x' "
            "WHERE order_id IS NOT NULL"
        )
        told = await operator.post("/explain", {**wish, "eab_key": "new"})
        assert told["problem"]["code"] == "unauthorized", "what an operator issued no order replaces"
        newcomer = await bound_account(ca, "new")
        answer = await newcomer.new_order(name, replaces=str(CertId.of(leaf)))
        assert answer.json["detail"] == told["problem"]["detail"]


# ---------------------------------------------------------------- many names


async def test_as_many_names_as_an_order_may_have_and_no_more(new_ca):
    async with new_ca(max_identifiers=30) as ca:
        operator, account = await ca.operator(), await ca.account()
        names = [f"n{number}.example.test" for number in range(31)]
        told = await operator.post("/explain", {"names": names[:30]})
        assert {one["name"] for one in found(told, "names")} == set(names[:30])
        assert (await account.new_order(*names[:30])).status == 201
        answer = await operator.ask("POST", "/explain", {"names": names})
        assert_refused(answer, Code.FIELD_INVALID, status=400, field="names")
        assert (await account.new_order(*names)).status == 400


async def test_looking_around_ends_in_time(strict, monkeypatch):
    """A hundred names whose servers do not answer keep nobody waiting, and are not said to be well."""
    monkeypatch.setattr(preflight, "LOOK_WITHIN", 0.0)
    names = [strict.name() for _ in range(100)]
    told = await (await strict.operator()).post("/explain", {"names": names, "dry_run": True})
    assert {(one["name"], one["verdict"]) for one in found(told, "reach")} >= {
        (name, "unknown") for name in names
    }
