"""What all routes of the admin API share, done once: who asks and whether they may, reading the request into models,
the second person's approval, writing the answer.

Routes are tables of values (`Route`), so that the OpenAPI document, the docs and the test of the roles read the same lines
as the server does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from acme_ca.admin.access import OPERATOR_NAME, Permission, Principal, Role
from acme_ca.core.actors import Actor
from acme_ca.core.codes import Code
from acme_ca.core.problems import ErrorType, Problem, malformed, not_found
from acme_ca.core.services import SERVICE_ID
from acme_ca.core.texts import PRINTABLE
from acme_ca.core.times import RANGE, can_be_kept
from acme_ca.http import PRINCIPAL, meet_expectation, read_body

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

PREFIXES = ("/api/v1", "/api")
"""The second is where VCC services call; both are the same."""
MAX_BODY = 64 * 1024
"""Bytes, of requests to routes that do not say otherwise."""
JSON = "application/json"

_FIELD = re.compile(
    r"(?!(?:constrained-)?(?:str|int|bool|float|datetime|timedelta)$)[A-Za-z0-9_-]{1,64}", re.ASCII
)

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]", re.ASCII)
"""How RFC 3339 begins: pydantic would take numbers, too."""

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Identify = Callable[[web.Request], Awaitable[Principal]]
"""Raises Problem when it is not known who asks."""


class Model(BaseModel):
    """The base of all bodies and answers: unknown fields are refused, docstrings of fields describe them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


Given = TypeVar("Given", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, read and permitted. `query` and `body` are of the models that the route names."""

    principal: Principal
    path: Mapping[str, str]
    query: Any
    body: Any

    @property
    def actor(self) -> Actor:
        return self.principal.actor

    @property
    def services(self) -> list[str] | None:
        """Those that the credential is for; None: all."""
        return sorted(self.principal.services) or None

    def check_service(self, service: str | None, missing: Problem | None = None) -> None:
        """Raises `missing`, which is said of what is not there, for what belongs to a service that the credential is not
        for: it need not know.
        """
        if self.principal.services and service not in self.principal.services:
            raise missing or not_found()

    def check_may(self, permission: Permission) -> None:
        """For what a body asks for beyond the route's own permission. Raises Problem."""
        if not self.principal.may(permission):
            raise _forbidden(self.principal, permission)


@dataclass(frozen=True, slots=True)
class File:
    """An answer that is no JSON."""

    content: bytes
    media_type: str


Answer = BaseModel | File | None
Endpoint = Callable[["Admin", Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One line of a table. `path` is below PREFIXES; its parameters are in braces."""

    name: str
    """`resource.act`: stable, the operationId."""
    method: Method
    path: str
    permission: Permission | None
    """None: everybody, without a login."""
    endpoint: Endpoint
    summary: str
    answer: type[BaseModel] | None = None
    """None: no body (204), or a file."""
    media_type: str = JSON
    """Of the answer."""
    status: int = 200
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    scoped: bool = False
    """Whether the endpoint itself keeps credentials for some services to those; otherwise it is closed to them."""
    dangerous: bool = False
    """Whether a second person must approve when that is switched on for it (`admin.two_person`)."""
    is_harmless: Callable[[Call], bool] | None = None
    """Of a dangerous act: whether this call is not, and needs nobody's approval."""
    conflicts: bool = False
    """Whether it answers 409 for states in which the act cannot be done."""
    max_body: int = MAX_BODY

    @property
    def parameters(self) -> list[str]:
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


def add_routes(
    application: web.Application, admin: Admin, routes: Sequence[Route], *, identify: Identify
) -> None:
    for route in routes:
        handler = _handler(admin, route, identify)
        for prefix in PREFIXES:
            application.router.add_route(
                route.method, prefix + route.path, handler, expect_handler=meet_expectation
            )


def _handler(
    admin: Admin, route: Route, identify: Identify
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        principal = None
        if route.permission is not None:
            principal = await identify(request)
            request[PRINCIPAL] = principal.name
            _check_permission(principal, route, route.permission)
        call = Call(
            principal=principal or _NOBODY,
            path=_path(request),
            query=_query(request, route.query),
            body=_parsed(await _body(request, route), route.body),
        )
        harmless = route.is_harmless is not None and route.is_harmless(call)
        if route.dangerous and not harmless and route.name in admin.two_person:
            return _response(await admin.approvals.request(route, call), status=HTTPStatus.ACCEPTED)
        return _response(await route.endpoint(admin, call), status=route.status)

    return handle


_NOBODY = Principal(name="", role=Role.VIEWER, source="")
"""Asks for what everybody may have."""


def _check_permission(principal: Principal, route: Route, permission: Permission) -> None:
    if not principal.may(permission):
        raise _forbidden(principal, permission)
    if principal.services and not route.scoped:
        raise Problem(
            ErrorType.UNAUTHORIZED,
            f"This token is for the services {', '.join(sorted(principal.services))} only; this route is about all.",
            code=Code.FORBIDDEN,
        )


def _forbidden(principal: Principal, permission: Permission) -> Problem:
    return Problem(
        ErrorType.UNAUTHORIZED,
        f"The role {principal.role} of {principal.name} does not include {permission}.",
        code=Code.FORBIDDEN,
    )


# ---------------------------------------------------------------- reading


def _path(request: web.Request) -> Mapping[str, str]:
    """Raises Problem for what PostgreSQL could not keep: then nothing has that name."""
    path = dict(request.match_info)
    if not all(value.isprintable() for value in path.values()):
        raise not_found()
    return path


def _query(request: web.Request, model: type[BaseModel] | None) -> BaseModel | None:
    if model is None:
        if request.query:
            raise _invalid([("query", "This route takes no query.")])
        return None
    lists, times = _fields("array", model), _fields("date-time", model)
    given: dict[str, Any] = {}
    for name in request.query:
        values = request.query.getall(name)
        if name not in lists and len(values) > 1:
            raise _invalid([(name, "It is given more than once.")])
        if name in times and not _TIME.match(values[0]):
            raise _invalid([(name, "It is no time: write 2026-02-28T12:00:00Z.")])
        given[name] = values if name in lists else values[0]
    if any("\0" in value or not value.isprintable() for value in request.query.values()):
        raise _invalid([("query", "It has characters that do not print.")])
    return _validated(lambda: model.model_validate_strings(given))


@cache
def _fields(kind: str, model: type[BaseModel]) -> frozenset[str]:
    """Those fields that are described as this type or format, perhaps among others."""
    described = model.model_json_schema()["properties"]
    return frozenset(
        name
        for name, one in described.items()
        if any(kind in {some.get("type"), some.get("format")} for some in one.get("anyOf", [one]))
    )


async def _body(request: web.Request, route: Route) -> bytes:
    try:
        body = await read_body(request, most=route.max_body)
    except web.HTTPRequestEntityTooLarge:
        detail = f"The body is larger than {route.max_body} bytes."
        raise malformed(detail, status=413, code=Code.BODY_TOO_LARGE) from None
    if route.body is None:
        if body:
            raise _invalid([("body", "This route takes no body.")])
        return b""
    if body and request.content_type != JSON:
        raise malformed(f"The body must be {JSON}.", status=415, code=Code.MEDIA_TYPE_WRONG)
    return body


def _parsed(body: bytes, model: type[BaseModel] | None) -> BaseModel | None:
    if model is None:
        return None
    if b"\\u0000" in body:
        raise _invalid([("body", "It has a NUL character in a string.")])
    _check_members(body)
    return _validated(lambda: model.model_validate_json(body or b"{}", strict=True))


def _check_members(body: bytes) -> None:
    """Raises Problem for a member that is there twice: readers differ in which they believe (lesson 12)."""
    with suppress(ValueError, RecursionError):  # what is no JSON is told when it is read
        _ONCE.decode(body.decode())


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise _invalid([(name if _FIELD.fullmatch(name) else "body", "It is given more than once.")])
        members[name] = value
    return members


_ONCE = json.JSONDecoder(object_pairs_hook=_once)


def _validated(read: Callable[[], Given]) -> Given:
    try:
        model = read()
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        if found[0]["type"] == "json_invalid":
            detail = f"The body is no JSON: {found[0]['msg'].removeprefix('Invalid JSON: ')}."
            raise Problem(ErrorType.MALFORMED, detail, code=Code.NOT_JSON) from None
        raise _invalid([_told(one) for one in found]) from None
    if wrong := [name for name, value in model if isinstance(value, datetime) and not can_be_kept(value)]:
        raise _invalid([(name, f"Give {RANGE}.") for name in wrong])
    return model


def _told(error: ErrorDetails) -> tuple[str, str]:
    # A field of several kinds has the kind in its place, too: `reason.literal['…']`.
    parts = (str(part) for part in error["loc"])
    where = ".".join(part for part in parts if _FIELD.fullmatch(part)) or "body"
    told = _PLAINER.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    for pattern, sentence in _OTHERWISE.items():
        if told.endswith(f"'{pattern}'"):
            told = sentence
    return where, told.rstrip(".") + "."


_PLAINER = {"missing": "It is missing", "extra_forbidden": "There is no such field"}
"""Than what pydantic says."""
_OTHERWISE = {
    PRINTABLE: "It has characters that do not print",
    r"^[0-9a-f]{32}$": "It is no id, which has 32 hexadecimal digits",
    r"^[0-9a-f]{64}$": "It is no SHA-256, which has 64 hexadecimal digits",
    r"^[0-9a-fA-F]{64}$": "It is no SHA-256, which has 64 hexadecimal digits",
    SERVICE_ID: "The id of a service has 1 to 63 small letters, digits, dots, underscores and hyphens, the first a letter or "
    "a digit",
    OPERATOR_NAME: "A name has 1 to 64 letters, digits, dots, underscores, hyphens and @, the first a letter or a digit",
}
"""What does not match a pattern."""


def _invalid(errors: Sequence[tuple[str, str]]) -> Problem:
    first, detail = errors[0]
    return Problem(
        ErrorType.MALFORMED,
        f"{first}: {detail}",
        code=Code.FIELD_INVALID,
        members={"field": first, "errors": [{"field": name, "detail": told} for name, told in errors]},
    )


# ---------------------------------------------------------------- answering


def _response(answer: Answer, *, status: int) -> web.Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if answer is None:
        return web.Response(status=HTTPStatus.NO_CONTENT, headers=headers)
    if isinstance(answer, File):
        return web.Response(
            body=answer.content, content_type=answer.media_type, status=status, headers=headers
        )
    return web.Response(
        body=answer.model_dump_json().encode(), content_type=JSON, status=status, headers=headers
    )
