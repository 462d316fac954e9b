"""Where relying parties learn of revocations."""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from email.utils import format_datetime
from urllib.parse import unquote_to_bytes

from aiohttp import web

from acme_ca.core.ids import IssuerId
from acme_ca.core.problems import Problem
from acme_ca.http import read_body
from acme_ca.revocation.crl_files import CrlFile, CrlFiles
from acme_ca.revocation.ocsp import Ocsp, OcspAnswer
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


# ---------------------------------------------------------------- OCSP

OCSP = "/ocsp"
OCSP_RESPONSE = "application/ocsp-response"


def add_ocsp_routes(
    application: web.Application, ocsp: Ocsp, *, max_age: timedelta, clock: Callable[[], datetime]
) -> None:
    """`max_age`: how long caches between here and the client may keep an answer."""
    application.router.add_post(OCSP, _ocsp_post(ocsp))
    application.router.add_get(OCSP + r"/{request:[\s\S]*}", _ocsp_get(ocsp, max_age, clock))


def _ocsp_post(ocsp: Ocsp) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        try:
            body = await read_body(request)
        except (Problem, web.HTTPRequestEntityTooLarge):
            body = b""  # whatever is wrong with it, OCSP says so with malformedRequest
        return _ocsp_response(await ocsp.answer(body), {"Cache-Control": "no-store"})

    return answer


def _ocsp_get(ocsp: Ocsp, max_age: timedelta, clock: Callable[[], datetime]) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        found = await ocsp.answer(_request_in(request.rel_url.raw_path))
        headers = _caching(found, max_age, clock())
        tags = request.if_none_match or ()  # no date: two answers of one second may say different things
        if found.life is not None and headers["ETag"] in {f'"{tag.value}"' for tag in tags}:
            return web.Response(status=304, headers=headers)
        return _ocsp_response(found, headers)

    return answer


def _request_in(path: str) -> bytes:
    """The request in a URL's path: base64, of which `/`, `+` and `=` may be percent-encoded (RFC 5019 §5). Empty for what is none.

    Padding that got lost is made up for.
    """
    encoded = unquote_to_bytes(path.removeprefix(OCSP + "/"))
    try:
        return binascii.a2b_base64(encoded + b"=" * (-len(encoded) % 4), strict_mode=True)
    except binascii.Error:
        return b""


def _ocsp_response(answer: OcspAnswer, headers: dict[str, str]) -> web.Response:
    return web.Response(body=answer.der, content_type=OCSP_RESPONSE, headers=headers)


def _caching(answer: OcspAnswer, max_age: timedelta, now: datetime) -> dict[str, str]:
    """RFC 5019 §6.2. `max-age`, which every cache of today heeds before `Expires`, bounds how long a revocation stays hidden."""
    if answer.life is None:
        return {"Cache-Control": "no-store"}
    seconds = max(0, min(max_age, answer.life.end - now) // timedelta(seconds=1))
    return {
        "Cache-Control": f"max-age={seconds}, public, no-transform, must-revalidate",
        "Last-Modified": format_datetime(answer.life.begin, usegmt=True),
        "Expires": format_datetime(answer.life.end, usegmt=True),
        "ETag": f'"{hashlib.sha1(answer.der).hexdigest()}"',  # noqa: S324  the tag that the RFC recommends
    }
