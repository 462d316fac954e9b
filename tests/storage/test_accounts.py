"""Accounts: who gets one, and what stays as it is."""

import asyncio

import pytest

from acme_ca.core.ids import AccountId
from acme_ca.core.problems import Problem
from acme_ca.core.states import AccountStatus
from acme_ca.storage import accounts
from tests.support import records
from tests.support.records import NOW


async def test_parallel_creation_with_one_key_makes_one_account(database):
    account = await records.account(database)
    copies = [
        accounts.create(
            database,
            records.Account(
                id=AccountId(records.new_id()),
                status=AccountStatus.VALID,
                jwk=account.jwk,
                thumbprint=account.thumbprint,
            ),
            spki_sha256=b"other",
            now=NOW,
            client="",
        )
        for _ in range(8)
    ]
    assert {(found.id, created) for found, created in await asyncio.gather(*copies)} == {(account.id, False)}


async def test_a_deactivated_account_stays_as_it_is(database, owner):
    """Lesson 15."""
    ended = await accounts.update(
        database, owner.id, contact=None, status=AccountStatus.DEACTIVATED, client="192.0.2.1", now=NOW
    )
    assert ended is not None
    assert ended.status is AccountStatus.DEACTIVATED
    assert (
        await accounts.update(
            database, owner.id, contact=("mailto:a@b.c",), status=None, client="192.0.2.1", now=NOW
        )
        is None
    )
    with pytest.raises(Problem):
        await accounts.change_key(
            database, owner, jwk="{}", thumbprint="n", spki_sha256=b"n", client="192.0.2.1", now=NOW
        )
    assert (
        await database.fetchval("SELECT count(*) FROM audit_event WHERE event = 'account.deactivated'") == 1
    )


async def test_a_key_in_use_names_its_holder(database, owner):
    other = await records.account(database)
    holder = await accounts.change_key(
        database, owner, jwk="{}", thumbprint=other.thumbprint, spki_sha256=b"x", client="192.0.2.1", now=NOW
    )
    assert holder == other.id
