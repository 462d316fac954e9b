"""A hierarchy of real keys, its root's at hand, and a CA on it."""

import pytest

from acme_ca.ca import keystore
from acme_ca.ca.keystore import PrivateKey
from tests.support.fixtures import (
    PASSWORD,
    account,
    ca,
    hierarchy,
    hierarchy_place,
    new_ca,
    outside,
    stranger,
)

__all__ = ["account", "ca", "hierarchy", "hierarchy_place", "new_ca", "outside", "stranger"]


@pytest.fixture(scope="session")
def root_key(hierarchy, hierarchy_place) -> PrivateKey:
    return keystore.load(hierarchy_place / "ca" / "root.key", PASSWORD)
