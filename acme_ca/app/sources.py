"""The clock, and ids that are made of it and of chance."""

from __future__ import annotations

import os
from datetime import UTC, datetime


def utc_now() -> datetime:
    return datetime.now(UTC)


def new_id() -> str:
    """32 hexadecimal digits: 48 bits of milliseconds since 1970, so that ids sort by creation, and 80 random bits."""
    milliseconds = int(utc_now().timestamp() * 1000)
    return f"{milliseconds:012x}{os.urandom(10).hex()}"
