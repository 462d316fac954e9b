"""The service registry: who is in it, what becomes of a service, and what ends with it."""

import asyncio
import json
import os
from dataclasses import replace
from datetime import timedelta

import pytest

from acme_ca.core.actors import Actor
from acme_ca.core.codes import Code
from acme_ca.core.problems import Problem
from acme_ca.core.services import Service
from acme_ca.core.states import SERVICE_TRANSITIONS, ServiceState
from acme_ca.lifecycle.services import Services
from acme_ca.storage import eab
from acme_ca.storage import services as store
from acme_ca.storage.database import Database
from acme_ca.storage.search import Position, Wanted
from tests.support import records
from tests.support.records import NOW

ALICE = Actor("operator:alice", "192.0.2.7")


@pytest.fixture
async def database(database_url):
    async with records.stocked(database_url) as opened:
        yield opened


def registry(database: Database, *, approval_required: bool = False, now=NOW) -> Services:
    return Services(
        database=database,
        approval_required=approval_required,
        clock=lambda: now,
        random_bytes=os.urandom,
    )


def service(service_id: str = "orders", **fields) -> Service:
    return Service.model_validate({"service_id": service_id, "name": "Orders", "owner": "Trade", **fields})


async def events(database, object_: str) -> list[tuple]:
    rows = await database.fetch(
        "SELECT event, actor, source, detail FROM audit_event WHERE object = $1 ORDER BY id", object_
    )
    return [(row["event"], row["actor"], row["source"], json.loads(row["detail"])) for row in rows]


async def eab_key(database, id_: str, *, service: str, approved: bool = True) -> None:
    await database.execute(
        """INSERT INTO eab_key (id, hmac_key, owner, service, created, approved)
           VALUES ($1, $2, 'Trade', $3, $4, CASE WHEN $5 THEN $4::timestamptz END)""",
        id_,
        b"k" * 32,
        service,
        NOW,
        approved,
    )


async def account_of(database, key: str) -> str:
    made = await records.account(database)
    await database.execute(
        "UPDATE account SET eab_key_id = $2, eab_binding = '{}' WHERE id = $1", made.id, key
    )
    return made.id


# ---------------------------------------------------------------- registering


async def test_a_service_is_registered_and_found(database):
    made, key = await registry(database).register(service(tags=["prod"]), actor=ALICE)
    assert key is None
    assert made.state is ServiceState.APPROVED
    assert (made.created, made.changed, made.approved, made.retired) == (NOW, NOW, NOW, None)
    assert await registry(database).find("orders") == made
    ((event, *who, detail),) = await events(database, "service:orders")
    assert (event, who) == ("service.registered", ["operator:alice", "192.0.2.7"])
    assert detail["state"] == "approved"
    assert Service.model_validate({"service_id": "orders", **detail["service"]}) == made.service


async def test_where_approval_is_required_it_waits(database):
    room = registry(database, approval_required=True)
    made, _ = await room.register(service(), actor=ALICE)
    assert (made.state, made.approved) == (ServiceState.PENDING, None)
    assert (await room.approve("orders", actor=ALICE)).state is ServiceState.APPROVED


async def test_an_id_is_given_once_also_to_fifty_at_the_same_time(database):
    outcomes = await asyncio.gather(
        *(registry(database).register(service(version=str(n)), actor=ALICE) for n in range(50)),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, Problem)]
    assert len(refused) == 49
    assert {(problem.code, problem.status) for problem in refused} == {(Code.EXISTS, 409)}
    assert len(await events(database, "service:orders")) == 1


async def test_a_retired_service_keeps_its_id(database):
    room = registry(database)
    await room.register(service(), actor=ALICE)
    await room.retire("orders", actor=ALICE)
    with pytest.raises(Problem, match="already"):
        await room.register(service(), actor=ALICE)


@pytest.mark.parametrize("name", ["orders%", "order_", "", "'; --"])
async def test_what_is_not_there_is_not_found(database, name):
    await registry(database).register(service(), actor=ALICE)
    for act in ("find", "approve", "retire"):
        arguments = {} if act == "find" else {"actor": ALICE}
        with pytest.raises(Problem) as refused:
            await getattr(registry(database), act)(name, **arguments)
        assert (refused.value.code, refused.value.status) == (Code.NOT_FOUND, 404)


# ---------------------------------------------------------------- changing


async def test_a_change_is_told_field_by_field(database):
    room = registry(database)
    await room.register(service(), actor=ALICE)
    changed = await room.change(service(version="2"), actor=ALICE)
    assert changed == await room.find("orders")
    assert (await events(database, "service:orders"))[1] == (
        "service.changed",
        "operator:alice",
        "192.0.2.7",
        {"version": {"before": "", "after": "2"}},
    )


async def test_what_is_the_same_is_no_change(database):
    await registry(database).register(service(), actor=ALICE)
    later = registry(database, now=NOW + timedelta(hours=1))
    assert (await later.change(service(), actor=ALICE)).changed == NOW
    assert len(await events(database, "service:orders")) == 1


async def test_a_change_upon_a_change_that_was_not_seen_is_refused(database):
    made, _ = await registry(database).register(service(), actor=ALICE)
    await registry(database, now=NOW + timedelta(hours=1)).change(service(version="2"), actor=ALICE)
    assert (
        await store.change(database, made, service(version="3"), actor=ALICE, now=NOW + timedelta(hours=2))
        is None
    )
    assert (await registry(database).find("orders")).service.version == "2"


async def test_a_retired_service_is_not_changed(database):
    room = registry(database)
    await room.register(service(), actor=ALICE)
    await room.retire("orders", actor=ALICE)
    with pytest.raises(Problem, match="retired"):
        await room.change(service(version="2"), actor=ALICE)


# ---------------------------------------------------------------- states


@pytest.mark.parametrize("before", ServiceState)
@pytest.mark.parametrize("after", [ServiceState.APPROVED, ServiceState.RETIRED])
async def test_states_change_along_the_table_only(database, before, after):
    await store.register(database, service(), ServiceState.PENDING, actor=ALICE, now=NOW)
    room = registry(database)
    if before is ServiceState.APPROVED:
        await room.approve("orders", actor=ALICE)
    elif before is ServiceState.RETIRED:
        await room.retire("orders", actor=ALICE)
    told = len(await events(database, "service:orders"))
    act = room.approve if after is ServiceState.APPROVED else room.retire
    if after in SERVICE_TRANSITIONS[before]:
        await act("orders", actor=ALICE)
        expected, told = after, told + 1
    else:
        with pytest.raises(Problem, match=f"is {before} already") as refused:
            await act("orders", actor=ALICE)
        assert (refused.value.code, refused.value.status) == (Code.CONFLICT, 409)
        expected = before
    assert (await room.find("orders")).state is expected
    assert len(await events(database, "service:orders")) == told


async def test_keys_that_waited_with_their_service_are_approved_with_it(database):
    await store.register(database, service(), ServiceState.PENDING, actor=ALICE, now=NOW)
    await eab_key(database, "waiting", service="orders", approved=False)
    await eab_key(database, "another", service="else", approved=False)
    await registry(database).approve("orders", actor=ALICE)
    approved = await database.fetch("SELECT id FROM eab_key WHERE approved IS NOT NULL")
    assert [row["id"] for row in approved] == ["waiting"]
    assert (await events(database, "eab_key:waiting"))[0][0] == "eab-key.approved"


async def test_a_retired_service_takes_its_keys_and_accounts_along(database):
    room = registry(database)
    await room.register(service(), actor=ALICE)
    for key, of in (("first", "orders"), ("second", "orders"), ("other", "else")):
        await eab_key(database, key, service=of)
    mine, other = await account_of(database, "first"), await account_of(database, "other")
    serial = await records.certificate(database, account_id=mine)
    gone = await room.retire("orders", actor=ALICE)
    assert (gone.eab_keys, gone.accounts) == (("first", "second"), (mine,))
    assert await database.fetchval("SELECT frozen FROM account WHERE id = $1", mine) == NOW
    assert await database.fetchval("SELECT frozen FROM account WHERE id = $1", other) is None
    assert await database.fetchval("SELECT revoked FROM eab_key WHERE id = 'other'") is None
    assert await database.fetchval("SELECT revoked FROM certificate WHERE serial = $1", serial) is None
    assert (await events(database, f"account:{mine}"))[-1] == (
        "account.frozen",
        "operator:alice",
        "192.0.2.7",
        {"reason": "its EAB key is revoked", "eab_key": "first"},
    )
    assert [event for event, *_ in await events(database, "eab_key:first")] == ["eab-key.revoked"]


async def test_approved_again_its_keys_stay_revoked(database):
    room = registry(database)
    await room.register(service(), actor=ALICE)
    await eab_key(database, "first", service="orders")
    await room.retire("orders", actor=ALICE)
    again = await room.approve("orders", actor=ALICE)
    assert (again.state, again.retired) == (ServiceState.APPROVED, None)
    assert await database.fetchval("SELECT revoked FROM eab_key WHERE id = 'first'") == NOW


async def test_retired_by_many_at_once_it_is_told_once(database):
    await registry(database).register(service(), actor=ALICE)
    outcomes = await asyncio.gather(
        *(registry(database).retire("orders", actor=ALICE) for _ in range(20)), return_exceptions=True
    )
    assert sum(not isinstance(outcome, Problem) for outcome in outcomes) == 1
    assert [event for event, *_ in await events(database, "service:orders")].count("service.retired") == 1


# ---------------------------------------------------------------- EAB keys


@pytest.mark.parametrize("waits", [True, False])
async def test_a_key_comes_with_the_registration_and_is_for_the_domains(database, waits):
    wish = service(domains=["a.example", "*.b.example"], contacts=["trade@example.org"])
    _, key = await registry(database).register(wish, with_eab_key=True, wait=waits, actor=ALICE)
    stored = await eab.find(database, key.id)
    assert stored == key
    assert (key.owner, key.service, key.contact) == ("Trade", "orders", ("trade@example.org",))
    assert [str(rule) for rule in key.restrictions.names.allow] == [
        "exact:a.example",
        "wildcard:*.b.example",
    ]
    assert (key.approved is None) is waits
    assert (await events(database, f"eab_key:{key.id}"))[0][:2] == ("eab-key.created", "operator:alice")


async def test_for_a_service_that_is_there_no_key_is_made(database):
    await registry(database).register(service(), actor=ALICE)
    with pytest.raises(Problem):
        await registry(database).register(service(), with_eab_key=True, actor=ALICE)
    assert await database.fetchval("SELECT count(*) FROM eab_key") == 0


async def test_a_further_key_is_for_the_domains_of_now_and_none_for_a_retired_service(database):
    room = registry(database)
    await room.register(service(domains=["a.example"]), actor=ALICE)
    await room.change(service(domains=["b.example"]), actor=ALICE)
    _, key = await room.make_eab_key("orders", actor=ALICE)
    assert [str(rule) for rule in key.restrictions.names.allow] == ["exact:b.example"]
    found = await room.find("orders")
    await room.retire("orders", actor=ALICE)
    with pytest.raises(Problem, match="retired"):
        await room.make_eab_key("orders", actor=ALICE)
    assert not await store.add_eab_key(database, found, replace(key, id="late"), actor=ALICE)
    assert await database.fetchval("SELECT array_agg(id) FROM eab_key") == [key.id]


async def test_no_key_outlives_a_service_that_retires_meanwhile(database):
    for number in range(20):
        name = f"s{number}"
        await registry(database).register(service(name), actor=ALICE)
        await asyncio.gather(
            registry(database).retire(name, actor=ALICE),
            registry(database).make_eab_key(name, actor=ALICE),
            return_exceptions=True,
        )
    assert await database.fetchval("SELECT count(*) FROM eab_key WHERE revoked IS NULL") == 0


# ---------------------------------------------------------------- lists


async def test_a_page_is_filtered_and_goes_on_behind_the_last(database):
    room = registry(database)
    for number in range(5):
        tags = ["even"] if number % 2 == 0 else []
        await room.register(service(f"s{number}", tags=tags, owner=f"o{number}"), actor=ALICE)
    await room.retire("s4", actor=ALICE)

    async def ids(**wanted) -> list[str]:
        after = Position(wanted.pop("after")) if "after" in wanted else None
        limit = wanted.pop("limit", 10)
        wish = Wanted(filters=wanted, sort="service_id", after=after, limit=limit)
        return [one.service.service_id for one in (await store.page(database, wish, now=NOW)).items]

    assert await ids() == ["s0", "s1", "s2", "s3", "s4"]
    assert await ids(limit=2) == ["s0", "s1"]
    assert await ids(after="s1", limit=2) == ["s2", "s3"]
    assert await ids(tag="even") == ["s0", "s2", "s4"]
    assert await ids(tag="ev%") == []
    assert await ids(state=ServiceState.RETIRED) == ["s4"]
    assert await ids(owner="o3") == ["s3"]
    assert await ids(services=["s1", "s3"]) == ["s1", "s3"]
    assert await ids(services=[]) == []
