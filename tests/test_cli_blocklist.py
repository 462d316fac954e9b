"""`acme-ca blocklist`, run as a process beside a database."""

import asyncio
import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from acme_ca.ca import certify
from acme_ca.ca.keystore import KeyKind, generate
from acme_ca.core import keys
from acme_ca.storage.database import Database
from tests.support import records
from tests.support.issuing import EC_KEY, RSA_KEY, csr, subject
from tests.support.server import command

HASH = keys.spki_sha256(EC_KEY.public_key())
Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def run(tmp_path, database_url) -> Run:
    """`acme-ca blocklist …`; to be called in a thread."""
    return lambda *arguments: command(tmp_path, "blocklist", *arguments, DATABASE_URL=database_url)


async def listed(run: Run) -> list[str]:
    done = await asyncio.to_thread(run, "list", "--json")
    return [key["spki_sha256"] for key in json.loads(done.stdout)]


def public(encoding: Encoding = Encoding.PEM) -> bytes:
    return EC_KEY.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)


def request() -> bytes:
    return x509.load_der_x509_csr(csr("a.example")).public_bytes(Encoding.PEM)


def certificate(key=EC_KEY) -> bytes:
    now = datetime.now(UTC)
    name = subject("a.example")
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def private() -> bytes:
    return EC_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


FILES = {
    "a public key": public(),
    "a CSR": request(),
    "a certificate": certificate(),
    "a chain": certificate() + certificate(RSA_KEY),
    "text before": b"subject=CN = a.example\n" + certificate(),
}
HASHES = {
    "hexadecimal": HASH.hex(),
    "as openssl prints": HASH.hex(":").upper(),
    "base64": base64.b64encode(HASH).decode(),
}


@pytest.mark.parametrize("spelling", [*HASHES, *FILES])
async def test_a_key_is_named_in_many_ways(tmp_path, run, spelling):
    name = HASHES.get(spelling) or str(written(tmp_path, FILES[spelling]))
    done = await asyncio.to_thread(run, "add", name, "--comment", "leaked")
    assert (done.returncode, done.stderr) == (0, "")
    assert HASH.hex() in done.stdout
    assert await listed(run) == [HASH.hex()]
    assert (await asyncio.to_thread(run, "remove", name)).returncode == 0
    assert await listed(run) == []


WRONG = {
    "a private key": (private(), "openssl pkey"),
    "DER": (public(Encoding.DER), "PEM"),
    "empty": (b"", "PEM"),
    "a damaged certificate": (
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "damaged",
    ),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_is_no_key_is_refused(tmp_path, run, what):
    content, says = WRONG[what]
    done = await asyncio.to_thread(run, "add", str(written(tmp_path, content)), "--comment", "x")
    assert_refused(done, says)
    assert await listed(run) == []


@pytest.mark.parametrize("name", ["nowhere.pem", "ab" * 31 + "a", base64.b64encode(bytes(31)).decode()])
async def test_what_names_no_key_is_refused(run, name):
    assert_refused(await asyncio.to_thread(run, "add", name, "--comment", "x"), "neither")


async def test_a_key_that_is_not_listed_is_not_removed(run):
    assert_refused(await asyncio.to_thread(run, "remove", HASH.hex()), "acme-ca blocklist list")


def a_root() -> bytes:
    key = generate(KeyKind.EC_P256)
    root = certify.make_root(certify.root_name("Example"), key, now=datetime.now(UTC))
    return root.public_bytes(Encoding.DER)


async def test_it_tells_which_certificates_hold_the_key_and_whose_account_ends(run, database_url):
    async with records.stocked(database_url) as database:
        await hold(database, HASH, "5" * 32)
        ended = await records.account(database)
        await database.execute("UPDATE account SET spki_sha256 = $1 WHERE id = $2", HASH, ended.id)
        await database.execute("UPDATE issuer SET der = $1", a_root())
    done = await asyncio.to_thread(run, "add", HASH.hex(), "--comment", "leaked")
    assert "Held by: 1 living certificates" in done.stdout
    assert "5" * 32 in done.stdout
    assert "a.example" in done.stdout
    assert f"account {ended.id}" in done.stdout
    again = await asyncio.to_thread(run, "add", HASH.hex(), "--comment", "leaked", "--json")
    said = json.loads(again.stdout)
    assert (said["spki_sha256"], said["added"], said["ended_accounts"]) == (HASH.hex(), 0, [])
    assert [held["serial"] for held in said["living_certificates"]] == ["5" * 32]
    shown = (await asyncio.to_thread(run, "list")).stdout
    assert "leaked" in shown


async def hold(database: Database, key: bytes, serial: str) -> None:
    """A certificate with the key, a year from now still good."""
    await database.execute(
        """INSERT INTO certificate (serial, issuer_id, profile, profile_version, identifiers, spki_sha256, not_before,
                                    not_after, recorded, der, shard, words)
           VALUES ($1, $2, 'server', 1, '{dns:a.example}', $3, now(), now() + interval '1 year', now(), '\\x00', 0, '')""",
        serial,
        records.ISSUER,
        key,
    )


async def test_a_file_of_hashes_is_imported(tmp_path, run):
    text = f"# leaked in May\n\n{HASH.hex()}  # a.example\n{base64.b64encode(b'x' * 32).decode()}\n{HASH.hex()}\n"
    done = await asyncio.to_thread(
        run, "import", str(written(tmp_path, text.encode())), "--comment", "leaked"
    )
    assert "Blocked: 2 of the 2 listed keys" in done.stdout
    assert sorted(await listed(run)) == sorted([HASH.hex(), b"x".hex() * 32])


@pytest.mark.parametrize(
    ("content", "says"),
    [(f"{'ab' * 32}\nnonsense\n".encode(), "line 2"), (b"\xff\n", "UTF-8"), (None, "cannot be read")],
)
async def test_a_file_that_makes_no_sense_is_refused_as_a_whole(tmp_path, run, content, says):
    file = tmp_path / "nowhere" if content is None else written(tmp_path, content)
    assert_refused(await asyncio.to_thread(run, "import", str(file), "--comment", "x"), says)
    assert await listed(run) == []


def written(place: Path, content: bytes) -> Path:
    (place / "key.pem").write_bytes(content)
    return place / "key.pem"


def assert_refused(done: CompletedProcess[str], says: str) -> None:
    assert (done.returncode in {1, 2}, done.stdout) == (True, ""), done
    (sentence,) = done.stderr.splitlines()
    assert says in sentence
