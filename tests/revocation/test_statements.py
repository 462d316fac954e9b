"""The statements that revoke, hold and release agree with the rules, and tell the CRL and the audit."""

import asyncio
import json
from datetime import timedelta

import pytest

from acme_ca.core.actors import SERVER, Actor
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.revocation import HOLD, KEY_COMPROMISE, REASONS_AFTER, RevocationReason
from acme_ca.revocation.revoke import Revocation
from acme_ca.storage import certificates, issuers
from tests.support import records
from tests.support.records import DAY, ISSUER, NOW

OPERATOR = Actor("operator:test")
SUPERSEDED = RevocationReason.SUPERSEDED


@pytest.fixture
async def database(database_url):
    async with records.stocked(database_url) as opened:
        yield opened


@pytest.fixture
def room(database):
    return Revocation(database=database, clock=lambda: NOW)


async def due(database):
    rows = await database.fetch("SELECT issuer_id, shard FROM crl_due ORDER BY id")
    return [(row["issuer_id"], row["shard"]) for row in rows]


async def last_event(database):
    row = await database.fetchrow(
        "SELECT event, actor, object, detail FROM audit_event ORDER BY id DESC LIMIT 1"
    )
    return row["event"], row["actor"], row["object"], json.loads(row["detail"])


@pytest.mark.parametrize("before", REASONS_AFTER, ids=str)
@pytest.mark.parametrize("reason", RevocationReason)
async def test_the_statement_goes_by_the_table(database, before, reason):
    """All pairs."""
    serial = await records.certificate(database, shard=3)
    if before is not None:
        assert await certificates.revoke(database, serial, reason=before, actor=Actor("x"), now=NOW)
    done = await certificates.revoke(database, serial, reason=reason, actor=Actor("x"), now=NOW + DAY)
    assert done is (reason in REASONS_AFTER[before])
    found = await certificates.find(database, serial)
    assert found.reason is (reason if done else before)
    assert found.revoked == (NOW + DAY if before is None else NOW), "revoked since the first time"
    assert await due(database) == [(ISSUER, 3)] * ((before is not None) + done)


@pytest.mark.parametrize("before", REASONS_AFTER, ids=str)
async def test_only_a_hold_is_released(database, before):
    serial = await records.certificate(database)
    if before is not None:
        await certificates.revoke(database, serial, reason=before, actor=Actor("x"), now=NOW, comment="why")
    done = await certificates.release(database, serial, actor=Actor("operator"), comment=None, now=NOW + DAY)
    assert done is (before is HOLD)
    found = await certificates.find(database, serial)
    assert (found.reason, found.comment) == ((None, None) if done or before is None else (before, "why"))
    assert len(await due(database)) == (before is not None) + done


async def test_of_a_release_and_a_revocation_at_once_the_revocation_stands(database):
    """Whichever comes first: a release that comes second finds no hold."""
    for _ in range(10):
        serial = await records.certificate(database)
        await certificates.revoke(database, serial, reason=HOLD, actor=Actor("x"), now=NOW)
        await asyncio.gather(
            certificates.release(database, serial, actor=Actor("x"), comment=None, now=NOW),
            certificates.revoke(database, serial, reason=SUPERSEDED, actor=Actor("x"), now=NOW),
        )
        assert (await certificates.find(database, serial)).reason is SUPERSEDED


async def test_an_operator_says_why_and_since_when(database, room):
    serial = await records.certificate(database)
    since = NOW - timedelta(days=3)
    await room.take_back(serial, by=OPERATOR, reason=SUPERSEDED, invalid_since=since, comment="ticket 7")
    found = await room.find(serial)
    assert (found.invalid_since, found.comment, found.revoked) == (since, "ticket 7", NOW)
    assert await last_event(database) == (
        "certificate.revoked",
        "operator:test",
        f"certificate:{serial}",
        {"reason": 4, "invalid_since": "2029-12-29T12:00:00+00:00", "comment": "ticket 7"},
    )
    await room.take_back(serial, by=OPERATOR, reason=KEY_COMPROMISE)
    assert (await room.find(serial)).invalid_since == since, "what was known stays known"
    assert (await last_event(database))[3] == {"before": 4, "reason": 1}


async def test_what_an_operator_is_refused(database, room):
    serial = await records.certificate(database)
    with pytest.raises(Problem, match="to come"):
        await room.take_back(serial, by=OPERATOR, reason=SUPERSEDED, invalid_since=NOW + DAY)
    with pytest.raises(Problem, match="not on hold"):
        await room.release(serial, by=OPERATOR)
    with pytest.raises(Problem, match="no certificate"):
        await room.release("0" * 32, by=OPERATOR)
    with pytest.raises(Problem, match="no certificate"):
        await room.take_back("0" * 32, by=OPERATOR, reason=SUPERSEDED)
    await room.take_back(serial, by=OPERATOR, reason=HOLD)
    assert (await last_event(database))[0] == "certificate.held"
    with pytest.raises(Problem, match="on hold already"):
        await room.take_back(serial, by=OPERATOR, reason=HOLD)
    await room.release(serial, by=OPERATOR, comment="found again")
    assert await last_event(database) == (
        "certificate.released",
        "operator:test",
        f"certificate:{serial}",
        {"before": {"reason": 6, "revoked": NOW.isoformat()}, "comment": "found again"},
    )
    await room.take_back(serial, by=OPERATOR, reason=SUPERSEDED)
    with pytest.raises(Problem, match="only be changed to keyCompromise") as refused:
        await room.take_back(serial, by=OPERATOR, reason=RevocationReason.UNSPECIFIED)
    assert refused.value.type is ErrorType.ALREADY_REVOKED


async def test_what_was_recorded_and_not_signed_is_revoked(database, room):
    """Lesson 18."""
    serial = await records.certificate(database, der=None, tbs=b"tbs")
    await room.take_back(serial, by=OPERATOR, reason=SUPERSEDED)
    assert (await room.find(serial)).reason is SUPERSEDED


async def test_an_intermediate_is_revoked_in_its_parents_crl(database):
    root, child = "f" * 32, "e" * 32
    await issuers.register(database, records.issuer_record(root, kind=issuers.IssuerKind.ROOT), actor=SERVER)
    await issuers.register(database, records.issuer_record(child, parent_id=root), actor=SERVER)
    superseded, compromised = SUPERSEDED, RevocationReason.CA_COMPROMISE

    async def revoke(issuer, reason):
        return await issuers.revoke(database, issuer, reason=reason, actor=Actor("operator"), now=NOW)

    assert not await revoke(root, superseded), "nobody signed it but itself"
    assert await revoke(child, superseded)
    assert not await revoke(child, compromised)
    assert await revoke(child, KEY_COMPROMISE)
    assert await due(database) == [(root, 0)] * 2
    assert (await last_event(database))[:3] == ("issuer.revoked", "operator", f"issuer:{child}")
