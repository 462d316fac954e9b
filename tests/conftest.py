"""Fixtures for every room: a real PostgreSQL per test process, a fresh database per test."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.postgres import Cluster
from tests.support.server import free_ports

# Laws are judged by what they find, never by the time that a busy machine takes for an example.
settings.register_profile("acme-ca", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("acme-ca")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """The PostgreSQL server of this test process."""
    directory = Path(tempfile.mkdtemp(prefix="acme-ca-test-"))
    cluster = Cluster(directory / "postgres")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(directory)


@pytest.fixture
async def database_url(postgres: Cluster) -> AsyncIterator[str]:
    """URL of a database of this test alone, with `schema.sql` applied and no rows."""
    name = await postgres.create()
    yield postgres.url(name)
    await postgres.drop(name)


@pytest.fixture
async def empty_database_url(postgres: Cluster) -> AsyncIterator[str]:
    """URL of a database of this test alone, without any table."""
    name = await postgres.create_empty()
    yield postgres.url(name)
    await postgres.drop(name)


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that is free."""
    (port,) = free_ports(1)
    return port
