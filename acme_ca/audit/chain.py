"""The chain of seals over the audit trail: what is hashed, and what is signed. Pure.

    line        an event as `audit export` prints it, without the line feed: JSON with the members in this order
    entry       the event's id (8 bytes, big-endian) and the SHA-256 of its line
    hash        SHA-256 of the seal's head (JSON, one line with its line feed), followed by its entries
    checkpoint  the text that is signed: it names the seal, its last event and its hash

The head has the hash of the seal before. So who knows one checkpoint knows all events before it, and an event that was
changed, left out, put between or moved is found by its entry.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.storage.seals import AuditEvent, Seal, SealedEvent

NOTHING = bytes(32)
"""The hash before the first seal."""
ID_BYTES = 8
ENTRY_BYTES = ID_BYTES + 32

_JSON = json.JSONEncoder(separators=(",", ":"))
_TITLE = "acme-ca audit checkpoint 1"
_CHECKPOINT = re.compile(
    rf"{_TITLE}\norigin (?P<origin>[^\n]*)\nseal (?P<seal>[0-9]{{1,19}})\nevent (?P<event>-?[0-9]{{1,19}})\n"
    r"hash (?P<hash>[A-Za-z0-9+/]{43}=)\ntime (?P<time>[0-9T:.-]+Z)\n"
)


def moment(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def line(event: AuditEvent) -> str:
    members = {
        "id": event.id,
        "at": moment(event.at),
        "event": event.event,
        "actor": event.actor,
        "source": event.source,
        "object": event.object,
    }
    # As it is stored: read and written anew it might be another text.
    return f'{_JSON.encode(members)[:-1]},"detail":{event.detail}}}'


def exported(one: SealedEvent) -> str:
    """The line of an event with the number of its seal behind it."""
    seal = "null" if one.seal is None else one.seal
    return f'{line(one.event)[:-1]},"seal":{seal}}}'


def digest(event: AuditEvent) -> bytes:
    return hashlib.sha256(line(event).encode()).digest()


def entries_of(events: Iterable[AuditEvent]) -> bytes:
    return b"".join(_id_bytes(event.id) + digest(event) for event in events)


def read_entries(entries: bytes) -> Iterator[tuple[int, bytes]]:
    """The ids and digests."""
    for start in range(0, len(entries), ENTRY_BYTES):
        entry = entries[start : start + ENTRY_BYTES]
        yield int.from_bytes(entry[:ID_BYTES], signed=True), entry[ID_BYTES:]


def is_id(number: int) -> bool:
    """Whether an event or a seal may have it."""
    return -(2**63) <= number < 2**63


def _id_bytes(number: int) -> bytes:
    return number.to_bytes(ID_BYTES, signed=True)


def hash_of(seal: Seal) -> bytes:
    """What `seal.hash` must be."""
    head = {
        "seal": seal.id,
        "at": moment(seal.at),
        "origin": seal.origin,
        "first_event": seal.first_event,
        "last_event": seal.last_event,
        "events": len(seal.entries) // ENTRY_BYTES,
        "previous": seal.previous.hex(),
    }
    return hashlib.sha256(_JSON.encode(head).encode() + b"\n" + seal.entries).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a signature is made over: how far the trail went at a time. `origin`: the CA's public URL."""

    origin: str
    seal: int
    last_event: int
    hash: bytes
    at: datetime

    @classmethod
    def of(cls, seal: Seal) -> Checkpoint:
        return cls(origin=seal.origin, seal=seal.id, last_event=seal.last_event, hash=seal.hash, at=seal.at)

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Of what `text` begins with. Raises ValueError."""
        match = _CHECKPOINT.match(text)
        if match is None or not all(is_id(int(match[name])) for name in ("seal", "event")):
            raise ValueError("this is no checkpoint")
        return cls(
            origin=match["origin"],
            seal=int(match["seal"]),
            last_event=int(match["event"]),
            hash=b64decode(match["hash"]),
            at=datetime.fromisoformat(match["time"]),
        )

    @property
    def text(self) -> str:
        return (
            f"{_TITLE}\norigin {self.origin}\nseal {self.seal}\nevent {self.last_event}\n"
            f"hash {b64encode(self.hash).decode()}\ntime {moment(self.at)}\n"
        )


def signed_text(seal: Seal) -> str:
    """The checkpoint of a seal, its signature, and the certificate of the key that made it: what is kept elsewhere."""
    certificate = x509.load_der_x509_certificate(seal.signer).public_bytes(Encoding.PEM).decode()
    return f"{Checkpoint.of(seal).text}\nsignature {b64encode(seal.signature).decode()}\n{certificate}"
