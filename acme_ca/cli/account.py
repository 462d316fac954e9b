"""`acme-ca account`: ACME accounts."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from acme_ca.cli.lists import show_list
from acme_ca.cli.order import MostOption, ReverseOption
from acme_ca.cli.remote import Api, YesOption, command, confirm, minute, part, say, show_facts, show_json
from acme_ca.core.states import AccountStatus

app = typer.Typer(help="ACME accounts: look, freeze, deactivate.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The last part of the account's URL.")]
ReasonOption = Annotated[str, typer.Option(metavar="TEXT", help="Why, for the audit.")]


@command(app, "list")
def list_accounts(
    api: Api,
    *,
    status: Annotated[AccountStatus | None, typer.Option(help="Only these.")] = None,
    frozen: Annotated[
        bool | None, typer.Option("--frozen/--not-frozen", help="Only these, or only the others.")
    ] = None,
    eab_key: Annotated[str | None, typer.Option(metavar="ID", help="Made with this EAB key.")] = None,
    service: Annotated[str | None, typer.Option(metavar="ID", help="Of this service.")] = None,
    contact: Annotated[str | None, typer.Option(metavar="EMAIL", help="With this address.")] = None,
    limit: MostOption = 100,
    oldest: ReverseOption = False,
) -> None:
    """Show accounts, the newest first."""
    wanted = {"status": status, "frozen": frozen, "eab_key": eab_key, "service": service, "contact": contact}
    found = list(api.pages("/accounts", most=limit, **wanted, sort="created" if oldest else None))
    if api.as_json:
        show_json(found)
        return
    rows = [
        (
            account["id"],
            minute(account["created"]),
            "frozen" if account["frozen"] else account["status"],
            account["eab_key"],
            account["service"],
            ", ".join(account["contact"]),
        )
        for account in found
    ]
    show_list(
        ("id", "created (UTC)", "status", "EAB key", "service", "contact"),
        rows,
        folds={"contact"},
        spare=("EAB key", "created (UTC)"),
    )


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
    say(api, account, f"{done}: {account['id']}")
