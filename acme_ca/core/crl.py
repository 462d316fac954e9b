"""What is in a CRL, which number it has, and how a delta follows from two of them (RFC 5280 §5).

Rules of this file: numbers of a shard only go up; what has not expired is never left out of a full CRL; a delta, applied
to any full CRL of its shard from its base on, gives the newest one.

The second rule needs no exact moment and the third no clock. A certificate is listed while its end lies after
`lists_after`, and that changes only together with the base. So between two bases nothing is left out for its age, and a
delta is what differs from the base, with every released hold named to be taken out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import NamedTuple

from acme_ca.core.ids import IssuerId, Serial, serial_text
from acme_ca.core.revocation import HOLD

REMOVE_FROM_CRL = 8
"""The reason in a delta that takes an entry out (RFC 5280 §5.3.1)."""
BACKDATING = timedelta(minutes=1)
"""By how much a CRL seems older than it is: the clocks of relying parties are late."""
SECOND = timedelta(seconds=1)
ENTRY_SIZE = 50
"""Bytes of an entry in DER at most: serial number 19, date 15, reason 14, and 2 around them. 26 more with an
invalidityDate."""


class Entry(NamedTuple):
    """A line of a CRL. Times have whole seconds. `reason`: its code; 0 is not written (RFC 5280 §5.3.1)."""

    serial: Serial
    revoked: datetime
    reason: int
    invalid_since: datetime | None = None


class Scope(Enum):
    """Which certificates a CRL is about."""

    CAS = auto()
    LEAVES = auto()
    BOTH = auto()
    """The shard 0 of an intermediate that may have CAs below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsignedCrl:
    """A CRL, or with `base_number` a delta CRL, that shall be signed (RFC 5280 §5.1.2, §5.2)."""

    issuer: IssuerId
    number: int
    base_number: int | None = None
    this_update: datetime
    next_update: datetime
    urls: tuple[str, ...]
    """Of the full CRL: each as certificates of the shard have it in their cRLDistributionPoints. None for a root's."""
    freshest: str | None = None
    """URL of the delta, for full CRLs."""
    scope: Scope
    entries: Sequence[Entry] = field(repr=False)


# ---------------------------------------------------------------- numbers and times


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The full CRL that deltas refer to."""

    number: int
    at: datetime
    """Its thisUpdate."""
    lists_after: datetime
    """It, and the full CRLs until the next base, list what ends later than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """The newest CRL of a shard, without its bytes."""

    number: int
    this_update: datetime
    next_update: datetime
    entries: int
    urls: tuple[str, ...]
    base: Base


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The next CRL of a shard. `is_base`: it becomes the base itself."""

    number: int
    this_update: datetime
    base: Base
    is_base: bool


def plan(newest: Newest | None, *, now: datetime, base_period: timedelta, trusted: bool) -> Plan:
    """What follows `newest`. A base serves for `base_period`, and while the clock does not go back behind it.

    `trusted`: whether the base may be gone by (`History`). When an older copy of the database has taken the place of
    another, full CRLs may be about that list what the copy never saw, and no delta of it would take that out.
    """
    last = newest.base if newest else None
    number, at = next_number(newest, now), this_update(newest, now)
    if last is not None and trusted and last.at <= now < last.at + base_period:
        return Plan(number=number, this_update=at, base=last, is_base=False)
    base = Base(number=number, at=at, lists_after=lists_after(last, now))
    return Plan(number=number, this_update=at, base=base, is_base=True)


def next_number(newest: Newest | None, now: datetime) -> int:
    """RFC 5280 §5.2.3: above the last, also when the clock went back; and at least the milliseconds since 1970, so above
    all that a database knew which an older copy has taken the place of.
    """
    return max((newest.number if newest else 0) + 1, int(now.timestamp() * 1000))


def this_update(newest: Newest | None, now: datetime) -> datetime:
    """Whole seconds, backdated, and later than that of the CRL before if the clock allows it: so two never share a
    Last-Modified.
    """
    now = now.replace(microsecond=0)
    backdated = now - BACKDATING
    return max(backdated, min(newest.this_update + SECOND, now)) if newest else backdated


def lists_after(base: Base | None, now: datetime) -> datetime:
    """For the base after `base`: what had expired when that was made is listed in it, and not any more. The second in which
    a certificate ends is part of its life (§4.1.2.5).

    Before `now`: whatever the clock did, a certificate that has not expired is listed. Whole seconds, so before the next
    base's thisUpdate.
    """
    return EARLIEST if base is None else min(base.at, now.replace(microsecond=0)) - SECOND


EARLIEST = datetime(1950, 1, 1, tzinfo=UTC)
"""No certificate ends before (RFC 5280 §4.1.2.5)."""


class History:
    """Which bases may be gone by: those that were made while this process looked on, in a database that never showed an
    older state than before. Looks at the numbers again and again.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[IssuerId, int], tuple[int, int]] = {}
        self._distrusted: dict[tuple[IssuerId, int], int | None] = {}

    def numbers(self) -> dict[tuple[IssuerId, int], int]:
        """Of the newest CRL of each shard, as far as it was seen."""
        return {shard: number for shard, (number, _) in self._seen.items()}

    def look(
        self, shard: tuple[IssuerId, int], *, number: int, base_number: int, known: int | None = None
    ) -> None:
        """The newest CRL of a shard, and its base, as the database has them. `known`: the newest number that was known when
        the database was asked (0: none); what was seen since then may be newer than its answer. None: it is of now.
        """
        seen, _ = self._seen.get(shard, (None, None))
        if seen is None or number < (seen if known is None else known):
            self._distrusted[shard] = base_number
        elif number < seen:
            return
        self._seen[shard] = (number, base_number)

    def made(self, shard: tuple[IssuerId, int], plan: Plan) -> None:
        """This process has stored a CRL."""
        if plan.is_base:
            self._distrusted[shard] = None
        self._seen[shard] = (plan.number, plan.base.number)

    def trusts(self, shard: tuple[IssuerId, int], base_number: int) -> bool:
        return shard in self._seen and self._distrusted[shard] != base_number

    def untrusted(self) -> list[tuple[IssuerId, int]]:
        """Shards whose newest CRL may be older than what relying parties have: to be made anew at once."""
        return [shard for shard, (_, base) in self._seen.items() if not self.trusts(shard, base)]


# ---------------------------------------------------------------- what a base listed

_SERIAL = 20
"""Octets at most (RFC 5280 §4.1.2.2). Ours have 16, those of CAs that were signed elsewhere may have more."""
_RECORD = struct.Struct(f">{_SERIAL}sqbq")
_UNKNOWN = -(1 << 63)


def pack(entries: Iterable[Entry]) -> bytes:
    """The entries, 37 bytes each, as they are kept to make deltas from."""
    return b"".join(map(_record, entries))


def unpack(packed: bytes) -> Iterator[Entry]:
    """The inverse of `pack`."""
    for serial, revoked, reason, since in _RECORD.iter_unpack(packed):
        known = None if since == _UNKNOWN else datetime.fromtimestamp(since, UTC)
        yield Entry(_serial(serial), datetime.fromtimestamp(revoked, UTC), reason, known)


def _record(entry: Entry) -> bytes:
    since = _UNKNOWN if entry.invalid_since is None else int(entry.invalid_since.timestamp())
    serial = bytes.fromhex(entry.serial.zfill(2 * _SERIAL))
    return _RECORD.pack(serial, int(entry.revoked.timestamp()), entry.reason, since)


def _serial(octets: bytes) -> Serial:
    return serial_text(int.from_bytes(octets))


def _records(packed: bytes) -> Iterator[bytes]:
    return (packed[place : place + _RECORD.size] for place in range(0, len(packed), _RECORD.size))


# ---------------------------------------------------------------- deltas


def delta(base: bytes, entries: Sequence[Entry], released: Iterable[Serial], *, at: datetime) -> list[Entry]:
    """What a delta CRL lists: `entries` that the packed `base` does not have so, holds, and removals.

    `released`: holds that ended, all of them. One that began after the base must be named as well: a full CRL in between
    may have it (RFC 5280 §5.2.4).
    """
    known = set(_records(base))
    found = {entry.serial: _record(entry) for entry in entries}
    # A hold that was released and made again within a second looks like the one before.
    changed = [e for e in entries if found[e.serial] not in known or e.reason == HOLD]
    gone = {_serial(record[:_SERIAL]) for record in known}.union(released).difference(found)
    return changed + [Entry(serial, at, REMOVE_FROM_CRL) for serial in sorted(gone)]
