"""The account that signs, its nonce and the act: one statement, and all or nothing."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from acme_ca.ca.profiles import SERVER
from acme_ca.core.actors import Actor
from acme_ca.core.challenges import ChallengeType
from acme_ca.core.ids import AccountId
from acme_ca.core.orders import Order
from acme_ca.core.states import AccountStatus
from acme_ca.storage import accounts, authorizations, eab, operations, orders, resources, signers
from acme_ca.storage.database import Database
from acme_ca.storage.orders import Unordered
from acme_ca.storage.signers import Credential, SpentNonce
from tests.support import records
from tests.support.records import DAY, EPOCH, NOW


async def spend(database: Database, owner, nonce):
    credential = Credential(nonce=nonce, account=owner.id, thumbprint=owner.thumbprint)
    signer, _ = await resources.read(database, credential, resource=None, resource_id="", now=NOW)
    return signer


async def test_of_parallel_uses_of_a_nonce_exactly_one_is_the_first(database, owner):
    """Lesson 13."""
    nonce = SpentNonce(value=-5, expires=2**31, epoch=EPOCH)
    found = await asyncio.gather(*(spend(database, owner, nonce) for _ in range(40)))
    assert [signer.nonce_was_fresh for signer in found].count(True) == 1
    assert {signer.account for signer in found} == {owner}


async def test_of_parallel_acts_with_one_nonce_exactly_one_is_done(database, owner):
    """Lesson 13: the act and the nonce are one statement."""
    credential = records.credential(owner)
    order = await records.order(database, owner, "a.example")

    async def act(number):
        other = replace(order, id=f"{number:032x}")
        proposals = [records.proposal(owner.id, "b.example")]
        return await orders.create(
            database, credential, other, proposals, profile=SERVER, now=NOW, reusable_since=NOW
        )

    results = await asyncio.gather(*(act(number) for number in range(20)))
    assert [isinstance(made, Order) for _, made in results].count(True) == 1
    assert await database.fetchval("SELECT count(*) FROM orders") == 2
    assert await database.fetchval("SELECT count(*) FROM authz") == 2


@pytest.mark.parametrize(
    "spoilt", ["nonce", "epoch", "account ended", "account frozen", "key changed", "unknown account"]
)
async def test_no_act_unless_the_signer_may(database, owner, spoilt):
    """Lesson 10: fail closed, in the statement itself."""
    order = await records.order(database, owner, "a.example")
    credential = records.credential(owner, epoch=8 if spoilt == "epoch" else EPOCH)
    if spoilt == "nonce":
        await spend(database, owner, credential.nonce)
    if spoilt == "account ended":
        await accounts.update(
            database, owner.id, contact=None, status=AccountStatus.DEACTIVATED, client="192.0.2.1", now=NOW
        )
    if spoilt == "account frozen":
        assert await accounts.freeze(database, owner.id, reason="", actor=Actor("operator"), now=NOW)
    if spoilt == "key changed":
        await accounts.change_key(
            database, owner, jwk="{}", thumbprint="n", spki_sha256=b"n", client="192.0.2.1", now=NOW
        )
    if spoilt == "unknown account":
        credential = replace(credential, account=AccountId("0" * 32))
    authorization, kind = order.authorizations[0], ChallengeType.HTTP_01
    _, _, begun = await authorizations.answer(
        database, credential, authorization, kind, due=NOW + DAY, now=NOW
    )
    assert not begun
    proposals = [records.proposal(owner.id, "b.example")]
    _, made = await orders.create(
        database,
        replace(credential),
        replace(order, id="f" * 32),
        proposals,
        profile=SERVER,
        now=NOW,
        reusable_since=NOW,
    )
    assert made is Unordered.NOT_ENTITLED
    assert await database.fetchval("SELECT count(*) FROM orders") == 1
    assert await database.fetchval("SELECT count(*) FROM authz WHERE challenge IS NULL") == 1


async def test_a_nonce_of_an_epoch_before_the_table_was_emptied_is_refused(database, owner):
    """Lesson 13: what a crash of PostgreSQL does to an unlogged table."""
    await database.fetch("TRUNCATE nonce, nonce_epoch")
    nonce = SpentNonce(value=1, expires=2**31, epoch=EPOCH)
    lost = await spend(database, owner, nonce)
    assert not lost.nonce_was_fresh
    assert lost.epoch is None
    assert await operations.nonce_epoch(database, 8) == 8
    again = await spend(database, owner, nonce)
    assert not again.nonce_was_fresh
    assert again.epoch == 8


@pytest.mark.parametrize("text", ["%", "_", "a%", "'; DROP TABLE account; --", "\\", "\0"])
async def test_client_strings_are_compared_as_they_are(database, owner, text):
    """Lesson 26."""
    await records.order(database, owner, "a.example")
    if text == "\0":  # never reaches the database: ids match ID, kids are parsed; PostgreSQL would refuse it
        with pytest.raises(asyncpg.DataError):
            await eab.find(database, text)
        return
    assert await records.read_order(database, owner, text) is None
    nonce = records.credential(owner).nonce
    assert (await signers.spend_by_key(database, nonce, text)).account is None
    assert await eab.find(database, text) is None
