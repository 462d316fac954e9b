"""The description of the admin API (OpenAPI 3.1), made from the routes and their models; nothing in it is written by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from acme_ca import __version__
from acme_ca.admin.access import ROLES
from acme_ca.admin.approvals import ApprovalView
from acme_ca.admin.frame import JSON, PREFIXES, Model, Route
from acme_ca.core.codes import Code
from acme_ca.http import PROBLEM_JSON

REFERENCE = "#/components/schemas/{model}"
Schema = dict[str, Any]
_Use = tuple[type[BaseModel], JsonSchemaMode]


class FieldError(Model):
    field: str
    detail: str


class ProblemView(BaseModel):
    """A refusal (RFC 9457). Programs go by `code`; `detail` is for people."""

    type: str
    code: str
    """Stable: docs/api.md lists them."""
    detail: str
    status: int
    field: str | None = None
    """The first field that is wrong."""
    errors: list[FieldError] | None = None
    """All that are."""


_REFUSALS: Mapping[int, str] = {
    400: "A field is wrong: `errors` names each.",
    401: "No credential, or a wrong one.",
    403: "The role does not allow this.",
    404: f"There is no such thing: `{Code.NOT_FOUND}`.",
    408: f"The body did not arrive in time: `{Code.BODY_INCOMPLETE}`.",
    409: "It is in a state in which this cannot be done.",
    413: f"The body is too large: `{Code.BODY_TOO_LARGE}`.",
    415: f"The body is not sent as JSON: `{Code.MEDIA_TYPE_WRONG}`.",
    429: "Too many wrong credentials, or a limit: `Retry-After` says how long to wait, in seconds.",
    500: "Something went wrong in the server; its log tells more.",
    503: "The database, or a key, is out of reach: `Retry-After` says when to try again, in seconds.",
}


def document(routes: Sequence[Route], *, server: str) -> Schema:
    """`server`: the public URL."""
    uses = sorted(set(_uses(routes)), key=lambda use: (use[0].__name__, use[1]))
    references, schemas = models_json_schema(uses, ref_template=REFERENCE)
    paths: dict[str, Schema] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "acme-ca admin API",
            "version": __version__,
            "description": "What operators do with the CA. Every refusal is a problem document with a stable code.",
        },
        "servers": [{"url": server + prefix} for prefix in PREFIXES],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS", "description": "A certificate of profile `operator`."},
            },
        },
    }


def _uses(routes: Sequence[Route]) -> Iterator[_Use]:
    yield ProblemView, "serialization"
    yield ApprovalView, "serialization"
    for route in routes:
        if route.body:
            yield route.body, "validation"
        if route.answer:
            yield route.answer, "serialization"


def _operation(route: Route, references: Mapping[Any, Schema]) -> Schema:
    tag = route.name.partition(".")[0]
    operation: Schema = {
        "operationId": route.name,
        "tags": [tag],
        "summary": route.summary,
        "description": _description(route),
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": _responses(route, references),
        "security": [] if route.permission is None else [{"token": []}, {"certificate": []}],
    }
    if route.body:
        required = any(field.is_required() for field in route.body.model_fields.values())
        content = {JSON: {"schema": references[route.body, "validation"]}}
        operation["requestBody"] = {"required": required, "content": content}
    return operation


def _description(route: Route) -> str:
    if route.permission is None:
        return "For everybody."
    roles = ", ".join(role for role, may in ROLES.items() if route.permission in may)
    said = [f"Permission `{route.permission}`: {roles}."]
    if route.scoped:
        said.append("A token for some services sees and changes only theirs.")
    if route.dangerous:
        said.append("Dangerous: a second person may have to approve it.")
    return " ".join(said)


def _path_parameters(route: Route) -> Iterator[Schema]:
    for name in route.parameters:
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _query_parameters(route: Route) -> Iterator[Schema]:
    if route.query is None:
        return
    schema = route.query.model_json_schema(ref_template=REFERENCE)
    kinds = schema.get("$defs", {})
    for name, one in schema["properties"].items():
        known = {key: value for key, value in one.items() if key != "title"}
        description = known.pop("description", "")
        yield {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": description,
            "schema": _given(known, kinds),
        }


def _given(schema: Any, kinds: Mapping[str, Schema]) -> Any:
    """A schema without references, and without null: what is not given is left out of a query."""
    if isinstance(schema, list):
        return [_given(one, kinds) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _given(kinds[schema["$ref"].rpartition("/")[2]], kinds)
    if "anyOf" in schema:
        some = [one for one in schema["anyOf"] if one != {"type": "null"}]
        rest = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
        return (
            {**_given(some[0], kinds), **rest} if len(some) == 1 else {**rest, "anyOf": _given(some, kinds)}
        )
    return {key: _given(value, kinds) for key, value in schema.items()}


def _responses(route: Route, references: Mapping[Any, Schema]) -> Schema:
    answers: Schema = {str(route.status if _has_body(route) else 204): _good(route, references)}
    if route.dangerous:
        content = {JSON: {"schema": references[ApprovalView, "serialization"]}}
        answers["202"] = {"description": "It waits for a second person.", "content": content}
    problem = {PROBLEM_JSON: {"schema": references[ProblemView, "serialization"]}}
    for status in sorted(_refusals(route)):
        answers[str(status)] = {"description": _REFUSALS[status], "content": problem}
    return answers


def _has_body(route: Route) -> bool:
    return route.answer is not None or route.media_type != JSON


def _good(route: Route, references: Mapping[Any, Schema]) -> Schema:
    if not _has_body(route):
        return {"description": "Done."}
    schema: Schema = {"type": "string"} if route.answer is None else references[route.answer, "serialization"]
    return {"description": "Done.", "content": {route.media_type: {"schema": schema}}}


def _refusals(route: Route) -> set[int]:
    found = {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_TIMEOUT, 413, 415, 500, 503}
    if route.permission is not None:
        found |= {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS}
    if route.parameters or route.body or route.query:
        found.add(HTTPStatus.NOT_FOUND)
    if route.conflicts:
        found.add(HTTPStatus.CONFLICT)
    return {int(status) for status in found}
