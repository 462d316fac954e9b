"""Who acts: operators, accounts, keys, and the server itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, as the audit says it."""

    name: str
    """`account:ID`, `key:SHA-256`, `operator:NAME`, `server`."""
    source: str = ""
    """The address that the request came from, or `socket`; empty: this machine's own work."""


SERVER = Actor("server")
MACHINE = "@localhost"
"""How the names of operators end who are users of this machine, and no others' names."""
SOCKET = "socket"
"""The source of what they do."""
