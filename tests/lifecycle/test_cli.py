"""`acme-ca service` and `acme-ca cert`: what a person types, and what a program reads."""

import asyncio
import json
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from acme_ca.app import register
from acme_ca.ca import profiles
from acme_ca.storage.database import Database
from tests.support import issuing, records
from tests.support.server import command

pytestmark = pytest.mark.timeout(600)  # many processes
Run = Callable[..., subprocess.CompletedProcess[str]]
SOON = datetime.now(UTC) + timedelta(days=90)


@pytest.fixture
async def database(database_url, hierarchy):
    """Of a CA whose files are in the data directory."""
    async with Database.open(database_url, connections=1) as opened:
        await register(opened, hierarchy, now=datetime.now(UTC))
        await profiles.register(opened, now=datetime.now(UTC))
        yield opened


@pytest.fixture
def acme_ca(tmp_path, database_url, database, hierarchy_place) -> Run:
    """No server runs: the command serves itself."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return command(tmp_path, *arguments, DATABASE_URL=database_url, DATA=str(hierarchy_place))

    return run


@pytest.fixture
def unsigned(database, hierarchy):
    """Serial numbers of certificates that are recorded."""

    async def make(**fields) -> str:
        row = {
            "issuer_id": hierarchy.intermediate.id,
            "der": None,
            "tbs": b"tbs",
            "not_after": SOON,
            "recorded": SOON - 100 * records.DAY,
        }
        return await records.certificate(database, **(row | fields))

    return make


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.stderr == "", done.stderr
    assert done.returncode == 0
    return done.stdout


def refused(done: subprocess.CompletedProcess[str], says: str, *, status: int = 1) -> None:
    assert done.returncode == status, done.stdout
    assert says in done.stderr


async def test_a_service_is_registered_and_shown(acme_ca, tmp_path):
    described = tmp_path / "orders.json"
    described.write_text(json.dumps({"name": "Orders", "owner": "Trade", "domains": ["a.example"]}))

    def act():
        registered = good(
            acme_ca("service", "register", "orders", "--file", str(described), "--owner", "Sales")
        )
        assert "Registered: orders\n" in registered
        (line,) = [line for line in registered.splitlines() if " certbot " in line]
        assert line.endswith("-d a.example")
        shown = json.loads(good(acme_ca("service", "info", "orders", "--json")))
        assert (shown["name"], shown["owner"], shown["domains"]) == ("Orders", "Sales", ["a.example"])
        options = ("--owner", "B", "--metadata", "tier=1", "--tag", "t", "--no-eab", "--json")
        made = json.loads(good(acme_ca("service", "register", "bills", *options)))
        assert (made["name"], made["metadata"], made["eab"]) == ("bills", {"tier": "1"}, None)
        listed = good(acme_ca("service", "list", "--tag", "t"))
        assert "bills" in listed
        assert "orders" not in listed
        refused(acme_ca("service", "register", "orders", "--owner", "x", "--domain", "o.example"), "already")
        refused(acme_ca("service", "register", "x", "--owner", "x"), "--domain, or --no-eab", status=2)
        bad = acme_ca("service", "register", "O", "--owner", "x", "--no-eab")
        refused(bad, "service_id: The id of a service has 1 to 63 small letters")
        refused(acme_ca("service", "register", "x", "--metadata", "a"), "NAME=VALUE", status=2)
        refused(acme_ca("service", "register", "x", "--file", str(tmp_path)), "--file", status=2)

    await asyncio.to_thread(act)


async def test_a_service_is_retired_and_approved(acme_ca):
    def act():
        good(acme_ca("service", "register", "orders", "--owner", "Trade", "--domain", "o.example"))
        refused(acme_ca("service", "retire", "orders"), "--yes", status=2)
        assert "EAB keys revoked: 1" in good(acme_ca("service", "retire", "orders", "--yes"))
        refused(acme_ca("service", "eab", "orders"), "retired")
        assert good(acme_ca("service", "approve", "orders")) == "Approved: orders\n"
        assert "HMAC key" in good(acme_ca("service", "eab", "orders"))
        refused(acme_ca("service", "info", "nothing"), "no such service")

    await asyncio.to_thread(act)


# ---------------------------------------------------------------- single certificates


async def test_a_certificate_is_held_released_and_revoked(acme_ca, unsigned):
    serial = await unsigned()
    colons = ":".join(serial[place : place + 2] for place in range(0, 32, 2)).upper()

    def cert(*arguments: str) -> subprocess.CompletedProcess[str]:
        return acme_ca("cert", *arguments)

    def shown() -> tuple[str, str, str]:
        facts = json.loads(cert("info", serial, "--json").stdout)
        return facts["status"], facts["reason"], facts["comment"]

    def act() -> None:
        assert shown() == ("unsigned", None, None)
        assert cert("hold", colons, "--comment", "lost?").stdout == f"On hold: {serial}\n"
        assert shown() == ("on_hold", "certificateHold", "lost?")
        assert cert("release", serial).returncode == 0
        assert shown() == ("unsigned", None, None)
        since = ("--invalid-since", "2024-02-29", "--comment", "stolen")
        unattended = cert("revoke", serial, "--reason", "superseded")
        assert (unattended.returncode, "--yes" in unattended.stderr) == (2, True)
        assert shown() == ("unsigned", None, None)
        assert cert("revoke", serial, "--yes", "--reason", "superseded", *since).returncode == 0
        assert shown() == ("revoked", "superseded", "stolen")
        assert "2024-02-29T00:00:00Z" in cert("info", serial).stdout
        assert cert("revoke", serial, "--yes", "--reason", "keyCompromise").returncode == 0
        assert shown() == ("revoked", "keyCompromise", "stolen")
        refused(cert("revoke", serial, "--yes"), "revoked already")
        refused(cert("release", serial), "not on hold")
        refused(cert("info", "1"), "no certificate with this serial number")
        refused(cert("info", "one"), "hexadecimal digits", status=2)
        assert cert("revoke", serial, "--yes", "--reason", "certificateHold").returncode == 2

    await asyncio.to_thread(act)


async def test_renewal_windows_are_moved_and_cleared(acme_ca, unsigned):
    first, second = [await unsigned(not_after=datetime(2031, 1, 1, tzinfo=UTC)) for _ in range(2)]
    expired = await unsigned(
        not_before=records.NOW - 4000 * records.DAY, not_after=records.NOW - 3000 * records.DAY
    )

    def window(*arguments: str) -> subprocess.CompletedProcess[str]:
        return acme_ca("cert", "window", *arguments)

    def act() -> None:
        why = ("--explanation-url", "https://ca.test/why")
        done = window(first, second, "--start", "2028-02-28", "--end", "2028-02-29T12:00:00Z", *why)
        assert (done.returncode, done.stdout.count("Moved: ")) == (0, 2)
        shown = json.loads(acme_ca("cert", "info", first, "--json").stdout)
        assert shown["renewal_window"] == {
            "start": "2028-02-28T00:00:00Z",
            "end": "2028-02-29T12:00:00Z",
        }
        assert shown["explanation_url"] == "https://ca.test/why"
        partly = window(first, expired, "--end", "2028-02-29", "--json")
        assert json.loads(partly.stdout) == {"changed": [first], "unchanged": [expired]}
        assert partly.returncode == 2
        assert window(first, "--end", "2020-01-01").returncode == 0, "at once"
        assert window(first, second, "--clear").returncode == 0
        refused_by_command(window(first, "--clear"), "no window set")
        refused_by_command(window(first, "--end", "0001-01-01T00:00:01Z"), "so early")
        refused_by_command(window(first, "--end", "0001-01-01"), "the year 1")
        refused_by_command(window(first, "--start", "2028-03-01", "--end", "2028-02-29"), "after its start")
        refused_by_command(
            window(first, "--end", "2028-02-29", "--explanation-url", "ftp://x"), "http or https"
        )
        refused_by_command(window("one", "--end", "2028-02-29"), "hexadecimal digits")
        for options in ([], ["--start", "2028-02-29"], ["--clear", "--end", "2028-02-29"], ["--clear", *why]):
            refused_by_command(window(first, *options), "--clear")

    await asyncio.to_thread(act)


def refused_by_command(done: subprocess.CompletedProcess[str], says: str) -> None:
    refused(done, says, status=2)


async def test_a_certificate_is_issued_and_renewed(acme_ca, tmp_path):
    csr, key, out = tmp_path / "a.csr", tmp_path / "a.key", tmp_path / "a.pem"
    csr.write_bytes(issuing.csr("a.example.test"))

    def act() -> None:
        leaf, intermediate = x509.load_pem_x509_certificates(
            good(acme_ca("cert", "issue", "--csr", str(csr), "--days", "5")).encode()
        )
        leaf.verify_directly_issued_by(intermediate)
        assert issuing.names_of(leaf) == ["a.example.test"]
        done = acme_ca("cert", "issue", "b.example.test", "--new-key", str(key), "--out", str(out))
        assert good(done).startswith("Issued: ")
        made = x509.load_pem_x509_certificates(out.read_bytes())[0]
        assert load_pem_private_key(key.read_bytes(), None).public_key() == made.public_key()
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        serial = f"{made.serial_number:032x}"
        again = json.loads(good(acme_ca("cert", "renew", serial, "--json")))
        assert again["names"] == ["b.example.test"]
        kept = key.read_bytes()
        refused(acme_ca("cert", "renew", serial, "--new-key", str(key)), "cannot be made", status=2)
        assert key.read_bytes() == kept
        none = tmp_path / "none.key"
        refused(acme_ca("cert", "issue", "a b", "--new-key", str(none)), "names.0")
        assert not none.exists()
        shown = json.loads(good(acme_ca("cert", "issue", "c.example.test", "--new-key", str(none), "--json")))
        assert "private_key" not in shown
        refused(acme_ca("cert", "issue", "a.example.test"), "--csr or --new-key", status=2)
        refused(acme_ca("cert", "issue", "--csr", str(tmp_path / "no.csr")), "cannot be read", status=2)
        refused(acme_ca("cert", "renew"), "--service", status=2)

    await asyncio.to_thread(act)


async def test_many_are_shown_and_taken_back(acme_ca, unsigned):
    serials = [await unsigned(service="orders") for _ in range(3)]

    def act() -> None:
        shown = good(acme_ca("cert", "revoke-many", "--service", "orders", "--dry-run"))
        assert {serial for serial in serials if serial not in shown} == set(), shown
        assert "3 certificates" in shown
        refused(acme_ca("cert", "revoke-many", "--service", "orders"), "--yes", status=2)
        done = acme_ca("cert", "revoke-many", "--service", "orders", "--reason", "superseded", "--yes")
        assert good(done) == "Revoked (superseded): 3 certificates\n"
        left = json.loads(good(acme_ca("cert", "revoke-many", "--service", "orders", "--yes", "--json")))
        assert left["count"] == 0
        refused(acme_ca("cert", "revoke-many", "--yes"), "empty")

    await asyncio.to_thread(act)
