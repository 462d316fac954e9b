"""`acme-ca account`: ACME accounts."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from acme_ca.cli.options import console
from acme_ca.cli.remote import Api, YesOption, command, confirm, part, show_facts, show_json

app = typer.Typer(help="ACME accounts: look, freeze, deactivate.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The last part of the account's URL.")]
ReasonOption = Annotated[str, typer.Option(metavar="TEXT", help="Why, for the audit.")]


@command(app, "show")
def show(api: Api, account: IdArgument) -> None:
    """Show an account."""
    found = api.get(f"/accounts/{part(account)}")
    if api.as_json:
        show_json(found)
    else:
        show_facts(found)


@command(app, "freeze")
def freeze(api: Api, account: IdArgument, *, reason: ReasonOption, yes: YesOption = False) -> None:
    """Stop an account at once: whatever it asks for is refused, and what is under way comes to nothing."""
    confirm(f"Stop the account {account}?", yes=yes)
    _say(api, "Frozen", api.post(f"/accounts/{part(account)}/freeze", {"reason": reason}))


@command(app, "unfreeze")
def unfreeze(api: Api, account: IdArgument, *, reason: ReasonOption) -> None:
    """Let a frozen account go on where it was. One whose EAB key is revoked stays frozen."""
    _say(api, "Not frozen any more", api.post(f"/accounts/{part(account)}/unfreeze", {"reason": reason}))


@command(app, "deactivate")
def deactivate(api: Api, account: IdArgument, *, reason: ReasonOption, yes: YesOption = False) -> None:
    """End an account for good. Its certificates stay good."""
    confirm(f"End the account {account} for good?", yes=yes)
    _say(api, "Deactivated", api.post(f"/accounts/{part(account)}/deactivate", {"reason": reason}))


def _say(api: Api, done: str, account: dict[str, Any]) -> None:
    if api.as_json:
        show_json(account)
    else:
        console().print(f"{done}: {account['id']}")
