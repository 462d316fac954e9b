"""Availability: lessons 23 to 27 (24 whole: tests/fuzz)."""

import asyncio

import pytest

from acme_ca.core.actors import SERVER
from acme_ca.core.eab import EabKey
from acme_ca.core.ids import EabKeyId
from acme_ca.core.problems import ErrorType
from acme_ca.storage import eab
from acme_ca.storage.database import Database
from tests.support.client import Order, assert_problem, assert_refused
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.jose import Key, compact, mac_jws
from tests.support.records import NOW

pytestmark = IN_SESSION_LOOP


# ---------------------------------------------------------------- lesson 23: a client on a read-only disk

A_DAY = 6
"""Certificates for one set of names, as the test's CA is told."""
HOURS = 72
GROWING = ("account", "orders", "authz", "validation", "certificate", "audit_event")


async def test_lesson_23_a_client_that_keeps_nothing_gets_its_number_a_day(new_ca):
    """It finds neither its account nor its certificate, so it begins anew all the time, for three days. An hour passes when
    the buckets are an hour nearer to full.
    """
    async with new_ca(limits={"certificates_per_name_set": f"{A_DAY}/1 day"}) as ca:
        name, other, had = ca.name(), await ca.account(), [0] * HOURS
        for hour in range(HOURS):
            for _ in range(3):
                had[hour] += await begin_anew(ca, name)
            await issue(ca, other)  # nobody else is refused
            await ca.sql("UPDATE bucket SET full_at = full_at - interval '1 hour'")
        days = [sum(had[begin : begin + 24]) for begin in range(0, HOURS, 24)]
        assert days == [2 * A_DAY - 1, A_DAY, A_DAY]
        made = await ca.sql(f"SELECT count(*) FROM certificate WHERE identifiers = ARRAY['dns:{name}']")
        assert made == sum(days) == 4 * A_DAY - 1


async def issue(ca, account) -> None:
    await (await account.order(ca.name())).issue(ca.web)


async def begin_anew(ca, name: str) -> bool:
    """Whether there was a certificate in it."""
    account = await ca.account()
    answer = await account.new_order(name)
    if answer.status == 429:
        assert_problem(answer, ErrorType.RATE_LIMITED, str(A_DAY))
        return False
    await Order(account, answer.location, answer.json).issue(ca.web)
    return True


async def test_lesson_23_who_is_refused_costs_nobody_else_anything(new_ca):
    """Of a client that asks and asks nothing is kept, and all the others get what they ask for meanwhile, though it has
    more requests under way than the server has connections.
    """
    limits = {"orders_per_account": f"{A_DAY}/1 day"}
    async with new_ca(limits=limits, database_connections=4) as ca:
        broken, others = await ca.account(), [await ca.account() for _ in range(8)]
        for _ in range(A_DAY):
            await broken.order(ca.name())
        before = [await ca.sql(f"SELECT count(*) FROM {table}") for table in GROWING]
        refused, done = [0], asyncio.Event()

        async def ask_and_ask():
            while not done.is_set():
                answer = await broken.new_order(ca.name())
                assert_problem(answer, ErrorType.RATE_LIMITED, status=429)
                refused[0] += 1

        asking = [asyncio.create_task(ask_and_ask()) for _ in range(16)]
        for _ in range(4):
            await asyncio.gather(*(issue(ca, other) for other in others))
        done.set()
        await asyncio.gather(*asking)
        assert refused[0] >= len(asking)
        after = [await ca.sql(f"SELECT count(*) FROM {table}") for table in GROWING]
        each = {"account": 0, "orders": 1, "authz": 1, "validation": 1, "certificate": 1, "audit_event": 1}
        assert [late - early for early, late in zip(before, after, strict=True)] == [
            4 * each[table] * len(others) for table in GROWING
        ]
        buckets = await ca.sql("SELECT count(*) FROM bucket WHERE key LIKE 'orders-per-account:%'")
        assert buckets == 1 + len(others)


# ---------------------------------------------------------------- lesson 25


async def test_lesson_25_what_is_dead_goes_and_certificates_stay(new_ca):
    """Nonces, dead orders, authorizations and records of validations; by the server itself."""
    async with new_ca() as ca:
        account = await ca.account()
        await account.order(ca.name())
        order = await account.order(ca.name())
        await order.issue(ca.web)
        await ca.sql("UPDATE nonce SET expires = 1")
        await ca.sql("UPDATE bucket SET full_at = now() - interval '1 day'")
        await ca.sql(
            "INSERT INTO pause (account_id, identifier, failures, failed) "
            "SELECT id, 'dns:a.test', 3, now() - interval '2 days' FROM account"
        )
        await ca.sql("INSERT INTO login_failure VALUES ('192.0.2.1', '', 9, now() - interval '2 hours')")
        await ca.sql("INSERT INTO login_failure VALUES ('192.0.2.2', '', 9, now() + interval '2 hours')")
        for column in ("orders SET expires", "authz SET expires", "validation SET at"):
            await ca.sql(f"UPDATE {column} = now() - interval '2 years'")
        task = asyncio.create_task(ca.application.background())
        for table in ("nonce", "orders", "authz", "validation", "bucket", "pause", "login_failure"):
            await gone(ca, table)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await ca.sql("SELECT count(*) FROM certificate WHERE order_id IS NOT NULL") == 1
        assert await ca.sql("SELECT count(*) FROM account") == 1
        assert (await account.read(order.object["certificate"])).status == 200


async def gone(ca, table: str) -> None:
    """Wait till no row is left."""
    for _ in range(1000):
        if not (left := await ca.sql(f"SELECT count(*) FROM {table}")):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{left} rows stay in {table}")


async def test_lesson_25_a_refused_request_keeps_nothing(ca):
    """Unknown keys and bad orders leave no row behind."""
    account = await ca.account()
    tables = ("account", "orders", "authz", "audit_event")
    before = [await ca.sql(f"SELECT count(*) FROM {table}") for table in tables]
    for _ in range(5):
        await ca.client.post(ca.client.url("new-account"), {"onlyReturnExisting": True}, key=Key.generate())
        await account.new_order("a_b.example.test")
        await account.new_order("*.com", "a.example.test")
    assert [await ca.sql(f"SELECT count(*) FROM {table}") for table in tables] == before


# ---------------------------------------------------------------- lesson 26: patterns are text

PATTERNS = ["%", "_", "%%", "\\", "'", '"', ";--", "*", "\u0000", "\ud800"]
SECRET = bytes(32)


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_lesson_26_a_pattern_in_a_kid_is_nobody(ca, account, pattern):
    for kid in (account.url[:-1] + pattern, account.url.rpartition("/")[0] + "/" + pattern * 32):
        answer = await account.read(account.url, header={"kid": kid})
        assert_problem(answer, ErrorType.ACCOUNT_DOES_NOT_EXIST, status=400)


@pytest.mark.parametrize("escaped", ["%25", "_", "%5F", "%27", "%00", "%5C", "%22", "%25%25", "%ED%A0%80"])
@pytest.mark.parametrize("path", ["order", "authz", "cert", "acct"])
async def test_lesson_26_a_pattern_in_a_url_is_nothing(ca, account, path, escaped):
    order = await account.order(ca.name())
    identity = order.url.rpartition("/")[2]
    for name in (identity[:-1] + escaped, escaped * 32):
        answer = await account.read(ca.client.url(f"{path}/{name}"))
        assert_problem(answer, ErrorType.MALFORMED, status=404)


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_lesson_26_a_pattern_in_the_kid_of_a_binding_is_no_key(ca, pattern):
    async with Database.open(ca.dsn, connections=1) as database:
        if await eab.find(database, "pattern-key") is None:
            key = EabKey(id=EabKeyId("pattern-key"), hmac_key=SECRET, owner="x", created=NOW, approved=NOW)
            await eab.create(database, key, actor=SERVER)
    key = Key.generate()
    url = ca.client.url("new-account")
    binding = mac_jws({"alg": "HS256", "kid": f"pattern{pattern}key", "url": url}, compact(key.jwk), SECRET)
    answer = await ca.client.post(url, {"externalAccountBinding": binding}, key=key)
    assert_refused(answer)


@pytest.mark.parametrize("pattern", PATTERNS)
async def test_lesson_26_a_pattern_in_a_name_or_a_contact_is_refused(account, pattern):
    assert_refused(await account.new_order(f"a{pattern}.example.test"))
    if pattern not in {"%", "%%", "_", "'", "*"}:  # these are good in the local part of an address
        assert_refused(await account.post(account.url, {"contact": [f"mailto:a{pattern}@example.test"]}))
    assert_refused(await account.post(account.url, {"contact": [f"mailto:a@ex{pattern}ample.test"]}))


async def test_lesson_26_an_underscore_matches_no_other_name(ca, account):
    """Authorizations are found by the very identifier."""
    order = await ca.ready(account)
    (name,) = order.names
    assert (await account.order("x" + name[1:])).object["status"] == "pending"


# ---------------------------------------------------------------- lesson 27


async def test_lesson_27_a_development_switch_is_loud(new_ca):
    async with new_ca(dev=True) as ca:
        (line,) = ca.logged("development mode: not for production")
        assert line["log_level"] == "warning"
        assert (await ca.client.request("GET", "https://ca.test/health")).json["development_mode"] is True
