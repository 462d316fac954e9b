"""Backup and restore, killed with SIGKILL between any two lines that touch the outside: a real process each time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from acme_ca.cli.options import operator
from acme_ca.server import datadir
from tests.server.test_backup import (
    REVOKED,
    content,
    dump,
    elsewhere,
    keys,
    made,
    original,
    settings,
    url,
    value,
)
from tests.support.server import ROOT

__all__ = ["content", "elsewhere", "keys", "original", "settings"]

KILLING = """
import importlib, os, signal, sys

place, moment, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.argv = ["acme-ca", *sys.argv[4:]]
module, _, path = place.partition(":")
owner = importlib.import_module(module)
*outer, name = path.split(".")
for one in outer:
    owner = getattr(owner, one)
act, calls = getattr(owner, name), 0

def counted(*arguments, **named):
    global calls
    calls += 1
    if calls == number and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    done = act(*arguments, **named)
    if calls == number and moment == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return done

setattr(owner, name, counted)
from acme_ca.cli import app
app()
"""
"""A process that dies at the n-th call of a function, before or after it has done its work."""

FILES = ("root.pem", "ca/root.key", "ca/root.pem", "ca/intermediate.key", "ca/intermediate.pem")


def run(
    *words: str, database: str | None, data: Path, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    variables = {"PYTHONPATH": str(ROOT), "ACME_CA_DATA": str(data), "ACME_CA_CA_PASSWORD": "secret words"}
    if database is not None:
        variables["ACME_CA_DATABASE_URL"] = database
    return subprocess.run(
        [sys.executable, *words],
        env={**kept, **variables},
        input=given,
        capture_output=True,
        timeout=100,
        check=False,
    )


def killed(place: str, moment: str, number: int, *words: str, **where) -> None:
    done = run("-c", KILLING, place, moment, str(number), *words, **where)
    assert done.returncode == -signal.SIGKILL, (done.returncode, done.stderr)


@pytest.fixture(scope="module")
def backup_file(content, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("backup") / "b.tar"
    file.write_bytes(content)
    return file


# ---------------------------------------------------------------- a restore

MOMENTS = {
    "before anything is there": ("acme_ca.server.datadir:Filling.begin", "after", 1),
    "before the first row": ("acme_ca.storage.copying:Refill.fill", "before", 1),
    "among the rows": ("acme_ca.storage.copying:Refill.fill", "before", 12),
    "among the files": ("acme_ca.server.restore:_lay_out", "after", 3),
    "before the audit tells": ("acme_ca.storage.copying:Refill.note", "before", 1),
    "before it is said to be whole": ("acme_ca.server.datadir:Filling.complete", "before", 1),
    "after it is said to be whole": ("acme_ca.server.datadir:Filling.complete", "after", 1),
    "before anything is in its place": ("acme_ca.server.datadir:Filling.finish", "before", 1),
    "among what is moved": ("acme_ca.server.datadir:Path.rename", "after", 1),
    "before the last is moved": ("acme_ca.server.datadir:Path.rename", "before", 2),
    "after the last is moved": ("acme_ca.server.datadir:Path.rename", "after", 2),
    "before the draft is gone": ("acme_ca.server.datadir:Path.rename", "before", 3),
    "while the draft goes": ("acme_ca.server.datadir:Path.rename", "after", 3),
    "at the end": ("acme_ca.server.datadir:Filling.finish", "after", 1),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
async def test_a_restore_that_is_killed_is_done_by_doing_it_again(settings, elsewhere, backup_file, moment):
    where = {"database": url(elsewhere), "data": elsewhere.data}
    await asyncio.to_thread(killed, *moment, "restore", str(backup_file), **where)
    unfinished = (elsewhere.data / datadir.RESTORING).exists()
    whole = all((elsewhere.data / file).exists() for file in FILES)
    assert unfinished or whole
    if unfinished:
        started = await asyncio.to_thread(run, "-m", "acme_ca", "serve", "--dev", **where)
        assert started.returncode == 2, started.stderr
        assert b"was not finished" in started.stderr
    again = await asyncio.to_thread(run, "-m", "acme_ca", "restore", str(backup_file), **where)
    if not unfinished:
        assert b"not empty" in again.stderr
    else:
        assert again.returncode == 0, again.stderr
    assert not (elsewhere.data / datadir.RESTORING).exists()
    for file in FILES:
        assert (elsewhere.data / file).read_bytes() == (settings.data / file).read_bytes()
    but = ("lease", "schema_version", "audit_event")
    assert await dump(elsewhere, *but) == await dump(settings, *but)
    assert await value(elsewhere, "SELECT count(*) FROM audit_event WHERE event = 'backup.restored'") == 1


@pytest.mark.parametrize(
    "moment",
    ["among the rows", "after it is said to be whole", "among what is moved", "before the draft is gone"],
)
async def test_a_restore_with_a_database_of_its_own_that_is_killed_is_done_by_doing_it_again(
    settings, tmp_path, backup_file, moment
):
    """PostgreSQL dies with it, and may still be writing when the next one comes."""
    where = {"database": None, "data": tmp_path / "data"}
    await asyncio.to_thread(killed, *MOMENTS[moment], "restore", str(backup_file), **where)
    again = await asyncio.to_thread(run, "-m", "acme_ca", "restore", str(backup_file), "--json", **where)
    assert again.returncode == 0, again.stderr
    assert f'"revoked": {REVOKED}'.encode() in again.stdout
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["ca", "postgres", "root.pem"]
    told = await asyncio.to_thread(run, "-m", "acme_ca", "audit", "verify", "--json", **where)
    assert told.returncode == 0, told.stderr
    for file in FILES:
        assert (tmp_path / "data" / file).read_bytes() == (settings.data / file).read_bytes()


async def test_what_another_backup_has_begun_is_not_ended_by_this_one(
    settings, elsewhere, backup_file, tmp_path
):
    where = {"database": url(elsewhere), "data": elsewhere.data}
    await asyncio.to_thread(killed, *MOMENTS["among what is moved"], "restore", str(backup_file), **where)
    other = tmp_path / "other.tar"
    await value(settings, "UPDATE account SET contact = '{mailto:later@example.org}'")
    other.write_bytes(await made(settings))
    refused = await asyncio.to_thread(run, "-m", "acme_ca", "restore", str(other), **where)
    assert refused.returncode == 2
    assert b"restore of another backup" in refused.stderr
    again = await asyncio.to_thread(run, "-m", "acme_ca", "restore", str(backup_file), **where)
    assert again.returncode == 0, again.stderr


# ---------------------------------------------------------------- a backup

AT_WORK = {
    "before the first table": ("acme_ca.server.backup:_copy", "before", 1),
    "among the tables": ("acme_ca.server.backup:_copy", "before", 12),
    "among the files": ("acme_ca.server.backup:_Packing.add_file", "after", 2),
    "after the last byte": ("acme_ca.server.archive:Writer.end", "after", 1),
    "before the audit tells": ("acme_ca.storage.copying:note", "before", 1),
    "before it has its name": ("acme_ca.server.archive:_publish", "before", 1),
    "while it has two names": ("os:link", "after", 1),
    "after it has its name": ("acme_ca.server.archive:_publish", "after", 1),
}


@pytest.mark.parametrize("moment", AT_WORK.values(), ids=AT_WORK)
async def test_a_backup_that_is_killed_is_none_or_whole_and_in_the_audit(settings, tmp_path, moment):
    where = {"database": url(settings), "data": settings.data}
    file = tmp_path / "b.tar"
    await asyncio.to_thread(killed, *moment, "backup", str(file), **where)
    if file.exists():
        checked = await asyncio.to_thread(run, "-m", "acme_ca", "restore", "--check", str(file), **where)
        assert checked.returncode == 0, checked.stderr
        told = "SELECT actor || ' ' || source FROM audit_event WHERE event = 'backup.made'"
        assert await value(settings, told) == f"{operator().name} socket"
        again = await asyncio.to_thread(run, "-m", "acme_ca", "backup", str(file), **where)
        assert b"is left as it is" in again.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["b.tar"]
        return
    assert moment not in (AT_WORK["while it has two names"], AT_WORK["after it has its name"])
    again = await asyncio.to_thread(run, "-m", "acme_ca", "backup", str(file), **where)
    assert again.returncode == 0, again.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["b.tar"]
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_file_for_the_settings_that_is_there_is_noticed_before_anything_is_restored(
    elsewhere, backup_file, tmp_path
):
    (tmp_path / "settings.toml").write_text("mine")
    where = {"database": url(elsewhere), "data": elsewhere.data}
    words = ("-m", "acme_ca", "restore", str(backup_file), "--settings-to", str(tmp_path / "settings.toml"))
    refused = await asyncio.to_thread(run, *words, **where)
    assert refused.returncode == 2, refused.stderr
    assert b"left as it is" in refused.stderr
    assert (tmp_path / "settings.toml").read_text() == "mine"
    assert not elsewhere.data.exists()
