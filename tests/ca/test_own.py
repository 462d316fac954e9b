"""The server's own certificate: made when it must be, kept while it is good, replaced in one move."""

import errno
import os
import ssl
import stat
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.ca import hierarchy as hierarchies
from acme_ca.ca import profiles
from acme_ca.ca.authority import Authority
from acme_ca.ca.issuers import Issuer
from acme_ca.ca.own import OwnCertificate
from acme_ca.core.actors import SERVER
from acme_ca.storage import issuers as issuer_store
from acme_ca.storage.database import Database
from tests.support import issuing
from tests.support.issuing import NOW
from tests.support.records import issuer_record
from tests.support.responding import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def own(database_url, hierarchy, clock, tmp_path):
    async with Database.open(database_url, connections=2) as database:
        await register(database, hierarchy.intermediate)
        await profiles.register(database, now=NOW)

        def make(host: str = "ca.test", issuer: Issuer = hierarchy.intermediate) -> OwnCertificate:
            return OwnCertificate(
                make.file,
                identifiers=issuing.names(host),
                database=database,
                authority=Authority(
                    issuers={issuer.id: issuer}.get,
                    public_http_url="http://ca.test",
                    clock=clock,
                    random_bytes=os.urandom,
                ),
                issuer=lambda: issuer,
                profile=lambda: profiles.BUILT_IN["acme_server"],
                clock=clock,
            )

        make.file = tmp_path / "tls" / "server.pem"
        make.database = database
        yield make


async def register(database: Database, issuer: Issuer) -> None:
    der = issuer.certificate.public_bytes(Encoding.DER)
    await issuer_store.register(database, issuer_record(issuer.id, der=der), actor=SERVER)


def served(file):
    return x509.load_pem_x509_certificates(file.read_bytes())


async def test_it_is_made_kept_and_renewed_in_time(own, clock):
    assert await own().renew_when_due()
    first = served(own.file)[0]
    assert not await own().renew_when_due()
    clock.now += timedelta(days=59)
    assert not await own().renew_when_due()
    clock.now += timedelta(days=2)
    assert await own().renew_when_due()
    second, *_ = served(own.file)
    assert second.serial_number != first.serial_number
    assert second.not_valid_after_utc > first.not_valid_after_utc


async def test_it_is_made_anew_when_the_clock_went_back_before_it(own, clock):
    clock.now += timedelta(days=30)
    await own().renew_when_due()
    clock.now -= timedelta(days=30)
    assert await own().renew_when_due()
    assert served(own.file)[0].not_valid_before_utc <= clock.now
    assert not await own().renew_when_due()


@pytest.mark.parametrize("spoil", ["host", "truncated", "garbage", "gone"])
async def test_it_is_made_anew_when_it_does_not_serve(own, clock, spoil):
    await own().renew_when_due()
    clock.now += timedelta(seconds=1)
    if spoil == "gone":
        own.file.unlink()
    elif spoil != "host":
        own.file.write_bytes(own.file.read_bytes()[:300] if spoil == "truncated" else b"\xff\x00")
    assert await own("other.test" if spoil == "host" else "ca.test").renew_when_due()


async def test_it_is_made_anew_for_another_ca_of_the_same_name(own, hierarchy, tmp_path):
    """As after a lost data directory: the names are equal, the keys are not."""
    other = hierarchies.create_hierarchy(
        tmp_path / "other",
        common_name="Example",
        organization="Example Org",
        country="DE",
        key_type="ec",
        password=b"correct horse",
        now=NOW,
    )
    assert other.intermediate.certificate.subject == hierarchy.intermediate.certificate.subject
    await register(own.database, other.intermediate)
    assert await own(issuer=other.intermediate).renew_when_due()
    assert not await own(issuer=other.intermediate).renew_when_due()
    assert await own().renew_when_due()
    served(own.file)[0].verify_directly_issued_by(hierarchy.intermediate.certificate)


async def test_none_is_signed_for_a_place_that_cannot_be_written(own):
    """Lesson 23, in our own house: each of the loops would make one more every few seconds."""
    own.file.parent.write_bytes(b"")
    with pytest.raises(OSError, match="exists"):
        await own().renew_when_due()
    assert await own.database.fetchval("SELECT count(*) FROM certificate") == 0


async def test_none_is_signed_for_a_disk_that_is_full(own, monkeypatch):
    await own().renew_when_due()
    good = own.file.read_bytes()
    monkeypatch.setattr(os, "fsync", _no_room)
    with pytest.raises(OSError, match="No space"):
        await own("other.test").renew_when_due()
    assert await own.database.fetchval("SELECT count(*) FROM certificate") == 1
    assert own.file.read_bytes() == good
    assert list(own.file.parent.iterdir()) == [own.file]


def _no_room(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_the_file_serves_tls_and_is_nobody_elses(own, hierarchy):
    await own().renew_when_due()
    assert stat.S_IMODE(own.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(own.file.parent.stat().st_mode) == 0o700
    assert list(own.file.parent.iterdir()) == [own.file]
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(own.file)
    assert served(own.file)[1] == hierarchy.intermediate.certificate


async def test_it_is_recorded_like_any_other(own):
    await own().renew_when_due()
    row = await own.database.fetchrow("SELECT * FROM certificate")
    assert row["account_id"] is None
    assert row["identifiers"] == ["dns:ca.test"]
    assert x509.load_der_x509_certificate(row["der"]) == served(own.file)[0]
    event = await own.database.fetchrow("SELECT * FROM audit_event ORDER BY id DESC LIMIT 1")
    assert (event["event"], event["actor"]) == ("certificate.issued", "server")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_it_may_be_for_an_address_or_a_single_label(own, host):
    assert await own(host).renew_when_due()
    names = served(own.file)[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == [host]
    assert not await own(host).renew_when_due()
