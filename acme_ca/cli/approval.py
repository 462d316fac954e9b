"""`acme-ca approval`: dangerous acts that wait for a second person."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from acme_ca.cli.lists import SORT, BeforeOption, SinceOption, show_list
from acme_ca.cli.remote import Api, YesOption, command, confirm, minute, part, show_facts, show_json
from acme_ca.storage.approvals import ApprovalSort, ApprovalState

app = typer.Typer(help="Dangerous acts that wait for a second person.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As acme-ca approval list shows it.")]


@command(app, "list")
def list_approvals(
    api: Api,
    *,
    state: Annotated[ApprovalState | None, typer.Option(help="Only in this state.")] = None,
    action: Annotated[str | None, typer.Option(metavar="ACT", help="Only of this act.")] = None,
    requested_by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only what they asked for.")
    ] = None,
    decided_by: Annotated[str | None, typer.Option(metavar="NAME", help="Only what they decided.")] = None,
    since: SinceOption = None,
    before: BeforeOption = None,
    sort: Annotated[ApprovalSort | None, typer.Option(help=SORT)] = None,
) -> None:
    """Show what was asked for, newest first."""
    found = list(
        api.pages(
            "/approvals",
            state=state,
            action=action,
            requested_by=requested_by,
            decided_by=decided_by,
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
            one["id"],
            one["state"],
            one["action"],
            one["requested_by"],
            minute(one["created"]),
            minute(one["expires"]),
            one["decided_by"],
        )
        for one in found
    ]
    show_list(
        ("id", "state", "act", "asked by", "asked (UTC)", "until (UTC)", "decided by"),
        rows,
        folds={"act", "asked by", "decided by"},
        spare=("asked (UTC)", "until (UTC)", "decided by"),
    )


@command(app, "show")
def show(api: Api, approval: IdArgument) -> None:
    """Show what was asked for, and what came of it."""
    _say(api, api.get(f"/approvals/{part(approval)}"))


@command(app, "approve")
def approve(api: Api, approval: IdArgument, *, yes: YesOption = False) -> None:
    """Have an act done that another person asked for."""
    asked = api.get(f"/approvals/{part(approval)}")
    confirm(f"{asked['requested_by']} asks for {asked['action']} {_request(asked)}. Do it?", yes=yes)
    _say(api, api.post(f"/approvals/{part(approval)}/approve"))


@command(app, "reject")
def reject(api: Api, approval: IdArgument) -> None:
    """Reject an act, or withdraw one's own."""
    _say(api, api.post(f"/approvals/{part(approval)}/reject"))


def _say(api: Api, approval: Any) -> None:
    if api.as_json:
        show_json(approval)
    else:
        show_facts(
            {
                **approval,
                "request": _request(approval),
                "outcome": approval["outcome"] and json.dumps(approval["outcome"]),
            }
        )


def _request(approval: Any) -> str:
    """What is asked for, without what was left open."""
    asked = {name: value for name, value in approval["request"].items() if value}
    for name, value in asked.items():
        if isinstance(value, dict):
            asked[name] = {field: one for field, one in value.items() if one is not None}
    return " ".join(json.dumps(one) for one in asked.values() if one)
