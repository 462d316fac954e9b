"""Reading what strangers encoded: cryptography raises and warns in many ways, here they are one."""

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
