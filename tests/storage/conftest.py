"""A stocked database, an account in it, and a draft certificate whose contents do not matter to the database."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support import records
from tests.support.records import DAY, NOW


@pytest.fixture(scope="session")
def draft() -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + DAY)
    return builder.sign(key, hashes.SHA256())


@pytest.fixture
async def database(database_url):
    async with records.stocked(database_url) as opened:
        yield opened


@pytest.fixture
async def owner(database):
    return await records.account(database)
