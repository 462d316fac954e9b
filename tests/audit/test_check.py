"""`acme-ca audit check`: what it says, how it ends, and how it goes on after it was cut off."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, astuple
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from acme_ca.app import register
from acme_ca.audit import check
from acme_ca.audit.findings import Findings
from acme_ca.audit.journal import Journal
from acme_ca.ca import profiles
from acme_ca.ca.hierarchy import Hierarchy
from acme_ca.core import identifiers
from acme_ca.core.policy import NamePolicy
from acme_ca.storage import audit
from acme_ca.storage.audit import Scope
from acme_ca.storage.database import Database
from tests.audit.conftest import KEPT
from tests.support import issued, records
from tests.support.server import command, environment, free_ports

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
async def database(database_url, hierarchy) -> AsyncIterator[Database]:
    """Nine certificates; of the third the order is missing."""
    async with stocked(database_url, hierarchy, 9) as opened:
        await opened.execute("DELETE FROM orders WHERE id = $1", f"{2:032x}")
        yield opened


@asynccontextmanager
async def stocked(dsn: str, hierarchy: Hierarchy, number: int) -> AsyncIterator[Database]:
    async with Database.open(dsn, connections=1) as opened:
        await register(opened, hierarchy, now=datetime.now(UTC))
        await profiles.register(opened, now=datetime.now(UTC))
        owner = await records.account(opened)
        await issued.fill(dsn, hierarchy, account=owner.id, number=number)
        yield opened


@pytest.fixture
def run(tmp_path, database_url) -> Run:
    """`acme-ca audit check …`; to be called in a thread."""
    return lambda *arguments: command(tmp_path, "audit", "check", *arguments, DATABASE_URL=database_url)


# ---------------------------------------------------------------- what it says


async def test_something_is_wrong(run, database, tmp_path):
    done = await asyncio.to_thread(run)
    assert (done.returncode, done.stderr) == (1, "")
    *findings, total, counts = done.stdout.splitlines()
    serial = await database.fetchval("SELECT serial FROM certificate WHERE order_id = $1", f"{2:032x}")
    assert findings == [f"error  order.missing  certificate:{serial}: there is no order for it"]
    assert total.startswith("9 certificates, recorded before ")
    assert total.endswith(" UTC; errors: 1, notes: 0.")
    assert (
        counts
        == "Of these 0 of the server itself, 0 of operators, 0 not signed, 0 older than the evidence that is kept, "
        "0 with a name that an administrator approved. 2 CRLs."
    )
    assert not (tmp_path / "data" / "audit-check.jsonl").exists()


async def test_for_programs(run, database):
    done = await asyncio.to_thread(run, "--json")
    document = json.loads(done.stdout)
    serial = await database.fetchval("SELECT serial FROM certificate WHERE order_id = $1", f"{2:032x}")
    assert document.pop("errors") == [
        {"code": "order.missing", "object": f"certificate:{serial}", "sentence": "there is no order for it"}
    ]
    assert datetime.fromisoformat(document.pop("until")) <= datetime.now(UTC)
    assert document == {
        "since": "1970-01-01T00:00:00+00:00",
        "issuer": None,
        "certificates": 9,
        "own": 0,
        "operators": 0,
        "unsigned": 0,
        "unproved": 0,
        "approved": 0,
        "crls": 2,
        "notes": [],
    }


async def test_all_is_well_after_that_time(run, database, hierarchy):
    since = await database.fetchval("SELECT recorded FROM certificate WHERE order_id = $1", f"{3:032x}")
    issuer = ("--issuer", hierarchy.intermediate.id)
    done = await asyncio.to_thread(run, "--json", "--since", since.isoformat(), *issuer)
    assert done.returncode == 0
    assert json.loads(done.stdout)["certificates"] == 6
    until = since.replace(tzinfo=None).isoformat()
    done = await asyncio.to_thread(run, "--json", "--until", until)
    assert done.returncode == 1
    assert json.loads(done.stdout)["certificates"] == 3


async def test_no_check_reaches_into_the_future(run, database):
    """What is recorded while it runs is for the next one."""
    done = await asyncio.to_thread(run, "--json", "--until", "2090-01-01")
    assert datetime.fromisoformat(json.loads(done.stdout)["until"]) <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--since", "yesterday"), "--since"),
        (("--until", "2026-13-01"), "--until"),
        (("--since", "0001-01-01T00:00:00+14:00"), "--since"),
        (("--since", "0001-01-01"), "--since"),
        (("--issuer", "0" * 32), "--issuer"),
        (("--resume",), "--resume"),
        (("--resume", "--since", "2026-01-01"), "--resume"),
    ],
)
async def test_what_cannot_be_checked_is_refused(run, database, arguments, says):
    done = await asyncio.to_thread(run, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (sentence,) = done.stderr.splitlines()
    assert says in sentence


async def test_a_journal_that_is_none_is_refused(run, database, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "audit-check.jsonl").write_text("nonsense\n")
    done = await asyncio.to_thread(run, "--resume")
    assert done.returncode == 2
    assert "--resume" in done.stderr


# ---------------------------------------------------------------- cut off


async def test_a_check_that_was_cut_off_anywhere_goes_on(database, tmp_path, monkeypatch):
    """Whatever part of the journal a crash left."""
    monkeypatch.setattr(audit, "_CERTIFICATES", audit._CERTIFICATES.replace("LIMIT 500", "LIMIT 2"))
    monkeypatch.setattr(audit, "EVENT_BATCH", 10)
    await told_of_the_lost(database, 2**62)
    place = tmp_path / "journal"
    scope = Scope(since=datetime.fromtimestamp(0, UTC), until=datetime.now(UTC), issuer=None)
    whole = await followed(database, journal := Journal.begin(place, scope))
    content = place.read_bytes()
    lines = 1 + 5 + 1 + 2 + 3 + 2
    assert len(content.splitlines()) == lines, (
        "scope, five batches, end, orders, end, two batches of audit events and the rest, two shards"
    )
    seen: dict[int, object] = {}
    for length in range(content.index(b"\n") + 1, len(content) + 1):
        place.write_bytes(content[:length])
        resumed = Journal.resume(place)
        assert resumed.scope == journal.scope
        kept = content.rfind(b"\n", 0, length) + 1
        assert place.read_bytes() == content[:kept], "the next line begins where the last whole one ends"
        state = astuple(resumed.position), asdict(resumed.total)
        if kept not in seen:  # from the same state the same follows
            seen[kept] = state
            assert await followed(database, resumed) == whole
            assert place.read_bytes() == content
        assert state == seen[kept]
    assert len(seen) == lines
    for length in range(content.index(b"\n") + 1):
        place.write_bytes(content[:length])
        with pytest.raises(ValueError, match="journal"):
            Journal.resume(place)


async def followed(database: Database, journal: Journal) -> Findings:
    background = await check.background(
        database,
        now=datetime.now(UTC),
        policy=NamePolicy(),
        own=identifiers.dns("ca.test"),
        evidence_kept=KEPT,
    )
    async for step in check.steps(database, journal.scope, background, after=journal.position):
        journal.write(step)
    return journal.total


async def told_of_the_lost(database: Database, id_: int) -> str:
    """An event with that id, of a certificate that is not there; gives the object."""
    object_ = f"certificate:{id_ % 2**64:032x}"
    await database.execute(
        """INSERT INTO audit_event (id, at, event, actor, object) OVERRIDING SYSTEM VALUE
           VALUES ($1, now() - interval '1 hour', 'certificate.issued', 'account:x', $2)""",
        id_,
        object_,
    )
    return object_


@pytest.mark.parametrize("batch", [1, 2, 1000])
async def test_events_are_found_whatever_their_ids(database, tmp_path, monkeypatch, batch):
    """One id far above all others once had a check go on for ever, through ids that never were."""
    monkeypatch.setattr(audit, "EVENT_BATCH", batch)
    ids = (-(2**63) + 1, -7, 0, 2**62, 2**63 - 1)
    lost = {await told_of_the_lost(database, id_) for id_ in ids}
    scope = Scope(since=datetime.fromtimestamp(0, UTC), until=datetime.now(UTC), issuer=None)
    place = tmp_path / "journal"
    found = (await followed(database, Journal.begin(place, scope))).found
    assert {one.object for one in found if one.code == "audit.certificate"} == lost
    events = await database.fetchval("SELECT count(*) FROM audit_event")
    assert place.read_bytes().count(b"\n") < 12 + events // batch


@asynccontextmanager
async def held(database: Database) -> AsyncIterator[None]:
    """A check waits when it comes to the CRLs: it does not end before it is ended, however slow this process is."""
    async with database.transaction() as connection:
        await connection.execute("LOCK TABLE crl IN ACCESS EXCLUSIVE MODE")
        yield


async def test_a_killed_process_is_gone_on_with(database_url, hierarchy, tmp_path, run):
    async with stocked(database_url, hierarchy, 4000) as opened:
        await opened.execute("DELETE FROM orders WHERE id = $1", f"{2:032x}")
        async with held(opened):
            journal = await asyncio.to_thread(killed_in_the_middle, tmp_path, database_url)
        assert journal.count(b"\n") > 1
        done = await asyncio.to_thread(run, "--resume", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["certificates"], len(found["errors"])) == (1, 4000, 1)


def killed_in_the_middle(place: Path, database_url: str) -> bytes:
    """What the process left in its journal."""
    process, path = begun(place, database_url)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    return path.read_bytes()


def begun(place: Path, database_url: str) -> tuple[subprocess.Popen[str], Path]:
    """A check that has two batches behind it, and its journal."""
    path = place / "data" / "audit-check.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "acme_ca", "audit", "check"],
        env=environment(place, free_ports(5), {"DATABASE_URL": database_url}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not path.exists() or path.read_bytes().count(b"\n") < 3:
        assert process.poll() is None, "it came to its end"
        time.sleep(0.001)
    return process, path


async def test_ctrl_c_says_how_to_go_on(database_url, hierarchy, tmp_path):
    async with stocked(database_url, hierarchy, 2000) as opened, held(opened):
        status, said = await asyncio.to_thread(interrupted, tmp_path, database_url)
    assert status == 130
    assert said.splitlines() == ["Interrupted. To go on: acme-ca audit check --resume"]


def interrupted(place: Path, database_url: str) -> tuple[int, str]:
    process, _ = begun(place, database_url)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    return process.returncode, said
