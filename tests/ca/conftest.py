import os
from dataclasses import replace
from pathlib import Path

import pytest

from acme_ca.ca import hierarchy as hierarchies
from acme_ca.ca import keystore
from acme_ca.ca.authority import Authority
from acme_ca.ca.hierarchy import Hierarchy
from tests.support.issuing import NOW
from tests.support.sockets import TcpServer

PASSWORD = b"correct horse"


@pytest.fixture(scope="session", params=["ec", "rsa"])
def directory(request, tmp_path_factory) -> Path:
    """Where a hierarchy of each key type lies. Not to be changed."""
    directory = tmp_path_factory.mktemp(request.param) / "ca"
    hierarchies.create_hierarchy(
        directory,
        common_name="Example",
        organization="Example Org",
        country="DE",
        key_type=request.param,
        password=PASSWORD,
        now=NOW,
    )
    return directory


@pytest.fixture(scope="session")
def hierarchy(directory) -> Hierarchy:
    """With the key of the intermediate."""
    loaded = hierarchies.load_certificates(directory)
    key = keystore.load(directory / "intermediate.key", PASSWORD)
    return replace(loaded, intermediate=replace(loaded.intermediate, key=key))


@pytest.fixture(scope="session")
def authority(hierarchy) -> Authority:
    return Authority(
        issuers={hierarchy.intermediate.id: hierarchy.intermediate}.get,
        public_http_url="http://ca.example.org",
        clock=lambda: NOW,
        random_bytes=os.urandom,
    )


class Silent(TcpServer):
    def serve(self, connection) -> None:
        while connection.recv(4096):
            pass


@pytest.fixture
def silent():
    """The address of a service that takes connections and never answers."""
    with Silent() as server:
        yield f"http://127.0.0.1:{server.port}"
