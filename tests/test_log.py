"""Lesson 15: one redaction test over all logs; and nobody forges a line."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import structlog
from pydantic import BaseModel, SecretStr

from acme_ca import log

SECRET = "hunter2-s3cr3t"


class Lines:
    """A stream that log lines go to."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self.stream = io.TextIOWrapper(self._bytes, encoding="utf-8", write_through=True)

    def text(self) -> str:
        return self._bytes.getvalue().decode()

    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def machine() -> Iterator[Lines]:
    lines = Lines()
    log.configure(as_json=True, stream=lines.stream)
    yield lines
    _forget()


@pytest.fixture
def person() -> Iterator[Lines]:
    lines = Lines()
    log.configure(as_json=False, stream=lines.stream)
    yield lines
    _forget()


def _forget() -> None:
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.basicConfig(force=True, handlers=[])


def fail(message: str) -> None:
    raise ValueError(message)


class Credentials(BaseModel):
    user: str
    password: SecretStr


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"password": SECRET}, id="a password by its name"),
        pytest.param({"ca_password": SECRET}, id="a name that ends in password"),
        pytest.param({"hmac_key": SECRET}, id="an EAB key"),
        pytest.param({"token": SECRET}, id="a token"),
        pytest.param({"key": SECRET}, id="a key"),
        pytest.param({"private_key": SECRET.encode()}, id="a private key in bytes"),
        pytest.param({"value": SECRET.encode()}, id="bytes of any name"),
        pytest.param({"Authorization": SECRET}, id="a header, in its own spelling"),
        pytest.param({"Set-Cookie": SECRET}, id="a cookie"),
        pytest.param({"database_url": f"postgresql://u:{SECRET}@db/x"}, id="the database URL"),
        pytest.param({"reason": f"cannot reach postgresql://u:{SECRET}@db/x now"}, id="a URL within a text"),
        pytest.param({"header": f"Bearer {SECRET}"}, id="a bearer token within a text"),
        pytest.param({"reason": f"host=db password={SECRET} user=x"}, id="a password within a text"),
        pytest.param({"setting": SecretStr(SECRET)}, id="a SecretStr"),
        pytest.param({"request": {"headers": [{"authorization": SECRET}]}}, id="nested"),
        pytest.param({"given": Credentials(user="u", password=SecretStr(SECRET))}, id="a model"),
        pytest.param({"pair": ("a", SecretStr(SECRET))}, id="within a tuple"),
        pytest.param(
            {"pem": f"-----BEGIN EC PRIVATE KEY-----\n{SECRET}\n-----END EC PRIVATE KEY-----"}, id="PEM"
        ),
        pytest.param({"pem": f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n--cut"}, id="PEM that is cut off"),
    ],
)
def test_no_secret_reaches_the_log(machine, fields):
    log.get(**fields).info("something happened", **fields)
    structlog.contextvars.bind_contextvars(**fields)
    log.get().info("something happened")
    logging.getLogger("library").error("something happened: %s", fields)
    assert SECRET not in machine.text()
    assert len(machine.events()) == 3


def test_the_message_of_an_exception_is_redacted_too(machine):
    try:
        fail(f"cannot connect to postgresql://acme:{SECRET}@db/x")
    except ValueError:
        log.get().exception("request failed")
    (event,) = machine.events()
    assert SECRET not in machine.text()
    assert "ValueError: cannot connect to postgresql://" in event["exception"]


def test_a_trace_shows_no_local_variables(person):
    def connect(password):
        fail("no")

    try:
        connect(SECRET.upper())
    except ValueError:
        log.get().exception("request failed")
    assert "ValueError: no" in person.text()
    assert SECRET.upper() not in person.text()


def test_what_is_no_secret_stays(machine):
    now = datetime(2025, 1, 2, tzinfo=UTC)
    log.get(worker=3).info(
        "request", eab_key_id="abc", path="/acme/order/1", at=now, ms=1.5, missing=None, tags=["x", 1]
    )
    (event,) = machine.events()
    assert event.pop("time").endswith("Z")
    assert event == {
        "worker": 3,
        "event": "request",
        "level": "info",
        "eab_key_id": "abc",
        "path": "/acme/order/1",
        "at": str(now),
        "ms": 1.5,
        "missing": None,
        "tags": ["x", 1],
    }


def test_debug_lines_are_left_out(machine):
    log.get().debug("noise")
    assert machine.text() == ""


def test_lines_of_libraries_are_json_too(machine):
    logging.getLogger("asyncio").error("task %s failed", "t1")
    (event,) = machine.events()
    assert (event["logger"], event["event"], event["level"]) == ("asyncio", "task t1 failed", "error")


FORGED = "x\n2025-01-01T00:00:00Z [error] forged\r\x1b[2J\x85\u2028\u202e\x00"


@pytest.mark.parametrize("as_json", [True, False])
def test_a_stranger_forges_no_line(as_json):
    lines = Lines()
    log.configure(as_json=as_json, stream=lines.stream)
    try:
        log.get().info(FORGED, path=FORGED, nested={"a": [FORGED]})
        logging.getLogger("library").error(FORGED)
    finally:
        _forget()
    text = lines.text()
    assert text.count("\n") == 2
    assert text.endswith("\n")
    assert not set(text) & set("\r\x1b\x85\u2028\u202e\x00")


def test_the_lines_of_a_trace_are_indented(person):
    try:
        fail(FORGED)
    except ValueError:
        log.get().exception("request failed")
    first, *trace = person.text().splitlines()
    assert "request failed" in first
    assert any("forged" in line for line in trace)
    assert all(line.startswith("    ") or not line for line in trace)


def test_lone_surrogates_are_written_somehow(person):
    log.get().info("request", path="/\udcff")
    assert "request" in person.text()
