"""What is no HTTP at all, and bodies that never come: problem documents too (lesson 24)."""

import asyncio
import json

import pytest
from aiohttp import web

from acme_ca import http


@pytest.fixture
async def address():
    """A server that reads bodies, on the protocol that the workers use."""

    async def echo(request: web.Request) -> web.Response:
        try:
            return web.Response(body=await http.read_body(request))
        except http.Problem as problem:
            return http.problem_response(problem)

    application = web.Application()
    application.router.add_post("/", echo)
    runner = web.AppRunner(application)
    await runner.setup()
    server = await asyncio.get_running_loop().create_server(
        http.protocol_of(runner.server), host="127.0.0.1", port=0
    )
    yield server.sockets[0].getsockname()
    server.close()
    await runner.cleanup()


async def answer(address, sent):
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(sent)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        fields = dict(line.split(": ", 1) for line in head.decode().splitlines()[1:] if line)
        return head.split()[1], fields, json.loads(await reader.readexactly(int(fields["Content-Length"])))
    finally:
        writer.close()


NOT_HTTP = {
    "a word": b"GARBAGE\r\n\r\n",
    "a TLS hello on the plain port": b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03\r\n\r\n",
    "a future version": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "a header of 20 kB": b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    "a target of 20 kB": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a negative length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "length and chunks": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("sent", NOT_HTTP.values(), ids=NOT_HTTP)
async def test_what_is_no_http_is_answered_with_a_problem_document(address, sent):
    status, fields, body = await answer(address, sent)
    assert status == b"400"
    assert fields["Content-Type"] == http.PROBLEM_JSON
    assert fields["Server"] == "acme-ca"
    assert (body["type"], body["code"]) == ("urn:ietf:params:acme:error:malformed", "not-http")
    assert "aaaa" not in body["detail"], "nothing is echoed"


async def test_a_body_that_does_not_come_is_waited_for_a_bounded_time(address, monkeypatch):
    monkeypatch.setattr(http, "BODY_TIMEOUT", 0.2)
    half = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf"
    status, _, body = await answer(address, half)
    assert status == b"408"
    assert (body["status"], body["code"]) == (408, "body-incomplete")


async def test_a_coded_body_is_not_even_decoded(address, caplog):
    """A stranger's garbage left a stack trace in the log, and what unpacks to much would have been unpacked."""
    body = b"this is no gzip"
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    status, _, problem = await answer(address, head.encode() + body)
    assert (status, problem["status"], problem["code"]) == (b"415", 415, "media-type-wrong")
    await asyncio.sleep(0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
