"""A running CA, and operators who ask for things."""

from tests.revocation.conftest import root_key
from tests.support.fixtures import account, ca, hierarchy, hierarchy_place, new_ca, outside, stranger

__all__ = ["account", "ca", "hierarchy", "hierarchy_place", "new_ca", "outside", "root_key", "stranger"]
