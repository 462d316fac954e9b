"""A backup read, and brought back into an empty place: wholly, or not at all.

It is read once, from its beginning to its end, which says what must have been in it. The files are laid out and the
database filled where nobody looks for them; when all is as it should be, they are moved to their places. An external
database is filled in one transaction. Killed at any moment, the same command brings it to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from acme_ca.ca import folder
from acme_ca.config import ConfigurationError, Settings
from acme_ca.core.actors import Actor
from acme_ca.server import archive, backup, database, datadir
from acme_ca.server.archive import DamagedBackup, Member, Source
from acme_ca.server.backup import (
    DATA,
    FORMAT_FILE,
    MANIFEST_FILE,
    SETTINGS_FILE,
    TABLES,
    Backup,
    Format,
    Manifest,
    MemberLine,
)
from acme_ca.server.datadir import Filling
from acme_ca.storage import copying
from acme_ca.storage.copying import Refill, Standing, Table
from acme_ca.storage.embedded import EmbeddedError, EmbeddedPostgres

RESTORED = "backup.restored"
Document = TypeVar("Document", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A backup of which every byte is as its manifest says."""

    backup: Backup
    settings: str = field(repr=False)
    """The settings file in it."""


# ---------------------------------------------------------------- reading


def check(source: Source) -> Read:
    """Read all of it and write nothing. Raises DamagedBackup, OSError."""
    reading = _Reading(source)
    for table in reading.format.tables:
        for _ in reading.rows(table):
            pass
    for _ in reading.files():
        pass
    return reading.end()


class _Reading:
    """The members of a backup, in the one order that they may have."""

    def __init__(self, source: Source) -> None:
        self._members = archive.members(source)
        self._seen: dict[str, MemberLine] = {}
        self._next: Member | None = None
        self._advance()
        self.format = _document(Format, self._take(FORMAT_FILE))
        if self.format.format != backup.FORMAT:
            raise DamagedBackup(
                f"The backup was made by acme-ca {self.format.acme_ca}, in a form that this one does not know: use a newer one."
            )

    def rows(self, table: str) -> Iterator[bytes]:
        """Of a table, piece by piece."""
        number = 1
        while self._next is not None and self._next.name == f"{TABLES}/{table}/{number:06}":
            yield self._take(self._next.name).content
            number += 1

    def files(self) -> Iterator[Member]:
        while self._next is not None and self._next.name.startswith(f"{DATA}/"):
            if not _is_expected(self._next.name):
                raise _unexpected(self._next.name)
            yield self._take(self._next.name)

    def end(self) -> Read:
        settings = self._take(SETTINGS_FILE).content
        before = tuple(self._seen.values())
        manifest = _document(Manifest, self._take(MANIFEST_FILE))
        if self._next is not None:
            raise _unexpected(self._next.name)
        if before != manifest.members or set(manifest.rows) != set(self.format.tables):
            raise DamagedBackup(
                "The backup does not hold what it says: it was changed, or a part of it is missing."
            )
        return Read(
            backup=Backup(format=self.format, manifest=manifest), settings=settings.decode(errors="replace")
        )

    def _take(self, name: str) -> Member:
        member = self._next
        if member is None:
            raise DamagedBackup("The backup is cut off: a part of it is missing.")
        if member.name != name or name in self._seen:
            raise _unexpected(member.name)
        self._seen[name] = MemberLine(name=name, size=len(member.content), sha256=member.sha256)
        self._advance()
        return member

    def _advance(self) -> None:
        self._next = next(self._members, None)


def _document(kind: type[Document], member: Member) -> Document:
    try:
        return kind.model_validate_json(member.content)
    except ValidationError:
        raise DamagedBackup(f"The backup's {member.name} cannot be understood.") from None


def _is_expected(name: str) -> bool:
    _, *place = name.split("/")
    return place == [backup.ROOT_COPY] or (len(place) == 2 and place[0] in backup.FOLDERS)  # noqa: PLR2004


def _unexpected(name: str) -> DamagedBackup:
    return DamagedBackup(f"The backup has a member where none belongs: {name[:100]!r}.")


# ---------------------------------------------------------------- restoring


class _Left(BaseModel):
    """Of a restore that was killed after all had been brought back. `at`: the time of its audit event."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backup: str
    at: datetime


def restore(settings: Settings, source: Source, *, actor: Actor) -> Read:
    """Fill the data directory and the database, both empty; or end what a restore of the same backup had begun when it
    was killed. Raises ConfigurationError, DamagedBackup among them.
    """
    with datadir.filling(settings.data) as filling:
        left = _left(settings, filling)
        if left is not None:
            read = _the_same(source, left)
        else:
            external = settings.database_url is not None
            draft = filling.begin()
            with _database(settings, draft) as dsn, database.explained():
                read = asyncio.run(_fill(dsn, source, filling, external=external, actor=actor))
            if not external:  # it is on disk, and its server has ended
                filling.complete(_Left(backup=read.backup.id, at=datetime.now(UTC)).model_dump_json())
        filling.finish()
    return read


def _left(settings: Settings, filling: Filling) -> _Left | None:
    """None: there is nothing, or less than all."""
    said = filling.left()
    if said is None:
        return None
    try:
        left = _Left.model_validate_json(said)
    except ValidationError:
        return None
    if settings.database_url is None:
        return left if filling.has(datadir.DATABASE) else None
    with database.explained():
        committed = asyncio.run(
            copying.has_note(
                settings.database_url.get_secret_value(),
                at=left.at,
                event=RESTORED,
                object_=f"backup:{left.backup}",
            )
        )
    return left if committed else None


def _the_same(source: Source, left: _Left) -> Read:
    read = check(source)
    if read.backup.id != left.backup:
        raise ConfigurationError(
            f"{datadir.SETTING}: a restore of another backup ({left.backup}) was not finished here: give that one, or empty "
            "the directory and the database."
        )
    return read


@contextmanager
def _database(settings: Settings, draft: Path) -> Iterator[str]:
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    server = EmbeddedPostgres(database.place(settings.model_copy(update={"data": draft})))
    try:
        yield server.start()
    except EmbeddedError as error:
        raise ConfigurationError(str(error)) from None
    finally:
        server.stop()


async def _fill(dsn: str, source: Source, filling: Filling, *, external: bool, actor: Actor) -> Read:
    reading = _Reading(source)
    _check_clock(reading.format)
    async with Refill.open(dsn, version=reading.format.schema_version) as refill:
        _check_tables(reading.format, await refill.tables())
        rows = {
            name: await refill.fill(Table(name=name, columns=columns), _each(reading.rows(name)))
            for name, columns in reading.format.tables.items()
        }
        for member in reading.files():
            _lay_out(filling.draft, member)
        read = reading.end()
        await refill.set_counters(read.backup.manifest.counters)
        _check_whole(read.backup.manifest, rows, await refill.standing())
        now = datetime.now(UTC)
        await refill.note(
            at=now,
            event=RESTORED,
            actor=actor,
            object_=f"backup:{read.backup.id}",
            detail={
                "made": read.backup.format.at,
                "acme_ca": read.backup.format.acme_ca,
                "rows": sum(rows.values()),
            },
        )
        if external:
            # Before the transaction ends: killed after it, the files beside the database must not be lost.
            filling.complete(_Left(backup=read.backup.id, at=now).model_dump_json())
    return read


async def _each(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _lay_out(draft: Path, member: Member) -> None:
    place = draft.joinpath(*member.name.split("/")[1:])
    with datadir.written(draft.parent):
        if place.parent != draft:
            place.parent.mkdir(mode=0o700, exist_ok=True)
        folder.write(place, member.content)
        place.chmod(member.mode)


# ---------------------------------------------------------------- what must be so


def _check_clock(described: Format) -> None:
    """CRL numbers follow the clock; they would go back with it."""
    try:
        made = datetime.fromisoformat(described.at)
        late = made > datetime.now(UTC)
    except (ValueError, TypeError):
        raise DamagedBackup(f"The backup's {FORMAT_FILE} has no time.") from None
    if late:
        raise ConfigurationError(
            f"The backup was made at {described.at}, which is still to come by this machine's clock: set the clock."
        )


def _check_tables(described: Format, wanted: list[Table]) -> None:
    needed = {table.name: sorted(table.columns) for table in wanted}
    if {name: sorted(columns) for name, columns in described.tables.items()} != needed:
        raise DamagedBackup("The backup has other tables or columns than a database of its schema version.")


def _check_whole(manifest: Manifest, rows: dict[str, int], standing: Standing) -> None:
    """What came back is what the manifest counted."""
    found = Manifest(
        rows=rows, counters=manifest.counters, members=manifest.members, **backup.standing_lines(standing)
    )
    if found != manifest:
        raise DamagedBackup(
            "What was restored is not what the backup counted: rows, revocations or CRL numbers differ."
        )
