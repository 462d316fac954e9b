"""`acme-ca limits`: how much anyone may ask for, and who is paused."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from acme_ca.cli.lists import SORT, ExpiringOption, TextOption, show_list, time_text
from acme_ca.cli.options import console
from acme_ca.cli.remote import Api, YesOption, command, confirm, minute, say, show_json
from acme_ca.config import ConfigurationError
from acme_ca.core.limits import LimitKind
from acme_ca.storage.limits import OverrideSort, PauseSort

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


@command(app, "list")
def list_limits(
    api: Api,
    *,
    kind: Annotated[LimitKind | None, typer.Option(help="Only of this kind.")] = None,
    text: TextOption = None,
    expiring_within: ExpiringOption = None,
    sort: Annotated[OverrideSort | None, typer.Option(help=SORT)] = None,
) -> None:
    """Show the limits in force, and the overrides that fit."""
    found = api.get("/limits")
    found["limits"] = [limit for limit in found["limits"] if kind in {None, limit["kind"]}]
    overrides = list(
        api.pages("/limits/overrides", kind=kind, text=text, expiring_within=expiring_within, sort=sort)
    )
    if api.as_json:
        show_json({**found, "overrides": overrides})
        return
    everybody = "all others" if overrides else "all"
    rows = [(limit["kind"], limit["limit"] or "none", everybody, "", "") for limit in found["limits"]]
    rows += [
        (one["kind"], one["limit"], one["subject"], minute(one["expires"]), one["reason"])
        for one in overrides
    ]
    show_list(
        ("kind", "limit", "for", "expires (UTC)", "reason"),
        rows,
        folds={"for", "reason"},
        spare=("reason", "expires (UTC)"),
    )
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
    say(api, made, f"{made['kind']} of {made['subject']}: {made['limit']}")


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
    """Show how much is left to an account, a set of names or a client. Nothing is used up by asking."""
    if account is None and names is None and address is None:
        raise ConfigurationError("Say of whom: --account, --names, --address, or several of them.")
    found = api.get("/limits/usage", account=account, names=names, address=address)
    if api.as_json:
        show_json(found)
        return
    rows = [
        (
            one["kind"],
            one["limit"],
            str(one["left"]),
            minute(one["free_at"]),
            minute(one["full_at"]),
            one["subject"],
        )
        for one in found["items"]
    ]
    show_list(
        ("kind", "limit", "left", "next (UTC)", "all again (UTC)", "of"),
        rows,
        folds={"of"},
        spare=("all again (UTC)",),
    )


@command(app, "pauses")
def pauses(
    api: Api,
    *,
    account: AccountOption = None,
    name: Annotated[str | None, typer.Option(help="For this name or address.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", parser=time_text, help="Paused from then on; UTC, ISO 8601.")
    ] = None,
    sort: Annotated[PauseSort | None, typer.Option(help=SORT)] = None,
) -> None:
    """Show which accounts cannot order a name any more, because its validations failed again and again."""
    found = list(api.pages("/limits/pauses", account=account, identifier=name, paused_since=since, sort=sort))
    if api.as_json:
        show_json(found)
        return
    rows = [
        (
            one["account"],
            str(one["failures"]),
            minute(one["failed"]),
            minute(one["paused"]),
            one["identifier"].partition(":")[2],
        )
        for one in found
    ]
    show_list(
        ("account", "failures", "last (UTC)", "paused (UTC)", "name"),
        rows,
        folds={"name"},
        spare=("last (UTC)", "failures"),
    )


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
    if account is None and not name:
        raise ConfigurationError("Say whose pauses: --account, --name, or both.")
    if account is None and name:
        confirm(f"Lift the pauses of all accounts for {', '.join(name)}?", yes=yes)
    wish: dict[str, Any] = {"account": account, "identifiers": name or None}
    found = api.post("/limits/pauses/lift", wish)
    say(api, found, f"Lifted: {len(found['lifted'])}")
