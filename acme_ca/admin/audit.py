"""The audit trail: events, seals, the newest checkpoint, and events as lines for elsewhere.

Whether the trail is whole is not asked of the server, which might be the one to doubt: `acme-ca audit verify` reads the
database itself.
"""

from __future__ import annotations

import contextlib
from base64 import b64encode
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from acme_ca.admin.access import Permission
from acme_ca.admin.frame import Call, File, Model, Route
from acme_ca.admin.lists import address_of
from acme_ca.admin.paging import Page, PageQuery, no_cursor, page, read_cursor
from acme_ca.audit import chain
from acme_ca.core.actors import SOCKET
from acme_ca.core.problems import not_found
from acme_ca.storage import details
from acme_ca.storage import seals as store
from acme_ca.storage.seals import Filters, Seal, SealedEvent

if TYPE_CHECKING:
    from acme_ca.admin.rooms import Admin

LINES = "application/jsonl"
MOST_LINES = 10_000
MOST_DIGITS = len(str(2**63))

Text = Annotated[str, Field(min_length=1, max_length=500)]


class AuditEventView(Model):
    id: int
    at: datetime | None
    """Null: no time of our calendar; somebody changed it."""
    event: str
    """What was done: `certificate.issued`."""
    actor: str
    """Who: `account:ID`, `operator:NAME`, `key:SHA-256`, `server`."""
    source: str
    """From where: an address, or `socket`; empty: the server itself, or a command on its machine."""
    object: str
    """To what: `certificate:SERIAL`."""
    detail: Any
    """What it was, before and after. A string, where it is nothing that can be read: as it is stored; somebody changed
    it.
    """
    seal: int | None
    """The number of its seal; null: not sealed yet."""


class SealView(Model):
    id: int
    at: datetime
    first_event: int
    """Of the ids that it covers; those between that are not in it never were."""
    last_event: int
    events: int
    previous: str
    """Hash of the seal before: SHA-256, hexadecimal."""
    hash: str
    signature: str
    """Of the checkpoint, base64."""


class CheckpointView(Model):
    text: str
    """What is signed, the signature, and the certificate: to be kept elsewhere, for `audit verify --checkpoint`."""
    seal: int
    last_event: int
    hash: str
    at: datetime


class _Wanted(Model):
    object: Text | None = None
    """As in `certificate:0a1b…`, `account:…`, `issuer:…`."""
    actor: Text | None = None
    """As in `operator:alice`, `account:…`, `server`."""
    source: Text | None = None
    """From where: an address, or `socket`."""
    event: Text | None = None
    """As in `certificate.revoked`."""
    since: AwareDatetime | None = None
    """From then on."""
    until: AwareDatetime | None = None
    """Before then."""


class EventQuery(PageQuery, _Wanted):
    sort: Literal["at", "-at"] = "-at"
    """With a minus the last one first."""


class ExportQuery(_Wanted):
    after: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    """The id of the last line that one has."""
    limit: Annotated[int, Field(ge=1, le=MOST_LINES)] = 1000


async def list_events(admin: Admin, call: Call) -> Page[AuditEventView]:
    query: EventQuery = call.query
    after = _after(query)
    found = await store.search(
        admin.database,
        _filters(query),
        after=after,
        limit=query.limit + 1,
        newest_first=query.sort == "-at",
    )
    if after is not None and not found and await store.find_event(admin.database, after) is None:
        raise no_cursor()  # not the end: nobody knows what follows an event that somebody took away
    return page(found, query.limit, view=_view, key=lambda one: (one.event.id,))


async def show_event(admin: Admin, call: Call) -> AuditEventView:
    found = None
    with contextlib.suppress(ValueError):
        found = await store.find_event(admin.database, read_number(call.path["id"]))
    if found is None:
        raise not_found("There is no such audit event.")
    return _view(found)


async def export(admin: Admin, call: Call) -> File:
    query: ExportQuery = call.query
    found = await store.lines(admin.database, _filters(query), after=query.after, limit=query.limit)
    return File("".join(f"{chain.exported(one)}\n" for one in found).encode(), LINES)


async def list_seals(admin: Admin, call: Call) -> Page[SealView]:
    query: PageQuery = call.query
    found = await store.page_of_seals(admin.database, after=_after(query), limit=query.limit + 1)
    return page(found, query.limit, view=_seal_view, key=lambda seal: (seal.id,))


async def checkpoint(admin: Admin, call: Call) -> CheckpointView:
    del call
    newest = await store.last(admin.database)
    if newest is None:
        raise not_found("Nothing is sealed yet: look again in some seconds.")
    return CheckpointView(
        text=chain.signed_text(newest),
        seal=newest.id,
        last_event=newest.last_event,
        hash=newest.hash.hex(),
        at=newest.at,
    )


def _after(query: PageQuery) -> int | None:
    """The id behind what the page begins."""
    return read_cursor(query.cursor, int)[0] if query.cursor else None


def read_number(text: str) -> int:
    """An id of an event. Raises ValueError."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS and chain.is_id(int(text))):
        raise ValueError(text)
    return int(text)


def _filters(query: _Wanted) -> Filters:
    source = query.source
    return Filters(
        object=query.object,
        actor=query.actor,
        source=source if source is None or source == SOCKET else address_of(source, "source"),
        event=query.event,
        since=query.since,
        until=query.until,
    )


def _view(found: SealedEvent) -> AuditEventView:
    event = found.event
    return AuditEventView(
        id=event.id,
        at=event.at,
        event=event.event,
        actor=event.actor,
        source=event.source,
        object=event.object,
        detail=details.shown(event.detail),
        seal=found.seal,
    )


def _seal_view(seal: Seal) -> SealView:
    return SealView(
        id=seal.id,
        at=seal.at,
        first_event=seal.first_event,
        last_event=seal.last_event,
        events=len(seal.entries) // chain.ENTRY_BYTES,
        previous=seal.previous.hex(),
        hash=seal.hash.hex(),
        signature=b64encode(seal.signature).decode(),
    )


ROUTES = (
    Route(
        name="audit.list",
        method="GET",
        path="/audit/events",
        permission=Permission.AUDIT_READ,
        endpoint=list_events,
        query=EventQuery,
        answer=Page[AuditEventView],
        summary="Who did what, when, from where, to which object.",
    ),
    Route(
        name="audit.show",
        method="GET",
        path="/audit/events/{id}",
        permission=Permission.AUDIT_READ,
        endpoint=show_event,
        answer=AuditEventView,
        summary="One event.",
    ),
    Route(
        name="audit.export",
        method="GET",
        path="/audit/export",
        permission=Permission.AUDIT_READ,
        endpoint=export,
        query=ExportQuery,
        media_type=LINES,
        summary="Events as JSON lines, the oldest first, byte for byte as they are sealed.",
    ),
    Route(
        name="audit.seals",
        method="GET",
        path="/audit/seals",
        permission=Permission.AUDIT_READ,
        endpoint=list_seals,
        query=PageQuery,
        answer=Page[SealView],
        summary="The seals, newest first.",
    ),
    Route(
        name="audit.checkpoint",
        method="GET",
        path="/audit/checkpoint",
        permission=Permission.AUDIT_READ,
        endpoint=checkpoint,
        answer=CheckpointView,
        summary="The newest checkpoint, signed: to be kept elsewhere.",
    ),
)
