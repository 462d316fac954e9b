"""Where relying parties learn of revocations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from email.utils import format_datetime

from aiohttp import web

from acme_ca.core.model import IssuerId
from acme_ca.revocation.crl_files import CrlFile, CrlFiles
from acme_ca.storage.crls import Shard

Handler = Callable[[web.Request], Awaitable[web.Response]]

# ---------------------------------------------------------------- CRLs

CRL = "/crl/{issuer:[0-9a-f]{32}}/{shard:0|[1-9][0-9]{0,8}}.crl"
DELTA_CRL = CRL.replace(".crl", "-delta.crl")
PKIX_CRL = "application/pkix-crl"


def add_crl_routes(
    application: web.Application, files: CrlFiles, *, max_age: timedelta, clock: Callable[[], datetime]
) -> None:
    """`max_age`: how long HTTP caches may keep a CRL before they ask again."""
    application.router.add_get(CRL, _crl(files, max_age, clock, delta=False))
    application.router.add_get(DELTA_CRL, _crl(files, max_age, clock, delta=True))


def _crl(files: CrlFiles, max_age: timedelta, clock: Callable[[], datetime], *, delta: bool) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        shard = Shard(IssuerId(request.match_info["issuer"]), int(request.match_info["shard"]))
        found = await files.get(shard, delta=delta)
        if found is None:
            raise web.HTTPNotFound
        headers = {
            "Cache-Control": f"public, max-age={max_age // timedelta(seconds=1)}",
            "Expires": format_datetime(clock() + max_age, usegmt=True),
            "Last-Modified": format_datetime(found.this_update, usegmt=True),
            "ETag": f'"{found.etag}"',
        }
        if _has_it(request, found):
            return web.Response(status=304, headers=headers)
        return web.Response(body=found.der, content_type=PKIX_CRL, headers=headers)

    return answer


def _has_it(request: web.Request, file: CrlFile) -> bool:
    """RFC 9110 §13.2.2: If-Modified-Since counts only without If-None-Match."""
    if (tags := request.if_none_match) is not None:
        return any(tag.value in {"*", file.etag} for tag in tags)
    since = request.if_modified_since
    return since is not None and file.this_update <= since
