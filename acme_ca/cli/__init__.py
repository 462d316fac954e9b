"""The `acme-ca` command. What cannot be done for a setting's sake ends with one sentence and status 2."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from acme_ca import __version__
from acme_ca.admin.access import Role
from acme_ca.ca.certify import is_loopback
from acme_ca.ca.hierarchy import Hierarchy
from acme_ca.cli import (
    account,
    approval,
    audit,
    backup,
    blocklist,
    ca,
    ceremony,
    cert_list,
    crl,
    db,
    eab,
    explain,
    health,
    key,
    limits,
    order,
    policy,
    profile,
    remote,
    scope,
    service,
    token,
)
from acme_ca.cli.options import ConfigOption, DataOption, console, load_settings, with_password
from acme_ca.config import ConfigurationError, Settings
from acme_ca.server import datadir, hierarchy
from acme_ca.server.hierarchy import KeyType

REFUSED = 2
"""Exit status when a setting or an argument prevents the act."""

app = typer.Typer(
    name="acme-ca",
    help="A private certificate authority that speaks ACME (RFC 8555). Every setting is an environment variable "
    "ACME_CA_… or a line of the file given by --config; options win over both.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
app.add_typer(ca.app, name="ca")
app.add_typer(cert_list.app, name="cert")
app.add_typer(ceremony.app, name="ceremony")
app.add_typer(crl.app, name="crl")
app.add_typer(db.app, name="db")
app.add_typer(eab.app, name="eab")
app.add_typer(account.app, name="account")
app.add_typer(policy.app, name="policy")
app.add_typer(scope.app, name="scope")
app.add_typer(health.app, name="health")
app.add_typer(key.app, name="key")
app.add_typer(blocklist.app, name="blocklist")
app.add_typer(limits.app, name="limits")
app.add_typer(order.app, name="order")
app.add_typer(profile.app, name="profile")
app.add_typer(service.app, name="service")
app.add_typer(token.app, name="token")
app.add_typer(approval.app, name="approval")
app.add_typer(audit.app, name="audit")
remote.command(app, "explain")(explain.explain)
app.command()(backup.backup)
app.command()(backup.restore)


def main() -> NoReturn:
    """The console script."""
    try:
        app()
    except ConfigurationError as error:
        sys.stderr.write(f"acme-ca: {error}\n")
        raise SystemExit(REFUSED) from None
    raise SystemExit(0)


def _print_version(wanted: bool) -> None:  # noqa: FBT001  typer calls it so
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _root(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...


# ---------------------------------------------------------------- serving


@app.command()
def serve(
    *,
    dev: Annotated[
        bool,
        typer.Option("--dev", help="Development mode: makes a CA when there is none; not for production."),
    ] = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
    workers: Annotated[
        str | None, typer.Option(metavar="N", help="Worker processes. [ACME_CA_WORKERS]")
    ] = None,
    https_listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="ACME over TLS. [ACME_CA_HTTPS_LISTEN]")
    ] = None,
    http_listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Public files. [ACME_CA_HTTP_LISTEN]")
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(metavar="URL", help="How clients reach ACME. [ACME_CA_PUBLIC_URL]")
    ] = None,
    public_http_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Base of the URLs in certificates. [ACME_CA_PUBLIC_HTTP_URL]"),
    ] = None,
) -> None:
    """Serve ACME until stopped (SIGTERM or Ctrl-C; SIGHUP loads the TLS certificate again)."""
    settings = load_settings(
        config_file,
        dev=dev or None,
        data=data,
        workers=workers,
        https_listen=https_listen,
        http_listen=http_listen,
        public_url=public_url,
        public_http_url=public_http_url,
    )
    makes_a_ca = settings.dev and not hierarchy.exists(settings)
    hierarchy.check_there(settings)  # before a password is asked for
    from acme_ca.server.start import serve as start  # noqa: PLC0415  half of what other commands would load

    raise typer.Exit(start(with_password(settings, new=makes_a_ca)))


# ---------------------------------------------------------------- the CA


@app.command()
@ca.app.command("init-root")
def init(
    *,
    cn: Annotated[str, typer.Option(help='Name of the CA: "VCC" gives "VCC Root CA".')] = "VCC",
    org: Annotated[str, typer.Option(help="Organization in the names; may be empty.")] = "VCC",
    country: Annotated[str, typer.Option(help="Two-letter country code; may be empty.")] = "",
    key_type: Annotated[KeyType, typer.Option(help="ec: P-384 and P-256; rsa: 4096 and 2048 bits.")] = "ec",
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
    out = console()
    for name, issuer in (("root", made.root), ("intermediate", made.intermediate)):
        out.print(ca.description(name, issuer))
    out.print(f"Keys and certificates: {place.absolute()} (keep a backup, and the password elsewhere).")
    out.print(f"For clients to trust:  {(settings.data / 'root.pem').absolute()}")
    out.print("Serving does not need root.key: it can be moved to a safe.")
    if is_loopback(settings.public_http_url):
        out.print(
            "The intermediate does not say where the root's CRL is: "
            f"ACME_CA_PUBLIC_HTTP_URL is {settings.public_http_url}, which others cannot reach."
        )
    out.print(_first_token(settings, made))
    out.print("Next: acme-ca serve")


def _first_token(settings: Settings, seed: Hierarchy) -> str:
    """The one that all others are made with over the network."""
    try:
        with remote.own(settings, seed=seed) as api:
            made = api.post("/tokens", {"name": "admin", "role": Role.ADMINISTRATOR})
    except (ConfigurationError, remote.Refused) as error:
        return f"No token of the admin API was made ({error}) Make one when it serves: acme-ca token create"
    return f"Token of the admin API (administrator; shown only now): {made['token']}"


# ---------------------------------------------------------------- version


@app.command()
def version() -> None:
    """Show the version."""
    typer.echo(f"acme-ca {__version__}")
