"""How much there is of everything, however much that is."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Call, Model, Route
from acme_ca.storage import figures

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin


class CountView(Model):
    number: int
    estimated: bool
    """By PostgreSQL's statistics: there are too many to count each time."""


class Counts(Model):
    certificates: CountView
    accounts: CountView
    orders: CountView
    authorizations: CountView
    eab_keys: CountView
    services: CountView
    audit_events: CountView


_TABLES = {
    "certificates": "certificate",
    "accounts": "account",
    "orders": "orders",
    "authorizations": "authz",
    "eab_keys": "eab_key",
    "services": "service",
    "audit_events": "audit_event",
}


class StatisticsView(Model):
    counts: Counts
    recorded_last_hour: int
    """Certificates that were issued in the last hour,"""
    recorded_last_day: int
    """and in the last 24."""
    ending_in_a_day: int
    """Certificates that end within 24 hours and are not revoked,"""
    ending_in_a_week: int
    """within 7 days,"""
    ending_in_a_month: int
    """and within 30."""
    revoked: int
    """Certificates, expired ones and those on hold included."""
    on_hold: int
    processing_orders: int
    """Whose certificate is being signed."""
    frozen_accounts: int
    database_bytes: int
    postgresql: str
    """Its version."""
    schema_version: int


async def show(admin: Admin, _: Call) -> StatisticsView:
    counts = await figures.counts(admin.database)
    told = await figures.statistics(admin.database, now=admin.clock())
    return StatisticsView(
        counts=Counts(**{name: _count(counts[table]) for name, table in _TABLES.items()}), **asdict(told)
    )


def _count(count: figures.Count) -> CountView:
    return CountView(number=count.number, estimated=count.estimated)


ROUTES = (
    Route(
        name="statistics.show",
        method="GET",
        path="/statistics",
        permission=Permission.STATISTICS_READ,
        endpoint=show,
        answer=StatisticsView,
        summary="How many certificates, accounts, orders, … there are, and what is coming.",
    ),
)
