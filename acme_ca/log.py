"""Log lines: JSON for machines, readable in a terminal; no secrets, and no line that a stranger can forge.

Lines go to standard error, each in one write, so that several processes can share it. Bind ids with
`structlog.contextvars.bind_contextvars`, or pass them with the event.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TextIO

import structlog
from pydantic import BaseModel, SecretBytes, SecretStr
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

Logger = FilteringBoundLogger
"""What `get` gives: `log.info("order ready", order=…)`."""

REDACTED = "[redacted]"
_SECRET_NAMES = frozenset(
    {
        "authorization",
        "cookie",
        "credentials",
        "dsn",
        "hmac",
        "jws",
        "key",
        "pin",
        "secret",
        "set_cookie",
        "token",
    }
)
_SECRET_ENDINGS = ("password", "passphrase", "_secret", "_token", "hmac_key", "private_key", "database_url")
_SECRET_TEXT = re.compile(
    r"(?<=://)[^/\s@]+(?=@)"  # user and password of a URL
    r"|(?<=/acme/unpause/)[\w-]+"  # whoever has the link may lift a pause
    r"|(?<=-----)BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY|\Z)"
    r"|(?i:(?<=bearer )\S+|(?<=password=)\S+|(?<=password': )\S+)",
    re.DOTALL,
)
# C0 and C1 controls, line and paragraph separators, and the marks that turn the direction of writing.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def configure(*, as_json: bool | None = None, stream: TextIO | None = None) -> None:
    """Send all log lines, also those of libraries, to `stream` (standard error).

    `as_json` None: JSON unless `stream` is a terminal. Call it once, before the first line.
    """
    stream = stream or sys.stderr
    as_json = not stream.isatty() if as_json is None else as_json
    render: list[Processor] = (
        [_bytes_of_json] if as_json else [_escape_controls, _console(colors=stream.isatty()), _encode]
    )
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *_shared(), *render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.BytesLoggerFactory(file=stream.buffer),
        cache_logger_on_first_use=True,
    )
    _adopt_library_loggers(stream, render)


def get(**bound: Any) -> Logger:
    """A logger; `bound` goes into each of its lines."""
    logger: Logger = structlog.get_logger(**bound)
    return logger


def quiet() -> Logger:
    """For a command that serves itself: what went wrong, and nothing of what is usual."""
    logger: Logger = structlog.wrap_logger(
        structlog.BytesLogger(sys.stderr.buffer),
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
    )
    return logger


def _shared() -> list[Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        redact,
    ]


def _adopt_library_loggers(stream: TextIO, render: list[Processor]) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_shared(),
                *render,
                _decode,
            ],
        )
    )
    handler.addFilter(_clean_arguments)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def _clean_arguments(record: logging.LogRecord) -> bool:
    """Filter that passes every line: secrets are found by their names only before they are part of a text."""
    if isinstance(record.args, Mapping):
        record.args = _cleaned(record.args)
    elif record.args:
        record.args = tuple(
            _cleaned(value) if isinstance(value, _CONTAINERS) else value for value in record.args
        )
    return True


# ---------------------------------------------------------------- secrets


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Processor: no value that is secret by its name, type or form leaves the process."""
    for name, value in event.items():
        if _is_secret_name(name):
            event[name] = REDACTED
        elif value.__class__ is str:
            # Spelled out: this is asked of every text of every line.
            if (
                "://" in value
                or "assword" in value
                or "ASSWORD" in value
                or "PRIVATE KEY" in value
                or "earer " in value
                or "/unpause/" in value
            ):
                event[name] = _SECRET_TEXT.sub(REDACTED, value)
        elif value.__class__ not in _PLAIN:
            event[name] = _cleaned(value)
    return event


_PLAIN = frozenset({int, float, bool, type(None)})
_CONTAINERS = (Mapping, list, tuple, set, frozenset, bytes, bytearray, BaseModel)


@lru_cache(maxsize=1024)
def _is_secret_name(name: str) -> bool:
    plain = name.lower().replace("-", "_")
    return plain in _SECRET_NAMES or plain.endswith(_SECRET_ENDINGS)


def _cleaned(value: Any) -> Any:  # noqa: PLR0911  one line for each kind of value
    """`value` as what JSON can hold, without its secrets."""
    if value.__class__ in _PLAIN:
        return value
    if isinstance(value, SecretStr | SecretBytes):
        return REDACTED
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    if isinstance(value, BaseModel):
        return _cleaned(dict(value))
    if isinstance(value, Mapping):
        return {
            str(name): REDACTED if _is_secret_name(str(name)) else _cleaned(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(item) for item in value]
    return _SECRET_TEXT.sub(REDACTED, str(value))


# ---------------------------------------------------------------- rendering

_json = json.JSONEncoder(separators=(",", ":"), default=str, check_circular=False).encode


def _bytes_of_json(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    return _json(event).encode()


def _console(*, colors: bool) -> Processor:
    return structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="time", pad_event_to=0, sort_keys=False)


def _escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # A trace keeps its lines, but indented: none of them can pass for a line of the log.
    trace = event.pop("exception", None)
    shown = {_escaped(name): _escaped(value) for name, value in event.items()}
    if trace is not None:
        shown["exception"] = "\n".join("    " + _escaped(line) for line in str(trace).split("\n"))
    return shown


def _escaped(value: Any) -> Any:
    if value.__class__ in _PLAIN:
        return value
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], str(value))


def _encode(_logger: WrappedLogger, _method: str, line: Any) -> bytes:
    return str(line).encode(errors="backslashreplace")


def _decode(_logger: WrappedLogger, _method: str, line: Any) -> str:
    return bytes(line).decode()
