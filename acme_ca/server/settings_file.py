"""The settings as a TOML file, with what was set and without what is secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, SecretStr

from acme_ca.config import Endpoint, Section, Settings

_HEAD = "# What was set in a file, by variables or by options; but for secrets."


def text(settings: Settings) -> str:
    """A file that `--config` takes. Passwords, and URLs that may hold one, are named and left out."""
    lines = [_HEAD, *_lines(settings)]
    for name, section in _set(settings):
        if isinstance(section, Section):
            lines += ["", f"[{name}]", *_lines(section)]
    return "\n".join([*lines, ""])


def _lines(section: BaseModel) -> Iterator[str]:
    for name, value in _set(section):
        if isinstance(value, SecretStr):
            yield f"# {name} was set, and is not in the backup."
        elif value is not None and not isinstance(value, Section):
            yield f"{name} = {_toml(value)}"


def _set(section: BaseModel) -> Iterator[tuple[str, Any]]:
    for name in type(section).model_fields:
        if name in section.model_fields_set:
            yield name, getattr(section, name)


def _toml(value: Any) -> str:
    match value:
        case bool() | int() | float():
            return json.dumps(value)
        case Endpoint() as endpoint:
            return _string(str(endpoint))
        case BaseModel() as model:
            return "{" + ", ".join(f"{name} = {_toml(inner)}" for name, inner in _set(model)) + "}"
        case dict() as table:
            return (
                "{" + ", ".join(f"{_string(str(key))} = {_toml(inner)}" for key, inner in table.items()) + "}"
            )
        case tuple() | list() | set() | frozenset():
            return "[" + ", ".join(_toml(inner) for inner in value) + "]"
        case _:
            return _string(str(value))


def _string(value: str) -> str:
    """JSON's form is TOML's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
