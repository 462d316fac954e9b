"""Lists as people read them, also in a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from acme_ca.cli.options import console, read_time

TextOption = Annotated[
    str | None,
    typer.Option(help="Somewhere in what people wrote, in whatever case; /api/docs says in which fields."),
]
ExpiringOption = Annotated[
    str | None,
    typer.Option("--expiring-within", metavar="TIME", help='What ends within it, as in "30 days".'),
]


def time_text(text: str) -> str:
    """An operator's time, in UTC where they say nothing else, as the API wants it. For `typer.Option(parser=…)`."""
    try:
        return read_time(text).isoformat()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


SinceOption = Annotated[
    str | None, typer.Option(metavar="TIME", parser=time_text, help="Made from then on; UTC, ISO 8601.")
]
BeforeOption = Annotated[
    str | None, typer.Option(metavar="TIME", parser=time_text, help="Made before then; UTC, ISO 8601.")
]
SORT = "With a minus the last one first."

_GAP = 2
"""Between columns, and around them."""
_NARROWEST = 18
"""Of a column that folds."""


def show_list(
    columns: Sequence[str],
    rows: Sequence[Sequence[str | None]],
    *,
    folds: Collection[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """A line for each row. `folds`: columns whose text goes on in the next line. `spare`: what is left out, in this order,
    where there is no room for all; ids and states are never cut.
    """
    to = console()
    left_out = _left_out(to, columns, rows, folds=folds, spare=spare) if to.is_terminal else ()
    table = Table(box=None)
    for column in columns:
        if column not in left_out:
            table.add_column(column, no_wrap=column not in folds, overflow="fold")
    for row in rows:
        table.add_row(*(cell for column, cell in zip(columns, row, strict=True) if column not in left_out))
    to.print(table)
    if left_out:
        to.print(f"Left out, for want of room: {', '.join(left_out)}. A wider terminal or --json shows them.")


def _left_out(
    to: Console,
    columns: Sequence[str],
    rows: Sequence[Sequence[str | None]],
    *,
    folds: Collection[str],
    spare: Sequence[str],
) -> Sequence[str]:
    widths = {}
    for column, cells in zip(columns, zip(*rows, strict=True) if rows else ((),) * len(columns), strict=True):
        widest = max(len(cell or "") for cell in (column, *cells))
        widths[column] = _GAP + (min(widest, _NARROWEST) if column in folds else widest)
    for count in range(len(spare) + 1):
        if sum(widths[column] for column in columns if column not in spare[:count]) <= to.width:
            return spare[:count]
    return spare
