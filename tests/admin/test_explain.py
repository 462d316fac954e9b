"""`explain`: what it says is what newOrder says, with the same codes."""

from base64 import b64encode

import pytest
import pytest_asyncio

from acme_ca.admin.access import Role
from acme_ca.core.codes import Code
from tests.support import issuing
from tests.support.admin import assert_refused
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
        ({"names": ["a.example"] * 26}, "names"),
        ({"names": ["a.example"], "client": "here"}, "client"),
        ({"names": ["a.example"], "csr": "no"}, "csr"),
        ({"names": ["a.example"], "account": "me"}, "account"),
        ({"names": ["a.example"], "nonsense": 1}, "nonsense"),
    ],
)
async def test_bad_questions_are_refused_with_their_field(strict, wish, field):
    answer = await (await strict.operator()).ask("POST", "/explain", wish, failing=True)
    assert_refused(answer, Code.FIELD_INVALID, status=400, field=field)


async def test_who_is_not_there(strict):
    operator = await strict.operator()
    for who in ({"account": "0" * 32}, {"eab_key": "none"}):
        answer = await operator.ask("POST", "/explain", {"names": ["a.example"], **who}, failing=True)
        assert_refused(answer, Code.NOT_FOUND, status=404)
