"""How many certificates a shard takes in, when the next is opened, and when one is finished."""

import asyncio
from datetime import timedelta

import pytest
import structlog

from acme_ca.core.actors import SERVER, Actor
from acme_ca.core.crl import ENTRY_SIZE
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.states import IssuerState
from acme_ca.revocation.shards import SETTLED, SETTLED_AFTER_CLOSING, Shards
from acme_ca.storage import crls, issuers
from tests.support.crls import HOUR, RULES, estate, listed, number, serials
from tests.support.issuing import NOW
from tests.support.records import DAY

CAPACITY = 20
SECOND = timedelta(seconds=1)


@pytest.fixture
async def world(database_url):
    async with estate(database_url, NOW) as made:
        yield made


@pytest.fixture
async def shard(world, hierarchy):
    shard = await world.add(hierarchy)
    await world.publisher().publish_due()
    return shard


def tending(world) -> Shards:
    return Shards(
        database=world.database,
        budget=CAPACITY * ENTRY_SIZE,
        clock=world.clock,
        log=structlog.get_logger(),
    )


async def open_shard(world, shard) -> int:
    return await world.database.fetchval("SELECT open_shard FROM issuer WHERE id = $1", shard.issuer)


async def issue(world, shard, times, **fields):
    return [await world.issue(shard, **fields) for _ in range(times)]


async def test_the_next_is_opened_when_one_is_full(world, shard):
    shards = tending(world)
    await issue(world, shard, CAPACITY - 1)
    await shards.tend()
    assert await open_shard(world, shard) == 0
    await issue(world, shard, 1)
    await shards.tend()
    assert await open_shard(world, shard) == 1
    assert (
        await world.database.fetchval("SELECT object FROM audit_event WHERE event = 'crl.shard-opened'")
        == f"crl:{shard.issuer}/1"
    )
    second = shard._replace(number=1)
    await world.publisher().publish_due()
    assert listed(await world.full(second)) == {}
    await shards.tend()
    assert await open_shard(world, shard) == 1, "those of the first shard do not count for the second"


async def test_each_certificate_is_counted_once_whenever_it_is_looked(world, shard):
    shards = tending(world)
    for number_ in range(CAPACITY):
        assert await open_shard(world, shard) == 0, number_
        await issue(world, shard, 1)
        world.now += SETTLED / 7
        await shards.tend()
    assert await open_shard(world, shard) == 1


async def test_two_who_tend_open_one_shard(world, shard):
    await issue(world, shard, CAPACITY)
    await asyncio.gather(*(tending(world).tend() for _ in range(5)))
    assert await open_shard(world, shard) == 1


async def test_a_full_shards_crl_keeps_the_budget(world, shard):
    """When all its certificates are revoked."""
    empty = len((await world.files(shard)).der)
    for serial in await issue(world, shard, CAPACITY):
        await world.revoke(serial)
    world.now += SECOND
    await world.publisher().publish_due()
    assert len((await world.files(shard)).der) - empty <= CAPACITY * ENTRY_SIZE + 10


@pytest.mark.parametrize("state", [IssuerState.RETIRED, IssuerState.STAGED])
async def test_issuers_that_sign_nothing_open_nothing(world, shard, state):
    await issue(world, shard, CAPACITY)
    await world.database.execute(
        "UPDATE issuer SET state = $1, retired = CASE WHEN $1 = 'retired' THEN now() END WHERE id = $2",
        state,
        shard.issuer,
    )
    await tending(world).tend()
    assert await open_shard(world, shard) == 0


async def test_a_shard_is_finished_when_all_have_expired_and_were_listed_once_more(world, shard):
    publisher, shards = world.publisher(), tending(world)
    long, *others = await issue(world, shard, CAPACITY, life=5 * DAY)
    await world.revoke(long)
    await shards.tend()
    late = await world.issue(shard, life=6 * DAY)
    await world.revoke(late)
    ends = world.now + 6 * DAY
    numbers = set()
    while world.now < ends + 3 * DAY:
        world.now += 6 * HOUR
        await shards.tend()
        await publisher.publish_due()
        full = await world.full(shard)
        if world.now <= ends:
            assert full.last_update_utc > world.now - HOUR, "it goes on"
            assert late in serials(full)
        elif full.last_update_utc >= ends:
            numbers.add(number(full))
            assert late in serials(full)
    assert len(numbers) == 1
    assert others
    await world.revoke(others[0])
    assert await world.queue() == 1
    await publisher.publish_due()
    await shards.tend()
    assert await world.queue() == 0, "nobody needs it any more"
    assert (await state_of(world, shard)).state == "finished"


async def test_a_clock_that_was_ahead_finishes_no_shard(world, shard):
    """Lesson 16: its certificates live, and what is revoked of them is to be listed."""
    publisher, shards = world.publisher(), tending(world)
    alive, *_ = await issue(world, shard, CAPACITY, life=20 * DAY)
    await shards.tend()
    world.now += 2 * DAY
    await shards.tend()
    world.now += 30 * DAY
    await publisher.publish_due()
    assert (await state_of(world, shard)).state == "finished"
    world.now -= 30 * DAY
    assert (await state_of(world, shard)).state != "finished"
    await world.revoke(alive)
    await shards.tend()
    assert await world.queue() == 1
    await publisher.publish_due()
    assert alive in serials(await world.full(shard))


async def test_the_end_of_a_shard_is_that_of_its_last_certificate_whatever_the_clock_said(world, shard):
    """Lesson 16. One was recorded long after the shard was closed, all others long before it was opened."""
    ahead = 40 * DAY
    world.now += ahead
    shards = tending(world)
    await issue(world, shard, CAPACITY - 1, life=DAY)
    late = await world.issue(shard, life=10 * DAY)
    await shards.tend()
    assert await open_shard(world, shard) == 1
    await world.publisher().publish_due()
    world.now -= ahead
    second = shard._replace(number=1)
    early = [await world.issue(second, life=life * DAY) for life in (3, 30)]
    ends = {shard: world.now + ahead + 10 * DAY, second: world.now + 30 * DAY}
    await crls.open_next(world.database, second, taken=2, actor=SERVER, now=world.now)
    await world.database.execute("UPDATE crl SET closed = $1 WHERE shard = 0", world.now)
    world.now += SETTLED_AFTER_CLOSING
    assert await crls.find_ends(world.database, settled=SETTLED_AFTER_CLOSING, now=world.now) == 2
    for one, end in ends.items():
        said = await world.database.fetchval(
            "SELECT ends FROM crl WHERE shard = $1 AND issuer_id = $2", one.number, one.issuer
        )
        assert said == end, (late, early)


async def test_what_a_clock_that_was_ahead_has_counted_is_counted_anew(world, shard):
    """The shard would grow until that day, and those of before it would never count."""
    shards = tending(world)
    await issue(world, shard, 5)
    world.now += 30 * DAY
    await issue(world, shard, 5)
    world.now += 2 * SETTLED
    await shards.tend()
    world.now -= 30 * DAY
    await issue(world, shard, CAPACITY - 11)
    world.now += 2 * SETTLED
    await shards.tend()
    assert await open_shard(world, shard) == 0
    await issue(world, shard, 1)
    await shards.tend()
    assert await open_shard(world, shard) == 1


async def state_of(world, shard):
    found = await crls.states(world.database, late=RULES.late, root_warning=RULES.root_warning, now=world.now)
    return next(state for state in found if state.shard == shard)


async def test_the_end_of_a_shard_waits_for_what_is_still_to_be_recorded(world, shard):
    await crls.open_next(world.database, shard, taken=1, actor=SERVER, now=world.now)
    for wait, found in ((timedelta(0), 0), (SETTLED_AFTER_CLOSING - SECOND, 0), (SECOND, 1), (SECOND, 0)):
        world.now += wait
        ends = await crls.find_ends(world.database, settled=SETTLED_AFTER_CLOSING, now=world.now)
        assert ends == found


async def test_an_expired_issuer_publishes_nothing_and_its_wishes_are_forgotten(world, shard, hierarchy):
    serial = await world.issue(shard)
    before = number(await world.full(shard))
    world.now = hierarchy.intermediate.not_after
    await world.revoke(serial)
    await world.publisher().publish_due()
    assert number(await world.full(shard)) == before
    await tending(world).tend()
    assert await world.queue() == 0


async def test_no_crl_promises_more_than_its_issuers_life(world, shard, hierarchy):
    world.now = hierarchy.intermediate.not_after - HOUR
    await world.publisher().publish_due()
    for crl in (await world.full(shard), await world.delta(shard)):
        assert crl.next_update_utc == hierarchy.intermediate.not_after


async def test_counting_reads_no_more_than_what_is_new(world, shard):
    """Of many certificates, those since the last count: PostgreSQL's plan for any values, on a table that is large."""
    for first in range(1, 60_000, 5000):  # in parts, for a statement has ten seconds
        await world.database.execute(
            """INSERT INTO certificate (serial, issuer_id, profile, profile_version, identifiers, spki_sha256, not_before,
                                        not_after, shard, recorded, der, words)
               SELECT lpad(to_hex(n), 32, '0'), $1, 'server', 1, ARRAY['dns:a.example'], 'x', $2,
                      $2::timestamptz + interval '9 days', 0, $2::timestamptz - interval '1 day' + n * interval '1 second',
                      'x', '' FROM generate_series($3::integer, $3 + 4999) n""",
            shard.issuer,
            world.now,
            first,
        )
    await world.database.fetch("ANALYZE certificate")
    await tending(world).tend()
    world.now += 2 * SETTLED
    rows = await world.database.fetch(
        """EXPLAIN (COSTS OFF) SELECT count(*) FROM certificate d
           WHERE d.issuer_id = $1 AND d.shard = $2 AND d.recorded > $3 AND d.recorded <= $4""",
        shard.issuer,
        0,
        world.now - 3 * SETTLED,
        world.now - SETTLED,
    )
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan" not in plan, plan
    assert "recorded >" in plan.partition("Index Cond")[2].partition("\n")[0], plan


async def test_a_revoked_issuer_is_retired_and_stays_so(world, shard, hierarchy):
    issuer = hierarchy.intermediate.id
    await issuers.revoke(
        world.database, issuer, reason=RevocationReason.CA_COMPROMISE, actor=Actor("operator"), now=world.now
    )
    record = next(one for one in await issuers.all_issuers(world.database) if one.id == issuer)
    assert (record.state, record.retired, record.revoked) == (IssuerState.RETIRED, world.now, world.now)
    for state in (IssuerState.ACTIVE, IssuerState.STAGED):
        assert not await issuers.change_state(
            world.database, issuer, state, actor=Actor("operator"), now=world.now
        )
    serial = await world.issue(shard)
    await world.revoke(serial)
    world.now += SECOND
    await world.publisher().publish_due()
    assert serials(await world.full(shard)) == {serial}, "its own CRL goes on"
