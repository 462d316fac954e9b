import os
from pathlib import Path

import pytest

from acme_ca.ca import hierarchy as hierarchies
from acme_ca.ca.authority import Authority
from acme_ca.ca.hierarchy import Hierarchy
from tests.support.issuing import NOW

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
    return hierarchies.load_hierarchy(directory, PASSWORD, now=NOW)


@pytest.fixture(scope="session")
def authority(hierarchy) -> Authority:
    return Authority(
        issuers={hierarchy.intermediate.id: hierarchy.intermediate}.get,
        public_http_url="http://ca.example.org",
        clock=lambda: NOW,
        random_bytes=os.urandom,
    )
