"""Status and life cycle: lessons 3, 8, 18 and 22, with several workers and after crashes."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.ca import profiles
from acme_ca.ca.authority import KEY_PAUSE
from acme_ca.ca.keystore import KeyKind, generate
from acme_ca.ca.served import KEY_RETRY
from acme_ca.config import ConfigurationError
from acme_ca.core.problems import ErrorType
from acme_ca.core.profiles import ExtendedKeyUsage, Profile
from tests.support.application import Keys, at_work
from tests.support.client import Order, assert_problem
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.issuing import csr
from tests.support.jose import Key
from tests.support.keys import Store
from tests.support.responders import CHALLENGE_PATH

pytestmark = IN_SESSION_LOOP


def at(ca, order: Order) -> Order:
    """The order as seen by way of another worker."""
    return Order(replace(order.account, client=ca.client), order.url, order.object)


# ---------------------------------------------------------------- lesson 18


async def test_lesson_18_of_fifty_finalizes_on_two_workers_one_gets_a_certificate(ca, new_ca):
    account = await ca.account()
    order = await ca.ready(account)
    requests = [csr(*order.names, key=Key.generate().private) for _ in range(50)]
    async with new_ca(dsn=ca.dsn) as second:
        workers = [at(worker, order) for worker in (ca, second)] * 25
        answers = await asyncio.gather(
            *(worker.finalize(request) for worker, request in zip(workers, requests, strict=True))
        )
    won = [answer for answer in answers if answer.status == 200]
    assert len(won) == 1
    assert {answer.error for answer in answers if answer.status != 200} == {ErrorType.ORDER_NOT_READY}
    assert won[0].json["status"] == "valid"
    identity = order.url.rpartition("/")[2]
    assert await ca.sql(f"SELECT count(*) FROM certificate WHERE order_id = '{identity}'") == 1


async def test_lesson_18_the_sweep_finishes_what_a_crash_left(new_ca, ca):
    """Recorded and not signed: the same serial number, the same bytes, once."""
    async with new_ca(dsn=ca.dsn, dev=True, test={"delay_issuance": 300}) as crashing:
        account = await crashing.account()
        order = await crashing.ready(account)
        assert (await order.finalize()).json["status"] == "processing"
    identity = order.url.rpartition("/")[2]
    serial = await ca.sql(f"SELECT serial FROM certificate WHERE order_id = '{identity}' AND der IS NULL")
    seen = at(ca, order)
    assert (await seen.read())["status"] == "processing"
    assert_problem(await seen.account.read(ca.client.url(f"cert/{serial}")), ErrorType.MALFORMED, status=404)
    await ca.sql(f"UPDATE certificate SET recorded = recorded - interval '1 hour' WHERE serial = '{serial}'")
    async with at_work(ca):
        settled = await seen.account.settled(order.url)
    assert settled["status"] == "valid"
    assert settled["certificate"].endswith(serial)
    downloaded = await seen.account.read(settled["certificate"])
    assert downloaded.status == 200


async def test_lesson_18_a_fresh_one_is_left_to_its_worker(new_ca, ca):
    """The sweep takes nothing from a process that may live."""
    async with new_ca(dsn=ca.dsn, dev=True, test={"delay_issuance": 300}) as slow:
        order = await slow.ready(await slow.account())
        await order.finalize()
        async with at_work(ca):
            await asyncio.sleep(0.3)
        assert (await order.read())["status"] == "processing"


async def test_lesson_18_what_cannot_be_signed_ends_invalid(new_ca):
    """Nothing stays `processing`: the certificate's row is gone from under the order."""
    async with new_ca() as ca:
        order = await ca.ready(await ca.account())
        await ca.sql(
            """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE EXCEPTION 'no certificate today'; END $$"""
        )
        await ca.sql(
            "CREATE TRIGGER refuse BEFORE UPDATE OF der ON certificate FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        answer = await order.finalize()
        assert (answer.status, answer.json["status"]) == (200, "invalid")
        assert answer.json["error"]["type"].endswith(":serverInternal")
        assert "today" not in answer.body.decode()
        assert (await order.read()) == answer.json
        assert ca.logged("issuance failed")


# ---------------------------------------------------------------- a crash in mid-validation


async def test_a_validation_whose_process_died_is_made_again(new_ca, ca):
    async with new_ca(dsn=ca.dsn) as crashing:
        account = await crashing.account()
        order = await account.order(ca.name())
        challenge = await order.challenge()
        path = CHALLENGE_PATH + challenge["token"]
        ca.web.raw(path, b"HTTP/1.1 200 OK\r\n", pause=1)
        await account.post(challenge["url"], {})
        identity = order.object["authorizations"][0].rpartition("/")[2]
        await ca.sql(f"UPDATE authz SET attempt_due = now() WHERE id = '{identity}'")
        ca.web.serve_token(challenge["token"], account.key_authorization(challenge["token"]))
        async with at_work(ca):
            settled = await replace(account, client=ca.client).settled(order.object["authorizations"][0])
    assert settled["status"] == "valid"


async def test_a_worker_that_ends_in_order_puts_its_validations_back(new_ca, ca):
    async with new_ca(dsn=ca.dsn) as ending:
        account = await ending.account()
        order = await account.order(ca.name())
        challenge = await order.challenge()
        ca.web.raw(CHALLENGE_PATH + challenge["token"], b"HTTP/1.1 200 OK\r\n", pause=1)
        await account.post(challenge["url"], {})
        await ending.application.finish(0.1)
    ca.web.serve_token(challenge["token"], account.key_authorization(challenge["token"]))
    async with at_work(ca):
        settled = await replace(account, client=ca.client).settled(order.object["authorizations"][0])
    assert settled["status"] == "valid"


# ---------------------------------------------------------------- lesson 3: what an order keeps


async def certified(order: Order) -> tuple[int, timedelta]:
    """Of the finalized order's certificate: how many extended key usages it has, and its life."""
    answer = await order.finalize()
    assert answer.status == 200, answer
    downloaded = await order.account.read(answer.json["certificate"])
    (leaf, *_) = x509.load_pem_x509_certificates(downloaded.body)
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    return len(usages), leaf.not_valid_after_utc - leaf.not_valid_before_utc + profiles.SECOND


async def test_lesson_3_an_order_keeps_its_profile(new_ca):
    """Another default profile for new orders changes none that was made before."""
    async with new_ca(default_profile="mtls") as before:
        order = await before.ready(await before.account())
        async with new_ca(dsn=before.dsn, default_profile="server") as after:
            new = await after.ready(await after.account())
            assert [(await certified(one))[0] for one in (at(after, order), new)] == [2, 1]


def second_version() -> Profile:
    usages = (ExtendedKeyUsage.SERVER_AUTH, ExtendedKeyUsage.CLIENT_AUTH)
    return profiles.BUILT_IN["server"].model_copy(
        update={"version": 2, "validity": timedelta(days=7), "extended_key_usages": usages}
    )


async def test_lesson_3_an_order_keeps_the_version_of_its_profile(new_ca, monkeypatch):
    """A release registers another version of the same profile, while its predecessor works beside it."""
    first, second = (1, timedelta(days=90)), (2, timedelta(days=7))
    async with new_ca() as before:
        early, late = [await before.ready(await before.account()) for _ in range(2)]
        monkeypatch.setitem(profiles.BUILT_IN, "server", second_version())
        async with new_ca(dsn=before.dsn) as after:
            assert await before.sql("SELECT count(*) FROM profile WHERE name = 'server'") == 2
            new, newer = [await after.ready(await after.account()) for _ in range(2)]
            assert await certified(at(after, early)) == first
            assert await certified(late) == first
            assert await certified(new) == second
            assert await certified(at(before, newer)) == second, (
                "which the predecessor did not know at its start"
            )


async def test_lesson_3_an_order_keeps_its_issuer(new_ca):
    """The successor signs what is ordered after its activation, the predecessor what was ordered before."""
    async with new_ca() as ca:
        early = await ca.ready(await ca.account())
        successor, _ = await ca.add_issuer()
        late = await ca.ready(await ca.account())
        assert await signer(early) == ca.hierarchy.intermediate.certificate
        assert await signer(late) == successor.certificate


async def test_lesson_3_an_order_is_moved_only_when_its_issuer_was_retired(new_ca):
    """It does not fail, and the record says that it was moved."""
    async with new_ca() as ca, new_ca(dsn=ca.dsn, keys=ca.keys) as other:
        order = await ca.ready(await ca.account())
        successor, _ = await ca.add_issuer()
        await ca.retire(ca.hierarchy.intermediate)
        # The other worker has not looked yet: the statement that records has the last word.
        await at(other, order).finalize()
        assert await signer(at(ca, order), finalized=True) == successor.certificate
        assert await ca.sql("SELECT count(*) FROM audit_event WHERE event = 'order.moved'") == 1


async def signer(order: Order, *, finalized: bool = False) -> x509.Certificate:
    """The CA certificate below which the order's is: the first of the chain, and it did sign."""
    if not finalized:
        await order.finalize()
    answer = await order.account.read((await order.read())["certificate"])
    leaf, issuer, *_ = x509.load_pem_x509_certificates(answer.body)
    leaf.verify_directly_issued_by(issuer)
    return issuer


# ---------------------------------------------------------------- a key store that goes away


async def test_without_its_key_finalize_leaves_the_order_unharmed(new_ca, hierarchy):
    """serverInternal with Retry-After; health is red; and all recovers by itself, at nobody's cost."""
    store = Store(hierarchy.intermediate.key)
    one = {"certificates_per_name_set": "1/1 day"}
    async with new_ca(keys=Keys({"file:intermediate.key": store.key()}), limits=one) as ca:
        order = await ca.ready(await ca.account())
        store.away = True
        for _ in range(2):  # the second is refused before anything is recorded
            answer = await order.finalize(failing=True)
            assert_problem(answer, ErrorType.SERVER_INTERNAL, "out of reach", status=503)
            assert answer.headers["Retry-After"] == "5"
            assert (await order.read())["status"] == "ready"
        assert (
            await ca.sql("SELECT count(*) FROM certificate WHERE tbs IS NOT NULL AND order_id IS NULL") == 1
        )
        health = await ca.plain.request("GET", "http://ca.test/health", failing=True)
        assert (health.status, health.json["checks"]["issuer_key"]) == (503, "does not sign")
        store.away = False
        await asyncio.sleep(KEY_PAUSE.total_seconds())
        assert (await order.finalize()).json["status"] == "valid"


async def test_a_key_store_that_comes_back_with_another_key_leaves_the_order_unharmed(new_ca, hierarchy):
    """Nothing that it signs goes anywhere; and who put another key there can put the right one back."""
    store = Store(hierarchy.intermediate.key)
    async with new_ca(keys=Keys({"file:intermediate.key": store.key()})) as ca:
        order = await ca.ready(await ca.account())
        right, store.held = store.held, generate(KeyKind.EC_P256)
        answer = await order.finalize(failing=True)
        assert_problem(answer, ErrorType.SERVER_INTERNAL, "out of reach", status=503)
        assert (await order.read())["status"] == "ready"
        store.held = right
        await asyncio.sleep(KEY_PAUSE.total_seconds())
        assert (await order.finalize()).json["status"] == "valid"


async def test_a_start_without_the_key_store_serves_all_the_same(new_ca, hierarchy):
    """Status is served and orders are taken; what needs the key waits for it."""
    store = Store(hierarchy.intermediate.key)
    keys = Keys({"file:intermediate.key": store.key()})
    async with new_ca() as before:
        keys.clear()
        async with new_ca(dsn=before.dsn, keys=keys, data=before.settings.data) as after:
            order = await after.ready(await after.account())
            answer = await order.finalize(failing=True)
            assert_problem(answer, ErrorType.SERVER_INTERNAL, "out of reach", status=503)
            keys["file:intermediate.key"] = store.key()
            await asyncio.sleep(KEY_RETRY.total_seconds())
            await after.application.issuers.refresh()
            assert (await order.finalize()).json["status"] == "valid"


async def test_lesson_17_a_start_without_an_active_issuer_serves_status_all_the_same(new_ca):
    """After the only issuer was revoked: nothing is issued, and what was revoked is still said."""
    async with new_ca() as before:
        issuer = before.hierarchy.intermediate.id
        await (await before.ready(await before.account())).issue(before.web)
        await before.sql(f"UPDATE issuer SET state = 'retired', retired = now() WHERE id = '{issuer}'")
        data = before.settings.data
        async with new_ca(dsn=before.dsn, data=data) as after, at_work(after):
            wanted = {"identifiers": [{"type": "dns", "value": after.name()}]}
            account = await after.account()
            answer = await account.post(account.client.url("new-order"), wanted, failing=True)
            assert_problem(answer, ErrorType.SERVER_INTERNAL, "No issuer", status=503)
            root = await after.plain.request("GET", "http://ca.test/ca/root.pem")
            assert x509.load_pem_x509_certificate(root.body) == after.hierarchy.root.certificate
            await fetched(after, f"/crl/{issuer}/0.crl")
        (data / "tls" / "server.pem").unlink()
        with pytest.raises(ConfigurationError, match=r"own certificate cannot be made: .*No issuer"):
            async with new_ca(dsn=before.dsn, data=data):
                pass


async def fetched(ca, path: str) -> None:
    """Once the publisher has made it."""
    async with asyncio.timeout(20):
        while (await ca.plain.request("GET", "http://ca.test" + path)).status != 200:  # noqa: ASYNC110  another's work
            await asyncio.sleep(0.1)


async def test_what_was_recorded_when_the_key_went_away_is_given_back(new_ca, hierarchy):
    """A crash between recording and signing, and a key store that is away at the restart."""
    async with new_ca(dev=True, test={"delay_issuance": 300}) as before:
        order = await before.ready(await before.account())
        assert (await order.finalize()).json["status"] == "processing"
        await before.sql("UPDATE certificate SET recorded = recorded - interval '1 hour'")
        store = Store(hierarchy.intermediate.key)
        keys = Keys({"file:intermediate.key": store.key()})
        async with new_ca(dsn=before.dsn, keys=keys) as after:
            store.away = True
            async with at_work(after):
                settled = await at(after, order).account.settled(order.url)
            assert settled["status"] == "ready"
            store.away = False
            await asyncio.sleep(KEY_PAUSE.total_seconds())
            assert (await at(after, order).finalize()).json["status"] == "valid"


# ---------------------------------------------------------------- lesson 22


async def test_lesson_22_orders_with_different_keys_stay_different(ca):
    """Two orders for one name at once, each finalized with its own key: two certificates."""
    account = await ca.account()
    name = ca.name()
    orders = [await (await account.order(name)).prove(ca.web) for _ in range(2)]
    keys = [Key.generate() for _ in orders]
    answers = await asyncio.gather(
        *(order.finalize(csr(name, key=key.private)) for order, key in zip(orders, keys, strict=True))
    )
    assert [answer.json["status"] for answer in answers] == ["valid", "valid"]
    chains = [
        await order.account.read(answer.json["certificate"])
        for order, answer in zip(orders, answers, strict=True)
    ]
    leaves = [x509.load_pem_x509_certificates(chain.body)[0] for chain in chains]
    assert [leaf.public_key() for leaf in leaves] == [key.private.public_key() for key in keys]
    for leaf in leaves:
        assert (await account.revoke(leaf.public_bytes(Encoding.DER))).status == 200


# ---------------------------------------------------------------- lesson 8


@pytest.mark.parametrize("kind", ["http-01", "tls-alpn-01"])
async def test_lesson_8_no_url_makes_a_wildcard_provable_in_another_way(ca, kind):
    account = await ca.account()
    order = await account.order(f"*.{ca.name()}")
    challenge = await order.challenge("dns-01")
    ca.web.serve_token(challenge["token"], account.key_authorization(challenge["token"]))
    answer = await account.post(challenge["url"].replace("dns-01", kind), {})
    assert_problem(answer, ErrorType.MALFORMED, status=404)
    assert (await order.read())["status"] == "pending"
