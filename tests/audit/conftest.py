"""A running CA that fills a database, for tests that spoil copies of it; and a hierarchy with its root's key."""

from datetime import timedelta

from tests.revocation.conftest import hierarchy, hierarchy_place, root_key
from tests.support.fixtures import new_ca, outside

__all__ = ["hierarchy", "hierarchy_place", "new_ca", "outside", "root_key"]

KEPT = timedelta(days=400)
"""Evidence, by default."""
