"""EAB keys: how often they are used, also when all come at once."""

import asyncio

import asyncpg
import pytest

from acme_ca.core.actors import Actor
from acme_ca.core.eab import EabKey
from acme_ca.core.ids import AccountId, EabKeyId
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.states import AccountStatus
from acme_ca.storage import accounts, eab
from tests.support import records
from tests.support.records import NOW


@pytest.mark.parametrize("uses", [1, 3])
async def test_an_eab_key_is_used_up_by_as_many_accounts_as_it_may_make(database, uses):
    """Lesson 14: also when they come at once."""
    key = EabKey(
        id=EabKeyId("kid"), hmac_key=bytes(32), owner="o", max_accounts=uses, created=NOW, approved=NOW
    )
    await eab.create(database, key, actor=Actor("operator"))

    async def create(number):
        return await accounts.create(
            database,
            records.Account(
                id=AccountId(records.new_id()),
                status=AccountStatus.VALID,
                jwk="{}",
                thumbprint=f"t{number}",
                eab_key_id=key.id,
                eab_binding={"protected": ""},
            ),
            spki_sha256=b"%d" % number,
            now=NOW,
            client="",
            hmac_key=key.hmac_key,
        )

    results = await asyncio.gather(*(create(number) for number in range(8)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, Problem)]
    assert len(refused) == 8 - uses
    assert {problem.type for problem in refused} == {ErrorType.UNAUTHORIZED}
    assert await database.fetchval("SELECT count(*) FROM account") == uses
    assert (await eab.find(database, key.id)).accounts == uses


async def test_a_binding_with_a_secret_that_was_just_replaced_makes_no_account(database):
    """It was verified a moment ago; what counts is what the transaction finds."""
    key = EabKey(id=EabKeyId("kid"), hmac_key=bytes(32), owner="o", created=NOW, approved=NOW)
    await eab.create(database, key, actor=Actor("operator"))
    assert await eab.rotate(database, key.id, b"1" * 32, actor=Actor("operator"), now=NOW)
    account = records.Account(
        id=AccountId(records.new_id()),
        status=AccountStatus.VALID,
        jwk="{}",
        thumbprint="t",
        eab_key_id=key.id,
        eab_binding={"protected": ""},
    )
    wish = {"spki_sha256": b"s", "now": NOW, "client": ""}
    with pytest.raises(Problem, match="ask the CA's operator for another"):
        await accounts.create(database, account, **wish, hmac_key=key.hmac_key)
    assert await database.fetchval("SELECT count(*) FROM account") == 0
    _, created = await accounts.create(database, account, **wish, hmac_key=b"1" * 32)
    assert created


async def test_an_account_whose_key_is_being_revoked_is_frozen_with_the_others(database, database_url):
    """Lesson 14: the revocation waits for who uses the key up, and then sees the account."""
    key = EabKey(id=EabKeyId("kid"), hmac_key=bytes(32), owner="o", created=NOW, approved=NOW)
    await eab.create(database, key, actor=Actor("operator"))
    maker = await asyncpg.connect(database_url)
    making = maker.transaction()
    await making.start()
    await maker.execute("UPDATE eab_key SET accounts = accounts + 1 WHERE id = 'kid'")
    await maker.execute(
        """INSERT INTO account (id, status, jwk, thumbprint, spki_sha256, eab_key_id, eab_binding, created, created_from)
           VALUES ('a', 'valid', '{}', 't', 't', 'kid', '{}', now(), '')"""
    )
    revocation = asyncio.create_task(eab.revoke(database, "kid", reason="", actor=Actor("operator"), now=NOW))
    await asyncio.sleep(0.2)
    assert not revocation.done()
    await making.commit()
    assert await revocation == ("a",)
    await maker.close()
