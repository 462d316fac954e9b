"""`acme-ca policy`: the name policies of the server and of services."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from acme_ca.cli.lists import SORT, TextOption
from acme_ca.cli.options import console
from acme_ca.cli.remote import (
    OF_A_LATER_RELEASE,
    Api,
    YesOption,
    command,
    confirm,
    minute,
    part,
    say,
    show_json,
    shown,
)
from acme_ca.storage.policies import PolicySort

app = typer.Typer(help="Name policies of the server and of services.", no_args_is_help=True)

DENIED = 1
"""Exit status of `check` when a name is refused."""
ScopeArgument = Annotated[
    str, typer.Argument(metavar="SCOPE", help="server (everybody), or service:ID.", show_default=False)
]


@command(app, "list")
def list_policies(
    api: Api,
    *,
    rule: Annotated[str | None, typer.Option(help="Only those that have it, as suffix:a.example.")] = None,
    text: TextOption = None,
    sort: Annotated[PolicySort | None, typer.Option(help=SORT)] = None,
) -> None:
    """Show the policies that operators keep, beside the settings POLICY__…, the profiles and the EAB keys."""
    found = list(api.pages("/policies", rule=rule, text=text, sort=sort))
    if api.as_json:
        show_json(found)
        return
    _show_table(found)


@command(app, "show")
def show(api: Api, scope: ScopeArgument) -> None:
    """Show the policy of one scope."""
    found = api.get(f"/policies/{part(scope)}")
    if api.as_json:
        show_json(found)
        return
    _show_table([found])


def _show_table(found: Sequence[Mapping[str, Any]]) -> None:
    table = Table(box=None)
    for column in ("scope", "changed (UTC)"):
        table.add_column(column, no_wrap=True)
    for column in ("allow", "deny"):
        table.add_column(column, overflow="fold")
    for policy in found:
        rules = policy["rules"] or {"allow": OF_A_LATER_RELEASE, "deny": OF_A_LATER_RELEASE}
        table.add_row(
            policy["scope"], minute(policy["changed"]), *(shown(rules[name]) for name in ("allow", "deny"))
        )
    console().print(table)


@command(app, "set")
def set_policy(
    api: Api,
    scope: ScopeArgument,
    *,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="RULE", help="Only names that match, as suffix:a.example. Repeatable."),
    ] = None,
    deny: Annotated[
        list[str] | None,
        typer.Option(metavar="RULE", help="No name that matches; wins over --allow. Repeatable."),
    ] = None,
    yes: YesOption = False,
) -> None:
    """Replace the rules of a scope by these. They hold within two seconds, for orders under way too."""
    confirm(f"Replace the name policy of {scope}?", yes=yes)
    answer = api.put(f"/policies/{part(scope)}", {"allow": allow or [], "deny": deny or []})
    say(api, answer, f"Saved: {scope}")


@command(app, "delete")
def delete(api: Api, scope: ScopeArgument, *, yes: YesOption = False) -> None:
    """Take the rules of a scope away."""
    confirm(f"Take the name policy of {scope} away?", yes=yes)
    answer = api.delete(f"/policies/{part(scope)}")
    say(api, answer, f"Deleted: {scope}")


@command(app, "check")
def check(
    api: Api,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names and addresses.")],
    *,
    eab_key: Annotated[
        str | None, typer.Option(metavar="KID", help="For an account with this EAB key.")
    ] = None,
    service: Annotated[str | None, typer.Option(metavar="ID", help="For a service's certificates.")] = None,
) -> None:
    """Say whether names may be issued, and by whose rule not. Exit status 1: one may not."""
    answer = api.post("/policies/check", {"names": names, "eab_key": eab_key, "service": service})
    if api.as_json:
        show_json(answer)
    else:
        for verdict in answer["names"]:
            console().print(
                f"{verdict['name']}: allowed"
                if verdict["allowed"]
                else f"{verdict['name']}: {verdict['detail']}"
            )
    if not all(verdict["allowed"] for verdict in answer["names"]):
        sys.exit(DENIED)
