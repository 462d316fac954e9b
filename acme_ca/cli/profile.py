"""`acme-ca profile`: what kinds of certificates there are (docs/profiles.md)."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from acme_ca.ca import profiles
from acme_ca.ca.profiles import UnworkableProfile
from acme_ca.cli.lists import SORT, TextOption, show_list
from acme_ca.cli.options import console
from acme_ca.cli.remote import Api, YesOption, command, confirm, minute, part, say, show_json
from acme_ca.config import ConfigurationError
from acme_ca.core.profiles import Profile
from acme_ca.storage.profiles import ProfileSort

app = typer.Typer(help="Profiles: what kinds of certificates there are.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The profile's name.")]
VersionOption = Annotated[int | None, typer.Option("--version", min=1, help="Another than the newest.")]
FileArgument = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="TOML, or JSON when its name ends in .json; see docs/profiles.md."),
]


@command(app, "list")
def list_profiles(
    api: Api,
    *,
    offered: Annotated[
        bool | None, typer.Option("--offered/--not-offered", help="Whether new orders may ask for it.")
    ] = None,
    text: TextOption = None,
    sort: Annotated[ProfileSort | None, typer.Option(help=SORT)] = None,
) -> None:
    """Show the newest version of each profile."""
    found = list(api.pages("/profiles", offered=offered, text=text, sort=sort))
    if api.as_json:
        show_json(found)
        return
    rows = [
        (
            profile["name"],
            str(profile["version"]),
            minute(profile["created"]),
            _offered(profile),
            profile["description"],
        )
        for profile in found
    ]
    show_list(
        ("name", "version", "saved (UTC)", "offered", "description"),
        rows,
        folds={"description"},
        spare=("saved (UTC)", "version"),
    )


@command(app, "show")
def show(api: Api, name: NameArgument, *, version: VersionOption = None) -> None:
    """Show all that a profile says, in the form that `save` reads."""
    found = api.get(f"/profiles/{part(name)}", version=version)
    if api.as_json:
        show_json(found)
        return
    typer.echo("\n".join(_as_toml(found)))


@command(app, "versions")
def versions(api: Api, name: NameArgument) -> None:
    """Show when each version of a profile was saved."""
    found = list(api.pages(f"/profiles/{part(name)}/versions"))
    if api.as_json:
        show_json(found)
        return
    rows = [
        (
            str(profile["version"]),
            minute(profile["created"]),
            "the server" if profile["built_in"] else "an operator",
            profile["description"],
        )
        for profile in found
    ]
    show_list(("version", "saved (UTC)", "by", "description"), rows, folds={"description"})


@command(app, "save")
def save(api: Api, file: FileArgument, *, yes: YesOption = False) -> None:
    """Save a profile as the next version of its name. Orders that were placed before keep the version that they have."""
    profile = _read(file)
    confirm(f"Save {profile.get('name', 'it')}, for all orders from now on?", yes=yes)
    saved = api.post("/profiles", {"profile": profile})
    if api.as_json:
        show_json(saved)
    elif not saved["saved"]:
        console().print(f"Unchanged: the newest version of {saved['name']} says the same.")
    else:
        console().print(
            f"Saved: {saved['name']}, version {saved['version']}. Running servers follow within seconds."
        )


@command(app, "withdraw")
def withdraw(api: Api, name: NameArgument, *, yes: YesOption = False) -> None:
    """Offer a profile no more. Orders that were placed before are finished."""
    confirm(f"Offer {name} no more?", yes=yes)
    changed = api.post(f"/profiles/{part(name)}/withdraw")
    say(api, changed, f"Withdrawn: {name}")


@command(app, "offer")
def offer(api: Api, name: NameArgument, *, yes: YesOption = False) -> None:
    """Offer a withdrawn profile again."""
    confirm(f"Offer {name} again?", yes=yes)
    changed = api.post(f"/profiles/{part(name)}/offer")
    say(api, changed, f"Offered: {name}")


# ---------------------------------------------------------------- parts


def _read(file: Path) -> dict[str, Any]:
    """Raises ConfigurationError."""
    try:
        text = file.read_text(encoding="utf-8")
        document = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise ConfigurationError(
            f"{file} is no {'JSON' if file.suffix == '.json' else 'TOML'} in UTF-8: {str(error).rstrip('.')}."
        ) from None
    try:
        profiles.read(document)
    except UnworkableProfile as error:
        raise ConfigurationError(f"{file}: this profile cannot work. {error}") from None
    ready: dict[str, Any] = json.loads(
        json.dumps(document, default=str)
    )  # TOML's dates, which no profile has
    return ready


def _offered(profile: dict[str, Any]) -> str:
    if profile["own"]:
        return "no, the server's own" if profile["name"] in profiles.FOR_ITSELF else "to administrators"
    return f"no, since {minute(profile['withdrawn'])}" if profile["withdrawn"] else "yes"


def _as_toml(found: dict[str, Any]) -> list[str]:
    by = "built in" if found["built_in"] else "an operator's"
    return [
        f"# Version {found['version']}, {by}, saved {minute(found['created'])} UTC",
        # strings, numbers, truth values and lists of them are written alike in both languages
        *(
            f"{field} = {json.dumps(value, ensure_ascii=False)}"
            for field, value in (
                (field, found["profile"].get(field)) for field in Profile.model_fields if field != "version"
            )
            if value is not None
        ),
    ]
