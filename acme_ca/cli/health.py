"""`acme-ca health`: whether the server can issue certificates now."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from acme_ca.cli.options import ConfigOption, DataOption, JsonOption, load_settings
from acme_ca.cli.remote import show_facts, show_json
from acme_ca.config import ConfigurationError

app = typer.Typer(help="The server's health.", no_args_is_help=True)

FAILING = 1
"""Exit status; 2 where no server answers."""
TIMEOUT = 10.0
"""Seconds."""
MOST = 1 << 20
"""Bytes of an answer."""


@app.callback()
def _group() -> None:
    """The server's health."""


@app.command()
def check(
    *,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="URL", help="Another server's HTTP address, as in http://ca.example:8080."
        ),
    ] = None,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Ask the server's HTTP listener, as a load balancer does. Status 0: it can issue certificates; 1: it cannot; 2: it
    does not answer.
    """
    base = url or load_settings(config_file, data=data).public_http_url
    report = _asked(base.rstrip("/"))
    if as_json:
        show_json(report)
    else:
        checks = {f"check {name}": value for name, value in report.pop("checks", {}).items()}
        show_facts({**report, **checks})
    if report["status"] != "ok":
        raise typer.Exit(FAILING)


def _asked(base: str) -> dict[str, Any]:
    """Raises ConfigurationError."""
    if urlsplit(base).scheme not in {"http", "https"}:
        raise ConfigurationError(f"--url: {base} is no http:// address.")
    try:
        try:
            with urllib.request.urlopen(f"{base}/health", timeout=TIMEOUT) as answer:  # noqa: S310  checked above
                content = answer.read(MOST)
        except urllib.error.HTTPError as error:
            content = error.read(MOST)
        report = json.loads(content)
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        raise ConfigurationError(
            f"No healthy answer from {base}/health: {getattr(why, 'strerror', None) or why} (does the server run?)."
        ) from None
    if not isinstance(report, dict) or "status" not in report:
        raise ConfigurationError(f"What answers at {base}/health is no acme-ca.")
    return report
