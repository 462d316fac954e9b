"""Lengths of time as people write them in files: `90 days`, `36 hours`. Inside they are timedeltas of whole seconds."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400, "year": 365 * 86400}
_PRINTED = ("day", "hour", "minute", "second")
_DURATION = re.compile(rf"(\d{{1,6}}) *({'|'.join(_SECONDS)})s?", re.ASCII)


def parse(value: Any) -> timedelta:
    """A number and a unit, a year being 365 days. Raises ValueError with a sentence."""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{value!r} is no length of time: write a number and a unit, as in "90 days"')
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def text(value: timedelta) -> str:
    """In the largest unit up to days that it is a whole number of; parsed, it is the same again."""
    seconds = int(value.total_seconds())
    unit = next(unit for unit in _PRINTED if seconds % _SECONDS[unit] == 0)
    number = seconds // _SECONDS[unit]
    return f"{number} {unit}{'' if number == 1 else 's'}"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse),
    PlainSerializer(text, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["90 days", "36 hours"]}),
]
