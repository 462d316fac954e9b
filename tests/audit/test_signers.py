"""The certificate of a seal's signer was revoked: what its seals still prove, and what the server does about it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from acme_ca.audit import chain, sealing, verify
from acme_ca.audit.chain import Checkpoint
from acme_ca.ca.own import KeyAndCertificate
from acme_ca.core.actors import Actor
from acme_ca.core.ids import serial_text
from acme_ca.core.revocation import RevocationReason
from acme_ca.storage import certificates, issuers, seals
from tests.audit.test_sealing import trail
from tests.support.issuing import NOW

__all__ = ["trail"]

ALICE = Actor("operator:alice", "192.0.2.1")
HOUR = timedelta(hours=1)
SUPERSEDED, COMPROMISED, HOLD = (
    RevocationReason.SUPERSEDED,
    RevocationReason.KEY_COMPROMISE,
    RevocationReason.CERTIFICATE_HOLD,
)


def signer_in(file) -> KeyAndCertificate:
    content = file.read_bytes()
    return KeyAndCertificate(load_pem_private_key(content, None), x509.load_pem_x509_certificate(content))


def serial_of(signer: KeyAndCertificate) -> str:
    return serial_text(signer.certificate.serial_number)


async def seal_each_hour(trail, number: int, sealer=None) -> None:
    for _ in range(number):
        trail.clock.now += HOUR
        await trail.act(1)
        assert await (sealer or trail.sealing).seal_due()


async def revoke(trail, signer: KeyAndCertificate, reason: RevocationReason, *, since=None) -> None:
    assert await certificates.revoke(
        trail.database,
        serial_of(signer),
        reason=reason,
        actor=ALICE,
        invalid_since=since,
        now=trail.clock.now,
    )


async def sealed_by_thief(trail, signer: KeyAndCertificate, *, at) -> None:
    """One more seal, made outside of the server by whoever has the key and the database."""
    await trail.act(1)
    last = await seals.last(trail.database)
    events = await seals.events(trail.database, after=last.last_event, until=2**62)
    trail.clock.now, now = at, trail.clock.now
    seal = sealing._signed(trail.sealing._next(last, events), signer)
    trail.clock.now = now
    assert await seals.add(
        trail.database, seal, signer_sha256=chain.hashlib.sha256(seal.signer).digest(), signer_serial=""
    )


def checkpoint(trail) -> Checkpoint:
    return Checkpoint.parse(trail.checkpoint.read_text())


async def sentence(trail, *checkpoints) -> str:
    (finding,) = (await trail.verify(*checkpoints)).findings
    return finding.sentence


# ---------------------------------------------------------------- the key stayed where it was


@pytest.mark.parametrize("reason", [SUPERSEDED, RevocationReason.UNSPECIFIED, HOLD])
async def test_what_was_signed_before_a_revocation_stays_proved_and_another_key_goes_on(trail, reason):
    await seal_each_hour(trail, 2)
    first = signer_in(trail.file)
    trail.clock.now += HOUR
    await revoke(trail, first, reason)
    await seal_each_hour(trail, 2)
    assert serial_of(signer_in(trail.file)) != serial_of(first), "the server noticed"
    report = await trail.verify()
    assert (report.findings, report.seals) == ([], 4)


async def test_what_was_signed_after_a_revocation_proves_nothing(trail):
    await seal_each_hour(trail, 2)
    old = signer_in(trail.file)
    await revoke(trail, old, SUPERSEDED)
    await sealed_by_thief(trail, old, at=trail.clock.now + timedelta(seconds=5))
    assert await trail.wrong() == [], "one that was under way"
    await sealed_by_thief(trail, old, at=trail.clock.now + HOUR)
    await sealed_by_thief(trail, old, at=trail.clock.now - HOUR)
    assert await trail.wrong() == [("seal.revoked", "audit_seal:4")]


async def test_a_hold_that_was_ended_leaves_no_doubt(trail):
    await seal_each_hour(trail, 1)
    old = signer_in(trail.file)
    await revoke(trail, old, HOLD)
    await sealed_by_thief(trail, old, at=trail.clock.now + HOUR)
    assert await trail.wrong() == [("seal.revoked", "audit_seal:2")]
    await certificates.release(trail.database, serial_of(old), actor=ALICE, comment=None, now=trail.clock.now)
    assert await trail.wrong() == []


async def test_events_wait_rather_than_be_sealed_by_a_revoked_signer(trail):
    """Also when its certificate cannot be replaced, and when it is revoked after the server looked."""
    await seal_each_hour(trail, 1)
    await revoke(trail, signer_in(trail.file), SUPERSEDED)
    trail.keys.away = True
    await trail.act(2)
    assert await trail.seal() == 0
    trail.keys.away = False
    assert await trail.seal() > 0
    second = signer_in(trail.file)
    await revoke(trail, second, SUPERSEDED)
    await trail.act(1)
    assert await trail.sealing._seal_next(second, 2**62) == 0
    assert await trail.seal() > 0
    assert await trail.wrong() == []


# ---------------------------------------------------------------- somebody else may have the key


async def test_nothing_that_a_compromised_key_signed_is_proved_by_it(trail):
    """All of its seals, whatever time they bear: told once for each run of them."""
    await seal_each_hour(trail, 3)
    lost = signer_in(trail.file)
    await revoke(trail, lost, COMPROMISED)
    await seal_each_hour(trail, 2)
    assert await trail.wrong() == [("seal.compromised", "audit_seal:1")]
    assert "it and 2 after it" in await sentence(trail)
    assert "nobody knows since when" in await sentence(trail)


async def test_a_checkpoint_of_elsewhere_proves_what_it_covers_and_the_one_beside_the_key_nothing(trail):
    await seal_each_hour(trail, 2)
    elsewhere = checkpoint(trail)
    await seal_each_hour(trail, 2)
    beside = checkpoint(trail)
    await revoke(trail, signer_in(trail.file), COMPROMISED)
    await seal_each_hour(trail, 1)
    assert await trail.wrong(elsewhere) == [("seal.compromised", "audit_seal:3")]
    report = await verify.verify(trail.database, trail.trust, own=beside)
    assert [finding.object for finding in report.findings] == ["audit_seal:1"]
    assert await trail.wrong(beside) == [], "its operator says that it was kept elsewhere"


async def test_a_checkpoint_that_was_fetched_after_the_compromise_proves_nothing(trail):
    await seal_each_hour(trail, 2)
    early = checkpoint(trail)
    await seal_each_hour(trail, 2)
    late = checkpoint(trail)
    await revoke(trail, signer_in(trail.file), COMPROMISED, since=late.at - HOUR / 2)
    assert await trail.wrong(late) == [("seal.compromised", "audit_seal:1")]
    assert await trail.wrong(late, early) == [("seal.compromised", "audit_seal:3")]


async def test_where_nobody_knows_since_when_a_checkpoint_of_after_the_revocation_proves_nothing(trail):
    """The next key signs it, over whatever who had the last one made of the trail before."""
    await seal_each_hour(trail, 2)
    before = checkpoint(trail)
    await revoke(trail, signer_in(trail.file), COMPROMISED)
    await seal_each_hour(trail, 1)
    after = checkpoint(trail)
    assert await trail.wrong(after) == [("seal.compromised", "audit_seal:1")]
    assert await trail.wrong(after, before) == []


async def test_a_seal_of_another_key_before_the_compromise_proves_all_before_it(trail, tmp_path):
    """Two servers take turns; the key of one is lost."""
    other = trail.sealer(tmp_path / "other" / "signer.pem")
    await seal_each_hour(trail, 2)
    await seal_each_hour(trail, 1, other)
    await seal_each_hour(trail, 2)
    since = trail.clock.now - HOUR / 2
    trail.clock.now += HOUR
    await revoke(trail, signer_in(trail.file), COMPROMISED, since=since)
    await seal_each_hour(trail, 1, other)
    assert await trail.wrong() == [("seal.compromised", "audit_seal:4")]
    assert "it and 1 after it" in await sentence(trail)


async def test_the_row_does_not_hide_what_the_trail_tells(trail):
    """Who has the database takes the revocation back there; the event is sealed."""
    await seal_each_hour(trail, 1)
    lost = signer_in(trail.file)
    await revoke(trail, lost, COMPROMISED, since=NOW)
    await seal_each_hour(trail, 1)
    await trail.as_owner(
        f"UPDATE certificate SET revoked = NULL, reason = NULL, invalid_since = NULL WHERE serial = '{serial_of(lost)}'"
    )
    assert await trail.wrong() == [("seal.compromised", "audit_seal:1")]
    await trail.as_owner("DELETE FROM audit_event WHERE event = 'certificate.revoked'")
    assert "event.missing" in [code for code, _ in await trail.wrong()]


async def test_a_graver_reason_counts(trail):
    await seal_each_hour(trail, 1)
    lost = signer_in(trail.file)
    await revoke(trail, lost, SUPERSEDED)
    assert await trail.wrong() == []
    await revoke(trail, lost, COMPROMISED)
    assert await trail.wrong() == [("seal.compromised", "audit_seal:1")]


@pytest.mark.parametrize(
    ("reason", "found"),
    [(COMPROMISED, [("seal.compromised", "audit_seal:1")]), (SUPERSEDED, [("seal.revoked", "audit_seal:3")])],
)
async def test_a_signer_is_worth_no_more_than_its_issuer(trail, reason, found):
    await seal_each_hour(trail, 2)
    signer, issuer = signer_in(trail.file), trail.hierarchy.intermediate.id
    await trail.database.execute("UPDATE issuer SET parent_id = id")  # the root is not in this database
    assert await issuers.revoke(trail.database, issuer, reason=reason, actor=ALICE, now=trail.clock.now)
    await sealed_by_thief(trail, signer, at=trail.clock.now + HOUR)
    assert await trail.wrong() == found


BEYOND = ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00", "9999-12-31T23:59:59Z")


@pytest.mark.parametrize(
    "detail",
    [
        *("[]", "null", '{"reason": "x"}', '{"reason": 1, "invalid_since": "yesterday"}'),
        *(json.dumps({"reason": 1, "invalid_since": time}) for time in BEYOND),
        *(r'{"reason": "\ud800"}', '{"reason": ' + "9" * 5000 + "}", "[" * 3000 + "]" * 3000),
    ],
)
async def test_an_event_that_makes_no_sense_is_one_that_was_changed(trail, detail):
    await seal_each_hour(trail, 1)
    await revoke(trail, signer_in(trail.file), COMPROMISED)
    await seal_each_hour(trail, 1)
    await trail.as_owner(
        f"UPDATE audit_event SET detail = '{detail}', at = 'infinity' WHERE event = 'certificate.revoked'"
    )
    assert {code for code, _ in await trail.wrong()} == {"event.changed", "seal.compromised"}


async def test_a_signer_that_is_no_certificate_ends_nothing(trail):
    await seal_each_hour(trail, 1)
    last = await seals.last(trail.database)
    odd = replace(last, id=2, first_event=last.last_event + 1, last_event=last.last_event + 1, signer=b"x")
    assert await seals.add(trail.database, odd, signer_sha256=bytes(32), signer_serial="")
    assert ("seal.signature", "audit_seal:2") in await trail.wrong()
