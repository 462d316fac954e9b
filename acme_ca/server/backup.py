"""What a backup is, and how one is made.

    format.json           the version of this format, of acme-ca and of the schema; which tables, in which order
    tables/NAME/000001    rows as PostgreSQL's COPY writes them, in pieces
    data/…                files of the data directory as they are: keys are encrypted as they were
    settings.toml         what was set, but for passwords
    manifest.json         size and SHA-256 of every member before it, and what must be true when it came back

The tables are of one moment. The files are read after it: a key that a row names is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from acme_ca import __version__
from acme_ca.config import ConfigurationError, Settings
from acme_ca.core.actors import Actor
from acme_ca.server import settings_file
from acme_ca.server.archive import LIMIT, Member, Target, Writer
from acme_ca.storage import copying
from acme_ca.storage.copying import Snapshot, Standing, Table

FORMAT = 1
FORMAT_FILE = "format.json"
MANIFEST_FILE = "manifest.json"
SETTINGS_FILE = "settings.toml"
TABLES = "tables"
DATA = "data"
FOLDERS = ("ca", "tls", "ocsp", "audit")
"""Of the data directory, with the files directly in them; beside them the copy of the root certificate."""
ROOT_COPY = "root.pem"
PIECE = 4 * 1024 * 1024
"""Bytes of a table in one member. A row may be longer, and is cut wherever that is."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Format(_Document):
    format: int
    acme_ca: str
    schema_version: int
    at: str
    """RFC 3339, UTC."""
    public_url: str
    tables: dict[str, tuple[str, ...]]
    """Their columns."""


class MemberLine(_Document):
    name: str
    size: int
    sha256: str


class CrlLine(_Document):
    issuer: str
    shard: int
    number: int


class SealLine(_Document):
    id: int
    hash: str


class Manifest(_Document):
    rows: dict[str, int]
    """Of each table."""
    counters: dict[str, int]
    crls: tuple[CrlLine, ...]
    """The newest number of each shard."""
    revoked: dict[str, int]
    """How many certificates of each issuer were revoked or on hold."""
    seal: SealLine | None
    members: tuple[MemberLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What one is or was made of."""

    format: Format
    manifest: Manifest

    @property
    def id(self) -> str:
        """As the audit names it."""
        return hashlib.sha256(_json(self.manifest)).hexdigest()[:32]


# ---------------------------------------------------------------- making one


async def make(settings: Settings, dsn: str, target: Target) -> Backup:
    """Raises ConfigurationError, DatabaseUnavailable, OSError."""
    begun = datetime.now(UTC)
    packing = _Packing(Writer(target, at=int(begun.timestamp())))
    async with Snapshot.open(dsn) as snapshot:
        tables = await snapshot.tables()
        described = _format(settings, snapshot.version, tables, begun)
        packing.add(FORMAT_FILE, _json(described))
        rows = {table.name: await _copy(snapshot, table, packing) for table in tables}
        counters, standing = await snapshot.counters(), await snapshot.standing()
    for name, file in files(settings.data):
        packing.add_file(name, file)
    packing.add(SETTINGS_FILE, settings_file.text(settings).encode())
    manifest = _manifest(rows, counters, standing, packing.members)
    packing.add(MANIFEST_FILE, _json(manifest))
    packing.writer.end()
    return Backup(format=described, manifest=manifest)


async def note(dsn: str, made: Backup, *, actor: Actor) -> None:
    """In the audit: there is a copy of all this. Raises DatabaseUnavailable."""
    await copying.note(
        dsn,
        at=datetime.now(UTC),
        event="backup.made",
        actor=actor,
        object_=f"backup:{made.id}",
        detail={"rows": sum(made.manifest.rows.values()), "members": len(made.manifest.members)},
    )


@dataclass(frozen=True, slots=True)
class _Packing:
    writer: Writer
    members: list[MemberLine] = field(default_factory=list)

    def add(self, name: str, content: bytes, mode: int = 0o600) -> None:
        member = Member(name=name, mode=mode, content=content)
        self.writer.add(member)
        self.members.append(MemberLine(name=name, size=len(content), sha256=member.sha256))

    def add_file(self, name: str, file: Path) -> None:
        with file.open("rb") as opened:
            content = opened.read(LIMIT + 1)
            mode = file.stat().st_mode & 0o777
        try:
            self.add(name, content, mode)
        except ValueError as error:
            raise ConfigurationError(f"{file} cannot be taken into a backup: {error}.") from None


async def _copy(snapshot: Snapshot, table: Table, packing: _Packing) -> int:
    """In pieces; the number of rows."""
    piece, number = bytearray(), 0

    def put() -> None:
        nonlocal number
        number += 1
        packing.add(f"{TABLES}/{table.name}/{number:06}", bytes(piece[:PIECE]))
        del piece[:PIECE]

    async def take(rows: bytes) -> None:
        piece.extend(rows)
        while len(piece) >= PIECE:
            put()

    count = await snapshot.copy(table, take)
    if piece:
        put()
    return count


def files(data: Path) -> Iterator[tuple[str, Path]]:
    """Of a data directory, what goes into a backup: member names and files."""
    if (data / ROOT_COPY).is_file():
        yield f"{DATA}/{ROOT_COPY}", data / ROOT_COPY
    for folder in FOLDERS:
        place = data / folder
        for file in sorted(place.iterdir()) if place.is_dir() else ():
            if file.is_file() and not file.is_symlink() and not file.name.startswith("."):
                yield f"{DATA}/{folder}/{file.name}", file


# ---------------------------------------------------------------- what it says of itself


def _format(settings: Settings, version: int, tables: list[Table], begun: datetime) -> Format:
    return Format(
        format=FORMAT,
        acme_ca=__version__,
        schema_version=version,
        at=begun.isoformat(timespec="seconds"),
        public_url=settings.public_url,
        tables={table.name: table.columns for table in tables},
    )


def _manifest(
    rows: dict[str, int], counters: dict[str, int], standing: Standing, members: list[MemberLine]
) -> Manifest:
    return Manifest(
        rows=rows,
        counters=counters,
        members=tuple(members),
        **standing_lines(standing),
    )


def standing_lines(standing: Standing) -> dict[str, Any]:
    """As the manifest has them."""
    return {
        "crls": tuple(
            CrlLine(issuer=crl.issuer, shard=crl.shard, number=crl.number) for crl in standing.crls
        ),
        "revoked": dict(standing.revoked),
        "seal": standing.seal and SealLine(id=standing.seal.id, hash=standing.seal.hash),
    }


def _json(document: BaseModel) -> bytes:
    return document.model_dump_json(indent=1).encode()
