"""Looking at the database again: what was committed before the call is known after it, whoever else looks."""

import asyncio
from datetime import timedelta

import pytest

from acme_ca.refreshing import Refresh, Remembered
from tests.support.records import NOW


class Memory:
    """Remembers a value of a database that answers late: when it is told to."""

    def __init__(self):
        self.stored = self.known = "old"
        self.reads = 0
        self.answers = asyncio.Event()
        self.look = Refresh(self._read)

    async def _read(self):
        self.reads += 1
        found = self.stored
        await self.answers.wait()
        if found == "broken":
            raise ValueError(found)
        self.known = found


async def begun(*calls):
    tasks = [asyncio.create_task(call()) for call in calls]
    await asyncio.sleep(0)
    return tasks


async def test_a_look_that_began_before_the_change_is_not_enough():
    memory = Memory()
    await begun(memory.look)
    memory.stored = "new"
    [mine] = await begun(memory.look)
    memory.answers.set()
    await mine
    assert memory.known == "new"


async def test_an_older_look_does_not_undo_a_newer_one():
    memory = Memory()
    [older] = await begun(memory.look)
    memory.stored = "new"
    [newer] = await begun(memory.look)
    memory.answers.set()
    await asyncio.gather(older, newer)
    assert memory.known == "new"


async def test_those_who_wait_share_one_look():
    memory = Memory()
    tasks = await begun(*[memory.look] * 100)
    memory.answers.set()
    await asyncio.gather(*tasks)
    assert memory.reads == 2


async def test_a_look_that_failed_is_nobody_elses_answer():
    memory = Memory()
    [first] = await begun(memory.look)
    memory.stored = "broken"
    second, third = await begun(memory.look, memory.look)
    memory.answers.set()
    await first
    with pytest.raises(ValueError, match="broken"):
        await second
    with pytest.raises(ValueError, match="broken"):
        await third
    memory.stored = "new"
    await memory.look()
    assert memory.known == "new"


async def test_a_look_that_was_given_up_is_nobody_elses_answer():
    memory = Memory()
    first, second = await begun(memory.look, memory.look)
    first.cancel()
    memory.answers.set()
    await second
    assert memory.known == "old"
    assert memory.reads == 2


def test_an_answer_is_remembered_for_its_while_and_not_when_the_clock_was_set_back():
    remembered, second = Remembered[bool](), timedelta(seconds=1)
    assert remembered.at(NOW) is None
    assert remembered.keep(False, now=NOW, lasts=10 * second) is False
    assert remembered.at(NOW) is False, "an answer, too"
    assert remembered.at(NOW + 9 * second) is False
    assert remembered.at(NOW + 10 * second) is None
    assert remembered.at(NOW - second) is None
