"""Whatever happens, in whatever order: no revoked certificate is missing from its CRL, no number goes down, and a delta
brings every full CRL since its base up to date.

Certificates are issued, revoked, held and released, and expire; issuers and shards are opened and retired; two processes
publish and are started again; the database is put back to an older state; the clock goes back. What relying parties fetched before that they
still have.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from io import BytesIO

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from acme_ca.core.crl import History
from acme_ca.core.ids import Serial
from acme_ca.core.revocation import HOLD, REASONS_AFTER, RevocationReason
from acme_ca.revocation.crl import Publisher
from acme_ca.revocation.crl_files import CrlFiles
from acme_ca.storage.crls import Shard
from tests.support import crls as support
from tests.support.crls import Estate, estate
from tests.support.fixtures import new_hierarchy
from tests.support.issuing import NOW

TABLES = ("issuer", "certificate", "crl", "crl_due")
SECOND = timedelta(seconds=1)


@dataclass
class Known:
    """What the database knows of a certificate, and whether it was listed when it had expired."""

    shard: Shard
    ends: datetime
    reason: RevocationReason | None = None
    listed_after_its_end: bool = False


@dataclass
class Process:
    publisher: Publisher
    files: CrlFiles


@dataclass
class Backup:
    rows: dict[str, bytes]
    """Of each table, as COPY writes them."""
    known: dict[Serial, Known]
    shards: set[Shard]


@dataclass
class Life:
    """The CA, what its relying parties have, and the backups of its database."""

    estate: Estate
    hierarchies: list
    processes: list[Process] = field(default_factory=list)
    known: dict[Serial, Known] = field(default_factory=dict)
    shards: set[Shard] = field(default_factory=set)
    fulls: dict[Shard, list] = field(default_factory=lambda: defaultdict(list))
    backups: list[Backup] = field(default_factory=list)

    def process(self) -> Process:
        history = History()
        publisher = self.estate.publisher()
        publisher._history = history
        return Process(publisher, CrlFiles(database=self.estate.database, history=history))

    # ------------------------------------------------------------ acts

    async def begin(self) -> None:
        await self.estate.database.execute(f"DELETE FROM {TABLES[3]}")
        for table in ("crl", "certificate", "issuer"):
            await self.estate.database.execute(f"DELETE FROM {table}")
        self.estate.now = NOW.replace(microsecond=123456)
        self.processes = [self.process() for _ in range(2)]
        self.shards.add(await self.estate.add(self.hierarchies[0]))

    async def issue(self, shard: Shard, life: timedelta) -> Serial:
        serial = await self.estate.issue(shard, life=life)
        self.known[serial] = Known(shard, self.estate.now + life)
        return serial

    async def revoke(self, serial: Serial, reason: RevocationReason) -> None:
        known = self.known[serial]
        if reason in REASONS_AFTER[known.reason]:
            await self.estate.revoke(serial, reason)
            known.reason = reason

    async def release(self, serial: Serial) -> None:
        if self.known[serial].reason is HOLD:
            await self.estate.release(serial)
            self.known[serial].reason = None

    async def open_shard(self, shard: Shard) -> None:
        last = max(one.number for one in self.shards if one.issuer == shard.issuer)
        await self.estate.database.execute(
            "UPDATE issuer SET open_shard = $2 WHERE id = $1", shard.issuer, last + 1
        )
        self.shards.add(shard._replace(number=last + 1))

    async def rotate(self) -> None:
        """The second issuer takes over; the first signs status only."""
        await self.estate.database.execute(
            "UPDATE issuer SET state = 'retired', retired = $1 WHERE kind = 'intermediate'", self.estate.now
        )
        self.shards.add(await self.estate.add(self.hierarchies[1]))

    async def back_up(self) -> None:
        rows: dict[str, bytes] = {}
        async with self.estate.database.transaction() as connection:
            for table in TABLES:
                await connection.copy_from_table(table, output=(copied := BytesIO()))
                rows[table] = copied.getvalue()
        self.backups.append(Backup(rows, deepcopy(self.known), set(self.shards)))

    async def restore(self, backup: Backup) -> None:
        """Its server is started again, the processes only where `restart` says so. It takes a while."""
        async with self.estate.database.transaction() as connection:
            for table in reversed(TABLES):
                await connection.execute(f"DELETE FROM {table}")
            for table in TABLES:
                await connection.copy_to_table(table, source=BytesIO(backup.rows[table]))
        self.known, self.shards = deepcopy(backup.known), set(backup.shards)
        self.estate.now += SECOND

    async def publish(self, process: Process) -> None:
        """All look every second; one has the lease."""
        await self.look()
        await process.publisher.publish_due()
        await self.look()
        for shard in self.shards:
            await self._fetch(shard)

    async def look(self) -> None:
        for process in self.processes:
            await process.files.look()

    # ------------------------------------------------------------ laws

    async def _fetch(self, shard: Shard) -> None:
        full, delta = await self.estate.full(shard), await self.estate.delta(shard)
        earlier = self.fulls[shard]
        numbers = [support.number(one) for one in earlier]
        if support.number(full) not in numbers:
            assert support.number(full) > max(numbers, default=0), "a number went down"
            earlier.append(full)
        else:
            assert full == earlier[-1], "an older CRL is served"
        self._check_complete(shard, full)
        listed = support.listed(full)
        assert full.last_update_utc <= self.estate.now, "no relying party takes it"
        assert support.number(delta) == support.number(full)
        for old in earlier:
            if support.number(old) >= support.base_number(delta):
                assert support.applied(old, delta) == listed

    def _check_complete(self, shard: Shard, full) -> None:
        found = support.serials(full)
        for serial, known in self.known.items():
            if known.shard != shard:
                continue
            if known.reason is None:
                assert serial not in found
            elif serial in found:
                known.listed_after_its_end |= full.last_update_utc > known.ends
            else:
                assert known.ends <= self.estate.now, "it is missing"
                assert known.listed_after_its_end, "it was not listed once more"


class Histories(RuleBasedStateMachine):
    issued = Bundle("issued")

    def __init__(self, run, life: Life) -> None:
        super().__init__()
        self.run = run
        self.life = life
        self.rotated = False

    @initialize(target=issued)
    def begin(self):
        """With three certificates, a CRL and a backup of them, so that there is something to go wrong."""
        self.run(self.life.begin())
        (shard,) = self.life.shards
        serials = [self.run(self.life.issue(shard, timedelta(days=3))) for _ in range(3)]
        self.publish(0)
        self.run(self.life.back_up())
        return multiple(*serials)

    @rule(target=issued, life=st.sampled_from([1, 3, 90]), data=st.data())
    def issue(self, life, data):
        shard = data.draw(st.sampled_from(sorted(self.life.shards)))
        return self.run(self.life.issue(shard, timedelta(days=life)))

    @rule(serial=issued, reason=st.sampled_from(sorted(RevocationReason)))
    def revoke(self, serial, reason):
        # What has expired may be revoked, too: but nothing asks that it be listed.
        if serial in self.life.known and self.life.known[serial].ends > self.life.estate.now:
            self.run(self.life.revoke(serial, reason))

    @rule(serial=issued, process=st.integers(0, 1))
    def hold(self, serial, process):
        """And relying parties see it."""
        self.revoke(serial, HOLD)
        self.time_passes(0.0003, process)

    @rule(serial=issued, process=st.integers(0, 1))
    def release(self, serial, process):
        if serial in self.life.known:
            self.run(self.life.release(serial))
        self.time_passes(0.0003, process)

    @rule(hours=st.sampled_from([0.0003, 0.5, 2, 13, 26, 60]), process=st.integers(0, 1))
    def time_passes(self, hours, process):
        self.life.estate.now += timedelta(seconds=round(hours * 3600))
        self.publish(process)

    # With a backup's database, numbers from a time that was wrong may be lost.
    @precondition(lambda self: not self.life.backups)
    @rule(hours=st.sampled_from([0.0003, 0.5, 30]), process=st.integers(0, 1))
    def clock_goes_back(self, hours, process):
        self.life.estate.now -= timedelta(seconds=round(hours * 3600))
        self.publish(process)

    @rule(process=st.integers(0, 1))
    def publish(self, process):
        self.run(self.life.publish(self.life.processes[process]))

    @rule(process=st.integers(0, 1))
    def restart(self, process):
        self.life.processes[process] = self.life.process()

    @rule(data=st.data())
    def open_shard(self, data):
        self.run(self.life.open_shard(data.draw(st.sampled_from(sorted(self.life.shards)))))

    @precondition(lambda self: not self.rotated)
    @rule()
    def rotate(self):
        self.rotated = True
        self.run(self.life.rotate())

    @rule()
    def back_up(self):
        self.run(self.life.back_up())

    @rule(back=st.integers(0, 3), process=st.integers(0, 1))
    def restore(self, back, process):
        """After which the server may have been started again, in part."""
        backups = self.life.backups
        self.run(self.life.restore(backups[-1 - back % len(backups)]))
        if back:
            self.restart(process)
        self.rotated = len({shard.issuer for shard in self.life.shards}) > 1

    def teardown(self):
        self.run(self.life.publish(self.life.processes[0]))


@pytest.fixture
def hierarchies(hierarchy, tmp_path):
    return [hierarchy, new_hierarchy(tmp_path, "Second")]


def test_lesson_16_no_history_loses_a_revocation_or_lowers_a_number(postgres, hierarchies):
    with asyncio.Runner() as runner:
        opened = AsyncExitStack()
        name = runner.run(postgres.create())
        world = runner.run(opened.enter_async_context(estate(postgres.url(name), NOW)))
        try:
            run_state_machine_as_test(
                lambda: Histories(runner.run, Life(world, hierarchies)),
                settings=settings(
                    max_examples=60,
                    stateful_step_count=25,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(opened.aclose())
            runner.run(postgres.drop(name))
