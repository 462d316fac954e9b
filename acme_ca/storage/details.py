"""Details of audit events, of which somebody may have made anything that PostgreSQL takes for JSON."""

from __future__ import annotations

import json
import math
from typing import Any

MOST_DEEP = 100
"""Lists and objects in each other; those that are written have a few."""

MAY_BE_UNREADABLE = r"""(length(detail::text) > 200 OR detail::text ~* '\\ud[89a-f]')"""
"""In SQL, of a `detail`: `read` may refuse it."""
IS_PLAIN = r"""(length(detail::text) <= 10000 AND detail::text !~* '\\u(0000|d[89a-f])')"""
"""In SQL, of a `detail`: `->>` refuses nothing in it. All that tell of CRLs are so."""


def read(text: str) -> Any:
    """Raises ValueError for what cannot be written again: strings and numbers that are none, what is too deep."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is too deep") from None
    _check(value, MOST_DEEP)
    return value


def members(text: str) -> dict[str, Any]:
    """Those of the object; none where it is no object, or cannot be read."""
    try:
        value = read(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def shown(text: str) -> Any:
    """For operators: what cannot be read as the text that it is."""
    try:
        return read(text)
    except ValueError:
        return text


def is_readable(text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True


def _check(value: Any, depth: int) -> None:
    if depth < 0:
        raise ValueError("it is too deep")
    match value:
        case str():
            value.encode()
        case float() if not math.isfinite(value):
            raise ValueError("a number is too large")
        case list():
            for one in value:
                _check(one, depth - 1)
        case dict():
            for name, one in value.items():
                _check(name, depth)
                _check(one, depth - 1)
        case _:
            pass
