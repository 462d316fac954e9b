"""Misbehaviour on request, for tests of clients: only in development mode (tests/test_config.py), and then it works."""

import asyncio

import pytest

from acme_ca.core.problems import ErrorType
from tests.support.client import assert_problem
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.jose import Key

pytestmark = IN_SESSION_LOOP


async def test_good_nonces_are_refused_now_and_then(new_ca):
    async with new_ca(dev=True, test={"reject_nonces": 0.5}) as ca:
        answers = [
            await ca.client.post(ca.client.url("new-account"), b"{", key=Key.generate()) for _ in range(60)
        ]
        refused = [answer for answer in answers if answer.error == ErrorType.BAD_NONCE]
        assert 5 < len(refused) < 55
        assert_problem(refused[0], ErrorType.BAD_NONCE, status=400)
        assert {answer.error for answer in answers} == {ErrorType.BAD_NONCE, ErrorType.MALFORMED}


async def test_all_nonces_are_refused(new_ca):
    async with new_ca(dev=True, test={"reject_nonces": 1}) as ca:
        for _ in range(3):
            answer = await ca.client.post(ca.client.url("new-account"), {}, key=Key.generate())
            assert_problem(answer, ErrorType.BAD_NONCE)


async def test_issuance_is_held_back(new_ca):
    async with new_ca(dev=True, test={"delay_issuance": 0.3}) as ca:
        order = await ca.ready(await ca.account())
        began = asyncio.get_running_loop().time()
        assert (await order.finalize()).json["status"] == "processing"
        settled = await order.account.settled(order.url)
        assert settled["status"] == "valid"
        assert asyncio.get_running_loop().time() - began >= 0.3


@pytest.mark.parametrize("dev", [False, True])
async def test_development_mode_is_loud(new_ca, dev):
    """Lesson 27: in the log and in /health."""
    async with new_ca(dev=dev) as ca:
        assert bool(ca.logged("development mode: not for production")) is dev
        assert (await ca.plain.request("GET", "http://ca.test/health")).json["development_mode"] is dev


async def test_localhost_means_loopback_in_development_mode_only(new_ca):
    """Below .localhost no DNS server is asked (RFC 6761 §6.3)."""
    for dev, status in ((True, "valid"), (False, "invalid")):
        async with new_ca(dev=dev) as ca:
            account = await ca.account()
            order = await account.order("www.localhost")
            challenge = await order.challenge()
            ca.web.serve_token(challenge["token"], account.key_authorization(challenge["token"]))
            await account.post(challenge["url"], {})
            settled = await account.settled(order.object["authorizations"][0])
            assert settled["status"] == status
            assert not any("localhost" in name for name, _ in ca.dns.queries)
