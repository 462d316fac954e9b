"""Approved scopes: names that an administrator approved, whose authorizations are born valid."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from acme_ca.core.codes import Code
from acme_ca.core.ids import ScopeId
from acme_ca.core.names import NameRule
from acme_ca.core.problems import ErrorType
from acme_ca.core.scopes import ApprovedScope, ScopeState
from acme_ca.storage import scopes
from acme_ca.storage.database import Database
from tests.support import records
from tests.support.client import assert_problem
from tests.support.eab import OPERATOR, add_eab_key, bound_account, freeze, id_of
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP

HOUR = timedelta(hours=1)


async def approve(ca, rule: str, *, account=None, kid=None, lasts: timedelta = HOUR) -> ScopeId:
    """As an administrator does; the running server is told as its loop would."""
    now = datetime.now(UTC)
    scope = ApprovedScope(
        id=ScopeId(records.new_id()),
        account_id=id_of(account) if account else None,
        eab_key_id=kid,
        rule=NameRule.parse(rule),
        reason="no way in from here",
        approved_by=OPERATOR.name,
        created=now,
        expires=now + lasts,
    )
    async with Database.open(ca.dsn, connections=1) as database:
        assert await scopes.create(database, scope, actor=OPERATOR)
    await ca.application.policies.refresh()
    return scope.id


async def revoke(ca, scope: ScopeId) -> int | None:
    """The running server is not told."""
    async with Database.open(ca.dsn, connections=1) as database:
        return await scopes.revoke(database, scope, reason="over", actor=OPERATOR, now=datetime.now(UTC))


@pytest_asyncio.fixture(loop_scope="session")
async def holder(ca):
    """An account of its own."""
    return await ca.account()


# ---------------------------------------------------------------- what is covered

COVERED = {
    "exact": ("exact:{}", ["{}"], ["a.{}", "*.{}", "other.example"]),
    "exact wildcard": ("exact:*.{}", ["*.{}"], ["{}", "a.{}"]),
    "wildcard": ("wildcard:*.{}", ["a.{}", "*.{}"], ["{}", "b.a.{}", "*.a.{}"]),
    "subtree": ("suffix:{}", ["{}", "a.{}", "*.{}", "b.a.{}", "*.a.{}"], ["x{}", "example.test"]),
}


@pytest.mark.parametrize("case", COVERED)
async def test_what_a_scope_covers(ca, holder, case):
    rule, covered, beyond = COVERED[case]
    base = ca.name()
    await approve(ca, rule.format(base), account=holder)
    for name in covered:
        order = await holder.order(name.format(base))
        assert order.object["status"] == "ready", name
    for name in beyond:
        order = await holder.order(name.format(base))
        assert order.object["status"] == "pending", name


async def test_an_address_is_approved_exactly(ca, holder):
    await approve(ca, "exact:192.0.2.77", account=holder)
    assert (await holder.order("192.0.2.77")).object["status"] == "ready"
    assert (await holder.order("192.0.2.78")).object["status"] == "pending"


# ---------------------------------------------------------------- a whole issuance


async def test_an_order_of_approved_names_is_ready_at_once(ca, holder):
    """Nobody is asked: the names lead nowhere."""
    order = await holder.order("nowhere.example", "*.nowhere.example")
    assert order.object["status"] == "pending"
    scope = await approve(ca, "suffix:nowhere.example", account=holder)
    order = await holder.order("nowhere.example", "*.nowhere.example")
    assert order.object["status"] == "ready"
    for authorization in await order.authorizations():
        assert authorization["status"] == "valid"
        (challenge,) = authorization["challenges"]
        assert challenge["status"] == "valid"
        assert challenge["token"]
        assert challenge["validated"]
        assert (await holder.read(challenge["url"])).json == challenge
        again = await holder.post(challenge["url"], {})
        assert (again.status, again.json) == (200, challenge), "answering it changes nothing"
    answer = await order.finalize()
    assert (answer.status, answer.json["status"]) == (200, "valid")
    marked = await ca.sql(f"SELECT count(*) FROM authz WHERE scope_id = '{scope}' AND challenge IS NULL")
    assert marked == 2
    assert await ca.sql(f"SELECT count(*) FROM validation WHERE account_id = '{id_of(holder)}'") == 0


async def test_names_that_are_not_approved_are_proved(ca, holder):
    approved, other = ca.name(), ca.name()
    await approve(ca, f"exact:{approved}", account=holder)
    order = await holder.order(approved, other)
    assert order.object["status"] == "pending"
    statuses = {found["identifier"]["value"]: found["status"] for found in await order.authorizations()}
    assert statuses == {approved: "valid", other: "pending"}
    await order.prove(ca.web)
    assert (await order.finalize()).status == 200


async def test_the_accounts_of_an_eab_key(ca, account):
    name = ca.name()
    await add_eab_key(ca, "approved")
    await approve(ca, f"exact:{name}", kid="approved")
    for _ in range(2):
        assert (await (await bound_account(ca, "approved")).order(name)).object["status"] == "ready"
    assert (await account.order(name)).object["status"] == "pending"


async def test_pre_authorization(ca, holder):
    name, scope = ca.name(), None
    url, wish = ca.client.url("new-authz"), {"identifier": {"type": "dns", "value": name}}
    assert (await holder.post(url, wish)).json["status"] == "pending"
    scope = await approve(ca, f"exact:{name}", account=holder)
    answer = await holder.post(url, wish)
    assert (answer.status, answer.json["status"]) == (201, "valid")
    await revoke(ca, scope)
    assert (await holder.read(answer.location)).json["status"] == "revoked"
    assert (await holder.post(url, wish)).json["status"] == "pending", (
        "the memory of the process is not believed"
    )


async def test_policy_profile_and_issuer_are_asked_all_the_same(ca, holder):
    """An approval replaces the proof, nothing else (lesson 2)."""
    await approve(ca, "suffix:elsewhere.example", account=holder)
    problem = assert_problem(
        await holder.new_order("www.elsewhere.example", profile="argus_api"), ErrorType.INVALID_PROFILE
    )
    assert problem["subproblems"][0]["code"] == Code.NAME_NOT_IN_PROFILE


async def test_a_name_that_no_challenge_of_the_server_could_prove(new_ca):
    async with new_ca(validation={"challenges": "http-01"}) as ca:
        holder = await ca.account()
        assert_problem(await holder.new_order("*.apps.example"), ErrorType.REJECTED_IDENTIFIER)
        await approve(ca, "wildcard:*.apps.example", account=holder)
        order = await holder.order("*.apps.example")
        ((challenge,),) = [found["challenges"] for found in await order.authorizations()]
        assert (challenge["type"], challenge["status"]) == ("dns-01", "valid")
        assert (await holder.read(challenge["url"])).json == challenge
        assert (await order.finalize()).status == 200


# ---------------------------------------------------------------- its end


async def test_a_revoked_scope_ends_what_was_ready(ca, holder):
    name = ca.name()
    scope = await approve(ca, f"exact:{name}", account=holder)
    done, ready = await holder.order(name), await holder.order(name)
    assert (await done.finalize()).status == 200
    assert await revoke(ca, scope) == 2
    assert_problem(await ready.finalize(), ErrorType.ORDER_NOT_READY)
    assert (await ready.read())["status"] == "invalid"
    assert [found["status"] for found in await ready.authorizations()] == ["revoked"]
    assert (await done.read())["status"] == "valid", "what was issued is issued"
    assert await revoke(ca, scope) is None, "once"


async def test_a_scope_that_was_revoked_a_moment_ago_approves_nothing(ca, holder):
    """The process still remembers it; the statement knows better."""
    name = ca.name()
    scope = await approve(ca, f"exact:{name}", account=holder)
    await revoke(ca, scope)
    order = await holder.order(name)
    assert order.object["status"] == "pending"
    await order.prove(ca.web)
    assert (await order.finalize()).status == 200


async def test_an_authorization_does_not_outlive_its_scope(ca, holder):
    for lasts in (3, 20):  # the longer one where the machine stood still in the shorter
        name, end = ca.name(), datetime.now(UTC) + timedelta(seconds=lasts)
        scope = await approve(ca, f"exact:{name}", account=holder, lasts=timedelta(seconds=lasts))
        order = await holder.order(name)
        if datetime.now(UTC) < end:
            break
    assert order.object["status"] == "ready"
    await asyncio.sleep(lasts + 0.1)
    assert_problem(await order.finalize(), ErrorType.ORDER_NOT_READY)
    assert (await holder.order(name)).object["status"] == "pending"
    assert await ca.sql(f"SELECT count(*) FROM authz WHERE scope_id = '{scope}'") == 1


async def test_lesson_10_a_scope_that_cannot_be_read_approves_nothing_and_stops_no_other_change(ca, holder):
    """A later release may know kinds of rules that this one does not."""
    name, other = ca.name(), ca.name()
    unreadable = await approve(ca, f"exact:{name}", account=holder)
    await ca.sql(f"UPDATE approved_scope SET rule = 'invented-later:x' WHERE id = '{unreadable}'")
    try:
        await approve(ca, f"exact:{other}", account=holder)
        assert (await holder.order(other)).object["status"] == "ready"
        assert (await holder.order(name)).object["status"] == "pending"
    finally:
        await ca.sql(f"UPDATE approved_scope SET rule = 'exact:{name}' WHERE id = '{unreadable}'")


async def test_a_frozen_account_has_no_use_for_it(ca, holder):
    name = ca.name()
    await approve(ca, f"exact:{name}", account=holder)
    order = await holder.order(name)
    await freeze(ca, holder)
    assert_problem(await order.finalize(), ErrorType.UNAUTHORIZED, "frozen")
    assert_problem(await holder.new_order(name), ErrorType.UNAUTHORIZED, "frozen")


async def test_of_orders_that_meet_the_revocation_none_stays_ready(new_ca):
    async with new_ca() as ca:
        holder = await ca.account()
        scope = await approve(ca, "suffix:race.example", account=holder)
        answers = await asyncio.gather(
            *(holder.new_order(f"n{number}.race.example") for number in range(20)), revoke(ca, scope)
        )
        left = await ca.sql("SELECT count(*) FROM authz WHERE status = 'valid'")
        assert left == 0, "each was revoked, or not approved in the first place"
        assert all(answer.status == 201 for answer in answers[:-1])


async def test_an_approval_is_in_the_audit(ca, holder):
    scope = await approve(ca, "suffix:told.example", account=holder)
    await revoke(ca, scope)
    told = json.loads(
        await ca.sql(
            "SELECT json_agg(json_build_array(event, actor, source, detail) ORDER BY id) FROM audit_event "
            f"WHERE object = 'scope:{scope}'"
        )
    )
    (approved, *_, detail), (ended, *_) = told
    assert (approved, ended) == ("scope.approved", "scope.revoked")
    assert (detail["rule"], detail["reason"]) == ("suffix:told.example", "no way in from here")
    assert {(event[1], event[2]) for event in told} == {(OPERATOR.name, OPERATOR.source)}


# ---------------------------------------------------------------- the words


async def test_a_scope_lives_until_its_end_or_its_revocation():
    now = datetime.now(UTC)
    scope = {
        "id": ScopeId("s"),
        "rule": NameRule.parse("exact:a.example"),
        "reason": "r",
        "approved_by": "operator:olga",
        "created": now,
        "expires": now + HOUR,
    }
    assert ApprovedScope(**scope).state(now) is ScopeState.LIVING
    assert ApprovedScope(**scope).state(now + HOUR) is ScopeState.EXPIRED
    assert ApprovedScope(**scope, revoked=now).state(now) is ScopeState.REVOKED
