"""Lists of certificates, orders and accounts, the story of an order, and statistics."""

import asyncio
import itertools
import json
from base64 import urlsafe_b64encode

import pytest
import pytest_asyncio

from acme_ca.admin.access import Role
from acme_ca.core.codes import Code
from tests.support.admin import assert_refused
from tests.support.eab import add_eab_key, bound_account
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP


def identity(url) -> str:
    return url.rpartition("/")[2]


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def stocked(new_ca):
    """A CA of two accounts: one has two certificates, the other an order that failed and one that waits."""
    async with new_ca() as ca:
        one, other = await ca.account(contact=["mailto:ann@example.test"]), await ca.account()
        issued = [await one.order(ca.name()) for _ in range(2)]
        for order in issued:
            await order.issue(ca.web)
        ca.dns.add("wrong.example.test", "A", "127.0.0.1")
        failed = await other.order("wrong.example.test")
        challenge = await failed.challenge()
        await other.post(challenge["url"], {})
        await other.settled((await failed.read())["authorizations"][0])
        waiting = await other.order(ca.name())
        yield ca, await ca.operator(), (one, other), (issued, failed, waiting)


async def test_certificates_are_found_by_each_filter(stocked):
    _, operator, (one, _), (issued, *_) = stocked
    first, second = await operator.pages("/certificates", account=identity(one.url), sort="recorded")
    assert first["names"] == issued[0].names
    assert first["status"] == "good"
    assert first["order"] == identity(issued[0].url)
    for query in (
        {"name": issued[0].names[0]},
        {"serial": first["serial"][:8].upper()},
        {"serial": "0x" + first["serial"]},
        {"key_sha256": first["key_sha256"].upper(), "issued_before": second["recorded"]},
        {"order": first["order"]},
        {"text": f"{issued[0].names[0][:-3]} {first['serial'][:10]}"},
        {"issuer": first["issuer"], "issued_before": second["recorded"]},
    ):
        assert await operator.pages("/certificates", **query, account=identity(one.url)) == [first], query
    assert len(await operator.pages("/certificates", name=".example.test", status="good")) == 2
    assert len(await operator.pages("/certificates", expiring_within="400 days", limit=1)) == 4
    assert await operator.pages("/certificates", expiring_within="1 day") == []
    assert await operator.pages("/certificates", status="revoked") == []
    await operator.post(f"/certificates/{second['serial']}/revoke", {"reason": "superseded"})
    (revoked,) = await operator.pages("/certificates", status="revoked")
    assert (revoked["serial"], revoked["status"], revoked["reason"]) == (
        second["serial"],
        "revoked",
        "superseded",
    )


@pytest.mark.parametrize("text", ["%", "_", "e%", "exampl_", "'", "\\", "':*", "!x", "a & b", "()", "<->"])
async def test_no_character_means_more_than_itself(stocked, text):
    """Lesson 26."""
    _, operator, *_ = stocked
    assert await operator.pages("/certificates", text=text) == []
    assert await operator.pages("/certificates", service=text) == []
    assert await operator.pages("/certificates", profile=text) == []
    assert await operator.pages("/accounts", contact=text) == []


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/certificates", {"status": "pending"}, "status"),
        ("/certificates", {"nonsense": "1"}, "nonsense"),
        ("/certificates", {"limit": "0"}, "limit"),
        ("/certificates", {"limit": "1001"}, "limit"),
        ("/certificates", {"name": "a_b.example"}, "name"),
        ("/certificates", {"name": ".*.example"}, "name"),
        ("/certificates", {"name": "."}, "name"),
        ("/certificates", {"serial": "xyzw"}, "serial"),
        ("/certificates", {"serial": "0x:1:2"}, "serial"),
        ("/certificates", {"serial": "1" * 33}, "serial"),
        ("/certificates", {"key_sha256": "ab"}, "key_sha256"),
        ("/certificates", {"account": "me"}, "account"),
        ("/certificates", {"expiring_within": "soon"}, "expiring_within"),
        ("/certificates", {"issued_since": "2020-01-01T00:00:00"}, "issued_since"),
        ("/certificates", {"text": "a " * 11}, "text"),
        ("/certificates", {"sort": "names"}, "sort"),
        ("/orders", {"status": "done"}, "status"),
        ("/orders", {"name": "-"}, "name"),
        ("/accounts", {"frozen": "perhaps"}, "frozen"),
    ],
)
async def test_bad_queries_are_refused_with_their_field(stocked, path, query, field):
    _, operator, *_ = stocked
    answer = await operator.ask("GET", path, **query, failing=True)
    assert_refused(answer, Code.FIELD_INVALID, status=400, field=field)


async def test_a_cursor_is_for_its_list_and_order_alone(stocked):
    _, operator, *_ = stocked
    by_time = (await operator.get("/certificates", limit=1))["next"]
    by_end = (await operator.get("/certificates", limit=1, sort="not_after"))["next"]
    of_orders = (await operator.get("/orders", limit=1))["next"]
    written = [
        urlsafe_b64encode(text).decode() for text in (b"[]", b'["-recorded"]', b"{}", b"[1,2,3]", b"\xff")
    ]
    dates = [
        urlsafe_b64encode(f'["-recorded","{date}","{"0" * 32}"]'.encode()).decode()
        for date in ("", "yesterday", "2026-01-01", "9999-12-31T23:59:59.999999+99:99", "2026-01-01T00:00:00")
    ]
    for cursor in (by_end, of_orders, by_time[:-4], by_time[4:], "x", "=", "\u00e4", *written, *dates):
        answer = await operator.ask("GET", "/certificates", cursor=cursor, failing=True)
        assert_refused(answer, Code.FIELD_INVALID, status=400, field="cursor")
    for path in ("/orders", "/accounts"):
        answer = await operator.ask("GET", path, cursor=by_time, failing=True)
        assert_refused(answer, Code.FIELD_INVALID, status=400, field="cursor")
    answer = await operator.ask("GET", "/certificates", cursor=by_time, sort="recorded", failing=True)
    assert_refused(answer, Code.FIELD_INVALID, status=400, field="cursor")


@pytest.mark.parametrize(
    "path",
    [
        "/issuers?kind=cross",
        "/issuers?kind=cross&sort=subject",
        "/crl/info?state=finished",
        "/profiles/server/versions?sort=-version",
    ],
)
async def test_nonsense_is_no_cursor_of_a_list_that_is_empty_either(stocked, path):
    _, operator, *_ = stocked
    for cursor in ("x", urlsafe_b64encode(b'["created","x",1]').decode()):
        answer = await operator.ask("GET", f"{path}&cursor={cursor}", failing=True)
        assert_refused(answer, Code.FIELD_INVALID, status=400, field="cursor")


async def test_lists_go_on_behind_the_longest_texts(new_ca):
    """What a cursor says of them fits into it."""
    async with new_ca() as ca:
        operator, account = await ca.operator(), identity((await ca.account()).url)
        for number in range(3):
            long = "\N{LOCK}" * 199 + str(number)
            wish = service(f"s{number}" + "x" * 61) | {"name": long, "owner": long, "domains": []}
            await operator.post("/services/register", wish, status=201)
            name = ".".join([f"{number}" * 61] * 4)
            await ca.sql(
                "INSERT INTO pause (account_id, identifier, failures, failed, paused) "
                f"VALUES ('{account}', 'dns:{name}', 9, now(), now())"
            )
        for path, sorts in (
            ("/services", ("service_id", "name", "-owner")),
            ("/limits/pauses", ("account", "identifier", "failed")),
        ):
            for sort in sorts:
                assert len(await operator.pages(path, sort=sort, limit=1)) == 3, (path, sort)


# ---------------------------------------------------------------- orders


async def test_why_an_order_failed(stocked):
    """Every attempt, the address that was asked, the answer."""
    _, operator, (_, other), (_, failed, _) = stocked
    story = await operator.get(f"/orders/{identity(failed.url)}")
    assert story["status"] == "invalid"
    assert story["account"] == identity(other.url)
    assert story["why"].startswith("wrong.example.test was not proved by http-01: ")
    (authorization,) = story["authorizations"]
    (validation,) = authorization["validations"]
    assert not validation["succeeded"]
    assert validation["error"] == authorization["error"]
    assert "127.0.0.1" in str(validation["record"])
    assert await operator.get(f"/authorizations/{authorization['id']}") == authorization


async def test_the_story_of_an_order_that_went_well(stocked):
    _, operator, _, (issued, *_) = stocked
    story = await operator.get(f"/orders/{identity(issued[0].url)}")
    assert story["why"] == f"It was issued: certificate {story['serial']}."
    assert story["authorizations"][0]["validations"][0]["succeeded"]
    assert "certificate.issued" in [event["event"] for event in story["events"]]
    assert (await operator.get(f"/certificates/{story['serial']}"))["names"] == story["names"]


ODD_TIMES = ("-infinity", "infinity", "4000-01-01 BC", "294000-01-01")


async def test_a_story_with_events_that_somebody_changed(new_ca):
    async with new_ca() as ca:
        operator, account = await ca.operator(), await ca.account()
        order = await account.order(ca.name())
        await order.issue(ca.web)
        path = f"/orders/{identity(order.url)}"
        await ca.sql("ALTER TABLE audit_event DISABLE TRIGGER USER")
        change = "UPDATE audit_event SET {} WHERE event = 'certificate.issued' AND actor LIKE 'account:%'"
        for time in ODD_TIMES:
            await ca.sql(change.format(f"at = '{time}'"))
            (told,) = [one for one in (await operator.get(path))["events"] if "issued" in one["event"]]
            assert told["at"] is None
        for detail in (r'{"a":"\ud800"}', '{"a":' + "9" * 5000 + "}"):
            await ca.sql(change.format(f"detail = '{detail}'"))
            (told,) = [one for one in (await operator.get(path))["events"] if "issued" in one["event"]]
            assert told["detail"] == detail


@pytest.mark.parametrize("time", ODD_TIMES)
@pytest.mark.parametrize(
    "column",
    [
        *("orders.created", "orders.expires", "orders.not_before", "orders.not_after"),
        *("authz.created", "authz.expires", "authz.validated", "validation.at"),
    ],
)
async def test_a_story_whose_times_somebody_changed(stocked, column, time):
    ca, operator, _, (issued, failed, waiting) = stocked
    table, _, name = column.partition(".")
    before = await ca.sql(f"SELECT json_agg(json_build_array(id, {name})) FROM {table}")
    await ca.sql(f"UPDATE {table} SET {name} = '{time}'")
    for order in (*issued, failed, waiting):
        assert (await operator.get(f"/orders/{identity(order.url)}"))["names"] == list(order.names)
    assert len(await operator.pages("/orders", limit=2)) == 4
    for id_, value in json.loads(before):
        await ca.sql(f"UPDATE {table} SET {name} = {quoted(value)} WHERE id = {quoted(id_)}")


def quoted(value):
    return "NULL" if value is None else f"'{value}'"


async def test_certificates_whose_times_somebody_changed_break_no_page(new_ca):
    """The list has each of them once, in either order."""
    async with new_ca() as ca:
        operator, account = await ca.operator(), await ca.account()
        for _ in range(len(ODD_TIMES) * 2 + 1):
            await (await account.order(ca.name())).issue(ca.web)
        serials = await ca.sql("SELECT array_agg(serial) FROM certificate WHERE account_id IS NOT NULL")
        for column in ("recorded", "not_after"):
            for serial, time in zip(serials, ODD_TIMES * 2, strict=False):
                await ca.sql(f"UPDATE certificate SET {column} = '{time}' WHERE serial = '{serial}'")
            expected = await ca.sql(f"SELECT array_agg(serial ORDER BY {column}, serial) FROM certificate")
            for limit in (1, 2, 3):
                for sort, wanted in ((column, expected), (f"-{column}", expected[::-1])):
                    found = await operator.pages("/certificates", sort=sort, limit=limit)
                    assert [one["serial"] for one in found] == wanted
        await ca.sql("UPDATE certificate SET revoked = now(), reason = 0, status_changed = now()")
        for column, time in itertools.product(("not_before", "revoked"), ODD_TIMES):
            await ca.sql(f"UPDATE certificate SET {column} = '{time}'")
            assert len(await operator.pages("/certificates")) == len(expected)


async def test_who_may_not_read_the_audit_is_not_told_the_addresses_in_a_story(new_ca):
    async with new_ca() as ca:
        operator, viewer = await ca.operator(), await ca.operator(Role.VIEWER)
        scoped = await ca.operator(Role.SECURITY_OFFICER, services=("shop",))
        await add_eab_key(ca, "of-shop", service="shop")
        order = await (await bound_account(ca, "of-shop")).order(ca.name())
        await order.issue(ca.web)
        path = f"/orders/{identity(order.url)}"
        told = (await operator.get(path))["events"]
        assert {event["source"] for event in told} == {"127.0.0.1"}
        for who in (viewer, scoped):
            assert (await who.get(path))["events"] == [event | {"source": None} for event in told]


async def test_what_an_order_waits_for(stocked):
    _, operator, _, (*_, waiting) = stocked
    story = await operator.get(f"/orders/{identity(waiting.url)}")
    assert story["status"] == "pending"
    assert story["why"] == f"It waits for the proof of {waiting.names[0]} (no challenge answered yet)."


async def test_orders_are_found_by_each_filter(stocked):
    _, operator, (one, other), (issued, failed, waiting) = stocked

    async def found(**query):
        return [order["id"] for order in await operator.pages("/orders", limit=1, **query)]

    everything = [identity(order.url) for order in (*issued, failed, waiting)]
    assert await found(sort="created") == everything
    assert await found() == everything[::-1]
    assert await found(status="invalid") == [identity(failed.url)]
    assert await found(status="pending") == [identity(waiting.url)]
    assert await found(status="ready") == await found(status="processing") == []
    assert await found(status="valid", sort="created") == everything[:2]
    assert await found(account=identity(one.url), sort="created") == everything[:2]
    assert await found(account=identity(other.url), status="invalid") == [identity(failed.url)]
    assert await found(name="wrong.example.test") == [identity(failed.url)]
    assert await found(name=issued[1].names[0]) == [identity(issued[1].url)]
    assert await found(service="none") == await found(profile="none") == []


async def test_what_there_is_not(stocked):
    _, operator, *_ = stocked
    for path in ("/orders/0", f"/orders/{'0' * 32}", f"/authorizations/{'0' * 32}"):
        assert_refused(await operator.ask("GET", path, failing=True), Code.NOT_FOUND, status=404)


# ---------------------------------------------------------------- accounts, statistics


async def test_accounts(stocked):
    _, operator, (one, other), _ = stocked
    both = [identity(one.url), identity(other.url)]
    assert [found["id"] for found in await operator.pages("/accounts", limit=1, sort="created")] == both
    (found,) = await operator.pages("/accounts", contact="ann@example.test")
    assert found == await operator.get(f"/accounts/{both[0]}")
    assert (found["status"], found["contact"], found["frozen"]) == (
        "valid",
        ["mailto:ann@example.test"],
        None,
    )
    assert len(await operator.pages("/accounts", status="valid", frozen="false")) == 2
    assert await operator.pages("/accounts", frozen="true") == []
    assert await operator.pages("/accounts", status="revoked") == []


async def test_statistics(stocked):
    _, operator, *_ = stocked
    told = await operator.get("/statistics")
    assert told["counts"]["certificates"] == {"number": 4, "estimated": False}
    assert told["counts"]["orders"]["number"] == 4
    assert told["recorded_last_hour"] == told["recorded_last_day"] == 4
    assert told["database_bytes"] > 1_000_000


async def test_what_the_statistics_count(new_ca):
    async with new_ca() as ca:
        operator, account = await ca.operator(), await ca.account()
        for _ in range(5):
            await (await ca.ready(account)).issue(ca.web)
        times = [f"ending_in_a_{time}" for time in ("day", "week", "month")]
        before = await operator.get("/statistics")
        for place, change in enumerate(
            (
                "not_after = now() + interval '23 h'",
                "not_after = now() + interval '6 days'",
                "not_after = now() + interval '29 days', recorded = now() - interval '2 h'",
                "not_after = now() + interval '6 days', revoked = now(), status_changed = now(), reason = 6, recorded = now() - interval '2 days'",
                "not_after = now() + interval '31 days'",
            )
        ):
            await ca.sql(
                f"UPDATE certificate SET {change} WHERE serial = "
                f"(SELECT serial FROM certificate WHERE order_id IS NOT NULL ORDER BY order_id OFFSET {place} LIMIT 1)"
            )
        await ca.sql("UPDATE account SET frozen = now()")
        told = await operator.get("/statistics")
        assert [told[time] - before[time] for time in times] == [1, 2, 3], "beside the server's own"
        recorded = [
            await ca.sql(f"SELECT count(*) FROM certificate WHERE recorded > now() - interval '{time}'")
            for time in ("1 h", "1 day")
        ]
        assert [told["recorded_last_hour"], told["recorded_last_day"]] == recorded
        assert recorded[1] == recorded[0] + 1
        assert [told["revoked"], told["on_hold"], told["frozen_accounts"]] == [1, 1, 1]


async def test_a_credential_for_a_service_sees_that_services_things(new_ca):
    async with new_ca() as ca:
        administrator = await ca.operator()
        await administrator.post("/services/register", service("shop"), status=201)
        await administrator.post("/services/register", service("mail"), status=201)
        wish = {"generate_key": True, "names": ["shop.test"], "service_id": "shop"}
        mine = await administrator.post("/certificates/issue", wish, status=201)
        await (await (await ca.account()).order(ca.name())).issue(ca.web)
        scoped, stranger = await ca.operator(services=("shop",)), await ca.operator(services=("mail",))
        assert [one["serial"] for one in await scoped.pages("/certificates")] == [mine["serial"]]
        assert [one["serial"] for one in await scoped.pages("/certificates", text="shop.t")] == [
            mine["serial"]
        ]
        assert len(await administrator.pages("/certificates")) == 4
        for path in ("/certificates", "/orders", "/accounts"):
            assert await stranger.pages(path) == []
        (order,) = await administrator.pages("/orders")
        (authorization,) = (await administrator.get(f"/orders/{order['id']}"))["authorizations"]
        for room, id_ in (
            ("orders", order["id"]),
            ("authorizations", authorization["id"]),
            ("accounts", order["account"]),
        ):
            foreign, missing = [
                assert_refused(
                    await scoped.ask("GET", f"/{room}/{one}", failing=True), Code.NOT_FOUND, status=404
                )
                for one in (id_, "0" * 32)
            ]
            assert foreign["detail"] == missing["detail"], "nor is it told that there is one"
        assert_refused(await scoped.ask("GET", "/statistics", failing=True), Code.FORBIDDEN, status=403)


def service(id_):
    return {"service_id": id_, "name": id_, "owner": "ann", "domains": [f"{id_}.test"]}


async def test_many_ask_at_once(stocked):
    _, operator, *_ = stocked
    answers = await asyncio.gather(*(operator.get("/certificates", text="n") for _ in range(30)))
    assert all(answer == answers[0] for answer in answers)
