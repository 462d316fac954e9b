"""Limits, overrides and pauses over the API."""

import asyncio
from datetime import UTC, datetime
from secrets import token_hex

import pytest

from acme_ca.core.codes import Code
from acme_ca.core.limits import LimitKind
from acme_ca.core.problems import ErrorType
from tests.support.admin import assert_refused
from tests.support.application import at_work
from tests.support.client import assert_problem
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP


def identity(account) -> str:
    return account.url.rpartition("/")[2]


async def test_the_limits_in_force(new_ca):
    settings = {"orders_per_network": "20/90min", "orders_per_account": "", "failures_before_pause": 7}
    async with new_ca(limits=settings) as ca:
        shown = await (await ca.operator()).get("/limits")
        limits = {one["kind"]: one["limit"] for one in shown["limits"]}
        assert set(limits) == set(LimitKind)
        assert limits["orders-per-network"] == "20/90 minutes"
        assert limits["orders-per-account"] is None
        assert limits["certificates-per-name-set"] == "300/1 day"
        assert shown["failures_before_pause"] == 7


async def test_an_override_holds_at_once_here_and_soon_everywhere(new_ca):
    settings = {"orders_per_account": "1/1h"}
    async with new_ca(limits=settings) as ca, new_ca(ca.dsn, limits=settings) as second:
        administrator, account = await ca.operator(name="alice"), await ca.account()
        wish = {
            "kind": "orders-per-account",
            "subject": identity(account),
            "limit": "3/1h",
            "reason": "moves",
        }
        await account.order(ca.name())
        assert (await account.new_order(ca.name())).error == ErrorType.RATE_LIMITED
        made = await administrator.put("/limits/overrides", wish)
        assert (made["limit"], made["expires"]) == ("3/1 hour", None)
        await account.order(ca.name())
        there = type(account)(second.client, account.key, account.url)
        async with at_work(second):
            for _ in range(100):
                if (answer := await there.new_order(ca.name())).status == 201:
                    break
                await asyncio.sleep(0.05)
        assert answer.status == 201
        assert await administrator.pages("/limits/overrides") == [made]
        other = await (await ca.account()).order(ca.name())
        assert (await other.account.new_order(ca.name())).error == ErrorType.RATE_LIMITED
        removed = {name: wish[name] for name in ("kind", "subject")}
        await administrator.post("/limits/overrides/remove", removed, status=204)
        again = await administrator.ask("POST", "/limits/overrides/remove", removed)
        assert_refused(again, Code.NOT_FOUND, status=404)
        events = await ca.sql(
            "SELECT array_agg(event || ' ' || actor || ' ' || source ORDER BY id) FROM audit_event "
            "WHERE event LIKE 'limit.%'"
        )
        assert events == [
            "limit.overridden operator:alice 127.0.0.1",
            "limit.override-removed operator:alice 127.0.0.1",
        ]


async def test_an_override_limits_where_the_settings_do_not_and_ends_in_time(new_ca):
    async with new_ca(limits={"orders_per_account": ""}) as ca:
        operator = await ca.operator()
        wish = {"kind": "orders-per-account", "limit": "1/1 day", "reason": "x"}
        for time in (
            "3 seconds",
            "20 seconds",
        ):  # the longer one where the machine stood still in the shorter
            account = await ca.account()
            subject = {"subject": identity(account), "expires_in": time}
            made = await operator.put("/limits/overrides", {**wish, **subject})
            answers = [await account.new_order(ca.name()) for _ in range(2)]
            if datetime.now(UTC) < datetime.fromisoformat(made["expires"]):
                break
        assert [answer.status for answer in answers] == [201, 429]
        await past(made["expires"])
        await account.order(ca.name())
        assert await operator.pages("/limits/overrides") == []


async def past(time: str) -> None:
    left = datetime.fromisoformat(time) - datetime.now(UTC)
    await asyncio.sleep(left.total_seconds() + 0.1)


async def test_subjects_are_read_as_people_write_them(new_ca):
    async with new_ca(policy={"allowed_domains": "vcc.internal,test"}) as ca:
        operator = await ca.operator()
        for kind, subject, known in (
            ("accounts-per-network", "192.0.2.9", "192.0.2.9/32"),
            ("orders-per-network", "2001:db8::/48", "2001:db8::/48"),
            ("certificates-per-name-set", "b.test, A.test", "dns:a.test,dns:b.test"),
            ("certificates-per-registered-name", "Clara.VCC.internal", "clara.vcc.internal"),
        ):
            wish = {"kind": kind, "subject": subject, "limit": "5/1h", "reason": "x"}
            assert (await operator.put("/limits/overrides", wish))["subject"] == known
            await operator.post("/limits/overrides/remove", {"kind": kind, "subject": subject}, status=204)


async def test_a_set_of_the_most_and_longest_names_can_have_another_limit(new_ca):
    async with new_ca() as ca:
        operator = await ca.operator()
        kind = "certificates-per-name-set"
        sets = [",".join(f"{token_hex(31)}.{token_hex(31)}.test" for _ in range(100)) for _ in range(3)]
        for names in sets:
            wish = {"kind": kind, "subject": names, "limit": "5/1h", "reason": "x"}
            made = await operator.put("/limits/overrides", wish)
            assert (await operator.put("/limits/overrides", wish | {"limit": "6/1h"}))["subject"] == made[
                "subject"
            ]
        for sort in ("kind", "subject", "-subject", "created", "expires"):
            found = await operator.pages("/limits/overrides", sort=sort, limit=1)
            assert len({one["subject"] for one in found}) == len(found) == 3, sort
            assert {one["limit"] for one in found} == {"6/1 hour"}
        assert [
            one["subject"] for one in await operator.pages("/limits/overrides", sort="-subject")
        ] == sorted((one["subject"] for one in found), reverse=True)
        for names in sets:
            await operator.post("/limits/overrides/remove", {"kind": kind, "subject": names}, status=204)
        assert await operator.pages("/limits/overrides") == []


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"subject": "0" * 32}, "subject"),
        ({"subject": "%"}, "subject"),
        ({"kind": "orders-per-eab-key", "subject": "nobody"}, "subject"),
        ({"kind": "orders-per-network", "subject": "192.0.2.0/24"}, "subject"),
        ({"kind": "orders-per-network", "subject": "somewhere"}, "subject"),
        ({"kind": "certificates-per-name-set", "subject": "a_b.test"}, "subject"),
        ({"kind": "certificates-per-registered-name", "subject": "a.b.c.test"}, "subject"),
        ({"kind": "certificates-per-nothing"}, "kind"),
        ({"limit": "0/1h"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"limit": 5}, "limit"),
        ({"reason": ""}, "reason"),
        ({"expires_in": "soon"}, "expires_in"),
        ({"whatever": 1}, "whatever"),
    ],
)
async def test_what_is_no_override_is_refused_with_its_field(ca, account, changed, field):
    wish = {"kind": "orders-per-account", "subject": identity(account), "limit": "3/1h", "reason": "x"}
    operator = await ca.operator()
    answer = await operator.ask("PUT", "/limits/overrides", {**wish, **changed})
    assert_refused(answer, Code.FIELD_INVALID, status=400, field=field)
    assert await operator.pages("/limits/overrides") == []


async def test_pages_of_overrides_and_pauses(new_ca):
    async with new_ca(limits={"failures_before_pause": 1}) as ca:
        operator, account = await ca.operator(), await ca.account()
        for number in range(5):
            subject = f"n{number}.test"
            wish = {"kind": "certificates-per-name-set", "subject": subject, "limit": "5/1h", "reason": "x"}
            await operator.put("/limits/overrides", wish)
            await ca.sql(
                "INSERT INTO pause (account_id, identifier, failures, failed, paused) "
                f"VALUES ('{identity(account)}', 'dns:{subject}', 9, now(), now())"
            )
        assert len(await operator.pages("/limits/overrides", limit=2)) == 5
        names = [one["identifier"] for one in await operator.pages("/limits/pauses", limit=2)]
        assert names == [f"dns:n{number}.test" for number in range(5)]
        found = await operator.pages("/limits/pauses", account=identity(account), identifier="n3.test")
        assert [one["identifier"] for one in found] == ["dns:n3.test"]
        lifted = await operator.post("/limits/pauses/lift", {"identifiers": ["n1.test", "n2.test"]})
        assert lifted == {"lifted": ["dns:n1.test", "dns:n2.test"]}
        lifted = await operator.post("/limits/pauses/lift", {"account": identity(account)})
        assert len(lifted["lifted"]) == 3
        assert await ca.sql("SELECT count(*) FROM audit_event WHERE event = 'account.unpaused'") == 5
        nothing = await operator.ask("POST", "/limits/pauses/lift", {})
        assert_refused(nothing, Code.FIELD_INVALID, status=400, field="account")
        for query in ({"account": "x"}, {"identifier": "a,b"}, {"identifier": "%"}):
            assert (await operator.ask("GET", "/limits/pauses", **query)).status == 400


async def test_how_much_is_left(new_ca):
    settings = {
        "orders_per_account": "5/1h",
        "certificates_per_name_set": "2/1 day",
        "accounts_per_network": "9/1h",
    }
    async with new_ca(limits=settings) as ca:
        operator, account, name = await ca.operator(), await ca.account(), ca.name()
        await (await account.order(name)).issue(ca.web)
        query = {"account": identity(account), "names": name, "address": "127.0.0.1"}
        shown = [await operator.get("/limits/usage", **query) for _ in range(2)]
        assert shown[0]["items"][0]["left"] == shown[1]["items"][0]["left"], "to look takes nothing"
        left = {one["kind"]: one["left"] for one in shown[1]["items"]}
        assert left == {"orders-per-account": 4, "certificates-per-name-set": 1, "accounts-per-network": 8}
        nobody = await operator.ask("GET", "/limits/usage")
        assert_refused(nobody, Code.FIELD_INVALID, "names", status=400, field="account")
        for query in ({"account": "0" * 32}, {"account": "%"}, {"names": "a_b"}):
            assert (await operator.ask("GET", "/limits/usage", **query)).status in {400, 404}


async def test_metrics_count_who_is_refused_and_who_is_paused(new_ca):
    async with new_ca(limits={"orders_per_account": "1/1h"}) as ca:
        account = await ca.account()
        await account.order(ca.name())
        for _ in range(3):
            assert_problem(await account.new_order(ca.name()), ErrorType.RATE_LIMITED)
        await ca.sql(
            "INSERT INTO pause (account_id, identifier, failures, failed, paused) "
            f"VALUES ('{identity(account)}', 'dns:a.test', 9, now(), now())"
        )
        async with at_work(ca):
            for _ in range(500):
                if await ca.sql("SELECT sum(refusals) FROM limit_refusal"):
                    break
                await asyncio.sleep(0.02)
        text = (await ca.plain.request("GET", f"{ca.plain.public_url}/metrics")).body.decode()
        assert "# TYPE acme_ca_rate_limited_total counter" in text
        assert 'acme_ca_rate_limited_total{kind="orders-per-account"} 3.0' in text
        assert "acme_ca_accounts_paused 1.0" in text
