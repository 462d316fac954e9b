"""DER (X.690): reading what strangers encoded, and writing what cryptography has no builder for.

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
