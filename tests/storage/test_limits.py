"""Buckets in PostgreSQL: all or none, exact, and without a deadlock."""

import asyncio
from datetime import timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acme_ca.core import limits
from acme_ca.core.limits import Charge, Limit, LimitKind
from acme_ca.storage import limits as store
from acme_ca.storage.database import Database
from tests.support.records import NOW

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SUBJECTS = count()
KIND = LimitKind.ORDERS_PER_ACCOUNT


@pytest.fixture
async def database(database_url):
    async with Database.open(database_url, connections=8) as opened:
        yield opened


def charge(subject: str, limit: Limit, *, spends: bool = True) -> Charge:
    key = limits.bucket_key(KIND, subject)
    return Charge(key=key, kind=KIND, subject=subject, limit=limit, spends=spends)


async def full_at(database):
    rows = await database.fetch("SELECT key, full_at FROM bucket ORDER BY key")
    return {row["key"].partition(":")[2]: row["full_at"] for row in rows}


async def test_as_many_as_the_amount_and_then_when(database):
    limit = Limit(5, HOUR)
    found = [await store.spend(database, [charge("a", limit)], now=NOW) for _ in range(7)]
    assert found[:5] == [None] * 5
    assert [refused.free_at - NOW for refused in found[5:]] == [limit.interval] * 2
    assert await store.spend(database, [charge("a", limit)], now=NOW + limit.interval) is None
    assert await store.spend(database, [charge("a", limit)], now=NOW + limit.interval) is not None


async def test_all_or_none(database):
    """The buckets before the one that is empty are as they were."""
    charges = [charge(subject, Limit(10, HOUR)) for subject in "ac"]
    await store.spend(database, [charges[0]], now=NOW)
    before = await full_at(database)
    narrow = charge("b", Limit(1, DAY))
    await store.spend(database, [narrow], now=NOW)
    refused = await store.spend(database, sorted([*charges, narrow]), now=NOW)
    assert refused.charge == narrow
    assert refused.free_at == NOW + DAY
    after = await full_at(database)
    assert after["a"] == before["a"]
    assert "c" not in after


async def test_a_look_takes_nothing_and_refuses_alike(database):
    limit = Limit(2, HOUR)
    look = charge("a", limit, spends=False)
    for _ in range(5):
        assert await store.spend(database, [look], now=NOW) is None
    assert await full_at(database) == {}
    for _ in range(2):
        assert await store.spend(database, [look, charge("b", Limit(9, HOUR))], now=NOW) is None
        assert await store.spend(database, [charge("a", limit)], now=NOW) is None
    before = await full_at(database)
    refused = await store.spend(database, [look, charge("b", Limit(9, HOUR))], now=NOW)
    assert (refused.charge, refused.free_at) == (look, NOW + limit.interval)
    assert await full_at(database) == before


@pytest.mark.parametrize("subjects", ["a", "ab", "abcdef"])
async def test_of_many_at_once_exactly_the_amount(database, subjects):
    """Sorted keys, so that none of them waits for the other for ever (lesson 34)."""
    narrow = len(subjects) // 2

    async def ask(number):
        limit = [Limit(50, HOUR)] * len(subjects)
        limit[narrow] = Limit(13, HOUR)
        charges = [charge(subject, of) for subject, of in zip(subjects, limit, strict=True)]
        return await store.spend(database, sorted(charges[number % 2 :] or charges), now=NOW)

    # every second one leaves out the first: other keys, the same order
    found = await asyncio.gather(*(ask(number) for number in range(80)))
    assert found.count(None) == 13
    assert {refused.charge.limit.amount for refused in found if refused} == {13}
    left = await store.peek(database, [charge(subjects[-1], Limit(50, HOUR))], now=NOW)
    if len(subjects) > 2:
        assert left[0].left == 50 - 13


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    limit=st.builds(Limit, st.integers(1, 20), st.integers(1, 86400).map(lambda s: timedelta(seconds=s))),
    gaps=st.lists(st.integers(-400_000, 4_000_000), min_size=1, max_size=30),
)
async def test_law_the_database_does_what_the_core_says(database, limit, gaps):
    """Also when the clock goes backwards now and then."""
    subject, known, now = f"{next(SUBJECTS)}", None, NOW
    for gap in gaps:
        now += timedelta(milliseconds=gap)
        after, free = limits.spent(limit, known, now=now), limits.free_at(limit, known, now=now)
        refused = await store.spend(database, [charge(subject, limit)], now=now)
        assert (refused is None) == (after is not None)
        if refused is not None:
            assert refused.free_at == free
            after = min(known, limits.ends(limit, known, now=now))
        known = after
        assert (await full_at(database))[subject] == known


async def test_a_clock_that_was_set_back_by_years(database):
    limit = Limit(3, HOUR)
    for _ in range(3):
        assert await store.spend(database, [charge("a", limit)], now=NOW + 1000 * DAY) is None
    refused = await store.spend(database, [charge("a", limit)], now=NOW)
    assert refused.free_at == NOW + limit.interval
    assert await store.spend(database, [charge("a", limit)], now=NOW + limit.interval) is None
    assert await store.spend(database, [charge("a", limit)], now=NOW + limit.interval) is not None


@pytest.mark.parametrize("subject", ["%", "_", "\\", "'", "a%", "orders-per-account:a"])
async def test_lesson_26_a_pattern_is_a_subject_like_any_other(database, subject):
    limit = Limit(1, HOUR)
    assert await store.spend(database, [charge("a", limit)], now=NOW) is None
    assert await store.spend(database, [charge(subject, limit)], now=NOW) is None
    assert await store.spend(database, [charge(subject, limit)], now=NOW) is not None


async def test_lesson_25_full_buckets_go_and_the_others_stay(database):
    for number in range(20):
        await store.spend(database, [charge(f"old {number}", Limit(5, HOUR))], now=NOW - DAY)
    await store.spend(database, [charge("new", Limit(5, HOUR))], now=NOW)
    assert await store.delete_full(database, now=NOW) == 20
    assert await store.delete_full(database, now=NOW) == 0
    assert list(await full_at(database)) == ["new"]


async def test_deleting_waits_for_nobody(database, database_url):
    await store.spend(database, [charge("old", Limit(5, HOUR))], now=NOW - DAY)
    async with database.transaction() as other:
        await other.execute("UPDATE bucket SET full_at = full_at")
        assert await asyncio.wait_for(store.delete_full(database, now=NOW), 5) == 0
