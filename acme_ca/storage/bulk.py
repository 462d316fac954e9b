"""Taking back many certificates: those that a filter finds, in batches, each its own transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from acme_ca.core import revocation
from acme_ca.core.actors import Actor
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AccountId, EabKeyId, IssuerId, Serial
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.services import ServiceId
from acme_ca.storage.database import Database, Row

BATCH = 500
SAMPLE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """All of these; None: whatever it is."""

    service: ServiceId | None = None
    issuer: IssuerId | None = None
    account: AccountId | None = None
    profile: str | None = None
    name: Identifier | None = None
    """That it holds."""
    key_sha256: bytes | None = None
    eab_key: EabKeyId | None = None
    """Of the account that ordered it."""
    issued_from: datetime | None = None
    issued_before: datetime | None = None

    @property
    def is_empty(self) -> bool:
        return all(value is None for value in self._values)

    @property
    def parameters(self) -> tuple[Any, ...]:
        """$1 to $9 of a statement with _MATCHING."""
        return self._values

    @property
    def _values(self) -> tuple[Any, ...]:
        return (
            self.service,
            self.issuer,
            self.account,
            self.profile,
            None if self.name is None else [str(self.name)],
            self.key_sha256,
            self.eab_key,
            self.issued_from,
            self.issued_before,
        )


# What has not expired and was not revoked for good: what can still be taken back with any reason.
_MATCHING = """($1::text IS NULL OR c.service = $1) AND ($2::text IS NULL OR c.issuer_id = $2)
    AND ($3::text IS NULL OR c.account_id = $3) AND ($4::text IS NULL OR c.profile = $4)
    AND ($5::text[] IS NULL OR c.identifiers @> $5) AND ($6::bytea IS NULL OR c.spki_sha256 = $6)
    AND ($7::text IS NULL OR c.account_id IN (SELECT id FROM account WHERE eab_key_id = $7))
    AND ($8::timestamptz IS NULL OR c.recorded >= $8) AND ($9::timestamptz IS NULL OR c.recorded < $9)
    AND ($12::timestamptz IS NULL OR c.recorded < $12)
    AND c.not_after > $10 AND (c.revoked IS NULL OR (c.reason = 6 AND $11::smallint <> 6))"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a filter finds. `digest`: the SHA-256 of all serial numbers in their order, 64 hexadecimal digits."""

    count: int
    digest: str
    sample: tuple[tuple[Serial, tuple[str, ...]], ...]
    """The oldest of them, with their names."""


async def select(database: Database, wanted: Filter, *, reason: RevocationReason, now: datetime) -> Selection:
    """What `revoke_batch` would take back for this reason, of what was recorded before `now`."""
    row = await database.fetchrow(
        f"""WITH found AS MATERIALIZED (
                SELECT c.serial, c.identifiers, c.recorded FROM certificate c WHERE {_MATCHING}
            ), sample AS (
                SELECT serial, identifiers FROM found ORDER BY recorded, serial LIMIT $13
            )
            SELECT count(*) AS number,
                   encode(sha256(convert_to(coalesce(string_agg(serial, ',' ORDER BY serial), ''), 'UTF8')), 'hex') AS digest,
                   (SELECT array_agg(ROW(serial, identifiers)) FROM sample) AS sample FROM found""",
        *wanted.parameters,
        now,
        reason,
        now,
        SAMPLE,
    )
    assert row is not None, "an aggregate gives a row"  # noqa: S101
    return _selection_of(row)


def _selection_of(row: Row) -> Selection:
    sample = tuple((serial, tuple(identifiers)) for serial, identifiers in row["sample"] or ())
    return Selection(count=row["number"], digest=row["digest"], sample=sample)


async def revoke_batch(
    database: Database,
    wanted: Filter,
    *,
    reason: RevocationReason,
    comment: str | None,
    actor: Actor,
    recorded_before: datetime | None,
    now: datetime,
    after: str,
    limit: int,
) -> tuple[int, Serial | None]:
    """Take back, or put on hold, up to `limit` of what the filter finds behind the serial number `after`: one durable
    statement, an audit event for each. `recorded_before` None: also what is recorded at this moment.

    Returns how many, and the last that was looked at; None: none is left.
    """
    row = await database.fetchrow_durably(
        f"""WITH found AS (
                SELECT c.serial, c.reason AS before FROM certificate c
                WHERE c.serial > $18 AND {_MATCHING} ORDER BY c.serial LIMIT $13 FOR UPDATE OF c
            ), gone AS (
                UPDATE certificate c SET revoked = coalesce(c.revoked, $10), reason = $11, status_changed = $10,
                    comment = coalesce($14, c.comment)
                FROM found WHERE c.serial = found.serial
                RETURNING c.serial, c.issuer_id, c.shard, c.spki_sha256, found.before
            ), ended AS (
                UPDATE account SET status = 'revoked'
                WHERE $11 = 1 AND status = 'valid' AND spki_sha256 IN (SELECT spki_sha256 FROM gone) RETURNING id
            ), due AS (
                INSERT INTO crl_due (issuer_id, shard, at) SELECT DISTINCT issuer_id, shard, $10::timestamptz FROM gone
            ), told AS (
                INSERT INTO audit_event (at, event, actor, source, object, detail)
                SELECT $10, $15, $16, $17, 'certificate:' || serial, json_strip_nulls(json_build_object(
                    'before', before, 'reason', $11::smallint, 'comment', $14::text)) FROM gone
                UNION ALL
                SELECT $10, 'account.revoked', $16, $17, 'account:' || id,
                       json_build_object('why', 'its key is compromised') FROM ended
            )
            SELECT (SELECT count(*) FROM gone) AS number, max(serial) AS last FROM found""",
        *wanted.parameters,
        now,
        reason,
        recorded_before,
        limit,
        comment,
        "certificate.held" if reason is revocation.HOLD else "certificate.revoked",
        actor.name,
        actor.source,
        after,
    )
    assert row is not None, "an aggregate gives a row"  # noqa: S101
    return row["number"], row["last"]
