"""Limits and pauses as clients meet them (RFC 8555 §6.6)."""

import asyncio
import html
import re
from dataclasses import replace
from datetime import timedelta

import pytest

from acme_ca.acme.unpausing import Unpausing
from acme_ca.acme.urls import Urls
from acme_ca.core.codes import Code
from acme_ca.core.eab import Restrictions
from acme_ca.core.ids import AccountId
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.renewal import CertId
from acme_ca.log import redact
from acme_ca.storage.database import Database
from tests.support.client import assert_problem, key_change
from tests.support.eab import add_eab_key, bound_account
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.jose import Key
from tests.support.records import NOW

pytestmark = IN_SESSION_LOOP


def assert_limited(answer, *words: str, most: int) -> None:
    """`most`: seconds to wait, at most."""
    problem = assert_problem(answer, ErrorType.RATE_LIMITED, *words, status=429)
    assert problem["code"] == Code.LIMIT_REACHED
    assert 1 <= int(answer.headers["Retry-After"]) <= most, "seconds, never a date (lesson 28)"
    assert answer.headers["Retry-After"] in problem["detail"]


async def counts(ca, *tables: str) -> list[int]:
    return [await ca.sql(f"SELECT count(*) FROM {table}") for table in tables]


# ---------------------------------------------------------------- each kind


async def test_6_6_orders_per_account(new_ca):
    async with new_ca(limits={"orders_per_account": "3/1h"}) as ca:
        account, other = await ca.account(), await ca.account()
        for _ in range(3):
            await account.order(ca.name())
        before = await counts(ca, "orders", "authz", "audit_event")
        assert_limited(
            await account.new_order(ca.name()), "an account may place 3 orders in 1 hour", most=1200
        )
        assert await counts(ca, "orders", "authz", "audit_event") == before, "nothing is kept"
        await other.order(ca.name())


async def test_6_6_an_authorization_without_an_order_counts_as_one(new_ca):
    async with new_ca(limits={"orders_per_account": "2/1h"}) as ca:
        account = await ca.account()

        async def ask(name):
            wish = {"identifier": {"type": "dns", "value": name}}
            return await account.post(ca.client.url("new-authz"), wish)

        for _ in range(2):
            assert (await ask(ca.name())).status == 201
        assert_limited(await ask(ca.name()), "orders", most=1800)
        assert_limited(await account.new_order(ca.name()), most=1800)
        assert await counts(ca, "authz") == [2]


async def test_6_6_changes_of_an_account_count_as_orders_of_it(new_ca):
    """Each is in the audit for ever."""
    async with new_ca(limits={"orders_per_account": "2/1h"}) as ca:
        account = await ca.account(contact=["mailto:a@example.test"])
        for contact in ("a", "b", "b", "b"):
            changed = await account.post(account.url, {"contact": [f"mailto:{contact}@example.test"]})
            assert changed.status == 200, "what is so already is no change"
        assert await ca.sql("SELECT count(*) FROM audit_event WHERE event = 'account.updated'") == 1
        new, url = Key.generate(), ca.client.url("key-change")
        assert (await account.post(url, key_change(account, new))).status == 200
        account.key = new
        assert_limited(await account.post(account.url, {"contact": []}), "changes of it count", most=1800)
        assert_limited(await account.post(url, key_change(account, Key.generate())), most=1800)
        assert (await account.read(account.url)).json["contact"] == ["mailto:b@example.test"]
        assert (await account.post(account.url, {"status": "deactivated"})).status == 200, "nobody is kept"


async def test_6_6_changes_of_accounts_count_as_orders_from_their_network(new_ca):
    """However many accounts a stranger makes to change them."""
    async with new_ca(limits={"orders_per_network": "2/1h"}) as ca:
        first, second = [await ca.account() for _ in range(2)]
        assert (await first.post(first.url, {"contact": ["mailto:a@example.test"]})).status == 200
        change = key_change(second, Key.generate())
        assert (await second.post(ca.client.url("key-change"), change)).status == 200
        answer = await first.post(first.url, {"contact": []})
        assert_limited(answer, "2 orders may be placed from", "changes of accounts count", most=1800)


async def test_6_6_certificates_per_exact_name_set_whoever_asks(new_ca):
    """Lesson 23: a client that cannot keep its account key has another each time."""
    async with new_ca(limits={"certificates_per_name_set": "2/1 day"}) as ca:
        name, more = ca.name(), ca.name()
        for _ in range(2):
            await (await (await ca.account()).order(name, more)).issue(ca.web)
        answer = await (await ca.account()).new_order(more, name)
        assert_limited(answer, "2 certificates for exactly these names in 1 day", most=43200)
        for names in ((name,), (name, more, ca.name())):
            await (await (await ca.account()).order(*names)).issue(ca.web)


async def test_6_6_orders_that_are_not_proved_use_up_nobodys_certificates(new_ca):
    async with new_ca(limits={"certificates_per_name_set": "1/1 day"}) as ca:
        name, stranger = ca.name(), await ca.account()
        for _ in range(5):
            await stranger.order(name)
        await (await (await ca.account()).order(name)).issue(ca.web)


async def test_6_6_orders_placed_before_the_limit_was_met_wait_at_finalize(new_ca):
    async with new_ca(limits={"certificates_per_name_set": "1/1 day"}) as ca:
        account, name = await ca.account(), ca.name()
        first, second = await account.order(name), await account.order(name)
        await first.issue(ca.web)
        await second.prove(ca.web)
        assert_limited(await second.finalize(), "exactly these names", most=86400)
        assert (await second.read())["status"] == "ready"
        assert await counts(ca, "certificate WHERE order_id IS NOT NULL") == [1]


async def test_6_6_certificates_per_registered_name(new_ca):
    limit = {"certificates_per_registered_name": "2/1 day"}
    async with new_ca(limits=limit, policy={"allowed_domains": "test,other.test"}) as ca:
        account, names = await ca.account(), [ca.name() for _ in range(3)]
        for name in names[:2]:
            await (await account.order(name)).issue(ca.web)
        answer = await account.new_order(names[2])
        assert_limited(answer, "2 certificates for example.test and the names below it", most=43200)
        await account.order("elsewhere.test")


async def test_6_6_orders_and_accounts_per_network(new_ca):
    limits = {"orders_per_network": "2/1h", "accounts_per_network": "3/1h"}
    async with new_ca(limits=limits) as ca:
        accounts = [await ca.account() for _ in range(3)]
        key = Key.generate()
        answer = await ca.client.post(ca.client.url("new-account"), {}, key=key)
        assert_limited(answer, "3 accounts may be made from 127.0.0.1/32 in 1 hour", most=1200)
        assert await counts(ca, "account") == [3]
        again = await ca.client.post(ca.client.url("new-account"), {}, key=accounts[0].key)
        assert again.status == 200, "who has one finds it"
        for account in accounts[:2]:
            await account.order(ca.name())
        assert_limited(await accounts[2].new_order(ca.name()), "2 orders may be placed from", most=1800)


async def test_6_6_a_page_about_limits(new_ca):
    url = "https://wiki.example/limits"
    async with new_ca(limits={"orders_per_account": "1/1h", "help_url": url}) as ca:
        account = await ca.account()
        await account.order(ca.name())
        assert (await account.new_order(ca.name())).links("help") == [url]


async def test_without_a_limit_no_bucket_is_touched(new_ca):
    off = dict.fromkeys(("orders_per_account", "certificates_per_name_set", "accounts_per_network"), "")
    async with new_ca(limits=off) as ca:
        await (await (await ca.account()).order(ca.name())).issue(ca.web)
        assert await counts(ca, "bucket", "pause") == [0, 0]


async def test_the_limits_that_are_on_from_the_beginning(new_ca):
    async with new_ca() as ca:
        await (await (await ca.account()).order(ca.name())).issue(ca.web)
        kinds = await ca.sql("SELECT string_agg(split_part(key, ':', 1), ' ' ORDER BY key) FROM bucket")
        assert kinds == "accounts-per-network certificates-per-name-set orders-per-account"


async def test_behind_a_proxy_its_clients_are_told_apart(new_ca):
    """Lesson 15: by what a listed proxy says, in the log, the account's row, the audit and the limits."""
    limits = {"accounts_per_network": "1/1h"}
    async with new_ca(limits=limits, trusted_proxies="127.0.0.1/32") as ca:
        headers = ca.client._session.headers
        for address in ("203.0.113.1", "203.0.113.2"):
            headers["X-Forwarded-For"] = f"198.51.100.9, {address}"
            await ca.account()
            assert ca.logged("request")[-1]["client"] == address
            key = Key.generate()
            answer = await ca.client.post(ca.client.url("new-account"), {}, key=key)
            assert_limited(answer, f"from {address}/32", most=3600)
        assert await ca.sql("SELECT array_agg(created_from ORDER BY 1) FROM account") == [
            "203.0.113.1",
            "203.0.113.2",
        ]
        sources = "SELECT array_agg(source ORDER BY 1) FROM audit_event WHERE event = 'account.created'"
        assert await ca.sql(sources) == ["203.0.113.1", "203.0.113.2"]


async def test_what_an_eab_key_says_itself(new_ca):
    """All its accounts together; other keys are not concerned."""
    async with new_ca(limits={"orders_per_account": ""}) as ca:
        await add_eab_key(ca, "narrow", restrictions=Restrictions(orders_per_day=3, certificates_per_day=2))
        await add_eab_key(ca, "wide")
        first, second = await bound_account(ca, "narrow"), await bound_account(ca, "narrow")
        for account in (first, second):
            await (await account.order(ca.name())).issue(ca.web)
        assert_limited(await second.new_order(ca.name()), "may have 2 certificates in 1 day", most=43200)
        await ca.sql("DELETE FROM bucket WHERE key LIKE 'certificates-%'")
        await first.order(ca.name())
        assert_limited(await second.new_order(ca.name()), "may place 3 orders in 1 day", most=28800)
        await (await bound_account(ca, "wide")).order(ca.name())


# ---------------------------------------------------------------- renewals


async def make_due(ca) -> None:
    """The renewal of all certificates that there are."""
    window = "window_start = now() - interval '1 hour', window_end = now() + interval '1 hour'"
    await ca.sql(f"UPDATE certificate SET {window}")


async def test_6_6_a_renewal_that_says_so_passes(new_ca):
    limits = {"orders_per_account": "1/1h", "certificates_per_name_set": "1/1 day"}
    async with new_ca(limits=limits) as ca:
        account, name = await ca.account(), ca.name()
        chain = await (await account.order(name)).issue(ca.web)
        assert_limited(await account.new_order(name), most=86400)
        await make_due(ca)
        renewal = await account.order(name, replaces=str(CertId.of(chain[0])))
        await renewal.issue(ca.web)
        assert_problem(
            await account.new_order(name, replaces=str(CertId.of(chain[0]))),
            ErrorType.ALREADY_REPLACED,
            status=409,
        )
        assert_limited(await account.new_order(name), most=86400)


async def test_lesson_23_a_client_that_renews_in_a_circle_does_not_pass(new_ca):
    """As `certbot renew --force-renewal` in a loop: each order says what it replaces, and none of it is due."""
    async with new_ca(limits={"certificates_per_name_set": "2/1 day"}) as ca:
        account, name = await ca.account(), ca.name()
        first = await (await account.order(name)).issue(ca.web)
        second = await (await account.order(name, replaces=str(CertId.of(first[0])))).issue(ca.web)
        answer = await account.new_order(name, replaces=str(CertId.of(second[0])))
        assert_limited(answer, "exactly these names", "whose renewal is due", most=43200)
        await make_due(ca)
        third = await (await account.order(name, replaces=str(CertId.of(second[0])))).issue(ca.web)
        answer = await account.new_order(name, replaces=str(CertId.of(third[0])))
        assert_limited(answer, "exactly these names", most=43200)


async def test_a_renewal_with_further_names_pays_for_these(new_ca):
    """One due certificate opens no limit to the names that it never had, neither at newOrder nor at finalize."""
    limits = {"certificates_per_registered_name": "1/1 day"}
    async with new_ca(limits=limits, policy={"allowed_domains": "example.test"}) as ca:
        account, name, fresh = await ca.account(), ca.name(), ca.name()
        chain = await (await account.order(name)).issue(ca.web)
        await make_due(ca)
        replaces = {"replaces": str(CertId.of(chain[0]))}
        renewal = await account.order(name, fresh, **replaces)
        await (await account.order(fresh)).issue(ca.web)
        await renewal.prove(ca.web)
        assert_limited(await renewal.finalize(), f"{fresh} and the names below it", most=86400)
        await ca.sql(f"DELETE FROM bucket WHERE key = 'certificates-per-registered-name:{fresh}'")
        assert (await renewal.finalize()).status == 200
        assert_limited(await account.new_order(fresh), f"{fresh} and the names below it", most=86400)


async def test_a_renewal_with_further_names_counts_as_an_order(new_ca):
    limits = {"orders_per_account": "1/1h", "certificates_per_registered_name": "1/1 day"}
    async with new_ca(limits=limits, policy={"allowed_domains": "example.test"}) as ca:
        account, name, fresh = await ca.account(), ca.name(), ca.name()
        chain = await (await account.order(name)).issue(ca.web)
        await make_due(ca)
        replaces = {"replaces": str(CertId.of(chain[0]))}
        assert_limited(await account.new_order(name, fresh, **replaces), "1 orders", most=3600)
        await (await account.order(name, **replaces)).issue(ca.web)


async def test_a_renewal_with_fewer_names_passes(new_ca):
    async with new_ca(limits={"orders_per_account": "1/1h", "certificates_per_name_set": "1/1 day"}) as ca:
        account, name, dropped = await ca.account(), ca.name(), ca.name()
        chain = await (await account.order(name, dropped)).issue(ca.web)
        await make_due(ca)
        await (await account.order(name, replaces=str(CertId.of(chain[0])))).issue(ca.web)


async def test_a_renewal_before_its_time_pays_at_finalize_too(new_ca):
    async with new_ca(limits={"certificates_per_name_set": "2/1 day"}) as ca:
        account, name = await ca.account(), ca.name()
        chain = await (await account.order(name)).issue(ca.web)
        early = await account.order(name, replaces=str(CertId.of(chain[0])))
        await (await account.order(name)).issue(ca.web)
        await early.prove(ca.web)
        assert_limited(await early.finalize(), "exactly these names", most=86400)


# ---------------------------------------------------------------- at once


async def test_of_parallel_orders_on_two_workers_exactly_the_amount(new_ca):
    async with (
        new_ca(limits={"orders_per_account": "7/1h"}) as ca,
        new_ca(ca.dsn, limits={"orders_per_account": "7/1h"}) as second,
    ):
        account = await ca.account()
        sides = [account, replace(account, client=second.client)]
        answers = await asyncio.gather(*(sides[n % 2].new_order(ca.name(), ca.name()) for n in range(30)))
        assert sorted({answer.status for answer in answers}) == [201, 429]
        assert [answer.status for answer in answers].count(201) == 7
        assert await counts(ca, "orders", "authz") == [7, 14]


async def test_of_parallel_certificates_on_two_workers_exactly_the_amount(new_ca):
    limits = {"certificates_per_name_set": "3/1 day"}
    async with new_ca(limits=limits) as ca, new_ca(ca.dsn, limits=limits) as second:
        account, name = await ca.account(), ca.name()
        orders = [await account.order(name) for _ in range(12)]
        for order in orders:
            await order.prove(ca.web)
        there = replace(account, client=second.client)
        sides = [replace(order, account=(account, there)[n % 2]) for n, order in enumerate(orders)]
        answers = await asyncio.gather(*(order.finalize() for order in sides))
        assert [answer.status for answer in answers].count(200) == 3
        assert [answer.error for answer in answers].count(ErrorType.RATE_LIMITED) == 9
        assert await counts(ca, "certificate WHERE order_id IS NOT NULL") == [3]


async def test_of_parallel_finalizes_of_one_order_one_pays(new_ca):
    async with new_ca(limits={"certificates_per_name_set": "2/1 day"}) as ca:
        account, name = await ca.account(), ca.name()
        order = await account.order(name)
        await order.prove(ca.web)
        answers = await asyncio.gather(*(order.finalize() for _ in range(10)))
        assert [answer.status for answer in answers].count(200) == 1
        await (await account.order(name)).issue(ca.web)
        assert_limited(await account.new_order(name), most=43200)


# ---------------------------------------------------------------- pauses


async def fail(ca, account, name: str) -> None:
    """Nothing is served for the challenge."""
    order = await account.order(name)
    await account.post((await order.challenge())["url"], {})
    settled = await account.settled(order.object["authorizations"][0])
    assert settled["status"] == "invalid"


async def paused(account, name: str) -> str:
    """The refusal's link."""
    problem = assert_problem(await account.new_order(name), ErrorType.RATE_LIMITED, name, status=429)
    assert problem["code"] == Code.PAUSED
    (link,) = re.findall(r"https://\S+", problem["detail"])
    return link


async def test_who_fails_again_and_again_is_paused_for_that_name(new_ca):
    async with new_ca(limits={"failures_before_pause": 3}) as ca:
        account, other, name, good = await ca.account(), await ca.account(), ca.name(), ca.name()
        for _ in range(3):
            await fail(ca, account, name)
        link = await paused(account, name)
        assert_problem(await account.new_order(good, name), ErrorType.RATE_LIMITED, status=429)
        wish = {"identifier": {"type": "dns", "value": name}}
        assert_problem(
            await account.post(ca.client.url("new-authz"), wish), ErrorType.RATE_LIMITED, status=429
        )
        await (await account.order(good)).issue(ca.web)
        await other.order(name)
        told = await ca.sql("SELECT detail FROM audit_event WHERE event = 'account.paused'")
        assert name in told
        page = await ca.client.request("GET", link)
        assert page.status == 200
        assert name in html.unescape(page.body.decode())
        assert "<script" not in page.body.decode()
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert await paused(account, name), "to look lifts nothing"
        assert (await ca.client.request("POST", link)).status == 200
        await (await account.order(name)).issue(ca.web)
        event = await ca.sql(
            "SELECT actor || ' ' || source FROM audit_event WHERE event = 'account.unpaused'"
        )
        assert event == f"account:{account.url.rpartition('/')[2]} 127.0.0.1"


async def test_a_success_begins_the_count_anew(new_ca):
    async with new_ca(limits={"failures_before_pause": 2}, validation={"reuse": 0}) as ca:
        account, name = await ca.account(), ca.name()
        for _ in range(2):
            await fail(ca, account, name)
            await ca.sql("UPDATE pause SET paused = NULL")
            await (await account.order(name)).prove(ca.web)
            assert await counts(ca, "pause") == [0]


async def test_a_failure_a_day_after_the_last_is_the_first(new_ca):
    async with new_ca(limits={"failures_before_pause": 2}) as ca:
        account, name = await ca.account(), ca.name()
        for _ in range(3):
            await fail(ca, account, name)
            await ca.sql("UPDATE pause SET failed = failed - interval '25 hours'")
        await account.order(name)


async def test_nobody_is_paused_where_that_is_off(new_ca):
    async with new_ca(limits={"failures_before_pause": 0}) as ca:
        account, name = await ca.account(), ca.name()
        await fail(ca, account, name)
        assert await counts(ca, "pause") == [0]


@pytest.mark.parametrize("spoilt", ["account", "expiry", "mac", "short", "empty", "pattern"])
async def test_a_link_that_was_not_made_here_lifts_nothing(new_ca, spoilt):
    async with new_ca(limits={"failures_before_pause": 1}) as ca:
        account, name = await ca.account(), ca.name()
        await fail(ca, account, name)
        link = await paused(account, name)
        head, token = link.rsplit("/", 1)
        place = {"account": 3, "expiry": 26, "mac": 40}.get(spoilt, 0)
        flipped = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        made = {"short": token[:-4], "empty": "", "pattern": "%25" * 50}.get(spoilt, flipped)
        for method in ("GET", "POST"):
            assert (await ca.client.request(method, f"{head}/{made}")).status == 404
        assert await paused(account, name)


async def test_a_frozen_account_lifts_nothing(new_ca):
    async with new_ca(limits={"failures_before_pause": 1}) as ca:
        account, name = await ca.account(), ca.name()
        await fail(ca, account, name)
        link = await paused(account, name)
        await ca.sql("UPDATE account SET frozen = now()")
        answer = await ca.client.request("POST", link)
        assert_problem(answer, ErrorType.UNAUTHORIZED, "frozen", status=403)
        assert await counts(ca, "pause", "audit_event WHERE event = 'account.unpaused'") == [1, 0]


async def test_a_link_is_good_for_a_week(ca):
    account = AccountId("01" * 16)
    async with Database.open(ca.dsn, connections=1) as database:
        now = [NOW]
        unpausing = Unpausing(
            database=database, urls=Urls("https://ca.test"), secret=bytes(32), clock=lambda: now[0]
        )
        token = unpausing.link(account).rpartition("/")[2]
        now[0] += timedelta(days=7) - timedelta(seconds=1)
        assert unpausing.account_of(token) == account
        now[0] += timedelta(seconds=1)
        with pytest.raises(Problem):
            unpausing.account_of(token)


async def test_the_log_does_not_tell_the_link(new_ca):
    """Lesson 15."""
    async with new_ca(limits={"failures_before_pause": 1}) as ca:
        account, name = await ca.account(), ca.name()
        await fail(ca, account, name)
        link = await paused(account, name)
        await ca.client.request("GET", link)
        lines = [str(redact(None, "info", dict(entry))) for entry in ca.log.entries]
        assert len([line for line in lines if "/acme/unpause/[redacted]" in line]) == 2
        assert not any(link.rpartition("/")[2] in line for line in lines)
