"""`acme-ca eab`: keys for external account binding (RFC 8555 §7.3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from acme_ca.cli.lists import SORT, BeforeOption, ExpiringOption, SinceOption, TextOption, show_list
from acme_ca.cli.options import console
from acme_ca.cli.remote import (
    OF_A_LATER_RELEASE,
    Api,
    YesOption,
    command,
    confirm,
    minute,
    part,
    show_facts,
    show_json,
)
from acme_ca.config import ConfigurationError
from acme_ca.core.eab import EabKeyState
from acme_ca.core.revocation import FinalReason
from acme_ca.storage.eab import EabKeySort

app = typer.Typer(help="Keys for external account binding.", no_args_is_help=True)

KidArgument = Annotated[str, typer.Argument(metavar="KID", help="The key id.")]
ReasonOption = Annotated[str, typer.Option(metavar="TEXT", help="Why, for the audit.")]
OwnerOption = Annotated[str | None, typer.Option(help="For whom it is: a note for operators.")]
ContactOption = Annotated[
    list[str] | None, typer.Option("--contact", metavar="TEXT", help="How they are reached. Repeatable.")
]
MaxAccountsOption = Annotated[
    int | None, typer.Option(min=1, help="How many accounts may be made with it; any number without this.")
]
ExpiresOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help='For how long it makes accounts, as in "90 days"; without it for ever.'
    ),
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="RULE",
        help="Its accounts get only names that match, as suffix:a.example. Repeatable.",
    ),
]
DenyOption = Annotated[
    list[str] | None,
    typer.Option("--deny", metavar="RULE", help="Its accounts get no name that matches. Repeatable."),
]
NetworkOption = Annotated[
    list[str] | None,
    typer.Option("--network", metavar="CIDR", help="From where its accounts may ask. Repeatable."),
]
ProfileOption = Annotated[
    list[str] | None,
    typer.Option("--profile", metavar="NAME", help="Which profiles they may order. Repeatable."),
]
OrdersOption = Annotated[int | None, typer.Option("--orders-per-day", min=1, help="Of all its accounts.")]
CertificatesOption = Annotated[
    int | None, typer.Option("--certificates-per-day", min=1, help="Of all its accounts.")
]


@command(app, "create")
def create(
    api: Api,
    *,
    owner: Annotated[str, typer.Option(help="For whom it is: a note for operators.")],
    service: Annotated[
        str | None,
        typer.Option(
            help="Its accounts share this service's profiles and policy, and replace each other's certificates."
        ),
    ] = None,
    contact: ContactOption = None,
    max_accounts: MaxAccountsOption = None,
    expires_in: ExpiresOption = None,
    allow: AllowOption = None,
    deny: DenyOption = None,
    network: NetworkOption = None,
    profile: ProfileOption = None,
    orders_per_day: OrdersOption = None,
    certificates_per_day: CertificatesOption = None,
    pending: Annotated[bool, typer.Option("--pending", help="It waits for approval.")] = False,
) -> None:
    """Make a key. Its HMAC key is shown now and never again."""
    limits = {"orders_per_day": orders_per_day, "certificates_per_day": certificates_per_day}
    made = api.post(
        "/eab-keys",
        {
            "owner": owner,
            "service": service,
            "contact": contact or [],
            "max_accounts": max_accounts,
            "expires_in": expires_in,
            "pending": pending,
            "restrictions": _restrictions(allow, deny, network, profile) | limits,
        },
    )
    _show_made(api, made)


@command(app, "list")
def list_keys(
    api: Api,
    *,
    owner: Annotated[str | None, typer.Option(help="Only of this owner.")] = None,
    service: Annotated[str | None, typer.Option(help="Only of this service.")] = None,
    contact: Annotated[str | None, typer.Option(help="Only with this contact.")] = None,
    state: Annotated[EabKeyState | None, typer.Option(help="Only in this state.")] = None,
    text: TextOption = None,
    expiring_within: ExpiringOption = None,
    since: SinceOption = None,
    before: BeforeOption = None,
    sort: Annotated[EabKeySort | None, typer.Option(help=SORT)] = None,
) -> None:
    """Show the keys, without their secrets, newest first."""
    found = list(
        api.pages(
            "/eab-keys",
            owner=owner,
            service=service,
            contact=contact,
            state=state,
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
            key["id"],
            key["state"],
            _accounts(key),
            minute(key["created"]),
            f"{key['owner']} ({key['service']})" if key["service"] else key["owner"],
        )
        for key in found
    ]
    show_list(("key id", "state", "accounts", "created (UTC)", "owner"), rows, folds={"owner"})


@command(app, "show")
def show(api: Api, kid: KidArgument) -> None:
    """Show one, and what its accounts may do."""
    _show(api, api.get(f"/eab-keys/{part(kid)}"))


@command(app, "update")
def update(
    api: Api,
    kid: KidArgument,
    *,
    owner: OwnerOption = None,
    contact: ContactOption = None,
    max_accounts: MaxAccountsOption = None,
    expires_in: ExpiresOption = None,
    allow: AllowOption = None,
    deny: DenyOption = None,
    network: NetworkOption = None,
    profile: ProfileOption = None,
    orders_per_day: OrdersOption = None,
    certificates_per_day: CertificatesOption = None,
    unrestricted: Annotated[
        bool, typer.Option("--unrestricted", help="Take all restrictions away that are not given here.")
    ] = False,
) -> None:
    """Change what is given. What its accounts may do changes within two seconds, for orders under way too."""
    given = {"owner": owner, "contact": contact, "max_accounts": max_accounts, "expires_in": expires_in}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    restrictions = _restrictions(allow, deny, network, profile) | {
        name: value
        for name, value in {
            "orders_per_day": orders_per_day,
            "certificates_per_day": certificates_per_day,
        }.items()
        if value is not None
    }
    if restrictions or unrestricted:
        now = {} if unrestricted else api.get(f"/eab-keys/{part(kid)}")["restrictions"]
        if now is None:
            raise ConfigurationError(
                f"The restrictions were {OF_A_LATER_RELEASE}. --unrestricted replaces them all."
            )
        names = now.get("names", {}) | restrictions.get("names", {})
        changes["restrictions"] = now | restrictions | ({"names": names} if names else {})
    if not changes:
        raise ConfigurationError("Say what is to be changed.")
    _show(api, api.patch(f"/eab-keys/{part(kid)}", changes))


@command(app, "approve")
def approve(api: Api, kid: KidArgument) -> None:
    """Let a key that waits make accounts."""
    _show(api, api.post(f"/eab-keys/{part(kid)}/approve"))


@command(app, "rotate")
def rotate(api: Api, kid: KidArgument, *, yes: YesOption = False) -> None:
    """Make another HMAC key under the same id. The old one makes no accounts any more; accounts go on."""
    confirm(f"Make the HMAC key of {kid} useless, and another?", yes=yes)
    _show_made(api, api.post(f"/eab-keys/{part(kid)}/rotate"))


@command(app, "revoke")
def revoke(
    api: Api,
    kid: KidArgument,
    *,
    reason: ReasonOption = "revoked by an operator",
    revoke_certificates: Annotated[
        FinalReason | None,
        typer.Option(help="Also take back its accounts' certificates, for this reason of RFC 5280 §5.3.1."),
    ] = None,
    yes: YesOption = False,
) -> None:
    """End a key: it makes no accounts any more, and those that it made are frozen at once. Asked once more it takes back
    the certificates that are left.
    """
    path = f"/eab-keys/{part(kid)}"
    key = api.get(path)
    also = "" if revoke_certificates is None else ", and take back all its certificates"
    confirm(f"End the EAB key of {key['owner']}, freeze its {key['accounts']} accounts{also}?", yes=yes)
    told: dict[str, Any] = {}
    if key["state"] != EabKeyState.REVOKED or revoke_certificates is None:
        told = api.post(f"{path}/revoke", {"reason": reason})
        if not api.as_json:  # at once: the certificates may have to wait for a second person
            console().print(f"Revoked: {kid}; accounts frozen: {len(told['frozen'])}")
    if revoke_certificates is not None:
        wish = {"reason": revoke_certificates, "comment": reason}
        certificates = api.post(f"{path}/revoke-certificates", wish)
        told |= {"certificates": certificates}
        if not api.as_json:
            console().print(f"Certificates revoked: {certificates['revoked']}")
    if api.as_json:
        show_json(told)


def _restrictions(
    allow: Sequence[str] | None,
    deny: Sequence[str] | None,
    network: Sequence[str] | None,
    profile: Sequence[str] | None,
) -> dict[str, Any]:
    names = {name: rules for name, rules in {"allow": allow, "deny": deny}.items() if rules}
    given = {"names": names, "source_networks": network, "profiles": profile}
    return {name: value for name, value in given.items() if value}


def _accounts(key: Mapping[str, Any]) -> str:
    return f"{key['accounts']} of {key['max_accounts']}" if key["max_accounts"] else str(key["accounts"])


def _show(api: Api, key: dict[str, Any]) -> None:
    if api.as_json:
        show_json(key)
        return
    if key["restrictions"] is None:
        show_facts({**key, "restrictions": OF_A_LATER_RELEASE})
        return
    restrictions = {name: value for name, value in key["restrictions"].items() if value and name != "names"}
    names = {name: rules for name, rules in key["restrictions"]["names"].items() if rules}
    show_facts({**key, "restrictions": restrictions | names})


def _show_made(api: Api, made: dict[str, Any]) -> None:
    if api.as_json:
        show_json({"kid": made["id"], "hmac_key": made["hmac_key"], "state": made["state"]})
        return
    kid, hmac_key = made["id"], made["hmac_key"]
    out = console()
    out.print(f"Key id:   {kid}")
    out.print(f"HMAC key: {hmac_key}")
    out.print(f"certbot:  --eab-kid {kid} --eab-hmac-key={hmac_key}")
    out.print(f"lego:     --eab --kid {kid} --hmac={hmac_key}")
    if made["state"] == EabKeyState.PENDING:
        out.print(f"It waits for approval: acme-ca eab approve {kid}")
