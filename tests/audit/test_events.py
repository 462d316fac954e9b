"""What the audit says of an act: who, what, when, from where, on which object, before and after."""

import json
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.ca import profiles
from acme_ca.core.actors import Actor
from acme_ca.core.challenges import ChallengeType, Outcome
from acme_ca.core.ids import IssuerId
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.renewal import SuggestedWindow
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.states import IssuerState
from acme_ca.storage import accounts, authorizations, certificates, issuers, renewals
from acme_ca.storage import keys as key_store
from acme_ca.storage import profiles as profile_store
from tests.support import records
from tests.support.client import key_change, prove
from tests.support.eab import add_eab_key, bound_account
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.jose import Key
from tests.support.records import ISSUER, NOW

ALICE = Actor("operator:alice", "192.0.2.7")
BEGIN, END = datetime(2030, 2, 1, tzinfo=UTC), datetime(2030, 2, 2, tzinfo=UTC)


@pytest.fixture
async def database(database_url):
    async with records.stocked(database_url) as opened:
        yield opened


async def last(database):
    row = await database.fetchrow(
        "SELECT event, actor, source, detail FROM audit_event ORDER BY id DESC LIMIT 1"
    )
    return row["event"], row["actor"], row["source"], json.loads(row["detail"])


# ---------------------------------------------------------------- ACME


@IN_SESSION_LOOP
async def test_an_acme_client_is_told_of_with_its_address_and_what_it_changed(new_ca):
    async with new_ca() as ca:
        account = await ca.account(contact=["mailto:a@example.org"])
        await account.post(account.url, {"contact": ["mailto:b@example.org"]})
        fresh = Key.generate()
        change = key_change(account, fresh)
        assert (await account.post(ca.client.url("key-change"), change)).status == 200
        account.key = fresh
        order = await account.order(ca.name())
        (leaf, *_) = await order.issue(ca.web)
        assert (await account.revoke(leaf.public_bytes(Encoding.DER))).status == 200
        await account.post(order.object["authorizations"][0], {"status": "deactivated"})
        await account.post(account.url, {"status": "deactivated"})
        told = await _told_by(ca, f"account:{account.url.rpartition('/')[2]}")
    assert [event for event, _, _ in told] == [
        "account.created",
        "account.updated",
        "account.key-changed",
        "certificate.issued",
        "certificate.revoked",
        "authorization.deactivated",
        "account.deactivated",
    ]
    assert {source for _, source, _ in told} == {"127.0.0.1"}
    details = {event: detail for event, _, detail in told}
    assert details["account.updated"]["before"]["contact"] == ["mailto:a@example.org"]
    assert details["account.updated"]["after"]["contact"] == ["mailto:b@example.org"]
    assert details["account.key-changed"]["after"] == fresh.thumbprint
    assert details["authorization.deactivated"]["before"] == "valid"
    assert details["account.deactivated"]["before"]["status"] == "valid"
    assert details["account.deactivated"]["after"]["status"] == "deactivated"


@IN_SESSION_LOOP
async def test_who_tried_to_get_a_certificate_for_a_name_it_does_not_hold_is_told_of(new_ca):
    """One event for what failed, with its reason; none for what succeeded."""
    async with new_ca() as ca:
        account, held, others = await ca.account(), ca.name(), ca.name()
        order = await account.order(held, others)
        await prove(account, order.object["authorizations"][0], ca.web)
        await account.post((await order.challenge(place=1))["url"], {})
        settled = await account.settled(order.object["authorizations"][1])
        assert (await order.read())["status"] == "invalid"
        told = await _told_by(ca, f"account:{account.url.rpartition('/')[2]}")
        operator = await ca.operator()
        story = await operator.get(f"/orders/{order.url.rpartition('/')[2]}")
    assert [event for event, _, _ in told] == ["account.created", "authorization.failed"]
    _, source, detail = told[1]
    assert source == "127.0.0.1"
    assert detail["identifier"] == f"dns:{others}"
    assert detail["challenge"] == "http-01"
    assert detail["error"] == settled["challenges"][0]["error"]
    assert {"type", "code", "detail"} <= detail["error"].keys()
    (event,) = story["events"]
    assert event["event"] == "authorization.failed"
    assert event["object"] == f"authorization:{order.object['authorizations'][1].rpartition('/')[2]}"


@IN_SESSION_LOOP
async def test_an_order_whose_certificate_cannot_be_signed_is_told_of(new_ca):
    async with new_ca() as ca:
        account = await ca.account()
        order = await ca.ready(account)
        await ca.sql(
            """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN RAISE EXCEPTION 'no certificate today'; END $$"""
        )
        await ca.sql(
            "CREATE TRIGGER refuse BEFORE UPDATE OF der ON certificate FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        ended = (await order.finalize()).json
        told = await _told_by(ca, f"account:{account.url.rpartition('/')[2]}")
        serial = await ca.sql("SELECT serial FROM certificate WHERE order_id IS NOT NULL")
    names = [f"dns:{name}" for name in order.names]
    assert told[-1] == (
        "order.failed",
        "127.0.0.1",
        {"identifiers": names, "serial": serial, "error": ended["error"]},
    )


async def test_what_merely_expired_is_not_told_of(database):
    owner = await records.account(database)
    owned = await records.order(database, owner, "a.example")
    (authorization,) = owned.authorizations
    await records.answer(database, owner, authorization, ChallengeType.HTTP_01)
    failed = Outcome(problem=Problem(ErrorType.CONNECTION, "Nobody is there."))
    attempt, until = records.attempt(authorization, "a.example"), NOW + timedelta(days=7)
    late = NOW + timedelta(days=400)
    assert not await authorizations.settle(database, attempt, failed, valid_until=until, now=late)
    assert (await last(database))[0] != "authorization.failed"
    assert await authorizations.settle(
        database, attempt, failed, valid_until=until, client="192.0.2.7", now=NOW
    )
    assert (await last(database))[:3] == ("authorization.failed", f"account:{owner.id}", "192.0.2.7")


async def _told_by(ca, actor):
    connection = await asyncpg.connect(ca.dsn)
    try:
        rows = await connection.fetch(
            "SELECT event, source, detail FROM audit_event WHERE actor = $1 ORDER BY id", actor
        )
    finally:
        await connection.close()
    return [(row["event"], row["source"], json.loads(row["detail"])) for row in rows]


# ---------------------------------------------------------------- operators


async def test_a_graver_reason_tells_of_the_one_before(database):
    serial = await records.certificate(database)
    hold, worse = RevocationReason.CERTIFICATE_HOLD, RevocationReason.SUPERSEDED
    await certificates.revoke(database, serial, reason=hold, actor=ALICE, now=NOW)
    assert await last(database) == ("certificate.held", *_alice(), {"reason": 6})
    await certificates.revoke(database, serial, reason=worse, actor=ALICE, now=NOW)
    assert await last(database) == ("certificate.revoked", *_alice(), {"before": 6, "reason": 4})
    other = await records.certificate(database)
    await certificates.revoke(database, other, reason=hold, actor=ALICE, now=NOW)
    await certificates.release(database, other, actor=ALICE, comment="found again", now=NOW)
    event, *who, detail = await last(database)
    assert (event, *who, detail["comment"]) == ("certificate.released", *_alice(), "found again")
    assert (detail["before"]["reason"], datetime.fromisoformat(detail["before"]["revoked"])) == (6, NOW)


async def test_an_account_tells_what_it_was(database):
    owner = await records.account(database)
    await accounts.freeze(database, owner.id, reason="lost", actor=ALICE, now=NOW)
    assert await last(database) == ("account.frozen", *_alice(), {"reason": "lost"})
    await accounts.unfreeze(database, owner.id, reason="found", actor=ALICE, now=END)
    event, *who, detail = await last(database)
    assert (event, *who, detail["reason"]) == ("account.unfrozen", *_alice(), "found")
    assert datetime.fromisoformat(detail["since"]) == NOW
    await accounts.deactivate(database, owner.id, reason="gone", actor=ALICE, now=NOW)
    event, *who, detail = await last(database)
    assert (event, *who) == ("account.deactivated", *_alice())
    assert (detail["before"]["status"], detail["after"]["status"]) == ("valid", "deactivated")


@IN_SESSION_LOOP
async def test_a_service_tells_of_its_states_and_its_keys_of_their_certificates(new_ca):
    async with new_ca() as ca:
        alice = await ca.operator()
        await alice.post("/services/register", {"service_id": "s", "name": "S", "owner": "O"}, status=201)
        await add_eab_key(ca, "k", service="s")
        account = await bound_account(ca, "k")
        (leaf, *_) = await (await account.order(ca.name())).issue(ca.web)
        serial = f"{leaf.serial_number:032x}"
        await alice.post(f"/certificates/{serial}/hold", {"comment": "stolen?"})
        await alice.delete("/services/s")
        wish = {"reason": "superseded", "comment": "its service is gone"}
        assert (await alice.post("/eab-keys/k/revoke-certificates", wish))["revoked"] == 1
        await alice.post("/services/s/approve")
        told = {
            object_: [(one["event"], one["actor"], one["source"], one["detail"]) for one in found["items"]]
            for object_ in ("service:s", f"certificate:{serial}")
            for found in [await alice.get("/audit/events", object=object_)]
        }
    who = f"operator:{alice.name}", "127.0.0.1"
    assert told["service:s"][:2] == [
        ("service.approved", *who, {"before": "retired", "after": "approved"}),
        ("service.retired", *who, {"before": "approved", "after": "retired"}),
    ]
    assert told[f"certificate:{serial}"][0] == (
        "certificate.revoked",
        *who,
        {"before": 6, "reason": 4, "comment": "its service is gone"},
    )


async def test_a_window_tells_of_the_one_before(database):
    serial = await records.certificate(database)
    first, second = SuggestedWindow(start=BEGIN, end=END), SuggestedWindow(start=NOW, end=BEGIN)
    for window in (first, second):
        await renewals.move_windows(database, [serial], window, explanation_url=None, actor=ALICE, now=NOW)
    event, *who, detail = await last(database)
    assert (event, *who) == ("certificate.window-moved", *_alice())
    assert datetime.fromisoformat(detail["before"]["start"]) == BEGIN
    assert datetime.fromisoformat(detail["end"]) == BEGIN
    await renewals.clear_windows(database, [serial], actor=ALICE, now=NOW)
    event, *who, detail = await last(database)
    assert (event, *who) == ("certificate.window-cleared", *_alice())
    assert datetime.fromisoformat(detail["before"]["start"]) == NOW


async def test_issuers_tell_of_the_state_before(database):
    other = IssuerId("b" * 32)
    await issuers.register(
        database, records.issuer_record(other, parent_id=ISSUER, state=IssuerState.STAGED), actor=ALICE
    )
    assert (await last(database))[:3] == ("issuer.registered", *_alice())
    await issuers.change_state(database, other, IssuerState.ACTIVE, actor=ALICE, now=NOW)
    assert await last(database) == (
        "issuer.active",
        *_alice(),
        {"before": "staged", "after": "active"},
    )
    await issuers.revoke(database, other, reason=RevocationReason.SUPERSEDED, actor=ALICE, now=NOW)
    before = {"state": "active", "reason": None}
    assert await last(database) == ("issuer.revoked", *_alice(), {"reason": 4, "before": before})


async def test_profiles_and_blocked_keys_tell_who(database):
    profile = profiles.SERVER.model_copy(update={"name": "own"})
    for version in (1, 2):
        changed = profile.model_copy(update={"description": f"number {version}"})
        await profile_store.save(database, changed, built_in=False, actor=ALICE, now=NOW)
        event, *who, detail = await last(database)
        assert (event, *who) == ("profile.saved", *_alice())
        assert (detail["before"], detail["version"]) == (version - 1 or None, version)
    await profile_store.withdraw(database, "own", actor=ALICE, now=NOW)
    assert (await last(database))[:3] == ("profile.withdrawn", *_alice())
    await key_store.block(database, [bytes(32)], comment="lost", actor=ALICE, now=NOW)
    assert await last(database) == ("key.blocked", *_alice(), {"comment": "lost"})
    await key_store.unblock(database, bytes(32), actor=ALICE, now=NOW)
    assert await last(database) == ("key.unblocked", *_alice(), {"comment": "lost"})


def _alice():
    return ALICE.name, ALICE.source
