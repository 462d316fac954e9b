"""Authorizations: the first answer counts, and what is settled stays settled."""

import asyncio

import asyncpg
import pytest

from acme_ca.core.challenges import ChallengeType, Outcome
from acme_ca.core.states import AuthorizationStatus, OrderStatus
from acme_ca.core.times import CLOCKS_APART
from acme_ca.storage import authorizations
from tests.support import records
from tests.support.records import DAY, NOW


async def test_a_valid_authorization_is_used_again_by_its_account_only(database, owner):
    first = await records.order(database, owner, "a.example", "b.example")
    await records.validate(database, owner, first)
    again = await records.order(database, owner, "b.example", "a.example")
    assert again.status is OrderStatus.READY
    assert again.authorizations == first.authorizations[::-1]
    assert (
        await records.order(database, owner, "a.example", reusable_since=NOW)
    ).status is OrderStatus.PENDING
    stranger = await records.account(database)
    assert (await records.order(database, stranger, "a.example")).status is OrderStatus.PENDING


async def test_only_the_first_answer_starts_an_attempt(database, owner):
    order = await records.order(database, owner, "a.example")
    kinds = [ChallengeType.HTTP_01, ChallengeType.DNS_01] * 4
    started = await asyncio.gather(
        *(
            records.answer(database, owner, order.authorizations[0], kind, due=NOW + DAY, now=NOW)
            for kind in kinds
        )
    )
    assert started.count(True) == 1


async def test_a_settled_challenge_is_not_settled_again(database, owner):
    """Lesson 8."""
    order = await records.order(database, owner, "a.example")
    await records.validate(database, owner, order, outcome=records.REFUSED)
    attempt = records.attempt(order.authorizations[0], "a.example", ChallengeType.DNS_01)
    assert not await authorizations.settle(
        database, attempt, Outcome(problem=None), valid_until=NOW + DAY, now=NOW
    )
    assert await database.fetchval("SELECT status FROM authz") == AuthorizationStatus.INVALID
    assert not await records.answer(
        database, owner, order.authorizations[0], ChallengeType.DNS_01, due=NOW + DAY, now=NOW
    )
    assert await database.fetchval("SELECT count(*) FROM validation") == 2


async def test_a_deactivated_authorization_does_not_come_back(database, owner):
    order = await records.order(database, owner, "a.example")
    authorization = order.authorizations[0]
    assert await records.answer(database, owner, authorization, ChallengeType.DNS_01, due=NOW + DAY, now=NOW)
    assert await authorizations.deactivate(database, authorization, client="192.0.2.1", now=NOW)
    attempt = records.attempt(authorization, "a.example", ChallengeType.DNS_01)
    assert not await authorizations.settle(
        database, attempt, Outcome(problem=None), valid_until=NOW + DAY, now=NOW
    )
    assert (await records.read_order(database, owner, order.id)).status is OrderStatus.INVALID


async def test_an_attempt_whose_process_died_is_taken_over_once(database, owner):
    order = await records.order(database, owner, "a.example")
    assert await records.answer(
        database, owner, order.authorizations[0], ChallengeType.HTTP_01, due=NOW, now=NOW - DAY / 24
    )
    later = NOW + DAY / 24
    taken = await asyncio.gather(
        *(authorizations.take_over_attempts(database, due=later + DAY, limit=10, now=later) for _ in range(5))
    )
    assert sorted(len(found) for found in taken) == [0, 0, 0, 0, 1]
    assert next(found for found in taken if found)[0].thumbprint == owner.thumbprint
    await authorizations.put_back_attempts(database, order.authorizations, now=later)
    assert len(await authorizations.take_over_attempts(database, due=later + DAY, limit=10, now=later)) == 1


async def test_an_attempt_that_began_by_a_clock_that_was_ahead_is_taken_over(database, owner):
    """Its client would wait for the authorization's end."""
    order = await records.order(database, owner, "a.example")
    minute = DAY / 24 / 60
    assert await records.answer(
        database, owner, order.authorizations[0], ChallengeType.HTTP_01, due=NOW + DAY + minute, now=NOW + DAY
    )

    async def taken_over(now):
        found = await authorizations.take_over_attempts(database, due=now + minute, limit=10, now=now)
        return len(found)

    assert await taken_over(NOW + DAY - CLOCKS_APART) == 0, "clocks may be that far apart"
    assert await taken_over(NOW) == 1
    assert await taken_over(NOW) == 0


async def test_a_wildcard_is_never_offered_http_01(database, owner):
    """Lesson 8: the schema itself refuses."""
    spoilt = records.proposal(owner.id, "*.a.example")
    object.__setattr__(spoilt, "offered", (ChallengeType.HTTP_01,))
    with pytest.raises(asyncpg.CheckViolationError):
        await authorizations.create(database, spoilt, now=NOW)
