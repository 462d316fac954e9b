"""Profiles: every version of each, for ever, since orders pin them. The newest is the one for new orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from acme_ca.core.actors import Actor
from acme_ca.core.profiles import Profile, ProfileRef
from acme_ca.storage import search
from acme_ca.storage.database import Columns, Database, from_json
from acme_ca.storage.search import By, Page, Table, Wanted, holds


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileVersion:
    """`built_in`: saved by the server itself; a later release may replace it. `withdrawn`: when, or None."""

    ref: ProfileRef
    built_in: bool
    created: datetime
    withdrawn: datetime | None


async def versions(database: Database) -> list[ProfileVersion]:
    """Of all profiles, by name and version."""
    rows = await database.fetch(
        "SELECT name, version, built_in, created, withdrawn FROM profile ORDER BY name, version"
    )
    return [_version(row) for row in rows]


def _version(row: Columns) -> ProfileVersion:
    return ProfileVersion(
        ref=ProfileRef(name=row["name"], version=row["version"]),
        built_in=row["built_in"],
        created=row["created"],
        withdrawn=row["withdrawn"],
    )


ProfileSort = Literal["name", "-name", "created", "-created"]
PROFILES = Table(
    source="""SELECT *, name AS id, body -> 'offered' IS NOT DISTINCT FROM 'true' AS is_for_clients FROM (
                  SELECT DISTINCT ON (name) * FROM profile ORDER BY name, version DESC) newest""",
    columns="name, version, built_in, created, withdrawn",
    filters={
        "offered": "(is_for_clients AND withdrawn IS NULL) = {}",
        "built_in": "built_in = {}",
        "own": "NOT is_for_clients = {}",
        "text": holds("name", "body ->> 'description'"),
    },
    sorts={"name": By(), "created": By("created", datetime)},
)
"""The newest version of each."""


async def page(database: Database, wanted: Wanted, *, now: datetime) -> Page[ProfileVersion]:
    return await search.page(database, PROFILES, wanted, now=now, read=_version)


async def bodies(database: Database, wanted: Sequence[ProfileRef]) -> dict[ProfileRef, dict[str, Any]]:
    """What is stored of those that exist, unread: another release may have written it."""
    rows = await database.fetch(
        """SELECT p.name, p.version, p.body FROM profile p
           JOIN unnest($1::text[], $2::integer[]) AS wanted (name, version) USING (name, version)""",
        [ref.name for ref in wanted],
        [ref.version for ref in wanted],
    )
    return {ProfileRef(name=row["name"], version=row["version"]): from_json(row["body"]) for row in rows}


async def save(
    database: Database, profile: Profile, *, built_in: bool, actor: Actor, now: datetime
) -> int | None:
    """Store the profile as the next version of its name, with the audit event, and withdrawn if the last one is.

    Returns its version, which is not the one that it came with. None: nothing was saved, since the last version says
    the same, or the last one is an operator's and this one is built in, or somebody else saved at the same moment.
    """
    row = await database.fetchrow_durably(
        """WITH latest AS (
               SELECT version, body, built_in, withdrawn FROM profile WHERE name = $1 ORDER BY version DESC LIMIT 1
           ), saved AS (
               INSERT INTO profile (name, version, body, built_in, created, withdrawn)
               SELECT $1, next.version, jsonb_set($2::jsonb, '{version}', to_jsonb(next.version)), $3, $4, l.withdrawn
               FROM (VALUES (1)) AS always LEFT JOIN latest l ON true,
                    LATERAL (SELECT coalesce(l.version, 0) + 1 AS version) AS next
               WHERE l.version IS NULL OR ((l.built_in OR NOT $3) AND l.body - 'version' <> $2::jsonb - 'version')
               ON CONFLICT DO NOTHING RETURNING version, body
           ), told AS (
               INSERT INTO audit_event (at, event, actor, source, object, detail)
               SELECT $4, 'profile.saved', $5, $6, 'profile:' || $1, json_build_object(
                   'before', nullif(version - 1, 0), 'version', version, 'sha256', encode(sha256(convert_to(body::text, 'UTF8')), 'hex')) FROM saved
           )
           SELECT version FROM saved""",
        profile.name,
        profile.model_dump_json(),
        built_in,
        now,
        actor.name,
        actor.source,
    )
    return row["version"] if row else None


async def withdraw(database: Database, name: str, *, actor: Actor, now: datetime) -> bool:
    """No new order can ask for it from now on. False: there is no such profile, or it was withdrawn before."""
    return await _mark(database, name, withdrawn=now, event="profile.withdrawn", actor=actor, now=now)


async def offer(database: Database, name: str, *, actor: Actor, now: datetime) -> bool:
    """The opposite of `withdraw`."""
    return await _mark(database, name, withdrawn=None, event="profile.offered", actor=actor, now=now)


async def _mark(
    database: Database, name: str, *, withdrawn: datetime | None, event: str, actor: Actor, now: datetime
) -> bool:
    row = await database.fetchrow_durably(
        """WITH marked AS (
               UPDATE profile SET withdrawn = $2::timestamptz
               WHERE name = $1 AND version = (SELECT max(version) FROM profile WHERE name = $1)
                 AND (withdrawn IS NULL) <> ($2::timestamptz IS NULL) RETURNING version
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $3, $4, $5, $6, 'profile:' || $1, json_build_object('version', version) FROM marked RETURNING true""",
        name,
        withdrawn,
        now,
        event,
        actor.name,
        actor.source,
    )
    return row is not None
