"""A running CA that fills a database, for tests that spoil copies of it."""

from tests.support.fixtures import hierarchy, hierarchy_place, new_ca, outside

__all__ = ["hierarchy", "hierarchy_place", "new_ca", "outside"]
