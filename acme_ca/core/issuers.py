"""What kinds of issuers there are, and how OCSP names one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class IssuerKind(StrEnum):
    ROOT = "root"
    INTERMEDIATE = "intermediate"
    CROSS = "cross"
    """Another certificate of a CA that has one here already: part of alternate chains only."""


@dataclass(frozen=True, slots=True)
class IssuerHashes:
    """How OCSP names an issuer (RFC 6960 §4.1.1). `algorithm`: a name of hashlib; None: one that is not known here."""

    algorithm: str | None
    name: bytes
    key: bytes
