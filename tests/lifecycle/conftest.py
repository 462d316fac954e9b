"""A CA for the operator's long view."""

from tests.support.fixtures import ca, hierarchy, hierarchy_place, new_ca, outside

__all__ = ["ca", "hierarchy", "hierarchy_place", "new_ca", "outside"]
