"""Connections that break, and schemas that are made, kept and refused."""

import asyncio
import contextlib

import asyncpg
import pytest

from acme_ca.core.codes import Code
from acme_ca.core.problems import Problem
from acme_ca.storage import database as store
from acme_ca.storage.database import Database, DatabaseUnavailable, SchemaError

OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def terminate_all(url):
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(OTHERS)
    finally:
        await connection.close()


async def test_a_connection_lost_in_the_middle_is_told_and_replaced(database_url):
    async with Database.open(database_url, connections=1) as database:
        sleeping = asyncio.create_task(database.fetchval("SELECT pg_sleep(20)"))
        await asyncio.sleep(0.1)
        await terminate_all(database_url)
        with pytest.raises(DatabaseUnavailable):
            await sleeping
        assert await database.fetchval("SELECT 1") == 1


async def test_a_connection_lost_between_uses_costs_one_failure_at_the_most(database_url):
    async with Database.open(database_url, connections=1) as database:
        await database.fetchval("SELECT 1")
        await terminate_all(database_url)
        with contextlib.suppress(DatabaseUnavailable):
            await database.fetchval("SELECT 1")
        assert await database.fetchval("SELECT 1") == 1


async def test_a_cancelled_statement_does_not_spoil_the_next(database_url):
    async with Database.open(database_url, connections=1) as database:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(database.fetchval("SELECT pg_sleep(5)"), 0.05)
        assert await database.fetchval("SELECT 1") == 1


async def test_a_refused_statement_leaves_the_connection_in_use(database_url):
    async with Database.open(database_url, connections=1) as database:
        before = await database.fetchval("SELECT pg_backend_pid()")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await database.fetchval("SELECT 1 / 0")
        assert await database.fetchval("SELECT pg_backend_pid()") == before


async def test_more_callers_than_connections_take_turns(database_url):
    async with Database.open(database_url, connections=2) as database:
        pids = await asyncio.gather(*(database.fetchval("SELECT pg_backend_pid()") for _ in range(20)))
    assert len(set(pids)) == 2


async def test_quick_and_durable_statements_commit_as_they_say(database_url):
    """Decision 6."""
    async with Database.open(database_url, connections=1) as database:
        assert await database.fetchval("SHOW synchronous_commit") == "off"
        assert (await database.fetchrow_durably("SHOW synchronous_commit"))[0] == "on"
        async with database.transaction() as connection:
            assert await connection.fetchval("SHOW synchronous_commit") == "on"


async def test_a_search_that_takes_too_long_is_cut_off_and_told(database_url, monkeypatch):
    monkeypatch.setattr(store, "_SEARCHING", "SET LOCAL statement_timeout = '50ms'")
    async with Database.open(database_url, connections=1) as database:
        pid = await database.fetchval("SELECT pg_backend_pid()")
        with pytest.raises(Problem, match="give more filters") as cut_off:
            await database.search("SELECT pg_sleep($1)", 60.0)
        assert cut_off.value.code is Code.SEARCH_TOO_LONG
        assert [row[0] for row in await database.search("SELECT pg_backend_pid()")] == [pid]


async def test_searches_leave_connections_to_issuing(database_url):
    async with Database.open(database_url, connections=4) as database:
        async with database.transaction() as holder:
            await holder.execute("SELECT pg_advisory_xact_lock(1)")
            lock = "SELECT pg_advisory_xact_lock_shared(1)"
            searches = [asyncio.create_task(database.search(lock)) for _ in range(8)]
            await asyncio.sleep(0.2)
            assert await asyncio.gather(*(database.fetchval("SELECT 1") for _ in range(8))) == [1] * 8
            assert not any(search.done() for search in searches)
        await asyncio.gather(*searches)


async def test_a_failed_transaction_leaves_nothing(database_url):
    async def fail(database):
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO secret VALUES ('a', 'b')")
            raise ValueError("no")

    async with Database.open(database_url, connections=1) as database:
        with pytest.raises(ValueError, match="no"):
            await fail(database)
        assert await database.fetchval("SELECT count(*) FROM secret") == 0


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1:1/x", "postgresql:///x?host=/nonexistent"])
async def test_an_unreachable_database_is_told(url):
    with pytest.raises(DatabaseUnavailable):
        async with Database.open(url, connections=1):
            pass
    with pytest.raises(DatabaseUnavailable):
        await store.migrate(url)


# ---------------------------------------------------------------- the schema


async def test_the_schema_is_made_once_by_whoever_comes_first(empty_database_url):
    await asyncio.gather(*(store.migrate(empty_database_url) for _ in range(4)))
    async with Database.open(empty_database_url, connections=1) as database:
        versions = await database.fetch("SELECT version FROM schema_version")
    assert [row["version"] for row in versions] == [store.SCHEMA_VERSION]


async def test_a_newer_database_is_refused_untouched(database_url):
    async with Database.open(database_url, connections=1) as database:
        await database.execute("INSERT INTO schema_version (version) VALUES ($1)", store.SCHEMA_VERSION + 1)
        with pytest.raises(SchemaError, match=f"schema version {store.SCHEMA_VERSION + 1}"):
            await store.migrate(database_url)


async def test_upgrades_are_applied_in_order_and_all_or_nothing(database_url, monkeypatch):
    older = store.SCHEMA_VERSION
    monkeypatch.setattr(store, "SCHEMA_VERSION", older + 2)
    steps = [(older + 1, "CREATE TABLE one ()"), (older + 2, "SELECT 1 / 0")]
    monkeypatch.setattr(store, "upgrades", lambda: steps)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await store.migrate(database_url)
    async with Database.open(database_url, connections=1) as database:
        assert await database.fetchval("SELECT to_regclass('one')") is None
        steps[1] = (older + 2, "ALTER TABLE one ADD two int")
        await store.migrate(database_url)
        assert await database.fetchval("SELECT max(version) FROM schema_version") == older + 2
        assert await database.fetch("SELECT two FROM one") == []


def test_the_last_upgrade_leads_to_the_version_of_the_schema():
    versions = [version for version, _ in store.upgrades()]
    assert versions == list(range(2, store.SCHEMA_VERSION + 1))
