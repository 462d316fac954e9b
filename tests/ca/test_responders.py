"""OCSP responders: made, renewed in time, taken up by every worker; whatever is wrong with their files."""

import asyncio
import stat
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from acme_ca.ca import profiles
from acme_ca.ca.hierarchy import Hierarchy
from acme_ca.ca.issuers import Issuer
from acme_ca.ca.issuers import issuer as issuer_of
from acme_ca.ca.responders import GRACE, _hashes
from acme_ca.core.issuers import IssuerKind
from acme_ca.storage.database import Database
from tests.support.fixtures import new_hierarchy
from tests.support.issuing import EC_KEY, NOW, subject
from tests.support.responding import Place

DAY = timedelta(days=1)


@pytest.fixture
async def place(database_url, hierarchy, tmp_path):
    async with Database.open(database_url, connections=2) as database:
        await profiles.register(database, now=NOW)
        made = Place(tmp_path / "ocsp", database)
        await made.serve(hierarchy.intermediate)
        yield made


@pytest.fixture(scope="session")
def another(tmp_path_factory) -> Hierarchy:
    return new_hierarchy(tmp_path_factory.mktemp("another"), "Another")


def responder_of(responders, issuer):
    found = {responders.find(named) for named in _hashes(issuer)}
    assert len(found) == 1, "by whatever hash"
    return found.pop().responder


async def test_it_is_made_and_renewed_in_time(place, hierarchy):
    """Two thirds of seven days."""
    worker, issuer = place.worker(), hierarchy.intermediate
    await worker.renew_when_due()
    await worker.refresh()
    first = responder_of(worker, issuer)
    first.certificate.verify_directly_issued_by(issuer.certificate)
    assert first.not_after - first.certificate.not_valid_before_utc < 7 * DAY
    for passed, renewed in ((4 * DAY, False), (DAY, True)):
        place.clock.now += passed
        await worker.renew_when_due()
        await worker.refresh()
        assert (responder_of(worker, issuer) is not first) is renewed
    assert responder_of(worker, issuer).key.public_key() != first.key.public_key()
    assert len(place.files) == 1


async def test_its_file_is_nobody_elses(place):
    await place.worker().renew_when_due()
    (file,) = place.files
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


async def test_it_is_recorded_like_any_other(place, hierarchy):
    await place.worker().renew_when_due()
    row = await place.database.fetchrow("SELECT * FROM certificate")
    assert (row["issuer_id"], row["profile"]) == (hierarchy.intermediate.id, "ocsp_responder")
    assert (row["account_id"], row["identifiers"]) == (None, [])
    assert x509.load_der_x509_certificate(row["der"]) == x509.load_pem_x509_certificate(
        place.files[0].read_bytes()
    )
    event = await place.database.fetchrow("SELECT * FROM audit_event ORDER BY id DESC LIMIT 1")
    assert (event["event"], event["actor"]) == ("certificate.issued", "server")


async def test_other_workers_take_it_up(place, hierarchy):
    renewing, other = place.worker(), place.worker()
    await other.refresh()
    assert other.health() == "ok", "the issuer is new"
    place.clock.now += GRACE + timedelta(seconds=1)
    assert other.health() == "missing"
    assert responder_of(other, hierarchy.intermediate) is None
    await renewing.renew_when_due()
    await other.refresh()
    assert other.health() == "ok"
    first = responder_of(other, hierarchy.intermediate)
    await other.refresh()
    assert responder_of(other, hierarchy.intermediate) is first, "nothing has changed"


SPOILS = {
    "gone": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:300]),
    "garbage": lambda file: file.write_bytes(b"\xff\0"),
    "without its key": lambda file: file.write_bytes(file.read_bytes().partition(b"-----BEGIN CERT")[2]),
    "another key": lambda file: file.write_bytes(another_key() + file.read_bytes().partition(b"-\n")[2]),
}


def another_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("spoil", SPOILS)
async def test_a_spoiled_file_is_replaced_and_the_old_responder_answers_meanwhile(place, hierarchy, spoil):
    worker = place.worker()
    await worker.renew_when_due()
    await worker.refresh()
    first = responder_of(worker, hierarchy.intermediate)
    SPOILS[spoil](place.files[0])
    for _ in range(3):
        await worker.refresh()
    assert responder_of(worker, hierarchy.intermediate) is first
    assert worker.health() == "ok"
    told = [entry["event"] for entry in place.log.entries]
    assert told == ([] if spoil == "gone" else ["OCSP responder not taken up"]), "once"
    place.clock.now += timedelta(seconds=1)
    await worker.renew_when_due()
    await worker.refresh()
    assert responder_of(worker, hierarchy.intermediate) not in {first, None}
    assert await place.made() == 2


async def test_a_file_of_another_ca_is_replaced(place, hierarchy, another):
    """As after a folder was copied from elsewhere."""
    await place.worker().renew_when_due()
    (file,) = place.files
    await place.serve(another.intermediate)
    file.rename(file.with_name(f"{another.intermediate.id}.pem"))
    worker = place.worker()
    await worker.refresh()
    assert responder_of(worker, another.intermediate) is None
    await worker.renew_when_due()
    await worker.refresh()
    assert worker.health() == "ok"


async def test_two_processes_at_once_leave_one_sound_file(place, hierarchy):
    """Should a lease ever be held twice."""
    workers = [place.worker() for _ in range(2)]
    await asyncio.gather(*(worker.renew_when_due() for worker in workers))
    for worker in workers:
        await worker.refresh()
    serials = {responder_of(worker, hierarchy.intermediate).certificate.serial_number for worker in workers}
    assert len(serials) == 1
    assert len(place.files) == 1


async def test_health_tells_of_a_renewal_that_does_not_work(place):
    worker = place.worker()
    await worker.renew_when_due()
    await worker.refresh()
    seen = []
    for days in (0, 5, 1, 1):
        place.clock.now += days * DAY
        seen.append(worker.health())
    assert seen == ["ok", "ok", "expires soon", "expired"]


# ---------------------------------------------------------------- several issuers


async def test_health_tells_of_a_missing_responder_after_a_moment_whatever_the_clock_does(place):
    place.clock.now += DAY
    worker = place.worker()
    await worker.refresh()
    assert worker.health() == "ok", "it is new"
    place.clock.now -= DAY
    assert worker.health() == "missing"


async def test_each_issuer_has_its_own(place, hierarchy, another):
    issuers = [hierarchy.intermediate, another.intermediate]
    await place.serve(*issuers)
    worker = place.worker()
    await worker.renew_when_due()
    await worker.refresh()
    for issuer in issuers:
        responder = responder_of(worker, issuer)
        responder.certificate.verify_directly_issued_by(issuer.certificate)
        kinds = {isinstance(key, rsa.RSAPrivateKey) for key in (responder.key, issuer.key)}
        assert len(kinds) == 1, "RSA under RSA, EC under EC"
    assert [file.stem for file in place.files] == sorted(issuer.id for issuer in issuers)


async def test_an_issuer_that_comes_later_is_taken_up_and_one_that_goes_is_let_go(place, hierarchy, another):
    worker = place.worker()
    await worker.renew_when_due()
    await worker.refresh()
    kept = responder_of(worker, hierarchy.intermediate)
    await place.serve(hierarchy.intermediate, another.intermediate)
    await worker.renew_when_due()
    await worker.refresh()
    assert responder_of(worker, another.intermediate)
    assert responder_of(worker, hierarchy.intermediate) is kept
    await place.serve(another.intermediate)
    await worker.refresh()
    assert worker.find(next(_hashes(hierarchy.intermediate))) is None


async def test_roots_and_expired_issuers_have_none(place, hierarchy):
    root = replace(hierarchy.root, kind=IssuerKind.ROOT, key=hierarchy.intermediate.key)
    await place.serve(root, hierarchy.intermediate)
    place.clock.now = hierarchy.intermediate.not_after
    worker = place.worker()
    await worker.renew_when_due()
    await worker.refresh()
    assert (place.files, worker.health()) == ([], "ok")


@pytest.mark.parametrize("kind", [IssuerKind.INTERMEDIATE, IssuerKind.CROSS])
async def test_certificates_of_one_ca_share_a_responder(place, hierarchy, resigned, kind):
    """An intermediate that was certified again, or cross-signed: one name, one key. No leaf is of the latter."""
    await place.serve(replace(resigned, kind=kind), hierarchy.intermediate)
    worker = place.worker()
    await worker.renew_when_due()
    await worker.refresh()
    desk = worker.find(next(_hashes(hierarchy.intermediate)))
    also = {resigned.id} if kind is IssuerKind.INTERMEDIATE else set()
    assert desk.issuers == {hierarchy.intermediate.id} | also
    assert len(place.files) == 1


@pytest.fixture
def resigned(hierarchy) -> Issuer:
    """The intermediate with another certificate, of another root."""
    old = hierarchy.intermediate.certificate
    builder = x509.CertificateBuilder(
        issuer_name=subject("Another Root CA"),
        subject_name=old.subject,
        public_key=old.public_key(),
        serial_number=2**100,
        not_valid_before=old.not_valid_before_utc.replace(tzinfo=None),
        not_valid_after=old.not_valid_after_utc.replace(tzinfo=None) - DAY,
        extensions=list(old.extensions),
    )
    return issuer_of(builder.sign(EC_KEY, hashes.SHA256()), hierarchy.intermediate.key, chain=())


# ---------------------------------------------------------------- when the issuer's key is out of reach


async def test_without_the_issuers_key_the_responder_answers_on(place, hierarchy):
    await place.worker().renew_when_due()
    await place.serve(replace(hierarchy.intermediate, key=None))
    place.clock.now += 5 * DAY
    worker = place.worker()
    await worker.renew_when_due()
    await worker.refresh()
    assert responder_of(worker, hierarchy.intermediate)
    assert worker.health() == "ok"
    assert await place.made() == 1


async def test_a_key_that_does_not_sign_leaves_no_record(place, hierarchy, another):
    """And does not stop the others."""
    broken = replace(hierarchy.intermediate, key=ec.generate_private_key(ec.SECP256R1()))
    await place.serve(broken, another.intermediate)
    await place.worker().renew_when_due()
    assert [file.stem for file in place.files] == [another.intermediate.id]
    assert await place.made() == 1
    (failure,) = place.log.entries
    assert (failure["event"], failure["issuer"]) == ("OCSP responder not renewed", broken.id)
