"""A backup brought back is what it was made of; and what is not whole is not brought back at all."""

from __future__ import annotations

import asyncio
import io
import json
import resource
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from acme_ca.app import register
from acme_ca.ca import profiles
from acme_ca.config import ConfigurationError, Settings
from acme_ca.core.actors import Actor
from acme_ca.server import archive, backup, datadir, restore
from acme_ca.server.archive import DamagedBackup, Member, Writer
from acme_ca.server.backup import Format, Manifest, MemberLine
from acme_ca.storage import operations
from acme_ca.storage.database import Database
from tests.support import issued, records
from tests.support.fixtures import new_hierarchy

NUMBER = 20
ALICE = Actor("operator:alice")
REVOKED = 7
DUMP = "SELECT json_agg(to_jsonb(t) ORDER BY to_jsonb(t)::text)::text FROM {} t"


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> tuple[Path, object]:
    """A data directory with a hierarchy."""
    place = tmp_path_factory.mktemp("keys")
    return place, new_hierarchy(place, "Example")


@pytest.fixture(scope="module")
def original(keys, postgres) -> str:
    """The name of a database with all kinds of rows."""
    name = asyncio.run(postgres.create())
    asyncio.run(_fill(postgres.url(name), *keys))
    return name


@pytest.fixture(scope="module")
def content(keys, original, postgres) -> bytes:
    """A backup of it."""
    place, _ = keys
    return asyncio.run(made(_settings(place, postgres.url(original))))


@pytest.fixture
async def settings(keys, original, postgres) -> Settings:
    """Of a server that has issued and revoked."""
    place, _ = keys
    name = await postgres.copy(original)
    yield _settings(place, postgres.url(name))
    await postgres.drop(name)


def _settings(place: Path, url: str) -> Settings:
    return Settings(data=place, database_url=url, ca_password="secret words", workers=3)


async def _fill(database_url: str, place: Path, hierarchy: object) -> None:
    (place / "root.pem").write_bytes((place / "ca" / "root.pem").read_bytes())
    async with Database.open(database_url, connections=1) as opened:
        await register(opened, hierarchy, now=datetime.now(UTC))
        await profiles.register(opened, now=datetime.now(UTC))
        owner = await records.account(opened)
        await issued.fill(database_url, hierarchy, account=owner.id, number=NUMBER)
        await opened.execute(
            "UPDATE certificate SET revoked = now(), reason = 1, status_changed = now() WHERE serial IN "
            f"(SELECT serial FROM certificate ORDER BY serial LIMIT {REVOKED})"
        )
        await opened.execute(
            """INSERT INTO crl (issuer_id, shard, number, this_update, next_update, entries, der, delta, urls, base_number,
                    base_at, base, lists_after, opened, counted)
               SELECT id, 0, 1700000000000, now(), now(), 0, '\\x00ff0a5c', NULL, ARRAY[E'a\\tb\\\\N'], 1, now(), '', now(), now(), now()
               FROM issuer"""
        )
        await operations.nonce_epoch(opened, 42)
        await operations.shared_secret(opened, "nonce", b"\0\\\n\xff")
        await operations.take_lease(opened, "crl", "somebody", now=datetime.now(UTC), seconds=1000)


@pytest.fixture
def elsewhere(tmp_path, empty_database_url) -> Settings:
    return Settings(data=tmp_path / "elsewhere", database_url=empty_database_url)


async def made(settings: Settings) -> bytes:
    target = io.BytesIO()
    await backup.make(settings, url(settings), target)
    return target.getvalue()


async def restored(settings: Settings, content: bytes) -> restore.Read:
    return await asyncio.to_thread(restore.restore, settings, io.BytesIO(content), actor=ALICE)


def url(settings: Settings) -> str:
    return settings.database_url.get_secret_value()


async def dump(settings: Settings, *but: str) -> dict[str, str]:
    """All rows of all logged tables."""
    connection = await asyncpg.connect(url(settings))
    try:
        names = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relpersistence = 'p' AND relnamespace = 'public'::regnamespace"
        )
        return {name: await connection.fetchval(DUMP.format(name)) for (name,) in names if name not in but}
    finally:
        await connection.close()


async def value(settings: Settings, query: str) -> object:
    connection = await asyncpg.connect(url(settings))
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def members(content: bytes) -> list[Member]:
    return list(archive.members(io.BytesIO(content)))


def packed(contents: list[Member], *, true: bool = True) -> bytes:
    """As a backup; `true`: with the manifest's hashes as the members are now."""
    target = io.BytesIO()
    writer = Writer(target, at=0)
    for member in [*contents[:-1], _manifest(contents) if true else contents[-1]]:
        writer.add(member)
    writer.end()
    return target.getvalue()


def _manifest(contents: list[Member]) -> Member:
    document = json.loads(contents[-1].content)
    document["members"] = [
        MemberLine(name=one.name, size=len(one.content), sha256=one.sha256).model_dump()
        for one in contents[:-1]
    ]
    return Member(name=contents[-1].name, mode=0o600, content=json.dumps(document).encode())


# ---------------------------------------------------------------- there and back


async def test_all_comes_back(settings, elsewhere):
    before = await dump(settings, "lease", "schema_version")
    read = await restored(elsewhere, await made(settings))
    after = await dump(elsewhere, "lease", "schema_version", "audit_event")
    assert after == {name: rows for name, rows in before.items() if name != "audit_event"}
    assert read.backup.manifest.rows["certificate"] == NUMBER
    assert sum(read.backup.manifest.revoked.values()) == REVOKED
    for file in ("root.pem", "ca/root.key", "ca/root.pem", "ca/intermediate.key", "ca/intermediate.pem"):
        there, back = settings.data / file, elsewhere.data / file
        assert back.read_bytes() == there.read_bytes()
        assert back.stat().st_mode == there.stat().st_mode
    assert (elsewhere.data / "ca").stat().st_mode & 0o777 == 0o700


async def test_what_must_not_come_back_does_not(settings, elsewhere):
    await restored(elsewhere, await made(settings))
    for table in ("nonce_epoch", "nonce", "bucket", "login_failure", "lease"):
        assert await value(elsewhere, f"SELECT count(*) FROM {table}") == 0


async def test_the_act_is_in_the_audit_behind_all_others(settings, elsewhere):
    made_ = io.BytesIO()
    await backup.note(url(settings), await backup.make(settings, url(settings), made_), actor=ALICE)
    await restored(elsewhere, made_.getvalue())
    assert await value(settings, "SELECT event FROM audit_event ORDER BY id DESC LIMIT 1") == "backup.made"
    assert (
        await value(elsewhere, "SELECT event FROM audit_event ORDER BY id DESC LIMIT 1") == "backup.restored"
    )
    newest = "SELECT max(id) FROM audit_event"
    assert await value(elsewhere, newest) == await value(settings, newest)


async def test_a_number_is_not_given_out_twice_though_its_row_is_gone(settings, elsewhere):
    await value(settings, "INSERT INTO crl_due (issuer_id, shard, at) SELECT id, 0, now() FROM issuer")
    await value(settings, "DELETE FROM crl_due")
    await restored(elsewhere, await made(settings))
    query = "INSERT INTO crl_due (issuer_id, shard, at) SELECT id, 0, now() FROM issuer LIMIT 1 RETURNING id"
    assert await value(elsewhere, query) == 3


async def test_it_is_of_one_moment(settings, elsewhere, monkeypatch):
    """What is issued while it is made is not in it, not even a part of it."""
    copy, begun = backup._copy, asyncio.Event()

    async def copy_slowly(snapshot, table, packing):
        if not begun.is_set():
            begun.set()
            await value(settings, "UPDATE account SET contact = '{mailto:later@example.org}'")
            await value(settings, "DELETE FROM validation")
        return await copy(snapshot, table, packing)

    before = await dump(settings)
    monkeypatch.setattr(backup, "_copy", copy_slowly)
    await restored(elsewhere, await made(settings))
    after = await dump(elsewhere)
    assert (after["account"], after["validation"]) == (before["account"], before["validation"])


async def test_a_table_that_is_larger_than_a_piece(settings, elsewhere, monkeypatch):
    monkeypatch.setattr(backup, "PIECE", 100)
    content = await made(settings)
    assert sum(member.name.startswith("tables/certificate/") for member in members(content)) > 10
    await restored(elsewhere, content)
    assert await value(elsewhere, "SELECT count(*) FROM certificate") == NUMBER


def test_check_reads_and_writes_nothing(content, tmp_path):
    read = restore.check(io.BytesIO(content))
    assert read.backup.manifest.rows["certificate"] == NUMBER
    assert list(tmp_path.iterdir()) == []


async def test_secrets_that_were_set_are_not_in_it(settings):
    content = await made(settings)
    assert b"secret words" not in content
    assert url(settings).encode() not in content
    (text,) = [member.content.decode() for member in members(content) if member.name == "settings.toml"]
    assert "workers = 3" in text
    assert "# ca_password was set" in text


async def test_only_what_belongs_to_the_ca_is_taken(settings, elsewhere):
    outside = settings.data / "ca" / "link.pem"
    outside.symlink_to("/etc/passwd")
    (settings.data / "notes.txt").write_text("mine")
    try:
        assert {
            member.name for member in members(await made(settings)) if member.name.startswith("data/")
        } == {
            "data/root.pem",
            *(f"data/ca/{name}" for name in ("root.key", "root.pem", "intermediate.key", "intermediate.pem")),
        }
    finally:
        outside.unlink()


# ---------------------------------------------------------------- where it goes


async def test_a_database_that_is_not_empty_is_left_as_it_is(settings, elsewhere):
    content = await made(settings)
    target = elsewhere.model_copy(update={"database_url": settings.database_url})
    before = await dump(settings)
    with pytest.raises(ConfigurationError, match="not empty"):
        await restored(target, content)
    assert await dump(settings) == before
    assert not elsewhere.data.exists()


async def test_a_directory_that_is_not_empty_is_left_as_it_is(content, elsewhere):
    elsewhere.data.mkdir()
    (elsewhere.data / "mine").write_text("x")
    with pytest.raises(ConfigurationError, match="not empty"):
        await restored(elsewhere, content)
    assert [path.name for path in elsewhere.data.iterdir()] == ["mine"]
    assert await is_empty(elsewhere)


async def is_empty(settings: Settings) -> bool:
    count = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    return await value(settings, count) == 0


async def test_what_a_crash_left_is_cleared_away(content, elsewhere):
    (elsewhere.data / datadir.RESTORING / "ca").mkdir(parents=True)
    (elsewhere.data / datadir.RESTORING / "ca" / "half.key").write_bytes(b"ha")
    await restored(elsewhere, content)
    assert not (elsewhere.data / "ca" / "half.key").exists()


async def test_a_disk_that_is_full_is_a_sentence_and_nothing_is_left(content, elsewhere):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(ConfigurationError, match="cannot be written: file too large"):
            await restored(elsewhere, content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert await is_empty(elsewhere)
    await restored(elsewhere, content)


def test_nothing_else_begins_where_a_restore_was_interrupted(tmp_path):
    (tmp_path / datadir.RESTORING).mkdir()
    with pytest.raises(ConfigurationError, match="was not finished"), datadir.alone(tmp_path):
        raise AssertionError


def test_parts_of_an_interrupted_restore_are_not_restored_over(tmp_path):
    (tmp_path / datadir.RESTORING).mkdir()
    (tmp_path / "ca").mkdir()
    with (
        pytest.raises(ConfigurationError, match="interrupted"),
        datadir.filling(tmp_path) as filling,
    ):
        filling.begin()


def test_nobody_restores_where_a_server_is_being_started(tmp_path):
    with (
        datadir.alone(tmp_path),
        pytest.raises(ConfigurationError, match="another acme-ca"),
        datadir.filling(tmp_path),
    ):
        raise AssertionError


# ---------------------------------------------------------------- what is not whole


def without(name: str) -> Callable[[list[Member]], bytes]:
    return lambda all_: packed([member for member in all_ if not member.name.startswith(name)])


def changed(
    name: str, change: Callable[[bytes], bytes], *, true: bool = True
) -> Callable[[list[Member]], bytes]:
    def spoil(all_: list[Member]) -> bytes:
        spoiled = [
            Member(name=one.name, mode=one.mode, content=change(one.content)) if one.name == name else one
            for one in all_
        ]
        assert spoiled != all_
        return packed(spoiled, true=true)

    return spoil


def added(name: str, *, before: str) -> Callable[[list[Member]], bytes]:
    def spoil(all_: list[Member]) -> bytes:
        place = next(number for number, one in enumerate(all_) if one.name.startswith(before))
        return packed([*all_[:place], Member(name=name, mode=0o600, content=b"x"), *all_[place:]])

    return spoil


def document(**fields: object) -> Callable[[bytes], bytes]:
    return lambda content: json.dumps({**json.loads(content), **fields}).encode()


LATER = (datetime.now(UTC) + timedelta(days=1)).isoformat()
DAMAGES = {
    "a byte of a row": changed("tables/account/000001", lambda it: it[:-2] + b"x\n", true=False),
    "a row more than counted": changed(
        "tables/audit_event/000001", lambda it: it + it.replace(b"1", b"987", 1)
    ),
    "a revocation undone": changed(
        "manifest.json",
        lambda it: it.replace(f": {REVOKED}".encode(), f": {REVOKED + 1}".encode()),
        true=False,
    ),
    "a CRL number": changed(
        "manifest.json", lambda it: it.replace(b"1700000000000", b"1700000000001"), true=False
    ),
    "a key": changed("data/ca/root.key", lambda it: it + b"\n", true=False),
    "rows that are none": changed("tables/account/000001", lambda _: b"\\N\n"),
    "rows of nothing": changed("tables/orders/000001", lambda _: b"\xff\xfe\n"),
    "rows that refer to nothing": without("tables/account/"),
    "no rows where some were": without("tables/validation/"),
    "no first piece": changed("tables/audit_event/000001", lambda _: b"\\.\n"),
    "no key": lambda all_: packed([one for one in all_ if one.name != "data/ca/root.key"], true=False),
    "no settings": without("settings.toml"),
    "no manifest": lambda all_: packed([*all_[:-1], all_[-2]], true=False),
    "no format": without("format.json"),
    "no tables": without("tables/"),
    "a member twice": added("data/ca/root.key", before="settings.toml"),
    "a table twice": added("tables/account/000001", before="tables/certificate"),
    "a table that is not known": added("tables/pg_authid/000001", before="tables/account"),
    "a file of the database": added("data/postgres/x", before="data/root.pem"),
    "a file of nobody's": added("data/notes", before="data/root.pem"),
    "a file deeper down": added("data/ca/x/y", before="data/root.pem"),
    "a file upwards": lambda all_: added("data/ca/xx/root.key", before="settings.toml")(all_).replace(
        b"ca/xx/root", b"ca/../root"
    ),
    "another column": changed("format.json", lambda it: it.replace(b'"thumbprint"', b'"fingerprint"')),
    "a format to come": changed("format.json", document(format=2)),
    "a schema to come": changed("format.json", document(schema_version=99)),
    "a time to come": changed("format.json", document(at=LATER)),
    "no time": changed("format.json", document(at="yesterday")),
    "a time without its zone": changed("format.json", document(at="2026-01-01T00:00:00")),
    "a member of the format that is not known": changed("format.json", document(more=1)),
    "a counter that is not there": lambda all_: packed(
        [
            *all_[:-1],
            Member(
                name="manifest.json",
                mode=0o600,
                content=document(counters={"pg_authid.oid": 1})(all_[-1].content),
            ),
        ]
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_what_is_not_whole_is_not_restored_at_all(content, elsewhere, damage):
    with pytest.raises(ConfigurationError):
        await restored(elsewhere, damage(members(content)))
    assert not elsewhere.data.exists()
    assert await is_empty(elsewhere)


@pytest.mark.parametrize("part", [0.01, 0.3, 0.6, 0.9, 0.999])
async def test_what_is_cut_off_is_not_restored_at_all(content, elsewhere, part):
    with pytest.raises(DamagedBackup):
        await restored(elsewhere, content[: int(len(content.rstrip(b"\0")) * part)])
    assert not elsewhere.data.exists()
    assert await is_empty(elsewhere)


def test_check_finds_what_was_changed(content):
    contents = members(content)
    for name in ("a byte of a row", "a key", "no settings", "a file of nobody's"):
        with pytest.raises(DamagedBackup):
            restore.check(io.BytesIO(DAMAGES[name](contents)))


def test_documents_say_what_they_are():
    assert Format.model_config["extra"] == Manifest.model_config["extra"] == "forbid"
