"""What comes to its end is said in the log while there is time: issuers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from acme_ca.core.model import IssuerKind
from acme_ca.core.states import IssuerState
from acme_ca.storage import issuers
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
        """A line for each issuer that needs a successor. To be called a few times a day."""
        now = self._clock()
        for record in await issuers.all_issuers(self._database):
            if needs_successor(record, now):
                self._log.warning(
                    "an issuer nears its end",
                    issuer=record.id,
                    kind=record.kind.value,
                    not_after=record.not_after.isoformat(),
                    days=(record.not_after - now).days,
                )


def needs_successor(record: IssuerRecord, now: datetime) -> bool:
    """Retired ones need none: no certificate outlives its issuer. Nor are those of the past spoken of for ever."""
    in_use = record.state is not IssuerState.RETIRED and record.revoked is None
    return in_use and timedelta(0) < record.not_after - now <= WARNING[record.kind]
