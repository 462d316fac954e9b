"""Lists in pages: a cursor says where the next page begins, so that rows that come and go are neither lost nor repeated."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from acme_ca.core.codes import Code
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.times import can_be_kept

Item = TypeVar("Item", bound=BaseModel)

MAX_PAGE = 1000
MAX_CURSOR = 2000
"""Characters: of a text of 200, which another of as many may follow, in base64."""


class PageQuery(BaseModel):
    """The query of every list; filters are further fields of a subclass."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 100
    """Items in a page."""
    cursor: Annotated[str, Field(min_length=1, max_length=MAX_CURSOR)] | None = None
    """`next` of the page before; with the same filters."""


class Page(BaseModel, Generic[Item]):
    """`next` is the cursor of the next page; null: this is the last."""

    items: list[Item]
    next: str | None = None


def page(
    found: Sequence[Any],
    limit: int,
    *,
    view: Callable[[Any], Item],
    key: Callable[[Any], Sequence[str | int]],
) -> Page[Item]:
    """A page of `found`, of which one more than `limit` was looked for. `key`: behind what the next page begins."""
    shown = found[:limit]
    following = write_cursor(*key(shown[-1])) if len(found) > limit else None
    return Page(items=[view(one) for one in shown], next=following)


def write_cursor(*key: str | int) -> str:
    return (
        urlsafe_b64encode(json.dumps(key, separators=(",", ":"), ensure_ascii=False).encode())
        .decode()
        .rstrip("=")
    )


def read_cursor(cursor: str, *kinds: type[str | int]) -> tuple[Any, ...]:
    """The values of a cursor of just these kinds. Raises Problem (`field-invalid`)."""
    try:
        key = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError):  # the second of lists in lists in lists
        key = None
    if not isinstance(key, list) or [type(part) for part in key] != list(kinds) or any(map(_unsuitable, key)):
        raise no_cursor()
    return tuple(key)


def no_cursor() -> Problem:
    return invalid_field("cursor", "This is no cursor of this list: begin without one.")


def read_moment(cursor: str) -> tuple[datetime, str]:
    """The cursor of a list in the order of (time, id). Raises Problem."""
    text, id_ = read_cursor(cursor, str, str)
    return moment_of(text), id_


def moment_of(text: str) -> datetime:
    """A part of a cursor. Raises Problem."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise no_cursor() from None
    if moment.tzinfo is None or not can_be_kept(moment):
        raise no_cursor()
    return moment


def moment_key(moment: datetime, id_: str) -> tuple[str, str]:
    """The inverse."""
    return moment.isoformat(), id_


def _unsuitable(part: str | int) -> bool:
    if isinstance(part, int):
        return not -(2**63) <= part < 2**63
    return "\0" in part or any("\ud800" <= character <= "\udfff" for character in part)


def invalid_field(field: str, detail: str) -> Problem:
    """A field that only the endpoint can judge."""
    return Problem(
        ErrorType.MALFORMED,
        f"{field}: {detail}",
        code=Code.FIELD_INVALID,
        members={"field": field, "errors": [{"field": field, "detail": detail}]},
    )
