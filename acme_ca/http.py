"""The web edge that every listener shares: request ids, one line a request, problems as documents, timing."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDict

from acme_ca.core.codes import Code
from acme_ca.core.identifiers import Address, Network, read_address
from acme_ca.core.problems import ErrorType, Problem, malformed
from acme_ca.storage.database import DatabaseUnavailable

MAX_BODY = 64 * 1024
"""Bytes."""
CLIENT = web.RequestKey("client", str)
"""The address that asks: see `client_of`."""
ACCOUNT = web.RequestKey("account", str)
PROBLEM = web.RequestKey("problem", str)
PRINCIPAL = web.RequestKey("principal", str)
_TOLD = {"account": ACCOUNT, "principal": PRINCIPAL, "problem": PROBLEM}
"""What a request's line in the log tells where it is known."""

SERVER = "acme-ca"
CONTINUE = "100-continue"
BODY_TIMEOUT = 20.0
"""Seconds for a request's body to arrive."""
PROBLEM_JSON = "application/problem+json"
NO_CONTENT, BAD_REQUEST = 204, 400

STATUS: Mapping[ErrorType, int] = {
    ErrorType.UNAUTHORIZED: 403,
    ErrorType.USER_ACTION_REQUIRED: 403,
    ErrorType.EXTERNAL_ACCOUNT_REQUIRED: 403,
    ErrorType.REJECTED_IDENTIFIER: 403,
    ErrorType.ORDER_NOT_READY: 403,
    ErrorType.CAA: 403,
    ErrorType.ALREADY_REPLACED: 409,
    ErrorType.RATE_LIMITED: 429,
    ErrorType.SERVER_INTERNAL: 500,
}
"""The HTTP status of each type of problem that is not 400."""

_COMPACT = json.JSONEncoder(separators=(",", ":"))
"""Made once: json.dumps makes an encoder at every call that has separators."""

Decorate = Callable[[web.Request, web.StreamResponse], None]


def json_response(
    body: Mapping[str, Any],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    links: Sequence[tuple[str, str]] = (),
    content_type: str = "application/json",
) -> web.Response:
    """`links`: (URL, relation), each a Link header of its own."""
    fields: CIMultiDict[str] = CIMultiDict(headers or {})
    for url, relation in links:
        fields.add("Link", f'<{url}>;rel="{relation}"')
    return web.Response(
        body=_COMPACT.encode(body).encode(), status=status, headers=fields, content_type=content_type
    )


def status_of(problem: Problem) -> int:
    """HTTP's."""
    return problem.status or STATUS.get(problem.type, 400)


def problem_response(problem: Problem) -> web.Response:
    status = status_of(problem)
    body = {**problem.document(), "status": status}
    return json_response(body, status=status, headers=problem.headers, content_type=PROBLEM_JSON)


async def meet_expectation(request: web.Request) -> None:
    """aiohttp's hook before a handler: ask for the body that waits. Another expectation is refused by the edge."""
    if request.headers.get("Expect", "").lower() == CONTINUE:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def read_body(request: web.Request, *, most: int = MAX_BODY) -> bytes:
    """The request's body, `most` bytes of it. Raises Problem when it does not arrive in BODY_TIMEOUT, HTTPException when
    it is too large.
    """
    if "Content-Encoding" in request.headers:
        detail = "The request's body must be sent as it is, without a Content-Encoding."
        raise malformed(detail, status=415, code=Code.MEDIA_TYPE_WRONG)
    try:
        if most != MAX_BODY:
            request = request.clone(client_max_size=most)
        if request.content.is_eof():  # all is there, as with nearly every request
            return await request.read()
        async with asyncio.timeout(BODY_TIMEOUT):
            return await request.read()
    except TimeoutError:
        detail = "The request's body did not arrive in time: send it again."
        raise malformed(detail, status=408, code=Code.BODY_INCOMPLETE) from None
    except web.RequestPayloadError:
        detail = "The request's body is broken off, or not what its header says."
        raise malformed(detail, code=Code.BODY_INCOMPLETE) from None


class ProblemProtocol(web.RequestHandler):
    """A connection on which even what is no HTTP request is answered with a problem document."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002  aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002
        message: str | None = None,  # noqa: ARG002  it may repeat what a stranger sent
    ) -> web.StreamResponse:
        detail = "This is not an HTTP/1.1 request that can be understood, or a part of it is too long."
        response = problem_response(malformed(detail, status=status, code=Code.NOT_HTTP))
        response.headers["Server"] = SERVER
        response.force_close()
        return response


def protocol_of(server: web.Server) -> Callable[[], ProblemProtocol]:
    """Makes the protocol of each connection, as the server itself would, but for what is no HTTP, and without unpacking
    bodies: `read_body` refuses those that say that they are packed.
    """
    options = {**server._kwargs, "auto_decompress": False}  # noqa: SLF001  no other way

    def make() -> ProblemProtocol:
        return ProblemProtocol(server, loop=asyncio.get_running_loop(), **options)

    return make


def client_of(request: web.Request, trusted_proxies: Sequence[Network]) -> str:
    """The address that asks, written in one way. Of what X-Forwarded-For says is believed what trusted proxies have put
    there: the last address that is none of theirs, or the farthest proxy's before something that is no address (lesson 15).
    """
    client = request.remote or ""
    if client.startswith(_MAPPED):  # a listener on "[::]" says so of whoever came by IPv4
        client = str(read_address(client) or client)
    if not trusted_proxies:
        return client
    said = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
    while said and _is_in(client, trusted_proxies):
        if (before := _address(said.pop())) is None:
            break
        client = str(before)
    return client


def _is_in(client: str, networks: Sequence[Network]) -> bool:
    address = _address(client)
    return address is not None and any(address in network for network in networks)


def _address(text: str) -> Address | None:
    """As proxies write it: with or without a port."""
    match = _FORWARDED.fullmatch(text.strip())
    return read_address((match[1] or match[2]) if match else text.strip())


_MAPPED = "::ffff:"
_FORWARDED = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d+)?|([0-9.]+):\d+", re.ASCII)


def edge(
    *,
    log: structlog.typing.FilteringBoundLogger,
    new_request_id: Callable[[], str],
    decorate: Decorate,
    trusted_proxies: Sequence[Network] = (),
) -> Middleware:
    """The one middleware. `decorate` adds what all answers of an application carry."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        request_id = new_request_id()
        client = request[CLIENT] = client_of(request, trusted_proxies)
        response = await _answer(request, handler, log, request_id)
        decorate(request, response)
        response.headers["X-Request-Id"] = request_id
        response.headers["Server"] = SERVER
        log.info(
            "request",
            request=request_id,
            client=client,
            method=request.method,
            path=request.path,
            status=response.status,
            ms=round((time.perf_counter() - started) * 1000, 2),
            **{name: request[key] for name, key in _TOLD.items() if key in request},
        )
        return response

    return answer


async def _answer(
    request: web.Request, handler: Handler, log: structlog.typing.FilteringBoundLogger, request_id: str
) -> web.StreamResponse:
    try:
        _check_expectation(request)
        return await handler(request)
    except Problem as problem:
        request[PROBLEM] = str(problem)
        return problem_response(problem)
    except web.HTTPException as refusal:
        translated = _of_http(refusal)
        request[PROBLEM] = str(translated)
        return problem_response(translated)
    except DatabaseUnavailable as error:
        log.error(  # noqa: TRY400  the cause is in the reason
            "database unavailable", request=request_id, reason=str(error)
        )
        return problem_response(_unavailable(request_id))
    except Exception:
        log.exception("request failed", request=request_id)
        return problem_response(_internal(request_id))


def _check_expectation(request: web.Request) -> None:
    if request.headers.get("Expect", CONTINUE).lower() != CONTINUE:
        raise malformed(
            'The only expectation that is met is "100-continue" (RFC 9110 §10.1.1).',
            status=417,
            code=Code.EXPECTATION_FAILED,
        )


def _of_http(refusal: web.HTTPException) -> Problem:
    """What aiohttp refuses before any endpoint sees it."""
    sentence, code = _REFUSED.get(refusal.status, ("The request cannot be understood.", None))
    problem = malformed(sentence, status=max(refusal.status, 400), code=code)
    problem.headers = {"Allow": refusal.headers["Allow"]} if "Allow" in refusal.headers else {}
    return problem


_REFUSED: Mapping[int, tuple[str, Code]] = {
    404: (
        "There is nothing at this URL: ACME's directory lists what there is, and /api/docs the admin API.",
        Code.URL_UNKNOWN,
    ),
    405: (
        (
            "This URL does not take this method: the header Allow says which. "
            "Most ACME resources take signed POST requests only (RFC 8555 §6.3)."
        ),
        Code.METHOD_NOT_ALLOWED,
    ),
    413: (f"The request's body is larger than {MAX_BODY} bytes.", Code.BODY_TOO_LARGE),
}


def _unavailable(request_id: str) -> Problem:
    detail = f"The server cannot reach its database: try again shortly. Its operator finds more in the log under request {request_id}."
    return Problem(ErrorType.SERVER_INTERNAL, detail, status=503, headers={"Retry-After": "5"})


def _internal(request_id: str) -> Problem:
    detail = (
        f"Something went wrong in the server. Its operator finds more in the log under request {request_id}."
    )
    return Problem(ErrorType.SERVER_INTERNAL, detail)
