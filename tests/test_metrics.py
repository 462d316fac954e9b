"""/metrics: what the list names, the text has; what the text has, every worker says."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from acme_ca import __version__
from acme_ca.metrics import FRESH, METRICS, Metrics
from acme_ca.storage import crls, figures, issuers
from acme_ca.storage.database import Database
from tests.storage.conftest import draft
from tests.support import records
from tests.support.fixtures import IN_SESSION_LOOP, ca, hierarchy, hierarchy_place, new_ca, outside
from tests.support.records import DAY, NOW

__all__ = ["ca", "draft", "hierarchy", "hierarchy_place", "new_ca", "outside"]

OPERATING = Path(__file__).resolve().parents[1] / "docs" / "operating.md"
URL = "http://ca.test/metrics"


def parsed(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """{name: {values of the labels: value}}"""
    return {
        family.name: {tuple(sample.labels.values()): sample.value for sample in family.samples}
        for family in text_string_to_metric_families(text)
    }


async def scraped(ca) -> dict[str, dict[tuple[str, ...], float]]:
    answer = await ca.plain.request("GET", URL, failing=True)
    assert answer.status == 200
    return parsed(answer.body.decode())


# ---------------------------------------------------------------- served


@IN_SESSION_LOOP
async def test_what_a_ca_says(new_ca, hierarchy):
    async with new_ca() as ca:
        await ca.sql("ANALYZE certificate")
        await published(ca)
        answer = await ca.plain.request("GET", URL)
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        assert answer.headers["Cache-Control"] == "no-store"
        found = parsed(answer.body.decode())
    assert set(found) == {metric.name.removesuffix("_total") for metric in METRICS}
    assert found["acme_ca_build_info"] == {(__version__,): 1}
    assert found["acme_ca_development_mode"] == {(): 0}
    assert found["acme_ca_healthy"] == {(): 1}
    assert set(found["acme_ca_check_ok"].values()) == {1}
    issuer = hierarchy.intermediate
    ends = found["acme_ca_issuer_not_after_timestamp_seconds"]
    assert ends[issuer.id, "intermediate", "active"] == issuer.not_after.timestamp()
    assert set(ends) == {
        (hierarchy.root.id, "root", "active"),
        (issuer.id, "intermediate", "active"),
    }
    assert 1800 < found["acme_ca_issuer_days_left"][issuer.id, "intermediate", "active"] < 1827
    assert found["acme_ca_crl_shards"] == {(hierarchy.root.id,): 1, (issuer.id,): 1}
    assert found["acme_ca_crls"] == {(issuer.id,): 1}
    assert found["acme_ca_crl_entries"] == {(issuer.id,): 0}
    own = found["acme_ca_own_certificate_not_after_timestamp_seconds"]
    sealing = {(issuer.id, "audit_signer")}  # made by the first round that seals
    assert set(own) | sealing == {(issuer.id, "acme_server"), (issuer.id, "ocsp_responder")} | sealing
    recorded = found["acme_ca_certificates_recorded_last_hour"][()]
    assert recorded - len(sealing & set(own)) == found["acme_ca_certificates_estimate"][()] > 0
    assert found["acme_ca_orders_stale"] == found["acme_ca_validations_overdue"] == {(): 0}


@pytest.mark.parametrize("time", ["-infinity", "infinity", "4000-01-01 BC", "294000-01-01"])
async def test_times_that_somebody_changed_end_no_figures(new_ca, time):
    async with new_ca() as ca:
        await published(ca)
        assert await ca.sql("SELECT count(*) FROM crl")
        await ca.sql("INSERT INTO crl_due (issuer_id, shard, at) SELECT id, 9, now() FROM issuer")
        for column in (
            *("crl.this_update", "crl.next_update", "crl_due.at"),
            *("certificate.not_after", "issuer.not_before", "issuer.created", "issuer.not_after"),
        ):
            table, _, name = column.partition(".")
            await ca.sql(f"UPDATE {table} SET {name} = '{time}'")
            async with Database.open(ca.dsn, connections=1) as database:
                now = datetime.now(UTC)
                assert await figures.figures(database, now=now, stale=now)
                await figures.ending_crls(database, now)
                assert len(await issuers.all_issuers(database)) == 2


@IN_SESSION_LOOP
async def test_every_worker_says_the_same(new_ca):
    async with new_ca() as one, new_ca(dsn=one.dsn) as other:
        account = await one.account()
        await (await account.order(one.name())).issue(one.web)
        first, second = await scraped(one), await scraped(other)
        for moving in ("acme_ca_issuer_days_left",):
            assert set(first.pop(moving)) == set(second.pop(moving))
        assert first == second


@IN_SESSION_LOOP
async def test_a_development_switch_is_loud(new_ca):
    """Lesson 27."""
    async with new_ca(dev=True) as ca:
        assert (await scraped(ca))["acme_ca_development_mode"] == {(): 1}


@IN_SESSION_LOOP
async def test_not_where_acme_is_spoken(ca):
    assert (await ca.client.request("GET", "https://ca.test/metrics")).status == 404


@IN_SESSION_LOOP
async def test_without_its_database(new_ca, postgres):
    name = await postgres.create()
    async with new_ca(dsn=postgres.url(name)) as broken:
        await postgres.drop(name)
        found = await scraped(broken)
    assert set(found) == {
        "acme_ca_build_info",
        "acme_ca_development_mode",
        "acme_ca_healthy",
        "acme_ca_check_ok",
    }
    assert found["acme_ca_healthy"] == {(): 0}
    assert found["acme_ca_check_ok"][("database",)] == 0


async def published(ca) -> None:
    """Let the CA work until its issuer has a CRL; the root's key is elsewhere."""
    task = asyncio.create_task(ca.application.background())
    for _ in range(500):
        if await ca.sql("SELECT count(*) FROM crl"):
            break
        await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# ---------------------------------------------------------------- read


class Watch:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
async def database(database_url):
    async with records.stocked(database_url) as opened:
        yield opened


def metrics(database: Database, clock: Watch) -> Metrics:
    async def health():
        return False, {"checks": {"issuer_life": "expires soon", "database": "ok"}}

    return Metrics(database=database, health=health, clock=clock, dev=False)


async def read(found: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    return parsed((await found.text()).decode())


async def test_what_was_not_taken_up(database, draft):
    owner = await records.account(database)
    processing, waiting = [await records.order(database, owner, name) for name in ("a.example", "b.example")]
    await records.validate(database, owner, processing)
    await records.claim(database, processing, draft)
    (authorization,) = waiting.authorizations
    assert await records.answer(database, owner, authorization, "http-01", due=NOW)
    watch = Watch()
    watched = metrics(database, watch)
    for later, count in ((timedelta(seconds=60), 0), (timedelta(seconds=66), 1)):
        watch.now = NOW + later
        found = await read(watched)
        assert found["acme_ca_orders_stale"] == {(): count}
        assert found["acme_ca_validations_overdue"] == {(): count}
    assert found["acme_ca_certificates_recorded_last_hour"] == {(): 1}
    watch.now = NOW + DAY
    assert (await read(watched))["acme_ca_certificates_recorded_last_hour"] == {(): 0}


async def test_what_waits_for_a_crl(database):
    watch = Watch()
    watch.now = NOW + timedelta(seconds=30)
    found = await read(metrics(database, watch))
    assert (found["acme_ca_crl_due"], found["acme_ca_crl_due_seconds"]) == ({(): 0}, {(): 0})
    for later in (0, 10):
        await crls.wish(database, issuer=None, shard=None, now=NOW + timedelta(seconds=later))
    found = await read(metrics(database, watch))
    assert (found["acme_ca_crl_due"], found["acme_ca_crl_due_seconds"]) == ({(): 2}, {(): 30})


async def test_states_of_issuers(database):
    watch = Watch()
    watch.now = NOW + 901 * DAY
    found = await read(metrics(database, watch))
    assert found["acme_ca_issuer_days_left"] == {(records.ISSUER, "intermediate", "expired"): -1}
    assert found["acme_ca_check_ok"] == {("issuer_life",): 0, ("database",): 1}
    assert "acme_ca_certificates_estimate" not in found, "before the first ANALYZE"


async def test_figures_are_read_every_five_seconds_at_most(database):
    watch = Watch()
    watched = metrics(database, watch)
    first = await watched.text()
    await database.execute("UPDATE issuer SET open_shard = 7")
    watch.now = NOW + FRESH - timedelta(milliseconds=1)
    assert await watched.text() == first
    watch.now = NOW + FRESH
    assert (await read(watched))["acme_ca_crl_shards"] == {(records.ISSUER,): 8}


async def test_figures_are_read_anew_when_the_clock_was_set_back(database):
    watch = Watch()
    watched = metrics(database, watch)
    await watched.text()
    await database.execute("UPDATE issuer SET open_shard = 7")
    watch.now = NOW - timedelta(hours=6)
    assert (await read(watched))["acme_ca_crl_shards"] == {(records.ISSUER,): 8}


# ---------------------------------------------------------------- the list


def test_the_list_and_the_docs_agree():
    section = OPERATING.read_text().partition("## Metrics")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(acme_ca_\w+)` \| ([^|]*) \| ([^|]*) \|$", section, re.MULTILINE)
    assert rows == [
        (metric.name, ", ".join(f"`{label}`" for label in metric.labels), metric.help) for metric in METRICS
    ]


def test_names_are_of_one_kind():
    assert all(re.fullmatch(r"acme_ca_[a-z_]+", metric.name) for metric in METRICS)
    assert len({metric.name for metric in METRICS}) == len(METRICS)
