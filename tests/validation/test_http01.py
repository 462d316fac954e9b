"""http-01: RFC 8555 §8.3, RFC 8738 for addresses, lessons 7 and 32."""

from __future__ import annotations

import asyncio
import gzip
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acme_ca.core import identifiers
from acme_ca.core.problems import ErrorType
from acme_ca.validation.http01 import MAX_REDIRECTS, Ports, Url, first_url, redirected
from tests.support.responders import Credentials, HttpResponder, SilentServer, challenge_certificate
from tests.validation.conftest import ATTEMPT, NAME, TOKEN, Proving, assert_problem

PATH = f"/.well-known/acme-challenge/{TOKEN}"
KEY_AUTHORIZATION = ATTEMPT.key_authorization
SECRET = "internal-secret-7f3a"


# ---------------------------------------------------------------- what is asked


async def test_asks_for_the_token_with_the_name_as_host(web, http):
    web.serve_token(TOKEN, KEY_AUTHORIZATION)
    outcome = await http.outcome()
    assert outcome.problem is None
    (request,) = web.requests
    assert (request.method, request.target) == ("GET", PATH)
    assert request.headers["host"] == f"{NAME}:{web.port}"
    assert "accept-encoding" not in request.headers
    assert "authorization" not in request.headers
    assert "cookie" not in request.headers


AUTHORITIES = {
    "name on 80": (identifiers.dns(NAME), 80, NAME),
    "name on another port": (identifiers.dns(NAME), 5002, f"{NAME}:5002"),
    "IPv4": (identifiers.ip("10.0.0.1"), 80, "10.0.0.1"),
    "IPv6": (identifiers.ip("fd00::1"), 80, "[fd00::1]"),
    "IPv6 on another port": (identifiers.ip("fd00::1"), 5002, "[fd00::1]:5002"),
}


@pytest.mark.parametrize(("identifier", "port", "authority"), AUTHORITIES.values(), ids=AUTHORITIES)
def test_host_header_and_url(identifier, port, authority):
    url = first_url(identifier, TOKEN, port)
    assert url.authority == authority
    assert str(url) == f"http://{authority}{PATH}"


async def test_an_ipv4_identifier(dns, web, http):
    web.serve_token(TOKEN, KEY_AUTHORIZATION)
    assert (await http.outcome(identifier=identifiers.ip("127.0.0.1"))).problem is None
    assert web.requests[0].headers["host"] == f"127.0.0.1:{web.port}"
    assert dns.queries == []


async def test_an_ipv6_identifier(dns, proving, ipv6_loopback):
    with HttpResponder("::1") as web6:
        web6.serve_token(TOKEN, KEY_AUTHORIZATION)
        outcome = await proving.changed(http01_port=web6.port).outcome(identifier=identifiers.ip("::1"))
    assert outcome.problem is None
    assert web6.requests[0].headers["host"] == f"[::1]:{web6.port}"
    assert dns.queries == []


async def test_the_record_tells_what_happened(web, http):
    web.serve_token(TOKEN, KEY_AUTHORIZATION)
    outcome = await http.outcome()
    assert [entry["asked"] for entry in outcome.record] == ["dns", "dns", "connect", "http"]
    *_, connect, get = outcome.record
    assert (connect["address"], connect["port"], connect["result"]) == ("127.0.0.1", web.port, "connected")
    assert (get["url"], get["status"], get["length"]) == (
        f"http://{NAME}:{web.port}{PATH}",
        200,
        len(KEY_AUTHORIZATION),
    )
    assert all(entry["ms"] >= 0 for entry in outcome.record)


# ---------------------------------------------------------------- bodies

GOOD_BODIES = {
    "alone": "",
    "newline": "\n",
    "CRLF": "\r\n",
    "all kinds of white space": " \t\r\n\v\f \n",
    "1 KiB of it": " " * 1024,
}


@pytest.mark.parametrize("white", GOOD_BODIES.values(), ids=GOOD_BODIES)
async def test_trailing_white_space_is_ignored(web, http, white):
    """Lesson 32."""
    web.serve_token(TOKEN, KEY_AUTHORIZATION + white)
    assert (await http.outcome()).problem is None


BAD_BODIES = {
    "empty": "",
    "token only": TOKEN,
    "leading space": " " + KEY_AUTHORIZATION,
    "BOM": "\ufeff" + KEY_AUTHORIZATION,
    "another thumbprint": TOKEN + "." + "A" * 43,
    "prefix": KEY_AUTHORIZATION[:-1],
    "continued": KEY_AUTHORIZATION + "x",
    "other case": KEY_AUTHORIZATION.upper(),
    "trailing NUL": KEY_AUTHORIZATION + "\0",
    "trailing no-break space": KEY_AUTHORIZATION + "\u00a0",
    "twice": f"{KEY_AUTHORIZATION}\n{KEY_AUTHORIZATION}",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_another_body_is_refused(web, http, body):
    web.serve_token(TOKEN, body)
    problem = await http.problem()
    assert_problem(problem, ErrorType.UNAUTHORIZED, "127.0.0.1", f"port {web.port}", NAME)


@pytest.mark.parametrize("size", [5 * 1024, 1024 * 1024])
async def test_a_large_body_is_not_read_to_its_end(web, http, size):
    web.serve_token(TOKEN, KEY_AUTHORIZATION + " " * size)
    assert_problem(await http.problem(), ErrorType.INCORRECT_RESPONSE, "more than")


async def test_an_endless_body_is_cut(web, http):
    web.raw(PATH, b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 100] * 1000)
    started = time.monotonic()
    assert_problem(await http.problem(), ErrorType.INCORRECT_RESPONSE, "more than")
    assert time.monotonic() - started < 15, "long before its end"


@pytest.mark.parametrize(
    "status", [201, 202, 203, 204, 206, 300, 304, 305, 400, 401, 403, 404, 410, 500, 503]
)
async def test_only_status_200_counts(web, http, status):
    body = "" if status in {204, 304} else KEY_AUTHORIZATION
    web.respond(PATH, body, status=status)
    assert_problem(await http.problem(), ErrorType.INCORRECT_RESPONSE, f"status {status}", "127.0.0.1")


async def test_nothing_of_a_response_is_repeated(web, http):
    """Lesson 7: content never echoed."""
    web.respond(PATH, SECRET, headers=[("X-Secret", SECRET)])
    assert SECRET not in (await http.problem()).detail
    web.raw(PATH, f"HTTP/1.1 500 {SECRET}\r\nX-Y: {SECRET}\r\n\r\n{SECRET}".encode())
    assert SECRET not in (await http.problem()).detail
    web.raw(PATH, f"{SECRET}\r\n\r\n".encode())
    assert SECRET not in (await http.problem()).detail
    for location in (
        f"http://{SECRET}.test:{web.port}/{SECRET}",
        f"http://{NAME}:{web.port}/{SECRET}",
        f"ftp://{SECRET}/",
    ):
        web.redirect(PATH, location)
        assert SECRET not in (await http.problem()).detail


def response(head: str, body: bytes = KEY_AUTHORIZATION.encode()) -> bytes:
    return head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


KEY = KEY_AUTHORIZATION.encode()
GOOD_RESPONSES = {
    "HTTP/1.0 until close": response("HTTP/1.0 200 OK"),
    "HTTP/1.1 until close": response("HTTP/1.1 200 OK"),
    "chunked": response("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", chunked(KEY[:10], KEY[10:])),
    "100 Continue first": b"HTTP/1.1 100 Continue\r\n\r\n" + response("HTTP/1.1 200 OK"),
    "103 Early Hints first": b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n" + response("HTTP/1.1 200 OK"),
    "no reason phrase": response("HTTP/1.1 200 "),
    "more after the end": response(
        f"HTTP/1.1 200 OK\nContent-Length: {len(KEY)}", KEY + b"HTTP/1.1 500 no\r\n\r\n"
    ),
}


@pytest.mark.parametrize("answer", GOOD_RESPONSES.values(), ids=GOOD_RESPONSES)
async def test_well_formed_responses(web, http, answer):
    web.raw(PATH, answer)
    assert (await http.outcome()).problem is None


BAD_RESPONSES = {
    "no HTTP": b"220 mail.example.test ESMTP\r\n\r\n",
    "garbage": bytes(range(256)) * 4,
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": KEY,
    "status line alone, then closed": b"HTTP/1.1 200 OK\r\n",
    "bad status": response("HTTP/1.1 2000 OK"),
    "negative length": response("HTTP/1.1 200 OK\nContent-Length: -1"),
    "length too large, then closed": response("HTTP/1.1 200 OK\nContent-Length: 500"),
    "two lengths": response("HTTP/1.1 200 OK\nContent-Length: 1\nContent-Length: 87"),
    "chunk cut": response("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", chunked(KEY, end=b"ff\r\n")),
    "chunk size no number": response("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"zz\r\n"),
    "unknown transfer coding": response("HTTP/1.1 200 OK\nTransfer-Encoding: gzip"),
    "gigantic header": response("HTTP/1.1 200 OK\nX: " + "x" * 60_000),
    "many headers": response("HTTP/1.1 200 OK\n" + "\n".join(f"X-{n}: y" for n in range(5000))),
    "informational responses beyond measure": b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000
    + response("HTTP/1.1 200 OK"),
    "switching protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
}


@pytest.mark.parametrize("answer", BAD_RESPONSES.values(), ids=BAD_RESPONSES)
async def test_malformed_responses(web, http, answer):
    web.raw(PATH, answer)
    assert_problem(await http.problem(), ErrorType.INCORRECT_RESPONSE, "no HTTP/1.1 response", "127.0.0.1")


WRONG_CONTENT = {
    "length too small": response("HTTP/1.1 200 OK\nContent-Length: 10"),
    "compressed": response("HTTP/1.1 200 OK\nContent-Encoding: gzip", gzip.compress(KEY)),
}


@pytest.mark.parametrize("answer", WRONG_CONTENT.values(), ids=WRONG_CONTENT)
async def test_content_that_is_not_the_key_authorization(web, http, answer):
    web.raw(PATH, answer)
    assert_problem(await http.problem(), ErrorType.UNAUTHORIZED)


@settings(deadline=None, max_examples=50)
@given(answer=st.binary(max_size=300))
def test_no_response_ends_in_anything_but_an_outcome(answer):
    """Lesson 24, with real sockets: whatever the bytes, there is an outcome, and it is no proof."""

    async def validate() -> None:
        with HttpResponder() as web:
            web.raw(PATH, b"HTTP/1.1 " + answer)
            attempt = replace(ATTEMPT, identifier=identifiers.ip("127.0.0.1"))
            proving = Proving(
                {"allow_networks": "127.0.0.0/8", "timeout": 2, "attempts": 1, "http01_port": web.port}
            )
            assert (await proving.outcome(attempt)).problem.type in {
                ErrorType.INCORRECT_RESPONSE,
                ErrorType.UNAUTHORIZED,
                ErrorType.CONNECTION,
            }

    asyncio.run(validate())


# ---------------------------------------------------------------- time and connections


async def test_no_answer_is_bounded_in_time(dns, proving):
    dns.add(NAME, "A", "127.0.0.1")
    with SilentServer() as silent:
        started = time.monotonic()
        problem = await proving.changed(http01_port=silent.port, timeout=1).problem()
        assert time.monotonic() - started < 15, "the server never ends it"
    assert_problem(problem, ErrorType.CONNECTION, "1 seconds", "web server", f"127.0.0.1, port {silent.port}")


async def test_a_dripping_answer_is_bounded_in_time(web, http):
    web.raw(PATH, *(bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50), pause=0.05)
    started = time.monotonic()
    problem = await http.changed(timeout=1).problem()
    assert time.monotonic() - started < 12, "the whole answer would take longer"
    assert_problem(problem, ErrorType.CONNECTION, "1 seconds")


async def test_a_complete_answer_suffices_though_the_connection_stays_open(web, http):
    web.raw(PATH, response(f"HTTP/1.1 200 OK\nContent-Length: {len(KEY)}\nConnection: keep-alive"), hold=True)
    assert (await http.outcome()).problem is None


async def test_nobody_listens(dns, proving, free_port):
    dns.add(NAME, "A", "127.0.0.1")
    problem = await proving.changed(http01_port=free_port).problem()
    assert_problem(problem, ErrorType.CONNECTION, NAME, "127.0.0.1", str(free_port), "connection refused")


async def test_a_connection_closed_without_an_answer(web, http):
    web.raw(PATH)
    assert_problem(await http.problem(), ErrorType.CONNECTION, "got no response")


# ---------------------------------------------------------------- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(dns, web, http, status):
    dns.add("files.example.test", "A", "127.0.0.2")
    with HttpResponder("127.0.0.2") as files:
        web.redirect(PATH, f"http://files.example.test:{files.port}/there?q=1#fragment", status=status)
        files.respond("/there", KEY_AUTHORIZATION)
        outcome = await http.changed(redirect_ports=str(files.port)).outcome()
    assert outcome.problem is None
    assert files.requests[0].target == "/there?q=1"
    assert files.requests[0].headers["host"] == f"files.example.test:{files.port}"
    assert [entry["address"] for entry in outcome.record if entry["asked"] == "connect"] == [
        "127.0.0.1",
        "127.0.0.2",
    ]


async def test_relative_redirects(web, http):
    web.redirect(PATH, "/a/b")
    web.redirect("/a/b", "../c")
    web.redirect("/c", f"//{NAME}:{web.port}/d")
    web.respond("/d", KEY_AUTHORIZATION)
    assert (await http.outcome()).problem is None


async def test_a_redirect_to_https_does_not_verify_the_certificate(web, http):
    with HttpResponder(tls=_web_credentials()) as secure:
        web.redirect(PATH, f"https://{NAME}:{secure.port}/there")
        secure.respond("/there", KEY_AUTHORIZATION + "\n")
        assert (await http.changed(redirect_ports=str(secure.port)).outcome()).problem is None


async def test_a_redirect_to_https_that_is_no_tls(web, http):
    with SilentServer(greeting=b"HTTP/1.1 400 Bad Request\r\n\r\n") as plain:
        web.redirect(PATH, f"https://{NAME}:{plain.port}/there")
        problem = await http.changed(redirect_ports=str(plain.port)).problem()
    assert_problem(problem, ErrorType.TLS, "Redirect 1")


@pytest.mark.parametrize("count", [MAX_REDIRECTS, MAX_REDIRECTS + 1])
async def test_ten_redirects_are_followed_and_no_eleventh(web, http, count):
    web.redirect(PATH, "/1")
    for step in range(1, count):
        web.redirect(f"/{step}", f"/{step + 1}")
    web.respond(f"/{count}", KEY_AUTHORIZATION)
    outcome = await http.outcome()
    assert (outcome.problem is None) == (count == MAX_REDIRECTS)
    assert len(web.requests) == MAX_REDIRECTS + 1


@pytest.mark.parametrize("cycle", [[PATH], ["/a", PATH], ["/a", "/b", "/a"]])
async def test_circles_are_stopped(web, http, cycle):
    for at, to in zip([PATH, *cycle], cycle, strict=False):
        web.redirect(at, to)
    assert_problem(await http.problem(), ErrorType.INCORRECT_RESPONSE, "circle")
    assert len(web.requests) == len(cycle)


async def test_a_redirect_without_a_location(web, http):
    web.respond(PATH, status=302)
    assert_problem(await http.problem(), ErrorType.INCORRECT_RESPONSE, "Location")


async def test_a_redirect_with_two_locations(web, http):
    web.respond(PATH, status=302, headers=[("Location", "/a"), ("Location", "/b")])
    web.respond("/a", KEY_AUTHORIZATION)
    assert_problem(await http.problem(), ErrorType.INCORRECT_RESPONSE, "Location")


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.3",
        "169.254.169.254",
        "[::1]",
        "[::ffff:127.0.0.3]",
        "0.0.0.0",
        "inside.example.test",
        "localhost",
    ],
)
async def test_a_redirect_to_a_refused_address_is_not_dialled(dns, web, http, target):
    """Lesson 7: every hop goes through the guarded network."""
    dns.add("inside.example.test", "A", "127.0.0.3")
    dns.add("localhost", "A", "127.0.0.1")
    with HttpResponder("0.0.0.0") as inside:
        web.redirect(PATH, f"http://{target}:{inside.port}/")
        problem = await http.changed(allow_networks="127.0.0.1/32", redirect_ports=str(inside.port)).problem()
        assert inside.connections == 0
    assert_problem(problem, ErrorType.CONNECTION, "does not dial", "redirect 1")


PORTS = Ports(challenge=5002, redirect=(8080,))
HERE = Url(scheme="http", host=NAME, port=5002, target=PATH)
FOLLOWED = {
    "http://a.test/x": "http://a.test/x",
    "HTTP://A.Test/X": "http://a.test/X",
    "https://a.test": "https://a.test/",
    "http://a.test:443/": "http://a.test:443/",
    "http://a.test:8080/": "http://a.test:8080/",
    "http://a.test:5002/": "http://a.test:5002/",
    "http://a.test./": "http://a.test/",
    "http://10.0.0.1/": "http://10.0.0.1/",
    "http://[fd00::0001]/": "http://[fd00::1]/",
    "?x": f"http://{NAME}:5002{PATH}?x",
    "": f"http://{NAME}:5002{PATH}",
}
NOT_FOLLOWED = [
    "ftp://a.test/",
    "file:///etc/passwd",
    "gopher://a.test/",
    "javascript:alert(1)",
    "http://a.test:22/",
    "http://a.test:0/",
    "http://a.test:65536/",
    "http://a.test:http/",
    "https://a.test:8443/",
    "http://user@a.test/",
    "http://user:pass@a.test/",
    "http://@a.test/",
    "http://127.0.0.1\\@a.test/",
    "http://a.test\\.b.test/",
    "http:///x",
    "http://",
    "http:/x",
    "http:x",
    "http://a..test/",
    "http://-a.test/",
    "http://a_b.test/",
    "http://*.a.test/",
    "http://%61.test/",
    "http://127.1/",
    "http://2130706433/",
    "http://127.0.0.1./",
    "http://[::1/",
    "http://[fe80::1%25eth0]/",
    "http://[v1.x]/",
    "http://" + "a." * 200 + "test/",
    "/" + "x" * 3000,
    "/white space",
    "/line\nfeed",
    "/tab\there",
    "http://ä.test/",
]


@pytest.mark.parametrize("location", FOLLOWED)
def test_redirect_is_followed_to(location):
    assert str(redirected(HERE, location.encode(), PORTS)) == FOLLOWED[location]


@pytest.mark.parametrize("location", NOT_FOLLOWED)
def test_redirect_is_not_followed_to(location):
    why = redirected(HERE, location.encode(), PORTS)
    assert isinstance(why, str)
    assert location not in why


@given(st.one_of(st.binary(), st.text().map(lambda text: ("http://" + text).encode())))
def test_any_location_has_a_verdict(location: bytes):
    """Lesson 24."""
    verdict = redirected(HERE, location, PORTS)
    assert isinstance(verdict, str) or (verdict.scheme in {"http", "https"} and PORTS.permit(verdict.port))


def _web_credentials() -> Credentials:
    return challenge_certificate("unrelated.test", "unrelated", without_extension=True)
