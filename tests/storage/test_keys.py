"""Keys that nobody may have (lesson 4)."""

import pytest

from acme_ca.core.actors import Actor
from acme_ca.core.ids import AccountId
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.states import AccountStatus
from acme_ca.storage import accounts, certificates, keys
from acme_ca.storage.database import Database
from acme_ca.storage.keys import Objection
from acme_ca.storage.search import Wanted
from tests.support import records
from tests.support.records import DAY, NOW

KEY = b"k" * 32


async def create_with(database: Database, key: bytes) -> AccountId:
    made = records.Account(
        id=AccountId(records.new_id()), status=AccountStatus.VALID, jwk="{}", thumbprint=key.hex()
    )
    account, _ = await accounts.create(database, made, spki_sha256=key, now=NOW, client="")
    return account.id


async def status_of(database: Database, account: AccountId) -> AccountStatus:
    found = await accounts.find(database, account)
    assert found is not None
    return found.status


@pytest.mark.parametrize("why", [Objection.BLOCKED, Objection.COMPROMISED])
@pytest.mark.parametrize("wish", ["newAccount", "keyChange"])
async def test_no_account_gets_a_key_that_is_refused(database, owner, draft, why, wish):
    """In the very statement that would give it: nothing can come between a check and it."""
    if why is Objection.BLOCKED:
        await keys.block(database, [KEY], comment="", actor=Actor("operator"), now=NOW)
    else:
        await records.compromise(database, owner, draft, KEY)
    act = (
        create_with(database, KEY)
        if wish == "newAccount"
        else accounts.change_key(
            database, owner, jwk="{}", thumbprint="n", spki_sha256=KEY, client="192.0.2.1", now=NOW
        )
    )
    with pytest.raises(Problem) as refused:
        await act
    assert refused.value.type is ErrorType.BAD_PUBLIC_KEY
    assert why in refused.value.detail
    assert await database.fetchval("SELECT count(*) FROM account WHERE spki_sha256 = $1", KEY) == 0


async def test_an_account_whose_key_is_blocked_ends(database, owner):
    account = await create_with(database, KEY)
    done = await keys.block(database, [KEY], comment="leaked", actor=Actor("operator"), now=NOW)
    assert done.accounts == (account,)
    assert await status_of(database, account) is AccountStatus.REVOKED
    assert await status_of(database, owner.id) is AccountStatus.VALID
    event = "SELECT object FROM audit_event WHERE event = 'account.revoked' AND actor = 'operator'"
    assert await database.fetchval(event) == f"account:{account}"


@pytest.mark.parametrize(("reason", "ends"), [(1, True), (0, False), (4, False)])
async def test_an_account_whose_key_is_revoked_as_compromised_ends(database, owner, draft, reason, ends):
    """A certificate's key may become an account's, as long as it is good."""
    serial = await records.claim_with(database, owner, draft, KEY)
    account = await create_with(database, KEY)
    assert await certificates.revoke(database, serial, reason=reason, actor=Actor("key:x"), now=NOW)
    assert await status_of(database, account) is (AccountStatus.REVOKED if ends else AccountStatus.VALID)
    assert await status_of(database, owner.id) is AccountStatus.VALID
    event = "SELECT count(*) FROM audit_event WHERE event = 'account.revoked' AND actor = 'key:x'"
    assert await database.fetchval(event) == int(ends)


async def blocked(database):
    return (await keys.blocked(database, Wanted(filters={}, sort="created", limit=9), now=NOW)).items


async def test_blocking_is_done_once_and_told_once(database):
    wanted = [KEY, KEY, b"l" * 32]
    first, again = [
        await keys.block(database, wanted, comment=f"{n}", actor=Actor("operator"), now=NOW) for n in range(2)
    ]
    assert (sorted(first.keys), again.keys) == ([KEY, b"l" * 32], ())
    assert [found.comment for found in await blocked(database)] == ["0", "0"]
    events = "SELECT count(*) FROM audit_event WHERE event = 'key.blocked'"
    assert await database.fetchval(events) == 2
    assert [await keys.unblock(database, KEY, actor=Actor("operator"), now=NOW) for _ in range(2)] == [
        True,
        False,
    ]
    unblocked = "SELECT object FROM audit_event WHERE event = 'key.unblocked'"
    assert await database.fetchval(unblocked) == f"key:{KEY.hex()}"
    assert await create_with(database, KEY)


@pytest.mark.parametrize(
    ("fate", "living"),
    [("", True), (", revoked = $1, reason = 6", True), (", revoked = $1, reason = 4", False)],
)
async def test_living_certificates_with_a_key(database, owner, draft, fate, living):
    """On hold is alive: it may be released. Expired or revoked is not."""
    serial = await records.claim_with(database, owner, draft, KEY)
    await database.execute(f"UPDATE certificate SET status_changed = $1{fate}", NOW)
    await keys.block(database, [KEY], comment="", actor=Actor("operator"), now=NOW)
    found = await certificates.living_with_keys(database, [b"x" * 32, KEY], now=NOW)
    assert [one.serial for one in found] == ([serial] if living else [])
    assert [one.living for one in await blocked(database)] == [int(living)]
    assert await certificates.living_with_keys(database, [KEY], now=NOW + 91 * DAY) == []
