"""What anyone may read: health, the root, the chain, the issuers' certificates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca import __version__
from acme_ca.ca.issuers import Issuer
from acme_ca.ca.served import Issuers
from acme_ca.core.ids import IssuerId
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.problems import Problem
from acme_ca.core.states import IssuerState
from acme_ca.expiry import WARNING
from acme_ca.http import json_response
from acme_ca.metrics import CONTENT_TYPE, Metrics
from acme_ca.refreshing import Remembered
from acme_ca.storage import figures
from acme_ca.storage.database import Database, DatabaseUnavailable

HEALTH = ("/health", "/api/health", "/api/v1/health")
"""The second is where VCC services look."""
COUNTED = {"certificates": "certificate", "accounts": "account", "services": "service"}
AT_MOST = 1000
"""What health counts row by row: anyone may ask for it, and as often as they like."""

Endpoint = Callable[[web.Request], Awaitable[web.Response]]

PEM = "application/x-pem-file"
PKIX = "application/pkix-cert"
KEY_CHECK = timedelta(seconds=10)
KEY_RECHECK = timedelta(seconds=2)
"""After a key that did not sign."""


@dataclass(slots=True, kw_only=True)
class Public:
    issuers: Issuers
    database: Database
    can_sign: Callable[[IssuerId], Awaitable[bool]]
    """Whether an issuer's key works."""
    ocsp: Callable[[], str]
    """The worst state of the OCSP responders."""
    crls: Callable[[], Awaitable[str]]
    """`ok`, or what is wrong with the CRLs."""
    audit: Callable[[], Awaitable[str]]
    """`ok`, or what is wrong with the ids of the audit."""
    clock: Callable[[], datetime]
    dev: bool
    _works: Remembered[bool] = field(default_factory=Remembered)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def _signs(self) -> bool:
        """All issuers that are in use. Looked at anew at most once in KEY_CHECK: anyone may ask for health, and as often as
        they like.
        """
        async with self._looking:
            now = self.clock()
            if (works := self._works.at(now)) is not None:
                return works
            in_use = [issuer.id for issuer in self.issuers if issuer.signs_leaves(now)]
            works = all([await self.can_sign(issuer) for issuer in in_use])
            return self._works.keep(works, now=now, lasts=KEY_CHECK if works else KEY_RECHECK)

    def roots(self) -> list[Issuer]:
        """Those in use; the active issuer's first."""
        now = self.clock()
        roots = [
            issuer
            for issuer in self.issuers
            if issuer.kind is IssuerKind.ROOT and issuer.state(now) is IssuerState.ACTIVE
        ]
        first = self._active()
        own = self.issuers.root_of(first) if first else None
        return sorted(roots, key=lambda root: root is not own)

    def bundle(self) -> bytes:
        """PEM: the chain of the active issuer, where there is one, and the roots."""
        first = self._active()
        return (first.chain_pem if first else b"") + _pem(self.roots())

    async def health(self) -> tuple[bool, Mapping[str, Any]]:
        """Whether certificates can be issued now, and what was looked at."""
        remaining, counts = self._remaining(), await self._counts()
        needed = {
            "database": "unreachable" if counts is None else "ok",
            "issuer_key": "ok" if await self._signs() else "does not sign",
            "issuer_life": _life(remaining),
        }
        healthy = all(check in {"ok", "expires soon"} for check in needed.values())
        return healthy, {
            "status": "ok" if healthy else "failing",
            "version": __version__,
            "ca_initialized": any(True for _ in self.issuers),
            "development_mode": self.dev,
            "counts": counts,
            "checks": {**needed, "ocsp": self.ocsp(), "crl": await self.crls(), "audit": await self.audit()},
            "issuer_expires_in_days": remaining.days,
        }

    def _remaining(self) -> timedelta:
        """Of the active issuer's life; nothing when there is no active issuer."""
        active = self._active()
        return active.not_after - self.clock() if active else timedelta(0)

    def _active(self) -> Issuer | None:
        try:
            return self.issuers.active()
        except Problem:
            return None

    async def _counts(self) -> Mapping[str, int] | None:
        """Large numbers are estimates; None: the database is out of reach."""
        try:
            found = await figures.counts(self.database, tuple(COUNTED.values()), at_most=AT_MOST)
        except (DatabaseUnavailable, TimeoutError):
            return None
        return {name: found[table].number for name, table in COUNTED.items()}


def _life(remaining: timedelta) -> str:
    if remaining <= timedelta(0):
        return "expired"
    return "ok" if remaining > WARNING[IssuerKind.INTERMEDIATE] else "expires soon"


def add_routes(application: web.Application, public: Public) -> None:
    application.router.add_get("/ca/root.pem", _roots(public))
    application.router.add_get("/ca/bundle.pem", _bundle(public))
    application.router.add_get("/ca/{id:[0-9a-f]{32}}.cer", _issuer(public))
    for path in HEALTH:
        application.router.add_get(path, _health(public))


def add_metrics_route(application: web.Application, metrics: Metrics) -> None:
    async def handle(_: web.Request) -> web.Response:
        headers = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"}
        return web.Response(body=await metrics.text(), headers=headers)

    application.router.add_get("/metrics", handle)


def _roots(public: Public) -> Endpoint:
    """What clients trust: the root of the active issuer, then the other roots in use."""

    async def handle(_: web.Request) -> web.Response:
        return _file(_pem(public.roots()), PEM)

    return handle


def _bundle(public: Public) -> Endpoint:
    """The chain of the active issuer, and the roots."""

    async def handle(_: web.Request) -> web.Response:
        return _file(public.issuers.active().chain_pem + _pem(public.roots()), PEM)

    return handle


def _issuer(public: Public) -> Endpoint:
    """DER, at the place that certificates name (RFC 5280 §4.2.2.1)."""

    async def handle(request: web.Request) -> web.Response:
        issuer = public.issuers.get(IssuerId(request.match_info["id"]))
        if issuer is None:
            raise web.HTTPNotFound
        return _file(issuer.certificate.public_bytes(Encoding.DER), PKIX)

    return handle


def _pem(issuers: Iterable[Issuer]) -> bytes:
    return b"".join(issuer.certificate.public_bytes(Encoding.PEM) for issuer in issuers)


def _file(content: bytes, content_type: str) -> web.Response:
    headers = {"Cache-Control": "public, max-age=3600"}
    return web.Response(body=content, content_type=content_type, headers=headers)


def _health(public: Public) -> Endpoint:
    async def handle(_: web.Request) -> web.Response:
        healthy, report = await public.health()
        return json_response(report, status=200 if healthy else 503, headers={"Cache-Control": "no-store"})

    return handle
