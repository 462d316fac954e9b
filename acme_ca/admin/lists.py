"""What the lists of the API share: names in queries, cursors, sorting."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field

from acme_ca.admin.frame import Call
from acme_ca.admin.paging import Page, invalid_field, read_cursor, read_moment, write_cursor
from acme_ca.core import identifiers
from acme_ca.core.identifiers import Identifier
from acme_ca.core.names import identifier_of
from acme_ca.core.problems import Problem
from acme_ca.storage import search
from acme_ca.storage.search import Position

Found = TypeVar("Found")
View = TypeVar("View", bound=BaseModel)

Word = Annotated[str, Field(min_length=1, max_length=100)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


def name_of(text: str) -> Identifier:
    """A name or address, as an operator writes it. Raises Problem (`field-invalid`)."""
    try:
        return identifier_of(text)
    except ValueError as error:
        raise invalid_field("name", f"{str(error).rstrip('.')}.") from None


def address_of(text: str, field: str) -> str:
    """Raises Problem (`field-invalid`)."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise invalid_field(field, "It is no address.") from None


def suffix_of(text: str) -> str:
    """A DNS name, with or without the dot before it. Raises Problem (`field-invalid`)."""
    try:
        found = identifiers.dns(text.removeprefix("."))
    except Problem as problem:
        raise invalid_field("name", problem.detail) from None
    if found.wildcard:
        raise invalid_field("name", "Leave out the asterisk: what is below a name includes wildcards.")
    return found.value


def after(cursor: str | None, *, timed: bool, sort: str) -> Position | None:
    """Where the page begins. A cursor is for the order in which it was made. Raises Problem (`field-invalid`)."""
    if cursor is None:
        return None
    kinds = (str,) * (3 if timed else 2)
    said, *key = read_cursor(cursor, *kinds)
    if said != sort or not _ID.fullmatch(key[-1]):
        raise invalid_field("cursor", "This is no cursor of this list in this order: begin without one.")
    if not timed:
        return Position(key[0])
    moment, id_ = read_moment(write_cursor(*key))
    return Position(id_, moment)


def page(found: search.Page[Found], *, sort: str, view: Callable[[Found], View]) -> Page[View]:
    end = found.end
    following = None
    if end is not None:
        moment = [] if end.value is None else [end.value.isoformat()]
        following = write_cursor(sort, *moment, end.id)
    return Page(items=[view(one) for one in found.items], next=following)


def services(call: Call) -> dict[str, Any]:
    """For a filter: what the credential is for."""
    return {"services": call.services or ()}
