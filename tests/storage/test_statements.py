"""The statements that check and change: who wins, who is refused, what is left."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from acme_ca.ca.profiles import SERVER
from acme_ca.core.actors import Actor
from acme_ca.core.challenges import ChallengeType, Outcome
from acme_ca.core.eab import EabKey
from acme_ca.core.ids import AccountId, EabKeyId, Serial
from acme_ca.core.orders import Order
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.states import AccountStatus, AuthorizationStatus, OrderStatus
from acme_ca.storage import (
    accounts,
    authorizations,
    certificates,
    eab,
    keys,
    operations,
    orders,
    resources,
    signers,
)
from acme_ca.storage.database import Database
from acme_ca.storage.keys import Objection
from acme_ca.storage.orders import Unordered
from acme_ca.storage.resources import Resource
from acme_ca.storage.signers import Credential, SpentNonce
from tests.support import records
from tests.support.records import DAY, EPOCH, NOW

SCHEMA = Path(__file__).resolve().parents[2] / "schema.sql"
REFUSED = Outcome(problem=Problem(ErrorType.CONNECTION, "refused"), record=({"asked": "x"},))


@pytest.fixture
async def database(database_url):
    async with records.stocked(database_url) as opened:
        yield opened


@pytest.fixture
async def owner(database):
    return await records.account(database)


async def read_order(database: Database, owner, order_id, now=NOW):
    credential = records.credential(owner)
    _, order = await resources.read(
        database, credential, resource=Resource.ORDER, resource_id=order_id, now=now
    )
    return order


async def spend(database: Database, owner, nonce):
    credential = Credential(nonce=nonce, account=owner.id, thumbprint=owner.thumbprint)
    signer, _ = await resources.read(database, credential, resource=None, resource_id="", now=NOW)
    return signer


# ---------------------------------------------------------------- nonces


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


async def test_the_first_proposal_of_an_epoch_and_of_a_secret_wins(database):
    assert [await operations.nonce_epoch(database, n) for n in (3, 4)] == [EPOCH, EPOCH]
    assert [await operations.shared_secret(database, "s", v) for v in (b"a", b"b")] == [b"a", b"a"]


async def test_expired_nonces_go(database):
    for value, expires in ((1, 10), (2, 2**31)):
        nonce = SpentNonce(value=value, expires=expires, epoch=EPOCH)
        await signers.spend_by_key(database, nonce, "nobody")
    assert await operations.delete_expired_nonces(database, NOW) == 1
    assert await database.fetchval("SELECT value FROM nonce") == 2


# ---------------------------------------------------------------- accounts


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
    assert [found.accounts for found in await eab.all_keys(database)] == [uses]


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


# ---------------------------------------------------------------- keys (lesson 4)

KEY = b"k" * 32
OBJECTIONS = {
    "blocked": Objection.BLOCKED,
    "compromised": Objection.COMPROMISED,
    "account key": Objection.ACCOUNT,
}


async def claimed_with(database: Database, owner, draft, key: bytes) -> Serial:
    """The serial number of a certificate with the key."""
    order = await records.order(database, owner, "claimed.example")
    await records.validate(database, owner, order)
    linted = records.linted(order, draft)
    recorded = await orders.claim_and_record(database, order, linted, spki_sha256=key, now=NOW)
    assert recorded is not None
    return recorded.serial


async def compromise(database: Database, owner, draft, key: bytes) -> None:
    serial = await claimed_with(database, owner, draft, key)
    assert await certificates.revoke(database, serial, reason=1, actor=Actor("operator"), now=NOW)


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


@pytest.mark.parametrize("how", ["blocked", "compromised"])
@pytest.mark.parametrize("wish", ["newAccount", "keyChange"])
async def test_no_account_gets_a_key_that_is_refused(database, owner, draft, how, wish):
    """In the very statement that would give it: nothing can come between a check and it."""
    if how == "blocked":
        await keys.block(database, [KEY], comment="", actor=Actor("operator"), now=NOW)
    else:
        await compromise(database, owner, draft, KEY)
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
    assert OBJECTIONS[how] in refused.value.detail
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
    serial = await claimed_with(database, owner, draft, KEY)
    account = await create_with(database, KEY)
    assert await certificates.revoke(database, serial, reason=reason, actor=Actor("key:x"), now=NOW)
    assert await status_of(database, account) is (AccountStatus.REVOKED if ends else AccountStatus.VALID)
    assert await status_of(database, owner.id) is AccountStatus.VALID
    event = "SELECT count(*) FROM audit_event WHERE event = 'account.revoked' AND actor = 'key:x'"
    assert await database.fetchval(event) == int(ends)


async def test_blocking_is_done_once_and_told_once(database):
    wanted = [KEY, KEY, b"l" * 32]
    first, again = [
        await keys.block(database, wanted, comment=f"{n}", actor=Actor("operator"), now=NOW) for n in range(2)
    ]
    assert (sorted(first.keys), again.keys) == ([KEY, b"l" * 32], ())
    assert [found.comment for found in await keys.blocked(database, after=None, limit=9, now=NOW)] == [
        "0",
        "0",
    ]
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
    serial = await claimed_with(database, owner, draft, KEY)
    await database.execute(f"UPDATE certificate SET status_changed = $1{fate}", NOW)
    await keys.block(database, [KEY], comment="", actor=Actor("operator"), now=NOW)
    found = await certificates.living_with_keys(database, [b"x" * 32, KEY], now=NOW)
    assert [one.serial for one in found] == ([serial] if living else [])
    assert [one.living for one in await keys.blocked(database, after=None, limit=9, now=NOW)] == [int(living)]
    assert await certificates.living_with_keys(database, [KEY], now=NOW + 91 * DAY) == []


# ---------------------------------------------------------------- orders


async def test_an_order_is_pending_then_ready_then_expired(database, owner):
    order = await records.order(database, owner, "a.example", "*.a.example")
    assert order.status is OrderStatus.PENDING
    assert len(order.authorizations) == 2
    await records.validate(database, owner, order)
    assert (await read_order(database, owner, order.id)).status is OrderStatus.READY
    assert (await read_order(database, owner, order.id, NOW + 8 * DAY)).status is OrderStatus.INVALID


async def test_one_failed_authorization_ends_the_order(database, owner):
    """Lesson 5."""
    order = await records.order(database, owner, "a.example", "b.example")
    await records.validate(database, owner, order, outcome=REFUSED)
    read = await read_order(database, owner, order.id)
    assert read.status is OrderStatus.INVALID
    assert await orders.living_ids(database, owner.id, after="", limit=9, now=NOW) == []


async def test_another_account_does_not_find_the_order(database, owner):
    """Lesson 11."""
    order = await records.order(database, owner, "a.example")
    assert await read_order(database, await records.account(database), order.id) is None


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


# ---------------------------------------------------------------- validation


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
    await records.validate(database, owner, order, outcome=REFUSED)
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
    assert (await read_order(database, owner, order.id)).status is OrderStatus.INVALID


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


# ---------------------------------------------------------------- finalize


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
        await compromise(database, owner, draft, KEY)
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


async def test_a_crash_after_recording_leaves_what_can_be_resumed_and_revoked(database, owner, draft):
    """Lesson 18."""
    order = await records.order(database, owner, "a.example")
    await records.validate(database, owner, order)
    recorded = await orders.claim_and_record(
        database, order, records.linted(order, draft), spki_sha256=b"k", now=NOW
    )
    assert recorded is not None
    assert await orders.unsigned(database, before=NOW, limit=9) == []
    assert await orders.unsigned(database, before=NOW + DAY, limit=9) == [(order.id, recorded)]
    assert await certificates.revoke(
        database, recorded.serial, reason=RevocationReason.KEY_COMPROMISE, actor=Actor("operator"), now=NOW
    )
    signed = certificates.SignedCertificate(serial=recorded.serial, der=b"der")
    stored = await asyncio.gather(*(certificates.store(database, signed, now=NOW) for _ in range(5)))
    assert stored.count(True) == 1
    assert await orders.unsigned(database, before=NOW + DAY, limit=9) == []
    assert (await read_order(database, owner, order.id)).status is OrderStatus.VALID
    assert (await certificates.find(database, recorded.serial)).revoked == NOW


async def test_of_parallel_revocations_one_succeeds(database, owner, draft):
    order = await records.order(database, owner, "a.example")
    await records.validate(database, owner, order)
    recorded = await orders.claim_and_record(
        database, order, records.linted(order, draft), spki_sha256=b"k", now=NOW
    )
    revoked = await asyncio.gather(
        *(
            certificates.revoke(
                database, recorded.serial, reason=RevocationReason.UNSPECIFIED, actor=Actor("x"), now=NOW
            )
            for _ in range(9)
        )
    )
    assert revoked.count(True) == 1


@pytest.mark.parametrize("text", ["%", "_", "a%", "'; DROP TABLE account; --", "\\", "\0"])
async def test_client_strings_are_compared_as_they_are(database, owner, text):
    """Lesson 26."""
    await records.order(database, owner, "a.example")
    if text == "\0":  # never reaches the database: ids match ID, kids are parsed; PostgreSQL would refuse it
        with pytest.raises(asyncpg.DataError):
            await eab.find(database, text)
        return
    assert await read_order(database, owner, text) is None
    nonce = records.credential(owner).nonce
    assert (await signers.spend_by_key(database, nonce, text)).account is None
    assert await eab.find(database, text) is None


# ---------------------------------------------------------------- retention, leases, schema


async def test_dead_orders_go_and_certificates_stay(database, owner, draft):
    """Lesson 25."""
    processing = await records.order(database, owner, "a.example")
    await records.validate(database, owner, processing)
    await records.claim(database, processing, draft)
    abandoned = await records.order(database, owner, "b.example")
    assert await records.answer(database, owner, abandoned.authorizations[0], ChallengeType.HTTP_01)
    failed = await records.order(database, owner, "c.example")
    await records.validate(database, owner, failed, outcome=REFUSED)
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
        return await operations.take_lease(database, "sweep", holder, now=now, seconds=60)

    assert (await asyncio.gather(*(take(f"h{n}", NOW) for n in range(6)))).count(True) == 1
    holder = await database.fetchval("SELECT holder FROM lease")
    assert await take(holder, NOW)
    assert not await take("another", NOW)
    assert await take("another", NOW + DAY)


@pytest.mark.parametrize(
    ("column", "words", "beside"),
    [
        ("account", AccountStatus, set()),
        ("authz", AuthorizationStatus, {"expired"}),
        ("orders", OrderStatus, {"ready"}),
    ],
)
def test_the_schema_knows_the_words_of_the_states(column, words, beside):
    table = SCHEMA.read_text().partition(f"CREATE TABLE {column} (")[2].partition("\n)")[0]
    listed = re.search(r"status\s+text\s+NOT NULL CHECK \(status IN \(([^)]*)\)", table)
    assert listed is not None
    assert set(re.findall(r"'(\w+)'", listed[1])) == {str(word) for word in words} - beside


async def test_a_wildcard_is_never_offered_http_01(database, owner):
    """Lesson 8: the schema itself refuses."""
    spoilt = records.proposal(owner.id, "*.a.example")
    object.__setattr__(spoilt, "offered", (ChallengeType.HTTP_01,))
    with pytest.raises(asyncpg.CheckViolationError):
        await authorizations.create(database, spoilt, now=NOW)
