"""What holds for whom, as one process knows it, while operators change it."""

import asyncio

import pytest
import structlog

from acme_ca.ca.policies import Policies
from acme_ca.core.actors import SERVER
from acme_ca.core.eab import EabKey, Restrictions
from acme_ca.core.ids import EabKeyId
from acme_ca.core.policy import NamePolicy
from acme_ca.storage import eab
from tests.support import records
from tests.support.records import NOW

KEY = EabKeyId("kid")


@pytest.fixture
async def database(database_url):
    async with records.stocked(database_url) as opened:
        yield opened


async def test_a_key_that_is_changed_while_it_is_read_for_the_first_time(database, monkeypatch):
    """The look that its change is followed by does not know it yet."""
    key = EabKey(id=KEY, hmac_key=bytes(32), owner="o", created=NOW, approved=NOW)
    await eab.create(database, key, actor=SERVER)
    policies = Policies(
        database=database,
        settings=NamePolicy(()),
        unbound_names=None,
        clock=lambda: NOW,
        log=structlog.get_logger(),
    )
    read, is_read, go_on = eab.restrictions, asyncio.Event(), asyncio.Event()

    async def late(*arguments):
        found = await read(*arguments)
        is_read.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(eab, "restrictions", late)
    asked = asyncio.create_task(policies.of(KEY))
    await is_read.wait()
    changed = Restrictions(profiles=("client",)).model_dump_json()
    await database.execute("UPDATE eab_key SET restrictions = $1, changed = $2", changed, NOW)
    await policies.refresh()
    go_on.set()
    assert (await asked).restrictions.profiles == ("client",)
