"""The program `age`, which people have on other machines: what we encrypt it opens, and what it encrypts we open."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from acme_ca.server import encryption
from acme_ca.server.archive import DamagedBackup
from acme_ca.server.encryption import NotOpened
from tests.support.clients import find
from tests.support.terminal import Terminal

pytestmark = pytest.mark.client

CHUNK = 64 * 1024
SIZES = [0, CHUNK, 3 * CHUNK + 17]
PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def age() -> str:
    return find("age")


@pytest.fixture
def key(tmp_path) -> Path:
    """As `age-keygen -o` makes it."""
    file = tmp_path / "backup.key"
    subprocess.run([find("age-keygen"), "-o", file], check=True, capture_output=True)
    return file


def public_of(key: Path) -> str:
    done = subprocess.run([find("age-keygen"), "-y", key], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def ours(content: bytes, *to: str) -> bytes:
    target = io.BytesIO()
    with encryption.for_recipients(target, [encryption.recipient(one) for one in to]) as entrance:
        entrance.write(content)
    return target.getvalue()


def opened(encrypted: bytes, key: Path) -> bytes:
    with encryption.with_keys(io.BytesIO(encrypted), encryption.identities(key.read_text())) as source:
        return everything(source)


def everything(source) -> bytes:
    found = b""
    while more := source.read(100_000):
        found += more
    return found


def run(*words: str | Path, given: bytes) -> bytes:
    done = subprocess.run(words, input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("size", SIZES)
def test_age_opens_what_we_encrypted_for_its_key(age, key, size):
    content = os.urandom(size)
    assert run(age, "--decrypt", "-i", key, given=ours(content, public_of(key))) == content


@pytest.mark.parametrize("size", SIZES)
def test_what_age_encrypted_for_its_key_we_open(age, key, size):
    content = os.urandom(size)
    assert opened(run(age, "-r", public_of(key), given=content), key) == content


def test_what_age_encrypted_and_somebody_changed_we_do_not_open(age, key, tmp_path):
    encrypted = run(age, "-r", public_of(key), given=os.urandom(2 * CHUNK))
    with pytest.raises(DamagedBackup):
        opened(encrypted[:-1] + bytes([encrypted[-1] ^ 1]), key)
    other = tmp_path / "other.key"
    subprocess.run([find("age-keygen"), "-o", other], check=True, capture_output=True)
    with pytest.raises(NotOpened):
        opened(encrypted, other)


def test_a_key_of_ssh_does_as_well(age, tmp_path):
    private = Ed25519PrivateKey.generate()
    key = tmp_path / "id_ed25519"
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert run(age, "--decrypt", "-i", key, given=ours(b"content", public)) == b"content"
    assert opened(run(age, "-r", public, given=b"content"), key) == b"content"


def test_age_opens_what_is_under_a_passphrase(age, tmp_path):
    """Which it asks for at the terminal."""
    content = os.urandom(2 * CHUNK + 1)
    with (tmp_path / "it.age").open("wb") as file, encryption.under_passphrase(file, PASSPHRASE) as entrance:
        entrance.write(content)
    terminal = at_terminal(tmp_path, age, "--decrypt", "-o", "it", "it.age")
    terminal.answer("Enter passphrase", PASSPHRASE)
    status, said = terminal.end()
    assert status == 0, said
    assert (tmp_path / "it").read_bytes() == content


def test_what_age_put_under_a_passphrase_we_open(age, tmp_path):
    content = os.urandom(2 * CHUNK + 1)
    (tmp_path / "it").write_bytes(content)
    terminal = at_terminal(tmp_path, age, "--passphrase", "-o", "it.age", "it")
    terminal.answer("Enter passphrase", PASSPHRASE)
    terminal.answer("Confirm passphrase", PASSPHRASE)
    status, said = terminal.end()
    assert status == 0, said
    with (tmp_path / "it.age").open("rb") as file:
        assert everything(encryption.with_passphrase(file, PASSPHRASE)) == content


def at_terminal(place: Path, *words: str) -> Terminal:
    return Terminal(words, variables={"PATH": os.environ["PATH"], "TERM": "dumb"}, place=place)
