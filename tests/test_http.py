"""The web edge that all listeners share: problems as documents, surprises without text, one line for each request."""

import asyncio
import ipaddress
import socket

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict
from structlog.testing import capture_logs

from acme_ca import http
from acme_ca.core.problems import ErrorType, Problem, malformed
from acme_ca.storage.database import DatabaseUnavailable
from tests.support.client import Answer, assert_problem

SECRET = "postgresql://user:REPEATED@db/x"


@pytest.fixture
async def ask():
    """`await ask(handler, method=…)`: what a server answers whose one handler this is, and what it logs."""
    opened = []

    async def send(handler, method: str = "GET", path: str = "/", **arguments) -> tuple[Answer, list]:
        edge = http.edge(
            log=structlog.get_logger(),
            new_request_id=lambda: "the-id",
            decorate=lambda _, response: response.headers.update({"X-Decorated": "yes"}),
        )
        application = web.Application(middlewares=[edge], client_max_size=http.MAX_BODY)
        application.router.add_route("POST" if method == "POST" else "GET", "/", handler)
        client = TestClient(TestServer(application))
        opened.append(client)
        await client.start_server()
        with capture_logs() as lines:
            response = await client.request(method, path, **arguments)
            answer = Answer(response.status, response.headers, await response.read())
        return answer, lines

    yield send
    for client in opened:
        await client.close()


def raising(error: BaseException):
    async def handler(_: web.Request) -> web.Response:
        raise error

    return handler


# ---------------------------------------------------------------- problems

FORBIDDEN = {
    ErrorType.UNAUTHORIZED,
    ErrorType.USER_ACTION_REQUIRED,
    ErrorType.EXTERNAL_ACCOUNT_REQUIRED,
    ErrorType.REJECTED_IDENTIFIER,
    ErrorType.ORDER_NOT_READY,
    ErrorType.CAA,
}
STATUSES = {kind: 403 if kind in FORBIDDEN else 400 for kind in ErrorType} | {
    ErrorType.ALREADY_REPLACED: 409,
    ErrorType.RATE_LIMITED: 429,
    ErrorType.SERVER_INTERNAL: 500,
}


@pytest.mark.parametrize(("kind", "status"), STATUSES.items())
async def test_each_type_has_its_status(ask, kind, status):
    """`orderNotReady` is 403 (RFC 8555 §7.4), `rateLimited` 429; what is the client's fault is 400 else."""
    answer, (line,) = await ask(raising(Problem(kind, "So it is.")))
    assert_problem(answer, kind, status=status)
    assert line["problem"] == f"{kind}: So it is."


async def test_a_problem_may_know_its_status_members_and_headers(ask):
    problem = Problem(
        ErrorType.MALFORMED, "No.", status=409, members={"algorithms": []}, headers={"Location": "https://x"}
    )
    answer, _ = await ask(raising(problem))
    document = assert_problem(answer, ErrorType.MALFORMED, status=409)
    assert (document["algorithms"], answer.location) == ([], "https://x")


async def test_every_answer_has_what_all_have(ask):
    for handler in (raising(malformed("No.")), raising(ValueError()), raising(web.HTTPNotFound())):
        answer, _ = await ask(handler)
        assert [answer.headers[name] for name in ("X-Decorated", "X-Request-Id", "Server")] == [
            "yes",
            "the-id",
            "acme-ca",
        ]


# ---------------------------------------------------------------- surprises


@pytest.mark.parametrize(
    "error",
    [ValueError(SECRET), KeyError(SECRET), AssertionError(SECRET), RecursionError(SECRET), OSError(SECRET)],
)
async def test_a_surprise_is_a_500_without_text(ask, error):
    """The trace is in the log alone, under the request's id."""
    answer, (failure, line) = await ask(raising(error))
    assert_problem(answer, ErrorType.SERVER_INTERNAL, "the-id", status=500)
    assert "REPEATED" not in answer.body.decode()
    assert (failure["event"], failure["request"], failure["exc_info"]) == ("request failed", "the-id", True)
    assert line["status"] == 500


async def test_a_database_out_of_reach_is_503_with_a_time(ask):
    answer, (failure, _) = await ask(raising(DatabaseUnavailable(SECRET)))
    assert_problem(answer, ErrorType.SERVER_INTERNAL, "database", "the-id", status=503)
    assert answer.headers["Retry-After"].isdigit()
    assert "REPEATED" not in answer.body.decode()
    assert (failure["event"], failure["reason"]) == ("database unavailable", SECRET)


# ---------------------------------------------------------------- what aiohttp refuses


async def test_an_unknown_path_is_404(ask):
    answer, _ = await ask(raising(ValueError()), path="/nothing")
    assert assert_problem(answer, ErrorType.MALFORMED, status=404)["code"] == "url-unknown"


async def test_another_method_is_405_with_allow(ask):
    answer, _ = await ask(raising(ValueError()), method="PUT")
    assert_problem(answer, ErrorType.MALFORMED, status=405)
    assert answer.headers["Allow"] == "GET"


async def reading(request: web.Request) -> web.Response:
    return http.json_response({"bytes": len(await http.read_body(request))})


@pytest.mark.parametrize(("size", "status"), [(0, 200), (http.MAX_BODY, 200), (http.MAX_BODY + 1, 413)])
async def test_a_body_has_64_kib_at_most(ask, size, status):
    answer, _ = await ask(reading, method="POST", data=b"x" * size)
    assert answer.status == status
    if status == 200:
        assert answer.json == {"bytes": size}
    else:
        assert_problem(answer, ErrorType.MALFORMED, "65536")


@pytest.mark.parametrize("refusal", [web.HTTPNotAcceptable(), web.HTTPGone(), web.HTTPBadRequest()])
async def test_other_refusals_are_problems_too(ask, refusal):
    refusal.text = SECRET
    answer, _ = await ask(raising(refusal))
    assert_problem(answer, ErrorType.MALFORMED, status=refusal.status)
    assert "REPEATED" not in answer.body.decode()


# ---------------------------------------------------------------- writing


async def test_links_are_headers_of_their_own(ask):
    async def handler(_: web.Request) -> web.Response:
        return http.json_response(
            {"a": "\u00e9"}, links=[("https://a", "next"), ("https://b", "up")], status=201
        )

    answer, (line,) = await ask(handler)
    assert (answer.status, answer.content_type, answer.json) == (201, "application/json", {"a": "\u00e9"})
    assert answer.headers.getall("Link") == ['<https://a>;rel="next"', '<https://b>;rel="up"']
    assert (line["event"], line["method"], line["path"]) == ("request", "GET", "/")
    assert "problem" not in line
    assert line["ms"] >= 0


# ---------------------------------------------------------------- clients that go away


async def test_a_client_that_goes_away_is_no_failure_of_the_server(ask):
    """In the middle of its body: the next one is served."""
    arrived = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        arrived.set()
        return await reading(request)

    edge = http.edge(log=structlog.get_logger(), new_request_id=lambda: "id", decorate=lambda *_: None)
    application = web.Application(middlewares=[edge])
    application.router.add_post("/", handler)
    with capture_logs() as lines:
        async with TestClient(TestServer(application)) as client:
            with socket.create_connection((client.host, client.port)) as stream:
                stream.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
                await arrived.wait()
            answer = await client.post("/", data=b"whole")
            assert await answer.json() == {"bytes": 5}
            await asyncio.sleep(0.05)
    assert not [line for line in lines if line["log_level"] == "error"]


# ---------------------------------------------------------------- who asks, behind proxies (lesson 15)

PROXIES = tuple(map(ipaddress.ip_network, ("10.0.0.0/24", "2001:db8::/64")))


def seen(remote: str, *forwarded: str, trusted=PROXIES) -> str:
    headers = CIMultiDict(("X-Forwarded-For", one) for one in forwarded)
    request = make_mocked_request("GET", "/", headers=headers).clone(remote=remote)
    return http.client_of(request, trusted)


@pytest.mark.parametrize(
    ("remote", "forwarded", "client"),
    [
        ("10.0.0.5", ["192.0.2.1"], "192.0.2.1"),
        ("10.0.0.5", ["192.0.2.1:4711"], "192.0.2.1"),
        ("10.0.0.5", ["203.0.113.66, 192.0.2.1"], "192.0.2.1"),  # what the client itself has put there
        ("10.0.0.5", ["203.0.113.66, 192.0.2.1, 10.0.0.9"], "192.0.2.1"),
        ("10.0.0.5", ["203.0.113.66", "192.0.2.1 , 10.0.0.9"], "192.0.2.1"),  # in two headers
        ("10.0.0.5", ["2001:db8:1::7"], "2001:db8:1::7"),
        ("10.0.0.5", ["[2001:db8:1::7]:443"], "2001:db8:1::7"),
        ("2001:db8::1", ["::ffff:192.0.2.1"], "192.0.2.1"),
        ("::ffff:10.0.0.5", ["192.0.2.1"], "192.0.2.1"),
        ("::ffff:192.0.2.9", ["203.0.113.66"], "192.0.2.9"),
        ("10.0.0.5", ["10.0.0.8, 10.0.0.9"], "10.0.0.8"),  # all are proxies
        ("10.0.0.5", ["192.0.2.1, unknown"], "10.0.0.5"),
        ("10.0.0.5", ["192.0.2.1, unknown, 10.0.0.9"], "10.0.0.9"),
        ("10.0.0.5", [""], "10.0.0.5"),
        ("10.0.0.5", [], "10.0.0.5"),
        ("192.0.2.9", ["203.0.113.66"], "192.0.2.9"),  # nobody has asked them
        ("", ["203.0.113.66"], ""),  # a Unix socket
    ],
)
def test_lesson_15_what_a_listed_proxy_says_is_believed_and_no_more(remote, forwarded, client):
    assert seen(remote, *forwarded) == client


@pytest.mark.parametrize("remote", ["10.0.0.5", "127.0.0.1"])
def test_lesson_15_at_first_nobody_is_believed(remote):
    assert seen(remote, "203.0.113.66", trusted=()) == remote


def test_who_comes_by_ipv4_to_a_listener_for_both_has_the_address_of_the_others():
    """Lists, audit and log-ins go by it as a text."""
    assert seen("::ffff:192.0.2.9", trusted=()) == "192.0.2.9"
    assert seen("2001:db8::1", trusted=()) == "2001:db8::1"


@given(st.lists(st.text(max_size=40), max_size=5))
def test_lesson_24_no_header_crashes_it(forwarded):
    printable = [text for text in forwarded if not set(text) & set("\r\n\0")]
    client = seen("10.0.0.5", *printable)
    ipaddress.ip_address(client)
