"""Certificates: a revocation is one act."""

import asyncio

from acme_ca.core.actors import Actor
from acme_ca.core.revocation import RevocationReason
from acme_ca.storage import certificates, orders
from tests.support import records
from tests.support.records import NOW


async def test_of_parallel_revocations_one_succeeds(database, owner, draft):
    order = await records.order(database, owner, "a.example")
    await records.validate(database, owner, order)
    recorded = await orders.claim_and_record(
        database, order, records.linted(order, draft), spki_sha256=b"k", now=NOW
    )
    revoked = await asyncio.gather(
        *(
            certificates.revoke(
                database, recorded.serial, reason=RevocationReason.UNSPECIFIED, actor=Actor("x"), now=NOW
            )
            for _ in range(9)
        )
    )
    assert revoked.count(True) == 1
