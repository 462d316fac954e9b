"""Sound bytes made unsound: what a fuzz run feeds to parsers. Everything comes from the given random source."""

from __future__ import annotations

import json
from random import Random
from typing import Any

BORDERS = (0, 1, 0x7F, 0x80, 0xFF)
ODD = (
    None,
    True,
    0,
    -1,
    1e308,
    10**40,
    "",
    "\0",
    "\ud800",
    "%",
    "A" * 300,
    "AAAA",
    [],
    [[]],
    {},
    {"": ""},
    ["http-01"],
    "https://ca.test/acme/acct/" + "0" * 32,
)


def bytes_like(raw: bytes, random: Random) -> bytes:
    """One to four changes: bits, bytes, lengths, parts lost, doubled or moved."""
    mutated = bytearray(raw)
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(mutated) + 1)
        some = random.randint(1, 8)
        match random.randrange(7):
            case 0 if place < len(mutated):
                mutated[place] ^= 1 << random.randrange(8)
            case 1 if place < len(mutated):
                mutated[place] = random.choice(BORDERS)
            case 2:
                del mutated[place : place + some]
            case 3:
                mutated[place:place] = random.randbytes(some)
            case 4:
                mutated[place:place] = mutated[place : place + some]
            case 5:
                del mutated[place:]
            case _:
                mutated[place : place + some] = random.randbytes(some)
    return bytes(mutated)


def json_like(value: Any, random: Random) -> Any:
    """The same JSON value with one odd thing somewhere in it, or one thing missing."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        name = random.choice(sorted(value))
        if random.random() < 0.15:
            return {member: kept for member, kept in value.items() if member != name}
        return {**value, name: json_like(value[name], random)}
    if isinstance(value, list) and value and random.random() < 0.8:
        place = random.randrange(len(value))
        return [*value[:place], json_like(value[place], random), *value[place + 1 :]]
    if isinstance(value, str) and value and random.random() < 0.5:
        return text_like(value, random)
    return random.choice(ODD)


def text_like(text: str, random: Random) -> str:
    return bytes_like(text.encode("utf-8", "surrogatepass"), random).decode("utf-8", "replace")


def document_like(value: Any, random: Random) -> bytes:
    """JSON text: of a mutated value, or mutated itself."""
    if random.random() < 0.7:
        return json.dumps(json_like(value, random)).encode()
    return bytes_like(json.dumps(value).encode(), random)
