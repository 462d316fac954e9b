"""The OCSP room: which signatures are used again, and for how long."""

from datetime import timedelta

import pytest
import structlog
from cryptography.x509.ocsp import OCSPCertStatus, OCSPResponseStatus

from acme_ca.ca import profiles
from acme_ca.core.actors import Actor
from acme_ca.core.revocation import RevocationReason
from acme_ca.revocation.ocsp import Ocsp, OcspRules
from acme_ca.storage import certificates, issuers
from acme_ca.storage.database import Database
from tests.support import records
from tests.support.ocsp import assert_refuses, assert_says, cert_id, nonce, request
from tests.support.responding import Place

HOUR = timedelta(hours=1)


class Room(Place):
    """`ask` is the one of a worker."""

    kept = 100
    lifetime = 6 * HOUR

    async def open(self, issuer) -> None:
        await self.serve(issuer)
        self.issuer = issuer.certificate
        self.issuer_id = issuer.id
        self.responders = self.worker()
        await self.responders.renew_when_due()
        await self.responders.refresh()
        self.ocsp = Ocsp(
            database=self.database,
            responders=self.responders,
            rules=OcspRules(lifetime=self.lifetime, kept=self.kept),
            clock=self.clock,
            log=structlog.wrap_logger(None, processors=[self.log]),
        )

    async def certificate(self, **fields) -> int:
        """The serial number of one that is good."""
        return int(await records.certificate(self.database, **{"issuer_id": self.issuer_id, **fields}), 16)

    async def ask(self, number: int, **parts) -> bytes:
        return (await self.ocsp.answer(request(cert_id(self.issuer, number), **parts))).der


@pytest.fixture
async def room(database_url, hierarchy, tmp_path):
    async with Database.open(database_url, connections=2) as database:
        await profiles.register(database, now=records.NOW)
        made = Room(tmp_path / "ocsp", database)
        await made.open(hierarchy.intermediate)
        yield made


async def test_an_answer_is_used_for_half_of_its_life(room):
    number = await room.certificate()
    first = await room.ask(number)
    room.clock.now += 3 * HOUR - timedelta(seconds=1)
    assert await room.ask(number) == first
    room.clock.now += timedelta(seconds=1)
    second = await room.ask(number)
    assert second != first
    assert assert_says(second, room.issuer).response.this_update_utc == room.clock.now.replace(microsecond=0)


async def test_an_answer_from_before_the_clock_went_back_is_not_used(room):
    """No client takes one whose thisUpdate is still to come."""
    number = await room.certificate()
    await room.ask(number)
    room.clock.now -= HOUR
    said = assert_says(await room.ask(number), room.issuer)
    assert said.response.this_update_utc == room.clock.now.replace(microsecond=0)


async def test_each_spelling_of_a_question_has_its_own_answer(room):
    number = await room.certificate()
    asked = [cert_id(room.issuer, number, algorithm=algorithm) for algorithm in ("sha1", "sha256")]
    for _ in range(2):
        for one in asked:
            assert one in (await room.ocsp.answer(request(one))).der


@pytest.mark.parametrize("second", [None, RevocationReason.KEY_COMPROMISE])
async def test_no_answer_outlives_a_change(room, second):
    """Revoked, or held and released, or given another reason: what was kept does not come back."""
    number = await room.certificate()
    serial = f"{number:032x}"
    answers = [await room.ask(number)]
    first = RevocationReason.SUPERSEDED if second else RevocationReason.CERTIFICATE_HOLD
    assert await certificates.revoke(
        room.database, serial, reason=first, actor=Actor("x"), now=room.clock.now
    )
    answers.append(await room.ask(number))
    if second is None:
        assert await certificates.release(
            room.database, serial, actor=Actor("x"), comment=None, now=room.clock.now
        )
    else:
        assert await certificates.revoke(
            room.database, serial, reason=second, actor=Actor("x"), now=room.clock.now
        )
    answers.append(await room.ask(number))
    assert len(set(answers)) == 3
    said = [assert_says(answer, room.issuer) for answer in answers]
    last = OCSPCertStatus.REVOKED if second else OCSPCertStatus.GOOD
    assert [one.status for one in said] == [OCSPCertStatus.GOOD, OCSPCertStatus.REVOKED, last]


async def test_what_was_not_asked_for_the_longest_time_goes_first(room):
    room.ocsp._kept._most = 2
    numbers = [await room.certificate() for _ in range(3)]
    first, second = [await room.ask(number) for number in numbers[:2]]
    assert await room.ask(numbers[0]) == first
    third = await room.ask(numbers[2])
    assert len(room.ocsp._kept._entries) == 2
    assert await room.ask(numbers[0]) == first
    assert await room.ask(numbers[2]) == third
    assert await room.ask(numbers[1]) != second


async def test_what_strangers_make_up_is_not_kept(room):
    for number in range(5):
        await room.ask(number)
        await room.ask(await room.certificate(), extensions=[nonce(b"12345678")])
    assert not room.ocsp._kept._entries


async def test_no_answer_outlives_its_responder(room):
    """Whose certificate clients verify as of their own time."""
    number = await room.certificate()
    (responder,) = assert_says(await room.ask(number), room.issuer).response.certificates
    room.clock.now = responder.not_valid_after_utc - HOUR
    last = assert_says(await room.ask(number), room.issuer)
    assert last.response.next_update_utc == responder.not_valid_after_utc
    room.clock.now += HOUR
    assert_refuses(await room.ask(number), OCSPResponseStatus.INTERNAL_ERROR)
    assert "OCSP has no responder" in [entry["event"] for entry in room.log.entries]
    await room.responders.renew_when_due()
    await room.responders.refresh()
    (new,) = assert_says(await room.ask(number), room.issuer).response.certificates
    assert new != responder


async def test_a_new_responder_signs_anew(room):
    number = await room.certificate()
    first = await room.ask(number)
    room.files[0].unlink()
    await room.responders.renew_when_due()
    await room.responders.refresh()
    second = await room.ask(number)
    assert second != first
    assert (
        assert_says(second, room.issuer).response.this_update_utc
        == assert_says(first, room.issuer).response.this_update_utc
    )


async def test_another_issuers_certificate_is_unknown(room):
    other = records.issuer_record()
    await issuers.register(room.database, other, actor=Actor("x"))
    number = await room.certificate(issuer_id=other.id)
    assert assert_says(await room.ask(number), room.issuer).status is OCSPCertStatus.UNKNOWN
