"""The background loops: one works, a failure does not end them."""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from acme_ca.storage import operations
from acme_ca.storage.database import Database, DatabaseUnavailable
from acme_ca.tasks import Background, Loop


async def run_for(seconds, *backgrounds):
    tasks = [asyncio.create_task(background.run()) for background in backgrounds]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def background(database, *loops, holder="one", log=None):
    return Background(
        loops,
        database=database,
        holder=holder,
        clock=lambda: datetime.now(UTC),
        log=log or structlog.get_logger(),
    )


async def test_a_loop_goes_on_after_failures(database_url):
    rounds = []

    async def work():
        rounds.append(len(rounds))
        if len(rounds) == 1:
            raise ValueError("surprise")
        if len(rounds) == 2:
            raise DatabaseUnavailable("gone")

    async with Database.open(database_url, connections=1) as database:
        await run_for(0.5, background(database, Loop(name="loop", interval=0.01, work=work)))
    assert len(rounds) > 3


async def test_a_loop_goes_on_when_something_in_its_work_was_cancelled(database_url):
    rounds = []

    async def work():
        rounds.append(len(rounds))
        inner = asyncio.create_task(asyncio.sleep(60))
        inner.cancel()
        await inner

    log = structlog.testing.CapturingLogger()
    async with Database.open(database_url, connections=1) as database:
        running = background(database, Loop(name="loop", interval=0.01, work=work), log=log)
        await asyncio.wait_for(run_for(0.5, running), timeout=30)
    assert len(rounds) > 3
    assert {call.kwargs["loop"] for call in log.calls} == {"loop"}
    assert len(log.calls) >= len(rounds) - 1, "the last may have been cut off"


async def test_a_loop_ends_when_it_is_cancelled_in_its_work(database_url):
    begun = asyncio.Event()

    async def work():
        begun.set()
        await asyncio.sleep(60)

    log = structlog.testing.CapturingLogger()
    async with Database.open(database_url, connections=1) as database:
        running = asyncio.create_task(
            background(database, Loop(name="a", interval=1, work=work), log=log).run()
        )
        await begun.wait()
        running.cancel()
        await asyncio.wait([running], timeout=30)
    assert running.cancelled()
    assert log.calls == []


async def test_of_two_processes_one_works_under_a_lease(database_url):
    workers = set()

    def loop(name):
        async def work():
            workers.add(name)

        return Loop(name="loop", interval=0.05, work=work, lease="work")

    async with Database.open(database_url, connections=2) as database:
        await run_for(0.5, *(background(database, loop(name), holder=name) for name in ("one", "two")))
    assert len(workers) == 1


async def test_the_lease_of_a_process_whose_clock_was_ahead_is_taken_over_and_told_of_once(database_url):
    rounds = 0
    log = structlog.testing.CapturingLogger()

    async with Database.open(database_url, connections=1) as database:

        async def take(holder, now):
            await operations.take_lease(database, "work", holder, now=now, seconds=1)

        async def work():
            nonlocal rounds
            rounds += 1
            await take("dead", datetime.now(UTC) + timedelta(days=1))

        await take("dead", datetime.now(UTC) + timedelta(days=1))
        loop = Loop(name="loop", interval=0.01, work=work, lease="work")
        await run_for(0.5, background(database, loop, log=log))
    assert rounds > 3
    (told,) = log.calls
    assert told.method_name == "warning"
    assert (told.kwargs["lease"], told.kwargs["holder"]) == ("work", "dead")
