"""What the supervisor says when it is ready: where things are, and lines to paste for a first certificate."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path

from rich.console import Console

from acme_ca import __version__
from acme_ca.config import Settings
from acme_ca.core import identifiers

DIRECTORY_PATH = "/acme/directory"
_PLACE = "~/acme-ca"
"""Where the pasted lines keep accounts and certificates, each client its own: in the home of whoever pastes them."""
_DEFAULT_HTTP01_PORT = 80


def say(settings: Settings, *, root: Path, fingerprint: str) -> None:
    """Print the text to standard output; in colour when that is a terminal."""
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)
    if settings.dev:
        console.print(_warning(settings), style="bold white on red")
    console.print(f"\nacme-ca {__version__} is ready.\n", style="bold green")
    console.print(f"  Directory         {settings.public_url}{DIRECTORY_PATH}")
    console.print(f"  Root certificate  {root.absolute()}")
    console.print(f"  SHA-256           {colon_hex(fingerprint)}\n")
    console.print(f"A first certificate, {_where(settings)}: paste one of these lines.\n")
    for line in first_certificate(settings, root):
        console.print(line + "\n", style="cyan")
    if settings.eab_required:
        console.print("KID and HMAC come from: acme-ca eab create\n")
    sys.stdout.flush()


def first_certificate(settings: Settings, root: Path) -> tuple[str, str]:
    """The certbot line and the lego line."""
    fetch, bundle = _trust(settings, root)
    name, server = _name(settings), shlex.quote(settings.public_url + DIRECTORY_PATH)
    port = settings.validation.http01_port
    own_port = port != _DEFAULT_HTTP01_PORT
    certbot = [
        f"{fetch}REQUESTS_CA_BUNDLE={bundle} certbot certonly --standalone --non-interactive --agree-tos",
        f"-m you@example.org --server {server} -d {name}",
        *([f"--http-01-port {port}"] if own_port else []),
        *(["--eab-kid KID --eab-hmac-key=HMAC"] if settings.eab_required else []),
        f"--config-dir {_PLACE}-certbot --work-dir {_PLACE}-certbot/work --logs-dir {_PLACE}-certbot/logs",
    ]
    lego = [
        f"{fetch}LEGO_CA_CERTIFICATES={bundle} lego --accept-tos --email you@example.org --server {server}",
        f"--domains {name} --http",
        *([f"--http.port :{port}"] if own_port else []),
        *(["--eab --kid KID --hmac=HMAC"] if settings.eab_required else []),
        f"--path {_PLACE}-lego run",
    ]
    return " ".join(certbot), " ".join(lego)


def colon_hex(fingerprint: str) -> str:
    """`ab12…` as `AB:12:…`, the way other tools show fingerprints."""
    return bytes.fromhex(fingerprint).hex(":").upper()


def _warning(settings: Settings) -> str:
    ports = f"{settings.validation.http01_port}/{settings.validation.tlsalpn01_port}"
    return (
        f" DEVELOPMENT MODE, not for production: validators ask ports {ports}, "
        "and names under .localhost mean this machine. "
    )


def _where(settings: Settings) -> str:
    return (
        "in a second terminal of this machine, as any user"
        if settings.dev
        else "on the host that has the name"
    )


def _name(settings: Settings) -> str:
    local = identifiers.dns("hello.localhost")
    if settings.dev and not settings.policy.name_policy().violations([local]):
        return local.value
    return f"host.{next(iter(settings.policy.allowed_domains), 'example.org')}"


def _trust(settings: Settings, root: Path) -> tuple[str, str]:
    """(a command that fetches the root certificate first, or nothing; the path of the root certificate)."""
    path = root.absolute()
    if os.geteuid() != 0 or _open_to_all(path):
        return "", shlex.quote(str(path))
    # The server runs as root in a folder that others cannot enter.
    copy = f"{_PLACE}-root.pem"
    return (
        f"curl -fsS -o {copy} {shlex.quote(settings.public_http_url + '/ca/root.pem')} && ",
        copy,
    )


def _open_to_all(path: Path) -> bool:
    readable = path.stat().st_mode & stat.S_IROTH
    return bool(readable) and all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)
