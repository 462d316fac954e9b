"""`acme-ca ca`: the certificates of the CA itself, and what their keys are used for."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar

import typer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from rich.table import Table

from acme_ca import log
from acme_ca.admin.access import Role
from acme_ca.ca import certify, keystore
from acme_ca.ca.hierarchy import Hierarchy
from acme_ca.ca.issuers import Issuer, IssuerError
from acme_ca.ca.keystore import KeyKind, KeyStoreError, PrivateKey
from acme_ca.ca.rotation import Brought, Rotation
from acme_ca.ca.served import Issuers
from acme_ca.cli.cert import ReasonOption
from acme_ca.cli.lists import SORT, ExpiringOption, TextOption, show_list
from acme_ca.cli.options import (
    ConfigOption,
    DataOption,
    JsonOption,
    console,
    in_database,
    load_settings,
    operator,
    with_password,
)
from acme_ca.cli.remote import (
    Api,
    Refused,
    YesOption,
    command,
    confirm,
    minute,
    part,
    say,
    show_facts,
    show_json,
)
from acme_ca.config import ConfigurationError, Settings, ca_password
from acme_ca.core.ids import serial_text
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.keys import key_name
from acme_ca.core.problems import Problem
from acme_ca.core.states import IssuerState
from acme_ca.server import datadir, hierarchy
from acme_ca.server.hierarchy import KeyType
from acme_ca.server.welcome import colon_hex
from acme_ca.storage.database import Database
from acme_ca.storage.issuers import IssuerSort

T = TypeVar("T")

app = typer.Typer(help="The certificates of the CA itself.", no_args_is_help=True)

MIN_PREFIX = 12
"""Digits of an issuer's id that tables show."""

IssuerArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The issuer's id, or its first digits: see acme-ca ca list.")
]
CnOption = Annotated[
    str | None, typer.Option(help='Common name; without it "… Intermediate CA", with a number when taken.')
]
KeyUriOption = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="Where the new key is made: file:NAME, pkcs11:…, awskms:…; without it an encrypted file beside the others.",
    ),
]
KeyKindOption = Annotated[KeyKind, typer.Option(help="The kind of the new key.")]
DaysOption = Annotated[
    int, typer.Option(min=1, help="Life of the certificate, in days; never beyond its parent's.")
]
PathLengthOption = Annotated[int, typer.Option(min=0, help="How many CAs may follow below it.")]
PermitOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME|NETWORK", help="Name constraint: what may be issued, all else may not. Repeatable."
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME|NETWORK", help="Name constraint: what may not be issued. Repeatable."),
]
INTERMEDIATE_DAYS = certify.INTERMEDIATE_LIFETIME.days


# ---------------------------------------------------------------- the first of all


@app.command("init-root")
def init(
    *,
    cn: Annotated[str, typer.Option(help='Name of the CA: "VCC" gives "VCC Root CA".')] = "VCC",
    org: Annotated[str, typer.Option(help="Organization in the names; may be empty.")] = "VCC",
    country: Annotated[str, typer.Option(help="Two-letter country code; may be empty.")] = "",
    key_type: Annotated[KeyType, typer.Option(help="ec: P-384 and P-256; rsa: 4096 and 2048 bits.")] = "ec",
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Make the root and the intermediate.

    Their keys are encrypted with the password in ACME_CA_CA_PASSWORD or in the file ACME_CA_CA_PASSWORD_FILE; without
    either it is asked for, twice. A CA that exists is left as it is.
    """
    settings = load_settings(config_file, data=data)
    place = hierarchy.place(settings)
    if hierarchy.exists(settings):
        raise ConfigurationError(f"ACME_CA_DATA: there is a CA in {place} already; it is left as it is.")
    settings = with_password(settings, new=True)
    with datadir.alone(settings.data):
        made = hierarchy.create(
            settings, common_name=cn, organization=org, country=country, key_type=key_type
        )
    token, said = _first_token(settings, made)
    issuers = {"root": made.root, "intermediate": made.intermediate}
    if as_json:
        facts = {name: {"id": issuer.id, **_facts(issuer)} for name, issuer in issuers.items()}
        show_json({**facts, "keys": str(place.absolute()), "token": token})
        if token is None:
            sys.stderr.write(f"acme-ca: {said}\n")
        return
    out = console()
    for name, issuer in issuers.items():
        out.print(description(name, issuer))
    out.print(f"Keys and certificates: {place.absolute()} (keep a backup, and the password elsewhere).")
    out.print(f"For clients to trust:  {(settings.data / 'root.pem').absolute()}")
    out.print("Serving does not need root.key: it can be moved to a safe.")
    if certify.is_loopback(settings.public_http_url):
        out.print(
            "The intermediate does not say where the root's CRL is: "
            f"ACME_CA_PUBLIC_HTTP_URL is {settings.public_http_url}, which others cannot reach."
        )
    out.print(said)
    out.print("Next: acme-ca serve")


def _first_token(settings: Settings, seed: Hierarchy) -> tuple[str | None, str]:
    """The one that all others are made with over the network, and what to say of it."""
    from acme_ca.cli.own import own  # noqa: PLC0415  a whole server

    try:
        with own(settings, seed=seed) as api:
            made = api.post("/tokens", {"name": "admin", "role": Role.ADMINISTRATOR})
    except (ConfigurationError, Refused) as error:
        return (
            None,
            f"No token of the admin API was made ({error}) Make one when it serves: acme-ca token create",
        )
    return made["token"], f"Token of the admin API (administrator; shown only now): {made['token']}"


# ---------------------------------------------------------------- looking


@command(app, "list")
def list_issuers(
    api: Api,
    *,
    kind: Annotated[IssuerKind | None, typer.Option(help="Only of this kind.")] = None,
    state: Annotated[IssuerState | None, typer.Option(help="Only in this state.")] = None,
    text: TextOption = None,
    expiring_within: ExpiringOption = None,
    sort: Annotated[IssuerSort | None, typer.Option(help=SORT)] = None,
) -> None:
    """Show every CA certificate that is known: roots, intermediates, cross-signatures."""
    found = list(
        api.pages("/issuers", kind=kind, state=state, text=text, expiring_within=expiring_within, sort=sort)
    )
    if api.as_json:
        show_json(found)
        return
    rows = [
        (
            issuer["id"][:MIN_PREFIX],
            issuer["kind"],
            "revoked" if issuer["revoked"] else issuer["state"],
            minute(issuer["not_after"]).partition(" ")[0],
            issuer["subject"],
        )
        for issuer in found
    ]
    show_list(("id", "kind", "state", "not after (UTC)", "subject"), rows, folds={"subject"})


def _show_files(settings: Settings, as_json: bool) -> None:  # noqa: FBT001  called by `command`
    """What the first start takes up."""
    made = hierarchy.certificates(settings)
    issuers = {"root": made.root, "intermediate": made.intermediate}
    if as_json:
        show_json({name: {"id": issuer.id, **_facts(issuer)} for name, issuer in issuers.items()})
        return
    for name, issuer in issuers.items():
        console().print(description(name, issuer))


@command(app, "info", without_database=_show_files)
def show(api: Api) -> None:
    """Show the active issuer and its root: names, keys, serials, validity, fingerprints."""
    found = api.get("/ca/info")
    if api.as_json:
        show_json(found)
        return
    if not found["ca_initialized"]:
        console().print("No issuer is active: see acme-ca ca list.")
    for name in ("root", "intermediate"):
        if found[name] is not None:
            _show(name, found[name])


# ---------------------------------------------------------------- making


@command(app, "create-intermediate", keys=True)
def create_intermediate(
    api: Api,
    *,
    cn: CnOption = None,
    parent: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The CA that signs it; without it the root of the active issuer."),
    ] = None,
    key_uri: KeyUriOption = None,
    key_kind: KeyKindOption = KeyKind.EC_P256,
    days: DaysOption = INTERMEDIATE_DAYS,
    path_length: PathLengthOption = 0,
    permit: PermitOption = None,
    exclude: ExcludeOption = None,
) -> None:
    """Make a key and an intermediate for it, staged: it signs nothing until it is activated.

    The key of the CA that signs it must be within reach; otherwise see export-csr.
    """
    wish = _wish(
        cn=cn,
        key_uri=key_uri,
        key_kind=key_kind,
        path_length=path_length,
        permit=permit,
        exclude=exclude,
    )
    made = api.post("/ca/intermediate", {**wish, "parent": parent, "validity_days": days, "activate": False})
    _tell(api, f"new intermediate ({made['state']})", made)


@command(app, "cross-sign", keys=True)
def cross_sign(
    api: Api,
    subject: IssuerArgument,
    *,
    by: Annotated[str, typer.Option(metavar="ID", help="The CA that signs; its key must be within reach.")],
    days: DaysOption = INTERMEDIATE_DAYS,
) -> None:
    """Give a CA another certificate, below another root. Clients are offered both chains while it lives."""
    made = api.post(f"/issuers/{part(subject)}/cross-sign", {"by": by, "validity_days": days})
    _tell(api, "cross-signed certificate", made)


@command(app, "export-csr", keys=True)
def export_csr(
    api: Api,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the CSR goes (PEM).")],
    cn: CnOption = None,
    key_uri: KeyUriOption = None,
    key_kind: KeyKindOption = KeyKind.EC_P256,
    path_length: PathLengthOption = 0,
    permit: PermitOption = None,
    exclude: ExcludeOption = None,
) -> None:
    """Make a key, and a request for an intermediate that an offline or foreign root signs."""
    with _new_file(out) as file:
        made = api.post(
            "/issuers/requests",
            _wish(
                cn=cn,
                key_uri=key_uri,
                key_kind=key_kind,
                path_length=path_length,
                permit=permit,
                exclude=exclude,
            ),
        )
        file.write(made["csr"].encode())
    say(
        api, made, f"Request: {out}", "Have it signed, then: acme-ca ca install-cert CERTIFICATE --chain ROOT"
    )


@command(app, "install-cert")
def install_cert(
    api: Api,
    certificate: Annotated[
        Path, typer.Argument(metavar="CERTIFICATE", help="What came back (PEM); its chain may follow.")
    ],
    *,
    chain: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The certificates above it, up to the root (PEM).")
    ] = None,
) -> None:
    """Install what another CA made of a request, staged. Every link of its chain is checked."""
    links = [*_certificates(certificate), *(_certificates(chain) if chain else ())]
    pem = b"".join(link.public_bytes(Encoding.PEM) for link in links)
    made = api.post("/issuers/install", {"certificate": pem.decode()})
    _tell(api, f"installed intermediate ({made['state']})", made)


@app.command("import")
def bring(
    *,
    root: Annotated[Path, typer.Option(metavar="FILE", help="The root's certificate (PEM).")],
    root_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its key (PEM); without it the root stays offline.")
    ] = None,
    intermediate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The intermediate's certificate (PEM).")
    ] = None,
    intermediate_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The intermediate's key (PEM).")
    ] = None,
    intermediate_key_uri: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Instead of the file: where its key is already, in an HSM."),
    ] = None,
    key_password: Annotated[
        str,
        typer.Option(
            envvar="ACME_CA_IMPORT_PASSWORD",
            help="Of the key files, where they are encrypted; without it the CA's own.",
        ),
    ] = "",
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Take in an existing root, or a root and an intermediate. Keys are kept encrypted with the CA's own password.

    The intermediate becomes active when there is no active issuer, and staged otherwise.
    """
    settings = load_settings(config_file, data=data)
    settings = with_password(settings, new=not hierarchy.exists(settings))
    own = ca_password(settings)
    password = (key_password or (own.get_secret_value() if own else "")).encode()
    brought = Brought(certificate=_certificate(root), key=_foreign_key(root_key, password))
    below = None
    if intermediate is not None:
        below = Brought(
            certificate=_certificate(intermediate),
            key=_foreign_key(intermediate_key, password),
            key_uri=intermediate_key_uri,
        )
    keep = partial(hierarchy.keep_key, settings)
    with datadir.alone(settings.data):  # a server that is being started may take away what it did not find
        taken = in_rotation(settings, lambda rotation: rotation.bring(brought, below, keep=keep), make=True)
    if as_json:
        show_json([{"id": issuer.id, **_facts(issuer)} for issuer in taken])
        return
    for issuer in taken:
        console().print(description(f"{issuer.kind} ({issuer.state(datetime.now(UTC))})", issuer))


# ---------------------------------------------------------------- states


@command(app, "activate", keys=True)
def activate(api: Api, issuer: IssuerArgument) -> None:
    """Have an issuer sign what is ordered from now on. Running servers notice within seconds."""
    changed = api.post(f"/issuers/{part(issuer)}/activate")
    if api.as_json:
        show_json(changed)
        return
    console().print(f"Active: {_name(changed)}")
    for note in changed["notes"]:
        console().print(note)
    console().print(
        "Issuers that were active before stay so for the orders that pin them, until they are retired."
    )


@command(app, "retire")
def retire(api: Api, issuer: IssuerArgument, *, yes: YesOption = False) -> None:
    """Have an issuer sign status only: CRLs and OCSP go on while its certificates live. Open orders move to the active one."""
    found = api.get(f"/issuers/{part(issuer)}")
    confirm(f"Retire {_name(found)}?", yes=yes)
    changed = api.post(f"/issuers/{found['id']}/retire")
    say(api, changed, f"Retired: {_name(changed)}")


@command(app, "revoke")
def revoke(
    api: Api,
    issuer: IssuerArgument,
    *,
    reason: ReasonOption,
    yes: YesOption = False,
) -> None:
    """Take a CA certificate back: the CRL of the CA above lists it, and it is retired. Activate a successor first."""
    found = api.get(f"/issuers/{part(issuer)}")
    confirm(f"Revoke {_name(found)} for good?", yes=yes)
    changed = api.post(f"/issuers/{found['id']}/revoke", {"reason": reason})
    say(
        api,
        changed,
        f"Revoked ({reason}): {_name(changed)}",
        "The CRL above it is due. Where that root's key is offline: acme-ca crl export-root ROOT --out FILE",
    )


# ---------------------------------------------------------------- parts


def in_rotation(
    settings: Settings,
    act: Callable[[Rotation], Awaitable[T]],
    *,
    with_keys: bool = True,
    make: bool = False,
) -> T:
    """What `act` returns. `with_keys`: whether it needs any. Raises ConfigurationError for whatever prevents it."""

    async def work(opened: Database) -> T:
        rotation = Rotation(
            database=opened,
            issuers=Issuers(
                database=opened,
                open_key=hierarchy.keys(settings) if with_keys else None,
                clock=_now,
                log=log.get(),
            ),
            open_key=hierarchy.keys(settings),
            create_key=hierarchy.new_keys(settings),
            base_url=settings.public_http_url,
            actor=operator(),
            clock=_now,
        )
        return await act(rotation)

    try:
        return in_database(settings, work, make=make)
    except (IssuerError, KeyStoreError) as error:
        raise ConfigurationError(str(error)) from None
    except Problem as problem:
        raise ConfigurationError(problem.detail) from None


def _now() -> datetime:
    return datetime.now(UTC)


def _wish(
    *,
    cn: str | None,
    key_uri: str | None,
    key_kind: KeyKind,
    path_length: int,
    permit: Sequence[str] | None,
    exclude: Sequence[str] | None,
) -> dict[str, Any]:
    return {
        "common_name": cn,
        "key_uri": key_uri,
        "key_kind": key_kind,
        "path_length": path_length,
        "permit": list(permit or ()),
        "exclude": list(exclude or ()),
    }


def _name(issuer: Mapping[str, Any]) -> str:
    return f"{issuer['id'][:MIN_PREFIX]} {issuer['subject']}"


def _tell(api: Api, title: str, made: Mapping[str, Any]) -> None:
    if api.as_json:
        show_json(made)
        return
    _show(title, made)
    for note in made["notes"]:
        console().print(note)
    if made["state"] == "staged":
        console().print(f"Next: acme-ca ca activate {made['id'][:MIN_PREFIX]}")


def _show(title: str, issuer: Mapping[str, Any]) -> None:
    hidden = ("pem", "notes", "signs")
    show_facts({fact: value for fact, value in issuer.items() if fact not in hidden}, title=title)


def _foreign_key(path: Path | None, password: bytes) -> PrivateKey | None:
    try:
        return keystore.read_foreign(path, password) if path else None
    except KeyStoreError as error:
        raise ConfigurationError(str(error)) from None


def _certificate(path: Path) -> x509.Certificate:
    return _certificates(path)[0]


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"The certificate {path} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise ConfigurationError(f"There is no certificate in PEM in {path}.") from None


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Open before a key is made for what goes into it, and gone when there is nothing. Raises ConfigurationError."""
    try:
        file = path.open("xb")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}.") from None
    with file:
        try:
            yield file
        except BaseException:
            path.unlink()
            raise


def _facts(issuer: Issuer) -> dict[str, str | int]:
    certificate = issuer.certificate
    return {
        "kind": issuer.kind,
        "state": issuer.state(_now()),
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "key": key_name(certificate.public_key()),
        "serial": serial_text(certificate.serial_number),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "days_left": (certificate.not_valid_after_utc - _now()).days,
        "sha256": colon_hex(issuer.fingerprint),
    }


def description(name: str, issuer: Issuer) -> Table:
    """What is worth knowing of a CA certificate, for a person."""
    table = Table(title=name, title_justify="left", title_style="bold", show_header=False, box=None)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for fact, value in {"id": issuer.id, **_facts(issuer)}.items():
        table.add_row(fact.replace("_", " "), str(value))
    return table
