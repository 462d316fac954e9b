"""`acme-ca token`: who may use the admin API."""

from __future__ import annotations

from typing import Annotated

import typer

from acme_ca.admin.access import Role
from acme_ca.cli.lists import (
    SORT,
    BeforeOption,
    ExpiringOption,
    SinceOption,
    TextOption,
    show_list,
    time_text,
)
from acme_ca.cli.options import console
from acme_ca.cli.remote import (
    Api,
    YesOption,
    command,
    confirm,
    minute,
    part,
    say,
    show_facts,
    show_json,
    shown,
)
from acme_ca.storage.tokens import TokenSort, TokenState

app = typer.Typer(help="Credentials of the admin API.", no_args_is_help=True)


@command(app, "create")
def create(
    api: Api,
    *,
    name: Annotated[str, typer.Option(help="Whose it is: the audit names them by it.")],
    role: Annotated[Role, typer.Option(help="What they may do.")],
    service: Annotated[
        list[str] | None, typer.Option(help="Only what belongs to this service. Repeatable.")
    ] = None,
    expires_in: Annotated[
        str | None, typer.Option(metavar="TIME", help='As in "90 days"; without it never.')
    ] = None,
    certificate_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="No secret: whoever shows a client certificate of profile operator with this DNS name.",
        ),
    ] = None,
) -> None:
    """Make a credential. Its token is shown now and never again."""
    wish = {"name": name, "role": role, "services": service or []}
    made = api.post("/tokens", {**wish, "expires_in": expires_in, "certificate_name": certificate_name})
    if api.as_json:
        show_json(made)
    elif made["token"] is None:
        console().print(f"Made: {made['certificate_name']} is {made['role']} {made['name']}")
    else:
        console().print(f"Token: {made['token']}")
        console().print("Keep it now: it is not shown again.")


@command(app, "list")
def list_tokens(
    api: Api,
    *,
    all_: Annotated[bool, typer.Option("--all", help="Also revoked and expired ones.")] = False,
    state: Annotated[TokenState | None, typer.Option(help="Only in this state.")] = None,
    role: Annotated[Role | None, typer.Option(help="Only of this role.")] = None,
    service: Annotated[str | None, typer.Option(metavar="ID", help="Only those for this service.")] = None,
    made_by: Annotated[str | None, typer.Option(metavar="ACTOR", help="As the audit names them.")] = None,
    unused_since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", parser=time_text, help="Not used from then on, or never; UTC, ISO 8601."
        ),
    ] = None,
    text: TextOption = None,
    expiring_within: ExpiringOption = None,
    since: SinceOption = None,
    before: BeforeOption = None,
    sort: Annotated[TokenSort | None, typer.Option(help=SORT)] = None,
) -> None:
    """Show the credentials, without their secrets, newest first."""
    found = list(
        api.pages(
            "/tokens",
            all=all_,
            state=state,
            role=role,
            service=service,
            made_by=made_by,
            unused_since=unused_since,
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
    times = ("created", "expires", "last_used", "revoked")
    rows = [
        (
            token["id"],
            token["name"],
            token["role"],
            *(minute(token[time]) for time in times),
            shown(token["services"]),
        )
        for token in found
    ]
    show_list(
        (
            "id",
            "name",
            "role",
            "created (UTC)",
            "expires (UTC)",
            "last used (UTC)",
            "revoked (UTC)",
            "for services",
        ),
        rows,
        folds={"for services"},
        spare=("created (UTC)", "last used (UTC)", "revoked (UTC)", "for services"),
    )


@command(app, "show")
def show(api: Api, token: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Show one of them."""
    found = api.get(f"/tokens/{part(token)}")
    if api.as_json:
        show_json(found)
    else:
        show_facts(found)


@command(app, "revoke")
def revoke(api: Api, token: Annotated[str, typer.Argument(metavar="ID")], *, yes: YesOption = False) -> None:
    """End a credential at once."""
    found = api.get(f"/tokens/{part(token)}")
    confirm(f"End the token of {found['role']} {found['name']}?", yes=yes)
    ended = api.post(f"/tokens/{part(token)}/revoke")
    say(api, ended, f"Revoked: {ended['id']} ({ended['name']})")
