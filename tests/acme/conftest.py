"""A running CA for the stories."""

from tests.support.fixtures import account, ca, hierarchy, new_ca, outside, stranger

__all__ = ["account", "ca", "hierarchy", "new_ca", "outside", "stranger"]
