"""Handing events on: in their order, at least once, never in the way of an act. Real sockets on loopback."""

import asyncio
import contextlib
import json
import re
import socket
import ssl
from datetime import timedelta
from ipaddress import ip_address, ip_network
from itertools import pairwise

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.audit import forwarding
from acme_ca.audit.forwarding import Forwarding, Syslog, Webhook, signature_of, syslog_message
from acme_ca.config import ConfigurationError, load
from acme_ca.core.actors import SERVER
from acme_ca.storage import operations
from acme_ca.storage.seals import AuditEvent
from acme_ca.validation.network import AddressRules
from acme_ca.validation.resolver import Zones
from tests.audit.test_sealing import trail
from tests.support import tls
from tests.support.issuing import NOW
from tests.support.pki import Holder

__all__ = ["trail"]

SECRET = b"0123456789abcdef"
REFUSED = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n"
EVENT = AuditEvent(
    id=7, at=NOW, event="thing.done", actor="operator:alice", source="", object="thing:1", detail='{"a": "ä"}'
)


class Receiver:
    """An HTTP server that takes events, or does not. `answers`: heads of the next answers; then 204, or 413 for more than
    `limit` bytes, which are not among its requests.
    """

    def __init__(self) -> None:
        self.limit = 2**62
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[bytes] = []
        self.asked: list[str] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, tls=None):
        receiver = cls()
        server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls)
        async with server:
            receiver.port = server.sockets[0].getsockname()[1]
            yield receiver

    async def serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *rest = head.strip().split("\r\n")
        self.asked.append(line)
        headers = dict(one.split(": ", 1) for one in rest)
        lengths = {name.lower(): value for name, value in headers.items()}
        body = await reader.readexactly(int(lengths["content-length"]))
        answer = self.answers.pop(0) if self.answers else b"HTTP/1.1 204 No Content\r\n\r\n"
        if len(body) > self.limit:
            answer = REFUSED
        else:
            self.requests.append((lengths, body))
        writer.write(answer)
        writer.close()

    @property
    def ids(self):
        return [json.loads(line)["id"] for _, body in self.requests for line in body.splitlines()]


def webhook(port, *, allow=("127.0.0.0/8",), host="127.0.0.1", roots=None, clock=lambda: NOW):
    """`roots`: over https, and those are the CA's own."""
    return Webhook(
        url=f"{'http' if roots is None else 'https'}://{host}:{port}/in?from=ca",
        secret=SECRET,
        rules=AddressRules(allow=tuple(map(ip_network, allow)), setting="audit.webhook_allow_networks"),
        zones=Zones(()),
        tls=lambda: forwarding.trusting(roots),
        clock=clock,
        dev=False,
    )


class Log(structlog.testing.CapturingLogger):
    @property
    def text(self):
        return " ".join(str(call) for call in self.calls)


def forward(trail, target, log=None):
    return Forwarding(
        target,
        database=trail.database,
        clock=trail.clock,
        log=structlog.wrap_logger(log or Log(), processors=[]),
    )


async def all_ids(trail):
    rows = await trail.database.fetch("SELECT id FROM audit_event ORDER BY id")
    return [row["id"] for row in rows]


# ---------------------------------------------------------------- the webhook


async def test_events_arrive_once_in_their_order_and_signed(trail, monkeypatch):
    monkeypatch.setattr(forwarding, "BATCH", 4)
    await trail.act(9)
    async with Receiver.running() as receiver:
        room = forward(trail, webhook(receiver.port))
        sent = await room.forward()
        assert receiver.ids == await all_ids(trail)
        assert sent == len(receiver.ids)
        assert await room.forward() == 0
        await trail.act(1)
        assert await room.forward() == 1
        assert receiver.ids == await all_ids(trail)
        another = forward(trail, webhook(receiver.port))
        assert await another.forward() == 0, "how far it came is in the database"
    headers, body = receiver.requests[0]
    assert receiver.asked[0] == "POST /in?from=ca HTTP/1.1"
    assert headers["content-type"] == "application/jsonl"
    timestamp = headers["acme-ca-signature"].removeprefix("t=").partition(",")[0]
    assert headers["acme-ca-signature"] == signature_of(SECRET, timestamp, body)
    assert signature_of(b"x" * 16, timestamp, body) != headers["acme-ca-signature"]


FAILURES = {
    "an error": b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
    "no HTTP": b"hello\r\n\r\n",
    "nothing": b"",
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
}


@pytest.mark.parametrize("answer", FAILURES.values(), ids=FAILURES)
async def test_what_was_not_taken_is_sent_again_after_a_while(trail, answer):
    await trail.act(3)
    async with Receiver.running() as receiver:
        receiver.answers = [answer] * 2
        log = Log()
        room = forward(trail, webhook(receiver.port), log)
        assert await room.forward() == 0
        assert "audit events are not handed on" in log.text
        assert await room.forward() == 0
        assert len(receiver.asked) == 1, "it is left alone for a while"
        trail.clock.now += timedelta(seconds=6)
        assert await room.forward() == 0
        trail.clock.now += timedelta(seconds=6)
        assert await room.forward() == 0, "which doubles"
        assert len(receiver.asked) == 2
        trail.clock.now += timedelta(seconds=6)
        del receiver.requests[:]
        assert await room.forward() == len(await all_ids(trail))
        assert receiver.ids == await all_ids(trail)


async def test_the_pause_has_an_end(trail):
    await trail.act(1)
    log = Log()
    room = forward(trail, webhook(1), log)
    for _ in range(12):
        await room.forward()
        trail.clock.now += forwarding.LONGEST_PAUSE
    assert len(log.calls) == 12


async def patiently(trail, room, rounds):
    """What was handed on, all pauses waited for."""
    sent = 0
    for _ in range(rounds):
        sent += await room.forward()
        trail.clock.now += forwarding.LONGEST_PAUSE
    return sent


async def test_a_receiver_that_takes_only_so_much_at_once_gets_all(trail):
    """A batch that was too large was sent again and again, and the trail stood still (nginx takes 1 MiB)."""
    await trail.act(300, object_="x" * 5000)
    log = Log()
    async with Receiver.running() as receiver:
        receiver.limit = 1024 * 1024
        room = forward(trail, webhook(receiver.port), log)
        sent = await patiently(trail, room, 8)
        assert receiver.ids == await all_ids(trail)
        assert sent == len(receiver.ids)
    first, *_ = log.calls
    assert first.kwargs["events"] == sent, "all that there was"
    assert re.fullmatch(r"it answered 413 to 1[0-9]{6} bytes", first.kwargs["reason"])
    assert len(log.calls) < 4


async def test_a_receiver_that_takes_one_at_once_gets_all(trail):
    await trail.act(40, object_="x" * 5000)
    async with Receiver.running() as receiver:
        receiver.limit = 6000
        await patiently(trail, forward(trail, webhook(receiver.port)), 80)
        assert receiver.ids == await all_ids(trail)


async def test_what_is_too_large_alone_waits_and_is_named(trail):
    """Nothing is passed over."""
    await trail.act(1, object_="x" * 50_000)
    before = (await all_ids(trail))[:-1]
    log = Log()
    async with Receiver.running() as receiver:
        receiver.limit = 10_000
        room = forward(trail, webhook(receiver.port), log)
        await patiently(trail, room, 12)
        assert receiver.ids == before
        assert log.calls[-1].kwargs["events"] == 1
        receiver.limit = 100_000
        assert await patiently(trail, room, 1) == 1
    assert re.fullmatch(r"it answered 413 to 50[0-9]{3} bytes", log.calls[-1].kwargs["reason"])


async def test_after_a_failure_batches_grow_again(trail, monkeypatch):
    monkeypatch.setattr(forwarding, "BATCH", 20)
    await trail.act(200)
    async with Receiver.running() as receiver:
        receiver.answers = [FAILURES["an error"]] * 8
        await patiently(trail, forward(trail, webhook(receiver.port)), 9)
        sizes = [body.count(b"\n") for _, body in receiver.requests]
    assert sizes[:8] == [20, 10, 5, 2, 1, 1, 1, 1]
    assert sizes[8:14] == [1, 2, 3, 4, 5, 6]
    assert max(sizes[8:]) == 20
    assert sizes[8:-1] == sorted(sizes[8:-1])


async def test_lesson_15_a_webhook_is_no_way_inside(trail):
    """Lesson 15: neither loopback nor a metadata service, by name or by number, unless the operator listed the network."""
    await trail.act(1)
    async with Receiver.running() as receiver:
        for host, allow in (
            ("127.0.0.1", ()),
            ("[::1]", ()),
            ("169.254.169.254", ("169.254.0.0/16",)),
            ("localhost", ()),
        ):
            log = Log()
            room = forward(trail, webhook(receiver.port, host=host, allow=allow), log)
            assert await room.forward() == 0
            assert "does not dial" in log.text
            if host == "127.0.0.1":
                assert "audit.webhook_allow_networks" in log.text
        assert receiver.asked == []


# ---------------------------------------------------------------- the webhook, over TLS


def server_tls(place, chain):
    """Of a server that shows `chain`: its own certificate first."""
    leaf = chain[0]
    (place / "server.pem").write_bytes(
        tls.pem_of(leaf.key) + b"".join(one.certificate.public_bytes(Encoding.PEM) for one in chain)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "server.pem")
    return context


def receiver_of(ca, *, name="127.0.0.1"):
    """What a TLS server of this CA shows, with its intermediate."""
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(name))])
    intermediate = ca.intermediate("Issuing")
    return [intermediate.issue("receiver", (names, False)), intermediate]


async def test_a_receiver_with_a_certificate_of_the_ca_itself_is_believed(trail, tmp_path):
    await trail.act(2)
    ours = Holder.root("Ours")
    async with Receiver.running(server_tls(tmp_path, receiver_of(ours))) as receiver:
        sent = await forward(trail, webhook(receiver.port, roots=[ours.certificate])).forward()
        assert receiver.ids == await all_ids(trail)
        assert sent == len(receiver.ids)
        (headers, body), *_ = receiver.requests
        timestamp = headers["acme-ca-signature"].removeprefix("t=").partition(",")[0]
        assert headers["acme-ca-signature"] == signature_of(SECRET, timestamp, body)


async def test_many_events_go_through_tls(trail, tmp_path):
    """More than a TLS record, than a socket's buffer."""
    await trail.act(300, object_="x" * 4000)
    ours = Holder.root("Ours")
    async with Receiver.running(server_tls(tmp_path, receiver_of(ours))) as receiver:
        await forward(trail, webhook(receiver.port, roots=[ours.certificate])).forward()
        assert receiver.ids == await all_ids(trail)


IMPOSTORS = {
    "of a CA that nobody knows": lambda _: receiver_of(Holder.root("Ours")),
    "for another name": lambda ours: receiver_of(ours, name="127.0.0.2"),
    "without its intermediate": lambda ours: receiver_of(ours)[:1],
}


@pytest.mark.parametrize("impostor", IMPOSTORS.values(), ids=IMPOSTORS)
async def test_a_receiver_that_cannot_prove_who_it_is_gets_nothing(trail, tmp_path, impostor):
    await trail.act(1)
    ours = Holder.root("Ours")
    log = Log()
    async with Receiver.running(server_tls(tmp_path, impostor(ours))) as receiver:
        room = forward(trail, webhook(receiver.port, roots=[ours.certificate]), log)
        assert await room.forward() == 0
        assert receiver.asked == [], "not even the head of the request"
    assert "certificate verify failed" in log.text


async def test_a_receiver_without_tls_gets_nothing_over_https(trail, monkeypatch):
    monkeypatch.setattr(forwarding, "TIMEOUT", 1.0)  # it waits for a greeting that does not come
    await trail.act(1)
    log = Log()
    async with Receiver.running() as receiver:
        assert await forward(trail, webhook(receiver.port, roots=[]), log).forward() == 0
        assert receiver.requests == []
    assert "audit events are not handed on" in log.text


async def test_an_event_that_is_not_committed_yet_is_waited_for(trail):
    async with Receiver.running() as receiver:
        room = forward(trail, webhook(receiver.port))
        await trail.act(1)
        async with trail.database.transaction() as connection:
            await operations.record_event(
                connection, at=NOW, event="slow", actor=SERVER, object_="s", detail={}
            )
            await trail.act(2)
            assert await room.forward() == 0
        await room.forward()
        assert receiver.ids == await all_ids(trail)
        assert all(one < next_ for one, next_ in pairwise(receiver.ids))


# ---------------------------------------------------------------- syslog


def test_a_message_of_rfc_5424():
    message = syslog_message(EVENT, host="ca1").decode()
    head, _, line = message.partition(" - thing.done - ")
    assert re.fullmatch(r"<109>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z ca1 acme-ca", head)
    assert json.loads(line)["detail"] == {"a": "ä"}
    assert json.loads(line)["actor"] == "operator:alice"


@pytest.mark.parametrize("event", ["a b\n<1>", "", "ä", "x" * 100])
def test_no_event_breaks_a_message(event):
    odd = AuditEvent(id=1, at=None, event=event, actor="x", source="", object="x", detail='{"a":\n1}')
    message = syslog_message(odd, host="").decode()
    assert "\n" not in message
    assert re.match(r"<109>1 - - acme-ca - [!-~]{1,32} - \{", message)


async def test_syslog_over_udp_and_a_unix_socket(trail, tmp_path):
    await trail.act(3)
    for family, name in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, str(tmp_path / "log"))):
        with socket.socket(family, socket.SOCK_DGRAM) as receiver:
            receiver.bind(name)
            receiver.settimeout(60)
            url = (
                f"unix:{name}" if family == socket.AF_UNIX else f"udp://127.0.0.1:{receiver.getsockname()[1]}"
            )
            await trail.database.execute("DELETE FROM audit_forward")
            ids = await all_ids(trail)
            sent, got = await asyncio.gather(
                forward(trail, Syslog(url, host="ca1")).forward(),
                asyncio.to_thread(lambda: [receiver.recv(65536).decode() for _ in ids]),  # noqa: B023
            )
        assert sent == len(ids)
        assert [json.loads(one[one.index("{") :])["id"] for one in got] == ids


async def test_syslog_over_tcp_counts_octets(trail):
    await trail.act(3)
    taken: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        taken.set_result(await reader.read())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        sent = await forward(trail, Syslog(f"tcp://127.0.0.1:{port}", host="ca1")).forward()
        rest = await taken
    ids = []
    while rest:
        length, _, rest = rest.partition(b" ")
        message, rest = rest[: int(length)], rest[int(length) :]
        ids.append(json.loads(message[message.index(b"{") :])["id"])
    assert ids == await all_ids(trail)
    assert len(ids) == sent


async def test_a_syslog_that_is_not_there_is_waited_for(trail, tmp_path, free_port):
    await trail.act(1)
    for url in (f"unix:{tmp_path}/nobody", f"tcp://127.0.0.1:{free_port}"):
        log = Log()
        assert await forward(trail, Syslog(url, host="ca1"), log).forward() == 0
        assert "audit events are not handed on" in log.text


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("syslog", "file:///etc/passwd"),
        ("syslog", "udp://host"),
        ("syslog", "unix:relative"),
        ("webhook_url", "ftp://host/"),
        ("webhook_url", "https://"),
        ("webhook_url", "https://user:word@host/"),
        ("webhook_url", "https://host:99999/"),
        ("webhook_url", "https://host/a b"),
        ("webhook_secret", "short"),
    ],
)
def test_a_setting_that_makes_no_sense_stops_the_start(setting, value):
    with pytest.raises(ConfigurationError, match=f"ACME_CA_AUDIT__{setting.upper()}") as refused:
        load(audit={setting: value})
    assert setting != "webhook_secret" or value not in str(refused.value)
