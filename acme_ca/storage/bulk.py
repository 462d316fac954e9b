"""Taking back many certificates: those that a filter finds, in batches, each its own transaction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from acme_ca.core import revocation
from acme_ca.core.actors import Actor
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AccountId, EabKeyId, IssuerId, Serial
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.services import ServiceId
from acme_ca.storage.database import Database, Row
from acme_ca.storage.search import Condition, Statement, whole

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
        return not [*_wanted(self)]


def _wanted(wanted: Filter) -> Iterator[Condition]:
    for column, value in (
        ("service", wanted.service),
        ("issuer_id", wanted.issuer),
        ("account_id", wanted.account),
        ("profile", wanted.profile),
        ("spki_sha256", wanted.key_sha256),
    ):
        if value is not None:
            yield Condition(column, f"c.{column} = {{}}", (value,))
    if (name := wanted.name) is not None:
        text = "c.words @@ {}::tsquery AND c.identifiers @> {}"
        yield Condition("name", text, (whole(f"={name.value}"), [str(name)]))
    if wanted.eab_key is not None:
        text = "c.account_id IN (SELECT id FROM account WHERE eab_key_id = {})"
        yield Condition("eab_key", text, (wanted.eab_key,))
    if wanted.issued_from is not None:
        yield Condition("recorded", "c.recorded >= {}", (wanted.issued_from,))
    if wanted.issued_before is not None:
        yield Condition("recorded", "c.recorded < {}", (wanted.issued_before,))


def _matching(
    wanted: Filter, *, reason: RevocationReason, recorded_before: datetime | None, now: datetime
) -> list[Condition]:
    """What has not expired and was not revoked for good: what can still be taken back for the reason."""
    open_ = "c.revoked IS NULL" if reason is revocation.HOLD else "(c.revoked IS NULL OR c.reason = 6)"
    conditions = [*_wanted(wanted), Condition("not_after", f"c.not_after > {{}} AND {open_}", (now,))]
    if recorded_before is not None:
        conditions.append(Condition("recorded", "c.recorded < {}", (recorded_before,)))
    return conditions


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a filter finds. `digest`: the SHA-256 of all serial numbers in their order, 64 hexadecimal digits."""

    count: int
    digest: str
    sample: tuple[tuple[Serial, tuple[str, ...]], ...]
    """The oldest of them, with their names."""


async def select(database: Database, wanted: Filter, *, reason: RevocationReason, now: datetime) -> Selection:
    """What `revoke_batch` would take back for this reason, of what was recorded before `now`."""
    statement = Statement(SAMPLE)
    found = statement.where(_matching(wanted, reason=reason, recorded_before=now, now=now))
    [row] = await database.search(
        f"""WITH found AS MATERIALIZED (
                SELECT c.serial, c.identifiers, c.recorded FROM certificate c WHERE {found}
            ), sample AS (
                SELECT serial, identifiers FROM found ORDER BY recorded, serial LIMIT $1
            )
            SELECT count(*) AS number,
                   encode(sha256(convert_to(coalesce(string_agg(serial, ',' ORDER BY serial), ''), 'UTF8')), 'hex') AS digest,
                   (SELECT array_agg(ROW(serial, identifiers)) FROM sample) AS sample FROM found""",
        *statement.values,
    )
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
    statement = Statement(
        now,
        reason,
        comment,
        "certificate.held" if reason is revocation.HOLD else "certificate.revoked",
        actor.name,
        actor.source,
        after,
        limit,
    )
    matching = statement.where(_matching(wanted, reason=reason, recorded_before=recorded_before, now=now))
    row = await database.change(
        f"""WITH found AS (
                SELECT c.serial, c.reason AS before FROM certificate c
                WHERE c.serial > $7 AND {matching} ORDER BY c.serial LIMIT $8 FOR UPDATE OF c
            ), gone AS (
                UPDATE certificate c SET revoked = coalesce(c.revoked, $1), reason = $2, status_changed = $1,
                    comment = coalesce($3, c.comment)
                FROM found WHERE c.serial = found.serial
                RETURNING c.serial, c.issuer_id, c.shard, c.spki_sha256, found.before
            ), ended AS (
                UPDATE account SET status = 'revoked'
                WHERE $2 = 1 AND status = 'valid' AND spki_sha256 IN (SELECT spki_sha256 FROM gone) RETURNING id
            ), due AS (
                INSERT INTO crl_due (issuer_id, shard, at) SELECT DISTINCT issuer_id, shard, $1::timestamptz FROM gone
            ), told AS (
                INSERT INTO audit_event (at, event, actor, source, object, detail)
                SELECT $1, $4, $5, $6, 'certificate:' || serial, json_strip_nulls(json_build_object(
                    'before', before, 'reason', $2::smallint, 'comment', $3::text)) FROM gone
                UNION ALL
                SELECT $1, 'account.revoked', $5, $6, 'account:' || id,
                       json_build_object('why', 'its key is compromised') FROM ended
            )
            SELECT (SELECT count(*) FROM gone) AS number, max(serial) AS last FROM found""",
        *statement.values,
    )
    assert row is not None, "an aggregate gives a row"  # noqa: S101
    return row["number"], row["last"]
