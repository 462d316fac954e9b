"""What comes to its end is said in the log while there is time: issuers, and CRLs that nobody makes anew."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from acme_ca.core.ids import IssuerId
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.states import IssuerState
from acme_ca.storage import figures, issuers
from acme_ca.storage.database import Database
from acme_ca.storage.issuers import IssuerRecord

WARNING = {
    IssuerKind.ROOT: timedelta(days=365),
    IssuerKind.INTERMEDIATE: timedelta(days=60),
    IssuerKind.CROSS: timedelta(days=60),
}
"""Remaining life below which an issuer's end is spoken of. A new root has to reach everybody who trusts the old one."""


class Expiry:
    def __init__(
        self,
        *,
        database: Database,
        clock: Callable[[], datetime],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._database = database
        self._clock = clock
        self._log = log

    async def warn(self) -> None:
        """A line for each issuer that needs a successor, and for each CRL. To be called a few times a day."""
        now = self._clock()
        for record in await issuers.all_issuers(self._database):
            if needs_successor(record, now):
                self._say("an issuer nears its end", record.id, record.not_after, now, kind=record.kind.value)
        for crl in await figures.ending_crls(self._database, now):
            self._say("a CRL nears its end", crl.issuer, crl.next_update, now, shard=crl.shard)

    def _say(self, event: str, issuer: IssuerId, end: datetime, now: datetime, **about: object) -> None:
        self._log.warning(event, issuer=issuer, **about, end=end.isoformat(), days=(end - now).days)


def needs_successor(record: IssuerRecord, now: datetime) -> bool:
    """Retired ones need none: no certificate outlives its issuer. Nor are those of the past spoken of for ever."""
    in_use = record.state is not IssuerState.RETIRED and record.revoked is None
    return in_use and timedelta(0) < record.not_after - now <= WARNING[record.kind]
