"""Published lists of keys whose private half anybody can have, such as those that Debian's OpenSSL made until 2008.

A list has one key a line, in either of two forms, and comments that begin with #:

- 20 hexadecimal digits, as in Debian's package openssl-blacklist: of the SHA-1 over `Modulus=…` and a line feed, as
  `openssl rsa -noout -modulus` prints it, the last 20 digits. For RSA keys.
- 64 hexadecimal digits: the SHA-256 of the DER SubjectPublicKeyInfo. For keys of any kind.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import rsa

from acme_ca.core import keys
from acme_ca.core.keys import PublicKey
from acme_ca.core.problems import ErrorType, Problem

MODULUS_BYTES = 10
SPKI_BYTES = 32
_LINE = re.compile(r"[0-9a-fA-F]{20}|[0-9a-fA-F]{64}")


class ListError(Exception):
    """A line is no key: its number."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


@dataclass(frozen=True, slots=True)
class WeakKeys:
    """`key in weak_keys`. As small as the digests themselves: a quarter of a million of Debian's take 2.5 MB."""

    moduli: Digests
    spkis: Digests

    @classmethod
    def of(cls, digests: Iterable[bytes]) -> WeakKeys:
        """Of what `read` gave."""
        known = set(digests)
        return cls(
            moduli=Digests((one for one in known if len(one) == MODULUS_BYTES), size=MODULUS_BYTES),
            spkis=Digests((one for one in known if len(one) == SPKI_BYTES), size=SPKI_BYTES),
        )

    def check(self, key: PublicKey, error: ErrorType) -> None:
        """Raises `Problem` for a key that is listed."""
        if key in self:
            raise Problem(
                error,
                "The key is refused: it is on a published list of weak keys, such as those that Debian's OpenSSL made until "
                "2008 (CVE-2008-0166); make a new one.",
            )

    def __contains__(self, key: PublicKey) -> bool:
        if isinstance(key, rsa.RSAPublicKey) and self.moduli and modulus_digest(key) in self.moduli:
            return True
        return bool(self.spkis) and keys.spki_sha256(key) in self.spkis

    def __len__(self) -> int:
        return len(self.moduli) + len(self.spkis)


def read(lines: Iterable[str]) -> set[bytes]:
    """The digests of a list. Raises ListError."""
    found = set()
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if _LINE.fullmatch(text):
            found.add(bytes.fromhex(text))
        elif text and not text.startswith("#"):
            raise ListError(number)
    return found


def modulus_digest(key: rsa.RSAPublicKey) -> bytes:
    """What Debian's lists know an RSA key by, 10 bytes."""
    printed = f"Modulus={key.public_numbers().n:X}\n"
    return hashlib.sha1(printed.encode(), usedforsecurity=False).digest()[-MODULUS_BYTES:]


class Digests:
    """Digests of one size, sorted, in one piece of memory."""

    __slots__ = ("_bytes", "_size")

    def __init__(self, digests: Iterable[bytes], *, size: int) -> None:
        self._bytes = b"".join(sorted(digests))
        self._size = size

    def __contains__(self, wanted: bytes) -> bool:
        place = bisect_left(range(len(self)), wanted, key=self._at)
        return place < len(self) and self._at(place) == wanted

    def __len__(self) -> int:
        return len(self._bytes) // self._size

    def _at(self, place: int) -> bytes:
        return self._bytes[place * self._size : (place + 1) * self._size]
