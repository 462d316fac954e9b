"""`acme-ca cert list`."""

from __future__ import annotations

from typing import Annotated

import typer

from acme_ca.cli import cert
from acme_ca.cli.lists import show_list
from acme_ca.cli.order import MostOption
from acme_ca.cli.remote import Api, command, minute, show_json, whole_issuer_id
from acme_ca.core.states import CertificateState
from acme_ca.storage.certificate_list import CertificateSort

app = cert.app


@command(app, "list")
def list_certificates(
    api: Api,
    text: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WORD]…",
            help="The beginning of a name, address or serial number; a service; the id of an account or order.",
        ),
    ] = None,
    *,
    status: Annotated[CertificateState | None, typer.Option(help="Only these.")] = None,
    name: Annotated[
        str | None, typer.Option(help="A name or address that it has; .a.example: that and all below.")
    ] = None,
    service: Annotated[str | None, typer.Option(metavar="ID", help="Of this service.")] = None,
    profile: Annotated[str | None, typer.Option(help="Of this profile.")] = None,
    issuer: cert.IssuerOption = None,
    account: Annotated[str | None, typer.Option(metavar="ID", help="Ordered by this account.")] = None,
    serial: Annotated[str | None, typer.Option(help="The serial number, or how it begins.")] = None,
    key: Annotated[str | None, typer.Option(metavar="SHA-256", help="Of this public key.")] = None,
    expiring_within: Annotated[
        str | None, typer.Option("--expiring-within", metavar="TIME", help='As in "30 days".')
    ] = None,
    sort: Annotated[CertificateSort | None, typer.Option(help="With a minus the last one first.")] = None,
    limit: MostOption = 100,
) -> None:
    """Show certificates that fit all of this, the newest first."""
    found = list(
        api.pages(
            "/certificates",
            most=limit,
            text=" ".join(text or ()) or None,
            status=status,
            name=name,
            service=service,
            profile=profile,
            issuer=whole_issuer_id(api, issuer),
            account=account,
            serial=serial,
            key_sha256=key,
            expiring_within=expiring_within,
            sort=sort,
        )
    )
    if api.as_json:
        show_json(found)
        return
    rows = [
        (
            one["serial"],
            one["status"],
            minute(one["recorded"]),
            minute(one["not_after"]),
            one["profile"]["name"],
            one["service_id"],
            ", ".join(one["names"]),
        )
        for one in found
    ]
    show_list(
        ("serial", "status", "recorded (UTC)", "ends (UTC)", "profile", "service", "names"),
        rows,
        folds={"names"},
        spare=("recorded (UTC)", "profile", "service"),
    )
