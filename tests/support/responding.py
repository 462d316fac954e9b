"""OCSP responders outside of a server: with a database, a clock, and issuers that come and go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import LogCapture

from acme_ca.ca.authority import Authority
from acme_ca.ca.issuers import Issuer
from acme_ca.ca.profiles import BUILT_IN
from acme_ca.ca.responders import Responders
from acme_ca.core.actors import SERVER
from acme_ca.core.ids import IssuerId
from acme_ca.storage import issuers as issuer_store
from acme_ca.storage.database import Database
from tests.support.issuing import NOW
from tests.support.records import issuer_record


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Served:
    """The issuers that are served. Keys may be taken away."""

    issuers: list[Issuer] = field(default_factory=list)

    def __iter__(self) -> Iterator[Issuer]:
        return iter(self.issuers)

    def get(self, wanted: IssuerId) -> Issuer | None:
        return next((issuer for issuer in self if issuer.id == wanted), None)


class Place:
    """Where responders live; `worker()` gives those of one more process."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.clock = Clock()
        self.served = Served()
        self.log = LogCapture()
        self.database = database
        self.authority = Authority(
            issuers=self.served.get,
            public_http_url="http://ca.test",
            clock=self.clock,
            random_bytes=os.urandom,
        )

    def worker(self) -> Responders:
        return Responders(
            self.folder,
            issuers=self.served,
            database=self.database,
            authority=self.authority,
            profile=lambda: BUILT_IN["ocsp_responder"],
            clock=self.clock,
            log=structlog.wrap_logger(None, processors=[self.log]),
        )

    async def serve(self, *issuers: Issuer) -> None:
        self.served.issuers = list(issuers)
        for issuer in issuers:
            record = issuer_record(issuer.id, der=issuer.certificate.public_bytes(Encoding.DER))
            await issuer_store.register(self.database, record, actor=SERVER)

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir()) if self.folder.exists() else []

    async def made(self) -> int:
        """Certificates, ever."""
        count: int = await self.database.fetchval("SELECT count(*) FROM certificate")
        return count
