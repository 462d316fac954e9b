"""What real clients need of a server: lessons 28 to 34."""

import asyncio
import time
from dataclasses import replace

import pytest
from cryptography import x509

from tests.support.client import Account, Answer
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.jose import Key, compact, jws
from tests.support.responders import CHALLENGE_PATH

pytestmark = IN_SESSION_LOOP


async def test_lesson_28_retry_after_in_seconds(new_ca):
    """While a challenge and while an order is processing. `Client` looks at every other answer, too."""
    async with new_ca(dev=True, test={"delay_issuance": 0.6}) as ca:
        account = await ca.account()
        order = await account.order(ca.name())
        challenge = await order.challenge()
        content = account.key_authorization(challenge["token"]).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)
        ca.web.raw(CHALLENGE_PATH + challenge["token"], head, content, pause=0.8)
        answers = [await account.post(challenge["url"], {}), await account.read(challenge["url"])]
        answers.append(await account.read(order.object["authorizations"][0]))
        await account.settled(order.object["authorizations"][0])
        answers += [await order.finalize(), await account.read(order.url)]
        assert [answer.headers["Retry-After"] for answer in answers] == ["1"] * 5
        await account.settled(order.url)
        assert "Retry-After" not in (await account.read(order.url)).headers


@pytest.mark.parametrize("wildcard", [False, True])
@pytest.mark.parametrize("state", ["pending", "valid", "invalid"])
async def test_lesson_29_every_challenge_has_a_token(ca, account, wildcard, state):
    name = ca.name()
    order = await account.order(f"*.{name}" if wildcard else name)
    if state == "valid":
        await (order.prove_by_dns(ca.dns) if wildcard else order.prove(ca.web))
    if state == "invalid":
        await account.post((await order.challenge("dns-01"))["url"], {})
        await account.settled(order.object["authorizations"][0])
    (authorization,) = await order.authorizations()
    assert (authorization["status"], authorization.get("wildcard", False)) == (state, wildcard)
    assert authorization["challenges"]
    assert all(isinstance(challenge["token"], str) for challenge in authorization["challenges"])


async def test_lesson_30_an_account_that_was_found_is_updated_at_once(ca):
    """With an empty list of contacts, and with one."""
    key = Key.generate()
    for payload in ({}, {"contact": []}, {"termsOfServiceAgreed": True, "contact": []}):
        found = await ca.client.post(ca.client.url("new-account"), payload, key=key)
        account = Account(ca.client, key, found.location)
        for contact in ([], ["mailto:a@example.test"], []):
            assert (await account.post(account.url, {"contact": contact})).status == 200


async def test_lesson_31_a_new_connection_for_each_request(ca, account):
    """As dehydrated and acme.sh do; one JWS after another, without keep-alive."""
    headers = {"Content-Type": "application/jose+json", "Connection": "close"}
    for _ in range(10):
        nonce = (await ca.client.request("HEAD", ca.client.url("new-nonce"), headers=headers)).nonce
        ca.client.spend(nonce)
        header = {"alg": "ES256", "kid": account.url, "nonce": nonce, "url": account.url}
        body = compact(jws(header, b"", account.key))
        answer = await ca.client.request("POST", account.url, body=body, headers=headers)
        assert answer.status == 200


async def test_lesson_31_parallel_registration(ca):
    accounts = await asyncio.gather(*(ca.account() for _ in range(30)))
    assert len({account.url for account in accounts}) == 30


async def test_lesson_33_a_validation_that_failed_is_invalid_soon(ca, account):
    order = await account.order(ca.name())
    began = time.monotonic()
    await account.post((await order.challenge())["url"], {})
    settled = await account.settled(order.object["authorizations"][0])
    assert settled["status"] == "invalid"
    assert (await order.read())["status"] == "invalid"
    assert time.monotonic() - began < 20


async def test_lesson_34_many_clients_at_once_on_two_workers(ca, new_ca):
    """32 of them, each from the account to the certificate: no deadlock, no failure."""
    async with new_ca(dsn=ca.dsn) as second:
        workers = [ca, second] * 16
        leaves = await asyncio.gather(*(issuance(worker) for worker in workers))
    assert len({leaf.serial_number for leaf in leaves}) == 32


async def issuance(ca) -> x509.Certificate:
    account = await ca.account()
    order = await account.order(ca.name(), ca.name())
    (leaf, *_) = await order.issue(ca.web)
    return leaf


async def test_lesson_34_one_accounts_requests_at_once(ca):
    """One client, 32 orders in parallel, on one key."""
    account = await ca.account()
    orders = await asyncio.gather(*(account.order(ca.name()) for _ in range(32)))
    answers: list[Answer] = await asyncio.gather(*(account.read(order.url) for order in orders))
    assert [answer.json["status"] for answer in answers] == ["pending"] * 32


@pytest.mark.parametrize("indexed", [True, False])
async def test_lesson_34_new_orders_scan_no_table(new_ca, indexed):
    """What an issuance asks of `authz` is found by index, however many there are. Without the index the test would tell."""
    async with new_ca() as ca:
        account = await ca.account()
        await many_authorizations(ca, account.url.rpartition("/")[2])
        if not indexed:
            await ca.sql("DROP INDEX authz_reusable")
        before = await scanned(ca)
        async with new_ca(dsn=ca.dsn) as worker:
            await (await replace(account, client=worker.client).order(ca.name())).issue(ca.web)
        assert (await scanned(ca) - before < ROWS) is indexed


ROWS = 20_000


async def many_authorizations(ca, owner: str) -> None:
    await ca.sql(
        f"""INSERT INTO authz (id, account_id, identifier, status, expires, token, offered, challenge, validated, created)
            SELECT lpad(n::text, 32, '0'), '{owner}', 'dns:n' || n || '.example', 'valid', now() + interval '1 day', 't',
                   '{{http-01}}', 'http-01', now(), now() FROM generate_series(1, {ROWS}) AS n"""
    )
    await ca.sql("ANALYZE authz")


async def scanned(ca) -> int:
    """Rows of `authz` that were looked at, in whatever way. Sessions tell their statistics when they end."""
    await asyncio.sleep(0.3)
    counters = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'authz'"
    return await ca.sql(counters)
