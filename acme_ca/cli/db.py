"""`acme-ca db`: how much there is of everything."""

from __future__ import annotations

from typing import Any

import typer

from acme_ca.cli.remote import Api, command, show_facts, show_json

app = typer.Typer(help="The database.", no_args_is_help=True)


@command(app, "stats")
def stats(api: Api) -> None:
    """How many certificates, accounts, orders, … there are, and what is coming."""
    found = api.get("/statistics")
    if api.as_json:
        show_json(found)
        return
    counts = {name: _count(count) for name, count in found.pop("counts").items()}
    size = f"{found.pop('database_bytes') / 2**20:,.1f} MB"
    show_facts({**counts, **{name: _zero(value) for name, value in found.items()}, "size": size})


def _count(count: dict[str, Any]) -> str:
    return f"{'about ' if count['estimated'] else ''}{count['number']:,}"


def _zero(value: Any) -> Any:
    return f"{value:,}" if isinstance(value, int) else value
