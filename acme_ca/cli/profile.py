"""`acme-ca profile`: what kinds of certificates there are (docs/profiles.md)."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from acme_ca.ca import profiles
from acme_ca.ca.profiles import UnworkableProfile
from acme_ca.cli.options import (
    ConfigOption,
    DataOption,
    JsonOption,
    console,
    in_database,
    load_settings,
    operator,
)
from acme_ca.config import ConfigurationError
from acme_ca.core.model import Profile
from acme_ca.storage import profiles as store
from acme_ca.storage.database import Database
from acme_ca.storage.profiles import ProfileVersion

app = typer.Typer(help="Profiles: what kinds of certificates there are.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The profile's name.")]
VersionOption = Annotated[int | None, typer.Option("--version", min=1, help="Another than the newest.")]
FileArgument = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="TOML, or JSON when its name ends in .json; see docs/profiles.md."),
]


@app.command("list")
def list_profiles(
    *, as_json: JsonOption = False, config_file: ConfigOption = None, data: DataOption = None
) -> None:
    """Show the newest version of each profile."""
    found = in_database(load_settings(config_file, data=data), _newest)
    if as_json:
        typer.echo(json.dumps([_facts(version, body) for version, body in found], indent=2))
        return
    table = Table(box=None)
    table.add_column("name", no_wrap=True)
    table.add_column("version", no_wrap=True, justify="right")
    table.add_column("saved (UTC)", no_wrap=True)
    table.add_column("offered", no_wrap=True)
    table.add_column("description", overflow="fold")
    for version, body in found:
        saved = f"{version.created:%Y-%m-%d %H:%M}"
        table.add_row(
            version.ref.name, str(version.ref.version), saved, _offered(version, body), body["description"]
        )
    console().print(table)


@app.command()
def show(
    name: NameArgument,
    *,
    version: VersionOption = None,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Show all that a profile says, in the form that `save` reads."""
    found = in_database(
        load_settings(config_file, data=data), lambda database: _find(database, name, version)
    )
    if found is None:
        which = name if version is None else f"{name}, version {version}"
        raise ConfigurationError(f"There is no profile {which}: see acme-ca profile list.")
    if as_json:
        typer.echo(json.dumps(_facts(*found) | {"profile": found[1]}, indent=2))
        return
    typer.echo("\n".join(_as_toml(*found)))


@app.command()
def save(
    file: FileArgument,
    *,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Save a profile as the next version of its name. Orders that were placed before keep the version that they have."""
    settings = load_settings(config_file, data=data)
    profile = _read(file)
    version = in_database(settings, lambda database: _save(database, profile))
    if as_json:
        typer.echo(json.dumps({"name": profile.name, "version": version}))
    elif version is None:
        console().print(f"Unchanged: the newest version of {profile.name} says the same.")
    else:
        console().print(f"Saved: {profile.name}, version {version}. Running servers follow within seconds.")


@app.command()
def withdraw(name: NameArgument, *, config_file: ConfigOption = None, data: DataOption = None) -> None:
    """Offer a profile no more. Orders that were placed before are finished."""
    settings = load_settings(config_file, data=data)
    _must_not_be_own(name)
    if name == settings.default_profile:
        raise ConfigurationError(
            f"ACME_CA_DEFAULT_PROFILE: {name} is for orders that ask for none; choose another for them first."
        )
    if not in_database(
        settings, lambda database: store.withdraw(database, name, actor=operator(), now=_now())
    ):
        raise ConfigurationError(
            f"There is no profile {name}, or it was withdrawn before: see acme-ca profile list."
        )
    console().print(f"Withdrawn: {name}")


@app.command()
def offer(name: NameArgument, *, config_file: ConfigOption = None, data: DataOption = None) -> None:
    """Offer a withdrawn profile again."""
    settings = load_settings(config_file, data=data)
    if not in_database(settings, lambda database: store.offer(database, name, actor=operator(), now=_now())):
        raise ConfigurationError(
            f"There is no profile {name}, or it is not withdrawn: see acme-ca profile list."
        )
    console().print(f"Offered: {name}")


# ---------------------------------------------------------------- reading


def _read(file: Path) -> Profile:
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
        profile = profiles.read(document)
    except UnworkableProfile as error:
        raise ConfigurationError(f"{file}: this profile cannot work. {error}") from None
    _must_not_be_own(profile.name)
    return profile


def _must_not_be_own(name: str) -> None:
    if name in profiles.OWN:
        raise ConfigurationError(f"{name} is the server's own profile; it stays as it is.")


async def _save(database: Database, profile: Profile) -> int | None:
    """None: the newest version says the same. Raises ConfigurationError."""
    version = await store.save(database, profile, built_in=False, actor=operator(), now=_now())
    if version is None:
        found = await _find(database, profile.name, None)
        if found is None or found[1] | {"version": 0} != profile.model_dump(mode="json") | {"version": 0}:
            raise ConfigurationError(
                f"Somebody else saved {profile.name} at the same moment: look, and try again."
            )
    return version


# ---------------------------------------------------------------- showing

Body = dict[str, Any]


async def _newest(database: Database) -> list[tuple[ProfileVersion, Body]]:
    newest = {version.ref.name: version for version in await store.versions(database)}
    bodies = await store.bodies(database, [version.ref for version in newest.values()])
    return [(version, bodies[version.ref]) for version in newest.values()]


async def _find(database: Database, name: str, number: int | None) -> tuple[ProfileVersion, Body] | None:
    """The newest without `number`."""
    named = [version for version in await store.versions(database) if version.ref.name == name]
    wanted = [version for version in named if number in {None, version.ref.version}]
    if not wanted:
        return None
    bodies = await store.bodies(database, [wanted[-1].ref])
    return wanted[-1], bodies[wanted[-1].ref]


def _facts(version: ProfileVersion, body: Body) -> dict[str, Any]:
    return {
        "name": version.ref.name,
        "version": version.ref.version,
        "description": body["description"],
        "offered": body["offered"] and version.withdrawn is None,
        "built_in": version.built_in,
        "created": version.created.isoformat(timespec="seconds"),
        "withdrawn": version.withdrawn.isoformat(timespec="seconds") if version.withdrawn else None,
    }


def _offered(version: ProfileVersion, body: Body) -> str:
    if not body["offered"]:
        return "no, the server's own"
    return f"no, since {version.withdrawn:%Y-%m-%d %H:%M}" if version.withdrawn else "yes"


def _as_toml(version: ProfileVersion, body: Body) -> list[str]:
    by = "built in" if version.built_in else "an operator's"
    return [
        f"# Version {version.ref.version}, {by}, saved {version.created:%Y-%m-%d %H:%M} UTC",
        # strings, numbers, truth values and lists of them are written alike in both languages
        *(
            f"{field} = {json.dumps(value, ensure_ascii=False)}"
            for field, value in (
                (field, body.get(field)) for field in Profile.model_fields if field != "version"
            )
            if value is not None
        ),
    ]


def _now() -> datetime:
    return datetime.now(UTC)
