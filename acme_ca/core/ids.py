"""What each thing here is known by. Types of their own, so that no two are mixed up."""

from __future__ import annotations

import re
from typing import NewType

AccountId = NewType("AccountId", str)
OrderId = NewType("OrderId", str)
AuthorizationId = NewType("AuthorizationId", str)
IssuerId = NewType("IssuerId", str)
EabKeyId = NewType("EabKeyId", str)
ScopeId = NewType("ScopeId", str)

Serial = NewType("Serial", str)
"""A certificate's serial number: 32 lower-case hexadecimal digits. The one spelling in rows, URLs, logs and JSON."""


def serial_text(number: int) -> Serial:
    return Serial(f"{number:032x}")


def read_serial(text: str) -> Serial | None:
    """A serial number as people and programs write it: hexadecimal, with or without colons, `0x` and leading zeros.
    None: it is none that this CA gives.
    """
    digits = text.strip().lower().removeprefix("0x").replace(":", "")
    return serial_text(int(digits, 16)) if _SERIAL.fullmatch(digits) else None


_SERIAL = re.compile(r"0*[0-9a-f]{1,32}", re.ASCII)
