"""A running CA that fills a database, for tests that spoil copies of it; and a hierarchy with its root's key."""

from datetime import timedelta

from tests.revocation.conftest import hierarchy, hierarchy_place, root_key
from tests.support.fixtures import new_ca, outside

__all__ = ["hierarchy", "hierarchy_place", "new_ca", "outside", "root_key"]

AS_OWNER = "RESET ROLE"
"""What who has the login can do, too: docs/audit.md."""
AUDIT_WITHOUT_TRIGGERS = "ALTER TABLE audit_event DISABLE TRIGGER USER"
"""What the owner of the tables can do before spoiling them."""
KEPT = timedelta(days=400)
"""Evidence, by default."""
