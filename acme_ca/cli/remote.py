"""How commands reach the admin API: over HTTPS with a token, through the Unix socket of the server on this machine, or, when
none runs, served by the command itself on its database.

A command is a function whose first parameter is an `Api`; `command` adds the options by which that is found.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
import os
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import quote, urlsplit

import aiohttp
import typer
from rich.table import Table

from acme_ca.cli.options import ConfigOption, DataOption, console, load_settings
from acme_ca.config import ConfigurationError, Settings
from acme_ca.server import adminsocket

SERVER = "ACME_CA_SERVER"
TOKEN = "ACME_CA_TOKEN"  # noqa: S105  the name of a variable
PREFIX = "/api/v1"
LOCAL = "http://localhost"
_JSON = {"application/json", "application/problem+json"}
TIMEOUT = 120.0
"""Seconds for an answer."""
REFUSED = 1
"""Exit status when the server refused the act; 2 when it could not even be asked."""
WAITING = 3
"""Exit status when a second person has to approve the act."""

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        envvar=SERVER,
        help="The server, as in https://ca.example:8443; without it the one on this machine.",
    ),
]
TokenOption = Annotated[
    str | None, typer.Option("--token", envvar=TOKEN, help="A token of the API (acme-ca token create).")
]
CaOption = Annotated[
    Path | None,
    typer.Option("--ca", metavar="FILE", help="The root to trust for --server (PEM); else the system's."),
]
NoVerifyOption = Annotated[
    bool, typer.Option("--no-verify-ssl", help="Trust any certificate of --server. For tests only.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_OPTIONS: Mapping[str, tuple[Any, Any]] = {
    "as_json": (JsonFlag, False),
    "api_server": (ServerOption, None),
    "api_token": (TokenOption, None),
    "api_root": (CaOption, None),
    "no_verify_ssl": (NoVerifyOption, False),
    "config_file": (ConfigOption, None),
    "data": (DataOption, None),
}
OPTION_NAMES = ("--json", "--server", "--token", "--ca", "--no-verify-ssl", "--config", "--data")
"""As the docs tell them."""


class Refused(Exception):  # noqa: N818  what the server did
    """The server's problem document."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(problem.get("detail", "The server refused this."))
        self.problem = problem


class Waiting(Exception):  # noqa: N818  what the act does
    """The act is dangerous: a second person must approve it."""

    def __init__(self, approval: Mapping[str, Any]) -> None:
        super().__init__("It waits for a second person.")
        self.approval = approval


class Api:
    """The admin API as commands use it: paths below /api/v1, JSON both ways. Raises Refused, ConfigurationError."""

    def __init__(
        self, runner: asyncio.Runner, session: aiohttp.ClientSession, base: str, *, as_json: bool
    ) -> None:
        self._runner = runner
        self._session = session
        self._base = base
        self.as_json = as_json

    def get(self, path: str, **query: Any) -> Any:
        return self._ask("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Any:
        return self._ask("POST", path, body=body, query=query)

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._ask("PUT", path, body=body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._ask("PATCH", path, body=body)

    def delete(self, path: str, **query: Any) -> Any:
        return self._ask("DELETE", path, query=query)

    def pages(self, path: str, *, most: int | None = None, **query: Any) -> Iterator[Any]:
        """The items of a list, page by page; `most` of them."""
        cursor, left = None, most
        while left is None or left > 0:
            limit = 1000 if left is None else min(left, 1000)
            page = self.get(path, limit=limit, cursor=cursor, **query)
            yield from page["items"]
            left = None if left is None else left - len(page["items"])
            if page["next"] is None:
                return
            if page["next"] == cursor:
                raise self.goes_round(path)
            cursor = page["next"]

    def goes_round(self, path: str) -> ConfigurationError:
        """For who is given the same page again and again."""
        return ConfigurationError(f"The server at {self._base} cannot be asked: {path} comes to no end.")

    def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Any:
        return self._runner.run(self._answer(method, path, body, _given(query or {})))

    async def _answer(
        self, method: str, path: str, body: Mapping[str, Any] | None, query: list[tuple[str, str]]
    ) -> Any:
        try:
            async with self._session.request(
                method, self._base + PREFIX + path, json=body, params=query
            ) as answer:
                content = await answer.read()
                if answer.status == HTTPStatus.NO_CONTENT:
                    return None
                if answer.content_type not in _JSON:
                    _check_is_ours(answer)
                    return content
                document = json.loads(content)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ConfigurationError(f"The server at {self._base} cannot be asked: {_why(error)}.") from None
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise Refused(document)
        if answer.status == HTTPStatus.ACCEPTED:
            raise Waiting(document)
        return document


def _why(error: Exception) -> str:
    """For somebody who has to put it right."""
    match error:
        case aiohttp.ClientConnectorCertificateError(
            certificate_error=ssl.SSLCertVerificationError() as wrong
        ):
            return f"its certificate is not good ({wrong.verify_message.rstrip('.')}); --ca names the root to trust"
        case aiohttp.ClientConnectorDNSError():
            return "nobody knows its name"
        case aiohttp.ClientConnectorSSLError():
            return "it does not speak TLS there"
        case aiohttp.ClientConnectorError(os_error=OSError(errno=int() as number)):
            return f"{os.strerror(number).lower()} (does it run, and listen there?)"
        case TimeoutError():
            return f"it did not answer within {TIMEOUT:.0f} seconds"
    return str(error) or type(error).__name__


def _check_is_ours(answer: aiohttp.ClientResponse) -> None:
    from acme_ca import http  # noqa: PLC0415  what a server needs is loaded where a command needs it, too

    if answer.status >= HTTPStatus.BAD_REQUEST or answer.headers.get("Server") != http.SERVER:
        raise ValueError(f"it answered {answer.status} and is no acme-ca")


def _given(query: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Without what is None; lists become several."""
    return [
        (name, str(one).lower() if isinstance(one, bool) else str(one))
        for name, value in query.items()
        for one in (value if isinstance(value, (list, tuple)) else [value])
        if one is not None
    ]


def part(text: str) -> str:
    """One segment of a path."""
    return quote(text, safe="")


def whole_issuer_id(api: Api, text: str | None) -> str | None:
    """The id of an issuer, of which people have the first digits: `ca list` shows no more. Raises Refused."""
    if text is None or len(text) >= len("0" * 32):
        return text
    found: str = api.get(f"/issuers/{part(text)}")["id"]
    return found


# ---------------------------------------------------------------- commands


def command(
    app: typer.Typer,
    name: str,
    *,
    keys: bool = False,
    without_database: Callable[[Settings, bool], None] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function `(api, …)`: options for the way to the server and for JSON are added.

    `keys`: it needs keys of the CA, so their password must be known when no server runs. `without_database`: what it does on
    a machine before there is one, with the settings and whether JSON is wanted.
    """

    def add(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(**arguments: Any) -> None:
            way = {option: arguments.pop(option) for option in _OPTIONS}
            if without_database is not None and not _has_database(way):
                without_database(load_settings(way["config_file"], data=way["data"]), way["as_json"])
                return
            try:
                with reached(**way, keys=keys) as api:
                    function(api, **arguments)
            except Waiting as waiting:
                _say_waiting(waiting, as_json=way["as_json"])
            except Refused as refused:
                _say_refused(refused, as_json=way["as_json"])

        signature = inspect.signature(function, eval_str=True)
        _, *own = signature.parameters.values()
        added = [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for option, (annotation, default) in _OPTIONS.items()
        ]
        run.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in (*own, *added)} | {"return": None}
        app.command(name)(run)
        return function

    return add


def _has_database(way: Mapping[str, Any]) -> bool:
    from acme_ca.server import database  # noqa: PLC0415  as above

    return way["api_server"] is not None or database.is_there(
        load_settings(way["config_file"], data=way["data"])
    )


def _say_waiting(waiting: Waiting, *, as_json: bool) -> NoReturn:
    if as_json:
        show_json(waiting.approval)
    else:
        console().print(
            f"Not done yet: a second person must approve it before {minute(waiting.approval['expires'])} UTC: "
            f"acme-ca approval approve {waiting.approval['id']}"
        )
    raise SystemExit(WAITING)


def _say_refused(refused: Refused, *, as_json: bool) -> NoReturn:
    if as_json:
        typer.echo(json.dumps(refused.problem, indent=2))
    else:
        sys.stderr.write(f"acme-ca: {refused}\n")
        for error in refused.problem.get("errors", ())[1:]:
            sys.stderr.write(f"         {error['field']}: {error['detail']}\n")
    raise SystemExit(REFUSED)


def show_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))


def say(api: Api, answer: Any, *sentences: str) -> None:
    """What was done: the answer for programs, the sentences for people."""
    if api.as_json:
        show_json(answer)
        return
    for sentence in sentences:
        console().print(sentence)


def show_facts(facts: Mapping[str, Any], *, title: str | None = None) -> None:
    """One thing, a line a fact; what is empty is left out."""
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for fact, value in facts.items():
        if value not in (None, [], {}, ""):
            table.add_row(fact.replace("_", " "), shown(value))
    console().print(table)


def shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {shown(one)}" for name, one in value.items())
    return "" if value is None else ("yes" if value else "no") if isinstance(value, bool) else str(value)


OF_A_LATER_RELEASE = "written by a later release: this one cannot read it, and refuses whom it binds"


def minute(time: str | None) -> str:
    """A time of the API, for a table."""
    return f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M}" if time else ""


def confirm(question: str, *, yes: bool) -> None:
    """Ask before a dangerous act. Raises ConfigurationError where nobody is there to answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError("This is dangerous and nobody is there to ask: say --yes.")
    if not typer.confirm(question, err=True):
        raise typer.Abort


# ---------------------------------------------------------------- the way


@contextlib.contextmanager
def reached(
    *,
    as_json: bool,
    api_server: str | None,
    api_token: str | None,
    api_root: Path | None,
    no_verify_ssl: bool,
    config_file: Path | None,
    data: Path | None,
    keys: bool = False,
) -> Iterator[Api]:
    """`keys` as for `command`. Raises ConfigurationError."""
    if api_server is not None:
        with _remote(api_server, api_token, api_root, verify=not no_verify_ssl, as_json=as_json) as api:
            yield api
        return
    settings = load_settings(config_file, data=data)
    if (connected := adminsocket.connect(settings)) is not None:
        connected.close()
        with _local(settings, as_json=as_json) as api:
            yield api
        return
    from acme_ca.cli.own import own  # noqa: PLC0415  as above: a whole server

    with own(settings, as_json=as_json, keys=keys) as api:
        yield api


@contextlib.contextmanager
def this_machine(*, config_file: Path | None, data: Path | None) -> Iterator[Api]:
    """For commands whose own work is done here. Raises ConfigurationError, also for what is refused."""
    try:
        with reached(
            as_json=False,
            api_server=None,
            api_token=None,
            api_root=None,
            no_verify_ssl=False,
            config_file=config_file,
            data=data,
        ) as api:
            yield api
    except Refused as refused:
        raise ConfigurationError(str(refused)) from None


@contextlib.contextmanager
def _remote(server: str, token: str | None, ca: Path | None, *, verify: bool, as_json: bool) -> Iterator[Api]:
    address = urlsplit(server)
    if address.scheme != "https" or not address.hostname:
        raise ConfigurationError(f"--server: {server} is no https:// address.")
    if token is None:
        raise ConfigurationError(
            f"--token (or {TOKEN}) is missing; on the server's machine acme-ca token create makes one."
        )
    try:
        tls = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ConfigurationError(f"--ca: {ca} cannot be read ({error.strerror or error}).") from None
    if not verify:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        sys.stderr.write("acme-ca: the server's certificate is not verified.\n")
    headers = {"Authorization": f"Bearer {token}"}
    with asyncio.Runner() as runner:
        connector = made(runner, lambda: aiohttp.TCPConnector(ssl=tls))
        with asking(runner, connector, headers) as session:
            yield Api(runner, session, server.rstrip("/"), as_json=as_json)


@contextlib.contextmanager
def _local(settings: Settings, *, as_json: bool) -> Iterator[Api]:
    """Through the socket of the server that runs."""
    with asyncio.Runner() as runner, adminsocket.reachable(adminsocket.place(settings)) as name:
        connector = made(runner, lambda: aiohttp.UnixConnector(path=name))
        with asking(runner, connector, {}) as session:
            yield Api(runner, session, LOCAL, as_json=as_json)


def made(runner: asyncio.Runner, make: Callable[[], aiohttp.BaseConnector]) -> aiohttp.BaseConnector:
    """Connectors belong to the loop that runs when they are made."""

    async def work() -> aiohttp.BaseConnector:
        return make()

    return runner.run(work())


@contextlib.contextmanager
def asking(
    runner: asyncio.Runner, connector: aiohttp.BaseConnector, headers: Mapping[str, str]
) -> Iterator[aiohttp.ClientSession]:
    async def opened() -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        return aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout)

    session = runner.run(opened())
    try:
        yield session
    finally:
        runner.run(session.close())
