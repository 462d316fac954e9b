"""Where the API is described: /api/openapi.json for programs, /api/docs for people. No login: it says nothing of this CA."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from functools import cache

from aiohttp import web

from acme_ca.admin import docs_page, openapi
from acme_ca.admin.frame import JSON, Route

_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def add_description(application: web.Application, routes: Sequence[Route], *, server: str) -> None:
    """`server`: the public URL. The document is made when somebody asks for it: most processes never are asked."""
    document = cache(lambda: openapi.document(routes, server=server))
    for path, write, media_type in (
        ("/api/openapi.json", lambda: json.dumps(document()), JSON),
        ("/api/docs", lambda: docs_page.html(document()), "text/html"),
        ("/api/docs.css", lambda: docs_page.STYLE, "text/css"),
    ):
        application.router.add_get(path, _file(cache(write), media_type))


def _file(write: Callable[[], str], media_type: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    headers = {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }

    async def handle(_request: web.Request) -> web.Response:
        return web.Response(text=write(), content_type=media_type, charset="utf-8", headers=headers)

    return handle
