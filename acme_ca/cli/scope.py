"""`acme-ca scope`: names that an administrator approved."""

from __future__ import annotations

from typing import Annotated

import typer

from acme_ca.cli.lists import SORT, BeforeOption, ExpiringOption, SinceOption, TextOption, show_list
from acme_ca.cli.remote import (
    OF_A_LATER_RELEASE,
    Api,
    YesOption,
    command,
    confirm,
    minute,
    part,
    say,
    show_facts,
    show_json,
)
from acme_ca.core.scopes import ScopeState
from acme_ca.storage.scopes import ScopeSort

app = typer.Typer(help="Names that need no challenge, because they were approved.", no_args_is_help=True)

AccountOption = Annotated[str | None, typer.Option(metavar="ID", help="Of this account.")]
EabKeyOption = Annotated[str | None, typer.Option(metavar="KID", help="Of the accounts of this EAB key.")]


@command(app, "approve")
def approve(
    api: Api,
    rule: Annotated[
        str,
        typer.Argument(
            metavar="RULE", help="exact:NAME, suffix:NAME (it and all below), or wildcard:*.NAME (one label)."
        ),
    ],
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why nobody has to prove these names.")],
    expires_in: Annotated[str, typer.Option(metavar="TIME", help='For how long, as in "90 days".')],
    account: AccountOption = None,
    eab_key: EabKeyOption = None,
    yes: YesOption = False,
) -> None:
    """Approve names for an account, or for all accounts of an EAB key."""
    whom = f"the account {account}" if account else f"the accounts of the EAB key {eab_key}"
    confirm(f"Let {whom} have {rule} without a proof, for {expires_in}?", yes=yes)
    wish = {"account": account, "eab_key": eab_key, "rule": rule, "reason": reason, "expires_in": expires_in}
    made = api.post("/scopes", wish)
    say(api, made, f"Approved: {made['rule']}, scope {made['id']}, until {minute(made['expires'])} UTC")


@command(app, "list")
def list_scopes(
    api: Api,
    *,
    account: AccountOption = None,
    eab_key: EabKeyOption = None,
    name: Annotated[str | None, typer.Option(help="Only what is about this name or address.")] = None,
    state: Annotated[ScopeState | None, typer.Option(help="Only in this state.")] = None,
    approved_by: Annotated[str | None, typer.Option(metavar="ACTOR", help="As the audit names them.")] = None,
    text: TextOption = None,
    expiring_within: ExpiringOption = None,
    since: SinceOption = None,
    before: BeforeOption = None,
    sort: Annotated[ScopeSort | None, typer.Option(help=SORT)] = None,
) -> None:
    """Show what was approved, for whom, by whom and why, oldest first."""
    found = list(
        api.pages(
            "/scopes",
            account=account,
            eab_key=eab_key,
            name=name,
            state=state,
            approved_by=approved_by,
            text=text,
            expiring_within=expiring_within,
            created_since=since,
            created_before=before,
            sort=sort,
        )
    )
    if api.as_json:
        show_json(found)
        return
    rows = [
        (
            scope["id"],
            scope["state"],
            minute(scope["expires"]),
            scope["rule"] or OF_A_LATER_RELEASE,
            f"account {scope['account']}" if scope["account"] else f"EAB key {scope['eab_key']}",
            scope["approved_by"],
            scope["reason"],
        )
        for scope in found
    ]
    show_list(
        ("scope", "state", "expires (UTC)", "rule", "for", "by", "because"),
        rows,
        folds={"rule", "for", "by", "because"},
        spare=("by", "because", "expires (UTC)"),
    )


@command(app, "show")
def show(api: Api, scope: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Show one."""
    found = api.get(f"/scopes/{part(scope)}")
    if api.as_json:
        show_json(found)
    else:
        show_facts({**found, "rule": found["rule"] or OF_A_LATER_RELEASE})


@command(app, "revoke")
def revoke(
    api: Api,
    scope: Annotated[str, typer.Argument(metavar="ID")],
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the audit.")],
    yes: YesOption = False,
) -> None:
    """End an approval at once, with the authorizations that rest on it. Certificates stay good."""
    confirm(f"End the scope {scope}?", yes=yes)
    ended = api.post(f"/scopes/{part(scope)}/revoke", {"reason": reason})
    say(api, ended, f"Revoked: {scope}; authorizations ended with it: {ended['authorizations']}")
