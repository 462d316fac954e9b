"""Encrypted backups: what we write, an independent program reads, and the other way round."""

import io
import os
from pathlib import Path

import pyrage
import pytest

from acme_ca.config import ConfigurationError
from acme_ca.server import encryption
from acme_ca.server.archive import DamagedBackup
from acme_ca.server.encryption import NotOpened

CHUNK = 64 * 1024
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 17]
PASSPHRASE = "correct horse battery staple"


@pytest.fixture(autouse=True)
def little_work(monkeypatch):
    """The cost of guessing is not what these tests are about."""
    monkeypatch.setattr(encryption, "WORK", 10)


def under_passphrase(content: bytes) -> bytes:
    target = io.BytesIO()
    with encryption.under_passphrase(target, PASSPHRASE) as entrance:
        for place in range(0, len(content), 10_000):
            entrance.write(content[place : place + 10_000])
    return target.getvalue()


def everything(source) -> bytes:
    found = b""
    while more := source.read(10_000):
        found += more
    return found


@pytest.mark.parametrize("size", SIZES)
def test_pyrage_opens_what_is_under_a_passphrase(size):
    content = os.urandom(size)
    assert pyrage.passphrase.decrypt(under_passphrase(content), PASSPHRASE) == content


@pytest.mark.parametrize("size", SIZES)
def test_what_is_under_a_passphrase_comes_back(size):
    content = os.urandom(size)
    encrypted = under_passphrase(content)
    assert encryption.is_under_passphrase(encrypted)
    assert everything(encryption.with_passphrase(io.BytesIO(encrypted), PASSPHRASE)) == content


def test_what_pyrage_put_under_a_passphrase_is_opened():
    encrypted = pyrage.passphrase.encrypt(b"content", PASSPHRASE)
    assert everything(encryption.with_passphrase(io.BytesIO(encrypted), PASSPHRASE)) == b"content"


def test_another_passphrase_opens_nothing():
    with pytest.raises(NotOpened):
        encryption.with_passphrase(io.BytesIO(under_passphrase(b"content")), PASSPHRASE + "r")


@pytest.mark.parametrize("place", [30, 60, 100, 130, 200, CHUNK + 300, -1])
def test_a_changed_byte_is_noticed(place):
    encrypted = bytearray(under_passphrase(os.urandom(2 * CHUNK)))
    encrypted[place] ^= 1
    with pytest.raises((DamagedBackup, NotOpened)):
        everything(encryption.with_passphrase(io.BytesIO(bytes(encrypted)), PASSPHRASE))


@pytest.mark.parametrize("missing", [1, 16, CHUNK, CHUNK + 16, 2 * (CHUNK + 16), 2 * (CHUNK + 16) + 40])
def test_a_file_that_was_cut_off_is_noticed(missing):
    encrypted = under_passphrase(os.urandom(2 * CHUNK))
    with pytest.raises(DamagedBackup):
        everything(encryption.with_passphrase(io.BytesIO(encrypted[:-missing]), PASSPHRASE))


def test_chunks_in_another_order_are_noticed():
    encrypted = under_passphrase(os.urandom(3 * CHUNK))
    payload = len(encrypted) - 3 * (CHUNK + 16)
    first, second = payload + CHUNK + 16, payload + 2 * (CHUNK + 16)
    swapped = encrypted[:payload] + encrypted[first:second] + encrypted[payload:first] + encrypted[second:]
    with pytest.raises(DamagedBackup):
        everything(encryption.with_passphrase(io.BytesIO(swapped), PASSPHRASE))


def test_a_file_cannot_ask_for_endless_work():
    encrypted = under_passphrase(b"content").replace(b" 10\n", b" 63\n", 1)
    with pytest.raises(DamagedBackup, match="work"):
        encryption.with_passphrase(io.BytesIO(encrypted), PASSPHRASE)


# ---------------------------------------------------------------- for recipients


@pytest.fixture(scope="module")
def identity():
    return pyrage.x25519.Identity.generate()


def for_recipients(content: bytes, *to) -> bytes:
    target = io.BytesIO()
    with encryption.for_recipients(target, to) as entrance:
        entrance.write(content)
    return target.getvalue()


@pytest.mark.parametrize("size", SIZES)
def test_every_recipient_opens_it(identity, size):
    other = pyrage.x25519.Identity.generate()
    content = os.urandom(size)
    encrypted = for_recipients(content, identity.to_public(), other.to_public())
    for key in (identity, other):
        assert pyrage.decrypt(encrypted, [key]) == content
        with encryption.with_keys(io.BytesIO(encrypted), [key]) as source:
            assert everything(source) == content


def test_another_key_opens_nothing(identity):
    encrypted = for_recipients(b"content", identity.to_public())
    with (
        encryption.with_keys(io.BytesIO(encrypted), [pyrage.x25519.Identity.generate()]) as source,
        pytest.raises(NotOpened),
    ):
        everything(source)


@pytest.mark.parametrize(
    "spoil", [lambda it: it[:-1], lambda it: it[:50], lambda it: it[:-9] + b"X" + it[-8:]]
)
def test_a_spoiled_file_is_noticed(identity, spoil):
    encrypted = spoil(for_recipients(os.urandom(3 * CHUNK), identity.to_public()))
    with encryption.with_keys(io.BytesIO(encrypted), [identity]) as source, pytest.raises(DamagedBackup):
        everything(source)


def test_who_reads_only_the_beginning_leaves_nobody_waiting(identity):
    encrypted = for_recipients(bytes(10_000_000), identity.to_public())
    with encryption.with_keys(io.BytesIO(encrypted), [identity]) as source:
        assert source.read(10) == bytes(10)


def test_a_full_disk_is_an_error(identity):
    def fill() -> None:
        with (
            Path("/dev/full").open("wb", buffering=0) as full,
            encryption.for_recipients(full, [identity.to_public()]) as entrance,
        ):
            for _ in range(100):
                entrance.write(bytes(1_000_000))

    with pytest.raises(OSError, match="No space left"):
        fill()


def test_keys_are_read_from_files(identity):
    ours = f"# created: today\n# public key: {identity.to_public()}\n{identity}\n"
    (key,) = encryption.identities(ours)
    (to,) = encryption.recipients(f"# of the safe\n\n{identity.to_public()}\n")
    assert pyrage.decrypt(for_recipients(b"content", to), [key]) == b"content"


@pytest.mark.parametrize("text", ["age1", "ssh-ed25519 x", "AGE-SECRET-KEY-1", ""])
def test_what_is_no_key_is_refused(text):
    with pytest.raises(ConfigurationError):
        encryption.recipient(text)
