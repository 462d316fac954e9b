"""RFC 8555 §7.1.4, §7.5 and §8: authorizations, their challenges, and what a failed one tells."""

import asyncio
import hashlib
import re
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from cryptography import x509

from acme_ca.core.problems import ERROR_NAMESPACE, ErrorType
from tests.support.client import Account, Order, assert_problem
from tests.support.dns import SERVFAIL
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.jose import base64url
from tests.support.responders import CHALLENGE_PATH, AlpnResponder, SilentServer, challenge_certificate
from tests.support.server import free_ports

pytestmark = IN_SESSION_LOOP

MALFORMED = ErrorType.MALFORMED


@pytest_asyncio.fixture(loop_scope="session")
async def order(ca, account) -> Order:
    return await account.order(ca.name())


def authorization_of(order: Order) -> str:
    (url,) = order.object["authorizations"]
    return url


def serve(ca, account: Account, challenge: dict[str, str]) -> None:
    ca.web.serve_token(challenge["token"], account.key_authorization(challenge["token"]))


# ---------------------------------------------------------------- §7.1.4, §8: the objects


async def test_7_1_4_an_authorization(account, order):
    answer = await account.read(authorization_of(order))
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert set(answer.json) == {"identifier", "status", "expires", "challenges"}
    assert answer.json["identifier"] == order.object["identifiers"][0]
    assert datetime.fromisoformat(answer.json["expires"]) > datetime.now(UTC)
    assert "Retry-After" not in answer.headers


async def test_8_the_challenges(account, order):
    """Lesson 29: every challenge has a token, and it is no longer than needed."""
    (authorization,) = await order.authorizations()
    assert [one["type"] for one in authorization["challenges"]] == ["http-01", "dns-01", "tls-alpn-01"]
    for challenge in authorization["challenges"]:
        assert set(challenge) == {"type", "url", "status", "token"}
        assert challenge["status"] == "pending"
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", challenge["token"])
        answer = await account.read(challenge["url"])
        assert answer.json == challenge
        assert answer.links("up") == [authorization_of(order)]


async def test_8_tokens_are_never_the_same(ca, account):
    orders = [await account.order(ca.name()) for _ in range(5)]
    assert len({(await one.challenge())["token"] for one in orders}) == 5


async def test_only_the_challenges_that_are_switched_on(new_ca):
    async with new_ca(validation={"challenges": "dns-01,http-01"}) as ca:
        (authorization,) = await (await (await ca.account()).order(ca.name())).authorizations()
        assert [one["type"] for one in authorization["challenges"]] == ["dns-01", "http-01"]


# ---------------------------------------------------------------- §7.5.1: answers to challenges


async def test_7_5_1_an_answer(ca, account, order):
    challenge = await order.challenge()
    serve(ca, account, challenge)
    answer = await account.post(challenge["url"], {})
    assert (answer.status, answer.links("up")) == (200, [authorization_of(order)])
    assert answer.json["status"] in {"processing", "valid"}
    valid = await account.settled(authorization_of(order))
    assert valid["status"] == "valid"
    (shown,) = valid["challenges"]
    assert {**shown, "validated": ""} == {**challenge, "status": "valid", "validated": ""}
    assert abs(datetime.fromisoformat(shown["validated"]) - datetime.now(UTC)) < timedelta(seconds=30)
    assert datetime.fromisoformat(valid["expires"]) > datetime.now(UTC)


@pytest.mark.parametrize(
    "payload",
    [{"keyAuthorization": "x"}, {"type": "dns-01", "status": "valid", "token": "x"}, {"a": {"b": []}}],
)
async def test_7_5_1_no_member_of_an_answer_means_anything(ca, account, order, payload):
    challenge = await order.challenge()
    serve(ca, account, challenge)
    assert (await account.post(challenge["url"], payload)).status == 200
    assert (await account.settled(authorization_of(order)))["status"] == "valid"


@pytest.mark.parametrize("payload", [b"[]", b"42", b'"x"', b"null", b"{", b"\xff"])
async def test_7_5_1_an_answer_is_an_object(account, order, payload):
    challenge = await order.challenge()
    assert_problem(await account.post(challenge["url"], payload), MALFORMED, status=400)
    assert (await account.read(challenge["url"])).json["status"] == "pending"


async def test_7_5_1_while_it_is_validated(ca, account, order):
    """`processing` with Retry-After, in seconds (lesson 28), and a second answer changes nothing."""
    challenge = await order.challenge()
    content = account.key_authorization(challenge["token"]).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)
    ca.web.raw(CHALLENGE_PATH + challenge["token"], head, content, pause=0.8)
    asked = len(ca.web.requests)
    answer = await account.post(challenge["url"], {})
    assert answer.json == {**challenge, "status": "processing"}
    assert answer.headers["Retry-After"] == "1"
    seen = await account.read(authorization_of(order))
    assert (seen.json["status"], seen.headers["Retry-After"]) == ("pending", "1")
    statuses = {one["type"]: one["status"] for one in seen.json["challenges"]}
    assert statuses == {"http-01": "processing", "dns-01": "pending", "tls-alpn-01": "pending"}
    for kind in ("http-01", "dns-01"):
        other = await account.post(challenge["url"].replace("http-01", kind), {})
        assert other.status == 200
    assert (await account.settled(authorization_of(order)))["status"] == "valid"
    assert len(ca.web.requests) == asked + 1


async def test_7_5_1_parallel_answers_make_one_validation(ca, account, order):
    challenge = await order.challenge()
    serve(ca, account, challenge)
    asked = len(ca.web.requests)
    answers = await asyncio.gather(*(account.post(challenge["url"], {}) for _ in range(10)))
    assert {answer.status for answer in answers} == {200}
    assert (await account.settled(authorization_of(order)))["status"] == "valid"
    assert len(ca.web.requests) == asked + 1


async def test_7_5_1_what_is_valid_stays_valid(ca, account, order):
    """Lesson 8: settled challenges are not validated again."""
    await order.prove(ca.web)
    asked = len(ca.web.requests)
    challenge = await order.challenge()
    ca.web.respond(CHALLENGE_PATH + challenge["token"], "wrong")
    for kind in ("http-01", "dns-01"):
        answer = await account.post(challenge["url"].replace("http-01", kind), {})
        assert answer.status == 200
    assert (await account.read(authorization_of(order))).json["status"] == "valid"
    assert len(ca.web.requests) == asked


async def test_7_5_1_what_is_invalid_stays_invalid(ca, account, order):
    """Lesson 33: and becomes it soon."""
    challenge = await order.challenge()
    await account.post(challenge["url"], {})
    failed = await account.settled(authorization_of(order))
    serve(ca, account, challenge)
    asked = len(ca.web.requests)
    await account.post(challenge["url"], {})
    again = (await account.read(authorization_of(order))).json
    assert again == failed
    assert again["status"] == "invalid"
    assert len(ca.web.requests) == asked


async def test_7_5_1_another_challenge_of_an_invalid_authorization_is_over_too(ca, account, order):
    challenge = await order.challenge("dns-01")
    await account.post((await order.challenge())["url"], {})
    await account.settled(authorization_of(order))
    answer = await account.post(challenge["url"], {})
    assert answer.status == 200
    assert (await account.read(authorization_of(order))).json["status"] == "invalid"


# ---------------------------------------------------------------- §7.5.2: deactivation


@pytest.mark.parametrize("when", ["pending", "valid", "processing"])
async def test_7_5_2_an_authorization_is_given_up(ca, account, order, when):
    challenge = await order.challenge()
    if when == "valid":
        await order.prove(ca.web)
    if when == "processing":
        ca.web.raw(CHALLENGE_PATH + challenge["token"], b"HTTP/1.1 200 OK\r\n", pause=0.6)
        await account.post(challenge["url"], {})
    answer = await account.post(authorization_of(order), {"status": "deactivated"})
    assert (answer.status, answer.json["status"]) == (200, "deactivated")
    serve(ca, account, challenge)
    await account.post(challenge["url"], {})
    await asyncio.sleep(0.7 if when == "processing" else 0.1)
    assert (await account.read(authorization_of(order))).json["status"] == "deactivated"
    assert (await order.read())["status"] == "invalid"
    assert (await account.order(*order.names)).object["status"] == "pending"


@pytest.mark.parametrize(
    "payload",
    [{}, {"status": "valid"}, {"status": "invalid"}, {"status": 1}, {"status": None}, {"expires": "x"}],
)
async def test_7_5_2_nothing_else_can_be_set(account, order, payload):
    before = await account.read(authorization_of(order))
    answer = await account.post(authorization_of(order), payload)
    assert (answer.status, answer.json) == (200, before.json)


@pytest.mark.parametrize("payload", [b"[]", b"x", b"null"])
async def test_7_5_2_an_update_is_an_object(account, order, payload):
    assert_problem(await account.post(authorization_of(order), payload), MALFORMED)


async def test_7_5_2_what_is_invalid_cannot_be_deactivated(account, order):
    await account.post((await order.challenge())["url"], {})
    await account.settled(authorization_of(order))
    answer = await account.post(authorization_of(order), {"status": "deactivated"})
    assert answer.json["status"] == "invalid"


# ---------------------------------------------------------------- §8: the three proofs


def digest(account: Account, token: str) -> str:
    """What dns-01 looks for (§8.4)."""
    return base64url(hashlib.sha256(account.key_authorization(token).encode()).digest())


async def test_8_3_http_01(ca, account, order):
    challenge = await order.challenge()
    serve(ca, account, challenge)
    await account.post(challenge["url"], {})
    assert (await account.settled(authorization_of(order)))["status"] == "valid"
    request = ca.web.requests[-1]
    assert (request.method, request.target) == ("GET", CHALLENGE_PATH + challenge["token"])
    assert request.headers["host"].partition(":")[0] == order.names[0]


@pytest.mark.parametrize("wildcard", [False, True])
async def test_8_4_dns_01(ca, account, wildcard):
    name = ca.name()
    order = await account.order(f"*.{name}" if wildcard else name)
    challenge = await order.challenge("dns-01")
    ca.dns.add(f"_acme-challenge.{name}", "TXT", "another", digest(account, challenge["token"]))
    await account.post(challenge["url"], {})
    assert (await account.settled(authorization_of(order)))["status"] == "valid"
    assert (await order.read())["status"] == "ready"
    answer = await order.finalize()
    downloaded = await account.read(answer.json["certificate"])
    (leaf, *_) = x509.load_pem_x509_certificates(downloaded.body)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == order.names


async def test_rfc_8737_tls_alpn_01(new_ca):
    (port,) = free_ports(1)
    async with new_ca(validation={"tlsalpn01_port": port}) as ca:
        account = await ca.account()
        for name in (ca.name(), "127.0.0.1"):
            order = await account.order(name)
            challenge = await order.challenge("tls-alpn-01")
            credentials = challenge_certificate(name, account.key_authorization(challenge["token"]))
            with AlpnResponder(credentials, port=port):
                await account.post(challenge["url"], {})
                assert (await account.settled(authorization_of(order)))["status"] == "valid"


# ---------------------------------------------------------------- §8.2: what a failure tells


async def failure(account: Account, order: Order, kind: str = "http-01") -> dict[str, str]:
    """The problem with which the challenge ends; all of its shape is checked."""
    await account.post((await order.challenge(kind))["url"], {})
    authorization = await account.settled(authorization_of(order))
    assert authorization["status"] == "invalid"
    (challenge,) = authorization["challenges"]
    assert (challenge["type"], challenge["status"]) == (kind, "invalid")
    assert "validated" not in challenge
    assert set(challenge["error"]) == {"type", "code", "detail"}
    assert re.fullmatch(r"[A-Z].+\.", challenge["error"]["detail"]), challenge
    assert (await order.read())["status"] == "invalid"
    return challenge["error"]


def assert_error(error: dict[str, str], kind: ErrorType, *words: str) -> None:
    assert error["type"] == ERROR_NAMESPACE + kind, error
    assert all(word in error["detail"] for word in words), error


async def test_8_3_a_wrong_file(ca, account, order):
    challenge = await order.challenge()
    ca.web.serve_token(challenge["token"], "REPEATED")
    error = await failure(account, order)
    assert_error(error, ErrorType.UNAUTHORIZED, order.names[0])
    assert "REPEATED" not in error["detail"]


async def test_8_3_the_file_of_another_account(ca, account, stranger, order):
    """Lesson 9."""
    challenge = await order.challenge()
    ca.web.serve_token(challenge["token"], stranger.key_authorization(challenge["token"]))
    assert_error(await failure(account, order), ErrorType.UNAUTHORIZED, "account key")


async def test_8_3_no_file(account, order):
    assert_error(await failure(account, order), ErrorType.INCORRECT_RESPONSE, "404")


async def test_8_3_no_web_server(ca, account):
    ca.dns.add("nobody.example.test", "A", "127.0.0.9")
    order = await account.order("nobody.example.test")
    assert_error(await failure(account, order), ErrorType.CONNECTION, "127.0.0.9")


async def test_8_3_no_such_name(account):
    order = await account.order("missing.example.test")
    assert_error(await failure(account, order), ErrorType.DNS, "missing.example.test")


async def test_8_3_dns_that_fails(ca, account):
    ca.dns.answer("broken.example.test", SERVFAIL)
    assert_error(await failure(account, await account.order("broken.example.test")), ErrorType.DNS)


async def test_8_3_an_address_that_is_never_dialled(ca, account):
    """Lesson 7."""
    ca.dns.add("metadata.example.test", "A", "169.254.169.254")
    order = await account.order("metadata.example.test")
    assert_error(await failure(account, order), ErrorType.CONNECTION, "metadata")


async def test_8_4_no_record(account, order):
    name = f"_acme-challenge.{order.names[0]}"
    assert_error(await failure(account, order, "dns-01"), ErrorType.DNS, name)


async def test_8_4_another_record(ca, account, order):
    ca.dns.add(f"_acme-challenge.{order.names[0]}", "TXT", "REPEATED")
    error = await failure(account, order, "dns-01")
    assert_error(error, ErrorType.UNAUTHORIZED)
    assert "REPEATED" not in error["detail"]


async def test_rfc_8737_something_that_is_not_tls(new_ca):
    (port,) = free_ports(1)
    with SilentServer(port=port, greeting=b"220 not TLS\r\n"):
        async with new_ca(validation={"tlsalpn01_port": port}) as ca:
            account = await ca.account()
            order = await account.order(ca.name())
            assert_error(await failure(account, order, "tls-alpn-01"), ErrorType.TLS)


async def test_rfc_8659_caa_forbids(ca, account, order):
    ca.dns.add(order.names[0], "CAA", (0, "issue", "other-ca.test"))
    challenge = await order.challenge()
    serve(ca, account, challenge)
    assert_error(await failure(account, order), ErrorType.CAA, order.names[0])


async def test_rfc_8657_caa_names_this_account(ca, account, stranger):
    name = ca.name()
    ca.dns.add(name, "CAA", (0, "issue", f"ca.test; accounturi={account.url}; validationmethods=http-01"))
    for who, status in ((account, "valid"), (stranger, "invalid")):
        order = await who.order(name)
        challenge = await order.challenge()
        serve(ca, who, challenge)
        await who.post(challenge["url"], {})
        assert (await who.settled(authorization_of(order)))["status"] == status


async def test_8_2_a_failure_is_told_of_each_name(ca, account):
    """Lesson 5: N names, N validations, N outcomes."""
    order = await account.order(*(ca.name() for _ in range(5)))
    good = (0, 2, 4)
    for place in range(5):
        challenge = await order.challenge(place=place)
        if place in good:
            serve(ca, account, challenge)
        await account.post(challenge["url"], {})
    settled = [await account.settled(url) for url in order.object["authorizations"]]
    assert [one["status"] == "valid" for one in settled] == [place in good for place in range(5)]
    asked = {request.headers["host"].partition(":")[0] for request in ca.web.requests}
    assert set(order.names) <= asked
