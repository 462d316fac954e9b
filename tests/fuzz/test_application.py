"""Lesson 24, through the real server: never a 500, never a dropped connection, always a problem with a fresh nonce.

`Client` checks these of every answer. Seeded: a failure comes again; its number is in the message.
"""

import json
from random import Random

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.core.problems import ErrorType
from tests.support import mutations
from tests.support.client import Answer
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.issuing import csr
from tests.support.jose import Key, base64url, compact, jws, mac_jws
from tests.support.mutations import document_like, json_like, text_like

pytestmark = IN_SESSION_LOOP

ROUNDS = 400
KINDS = {str(kind) for kind in ErrorType}


async def answered(number: int, sent) -> Answer:
    """The answer, whatever it is; not none."""
    try:
        answer = await sent
    except Exception as error:
        raise AssertionError(f"round {number}") from error
    if answer.status >= 400:
        problem = answer.json
        assert answer.error in KINDS, (number, answer)
        assert problem["status"] == answer.status
        assert problem["detail"]
    return answer


def refused(answers: list[Answer]) -> int:
    return sum(answer.status >= 400 for answer in answers)


async def test_lesson_24_bodies(ca, account):
    answers = []
    for number in range(ROUNDS):
        random = Random(number)
        header = {
            "alg": "ES256",
            "kid": account.url,
            "nonce": await ca.client.nonce(),
            "url": ca.client.url("new-order"),
        }
        body = document_like(jws(header, b"{}", account.key), random)
        answers.append(await answered(number, ca.client.send(ca.client.url("new-order"), body)))
    assert refused(answers) == ROUNDS, "{} is no order"


async def test_lesson_24_protected_headers(ca, account):
    """Soundly signed, whatever they say."""
    answers = []
    for number in range(ROUNDS):
        random = Random(number)
        url = random.choice([account.url, ca.client.url("new-account")])
        who = {"kid": account.url} if url == account.url else {"jwk": account.key.jwk}
        header = {"alg": "ES256", **who, "nonce": await ca.client.nonce(), "url": url}
        body = compact(jws(document_like(header, random), b"", account.key))
        answers.append(await answered(number, ca.client.send(url, body)))
    assert refused(answers) > ROUNDS / 2


PAYLOADS = {
    "new-order": {
        "identifiers": [{"type": "dns", "value": "*.a.example.test"}, {"type": "ip", "value": "::1"}],
        "notBefore": "2030-01-31T12:00:00Z",
    },
    "new-authz": {"identifier": {"type": "dns", "value": "a.example.test"}},
    "revoke-cert": {"certificate": base64url(bytes(64)), "reason": 1},
    "key-change": {"protected": "AAAA", "payload": "AAAA", "signature": "AAAA"},
}


@pytest.mark.parametrize("resource", PAYLOADS)
async def test_lesson_24_payloads(ca, account, resource):
    answers = []
    for number in range(ROUNDS // 2):
        payload = document_like(PAYLOADS[resource], Random(f"{resource} {number}"))
        answers.append(await answered(number, account.post(ca.client.url(resource), payload)))
    assert refused(answers) > ROUNDS / 8


async def test_lesson_24_new_accounts_and_their_bindings(ca):
    url = ca.client.url("new-account")
    for number in range(ROUNDS):
        random = Random(number)
        key = Key.generate()
        header = {"alg": "HS256", "kid": "nobody", "url": url}
        binding = mac_jws(json_like(header, random) if number % 2 else header, compact(key.jwk), bytes(32))
        payload = {"contact": ["mailto:a@example.test"], "externalAccountBinding": binding}
        raw = json.dumps(payload).encode() if number % 2 else document_like(payload, random)
        await answered(number, ca.client.post(url, raw, key=key))


async def test_lesson_24_key_changes(ca):
    account = await ca.account()
    url = ca.client.url("key-change")
    for number in range(ROUNDS // 2):
        random = Random(number)
        new = Key.generate()
        header = {"alg": new.algorithm, "jwk": new.jwk, "url": url}
        payload = {"account": account.url, "oldKey": account.key.jwk}
        inner = jws(document_like(header, random), document_like(payload, random), new)
        answer = await answered(number, account.post(url, inner))
        if answer.status == 200:
            account.key = new


async def test_lesson_24_csrs(ca, account):
    order = await ca.ready(account)
    sound = csr(*order.names)
    finished = False
    for number in range(ROUNDS):
        answer = await answered(number, order.finalize(mutations.bytes_like(sound, Random(number))))
        finished = finished or answer.status == 200
    assert finished or (await order.finalize(sound)).status == 200, "the order lived through it"


async def test_lesson_24_certificates(ca, account):
    order = await account.order(ca.name())
    (leaf, *_) = await order.issue(ca.web)
    der = leaf.public_bytes(Encoding.DER)
    for number in range(ROUNDS):
        if (mutated := mutations.bytes_like(der, Random(number))) != der:
            assert (await answered(number, account.revoke(mutated))).status >= 400, number
    assert (await account.revoke(der)).status == 200, "nothing but its very bytes revoked it"


async def test_lesson_24_urls_and_methods(ca, account):
    order = await account.order(ca.name())
    paths = [order.url, order.object["authorizations"][0], account.url + "/orders?after=" + "0" * 32]
    paths.append((await order.challenge())["url"])
    base = ca.client.public_url + "/acme/"
    for number in range(ROUNDS):
        random = Random(number)
        path = text_like(random.choice(paths).removeprefix(base), random)
        escaped = "".join(
            c if c.isascii() and (c.isalnum() or c in "/?&=-_.%") else f"%{ord(c) % 256:02x}" for c in path
        )
        method = random.choice(["GET", "HEAD", "PUT", "POST"])
        url = base + escaped
        sent = account.read(url) if method == "POST" else ca.client.request(method, url)
        if method != "HEAD":
            await answered(number, sent)
        else:
            await sent


async def test_lesson_24_headers_of_the_request(ca, account):
    values = [
        "",
        "x" * 4000,
        "\u00ff",
        "gzip",
        "chunked;",
        "100-continue",
        "-1",
        "bytes=0-",
        "a=b; c",
        "\t",
        "*/*;q=x",
    ]
    names = [
        "Accept",
        "Cookie",
        "Range",
        "If-Match",
        "User-Agent",
        "Origin",
        "Accept-Language",
        "X-Request-Id",
        "Via",
    ]
    for number in range(ROUNDS):
        random = Random(number)
        headers = {random.choice(names): random.choice(values), "Content-Type": "application/jose+json"}
        sent = ca.client.request("POST", account.url, body=b"{}", headers=headers)
        assert (await answered(number, sent)).status == 400
