"""A hierarchy of real keys, its root's at hand, and a CA on it."""

from pathlib import Path

import pytest

from acme_ca.ca import keystore
from acme_ca.ca.hierarchy import Hierarchy
from acme_ca.ca.keystore import PrivateKey
from tests.support.fixtures import PASSWORD, account, ca, new_ca, new_hierarchy, outside, stranger

__all__ = ["account", "ca", "new_ca", "outside", "stranger"]


@pytest.fixture(scope="session")
def hierarchy_place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("hierarchy")


@pytest.fixture(scope="session")
def hierarchy(hierarchy_place) -> Hierarchy:
    return new_hierarchy(hierarchy_place, "Example")


@pytest.fixture(scope="session")
def root_key(hierarchy, hierarchy_place) -> PrivateKey:
    return keystore.load(hierarchy_place / "ca" / "root.key", PASSWORD)
