"""`acme-ca service`: the registry of services."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from acme_ca.cli.lists import SORT, BeforeOption, SinceOption, TextOption, show_list
from acme_ca.cli.options import console
from acme_ca.cli.remote import Api, YesOption, command, confirm, minute, part, say, show_facts, show_json
from acme_ca.config import ConfigurationError
from acme_ca.core.states import ServiceState
from acme_ca.storage.services import ServiceSort

app = typer.Typer(
    help="Services: who answers for them, and what they may have certificates for.", no_args_is_help=True
)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The service's id.")]


@command(app, "register")
def register(
    api: Api,
    service: IdArgument,
    *,
    name: Annotated[str | None, typer.Option(help="For people; the id without this.")] = None,
    owner: Annotated[str | None, typer.Option(help="Who answers for it.")] = None,
    version: Annotated[str | None, typer.Option(help="Of its software.")] = None,
    contact: Annotated[list[str] | None, typer.Option(help="How its owner is reached. Repeatable.")] = None,
    endpoint: Annotated[list[str] | None, typer.Option(metavar="URL", help="Repeatable.")] = None,
    health_url: Annotated[str | None, typer.Option(metavar="URL", help="Never asked by this server.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="What else is worth knowing. Repeatable.")
    ] = None,
    domain: Annotated[
        list[str] | None, typer.Option(help="A name or address for its certificates. Repeatable.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="To find it by. Repeatable.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="All of this as JSON, as the API takes it; options win."),
    ] = None,
    eab: Annotated[bool, typer.Option(help="Also make an EAB key, and show the lines that use it.")] = True,
) -> None:
    """Register a service; with its EAB key its certbot or lego is set up by one pasted line."""
    options = {
        "name": name,
        "owner": owner,
        "version": version,
        "contacts": contact,
        "endpoints": endpoint,
        "health_url": health_url,
        "metadata": dict(map(_pair, metadata)) if metadata else None,
        "domains": domain,
        "tags": tag,
    }
    given = {field: value for field, value in options.items() if value is not None}
    wish = {"name": service, **_read(file), **given, "service_id": service, "eab": eab}
    if eab and not wish.get("domains"):
        raise ConfigurationError("Its EAB key is for its domains: give --domain, or --no-eab for no key yet.")
    made = api.post("/services/register", wish)
    if api.as_json:
        show_json(made)
        return
    waits = ": it waits for approval" if made["state"] == ServiceState.PENDING else ""
    console().print(f"Registered: {service}{waits}")
    if made["eab"] is not None:
        _show_lines(made["eab"])


@command(app, "list")
def list_services(
    api: Api,
    *,
    state: Annotated[ServiceState | None, typer.Option(help="Only these.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only those that have it.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only this one's.")] = None,
    domain: Annotated[str | None, typer.Option(help="Only those that are registered for it.")] = None,
    text: TextOption = None,
    since: SinceOption = None,
    before: BeforeOption = None,
    sort: Annotated[ServiceSort | None, typer.Option(help=SORT)] = None,
) -> None:
    """Show the services, by their ids."""
    found = list(
        api.pages(
            "/services",
            state=state,
            tag=tag,
            owner=owner,
            domain=domain,
            text=text,
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
            one["service_id"],
            one["state"],
            one["version"],
            minute(one["created"]),
            one["owner"],
            ", ".join(one["domains"]),
        )
        for one in found
    ]
    show_list(
        ("id", "state", "version", "registered (UTC)", "owner", "domains"),
        rows,
        folds={"owner", "domains"},
        spare=("version", "registered (UTC)"),
    )


@command(app, "info")
def info(api: Api, service: IdArgument) -> None:
    """Show all that is known of a service."""
    found = api.get(f"/services/{part(service)}")
    if api.as_json:
        show_json(found)
        return
    if found["readable"]:
        del found["readable"]
    show_facts(found)


@command(app, "approve")
def approve(api: Api, service: IdArgument) -> None:
    """Let a service have certificates; also one that was retired."""
    _say(api, "Approved", api.post(f"/services/{part(service)}/approve"))


@command(app, "retire")
def retire(
    api: Api,
    service: IdArgument,
    *,
    revoke_certificates: Annotated[
        bool, typer.Option("--revoke-certificates", help="Also take back all that it has.")
    ] = False,
    yes: YesOption = False,
) -> None:
    """End a service: its EAB keys are revoked and their accounts frozen."""
    confirm(f"Retire {service}? Its clients get no more certificates.", yes=yes)
    gone = api.delete(f"/services/{part(service)}", revoke_certificates=revoke_certificates)
    say(
        api,
        gone,
        f"Retired: {service}; EAB keys revoked: {len(gone['eab_keys'])}, accounts frozen: {len(gone['accounts'])}, "
        f"certificates revoked: {gone['certificates_revoked']}",
    )


@command(app, "eab")
def eab_key(api: Api, service: IdArgument) -> None:
    """Make another EAB key for a service, limited to its domains, and show the lines that use it."""
    made = api.post(f"/services/{part(service)}/eab-keys")
    show_json(made) if api.as_json else _show_lines(made)


def _show_lines(made: dict[str, Any]) -> None:
    """Without a line's end in what is to be pasted, however wide it is."""
    typer.echo(f"Key id:   {made['kid']}")
    typer.echo(f"HMAC key: {made['hmac_key']}")
    typer.echo("Keep it now: it is not shown again. Once on the service's machine:")
    typer.echo(f"  curl -fsS -o root.pem {made['root_url']}")
    if made["root_sha256"]:
        fingerprint = _colons(made["root_sha256"])
        typer.echo(f"  openssl x509 -in root.pem -noout -fingerprint -sha256    # {fingerprint}")
    typer.echo("and then one of:")
    typer.echo(f"  {made['certbot']}")
    typer.echo(f"  {made['lego']}")


def _colons(fingerprint: str) -> str:
    return ":".join(fingerprint[place : place + 2] for place in range(0, len(fingerprint), 2)).upper()


def _say(api: Api, what: str, service: dict[str, Any]) -> None:
    show_json(service) if api.as_json else console().print(f"{what}: {service['service_id']}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigurationError(f"--metadata: {text!r} is not NAME=VALUE.")
    return name, value


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        found = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--file: {file} cannot be read as JSON ({error}).") from None
    if not isinstance(found, dict):
        raise ConfigurationError(f"--file: {file} is no JSON object.")
    return found
