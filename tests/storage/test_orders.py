"""Orders: what becomes of them, and who wins one."""

import asyncio

import asyncpg
import pytest

from acme_ca.core.actors import Actor
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.states import AccountStatus, OrderStatus
from acme_ca.core.times import CLOCKS_APART
from acme_ca.storage import accounts, authorizations, certificates, keys, orders
from acme_ca.storage.keys import Objection
from tests.support import records
from tests.support.records import DAY, NOW

KEY = b"k" * 32
OBJECTIONS = {
    "blocked": Objection.BLOCKED,
    "compromised": Objection.COMPROMISED,
    "account key": Objection.ACCOUNT,
}


async def test_an_order_is_pending_then_ready_then_expired(database, owner):
    order = await records.order(database, owner, "a.example", "*.a.example")
    assert order.status is OrderStatus.PENDING
    assert len(order.authorizations) == 2
    await records.validate(database, owner, order)
    assert (await records.read_order(database, owner, order.id)).status is OrderStatus.READY
    assert (await records.read_order(database, owner, order.id, NOW + 8 * DAY)).status is OrderStatus.INVALID


async def test_one_failed_authorization_ends_the_order(database, owner):
    """Lesson 5."""
    order = await records.order(database, owner, "a.example", "b.example")
    await records.validate(database, owner, order, outcome=records.REFUSED)
    read = await records.read_order(database, owner, order.id)
    assert read.status is OrderStatus.INVALID
    assert await orders.living_ids(database, owner.id, after="", limit=9, now=NOW) == []


async def test_another_account_does_not_find_the_order(database, owner):
    """Lesson 11."""
    order = await records.order(database, owner, "a.example")
    assert await records.read_order(database, await records.account(database), order.id) is None


async def test_two_orders_for_the_same_names_are_two(database, owner):
    """Lesson 22."""
    one, two = [await records.order(database, owner, "a.example") for _ in range(2)]
    assert one.id != two.id
    assert set(one.authorizations).isdisjoint(two.authorizations)


async def test_orders_are_listed_in_pages(database, owner):
    made = sorted([(await records.order(database, owner, f"{n}.example")).id for n in range(5)])
    first = await orders.living_ids(database, owner.id, after="", limit=3, now=NOW)
    rest = await orders.living_ids(database, owner.id, after=first[-1], limit=3, now=NOW)
    assert first + rest == made


async def test_of_fifty_claims_one_wins(database, owner, draft):
    """Lesson 18."""
    order = await records.order(database, owner, "a.example")
    await records.validate(database, owner, order)
    claims = await asyncio.gather(
        *(
            orders.claim_and_record(
                database, order, records.linted(order, draft), spki_sha256=b"%d" % n, now=NOW
            )
            for n in range(50)
        )
    )
    won = [claim for claim in claims if claim]
    assert len(won) == 1
    assert await database.fetchval("SELECT array_agg(serial) FROM certificate") == [won[0].serial]


@pytest.mark.parametrize(
    "spoilt",
    [
        "pending",
        "deactivated",
        "expired",
        "account key",
        "account ended",
        "account frozen",
        "blocked",
        "compromised",
    ],
)
async def test_no_claim_unless_all_is_in_order(database, owner, draft, spoilt):
    """Fail closed: at the last moment, in the statement itself."""
    order = await records.order(database, owner, "a.example", "b.example")
    if spoilt != "pending":
        await records.validate(database, owner, order)
    if spoilt == "deactivated":
        await authorizations.deactivate(database, order.authorizations[1], client="192.0.2.1", now=NOW)
    if spoilt == "account ended":
        await accounts.update(
            database, owner.id, contact=None, status=AccountStatus.DEACTIVATED, client="192.0.2.1", now=NOW
        )
    if spoilt == "account frozen":
        assert await accounts.freeze(database, owner.id, reason="", actor=Actor("operator"), now=NOW)
    if spoilt == "blocked":
        await keys.block(database, [KEY], comment="", actor=Actor("operator"), now=NOW)
    if spoilt == "compromised":
        await records.compromise(database, owner, draft, KEY)
    key = owner.thumbprint.encode() if spoilt == "account key" else KEY
    now = NOW + 8 * DAY if spoilt == "expired" else NOW
    claim = await orders.claim_and_record(
        database, order, records.linted(order, draft), spki_sha256=key, now=now
    )
    assert claim is None
    assert await database.fetchval("SELECT count(*) FROM certificate WHERE order_id = $1", order.id) == 0
    assert await keys.objection(database, key) is OBJECTIONS.get(spoilt)


async def test_a_claim_waits_for_who_freezes_its_account(database, database_url, owner, draft):
    """Lesson 14: what is recorded was recorded before the account was frozen, however close they come."""
    order = await records.order(database, owner, "a.example")
    await records.validate(database, owner, order)
    freezer = await asyncpg.connect(database_url)
    freezing = freezer.transaction()
    await freezing.start()
    await freezer.execute("UPDATE account SET frozen = now() WHERE id = $1", owner.id)
    claim = asyncio.create_task(
        orders.claim_and_record(database, order, records.linted(order, draft), spki_sha256=KEY, now=NOW)
    )
    await asyncio.sleep(0.2)
    assert not claim.done()
    await freezing.commit()
    assert await claim is None
    await freezer.close()


async def test_a_crash_after_recording_leaves_what_can_be_resumed_and_revoked(database, owner, draft):
    """Lesson 18."""
    order = await records.order(database, owner, "a.example")
    await records.validate(database, owner, order)
    recorded = await orders.claim_and_record(
        database, order, records.linted(order, draft), spki_sha256=b"k", now=NOW
    )
    assert recorded is not None
    assert await orders.unsigned(database, before=NOW, limit=9, now=NOW) == []
    assert await orders.unsigned(database, before=NOW + DAY, limit=9, now=NOW + DAY) == [(order.id, recorded)]
    assert await orders.unsigned(database, before=NOW - DAY, limit=9, now=NOW - DAY) == [
        (order.id, recorded)
    ], "the clock was a day ahead"
    assert await orders.unsigned(database, before=NOW, limit=9, now=NOW - CLOCKS_APART) == []
    assert await certificates.revoke(
        database, recorded.serial, reason=RevocationReason.KEY_COMPROMISE, actor=Actor("operator"), now=NOW
    )
    signed = certificates.SignedCertificate(serial=recorded.serial, der=b"der")
    stored = await asyncio.gather(*(certificates.store(database, signed, now=NOW) for _ in range(5)))
    assert stored.count(True) == 1
    assert await orders.unsigned(database, before=NOW + DAY, limit=9, now=NOW + DAY) == []
    assert (await records.read_order(database, owner, order.id)).status is OrderStatus.VALID
    assert (await certificates.find(database, recorded.serial)).revoked == NOW
