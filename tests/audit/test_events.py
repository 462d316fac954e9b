"""What the audit says of an act: who, what, when, from where, on which object, before and after."""

import json
from datetime import UTC, datetime

import asyncpg
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.ca import profiles
from acme_ca.core.model import Actor, IssuerId, RevocationReason
from acme_ca.core.renewal import SuggestedWindow
from acme_ca.core.states import IssuerState
from acme_ca.storage import certificates, issuers, renewals
from acme_ca.storage import keys as key_store
from acme_ca.storage import profiles as profile_store
from tests.support import records
from tests.support.client import key_change
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
    assert await last(database) == ("certificate.released", *_alice(), {"comment": "found again"})


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
