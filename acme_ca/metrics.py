"""Every metric, named and explained in one list; and how they are read when somebody asks.

Workers share the ports, so a scrape reaches any of them: what is here is the same from each, read from the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from acme_ca import __version__
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.limits import LimitKind
from acme_ca.core.states import issuer_state
from acme_ca.refreshing import Remembered
from acme_ca.storage import figures as store
from acme_ca.storage import issuers
from acme_ca.storage.database import Database, DatabaseUnavailable
from acme_ca.storage.figures import Figures
from acme_ca.storage.issuers import IssuerRecord

CONTENT_TYPE = CONTENT_TYPE_LATEST
FRESH = timedelta(seconds=5)
"""How long a worker tells the same figures: anyone may ask, and as often as they like."""
STALE = timedelta(seconds=60)
"""What the sweeps should have taken up by then, and have not."""
DAY = timedelta(days=1)

Health = Callable[[], Awaitable[tuple[bool, Mapping[str, Any]]]]


class Metric(NamedTuple):
    """A counter when its name ends in `_total`."""

    name: str
    labels: tuple[str, ...]
    help: str


METRICS = (
    Metric("acme_ca_build_info", ("version",), "1; the version of the worker that answers"),
    Metric("acme_ca_development_mode", (), "1: development mode, not for production"),
    Metric("acme_ca_healthy", (), "1: certificates can be issued, as /health has it"),
    Metric("acme_ca_check_ok", ("check",), "1: this check of /health says ok; 0: it says something else"),
    Metric(
        "acme_ca_issuer_not_after_timestamp_seconds",
        ("issuer", "kind", "state"),
        "when the certificate of an issuer ends; state is staged, active, retired or expired",
    ),
    Metric("acme_ca_issuer_days_left", ("issuer", "kind", "state"), "days until then, negative afterwards"),
    Metric("acme_ca_crl_shards", ("issuer",), "shards of the issuer's CRL"),
    Metric("acme_ca_crls", ("issuer",), "shards of the issuer that have a CRL"),
    Metric("acme_ca_crl_entries", ("issuer",), "certificates that its CRLs list"),
    Metric("acme_ca_crl_oldest_this_update_timestamp_seconds", ("issuer",), "thisUpdate of its oldest CRL"),
    Metric("acme_ca_crl_newest_this_update_timestamp_seconds", ("issuer",), "thisUpdate of its newest CRL"),
    Metric(
        "acme_ca_crl_first_next_update_timestamp_seconds",
        ("issuer",),
        "nextUpdate of the CRL that ends first",
    ),
    Metric("acme_ca_crl_due", (), "revocations and other changes that wait for a CRL"),
    Metric("acme_ca_crl_due_seconds", (), "for how long the oldest of them has waited"),
    Metric(
        "acme_ca_own_certificate_not_after_timestamp_seconds",
        ("issuer", "profile"),
        "when the newest of the server's own certificates ends: its TLS (acme_server), its OCSP responders (ocsp_responder), what seals its audit (audit_signer)",
    ),
    Metric(
        "acme_ca_certificates_estimate",
        (),
        "certificates in the database, as the last VACUUM or ANALYZE saw it; missing before the first",
    ),
    Metric("acme_ca_certificates_recorded_last_hour", (), "certificates recorded in the last hour"),
    Metric(
        "acme_ca_orders_stale",
        (),
        "orders whose certificate was recorded a minute ago or earlier and is still not signed",
    ),
    Metric(
        "acme_ca_validations_overdue",
        (),
        "validations that no process took over within a minute after they fell due",
    ),
    Metric(
        "acme_ca_rate_limited_total",
        ("kind",),
        "requests refused by a limit of this kind, or because the account is paused (paused)",
    ),
    Metric("acme_ca_accounts_paused", (), "accounts that cannot order some name until somebody lifts that"),
)

Family = CounterMetricFamily | GaugeMetricFamily
Sample = tuple[str, tuple[str, ...], float]
"""Name, values of the labels, value."""


class Metrics:
    def __init__(
        self, *, database: Database, health: Health, clock: Callable[[], datetime], dev: bool
    ) -> None:
        self._database = database
        self._health = health
        self._clock = clock
        self._dev = dev
        self._read = Remembered[bytes]()
        self._reading = asyncio.Lock()

    async def text(self) -> bytes:
        """In the text format of Prometheus. Without its database there is only what needs none."""
        async with self._reading:
            now = self._clock()
            if (text := self._read.at(now)) is not None:
                return text
            text = _text([sample async for sample in self._samples(now)])
            return self._read.keep(text, now=now, lasts=FRESH)

    async def _samples(self, now: datetime) -> AsyncIterator[Sample]:
        for sample in _of_process(await self._health(), dev=self._dev):
            yield sample
        try:
            records = await issuers.all_issuers(self._database)
            figures = await store.figures(self._database, now=now, stale=now - STALE)
        except (DatabaseUnavailable, TimeoutError):
            return
        for sample in (*_of_issuers(records, now), *_of_crls(figures, now), *_of_figures(figures)):
            yield sample


def _of_process(health: tuple[bool, Mapping[str, Any]], *, dev: bool) -> Iterator[Sample]:
    healthy, report = health
    yield "acme_ca_build_info", (__version__,), 1
    yield "acme_ca_development_mode", (), dev
    yield "acme_ca_healthy", (), healthy
    for check, says in report["checks"].items():
        yield "acme_ca_check_ok", (check,), says == "ok"


def _of_issuers(records: list[IssuerRecord], now: datetime) -> Iterator[Sample]:
    for record in records:
        state = issuer_state(record.state, not_after=record.not_after, now=now)
        labels = (record.id, record.kind.value, state.value)
        yield "acme_ca_issuer_not_after_timestamp_seconds", labels, record.not_after.timestamp()
        yield "acme_ca_issuer_days_left", labels, (record.not_after - now) / DAY
        if record.kind is not IssuerKind.CROSS:
            yield "acme_ca_crl_shards", (record.id,), record.open_shard + 1


def _of_crls(figures: Figures, now: datetime) -> Iterator[Sample]:
    for of_issuer in figures.crls:
        labels = (of_issuer.issuer,)
        yield "acme_ca_crls", labels, of_issuer.crls
        yield "acme_ca_crl_entries", labels, of_issuer.entries
        yield "acme_ca_crl_oldest_this_update_timestamp_seconds", labels, of_issuer.oldest.timestamp()
        yield "acme_ca_crl_newest_this_update_timestamp_seconds", labels, of_issuer.newest.timestamp()
        yield "acme_ca_crl_first_next_update_timestamp_seconds", labels, of_issuer.first_end.timestamp()
    yield "acme_ca_crl_due", (), figures.crl_due
    since = figures.crl_due_since or now
    yield "acme_ca_crl_due_seconds", (), max(0.0, (now - since).total_seconds())


def _of_figures(figures: Figures) -> Iterator[Sample]:
    for own in figures.own:
        labels = (own.issuer, own.profile)
        yield "acme_ca_own_certificate_not_after_timestamp_seconds", labels, own.not_after.timestamp()
    if figures.certificates is not None:
        yield "acme_ca_certificates_estimate", (), figures.certificates
    yield "acme_ca_certificates_recorded_last_hour", (), figures.recorded_last_hour
    yield "acme_ca_orders_stale", (), figures.stale_orders
    yield "acme_ca_validations_overdue", (), figures.overdue_validations
    for kind in (*LimitKind, "paused"):
        yield "acme_ca_rate_limited_total", (kind,), figures.refusals.get(kind, 0)
    yield "acme_ca_accounts_paused", (), figures.paused_accounts


# ---------------------------------------------------------------- the text


def _text(samples: list[Sample]) -> bytes:
    """Raises KeyError for a sample that is not in the list."""
    families = {
        metric.name: (CounterMetricFamily if metric.name.endswith("_total") else GaugeMetricFamily)(
            metric.name, metric.help, labels=metric.labels
        )
        for metric in METRICS
    }
    for name, labels, value in samples:
        families[name].add_metric(labels, float(value))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected([family for family in families.values() if family.samples]))
    return generate_latest(registry)


@dataclass(frozen=True, eq=False)
class _Collected(Collector):
    families: list[Family]

    def collect(self) -> list[Family]:
        return self.families
