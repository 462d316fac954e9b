"""What the lists of the API share: names in queries, cursors, sorting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field

from acme_ca.admin.frame import Call
from acme_ca.admin.paging import Page, PageQuery, invalid_field, moment_of, read_cursor, write_cursor
from acme_ca.core import identifiers
from acme_ca.core.durations import Duration
from acme_ca.core.identifiers import Identifier, read_address
from acme_ca.core.names import identifier_of
from acme_ca.core.problems import Problem
from acme_ca.storage import search
from acme_ca.storage.search import Position, Table, Wanted

Found = TypeVar("Found")
View = TypeVar("View", bound=BaseModel)

Word = Annotated[str, Field(min_length=1, max_length=100)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
FAR = timedelta(days=100 * 365)
Within = Annotated[Duration, AfterValidator(lambda length: min(length, FAR))]
"""How long from now on, as in `30 days`; beyond FAR nothing is."""


class CreatedQuery(PageQuery):
    created_since: AwareDatetime | None = None
    """From then on."""
    created_before: AwareDatetime | None = None


def name_of(text: str, field: str = "name") -> Identifier:
    """A name or address, as an operator writes it. Raises Problem (`field-invalid`)."""
    try:
        return identifier_of(text)
    except ValueError as error:
        raise invalid_field(field, f"{str(error).rstrip('.')}.") from None


def address_of(text: str, field: str) -> str:
    """Raises Problem (`field-invalid`)."""
    if (address := read_address(text)) is None:
        raise invalid_field(field, "It is no address.")
    return str(address)


def suffix_of(text: str) -> str:
    """A DNS name, with or without the dot before it. Raises Problem (`field-invalid`)."""
    try:
        found = identifiers.dns(text.removeprefix("."))
    except Problem as problem:
        raise invalid_field("name", problem.detail) from None
    if found.wildcard:
        raise invalid_field("name", "Leave out the asterisk: what is below a name includes wildcards.")
    return found.value


def wanted(query: PageQuery, table: Table, *, sort: str, **filters: Any) -> Wanted:
    """What a query of a table asks for: those of its fields that are filters there, and `filters` beside or in place of
    them. Raises Problem (`field-invalid`) for a cursor of another list or order.
    """
    by = table.sorts[sort.removeprefix("-")]
    given = {name: value for name, value in query if name in table.filters}
    return Wanted(
        filters=given | filters,
        sort=sort,
        after=after(query.cursor, sort=sort, kind=None if by.column is None else by.kind),
        limit=query.limit,
    )


def after(cursor: str | None, *, sort: str, kind: type | None) -> Position | None:
    """Where the page begins. A cursor is for the order in which it was made. `kind`: of what that sorts by; None: by the id
    alone. Raises Problem (`field-invalid`).
    """
    if cursor is None:
        return None
    kinds: list[type] = [] if kind is None else [int if kind is int else str]
    said, *value, id_ = read_cursor(cursor, str, *kinds, str)
    if said != sort:
        raise invalid_field("cursor", "This is no cursor of this list in this order: begin without one.")
    if kind is datetime:
        value = [moment_of(value[0])]
    return Position(id_, *value)


def page(found: search.Page[Found], *, sort: str, view: Callable[[Found], View]) -> Page[View]:
    end = found.end
    following = None
    if end is not None:
        value = end.value.isoformat() if isinstance(end.value, datetime) else end.value
        following = write_cursor(sort, *([] if value is None else [value]), end.id)
    return Page(items=[view(one) for one in found.items], next=following)


def short(
    found: Sequence[Found],
    query: PageQuery,
    *,
    sort: str,
    kind: type,
    by: Callable[[Found], Any],
    id_: Callable[[Found], str],
) -> search.Page[Found]:
    """A page of what is few and was read as a whole. `kind`: of what `by` gives. Raises Problem (`field-invalid`) for
    another list's cursor.
    """
    end = after(query.cursor, sort=sort, kind=kind)
    ordered = sorted(found, key=lambda one: (by(one), id_(one)), reverse=sort.startswith("-"))
    if end is not None:
        ordered = [one for one in ordered if _is_behind((by(one), id_(one)), end, sort)]
    shown = ordered[: query.limit]
    last = Position(id_(shown[-1]), by(shown[-1])) if len(ordered) > query.limit else None
    return search.Page(tuple(shown), last)


def _is_behind(key: tuple[Any, str], end: Position, sort: str) -> bool:
    place = (end.value, end.id)
    return key < place if sort.startswith("-") else key > place


def services(call: Call) -> dict[str, Any]:
    """For a filter: what the credential is for."""
    return {"services": call.services or ()}
