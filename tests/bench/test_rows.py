"""The certificates of the benchmark fit the schema, and CRLs and OCSP find them."""

from acme_ca.core.crl import Scope
from acme_ca.core.ids import serial_text
from acme_ca.core.revocation import RevocationReason
from acme_ca.storage import certificate_list, certificates, crls
from acme_ca.storage.certificate_list import CertificateFilter
from acme_ca.storage.crls import Shard
from tests.bench import search as search_bench
from tests.bench.revocation import make_rows, serial_of
from tests.support.records import ISSUER, NOW, stocked

INDEXES = "SELECT array_agg(indexdef ORDER BY indexdef) FROM pg_indexes WHERE tablename = 'certificate'"


async def test_every_tenth_is_revoked_and_the_indexes_are_there_again(database_url):
    async with stocked(database_url) as database:
        indexes = await database.fetchval(INDEXES)
        await make_rows(database_url, 100)
        assert await database.fetchval(INDEXES) == indexes
        assert await database.fetchval("SELECT count(*) FROM certificate") == 100
        listing = await crls.listing(
            database, Shard(ISSUER, 0), Scope.LEAVES, lists_after=NOW.replace(year=2020)
        )
        assert {entry.serial for entry in listing.entries} == {
            serial_text(serial_of(number)) for number in range(0, 100, 10)
        }
        found = await certificates.find(database, serial_text(serial_of(20)))
        assert found.reason is RevocationReason.SUPERSEDED


async def test_the_certificates_of_the_search_fit_the_schema_and_are_found(database_url):
    async with stocked(database_url) as database:
        indexes = await database.fetchval(INDEXES)
        await search_bench.make_rows(database_url, 200)
        assert await database.fetchval(INDEXES) == indexes
        found = await certificate_list.find(
            database, CertificateFilter(below="lab.example.org"), now=NOW, limit=10
        )
        assert [one.identifiers[0].value for one in found.items] == ["box2.lab.example.org"]
        assert (
            await certificate_list.find(database, CertificateFilter(text="host77"), now=NOW, limit=10)
        ).items
