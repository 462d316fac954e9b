"""A running CA for the stories."""

from tests.support.fixtures import account, ca, hierarchy, hierarchy_place, new_ca, outside, stranger

__all__ = ["account", "ca", "hierarchy", "hierarchy_place", "new_ca", "outside", "stranger"]
