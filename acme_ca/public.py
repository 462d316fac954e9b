"""What anyone may read: health, the root, the chain, the issuers' certificates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca import __version__
from acme_ca.ca.hierarchy import Hierarchy
from acme_ca.http import json_response
from acme_ca.storage.database import Database, DatabaseUnavailable

PEM = "application/x-pem-file"
PKIX = "application/pkix-cert"
KEY_CHECK = timedelta(seconds=30)
ISSUER_WARNING = timedelta(days=60)
"""Remaining life of the issuer below which health speaks up."""


@dataclass(slots=True, kw_only=True)
class Public:
    hierarchy: Hierarchy
    database: Database
    can_sign: Callable[[], bool]
    """Whether the issuer's key works."""
    clock: Callable[[], datetime]
    dev: bool
    _looked: tuple[datetime, bool] | None = None

    def _signs(self) -> bool:
        """Looked at anew at most once in KEY_CHECK: anyone may ask for health, and as often as they like."""
        now = self.clock()
        if self._looked and now - self._looked[0] < KEY_CHECK:
            return self._looked[1]
        self._looked = (now, self.can_sign())
        return self._looked[1]

    async def health(self) -> tuple[bool, Mapping[str, Any]]:
        """Whether certificates can be issued now, and what was looked at."""
        issuer = self.hierarchy.intermediate
        remaining = issuer.not_after - self.clock()
        checks = {
            "database": await self._database(),
            "issuer_key": "ok" if self._signs() else "does not sign",
            "issuer_life": _life(remaining),
        }
        healthy = all(check in {"ok", "expires soon"} for check in checks.values())
        return healthy, {
            "status": "ok" if healthy else "failing",
            "version": __version__,
            "development_mode": self.dev,
            "checks": checks,
            "issuer_expires_in_days": remaining.days,
        }

    async def _database(self) -> str:
        try:
            await self.database.fetchval("SELECT 1")
        except (DatabaseUnavailable, TimeoutError):
            return "unreachable"
        return "ok"


def _life(remaining: timedelta) -> str:
    if remaining <= timedelta(0):
        return "expired"
    return "ok" if remaining > ISSUER_WARNING else "expires soon"


def add_routes(application: web.Application, public: Public) -> None:
    root, intermediate = public.hierarchy.root, public.hierarchy.intermediate
    root_pem = root.certificate.public_bytes(Encoding.PEM)
    files = {
        "/ca/root.pem": (root_pem, PEM),
        "/ca/bundle.pem": (intermediate.chain_pem + root_pem, PEM),
    } | {
        f"/ca/{issuer.id}.cer": (issuer.certificate.public_bytes(Encoding.DER), PKIX)
        for issuer in (root, intermediate)
    }
    for path, (content, content_type) in files.items():
        application.router.add_get(path, _file(content, content_type))
    application.router.add_get("/health", _health(public))


def _file(content: bytes, content_type: str) -> Callable[[web.Request], Any]:
    async def handle(_: web.Request) -> web.Response:
        headers = {"Cache-Control": "public, max-age=3600"}
        return web.Response(body=content, content_type=content_type, headers=headers)

    return handle


def _health(public: Public) -> Callable[[web.Request], Any]:
    async def handle(_: web.Request) -> web.Response:
        healthy, report = await public.health()
        return json_response(report, status=200 if healthy else 503, headers={"Cache-Control": "no-store"})

    return handle
