"""What the next CRL of a root says, as a file that can be carried to where its key is and be read on the way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from acme_ca.core import crl
from acme_ca.core.crl import Entry, Scope, UnsignedCrl
from acme_ca.core.ids import IssuerId, Serial
from acme_ca.core.revocation import REASONS, FinalReason


class RevokedCa(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    serial: Annotated[Serial, Field(pattern=r"^[0-9a-f]{32,40}$")]
    subject: str
    """For those who read it."""
    revoked: AwareDatetime
    reason: FinalReason

    @property
    def entry(self) -> Entry:
        return Entry(self.serial, self.revoked.astimezone(UTC).replace(microsecond=0), REASONS[self.reason])


class RootList(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Annotated[IssuerId, Field(pattern=r"^[0-9a-f]{32}$")]
    above: Annotated[int, Field(ge=0, lt=1 << 62)]
    """The number of the root's last CRL; 0: there was none."""
    days: Annotated[float, Field(gt=0, le=3660)]
    """From the signature to nextUpdate."""
    revoked: tuple[RevokedCa, ...]

    def unsigned(self, *, root_ends: datetime, now: datetime) -> UnsignedCrl:
        """The CRL that shall be signed `now`."""
        ends = now.replace(microsecond=0) + timedelta(days=self.days)
        return UnsignedCrl(
            issuer=self.issuer,
            number=max(self.above + 1, crl.next_number(None, now)),
            this_update=crl.this_update(None, now),
            next_update=min(ends, root_ends),
            urls=(),
            scope=Scope.CAS,
            entries=[ca.entry for ca in self.revoked],
        )
