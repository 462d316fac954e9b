"""How large a shard gets: when it has taken in as many certificates as its CRL may list, the next is opened."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from acme_ca.core.actors import SERVER
from acme_ca.core.crl import ENTRY_SIZE
from acme_ca.storage import crls
from acme_ca.storage.database import Database

SETTLED = timedelta(minutes=1)
"""By how much the clocks of replicas may differ."""
SETTLED_AFTER_CLOSING = timedelta(days=1)


class Shards:
    def __init__(
        self,
        *,
        database: Database,
        budget: int,
        clock: Callable[[], datetime],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """`budget`: bytes of a full CRL if all certificates of its shard were revoked."""
        self._database = database
        self._capacity = budget // ENTRY_SIZE
        self._clock = clock
        self._log = log

    async def tend(self) -> None:
        """Open and end shards, where it is time."""
        now = self._clock()
        for shard, taken in (await crls.count(self._database, settled=now - SETTLED, now=now)).items():
            if taken >= self._capacity and await crls.open_next(
                self._database, shard, taken=taken, actor=SERVER, now=now
            ):
                self._log.info("crl shard opened", issuer=shard.issuer, shard=shard.number + 1, before=taken)
        await crls.find_ends(self._database, settled=SETTLED_AFTER_CLOSING, now=now)
        await crls.forget_wishes(self._database, now)
