"""`acme-ca audit verify`, `list`, `export` and `checkpoint`, run as processes beside a database."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime

import pytest

from acme_ca import app
from acme_ca.audit import chain
from acme_ca.ca import hierarchy, profiles
from acme_ca.storage import seals
from acme_ca.storage.database import Database
from tests.support.server import PASSWORD, command
from tests.support.trails import Trail


@pytest.fixture
async def trail(tmp_path, database_url):
    """Twenty events of alice under three seals, one more that waits; the hierarchy is in the data directory."""
    now = datetime.now(UTC)
    made = hierarchy.create_hierarchy(
        tmp_path / "data" / "ca",
        common_name="Example",
        organization="",
        country="",
        key_type="ec",
        password=PASSWORD.encode(),
        now=now,
    )
    async with Database.open(database_url, connections=2) as database:
        await app.register(database, made, now=now)
        await profiles.register(database, now=now)
        trail = Trail(database, made, tmp_path)
        trail.clock.now = now
        for count in (10, 5, 5):
            await trail.act(count)
            await trail.seal()
        await trail.act(1, object_="late")
        yield trail


@pytest.fixture
def run(tmp_path, database_url):
    async def run(*arguments: str):
        return await asyncio.to_thread(command, tmp_path, "audit", *arguments, DATABASE_URL=database_url)

    return run


async def test_a_changed_row_is_named(trail, run, tmp_path):
    """The tamper test: one row of the audit is changed by SQL."""
    done = await run("verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert "under 3 seals" in done.stdout
    assert "Not sealed yet, so not proved: 1 since" in done.stdout
    assert str(tmp_path / "data" / "ca" / "root.pem") in done.stdout
    event = (await trail.ids())[12]
    await trail.as_owner(f"UPDATE audit_event SET actor = 'operator:bob' WHERE id = {event}")
    done = await run("verify")
    assert done.returncode == 1
    assert f"event.changed  audit_event:{event}: it is not as it was sealed" in done.stdout
    document = json.loads((await run("verify", "--json")).stdout)
    assert document["errors"] == 1
    assert [finding["object"] for finding in document["findings"]] == [f"audit_event:{event}"]


async def test_a_trail_that_was_cut_off_is_found_by_a_kept_checkpoint(trail, run, tmp_path):
    done = await run("checkpoint")
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "kept.txt"
    kept.write_text(done.stdout)
    assert (await run("verify", "--checkpoint", str(kept))).returncode == 0
    await trail.as_owner(
        """DELETE FROM audit_event WHERE id > (SELECT last_event FROM audit_seal WHERE id = 2);
           DELETE FROM audit_seal WHERE id = 3"""
    )
    assert (await run("verify")).returncode == 0
    done = await run("verify", "--checkpoint", str(kept))
    assert done.returncode == 1
    assert "trail.cut-off  audit_seal:3" in done.stdout
    (tmp_path / "data" / "audit-checkpoint.txt").write_bytes(kept.read_bytes())
    assert "trail.cut-off" in (await run("verify")).stdout, (
        "the server keeps one itself, outside of the database"
    )


async def test_which_root_was_trusted_is_said(trail, run, tmp_path):
    root = tmp_path / "data" / "ca" / "root.pem"
    elsewhere = root.rename(tmp_path / "root.pem")
    done = await run("verify")
    assert done.returncode == 0
    assert "proves nothing against who can write there: give --root" in done.stdout
    done = await run("verify", "--root", str(elsewhere))
    assert (done.returncode, str(elsewhere) in done.stdout) == (0, True)
    other = tmp_path / "data" / "ca" / "intermediate.pem"
    assert other.exists()
    wrong = hierarchy.create_hierarchy(
        tmp_path / "other", common_name="Example", organization="", country="", key_type="ec", password=b"x",
        now=datetime.now(UTC),
    )  # fmt: skip
    del wrong
    done = await run("verify", "--root", str(tmp_path / "other" / "root.pem"))
    assert done.returncode == 1
    assert "does not come from the trusted root" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--root", "nonesuch"], "--root: nonesuch is no certificate"),
        (["--checkpoint", "nonesuch"], "--checkpoint: nonesuch cannot be read"),
    ],
)
async def test_what_cannot_be_read_is_said(run, arguments, words):
    done = await run("verify", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


async def test_the_export_is_what_was_sealed(trail, run):
    """A third party computes the hashes of the seals from nothing but the lines."""
    done = await run("export")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == await trail.database.fetchval("SELECT count(*) FROM audit_event")
    by_seal: dict[int | None, bytes] = {}
    for line in lines:
        content, _, seal = line[:-1].rpartition(',"seal":')
        id_ = json.loads(line)["id"]
        entry = id_.to_bytes(8) + hashlib.sha256(f"{content}}}".encode()).digest()
        by_seal[json.loads(seal)] = by_seal.get(json.loads(seal), b"") + entry
    stored = {seal.id: seal.entries async for seal in seals.seals(trail.database, until=9)}
    assert by_seal.pop(None)
    assert by_seal == stored
    assert [chain.hash_of(seal) == seal.hash async for seal in seals.seals(trail.database, until=9)] == [
        True
    ] * 3
    chosen = (await run("export", "--object", "thing:4", "--actor", "operator:alice")).stdout.splitlines()
    assert {json.loads(line)["object"] for line in chosen} == {"thing:4"}
    assert len(chosen) == 3


async def test_the_list_shows_the_newest_first(trail, run):
    shown = json.loads((await run("list", "--event", "thing.done", "--limit", "2", "--json")).stdout)
    assert [one["object"] for one in shown] == ["thing:9", "thing:8"]
    assert shown[0]["seal"] == 1
    assert shown[0]["detail"] == {"before": 9, "after": "ä\n"}
    (late,) = json.loads((await run("list", "--object", "late:0", "--json")).stdout)
    assert late["seal"] is None
    done = await run("list", "--actor", "operator:alice")
    assert done.returncode == 0, done.stderr
    assert "late:0" in done.stdout
    assert "192.0.2.1" in done.stdout
