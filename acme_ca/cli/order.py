"""`acme-ca order`: what became of orders, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from acme_ca.cli.lists import show_list
from acme_ca.cli.options import console
from acme_ca.cli.remote import Api, command, minute, part, show_facts, show_json
from acme_ca.core.states import OrderStatus

app = typer.Typer(help="Orders: the list, and the story of one.", no_args_is_help=True)

MostOption = Annotated[int, typer.Option("--limit", min=1, metavar="N", help="As many at most.")]
ReverseOption = Annotated[bool, typer.Option("--oldest", help="The oldest first.")]


@command(app, "list")
def list_orders(
    api: Api,
    *,
    status: Annotated[OrderStatus | None, typer.Option(help="Only these.")] = None,
    name: Annotated[str | None, typer.Option(help="A name or address that it is for.")] = None,
    account: Annotated[str | None, typer.Option(metavar="ID", help="Of this account.")] = None,
    service: Annotated[str | None, typer.Option(metavar="ID", help="Of this service.")] = None,
    profile: Annotated[str | None, typer.Option(help="Of this profile.")] = None,
    limit: MostOption = 100,
    oldest: ReverseOption = False,
) -> None:
    """Show orders, the newest first."""
    wanted = {"status": status, "name": name, "account": account, "service": service, "profile": profile}
    found = list(api.pages("/orders", most=limit, **wanted, sort="created" if oldest else None))
    if api.as_json:
        show_json(found)
        return
    rows = [
        (
            order["id"],
            minute(order["created"]),
            order["status"],
            order["account"],
            order["profile"]["name"],
            ", ".join(order["names"]),
        )
        for order in found
    ]
    show_list(
        ("id", "created (UTC)", "status", "account", "profile", "names"),
        rows,
        folds={"names"},
        spare=("profile", "account"),
    )


@command(app, "show")
def show(api: Api, order: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Tell the story of an order: why it failed, or what it waits for; every validation with what was asked, of which
    address, and what came back.
    """
    found = api.get(f"/orders/{part(order)}")
    if api.as_json:
        show_json(found)
        return
    authorizations, events = found.pop("authorizations"), found.pop("events")
    console().print(found.pop("why"), style="bold", highlight=False, markup=False)
    found["profile"] = f"{found['profile']['name']} (version {found['profile']['version']})"
    found["error"] = (found["error"] or {}).get("detail")
    show_facts(found)
    for authorization in authorizations:
        _show_authorization(authorization)
    for event in events:
        _say(f"{_second(event['at'])}  {event['event']}  {event['actor']}  {event['source'] or ''}".rstrip())


def _show_authorization(found: Mapping[str, Any]) -> None:
    by = f" by {found['challenge']}" if found["challenge"] else ""
    _say(f"\n{found['name']}: {found['status']}{by}   (authorization {found['id']})")
    if found["approval"]:
        _say(f"  {found['approval']}")
    for validation in found["validations"]:
        result = "proved" if validation["succeeded"] else "not proved"
        _say(f"  {_second(validation['at'])}  {validation['challenge']}: {result}")
        for asked in validation["record"]:
            told = "  ".join(f"{name}={_plain(value)}" for name, value in asked.items())
            _say(f"      {told}")
        if validation["error"]:
            _say(f"      {validation['error']['code']}: {validation['error']['detail']}")


def _say(line: str) -> None:
    """Strangers' text is in it: no markup."""
    console().print(line, markup=False, highlight=False, soft_wrap=True)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _second(time: str | None) -> str:
    """As wide where somebody has made it no time at all."""
    return time[:19].replace("T", " ") if time else f"{'?':19}"
