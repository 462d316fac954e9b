"""`acme-ca explain`: would this order be issued?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from acme_ca.cli.options import console
from acme_ca.cli.remote import Api, command, show_json
from acme_ca.config import ConfigurationError

app = typer.Typer()

REFUSED = 1
"""Exit status when it would not be issued."""
_COLOURS = {"ok": "green", "refused": "red", "warning": "yellow", "unknown": "dim"}


@command(app, "explain")
def explain(
    api: Api,
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Names, wildcards, addresses.")],
    *,
    account: Annotated[str | None, typer.Option(metavar="ID", help="The account that would order.")] = None,
    eab_key: Annotated[
        str | None, typer.Option(metavar="KID", help="The EAB key that a new account would be made with.")
    ] = None,
    service: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The service: its newest account, or else its newest EAB key."),
    ] = None,
    client: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Where the client would ask from.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="That it would ask for.")] = None,
    replaces: Annotated[
        str | None,
        typer.Option(
            metavar="SERIAL", help="The certificate that it would replace: its serial, or its ACME id."
        ),
    ] = None,
    csr: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A CSR to judge as well (PEM).", dir_okay=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Also dial the hosts, as validations do.")
    ] = False,
) -> None:
    """Tell whether an order would be issued, by which rule, and what its validations would meet. Status 1: it would not."""
    try:
        request = None if csr is None else csr.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--csr: {csr} cannot be read: {error}.") from None
    who = {"account": account, "eab_key": eab_key, "service": service, "client": client}
    wish = {"names": names, "profile": profile, "replaces": replaces, "csr": request, "dry_run": dry_run}
    found = api.post("/explain", who | wish)
    if api.as_json:
        show_json(found)
    else:
        table = Table(box=None)
        for column in ("step", "verdict", "code"):
            table.add_column(column, no_wrap=True)
        table.add_column("why", overflow="fold")
        for step in found["steps"]:
            verdict = Text(step["verdict"], style=_COLOURS[step["verdict"]])
            table.add_row(step["step"], verdict, step["code"], Text(step["detail"]))
        console().print(table)
        console().print(_verdict(found))
    if not found["would_issue"]:
        raise typer.Exit(REFUSED)


def _verdict(found: dict[str, Any]) -> str:
    if not found["would_issue"]:
        return "It would not be issued."
    profile = found["profile"]
    return f"It would be issued: profile {profile['name']}, version {profile['version']}, issuer {found['issuer']}."
