"""Versions of profiles: who may add one, and that they never change."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from acme_ca.ca import profiles
from acme_ca.ca.profiles import BUILT_IN, SERVER
from acme_ca.core.actors import Actor
from acme_ca.core.profiles import Profile, ProfileRef
from acme_ca.storage import profiles as store
from acme_ca.storage.database import Database
from tests.support import records
from tests.support.records import DAY, NOW


@pytest.fixture
async def database(database_url):
    async with Database.open(database_url, connections=10) as opened:
        yield opened


def server_with(**differences) -> Profile:
    return Profile(**(SERVER.model_dump() | differences))


async def save(database, profile, *, built_in=False) -> int | None:
    return await store.save(database, profile, built_in=built_in, actor=Actor("operator"), now=NOW)


async def newest(database, name="server") -> store.ProfileVersion:
    return [version for version in await store.versions(database) if version.ref.name == name][-1]


async def stored(database, name: str, version: int) -> Profile:
    ref = ProfileRef(name=name, version=version)
    return Profile.model_validate((await store.bodies(database, [ref]))[ref])


async def events(database) -> list[tuple[str, str]]:
    rows = await database.fetch("SELECT event, actor FROM audit_event ORDER BY id")
    return [(row["event"], row["actor"]) for row in rows]


# ---------------------------------------------------------------- built-in profiles at the start


async def test_the_start_makes_the_built_in_profiles_known_once(database):
    for _ in range(2):
        await profiles.register(database, now=NOW)
    found = await store.versions(database)
    assert {version.ref for version in found} == {profile.ref for profile in BUILT_IN.values()}
    assert all(version.built_in and version.withdrawn is None for version in found)
    assert len(await events(database)) == len(BUILT_IN)


async def test_of_many_replicas_that_start_at_once_one_registers(database, monkeypatch):
    await profiles.register(database, now=NOW)
    monkeypatch.setitem(BUILT_IN, "server", server_with(validity="7 days"))
    await asyncio.gather(*(profiles.register(database, now=NOW) for _ in range(8)))
    assert (await newest(database)).ref.version == 2
    assert len(await store.versions(database)) == len(BUILT_IN) + 1
    assert len(await events(database)) == len(BUILT_IN) + 1


async def test_another_release_adds_a_version_and_changes_none(database, monkeypatch):
    await profiles.register(database, now=NOW)
    monkeypatch.setitem(BUILT_IN, "server", server_with(validity="7 days"))
    await profiles.register(database, now=NOW + DAY)
    assert (await stored(database, "server", 1)).validity == timedelta(days=90)
    second = await stored(database, "server", 2)
    assert (second.version, second.validity) == (2, timedelta(days=7))


async def test_what_an_operator_changed_is_left_alone(database, monkeypatch):
    await profiles.register(database, now=NOW)
    assert await save(database, server_with(validity="30 days")) == 2
    monkeypatch.setitem(BUILT_IN, "server", server_with(validity="7 days"))
    await profiles.register(database, now=NOW)
    assert (await newest(database)).ref.version == 2


async def test_what_an_operator_withdrew_stays_withdrawn(database, monkeypatch):
    await profiles.register(database, now=NOW)
    assert await store.withdraw(database, "server", actor=Actor("operator"), now=NOW)
    monkeypatch.setitem(BUILT_IN, "server", server_with(validity="7 days"))
    await profiles.register(database, now=NOW + DAY)
    found = await newest(database)
    assert (found.ref.version, found.withdrawn) == (2, NOW)


# ---------------------------------------------------------------- an operator's


async def test_each_save_is_the_next_version_with_its_event(database):
    assert [await save(database, server_with(validity=f"{days} days")) for days in (1, 2, 3)] == [1, 2, 3]
    assert [(await stored(database, "server", n)).validity // DAY for n in (1, 2, 3)] == [1, 2, 3]
    assert await events(database) == [("profile.saved", "operator")] * 3


async def test_saving_the_same_again_adds_nothing(database):
    """Whatever version it says that it has."""
    assert await save(database, SERVER) == 1
    assert await save(database, SERVER) is None
    assert await save(database, server_with(version=9)) is None
    assert len(await events(database)) == 1


async def test_of_parallel_saves_each_gets_a_version_of_its_own_or_none(database):
    results = await asyncio.gather(*(save(database, server_with(validity=f"{n} days")) for n in range(1, 9)))
    got = sorted(version for version in results if version is not None)
    assert got == list(range(1, len(got) + 1))
    assert len(await store.versions(database)) == len(got)


async def test_withdrawn_and_offered_again(database):
    await save(database, SERVER)
    assert not await store.offer(database, "server", actor=Actor("operator"), now=NOW)
    assert await store.withdraw(database, "server", actor=Actor("operator"), now=NOW)
    assert not await store.withdraw(database, "server", actor=Actor("operator"), now=NOW)
    assert (await newest(database)).withdrawn == NOW
    assert await store.offer(database, "server", actor=Actor("operator"), now=NOW)
    assert (await newest(database)).withdrawn is None
    assert not await store.withdraw(database, "nonesuch", actor=Actor("operator"), now=NOW)
    told = ["profile.saved", "profile.withdrawn", "profile.offered"]
    assert await events(database) == [(event, "operator") for event in told]


async def test_a_version_that_is_not_there(database):
    assert await store.bodies(database, [SERVER.ref]) == {}


async def test_an_order_pins_a_version_that_exists(database_url):
    async with records.stocked(database_url) as database:
        owner = await records.account(database)
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await records.order(database, owner, "a.example", profile=server_with(version=7))
