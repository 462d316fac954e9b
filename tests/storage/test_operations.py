"""What the server does by itself: epochs, leases, retention."""

import asyncio
from datetime import timedelta

from acme_ca.core.challenges import ChallengeType
from acme_ca.core.times import CLOCKS_APART
from acme_ca.storage import operations, signers
from acme_ca.storage.database import Database
from acme_ca.storage.operations import Lease
from acme_ca.storage.signers import SpentNonce
from tests.support import records
from tests.support.records import DAY, EPOCH, NOW


async def test_the_first_proposal_of_an_epoch_and_of_a_secret_wins(database):
    assert [await operations.nonce_epoch(database, n) for n in (3, 4)] == [EPOCH, EPOCH]
    assert [await operations.shared_secret(database, "s", v) for v in (b"a", b"b")] == [b"a", b"a"]


async def test_expired_nonces_go(database):
    for value, expires in ((1, 10), (2, 2**31)):
        nonce = SpentNonce(value=value, expires=expires, epoch=EPOCH)
        await signers.spend_by_key(database, nonce, "nobody")
    assert await operations.delete_expired_nonces(database, NOW) == 1
    assert await database.fetchval("SELECT value FROM nonce") == 2


async def test_dead_orders_go_and_certificates_stay(database, owner, draft):
    """Lesson 25."""
    processing = await records.order(database, owner, "a.example")
    await records.validate(database, owner, processing)
    await records.claim(database, processing, draft)
    abandoned = await records.order(database, owner, "b.example")
    assert await records.answer(database, owner, abandoned.authorizations[0], ChallengeType.HTTP_01)
    failed = await records.order(database, owner, "c.example")
    await records.validate(database, owner, failed, outcome=records.REFUSED)
    assert await deleted(database, dead_before=NOW, evidence_before=NOW) == 0
    assert await deleted(database, dead_before=NOW + 30 * DAY, evidence_before=NOW) == 4
    assert await left(database) == {"orders": 1, "authz": 1, "validation": 1, "certificate": 1}
    assert await deleted(database, dead_before=NOW + 30 * DAY, evidence_before=NOW + 30 * DAY) == 1
    assert await left(database) == {"orders": 1, "authz": 0, "validation": 0, "certificate": 1}, "processing"


async def test_what_a_certificate_was_issued_on_is_kept_longer(database, owner, draft):
    order = await records.order(database, owner, "a.example", "b.example")
    await records.validate(database, owner, order)
    await records.issue(database, order, draft)
    assert await deleted(database, dead_before=NOW + 399 * DAY, evidence_before=NOW) == 0
    assert await left(database) == {"orders": 1, "authz": 2, "validation": 2, "certificate": 1}
    assert await deleted(database, dead_before=NOW + 399 * DAY, evidence_before=NOW + 399 * DAY) == 3
    assert await left(database) == {"orders": 0, "authz": 0, "validation": 0, "certificate": 1}


async def test_how_far_back_evidence_is_complete_is_known_before_any_goes(database):
    await deleted(database, dead_before=NOW, evidence_before=NOW)
    await deleted(database, dead_before=NOW, evidence_before=NOW - DAY)
    assert await database.fetchval("SELECT complete_since FROM evidence") == NOW, "it never goes back"


async def test_deletion_does_not_look_at_what_is_kept(database, owner):
    """Lesson 34: among twenty thousand rows of each table."""
    await database.execute(
        """WITH kept AS (
               INSERT INTO authz (id, account_id, identifier, status, expires, token, offered, challenge, validated, created)
               SELECT lpad(n::text, 32, '0'), $1, 'dns:a.example', 'valid', $2, 't', '{dns-01}', 'dns-01', $2, $2
               FROM generate_series(1, 20000) n RETURNING *
           ), records AS (
               INSERT INTO validation (authz_id, account_id, identifier, challenge, at, record)
               SELECT id, account_id, identifier, challenge, validated, '[]' FROM kept
           )
           INSERT INTO orders (id, account_id, status, identifiers, authzs, expires, profile, profile_version, issuer_id,
                               serial, created)
           SELECT id, account_id, 'valid', ARRAY[identifier], ARRAY[id], expires, 'server', 1, $3, id, created FROM kept""",
        owner.id,
        NOW,
        records.ISSUER,
    )
    await database.fetch("ANALYZE")
    for statement in (*operations.DELETE_DEAD, *operations.DELETE_EVIDENCE):
        plan = await database.fetch("EXPLAIN " + statement.replace("$1", f"'{NOW}'"))
        told = "\n".join(row[0] for row in plan)
        assert "Index Scan" in told
        assert "Seq Scan" not in told, told


async def deleted(database: Database, *, dead_before, evidence_before) -> int:
    """How many orders and authorizations go."""
    return await operations.delete_dead(database, dead_before=dead_before, evidence_before=evidence_before)


async def left(database: Database) -> dict[str, int]:
    tables = ("orders", "authz", "validation", "certificate")
    return {table: await database.fetchval(f"SELECT count(*) FROM {table}") for table in tables}


async def test_a_lease_has_one_holder_until_it_expires(database):
    async def take(holder, now):
        return bool(await operations.take_lease(database, "sweep", holder, now=now, seconds=60))

    assert (await asyncio.gather(*(take(f"h{n}", NOW) for n in range(6)))).count(True) == 1
    holder = await database.fetchval("SELECT holder FROM lease")
    assert await take(holder, NOW)
    assert not await take("another", NOW)
    assert await take("another", NOW + DAY)


async def test_a_lease_of_a_process_whose_clock_was_ahead_is_none(database):
    """It has died since: nobody else would do its work until that day."""
    lasts = timedelta(seconds=60)

    async def take(holder, now):
        return await operations.take_lease(database, "sweep", holder, now=now, seconds=lasts.total_seconds())

    async def is_leased(now):
        return await operations.is_leased(database, "sweep", now=now, seconds=lasts.total_seconds())

    assert await take("dead", NOW + CLOCKS_APART) == Lease()
    assert await is_leased(NOW)
    assert await take("living", NOW) is None, "clocks may be that far apart"
    ahead = NOW + CLOCKS_APART + timedelta(seconds=1)
    assert await take("dead", ahead) == Lease(), "its own"
    assert not await is_leased(NOW)
    assert await take("living", NOW) == Lease(holder="dead", until=ahead + lasts)
    assert await is_leased(NOW)
    assert await take("living", NOW) == Lease(), "told once"
    assert await take("dead", NOW) is None
