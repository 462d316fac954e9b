"""An operator's program: speaks to the admin API over HTTP with a token."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from acme_ca.admin.access import Role
from acme_ca.admin.authentication import new_token
from acme_ca.core.actors import MACHINE, Actor
from acme_ca.core.codes import Code
from acme_ca.storage import tokens
from acme_ca.storage.database import Database
from acme_ca.storage.tokens import Token
from tests.support.client import Answer, Client

API = "/api/v1"
THE_MACHINE = Actor(f"operator:root{MACHINE}", "socket")
"""Makes the credentials that tests begin with."""


@dataclass
class Operator:
    """`token` None: shows none."""

    client: Client
    token: str | None
    name: str = ""

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        prefix: str = API,
        failing: bool = False,
        **query: Any,
    ) -> Answer:
        """`body`: bytes as they are, anything else as JSON."""
        sent = dict(headers or {})
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        url = f"{self.client.public_url}{prefix}{path}" + (
            f"?{urlencode(query, doseq=True)}" if query else ""
        )
        return await self.client.request(method, url, body=raw, headers=sent, failing=failing)

    async def get(self, path: str, **query: Any) -> Any:
        """The JSON of a 200."""
        return _good(await self.ask("GET", path, **query), 200)

    async def post(self, path: str, body: Any = None, *, status: int = 200) -> Any:
        return _good(await self.ask("POST", path, body), status)

    async def put(self, path: str, body: Any, *, status: int = 200) -> Any:
        return _good(await self.ask("PUT", path, body), status)

    async def delete(self, path: str, *, status: int = 200) -> Any:
        return _good(await self.ask("DELETE", path), status)

    async def pages(self, path: str, *, limit: int = 100, **query: Any) -> list[Any]:
        """The items of all pages."""
        found: list[Any] = []
        cursor: dict[str, str] = {}
        before: set[str] = set()
        while True:
            page = await self.get(path, limit=limit, **cursor, **query)
            found += page["items"]
            if page["next"] is None:
                return found
            assert page["next"] not in before, "the pages go round in a circle"
            before.add(page["next"])
            cursor = {"cursor": page["next"]}


def _good(answer: Answer, status: int) -> Any:
    assert answer.status == status, answer
    return answer.json if answer.body else None


def assert_refused(
    answer: Answer, code: Code | str, *words: str, status: int, field: str | None = None
) -> dict[str, Any]:
    """A problem document with this stable code and a sentence for a person; the document."""
    assert answer.status == status, answer
    assert answer.content_type == "application/problem+json", answer
    document = answer.json
    assert document["code"] == code, document
    assert document["status"] == status
    assert document["detail"].endswith(".")
    assert all(word in document["detail"] for word in words), document
    if field is not None:
        assert field in [error["field"] for error in document["errors"]], document
    return document


async def operator(
    client: Client,
    dsn: str,
    role: Role = Role.ADMINISTRATOR,
    *,
    services: tuple[str, ...] = (),
    name: str | None = None,
    expires: datetime | None = None,
) -> Operator:
    """One with a new token of this role."""
    id_, digest, shown = new_token(secrets.token_bytes)
    name = name or f"{role}-{id_}"
    token = Token(
        id=id_,
        name=name,
        secret_sha256=digest,
        role=role,
        services=services,
        created=datetime.now(UTC),
        made_by=THE_MACHINE.name,
        expires=expires,
    )
    async with Database.open(dsn, connections=1) as database:
        assert await tokens.create(database, token, actor=THE_MACHINE)
    return Operator(client, shown, name)
