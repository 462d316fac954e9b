"""Many certificates taken back: what was shown and no more, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from acme_ca.core import identifiers
from acme_ca.core.actors import Actor
from acme_ca.core.codes import Code
from acme_ca.core.problems import Problem
from acme_ca.core.revocation import RevocationReason
from acme_ca.lifecycle.bulk import BulkRevocation
from acme_ca.storage import bulk
from acme_ca.storage.bulk import Filter
from tests.support import records
from tests.support.records import DAY, NOW

ALICE = Actor("operator:alice", "192.0.2.7")
SUPERSEDED, HOLD = RevocationReason.SUPERSEDED, RevocationReason.CERTIFICATE_HOLD
COMPROMISED = RevocationReason.KEY_COMPROMISE
LATER = NOW + timedelta(hours=1)
OTHER_ISSUER = "2" * 32


@pytest.fixture
async def database(database_url):
    async with records.stocked(database_url) as opened:
        yield opened


@pytest.fixture
def room(database) -> BulkRevocation:
    return BulkRevocation(database=database, clock=lambda: LATER)


async def take_back(room, wanted, *, expected, digest=None, reason=SUPERSEDED, comment="Why.") -> int:
    return await room.revoke(
        wanted, expected=expected, digest=digest, reason=reason, comment=comment, actor=ALICE
    )


async def revoked(database) -> set[str]:
    return {
        row["serial"]
        for row in await database.fetch("SELECT serial FROM certificate WHERE revoked IS NOT NULL")
    }


async def test_each_part_of_a_filter_finds_its_own(database, room):
    owner = await records.account(database)
    await database.execute(
        "INSERT INTO eab_key (id, hmac_key, owner, created) VALUES ('kid', $1, 'o', now())", b"k" * 32
    )
    bound = await records.account(database)
    await database.execute(
        "UPDATE account SET eab_key_id = 'kid', eab_binding = '{}' WHERE id = $1", bound.id
    )
    await records.issuers.register(
        database, records.issuer_record(records.IssuerId(OTHER_ISSUER)), actor=ALICE
    )
    differences = {
        "service": ({"service": "orders"}, Filter(service="orders")),
        "issuer": ({"issuer_id": OTHER_ISSUER}, Filter(issuer=OTHER_ISSUER)),
        "account": ({"account_id": owner.id}, Filter(account=owner.id)),
        "profile": ({"profile": "client"}, Filter(profile="client")),
        "name": (
            {"identifiers": ["dns:x.example", "dns:b.example"]},
            Filter(name=identifiers.dns("b.example")),
        ),
        "key": ({"spki_sha256": b"k" * 32}, Filter(key_sha256=b"k" * 32)),
        "eab key": ({"account_id": bound.id}, Filter(eab_key="kid")),
        "time": ({"recorded": NOW - 5 * DAY}, Filter(issued_from=NOW - 6 * DAY, issued_before=NOW - DAY)),
    }
    await records.certificate(database)
    made = {what: await records.certificate(database, **row) for what, (row, _) in differences.items()}
    for what, (_, wanted) in differences.items():
        found = await room.show(wanted, reason=SUPERSEDED)
        assert [serial for serial, _ in found.sample] == [made[what]], what
        assert found.count == 1
    both = replace(differences["service"][1], profile="client")
    assert (await room.show(both, reason=SUPERSEDED)).count == 0


async def test_what_is_over_is_left_alone(database, room):
    living = await records.certificate(database, service="s")
    held = await records.certificate(
        database, service="s", revoked=NOW, reason=HOLD, status_changed=NOW, comment="Stolen?"
    )
    await records.certificate(database, service="s", revoked=NOW, reason=4, status_changed=NOW)
    await records.certificate(database, service="s", not_after=NOW)
    assert (await room.show(Filter(service="s"), reason=HOLD)).count == 1
    assert (await room.show(Filter(service="s"), reason=SUPERSEDED)).count == 2
    assert await take_back(room, Filter(service="s"), expected=2) == 2
    rows = await database.fetch(
        "SELECT serial, revoked, reason, comment FROM certificate WHERE status_changed = $1", LATER
    )
    assert {(row["serial"], row["revoked"], row["reason"], row["comment"]) for row in rows} == {
        (living, LATER, 4, "Why."),
        (held, NOW, 4, "Why."),
    }


async def test_each_is_told_and_each_shard_is_due_once(database, room):
    serials = [await records.certificate(database, service="s", shard=number % 2) for number in range(5)]
    await take_back(room, Filter(service="s"), expected=5)
    rows = await database.fetch(
        "SELECT object, actor, source, detail FROM audit_event WHERE event = 'certificate.revoked'"
    )
    assert {row["object"] for row in rows} == {f"certificate:{serial}" for serial in serials}
    assert {(row["actor"], row["source"]) for row in rows} == {("operator:alice", "192.0.2.7")}
    assert json.loads(rows[0]["detail"]) == {"reason": 4, "comment": "Why."}
    due = await database.fetch("SELECT issuer_id, shard FROM crl_due ORDER BY shard")
    assert [row["shard"] for row in due] == [0, 1]


@pytest.mark.parametrize("expected", [0, 2, 4, 10**9])
async def test_another_number_than_was_shown_changes_nothing(database, room, expected):
    for _ in range(3):
        await records.certificate(database, service="s")
    with pytest.raises(Problem) as refused:
        await take_back(room, Filter(service="s"), expected=expected)
    assert (refused.value.code, refused.value.status) == (Code.CONFLICT, 409)
    assert await revoked(database) == set()


async def test_others_of_the_same_number_are_told_by_the_digest(database, room):
    first = await records.certificate(database, service="s")
    shown = await room.show(Filter(service="s"), reason=SUPERSEDED)
    await database.execute("UPDATE certificate SET service = NULL WHERE serial = $1", first)
    await records.certificate(database, service="s")
    with pytest.raises(Problem):
        await take_back(room, Filter(service="s"), expected=1, digest=shown.digest)
    again = await room.show(Filter(service="s"), reason=SUPERSEDED)
    assert await take_back(room, Filter(service="s"), expected=1, digest=again.digest) == 1


async def test_what_is_issued_meanwhile_is_left_alone(database, room):
    old = await records.certificate(database, service="s")
    new = await records.certificate(database, service="s", recorded=LATER)
    assert await take_back(room, Filter(service="s"), expected=1) == 1
    assert await revoked(database) == {old}
    assert new not in await revoked(database)


async def test_of_what_has_ended_nothing_is_left_alone(database, room):
    """Also what a replica has recorded whose clock is ahead."""
    serials = {
        await records.certificate(database, service="s", recorded=recorded)
        for recorded in (NOW, LATER + timedelta(minutes=1))
    }
    other = await records.certificate(database)
    wish = {"reason": SUPERSEDED, "comment": None, "actor": ALICE}
    assert await room.revoke_all(Filter(service="s"), **wish) == 2
    assert await revoked(database) == serials
    assert other not in serials
    with pytest.raises(Problem, match="empty"):
        await room.revoke_all(Filter(), **wish)


async def test_many_batches_and_broken_off_it_goes_on(database, room, monkeypatch):
    monkeypatch.setattr(bulk, "BATCH", 3)
    for _ in range(10):
        await records.certificate(database, service="s")
    genuine, batches = bulk.revoke_batch, []

    async def breaks_off(*arguments, **named):
        if len(batches) == 2:
            raise asyncio.CancelledError
        batches.append(await genuine(*arguments, **named))
        return batches[-1]

    monkeypatch.setattr(bulk, "revoke_batch", breaks_off)
    with pytest.raises(asyncio.CancelledError):
        await take_back(room, Filter(service="s"), expected=10)
    assert len(await revoked(database)) == 6
    monkeypatch.setattr(bulk, "revoke_batch", genuine)
    with pytest.raises(Problem, match="4 certificates"):
        await take_back(room, Filter(service="s"), expected=10)
    assert await take_back(room, Filter(service="s"), expected=4) == 4
    assert await database.fetchval("SELECT count(*) FROM audit_event WHERE event LIKE 'certificate.%'") == 10


async def test_asked_for_twice_at_once_each_is_taken_back_once(database, room):
    for _ in range(50):
        await records.certificate(database, service="s")
    done = await asyncio.gather(
        *(take_back(room, Filter(service="s"), expected=50) for _ in range(4)), return_exceptions=True
    )
    assert sum(number for number in done if isinstance(number, int)) == 50
    assert await database.fetchval("SELECT count(*) FROM audit_event WHERE event LIKE 'certificate.%'") == 50


async def test_a_compromised_key_ends_its_account(database, room):
    owner = await records.account(database)
    key = await database.fetchval("SELECT spki_sha256 FROM account WHERE id = $1", owner.id)
    await records.certificate(database, spki_sha256=key)
    assert await take_back(room, Filter(key_sha256=key), expected=1, reason=COMPROMISED) == 1
    assert await database.fetchval("SELECT status FROM account WHERE id = $1", owner.id) == "revoked"


async def test_a_filter_without_anything_is_refused(database, room):
    await records.certificate(database)
    for act in (room.show(Filter(), reason=SUPERSEDED), take_back(room, Filter(), expected=1)):
        with pytest.raises(Problem, match="empty"):
            await act
    assert await revoked(database) == set()


@pytest.mark.parametrize("text", ["s%", "_", "S", "'; DROP TABLE certificate; --"])
async def test_lesson_26_text_is_text(database, room, text):
    await records.certificate(database, service="s", profile="server")
    for wanted in (Filter(service=text), Filter(profile=text), Filter(account=text), Filter(eab_key=text)):
        assert (await room.show(wanted, reason=SUPERSEDED)).count == 0


async def test_a_comment_is_one_line(database, room):
    await records.certificate(database, service="s")
    with pytest.raises(Problem, match="comment"):
        await take_back(room, Filter(service="s"), expected=1, comment="a\nb")
    assert await revoked(database) == set()
