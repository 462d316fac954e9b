"""`acme-ca key`, run as a process beside a database; the HSM is SoftHSM."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from subprocess import CompletedProcess

import pytest

from acme_ca import app
from acme_ca.ca import hierarchy, keystore
from acme_ca.cli.options import operator
from acme_ca.storage import issuers
from acme_ca.storage.database import Database
from tests.support.keystores import assert_signs
from tests.support.server import PASSWORD, command
from tests.support.softhsm import PIN, SoftHsm

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def hsm(tmp_path, monkeypatch) -> SoftHsm:
    return SoftHsm(tmp_path, monkeypatch)


@pytest.fixture
async def made(tmp_path, database_url):
    """A hierarchy in the folder, known to the database."""
    made = hierarchy.create_hierarchy(
        tmp_path / "data" / "ca",
        common_name="Example",
        organization="",
        country="",
        key_type="ec",
        password=PASSWORD.encode(),
        now=datetime.now(UTC),
    )
    async with Database.open(database_url, connections=1) as database:
        await app.register(database, made, now=datetime.now(UTC))
    return made


@pytest.fixture
def run(tmp_path, database_url) -> Run:
    """`acme-ca key …`; to be called in a thread."""
    return lambda *arguments: command(tmp_path, "key", *arguments, DATABASE_URL=database_url)


async def test_a_key_is_moved_into_an_hsm(made, hsm, run, tmp_path, database_url):
    place = hsm.uri("intermediate", pin_source=f"file:{pin_file(tmp_path)}")
    done = await asyncio.to_thread(run, "migrate", made.intermediate.id[:12], place)
    assert (done.returncode, done.stderr) == (0, "")
    async with Database.open(database_url, connections=1) as database:
        (record,) = [one for one in await issuers.all_issuers(database) if one.id == made.intermediate.id]
        (event,) = await database.fetch(
            "SELECT actor, object, detail FROM audit_event WHERE event = 'issuer.key-moved'"
        )
    assert record.key_uri.startswith("pkcs11:token=")
    assert f"Is:  {record.key_uri}" in done.stdout
    assert "The old file still holds the key" in done.stdout
    assert (event["actor"], event["object"]) == (operator().name, f"issuer:{record.id}")
    assert json.loads(event["detail"]) == {"from": "file:intermediate.key", "to": record.key_uri}
    key = keystore.open_key(record.key_uri, directory=tmp_path, password=b"")
    assert key.public_key() == made.intermediate.public_key
    assert_signs(key)
    assert (tmp_path / "data" / "ca" / "intermediate.key").exists()
    assert PIN not in done.stdout + json.dumps(dict(event))


def pin_file(directory):
    path = directory / "pin"
    path.touch(mode=0o600)
    path.write_text(PIN)
    return path


REFUSED = {
    "an issuer that is not there": (
        "000000000000",
        "pkcs11:token=t;object=o?module-path=/m",
        "no issuer has an id",
    ),
    "a store that takes no keys": (None, "awskms:///alias/x", "are not brought into awskms:"),
    "a PIN in the URI": (None, "pkcs11:token=t;object=o?module-path=/m&pin-value=1234", "must have no PIN"),
    "an unknown store": (None, "tpm:x", "There is no key store tpm:"),
}


async def test_where_a_key_was_and_is_for_programs(made, hsm, run, tmp_path):
    place = hsm.uri("intermediate-2", pin_source=f"file:{pin_file(tmp_path)}")
    done = await asyncio.to_thread(run, "migrate", made.intermediate.id, place, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    moved = json.loads(done.stdout)
    assert moved["from"] == "file:intermediate.key"
    assert moved["to"].startswith("pkcs11:token=")


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
async def test_what_is_not_moved(made, run, database_url, case):
    issuer, uri, why = case
    done = await asyncio.to_thread(run, "migrate", issuer or made.intermediate.id, uri)
    assert done.returncode == 2
    assert why in done.stderr
    assert "1234" not in done.stderr
    async with Database.open(database_url, connections=1) as database:
        found = {record.key_uri for record in await issuers.all_issuers(database)}
    assert found == {"file:root.key", "file:intermediate.key"}


async def test_only_a_key_that_is_where_it_was_is_moved(made, database_url):
    at = {"actor": operator(), "now": datetime.now(UTC)}
    async with Database.open(database_url, connections=1) as database:
        issuer = made.intermediate.id
        assert not await issuers.move_key(database, issuer, "file:elsewhere.key", "file:new.key", **at)
        assert await issuers.move_key(database, issuer, "file:intermediate.key", "file:new.key", **at)
        assert not await issuers.move_key(database, issuer, "file:intermediate.key", "file:other.key", **at)
        found = {record.key_uri for record in await issuers.all_issuers(database)}
    assert found == {"file:root.key", "file:new.key"}


def test_a_key_is_checked(tmp_path, hsm):
    uri, _ = hsm.create("checked")
    done = command(tmp_path, "key", "check", uri, CA_PASSWORD=PIN)
    assert (done.returncode, done.stderr) == (0, "")
    assert "EC secp256r1, signs in another process or machine" in done.stdout
    assert "Signature: good" in done.stdout
    facts = json.loads(command(tmp_path, "key", "check", uri, "--json", CA_PASSWORD=PIN).stdout)
    assert (facts["key"], facts["remote"]) == ("EC secp256r1", True)
    assert 0 < facts["seconds"] < 10


def test_a_file_is_checked(tmp_path):
    command(tmp_path, "init")
    done = command(tmp_path, "key", "check", "file:root.key")
    assert "EC secp384r1, signs in this process" in done.stdout


BAD = {
    "a wrong PIN": ("key", {"CA_PASSWORD": "4321 is wrong"}, "the PIN is wrong"),
    "a missing key": ("none", {"CA_PASSWORD": PIN}, "there is no such private key"),
}


@pytest.mark.parametrize(("name", "settings", "why"), BAD.values(), ids=BAD)
def test_a_check_that_fails_says_so_in_a_sentence(tmp_path, hsm, name, settings, why):
    hsm.create("key")
    done = command(tmp_path, "key", "check", hsm.uri(name), **settings)
    assert done.returncode == 2
    assert why in done.stderr
    assert done.stderr.count("\n") == 1
    assert "4321" not in done.stderr + done.stdout
