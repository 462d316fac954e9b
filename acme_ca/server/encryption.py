"""Backups in the age format (https://age-encryption.org/v1), which the program `age` reads and writes as well.

Files for recipients, who have keys, are made and read by pyrage. For those under a passphrase pyrage wants the whole
content in memory, so their format, the specification's `scrypt` stanza and payload, is spoken here.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeAlias

import pyrage
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from acme_ca.config import ConfigurationError
from acme_ca.server.archive import DamagedBackup, Source, Target

MAGIC = b"age-encryption.org/v1\n"
WORK = 18
"""Logarithm of scrypt's cost: about a second and 256 MB, as `age` does it."""
MOST_WORK = 22
"""Of a file that is read: it names its own."""

_CHUNK = 64 * 1024
_TAG = 16
_SALT_LABEL = b"age-encryption.org/v1/scrypt"
_HEADER = re.compile(
    rb"age-encryption\.org/v1\n-> scrypt ([A-Za-z0-9+/]{22}) ([1-9][0-9]?)\n([A-Za-z0-9+/]{43})\n--- ([A-Za-z0-9+/]{43})\n"
)
_LONGEST_LINE = 200

Recipient: TypeAlias = Any
"""A public key, of pyrage (which has no types)."""
Identity: TypeAlias = Any
"""A private one."""


class NotOpened(ConfigurationError):  # noqa: N818  the name says it
    """The passphrase, or none of the keys, opens the backup: one sentence."""


# ---------------------------------------------------------------- keys


def recipient(text: str) -> Recipient:
    """`age1…`, or the line of an SSH public key. Raises ConfigurationError."""
    kind = pyrage.ssh if text.startswith("ssh-") else pyrage.x25519
    try:
        return kind.Recipient.from_str(text)
    except pyrage.RecipientError:
        raise ConfigurationError(
            f"--age-recipient: {text[:80]!r} is no public key of age (age1…) and none of SSH."
        ) from None


def recipients(lines: str) -> list[Recipient]:
    """Of a recipients file: one in a line. Raises ConfigurationError."""
    return [recipient(line) for line in _lines(lines)]


def identities(text: str) -> list[Identity]:
    """Of an identity file, as age-keygen makes it, or the private key of SSH. Raises ConfigurationError."""
    try:
        if "-----BEGIN" in text:
            return [pyrage.ssh.Identity.from_buffer(text.encode())]
        return [pyrage.x25519.Identity.from_str(line) for line in _lines(text)]
    except pyrage.IdentityError:
        raise ConfigurationError(
            "--identity: the file has no private key of age (AGE-SECRET-KEY-1…)."
        ) from None


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if (wanted := line.strip()) and not wanted.startswith("#"):
            yield wanted


# ---------------------------------------------------------------- for recipients


@contextmanager
def for_recipients(target: BinaryIO, to: Sequence[Recipient]) -> Iterator[Target]:
    """What is written goes encrypted into `target`; all of it is there at the end. Raises OSError."""
    read_end, write_end = os.pipe()

    def encrypt() -> None:
        with os.fdopen(read_end, "rb") as plain:
            pyrage.encrypt_io(plain, target, list(to))

    pump = _Pump(encrypt)
    try:
        with os.fdopen(write_end, "wb") as entrance:
            yield entrance
    except BrokenPipeError:  # why is known at the other end
        pump.check()
        raise
    pump.check()


@contextmanager
def with_keys(source: Source, keys: Sequence[Identity]) -> Iterator[Source]:
    """The content of an encrypted file. Raises, when it is read, NotOpened, DamagedBackup."""
    read_end, write_end = os.pipe()

    def decrypt() -> None:
        with os.fdopen(write_end, "wb") as entrance:
            pyrage.decrypt_io(source, entrance, list(keys))

    pump = _Pump(decrypt)
    with os.fdopen(read_end, "rb") as plain:
        yield _Pumped(plain, pump)


class _Pump:
    """pyrage, which wants a file on either side, at work in a thread."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001  raised again by whoever waits for it
            self._failure = error

    def check(self) -> None:
        """Wait for its end. Raises NotOpened, DamagedBackup, OSError."""
        self._thread.join()
        match self._failure:
            case None:
                return
            case pyrage.EncryptError() as error:
                raise OSError(str(error)) from error
            case pyrage.DecryptError() as error if "No matching keys" in str(error):
                raise NotOpened("None of the keys of --identity opens the backup.") from None
            case pyrage.DecryptError() | OSError():
                raise _damaged() from None
            case error:
                raise error


class _Pumped:
    def __init__(self, plain: BinaryIO, pump: _Pump) -> None:
        self._plain = plain
        self._pump = pump

    def read(self, size: int) -> bytes:
        found = self._plain.read(size)
        if len(found) < size:
            self._pump.check()
        return found


def _damaged() -> DamagedBackup:
    return DamagedBackup("The encrypted backup is damaged, or cut off.")


# ---------------------------------------------------------------- under a passphrase


def is_under_passphrase(beginning: bytes) -> bool:
    return beginning.startswith(MAGIC + b"-> scrypt ")


@contextmanager
def under_passphrase(target: Target, passphrase: str) -> Iterator[Target]:
    """What is written goes encrypted into `target`; all of it is there at the end."""
    file_key, salt, nonce = os.urandom(16), os.urandom(16), os.urandom(16)
    wrapped = ChaCha20Poly1305(_wrapping_key(passphrase, salt, WORK)).encrypt(bytes(12), file_key, None)
    header = MAGIC + b"-> scrypt %s %d\n%s\n---" % (_encoded(salt), WORK, _encoded(wrapped))
    target.write(header + b" " + _encoded(_mac(file_key, header)) + b"\n" + nonce)
    chunks = _Chunks(target, ChaCha20Poly1305(_derived(file_key, nonce, b"payload")))
    yield chunks
    chunks.end()


class _Chunks:
    """The payload: the last chunk is marked, so that nobody can cut it off."""

    def __init__(self, target: Target, cipher: ChaCha20Poly1305) -> None:
        self._target = target
        self._cipher = cipher
        self._number = 0
        self._rest = bytearray()

    def write(self, content: bytes) -> None:
        self._rest += content
        while len(self._rest) > _CHUNK:
            self._put(bytes(self._rest[:_CHUNK]), last=False)
            del self._rest[:_CHUNK]

    def end(self) -> None:
        self._put(bytes(self._rest), last=True)

    def _put(self, chunk: bytes, *, last: bool) -> None:
        self._target.write(self._cipher.encrypt(_chunk_nonce(self._number, last=last), chunk, None))
        self._number += 1


class with_passphrase:  # noqa: N801  used as the function that it would be if reading did not need its state
    """The content of a file. Raises NotOpened; DamagedBackup, also when it is read."""

    def __init__(self, source: Source, passphrase: str) -> None:
        self._source = source
        file_key = _opened(source, passphrase)
        nonce = _exactly(source, 16)
        self._cipher = ChaCha20Poly1305(_derived(file_key, nonce, b"payload"))
        self._next = _up_to(source, _CHUNK + _TAG)
        self._number = 0
        self._rest = bytearray()
        self._ended = False

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and not self._ended:
            self._rest += self._take()
        found = bytes(self._rest[:size])
        del self._rest[:size]
        return found

    def _take(self) -> bytes:
        chunk, self._next = self._next, _up_to(self._source, _CHUNK + _TAG)
        self._ended = not self._next
        try:
            plain = self._cipher.decrypt(_chunk_nonce(self._number, last=self._ended), chunk, None)
        except InvalidTag:
            raise _damaged() from None
        self._number += 1
        return plain


def _opened(source: Source, passphrase: str) -> bytes:
    """The key of the file, whose header is read."""
    header = b"".join(_line(source) for _ in range(4))
    match = _HEADER.fullmatch(header)
    if match is None:
        raise _damaged()
    work = int(match[2])
    if work > MOST_WORK:
        raise DamagedBackup(
            f"The backup asks for work of 2^{work} to be opened, more than any program would."
        )
    try:
        key = _wrapping_key(passphrase, _decoded(match[1]), work)
        file_key = ChaCha20Poly1305(key).decrypt(bytes(12), _decoded(match[3]), None)
    except InvalidTag:
        raise NotOpened("The passphrase does not open the backup.") from None
    signed, _, _ = header.rpartition(b" ")
    if not hmac.compare_digest(_mac(file_key, signed), _decoded(match[4])):
        raise _damaged()
    return file_key


def _line(source: Source) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        if len(line) > _LONGEST_LINE:
            raise _damaged()
        line += _exactly(source, 1)
    return line


def _wrapping_key(passphrase: str, salt: bytes, work: int) -> bytes:
    return Scrypt(salt=_SALT_LABEL + salt, length=32, n=2**work, r=8, p=1).derive(passphrase.encode())


def _derived(file_key: bytes, salt: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=purpose).derive(file_key)


def _mac(file_key: bytes, header: bytes) -> bytes:
    return hmac.digest(_derived(file_key, b"", b"header"), header, "sha256")


def _chunk_nonce(number: int, *, last: bool) -> bytes:
    return struct.pack(">3xQ?", number, last)


def _encoded(value: bytes) -> bytes:
    return base64.b64encode(value).rstrip(b"=")


def _decoded(value: bytes) -> bytes:
    return base64.b64decode(value + b"=" * (-len(value) % 4))


def _exactly(source: Source, size: int) -> bytes:
    found = _up_to(source, size)
    if len(found) < size:
        raise _damaged()
    return found


def _up_to(source: Source, size: int) -> bytes:
    found = bytearray()
    while len(found) < size and (more := source.read(size - len(found))):
        found += more
    return bytes(found)
