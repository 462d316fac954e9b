"""A running CA that fills a database, for tests that spoil copies of it."""

from tests.support.fixtures import hierarchy, new_ca, outside

__all__ = ["hierarchy", "new_ca", "outside"]
