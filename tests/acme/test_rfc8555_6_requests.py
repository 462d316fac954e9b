"""RFC 8555 §6: what every request and every answer must be. What a JWS must be in itself: test_jws.py."""

import asyncio
import io
import json
import re

import pytest
from aiohttp.web_request import BaseRequest

from acme_ca.acme.endpoints import ROUTES
from acme_ca.acme.urls import ID
from acme_ca.core.codes import Code
from acme_ca.core.problems import ErrorType
from tests.support.client import Answer, assert_problem, assert_refused
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.jose import Key, base64url, compact, from_base64url, jws, mac_jws, rsa_key

pytestmark = IN_SESSION_LOOP

MALFORMED, UNAUTHORIZED, BAD_NONCE = ErrorType.MALFORMED, ErrorType.UNAUTHORIZED, ErrorType.BAD_NONCE

SIGNED_BY_ACCOUNT = ["account", "order", "new-order"]
"""Reading one's account, reading what one owns, and making something new."""


@pytest.fixture(scope="session")
def order_of():
    """Orders that were made for an account, to be read."""
    return {}


@pytest.fixture
def fire(ca, account, order_of):
    """`await fire("account", …)`: a request that would succeed, spoiled as `Client.post` can."""

    async def send(where: str, **spoiling) -> Answer:
        if where == "new-account":
            return await ca.client.post(ca.client.url(where), {}, **{"key": Key.generate(), **spoiling})
        if where == "account":
            return await account.read(account.url, **spoiling)
        if where == "new-order":
            return await account.post(
                ca.client.url(where), {"identifiers": [{"type": "dns", "value": ca.name()}]}, **spoiling
            )
        if account.url not in order_of:
            order_of[account.url] = await account.order(ca.name())
        return await account.read(order_of[account.url].url, **spoiling)

    return send


WHERE = pytest.mark.parametrize("where", ["new-account", *SIGNED_BY_ACCOUNT])


@WHERE
async def test_unspoiled_each_of_them_succeeds(fire, where):
    """Without this the refusals below would show nothing."""
    assert (await fire(where)).status in {200, 201}


# ---------------------------------------------------------------- §6.1


async def test_6_1_browsers_may_ask(ca):
    answer = await ca.client.request("GET", ca.client.directory_url)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    exposed = answer.headers["Access-Control-Expose-Headers"].lower()
    assert all(name in exposed for name in ("link", "replay-nonce", "location", "retry-after"))


EVERY_URL = [
    "https://ca.test"
    + re.sub(
        r"{type.*}",
        "http-01",
        route.path.replace(f"{{id:{ID}}}", "0" * 32).replace("{chain:[1-9][0-9]?}", "1"),
    )
    for route in ROUTES
]


@pytest.mark.parametrize("url", EVERY_URL)
async def test_6_1_browsers_may_ask_first(ca, url):
    """As they do before they send application/jose+json: without any log-in, and whatever is at the URL."""
    asking = {
        "Origin": "https://elsewhere.test",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    answer = await ca.client.request("OPTIONS", url, headers=asking)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"].replace(" ", "").split(",")
    assert answer.headers["Access-Control-Allow-Headers"].lower() == "content-type"
    assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_6_1_where_nothing_is_browsers_find_nothing(ca):
    answer = await ca.client.request("OPTIONS", "https://ca.test/acme/nothing")
    assert_problem(answer, MALFORMED, status=404)


async def test_6_1_all_urls_are_https(ca):
    resources = (await ca.client.request("GET", ca.client.directory_url)).json
    resources.pop("meta")
    assert all(url.startswith("https://ca.test/acme/") for url in resources.values())


@pytest.mark.parametrize("host", ["evil.example", "ca.test:1", "CA.TEST", "127.0.0.1"])
async def test_6_1_the_host_header_is_not_believed(ca, host):
    answer = await ca.client.request("GET", ca.client.directory_url, headers={"Host": host})
    assert "evil" not in answer.body.decode()
    assert answer.json["newOrder"] == "https://ca.test/acme/new-order"


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded"])
async def test_6_1_headers_of_proxies_are_not_believed(ca, account, name):
    """Lesson 15."""
    headers = {name: "for=203.0.113.9;host=evil.example" if name == "Forwarded" else "203.0.113.9"}
    answer = await ca.client.request("GET", ca.client.directory_url, headers=headers)
    assert answer.json["newOrder"] == "https://ca.test/acme/new-order"
    assert ca.logged("request")[-1]["client"] == "127.0.0.1"


# ---------------------------------------------------------------- §6.2: algorithms and keys


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512", "EdDSA", "RS256"])
async def test_6_2_accounts_of_each_algorithm(ca, algorithm):
    key = rsa_key() if algorithm == "RS256" else Key.generate(algorithm)
    account = await ca.client.register(key)
    assert (await account.read(account.url)).json["status"] == "valid"
    assert (await account.new_order(ca.name())).status == 201


@WHERE
@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS1", "PS256", "es256", "", None, 1, [], {}])
async def test_6_2_another_algorithm_is_refused(fire, where, algorithm):
    """ "MUST include an "algorithms" field with an array of supported "alg" values"."""
    answer = await fire(where, header={"alg": algorithm})
    problem = assert_problem(answer, ErrorType.BAD_SIGNATURE_ALGORITHM, status=400)
    assert set(problem["algorithms"]) == {"ES256", "ES384", "ES512", "RS256", "EdDSA"}


@WHERE
@pytest.mark.parametrize("algorithm", ["RS256", "ES384", "EdDSA"])
async def test_6_2_the_algorithm_must_be_the_keys(fire, where, algorithm):
    assert_problem(
        await fire(where, header={"alg": algorithm}), ErrorType.BAD_SIGNATURE_ALGORITHM, status=400
    )


async def test_6_2_unsigned_with_none(fire):
    answer = await fire("account", header={"alg": "none"}, change=lambda made: {**made, "signature": ""})
    assert_problem(answer, ErrorType.BAD_SIGNATURE_ALGORITHM)


async def test_6_2_a_mac_under_the_public_key(ca, account):
    header = {"alg": "HS256", "kid": account.url, "nonce": await ca.client.nonce(), "url": account.url}
    answer = await ca.client.send(account.url, mac_jws(header, b"", compact(account.key.jwk)))
    assert_problem(answer, ErrorType.BAD_SIGNATURE_ALGORITHM)


async def test_6_2_a_bad_public_key_is_called_so(ca):
    key = Key.generate()
    answer = await ca.client.post(
        ca.client.url("new-account"), {}, key=key, header={"jwk": {**key.jwk, "y": key.jwk["x"]}}
    )
    assert_problem(answer, ErrorType.BAD_PUBLIC_KEY, status=400)


# ---------------------------------------------------------------- §6.2: jwk and kid


@WHERE
async def test_6_2_not_both_jwk_and_kid(fire, account, where):
    answer = await fire(where, header={"kid": account.url, "jwk": account.key.jwk})
    assert_problem(answer, MALFORMED, status=400)


@WHERE
async def test_6_2_not_neither_jwk_nor_kid(fire, where):
    missing = "jwk" if where == "new-account" else "kid"
    assert_problem(await fire(where, without=[missing]), MALFORMED, status=400)


KIDS = {
    "empty": "",
    "id": lambda url: url.rpartition("/")[2],
    "path": lambda url: url.removeprefix("https://ca.test"),
    "slash behind": lambda url: url + "/",
    "query": lambda url: url + "?x",
    "fragment": lambda url: url + "#x",
    "http": lambda url: url.replace("https", "http"),
    "another server": lambda url: url.replace("ca.test", "evil.test"),
    "another directory": lambda url: url.replace("/acme/", "/acme2/"),
    "upper case": lambda url: url.upper(),
    "nobody": lambda url: url[:-4] + ("0000" if not url.endswith("0000") else "1111"),
    "NUL": "\0",
    "pattern": lambda url: url[:-1] + "%",
    "number": 1,
    "null": None,
    "list": [],
    "object": {},
}


@pytest.mark.parametrize("kid", KIDS.values(), ids=KIDS)
async def test_6_2_kid_is_exactly_the_accounts_url(fire, account, kid):
    """Lesson 11."""
    answer = await fire("new-order", header={"kid": kid(account.url) if callable(kid) else kid})
    assert answer.error in {ErrorType.ACCOUNT_DOES_NOT_EXIST, MALFORMED}
    assert answer.status == 400
    if callable(kid):
        assert answer.error == ErrorType.ACCOUNT_DOES_NOT_EXIST


async def test_6_2_signed_by_another_key(ca, account, stranger):
    assert_problem(await account.read(account.url, key=stranger.key), MALFORMED)
    assert_problem(await account.read(stranger.url, kid=stranger.url), MALFORMED)


# ---------------------------------------------------------------- §6.2: signatures, bodies, media types

SIGNATURES = {
    "a bit": lambda raw: raw[:-1] + bytes((raw[-1] ^ 1,)),
    "zeros": lambda raw: bytes(len(raw)),
    "nothing": lambda _: b"",
    "cut": lambda raw: raw[:-1],
    "longer": lambda raw: raw + b"\0",
}


@WHERE
@pytest.mark.parametrize("spoil", SIGNATURES.values(), ids=SIGNATURES)
async def test_6_2_a_wrong_signature(fire, where, spoil):
    def change(made):
        return {**made, "signature": base64url(spoil(from_base64url(made["signature"])))}

    answer = await fire(where, change=change)
    assert_problem(answer, MALFORMED, "signature", status=400)
    assert "Location" not in answer.headers


async def test_6_2_the_payload_is_signed(fire):
    answer = await fire(
        "new-order", change=lambda made: {**made, "payload": base64url(b'{"identifiers":[]}')}
    )
    assert_problem(answer, MALFORMED, "signature")


@pytest.mark.parametrize(
    "body",
    [b"", b"hello", b"null", b"[]", b"{}", b'{"protected":"', b"\0" * 10, b"\xff\xfe", b"[" * 20_000],
    ids=lambda body: repr(body[:12]),
)
@pytest.mark.parametrize("resource", ["new-account", "new-order", "revoke-cert", "key-change", "directory"])
async def test_6_2_a_body_that_is_no_jws(ca, resource, body):
    assert_problem(await ca.client.send(ca.client.url(resource), body), MALFORMED, status=400)


@WHERE
@pytest.mark.parametrize(
    "content_type",
    [None, "", "application/json", "application/jose", "application/jose+jsonx", "text/plain", ";", "a/b/c"],
)
async def test_6_2_another_media_type_is_415(fire, where, content_type):
    assert_problem(
        await fire(where, content_type=content_type), MALFORMED, "application/jose+json", status=415
    )


@pytest.mark.parametrize("content_type", ["application/jose+json; charset=utf-8", "Application/JOSE+JSON"])
async def test_6_2_the_media_type_in_other_spellings(fire, content_type):
    """RFC 9110 §8.3.1."""
    assert (await fire("account", content_type=content_type)).status == 200


NO_OBJECTS = [b"hello", b"[]", b"null", b"42", b'"x"', b"{", b"\xff", b'{"a":1,"a":2}']


@pytest.mark.parametrize("payload", NO_OBJECTS)
@pytest.mark.parametrize("resource", ["new-account", "new-order", "new-authz", "key-change", "revoke-cert"])
async def test_6_2_a_payload_that_is_no_object(ca, account, resource, payload):
    signing = (
        {"key": Key.generate()} if resource == "new-account" else {"key": account.key, "kid": account.url}
    )
    assert_problem(await ca.client.post(ca.client.url(resource), payload, **signing), MALFORMED, status=400)


@pytest.mark.parametrize("resource", ["new-account", "new-order", "new-authz", "key-change", "revoke-cert"])
async def test_6_2_an_empty_payload_where_an_object_must_be(ca, account, resource):
    signing = (
        {"key": Key.generate()} if resource == "new-account" else {"key": account.key, "kid": account.url}
    )
    assert_problem(await ca.client.post(ca.client.url(resource), None, **signing), MALFORMED, status=400)


async def test_6_2_bodies_of_64_kib_and_more(ca, account):
    """413 above 64 KiB, whatever the body is; up to that it is read."""
    url = ca.client.url("new-order")
    for size, status in ((64 * 1024, 400), (64 * 1024 + 1, 413), (8 * 1024 * 1024, 413)):
        headers = {"Content-Type": "application/jose+json"}
        answer = await ca.client.request("POST", url, body=io.BytesIO(b"x" * size), headers=headers)
        assert_problem(answer, MALFORMED, status=status)
    assert (await account.read(account.url)).status == 200


async def test_6_2_chunked_bodies_are_limited_alike(ca):
    async def chunks():
        for _ in range(100):
            yield b"x" * 1024

    headers = {"Content-Type": "application/jose+json"}
    answer = await ca.client.request("POST", ca.client.url("new-order"), body=chunks(), headers=headers)
    assert_problem(answer, MALFORMED, status=413)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "x-unknown"])
async def test_6_2_a_coded_body_is_refused_or_read_never_an_error_of_the_server(ca, coding):
    """Lesson 24: what is behind a Content-Encoding is hostile too."""
    headers = {"Content-Type": "application/jose+json", "Content-Encoding": coding}
    answer = await ca.client.request("POST", ca.client.url("new-order"), body=b"\x1f\x8bno", headers=headers)
    assert_refused(answer)


@pytest.mark.parametrize(("expectation", "status"), [("100-continue", 400), ("200-maybe", 417)])
async def test_6_2_expectations(ca, expectation, status):
    """RFC 9110 §10.1.1: curl waits for "100 Continue" before a larger body; another expectation is refused."""
    headers = {"Content-Type": "application/jose+json", "Expect": expectation}
    answer = await ca.client.request("POST", ca.client.url("new-order"), body=b"{}", headers=headers)
    assert_problem(answer, MALFORMED, status=status)


async def test_6_2_the_web_framework_has_nothing_to_warn_of(ca, account, monkeypatch):
    """It does so once in a process: as if this were the first request. Warnings are errors in tests."""
    monkeypatch.setattr(BaseRequest, "_seen_str_keys", set())
    assert (await account.read(account.url)).status == 200
    assert_refused(await account.post(account.url, b"{"))


# ---------------------------------------------------------------- §6.3


@pytest.mark.parametrize("resource", ["directory", "new-nonce"])
async def test_6_3_directory_and_nonces_by_post_as_get(ca, account, resource):
    answer = await account.read(ca.client.url(resource))
    assert answer.status == (200 if resource == "directory" else 204)


@pytest.mark.parametrize("resource", ["new-account", "new-order", "new-authz", "key-change", "revoke-cert"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "PROPFIND"])
async def test_6_3_other_methods_are_405_with_allow(ca, resource, method):
    answer = await ca.client.request(method, ca.client.url(resource))
    assert answer.status == 405
    assert answer.headers["Allow"] == "OPTIONS,POST"
    if method != "HEAD":
        assert_problem(answer, MALFORMED, status=405)


async def test_6_3_get_on_what_an_account_owns_is_405(ca, account):
    order = await account.order(ca.name())
    (authorization,) = order.object["authorizations"]
    urls = [account.url, f"{account.url}/orders", order.url, order.object["finalize"], authorization]
    urls += [(await order.challenge())["url"], "https://ca.test/acme/cert/" + "0" * 32]
    for url in urls:
        answer = await ca.client.request("GET", url)
        assert_problem(answer, MALFORMED, status=405)
        assert answer.headers["Allow"] == "OPTIONS,POST"


@pytest.mark.parametrize("resource", ["directory", "new-nonce"])
async def test_6_3_the_unsigned_resources_are_read_too(ca, resource):
    answer = await ca.client.request("DELETE", ca.client.url(resource))
    assert_problem(answer, MALFORMED, status=405)
    assert answer.headers["Allow"] == "GET,HEAD,OPTIONS,POST"


async def test_6_3_reading_changes_nothing(ca, account):
    """POST-as-GET of a challenge is no answer to it (§7.5.1)."""
    order = await account.order(ca.name())
    challenge = await order.challenge()
    assert (await account.read(challenge["url"])).json["status"] == "pending"
    assert (await order.challenge())["status"] == "pending"


@pytest.mark.parametrize("payload", [{}, {"status": "deactivated"}, b"x"])
async def test_6_3_what_is_only_read_takes_no_payload(ca, account, payload):
    order = await account.order(ca.name())
    for url in (order.url, f"{account.url}/orders"):
        assert_problem(await account.post(url, payload), MALFORMED, "POST-as-GET")


# ---------------------------------------------------------------- §6.4


URLS = {
    "another resource": lambda _: "https://ca.test/acme/revoke-cert",
    "another host": lambda url: url.replace("ca.test", "evil.test"),
    "http": lambda url: url.replace("https", "http"),
    "query": lambda url: url + "?a=b",
    "slash": lambda url: url + "/",
    "case": lambda url: url.upper(),
    "path": lambda url: url.removeprefix("https://ca.test"),
    "default port": lambda url: url.replace("ca.test", "ca.test:443"),
}


@WHERE
@pytest.mark.parametrize("other", URLS.values(), ids=URLS)
async def test_6_4_another_url_is_unauthorized(ca, fire, account, where, other):
    url = other(ca.client.url(where))
    assert_problem(await fire(where, header={"url": url}), UNAUTHORIZED, status=403)


@WHERE
@pytest.mark.parametrize("value", [None, 1, [], {}, ...])
async def test_6_4_1_url_is_a_string_and_present(fire, where, value):
    spoiling = {"without": ["url"]} if value is ... else {"header": {"url": value}}
    assert_problem(await fire(where, **spoiling), MALFORMED, status=400)


async def test_6_4_the_url_requested_is_compared_with_its_query(ca, account):
    answer = await account.read(account.url, to=account.url + "?x=1")
    assert_problem(answer, UNAUTHORIZED)
    orders = f"{account.url}/orders?after={'0' * 32}"
    assert (await account.read(orders)).status == 200


async def test_6_4_a_request_to_one_resource_is_no_request_to_another(ca, account):
    answer = await account.post(ca.client.url("new-order"), {"status": "deactivated"}, to=account.url)
    assert_problem(answer, UNAUTHORIZED)
    assert (await account.read(account.url)).json["status"] == "valid"


async def test_6_4_an_escaped_path_is_another_path(ca, account):
    escaped = account.url.replace("/acct/", "/%61cct/")
    assert_refused(await account.read(account.url, to=escaped))


# ---------------------------------------------------------------- §6.5


async def test_6_5_a_nonce_is_good_once(ca, account):
    nonce = await ca.client.nonce()
    assert (await account.read(account.url, header={"nonce": nonce})).status == 200
    again = await account.read(account.url, header={"nonce": nonce})
    assert_problem(again, BAD_NONCE, status=400)
    assert (await account.read(account.url, header={"nonce": again.nonce})).status == 200


@WHERE
@pytest.mark.parametrize("nonce", ["", base64url(bytes(36)), base64url(bytes(24)), 1, None, [], {}])
async def test_6_5_a_made_up_nonce_is_bad(fire, where, nonce):
    answer = await fire(where, header={"nonce": nonce})
    assert_problem(answer, BAD_NONCE, status=400)


@WHERE
async def test_6_5_no_nonce_is_bad(fire, where):
    assert_problem(await fire(where, without=["nonce"]), BAD_NONCE, status=400)


@pytest.mark.parametrize("nonce", ["a+b/c", "AAAA====", "not base64url!", "\u00e9"])
async def test_6_5_2_a_nonce_that_is_not_base64url_is_malformed(fire, nonce):
    assert_problem(await fire("account", header={"nonce": nonce}), MALFORMED, status=400)


SPENT = {
    "signature": {"change": lambda made: {**made, "signature": base64url(bytes(64))}},
    "url": {"header": {"url": "https://ca.test/"}},
    "algorithm": {"header": {"alg": "HS256"}},
    "kid": {"header": {"kid": "https://ca.test/acme/acct/" + "0" * 32}},
    "payload": {"payload": b"{"},
}


@pytest.mark.parametrize("spoiling", SPENT.values(), ids=SPENT)
async def test_6_5_a_refused_request_spends_its_nonce(ca, account, spoiling):
    """ "Once a nonce value has appeared in an ACME request, the server MUST consider it invalid"."""
    nonce = await ca.client.nonce()
    spoiling = dict(spoiling)
    payload = spoiling.pop("payload", None)
    header = {"nonce": nonce, **spoiling.pop("header", {})}
    refused = await account.post(account.url, payload, header=header, **spoiling)
    assert_refused(refused)
    assert refused.error != BAD_NONCE
    assert_problem(await account.read(account.url, header={"nonce": nonce}), BAD_NONCE)


async def test_6_5_of_parallel_replays_one_wins(ca, account):
    """Lesson 13."""
    header = {"alg": "ES256", "kid": account.url, "nonce": await ca.client.nonce(), "url": account.url}
    body = compact(jws(header, b"", account.key))
    answers = await asyncio.gather(*(ca.client.send(account.url, body) for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [200] + [400] * 19
    assert {answer.error for answer in answers if answer.status == 400} == {BAD_NONCE}


async def test_6_5_nonces_are_nobodys(ca, account, stranger):
    nonce = (await stranger.read(stranger.url)).nonce
    assert (await account.read(account.url, header={"nonce": nonce})).status == 200


# ---------------------------------------------------------------- §6.7


@pytest.mark.parametrize(
    "path",
    [
        "nothing-here",
        "acct/1",
        "order/" + "z" * 32,
        "order/%00",
        "order/..%2f..%2fetc",
        "authz/%ff%fe",
        "cert/-1",
        "order/" + "a" * 3000,
        "chall/" + "0" * 32 + "/fax-01",
        "directory/",
        "new-order/",
        "./new-order/x",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_6_7_an_unknown_url_is_a_404_problem(ca, account, method, path):
    url = ca.client.url(path)
    answer = await ca.client.request("GET", url) if method == "GET" else await account.read(url)
    assert_problem(answer, MALFORMED, status=404)


async def test_6_7_an_unknown_url_beside_acme_is_a_404_problem(ca):
    for client in (ca.client, ca.plain):
        answer = await client.request("GET", client.public_url + "/nothing-here")
        assert assert_problem(answer, MALFORMED, status=404)["code"] == Code.URL_UNKNOWN
        assert "Replay-Nonce" not in answer.headers


async def test_6_7_what_does_not_exist_is_404(ca, account):
    for path in ("order/", "authz/", "cert/"):
        missing = assert_problem(await account.read(ca.client.url(path + "0" * 32)), MALFORMED, status=404)
        assert missing["code"] == Code.NOT_FOUND
    for path in (f"order/{'0' * 32}/finalize", f"chall/{'0' * 32}/http-01"):
        assert_problem(await account.post(ca.client.url(path), {}), MALFORMED, status=404)


async def test_6_7_what_a_stranger_wrote_is_not_echoed(account):
    """But for identifiers, which are shown as literals."""
    marker = "XSS<script>"
    answers = [
        await account.read(account.url, header={"kid": marker}),
        await account.read(account.url, header={"url": marker}),
        await account.read(account.url, header={"alg": marker}),
        await account.post(account.url, {"contact": [f"mailto:{marker}"]}),
        await account.post(account.url, marker.encode()),
    ]
    for answer in answers:
        assert_refused(answer)
        assert marker not in answer.body.decode()


# ---------------------------------------------------------------- what is done on every answer


async def test_every_answer_is_logged_with_its_id(ca, account):
    answer = await account.read(account.url)
    (line,) = [entry for entry in ca.logged("request") if entry["request"] == answer.headers["X-Request-Id"]]
    assert (line["method"], line["status"]) == ("POST", 200)
    assert line["account"] == account.url.rpartition("/")[2]


async def test_the_log_of_a_refusal_says_why(ca, account):
    answer = await account.post(account.url, b"{")
    (line,) = [entry for entry in ca.logged("request") if entry["request"] == answer.headers["X-Request-Id"]]
    assert json.loads(answer.body)["detail"] in line["problem"]
