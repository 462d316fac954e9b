"""Credentials of the admin API, and wrong ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

import asyncpg

from acme_ca.core.actors import Actor
from acme_ca.core.times import CLOCKS_APART
from acme_ca.storage import search
from acme_ca.storage.database import Columns, Database, Row
from acme_ca.storage.search import CREATED, NEVER, SOON, By, Page, Table, Wanted, holds

_COLUMNS = "t.id, t.name, t.secret_sha256, t.certificate_name, t.role, t.services, t.created, t.made_by, t.expires, t.revoked, t.last_used"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A bearer token, of which the SHA-256 of its secret is known, or the name in a client certificate.

    `services` empty: for everything. `made_by`: as the audit names them. `expires` None: never.
    """

    id: str
    name: str
    secret_sha256: bytes | None = field(default=None, repr=False)
    certificate_name: str | None = None
    role: str
    services: tuple[str, ...] = ()
    created: datetime
    made_by: str
    expires: datetime | None = None
    revoked: datetime | None = None
    last_used: datetime | None = None

    def is_good(self, now: datetime) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What is known when somebody shows a credential. `locked_until`: the source has to wait."""

    token: Token | None
    locked_until: datetime | None


async def create(database: Database, token: Token, *, actor: Actor) -> bool:
    """False: a living one has the name, or the certificate's name."""
    try:
        await database.fetchrow_durably(
            """WITH made AS (
                   INSERT INTO api_token (id, name, secret_sha256, certificate_name, role, services, created, expires, made_by)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING *
               )
               INSERT INTO audit_event (at, event, actor, source, object, detail)
               SELECT $7, 'token.created', $9, $10, 'token:' || id, json_build_object(
                   'name', name, 'role', role, 'services', services, 'expires', expires, 'certificate_name', certificate_name)
               FROM made RETURNING true""",
            token.id,
            token.name,
            token.secret_sha256,
            token.certificate_name,
            token.role,
            token.services,
            token.created,
            token.expires,
            actor.name,
            actor.source,
        )
    except asyncpg.UniqueViolationError:
        return False
    return True


class TokenState(StrEnum):
    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


TokenSort = Literal["created", "-created", "expires", "-expires", "last_used", "-last_used", "name", "-name"]
TOKENS = Table(
    source=f"""
        SELECT *, coalesce(expires, {NEVER}) AS ends, coalesce(last_used, 'epoch') AS used, name COLLATE "C" AS by_name,
               CASE WHEN revoked IS NOT NULL THEN 'revoked' WHEN expires <= moment.now THEN 'expired' ELSE 'active' END AS state
        FROM api_token, moment""",
    columns=_COLUMNS.replace("t.", "c."),
    filters={
        "state": "state = {}",
        "role": "role = {}",
        "service": "{} = ANY (services)",
        "made_by": "made_by = {}",
        "text": holds("id", "name", "certificate_name"),
        "expiring_within": f"revoked IS NULL AND {SOON}",
        "unused_since": "used < {}",
        **CREATED,
    },
    sorts={
        "created": By("created", datetime),
        "expires": By("ends", datetime),
        "last_used": By("used", datetime),
        "name": By("by_name"),
    },
)


async def page(database: Database, wanted: Wanted, *, now: datetime) -> Page[Token]:
    return await search.page(database, TOKENS, wanted, now=now, read=_token)


async def find(database: Database, token: str) -> Token | None:
    row = await database.fetchrow(f"SELECT {_COLUMNS} FROM api_token t WHERE id = $1", token)
    return _token(row) if row else None


async def revoke(database: Database, token: str, *, actor: Actor, now: datetime) -> bool:
    """False: there is none, or it was revoked before."""
    row = await database.fetchrow_durably(
        """WITH gone AS (UPDATE api_token SET revoked = $2 WHERE id = $1 AND revoked IS NULL RETURNING id, name)
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $2, 'token.revoked', $3, $4, 'token:' || id, json_build_object('name', name) FROM gone RETURNING true""",
        token,
        now,
        actor.name,
        actor.source,
    )
    return row is not None


# ---------------------------------------------------------------- showing them

_ATTEMPT = f"""
    SELECT {_COLUMNS}, f.until AS locked_until
    FROM (VALUES (1)) AS always LEFT JOIN api_token t ON {{}}
    LEFT JOIN login_failure f ON f.source = $2 AND f.token_id = coalesce(t.id, '')"""
_BY_ID = _ATTEMPT.format("t.id = $1")
_BY_CERTIFICATE = _ATTEMPT.format("t.certificate_name = ANY ($1) AND t.revoked IS NULL") + " ORDER BY t.name"


async def attempt(database: Database, token: str, *, source: str) -> Attempt:
    (row,) = await database.fetch(_BY_ID, token, source)  # a LEFT JOIN on a constant row gives a row
    return _attempt(row)


async def attempts_by_certificate(database: Database, names: list[str], *, source: str) -> list[Attempt]:
    """`names`: the identifiers in the certificate, as text. One for each of them that is some operator's, and at least one."""
    return [_attempt(row) for row in await database.fetch(_BY_CERTIFICATE, names, source)]


async def used(database: Database, token: str, *, source: str, now: datetime) -> None:
    """Note that a token was shown, and forgive its source."""
    await database.execute(
        """WITH forgiven AS (DELETE FROM login_failure WHERE source = $2 AND token_id = $1)
           UPDATE api_token SET last_used = $3 WHERE id = $1""",
        token,
        source,
        now,
    )


async def failed(
    database: Database, token: str, *, source: str, free: int, longest: float, now: datetime
) -> None:
    """A wrong credential from `source`: after `free` of them it waits, each time twice as long, up to `longest` seconds.

    `token`: which one it was meant to be; empty: none that there is.
    """
    await database.execute(
        """INSERT INTO login_failure AS f (source, token_id, failures, until) VALUES ($1, $2, 1, $5)
           ON CONFLICT (source, token_id) DO UPDATE SET
               failures = CASE WHEN f.until < $5 - make_interval(secs => 4 * $4) THEN 1 ELSE least(f.failures + 1, 1000) END,
               until = $5 + make_interval(secs => CASE WHEN f.failures < $3 OR f.until < $5 - make_interval(secs => 4 * $4)
                   THEN 0 ELSE least($4, power(2, least(f.failures - $3, 30))) END)""",
        source,
        token,
        free,
        longest,
        now,
    )


async def forget_failures(database: Database, *, longest: float, now: datetime) -> int:
    """Delete those after which the next one counts as the first (`failed`), and those that nobody with a good clock has
    written.
    """
    return await database.execute(
        """DELETE FROM login_failure WHERE until < $2::timestamptz - make_interval(secs => 4 * $1)
              OR until > $2::timestamptz + make_interval(secs => $1) + $3::interval""",
        longest,
        now,
        CLOCKS_APART,
    )


def _attempt(row: Row) -> Attempt:
    return Attempt(token=_token(row) if row["id"] is not None else None, locked_until=row["locked_until"])


def _token(row: Columns) -> Token:
    return Token(
        id=row["id"],
        name=row["name"],
        secret_sha256=row["secret_sha256"],
        certificate_name=row["certificate_name"],
        role=row["role"],
        services=tuple(row["services"]),
        created=row["created"],
        made_by=row["made_by"],
        expires=row["expires"],
        revoked=row["revoked"],
        last_used=row["last_used"],
    )
