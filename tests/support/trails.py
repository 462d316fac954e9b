"""An audit trail that is sealed, and what an attacker with the database may do to it."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import structlog

from acme_ca.audit import verify
from acme_ca.audit.chain import Checkpoint
from acme_ca.audit.sealing import Sealing
from acme_ca.audit.signers import Trust
from acme_ca.audit.verify import Report
from acme_ca.ca import profiles
from acme_ca.ca.authority import Authority
from acme_ca.ca.hierarchy import Hierarchy
from acme_ca.ca.own import OwnCertificate
from acme_ca.core.actors import Actor
from acme_ca.storage import operations
from acme_ca.storage.database import Database
from tests.support.issuing import NOW
from tests.support.responding import Clock

ORIGIN = "https://ca.test"
AS_OWNER = "SET session_replication_role = replica; "
"""What the owner of the tables can do: the triggers are asleep."""


class Trail:
    def __init__(self, database: Database, hierarchy: Hierarchy, place: Path) -> None:
        self.database = database
        self.hierarchy = hierarchy
        self.clock = Clock()
        self.keys = SimpleNamespace(away=False)
        self.file = place / "audit" / "signer.pem"
        self.checkpoint = place / "checkpoint.txt"
        self.log = structlog.testing.CapturingLogger()
        self.trust = Trust(hierarchy.root.certificate, [hierarchy.intermediate.certificate])
        self.sealing = self.sealer()

    def sealer(self, file: Path | None = None) -> Sealing:
        """One process that seals, with its own key."""
        issuer = self.hierarchy.intermediate
        own = OwnCertificate(
            file or self.file,
            identifiers=(),
            database=self.database,
            authority=Authority(
                issuers=lambda _: replace(issuer, key=None) if self.keys.away else issuer,
                public_http_url="http://ca.test",
                clock=self.clock,
                random_bytes=os.urandom,
            ),
            issuer=lambda: issuer,
            profile=lambda: profiles.BUILT_IN["audit_signer"],
            clock=self.clock,
        )
        return Sealing(
            database=self.database,
            own=own,
            issuer=lambda: issuer,
            origin=ORIGIN,
            checkpoint=self.checkpoint,
            clock=self.clock,
            log=structlog.wrap_logger(self.log),
        )

    async def act(self, count: int = 1, object_: str = "thing") -> None:
        for number in range(count):
            async with self.database.transaction() as connection:
                await operations.record_event(
                    connection,
                    at=NOW + timedelta(seconds=number),
                    event="thing.done",
                    actor=Actor("operator:alice", "192.0.2.1"),
                    object_=f"{object_}:{number}",
                    detail={"before": number, "after": "ä\n"},
                )

    async def seal(self) -> int:
        return await self.sealing.seal_due()

    async def verify(self, *checkpoints: Checkpoint) -> Report:
        return await verify.verify(self.database, self.trust, checkpoints=checkpoints)

    async def wrong(self, *checkpoints: Checkpoint) -> list[tuple[str, str]]:
        """What `verify` finds: pairs of code and object."""
        report = await self.verify(*checkpoints)
        assert report.errors == len(report.findings)
        return [(finding.code, finding.object) for finding in report.findings]

    async def as_owner(self, statement: str) -> None:
        async with self.database.transaction() as connection:
            await connection.execute(AS_OWNER + statement)
            await connection.execute("SET session_replication_role = origin")

    async def ids(self) -> list[int]:
        rows = await self.database.fetch("SELECT id FROM audit_event WHERE event = 'thing.done' ORDER BY id")
        return [row["id"] for row in rows]
