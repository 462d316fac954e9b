"""`acme-ca limits`: how much anyone may ask for, and who is paused."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from acme_ca.cli.options import console
from acme_ca.cli.remote import Api, YesOption, command, confirm, minute, show_json
from acme_ca.core.limits import LimitKind

app = typer.Typer(help="Rate limits, overrides of them, and pauses.", no_args_is_help=True)

KindArgument = Annotated[LimitKind, typer.Argument(metavar="KIND", help="As `limits list` shows them.")]
SubjectArgument = Annotated[
    str,
    typer.Argument(
        metavar="SUBJECT",
        help="An account's id, an EAB key's, a network, a registered name; of a set of names all, separated by commas.",
    ),
]
AccountOption = Annotated[str | None, typer.Option(metavar="ID", help="Of this account.")]


def _table(*columns: str) -> Table:
    table = Table(box=None)
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


@command(app, "list")
def list_limits(api: Api) -> None:
    """Show the limits in force, and the overrides."""
    found, overrides = api.get("/limits"), list(api.pages("/limits/overrides"))
    if api.as_json:
        show_json({**found, "overrides": overrides})
        return
    table = _table("kind", "limit", "for", "expires (UTC)")
    table.add_column("reason", overflow="fold")
    for limit in found["limits"]:
        table.add_row(limit["kind"], limit["limit"] or "none", "all others" if overrides else "all")
    for one in overrides:
        subject = one["subject"] if len(one["subject"]) <= 60 else one["subject"][:60] + "…"  # noqa: PLR2004
        table.add_row(one["kind"], one["limit"], subject, minute(one["expires"]), one["reason"])
    console().print(table)
    paused = found["failures_before_pause"]
    console().print(
        f"Paused after {paused} failed validations of a name in a row." if paused else "Nobody is paused."
    )


@command(app, "override")
def override(
    api: Api,
    kind: KindArgument,
    subject: SubjectArgument,
    limit: Annotated[str, typer.Argument(metavar="LIMIT", help='As in "300/3h".')],
    *,
    reason: Annotated[str, typer.Option(help="Why; for the audit and for your colleagues.")],
    expires_in: Annotated[
        str | None, typer.Option(metavar="TIME", help='As in "90 days"; without it never.')
    ] = None,
) -> None:
    """Give one subject another limit than all others."""
    wish = {"kind": kind, "subject": subject, "limit": limit, "reason": reason, "expires_in": expires_in}
    made = api.put("/limits/overrides", wish)
    if api.as_json:
        show_json(made)
    else:
        console().print(f"{made['kind']} of {made['subject']}: {made['limit']}")


@command(app, "remove-override")
def remove_override(api: Api, kind: KindArgument, subject: SubjectArgument) -> None:
    """Let the limit of the settings hold again."""
    api.post("/limits/overrides/remove", {"kind": kind, "subject": subject})
    if not api.as_json:
        console().print("Removed.")


@command(app, "usage")
def usage(
    api: Api,
    *,
    account: AccountOption = None,
    names: Annotated[str | None, typer.Option(help="For exactly these names, separated by commas.")] = None,
    address: Annotated[str | None, typer.Option(help="For a client at this address.")] = None,
) -> None:
    """Show how much is left. Nothing is used up by asking."""
    found = api.get("/limits/usage", account=account, names=names, address=address)
    if api.as_json:
        show_json(found)
        return
    table = _table("kind", "limit", "left", "next (UTC)", "all again (UTC)")
    table.add_column("of", overflow="fold")
    for one in found["items"]:
        times = (minute(one[time]) for time in ("free_at", "full_at"))
        table.add_row(one["kind"], one["limit"], str(one["left"]), *times, one["subject"])
    console().print(table)


@command(app, "pauses")
def pauses(
    api: Api,
    *,
    account: AccountOption = None,
    name: Annotated[str | None, typer.Option(help="For this name or address.")] = None,
) -> None:
    """Show which accounts cannot order a name any more, because its validations failed again and again."""
    found = list(api.pages("/limits/pauses", account=account, identifier=name))
    if api.as_json:
        show_json(found)
        return
    table = _table("account", "failures", "last (UTC)", "paused (UTC)")
    table.add_column("name", overflow="fold")
    for one in found:
        row = (one["account"], str(one["failures"]), minute(one["failed"]), minute(one["paused"]))
        table.add_row(*row, one["identifier"].partition(":")[2])
    console().print(table)


@command(app, "unpause")
def unpause(
    api: Api,
    *,
    account: AccountOption = None,
    name: Annotated[
        list[str] | None, typer.Option(help="For this name or address. Repeatable; without it all.")
    ] = None,
    yes: YesOption = False,
) -> None:
    """Let an account order its names again, or all accounts a name."""
    if account is None and name:
        confirm(f"Lift the pauses of all accounts for {', '.join(name)}?", yes=yes)
    wish: dict[str, Any] = {"account": account, "identifiers": name or None}
    found = api.post("/limits/pauses/lift", wish)
    if api.as_json:
        show_json(found)
    else:
        console().print(f"Lifted: {len(found['lifted'])}")
