"""EAB keys as operators keep them: what they restrict, when they make no accounts, and what ends with them (lesson 14)."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.core.codes import Code
from acme_ca.core.eab import Restrictions
from acme_ca.core.policy import NameRules
from acme_ca.core.problems import ErrorType
from acme_ca.storage import policies
from acme_ca.storage.database import Database
from tests.support.client import assert_problem, key_change, prove
from tests.support.eab import (
    OPERATOR,
    add_eab_key,
    binding,
    bound_account,
    freeze,
    id_of,
    revoke_eab_key,
    unfreeze,
)
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.issuing import csr
from tests.support.jose import Key

pytestmark = IN_SESSION_LOOP

UNAUTHORIZED, REJECTED = ErrorType.UNAUTHORIZED, ErrorType.REJECTED_IDENTIFIER
ELSEWHERE, HERE = "192.0.2.0/24", "127.0.0.0/8"


def assert_frozen(answer) -> None:
    assert assert_problem(answer, UNAUTHORIZED, "frozen", status=403)["code"] == Code.ACCOUNT_FROZEN


async def register(ca, kid: str):
    key = Key.generate()
    return await ca.client.post(
        ca.client.url("new-account"), {"externalAccountBinding": binding(key, kid=kid)}, key=key
    )


async def change(ca, kid: str, restrictions: Restrictions) -> None:
    """As an operator does; the running server is told as its loop would."""
    body = restrictions.model_dump_json()
    await ca.sql(f"UPDATE eab_key SET restrictions = '{body}', changed = now() WHERE id = '{kid}'")
    await ca.application.policies.refresh()


async def put_policy(ca, scope: str, **rules) -> None:
    async with Database.open(ca.dsn, connections=1) as database:
        await policies.put(database, scope, NameRules(**rules), actor=OPERATOR, now=datetime.now(UTC))
    await ca.application.policies.refresh()


# ---------------------------------------------------------------- when a key makes no accounts

UNUSABLE = {
    "pending": {"pending": True},
    "expired": {"expires": datetime.now(UTC) - timedelta(seconds=1)},
}


@pytest.mark.parametrize("why", UNUSABLE)
async def test_a_key_that_may_make_no_account_makes_none(ca, why):
    await add_eab_key(ca, why, **UNUSABLE[why])
    problem = assert_problem(await register(ca, why), UNAUTHORIZED, status=403)
    assert problem["code"] == Code.EAB_KEY_UNUSABLE


async def test_accounts_outlive_the_expiry_of_their_key(ca):
    await add_eab_key(ca, "brief")
    account = await bound_account(ca, "brief")
    await ca.sql("UPDATE eab_key SET expires = now() - interval '1 hour', changed = now() WHERE id = 'brief'")
    assert (await account.new_order(ca.name())).status == 201
    assert_problem(await register(ca, "brief"), UNAUTHORIZED)


# ---------------------------------------------------------------- restrictions hold whether or not EAB is required


@pytest_asyncio.fixture(loop_scope="session")
async def restricted(ca):
    """Makes accounts whose EAB key has these restrictions."""

    async def make(**restrictions):
        kid = f"restricted-{ca.name().partition('.')[0]}"
        await add_eab_key(ca, kid)
        account = await bound_account(ca, kid)
        await change(ca, kid, Restrictions(**restrictions))
        return account, kid

    return make


async def test_names_of_the_key(ca, restricted):
    mine, other = ca.name(), ca.name()
    account, kid = await restricted(names={"allow": [f"exact:{mine}"]})
    assert (await account.new_order(mine)).status == 201
    problem = assert_problem(await account.new_order(mine, other), REJECTED, kid)
    (sub,) = problem["subproblems"]
    assert (sub["code"], sub["identifier"]["value"]) == (Code.NAME_NOT_ALLOWED, other)
    authz = {"identifier": {"type": "dns", "value": other}}
    assert_problem(await account.post(ca.client.url("new-authz"), authz), REJECTED)


async def test_names_of_the_service_of_the_key(ca):
    denied = ca.name()
    await add_eab_key(ca, "of-guarded", service="guarded")
    await add_eab_key(ca, "of-other", service="other")
    await put_policy(ca, "service:guarded", deny=[f"exact:{denied}"])
    guarded, other = await bound_account(ca, "of-guarded"), await bound_account(ca, "of-other")
    problem = assert_problem(await guarded.new_order(denied), REJECTED, "the service guarded denies it")
    assert problem["subproblems"][0]["code"] == Code.NAME_DENIED
    assert (await other.new_order(denied)).status == 201
    assert (await guarded.new_order(ca.name())).status == 201


async def test_names_of_the_server(ca, account):
    denied = ca.name()
    await put_policy(ca, "server", deny=[f"suffix:{denied}"])
    try:
        assert_problem(await account.new_order(f"a.{denied}"), REJECTED, "the server denies it")
        assert (await account.new_order(ca.name())).status == 201
    finally:
        await put_policy(ca, "server")
    assert (await account.new_order(denied)).status == 201


async def test_a_rule_that_came_between_new_order_and_finalize_is_kept(ca, restricted):
    """Lessons 2 and 3."""
    account, kid = await restricted()
    order = await ca.ready(account)
    await change(ca, kid, Restrictions(names={"deny": [f"exact:{order.names[0]}"]}))
    assert_problem(await order.finalize(), REJECTED, kid)
    await change(ca, kid, Restrictions())
    assert (await order.finalize()).status == 200, "the refusal changed nothing"


async def test_where_requests_come_from(ca, restricted):
    account, kid = await restricted(source_networks=[HERE])
    order = await ca.ready(account)
    await change(ca, kid, Restrictions(source_networks=[ELSEWHERE]))
    authz = {"identifier": {"type": "dns", "value": ca.name()}}
    for answer in (
        await account.new_order(ca.name()),
        await order.finalize(),
        await account.post(ca.client.url("new-authz"), authz),
        await register(ca, kid),
    ):
        problem = assert_problem(answer, UNAUTHORIZED, "127.0.0.1", status=403)
        assert problem["code"] == Code.SOURCE_NOT_ALLOWED
    assert (await order.read())["status"] == "ready"


async def test_profiles_of_the_key(ca, restricted):
    account, kid = await restricted(profiles=["client", "mtls"])
    problem = assert_problem(
        await account.new_order(ca.name(), profile="server"), ErrorType.INVALID_PROFILE, "client, mtls"
    )
    assert problem["code"] == Code.PROFILE_NOT_ALLOWED
    assert (await account.order(ca.name(), profile="mtls")).object["profile"] == "mtls"
    order = await account.order(ca.name())
    assert order.object["profile"] == "client", "the first that the key is for: the client cannot ask"
    await order.prove(ca.web)
    await change(ca, kid, Restrictions(profiles=["server"]))
    assert_problem(await order.finalize(), ErrorType.INVALID_PROFILE)


async def test_restrictions_that_cannot_be_read_refuse(ca, restricted):
    """Lesson 10: they never allow."""
    account, kid = await restricted()
    later = '{"invented_later": 1}'
    await ca.sql(f"UPDATE eab_key SET restrictions = '{later}', changed = now() WHERE id = '{kid}'")
    await ca.application.policies.refresh()
    answer = await account.post(
        ca.client.url("new-order"), {"identifiers": [{"type": "dns", "value": "a.example"}]}, failing=True
    )
    assert_problem(answer, ErrorType.SERVER_INTERNAL, status=503)
    await change(ca, kid, Restrictions())
    assert (await account.new_order(ca.name())).status == 201


async def test_a_key_that_this_process_does_not_know_is_looked_up(new_ca, ca, restricted):
    """Fail closed: an account of another worker's key is restricted at once."""
    account, _ = await restricted(names={"allow": ["exact:only.example"]})
    async with new_ca(dsn=ca.dsn, keys=ca.keys) as other:
        here = other.client
        assert_problem(await type(account)(here, account.key, account.url).new_order(ca.name()), REJECTED)


# ---------------------------------------------------------------- required, but for some names


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def exempting(new_ca):
    async with new_ca(eab_required=True, eab_exempt_names=["suffix:example.test"]) as made:
        yield made


async def test_without_a_key_only_the_exempt_names(exempting):
    directory = (await exempting.client.request("GET", exempting.client.url("directory"))).json
    assert directory["meta"]["externalAccountRequired"] is False
    account = await exempting.account()
    assert (await account.new_order(exempting.name())).status == 201
    for ask in (
        account.new_order(exempting.name(), "www.example.org"),
        account.post(
            exempting.client.url("new-authz"), {"identifier": {"type": "dns", "value": "www.example.org"}}
        ),
    ):
        problem = assert_problem(
            await ask, ErrorType.EXTERNAL_ACCOUNT_REQUIRED, "www.example.org", status=403
        )
        assert problem["subproblems"][0]["code"] == Code.EAB_KEY_MISSING


async def test_with_a_key_all_names(exempting):
    await add_eab_key(exempting, "any")
    account = await bound_account(exempting, "any")
    assert (await account.new_order("www.example.org")).status == 201


async def test_a_name_that_is_exempt_no_more_is_not_finalized(exempting, new_ca):
    account = await exempting.account()
    order = await exempting.ready(account)
    async with new_ca(dsn=exempting.dsn, keys=exempting.keys, eab_required=True) as strict:
        there = type(account)(strict.client, account.key, account.url)
        answer = await there.post(order.object["finalize"], {"csr": "AA"})
    assert_problem(answer, ErrorType.EXTERNAL_ACCOUNT_REQUIRED)


# ---------------------------------------------------------------- what ends with a key


async def test_lesson_14_a_revoked_key_freezes_its_accounts_at_once(ca, new_ca):
    await add_eab_key(ca, "frozen")
    account, another = await bound_account(ca, "frozen"), await bound_account(ca, "frozen")
    pending, ready = await account.order(ca.name()), await ca.ready(account)
    challenge = await pending.challenge()
    issued = await account.order(ca.name())
    leaf, *_ = await issued.issue(ca.web)
    async with new_ca(dsn=ca.dsn, keys=ca.keys) as other:
        there = type(account)(other.client, account.key, account.url)
        assert (await there.read(account.url)).status == 200, "remembered by the other worker, too"
        await revoke_eab_key(ca, "frozen")
        der = leaf.public_bytes(Encoding.DER)
        for ask in (
            account.new_order(ca.name()),
            another.new_order(ca.name()),
            there.new_order(ca.name()),
            account.read(account.url),
            account.read(issued.object["certificate"]),
            account.post(account.url, {"contact": []}),
            account.post(account.url, {"status": "deactivated"}),
            account.post(challenge["url"], {}),
            ready.finalize(),
            account.revoke(der),
            account.post(ca.client.url("key-change"), key_change(account, Key.generate())),
            account.client.post(ca.client.url("new-account"), {}, key=account.key),
            account.client.post(ca.client.url("new-account"), {"onlyReturnExisting": True}, key=account.key),
        ):
            assert_frozen(await ask)
    assert_problem(await register(ca, "frozen"), UNAUTHORIZED, status=403)
    told = await ca.sql(
        f"SELECT json_agg(json_build_array(actor, source)) FROM audit_event WHERE object = 'account:{id_of(account)}'"
        " AND event = 'account.frozen'"
    )
    assert told == f'[["{OPERATOR.name}", "{OPERATOR.source}"]]'


async def test_an_account_of_a_revoked_key_is_not_thawed(ca):
    await add_eab_key(ca, "gone-for-good")
    account = await bound_account(ca, "gone-for-good")
    await revoke_eab_key(ca, "gone-for-good")
    assert not await unfreeze(ca, account)
    assert_frozen(await account.new_order(ca.name()))


async def test_a_frozen_account_goes_on_where_it_was_when_it_is_thawed(ca):
    account = await ca.account()
    order = await ca.ready(account)
    await freeze(ca, account)
    assert_frozen(await order.finalize())
    assert await unfreeze(ca, account)
    assert (await order.finalize()).status == 200


async def test_a_validation_under_way_of_a_frozen_account_does_not_succeed(ca, new_ca):
    """It is made again when the account is thawed."""
    async with new_ca() as own:
        account = await own.account()
        order = await own_order(own, account)
        url, challenge = order.object["authorizations"][0], await order.challenge()
        release = asyncio.Event()
        own.application._authorizations._validator = Waiting(
            own.application._authorizations._validator, release
        )
        assert (await account.post(challenge["url"], {})).status == 200
        await freeze(own, account)
        release.set()
        await asyncio.sleep(0.3)
        assert await own.sql("SELECT status FROM authz") == "pending"
        assert await own.application._authorizations.take_over() == 0, "not while it is frozen"
        assert await unfreeze(own, account)
        await own.sql("UPDATE authz SET attempt_due = now() - interval '1 second'")
        assert await own.application._authorizations.take_over() == 1
        assert (await account.settled(url))["status"] == "valid"


class Waiting:
    """A validator whose work takes until it is released."""

    def __init__(self, validator, release: asyncio.Event) -> None:
        self._validator = validator
        self._release = release

    async def validate(self, attempt):
        await self._release.wait()
        return await self._validator.validate(attempt)


async def own_order(own, account):
    order = await account.order(own.name())
    challenge = await order.challenge()
    own.web.serve_token(challenge["token"], account.key_authorization(challenge["token"]))
    return order


async def test_lesson_14_nothing_is_recorded_after_a_key_is_revoked(new_ca):
    """Many orders are under way on two workers when the key goes: what was recorded was recorded before."""
    async with new_ca() as ca, new_ca(dsn=ca.dsn, keys=ca.keys) as other:
        await add_eab_key(ca, "busy")
        accounts = [await bound_account(ca, "busy") for _ in range(4)]
        orders = [await ca.ready(account) for account in accounts for _ in range(6)]

        async def finalize(place: int, order):
            await asyncio.sleep(place * 0.01)
            client = (ca, other)[place % 2].client
            there = type(order.account)(client, order.account.key, order.account.url)
            request = csr(*order.names)
            return await type(order)(there, order.url, order.object).finalize(request)

        async def revoke():
            await asyncio.sleep(0.1)
            await revoke_eab_key(ca, "busy")
            return await ca.sql("SELECT count(*) FROM certificate WHERE account_id IS NOT NULL")

        count, *answers = await asyncio.gather(revoke(), *(finalize(*each) for each in enumerate(orders)))
        issued = sum(answer.status == 200 for answer in answers)
        assert 0 < issued < len(orders), "some came before, some after"
        recorded = await ca.sql("SELECT count(*) FROM certificate WHERE account_id IS NOT NULL")
        assert recorded == count == issued
        for answer in answers:
            if answer.status != 200:
                assert answer.error in {UNAUTHORIZED, ErrorType.ORDER_NOT_READY}


async def test_lesson_14_of_accounts_made_while_the_key_is_revoked_all_are_frozen(new_ca):
    async with new_ca() as ca:
        await add_eab_key(ca, "contested")
        answers = await asyncio.gather(
            *(register(ca, "contested") for _ in range(12)),
            revoke_eab_key(ca, "contested"),
            return_exceptions=True,
        )
        made = sum(answer.status == 201 for answer in answers[:-1])
        assert await ca.sql("SELECT count(*) FROM account WHERE frozen IS NOT NULL") == made
        assert await ca.sql("SELECT count(*) FROM account") == made


async def test_certificates_of_a_revoked_key_are_taken_back_if_asked(ca):
    await add_eab_key(ca, "compromised")
    account = await bound_account(ca, "compromised")
    leaves = [(await (await account.order(ca.name())).issue(ca.web))[0] for _ in range(3)]
    await account.revoke(leaves[0].public_bytes(Encoding.DER))
    await revoke_eab_key(ca, "compromised")
    wish = {"reason": "privilegeWithdrawn", "comment": "left the house"}
    operator = await ca.operator()
    for left in (2, 0):
        answer = await operator.post("/eab-keys/compromised/revoke-certificates", wish)
        assert answer["revoked"] == left
    reasons = await ca.sql(
        f"SELECT array_agg(reason ORDER BY recorded) FROM certificate WHERE account_id = '{id_of(account)}'"
    )
    assert reasons == [0, 9, 9]
    assert await ca.sql("SELECT count(*) FROM crl_due") >= 1


async def test_a_proof_of_before_is_no_use_to_a_frozen_account(ca):
    account = await ca.account()
    name = ca.name()
    first = await account.order(name)
    await prove(account, first.object["authorizations"][0], ca.web)
    await freeze(ca, account)
    assert_frozen(await account.new_order(name))
    assert_frozen(await first.finalize())
