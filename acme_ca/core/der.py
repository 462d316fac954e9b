"""DER (X.690): reading what strangers encoded, and what cryptography has no reader or no builder for.

cryptography raises and warns in many ways; here they are one.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm

# What cryptography raises, most of it only when a part is looked at.
_PARSE_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    UnsupportedAlgorithm,
    InternalError,
    UserWarning,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class Unreadable(Exception):  # noqa: N818  the name says it
    """The bytes are not what they should be, or a part of them is not well-formed."""


@contextlib.contextmanager
def strictly() -> Iterator[None]:
    """Raises Unreadable for whatever cryptography raises or warns of in the body, such as an attribute longer than X.520
    allows or a serial number that is not positive.

    To be used in one thread only: it changes the filters of `warnings` for a moment.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            yield
    except _PARSE_ERRORS as error:
        raise Unreadable(str(error)) from error


# ---------------------------------------------------------------- reading


class Values:
    """The values inside a constructed one, to be taken one after the other. What is not DER, or not the value that was
    asked for, raises Unreadable. Tags of one byte only.
    """

    __slots__ = ("_at", "_content")

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def __bool__(self) -> bool:
        """Whether there is one more."""
        return self._at < len(self._content)

    def take(self, tag: int) -> bytes:
        """The contents of the next value, which must have this tag."""
        start, self._at = self._extent(tag)
        return self._content[start : self._at]

    def take_whole(self, tag: int) -> bytes:
        """The next value as it stands, with its tag and length."""
        begin = self._at
        _, self._at = self._extent(tag)
        return self._content[begin : self._at]

    def take_if(self, tag: int) -> bytes | None:
        """The contents of the next value when it has this tag."""
        return self.take(tag) if self.follows(tag) else None

    def follows(self, tag: int) -> bool:
        return self._content[self._at : self._at + 1] == bytes((tag,))

    def end(self) -> None:
        if self:
            raise Unreadable("there is more than there should be")

    def _extent(self, tag: int) -> tuple[int, int]:
        """Where the contents of the next value begin and end."""
        head = self._content[self._at : self._at + 2]
        if len(head) < 2 or head[0] != tag:  # noqa: PLR2004  tag and length
            raise Unreadable("another value was expected")
        start, length = self._at + 2, head[1]
        if length >= 0x80:  # noqa: PLR2004  the long form
            octets = self._content[start : start + (length & 0x7F)]
            start, length = start + len(octets), int.from_bytes(octets)
            if not octets or octets[0] == 0 or length < 0x80:  # noqa: PLR2004
                raise Unreadable("a length is not in its shortest form (X.690 §10.1)")
        if start + length > len(self._content):
            raise Unreadable("a value is longer than what it is in")
        return start, start + length


def integer(content: bytes) -> int:
    """The contents of an INTEGER. Raises Unreadable."""
    if not content or (len(content) > 1 and content[0] == (0xFF if content[1] & 0x80 else 0)):
        raise Unreadable("an integer is not in its shortest form (X.690 §8.3.2)")
    return int.from_bytes(content, signed=True)


def boolean(content: bytes) -> bool:
    """The contents of a BOOLEAN. Raises Unreadable."""
    if content not in {b"\x00", b"\xff"}:
        raise Unreadable("a truth value is neither 00 nor FF (X.690 §11.1)")
    return content == b"\xff"


# ---------------------------------------------------------------- writing


def tlv(tag: int, *contents: bytes) -> bytes:
    """One value: tag, definite length, contents (X.690 §8.1.3, §10.1)."""
    content = contents[0] if len(contents) == 1 else b"".join(contents)
    length = len(content)
    if length < 0x80:  # noqa: PLR2004  the short form
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(octets))) + octets + content


def signed(tbs: bytes, algorithm: bytes, signature: bytes, *rest: bytes) -> bytes:
    """What X.509 calls SIGNED: SEQUENCE { tbs, AlgorithmIdentifier, BIT STRING, … }."""
    return tlv(0x30, tbs, algorithm, tlv(0x03, b"\0", signature), *rest)
