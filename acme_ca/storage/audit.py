"""What an auditor reads: certificates with all that they were issued on, a batch at a time, oldest first; and each CRL
with what it has to list.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography import x509

from acme_ca.core.crl import Entry
from acme_ca.core.crl import Scope as CrlScope
from acme_ca.core.ids import AccountId, AuthorizationId, IssuerId, OrderId, ScopeId, Serial, serial_text
from acme_ca.core.profiles import ProfileRef
from acme_ca.storage import details
from acme_ca.storage.crls import IS_EXPECTED, is_finished, is_signed_by, scope_of
from acme_ca.storage.database import Database, Row, from_json
from acme_ca.storage.details import IS_PLAIN, MAY_BE_UNREADABLE
from acme_ca.storage.issuers import COLUMNS_BUT_TIMES, TIMES, IssuerRecord, record_of
from acme_ca.storage.times import known, unbounded, within

CERTIFICATE_BATCH = 500
ORDER_BATCH = 20_000
EVENT_BATCH = 20_000
"""Rows that one statement looks at."""
BEFORE_EVENTS = -(2**63)
"""Behind it are all audit events, those too whose ids somebody chose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Certificates recorded from `since` on and before `until`; of one issuer, or (None) of all."""

    since: datetime
    until: datetime
    issuer: IssuerId | None


@dataclass(frozen=True, slots=True)
class ValidationRecord:
    """One validation that succeeded."""

    account_id: AccountId
    identifier: str
    challenge: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ScopeRecord:
    """What an administrator approved. `is_theirs`: for the account of the authorization, or its EAB key."""

    id: ScopeId
    rule: str
    reason: str
    approved_by: str
    created: datetime
    expires: datetime
    revoked: datetime | None
    is_theirs: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRecord:
    id: AuthorizationId
    account_id: AccountId
    identifier: str
    status: str
    challenge: str | None
    validated: datetime | None
    expires: datetime
    validations: tuple[ValidationRecord, ...]
    scope: ScopeRecord | None = None
    """It was born valid, because of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRecord:
    account_id: AccountId
    status: str
    identifiers: tuple[str, ...]
    authorizations: tuple[AuthorizationId, ...]
    created: datetime
    expires: datetime
    not_before: datetime | None
    not_after: datetime | None
    profile: ProfileRef
    issuer: IssuerId
    serial: Serial | None


@dataclass(frozen=True, slots=True)
class EventRecord:
    """`detail`: nothing where it is no JSON object that can be read."""

    event: str
    at: datetime
    actor: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRecord:
    """A certificate's row, and what the database knows beside it. `order` None: there is none, or not any more."""

    serial: Serial
    issuer: IssuerId
    account_id: AccountId | None
    order_id: OrderId | None
    requested_by: str | None
    """The operator who had it issued, where no order asked for it."""
    profile: ProfileRef
    identifiers: tuple[str, ...]
    """As the row spells them."""
    spki_sha256: bytes = field(repr=False)
    not_before: datetime
    not_after: datetime
    shard: int
    recorded: datetime
    der: bytes | None = field(repr=False)
    revoked: datetime | None
    reason: int | None
    invalid_since: datetime | None
    order: OrderRecord | None
    authorizations: tuple[AuthorizationRecord, ...]
    """Those of the order that are there."""
    events: tuple[EventRecord, ...]
    """Audit events of the certificate, in their order."""
    account_key_since: datetime | None
    """Since when an account has the certificate's key."""
    compromised_since: datetime | None
    """Since when another certificate with the key counts as compromised."""
    blocked_since: datetime | None
    """Since when the key is on the block list."""


# Everything behind `c` is a look-up by key, whatever the planner thinks of the sizes (OFFSET 0). Ids are COLLATE "C", which
# the index of the audit events' objects is not.
_CERTIFICATES = f"""
    SELECT c.*, o.*, z.authorizations, e.events, a.account_key_since, k.compromised_since, b.blocked_since FROM (
        SELECT serial, issuer_id, account_id, order_id, requested_by, profile, profile_version, identifiers, spki_sha256,
               {unbounded("not_before")} AS not_before, {unbounded("not_after")} AS not_after, shard, recorded, der,
               {unbounded("revoked")} AS revoked, reason, {unbounded("invalid_since")} AS invalid_since
        FROM certificate
        WHERE (recorded, serial) > ($1, $2) AND recorded < $3 AND ($4::text IS NULL OR issuer_id = $4)
        ORDER BY recorded, serial LIMIT {CERTIFICATE_BATCH}
    ) c
    LEFT JOIN LATERAL (
        SELECT account_id AS order_account, status AS order_status, identifiers AS order_identifiers, authzs,
               {unbounded("created")} AS order_created, {unbounded("expires")} AS order_expires,
               {unbounded("not_before")} AS wished_not_before, {unbounded("not_after")} AS wished_not_after,
               profile AS order_profile, profile_version AS order_profile_version,
               issuer_id AS order_issuer, serial AS order_serial
        FROM orders WHERE id = c.order_id OFFSET 0
    ) o ON true
    LEFT JOIN LATERAL (
        SELECT array_agg(ROW(id, account_id, identifier, status, challenge, {unbounded("validated")}, {unbounded("expires")}, (
                   SELECT array_agg(ROW(v.account_id, v.identifier, v.challenge, {unbounded("v.at")}) ORDER BY v.id)
                   FROM validation v WHERE v.authz_id = authz.id AND v.error IS NULL), (
                   SELECT ROW(p.id, p.rule, p.reason, p.approved_by, {unbounded("p.created")}, {unbounded("p.expires")},
                              {unbounded("p.revoked")}, p.account_id = authz.account_id OR p.eab_key_id = holder.eab_key_id)
                   FROM approved_scope p, account holder WHERE p.id = authz.scope_id AND holder.id = authz.account_id
                   ))) AS authorizations
        FROM authz WHERE id = ANY (o.authzs)
    ) z ON true
    LEFT JOIN LATERAL (
        SELECT array_agg(ROW(event, {unbounded("at")}, actor, detail) ORDER BY id) AS events FROM audit_event
        WHERE object = ('certificate:' || c.serial) COLLATE "default"
    ) e ON true
    LEFT JOIN LATERAL (
        SELECT {unbounded("since")} AS account_key_since FROM (
            SELECT coalesce((SELECT max(at) FROM audit_event WHERE event = 'account.key-changed'
                               AND object = ('account:' || holder.id) COLLATE "default"), created) AS since
            FROM account holder WHERE spki_sha256 = c.spki_sha256 OFFSET 0
        ) h
    ) a ON true
    LEFT JOIN LATERAL (
        SELECT {unbounded("min(status_changed)")} AS compromised_since FROM certificate
        WHERE spki_sha256 = c.spki_sha256 AND reason = 1 AND serial <> c.serial
    ) k ON true
    LEFT JOIN LATERAL (
        SELECT {unbounded("created")} AS blocked_since FROM blocked_key WHERE spki_sha256 = c.spki_sha256 OFFSET 0
    ) b ON true
    ORDER BY c.recorded, c.serial"""


async def certificates(
    database: Database, scope: Scope, *, after: tuple[datetime, str]
) -> list[CertificateRecord]:
    """The next batch behind (recorded, serial) `after`; empty: that was all."""
    rows = await database.fetch(_CERTIFICATES, *after, scope.until, scope.issuer)
    return [_certificate_of(row) for row in rows]


async def count(database: Database, scope: Scope, *, after: tuple[datetime, str]) -> int:
    """How many certificates `certificates` will give."""
    number: int = await database.fetchval(
        """SELECT count(*) FROM certificate
           WHERE (recorded, serial) > ($1, $2) AND recorded < $3 AND ($4::text IS NULL OR issuer_id = $4)""",
        *after,
        scope.until,
        scope.issuer,
    )
    return number


async def recorded_out_of_time(database: Database, *, after: datetime) -> list[Serial]:
    """Certificates that no scope comes to: recorded `after` a time that is not yet, or before 1970."""
    rows = await database.fetch(
        "SELECT serial FROM certificate WHERE recorded > $1 OR recorded < 'epoch' ORDER BY serial", after
    )
    return [row["serial"] for row in rows]


async def complete_since(database: Database) -> datetime | None:
    """Since when no evidence was deleted; None: none ever was."""
    since: datetime | None = await database.fetchval(
        f"SELECT {unbounded('complete_since')} AS since FROM evidence"
    )
    return since


async def valid_without_certificate(
    database: Database, scope: Scope, *, after: str
) -> tuple[OrderId | None, list[OrderId]]:
    """Valid orders of the scope that no certificate names. Looks at the ORDER_BATCH ids behind `after`; gives the last
    of these, too (None: there are no more).
    """
    row = await database.fetchrow(
        """WITH batch AS (SELECT id, status, created, issuer_id FROM orders WHERE id > $1 ORDER BY id LIMIT $2)
           SELECT (SELECT max(id) FROM batch) AS last, array(
               SELECT id FROM batch WHERE status = 'valid' AND created >= $3 AND created < $4
                 AND ($5::text IS NULL OR issuer_id = $5)
                 AND NOT EXISTS (SELECT FROM certificate WHERE order_id = batch.id) ORDER BY id) AS lost""",
        after,
        ORDER_BATCH,
        scope.since,
        scope.until,
        scope.issuer,
    )
    assert row is not None, "a SELECT without FROM gives a row"  # noqa: S101
    return row["last"], list(row["lost"])


async def issued_without_row(database: Database, scope: Scope, *, after: int) -> tuple[int | None, list[str]]:
    """Objects of audit events of the scope's time that tell of certificates which are not there. Looks at the EVENT_BATCH
    events behind `after`; gives the id of the last of these, too (None: there were fewer, so no more follow).
    """
    # Each certificate is a look-up by key, whatever the planner thinks of the sizes (OFFSET 0).
    row = await database.fetchrow(
        f"""WITH batch AS (SELECT id, event, at, object FROM audit_event WHERE id > $1 ORDER BY id LIMIT {EVENT_BATCH:d})
           SELECT (SELECT max(id) FROM batch HAVING count(*) = {EVENT_BATCH:d}) AS last, array(
               SELECT object FROM batch WHERE event = 'certificate.issued' AND at >= $2 AND at < $3 AND NOT EXISTS (
                   SELECT FROM certificate c WHERE c.serial = substr(batch.object, 13) AND c.der IS NOT NULL OFFSET 0)
               ORDER BY id) AS lost""",
        after,
        scope.since,
        scope.until,
    )
    assert row is not None, "a SELECT without FROM gives a row"  # noqa: S101
    return row["last"], list(row["lost"])


async def unreadable_events(database: Database, *, after: int, until: int | None) -> list[tuple[int, str]]:
    """Audit events, by id and object, whose time no calendar has, or whose detail is nothing that can be read: of those
    behind `after`, up to `until` (None: to the last).
    """
    rows = await database.fetch(
        f"""SELECT id, object, {known("at")} IS NULL AS is_odd, detail::text AS detail FROM audit_event
            WHERE id > $1 AND ($2::bigint IS NULL OR id <= $2) AND ({known("at")} IS NULL OR {MAY_BE_UNREADABLE})
            ORDER BY id""",
        after,
        until,
    )
    return [
        (row["id"], row["object"]) for row in rows if row["is_odd"] or not details.is_readable(row["detail"])
    ]


# ---------------------------------------------------------------- CA certificates and profiles


_ISSUER_TIMES = ", ".join(f"{unbounded(time)} AS {time}" for time in TIMES)


async def issuers(database: Database) -> list[tuple[IssuerRecord, tuple[EventRecord, ...]]]:
    """With their audit events, in their order."""
    rows = await database.fetch(
        f"""SELECT {COLUMNS_BUT_TIMES}, {_ISSUER_TIMES},
                   (SELECT array_agg(ROW(event, {unbounded("at")}, actor, detail) ORDER BY e.id) FROM audit_event e
                    WHERE object = ('issuer:' || issuer.id) COLLATE "default") AS events
            FROM issuer ORDER BY issuer.created, id"""
    )
    return [
        (record_of({name: value for name, value in row.items() if name != "events"}), _events_of(row))
        for row in rows
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredProfile:
    """A version of a profile, unread. `told`: of what the audit says was saved as this version, the SHA-256."""

    ref: ProfileRef
    body: Any
    sha256: str
    told: tuple[str | None, ...]


async def profiles(database: Database) -> list[StoredProfile]:
    rows = await database.fetch(
        """SELECT name, version, body, encode(sha256(convert_to(body::text, 'UTF8')), 'hex') AS sha256, array(
               SELECT detail::text FROM audit_event
               WHERE object = ('profile:' || name) COLLATE "default" AND event = 'profile.saved' ORDER BY id) AS told
           FROM profile ORDER BY name, version"""
    )
    return [
        StoredProfile(
            ref=ProfileRef.model_construct(name=row["name"], version=row["version"]),
            body=from_json(row["body"]),
            sha256=row["sha256"],
            told=tuple(_saved(row["told"], row["version"])),
        )
        for row in rows
    ]


def _saved(told: Iterable[str], version: int) -> Iterator[str | None]:
    for detail in map(details.members, told):
        if detail.get("version") == version:
            yield str(detail["sha256"]) if "sha256" in detail else None


# ---------------------------------------------------------------- CRLs


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCrl:
    """The newest CRL of a shard."""

    number: int
    this_update: datetime
    next_update: datetime
    entries: int
    der: bytes = field(repr=False)
    delta: bytes | None = field(repr=False)
    urls: tuple[str, ...]
    base_number: int
    base: bytes = field(repr=False)
    """What the base lists (`core.crl.pack`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """A shard, and what the database knows beside it. `crl` None: there is none yet."""

    issuer: IssuerId
    shard: int
    about: CrlScope
    is_expected: bool
    """The CRL is to be had here: not that of a root that is another's to keep."""
    is_finished: bool
    """All of it has expired, and was listed once more."""
    created: datetime
    """The issuer."""
    crl: StoredCrl | None
    listing: tuple[Entry, ...]
    """What the CRL must list."""
    changed: Mapping[Serial, datetime]
    """When the status of a certificate of the shard last changed, of those that were ever revoked."""
    wishes: frozenset[datetime]
    """Changes that no CRL has taken up yet, and operators' wishes for one."""
    steps_back: int
    """How often the audit tells of a CRL whose number is not above the last."""
    published_sha256: str | None
    """Of the newest CRL that the audit tells of."""


# One statement, so that a CRL, its wishes and the revocations are of the same moment.
_SHARD = f"""
    SELECT i.*, c.*, {IS_EXPECTED} AS is_expected, {is_finished("$3")} AS is_finished, w.wishes, l.leaves, a.cas, e.steps_back, e.published_sha256 FROM (
        SELECT id AS issuer_id, id, shard, kind, {unbounded("created")} AS created, der AS issuer_der, key_uri
        FROM issuer CROSS JOIN LATERAL generate_series(0, open_shard) AS s (shard)
        WHERE kind <> 'cross' AND not_after > $3 AND (id, shard) > ($1, $2) AND id = ANY ($4)
        ORDER BY id, shard LIMIT 1
    ) i
    LEFT JOIN LATERAL (
        SELECT number, {unbounded("this_update")} AS this_update, {unbounded("next_update")} AS next_update, entries, der, delta,
               urls, base_number, base, {unbounded("lists_after")} AS lists_after, {unbounded("ends")} AS ends FROM crl
        WHERE issuer_id = i.issuer_id AND shard = i.shard
    ) c ON true
    LEFT JOIN LATERAL (
        SELECT array_agg({within("at")}) AS wishes FROM crl_due WHERE issuer_id = i.issuer_id AND shard = i.shard
    ) w ON true
    LEFT JOIN LATERAL (
        SELECT array_agg(ROW(serial, {within("revoked")}, reason, {known("invalid_since")}, {within("status_changed")})) AS leaves
        FROM certificate
        WHERE issuer_id = i.issuer_id AND shard = i.shard AND status_changed IS NOT NULL AND not_after > c.lists_after
          AND i.kind <> 'root'
    ) l ON true
    LEFT JOIN LATERAL (
        SELECT array_agg(ROW(der, {within("revoked")}, reason)) AS cas FROM issuer
        WHERE {is_signed_by("i.issuer_id")} AND revoked IS NOT NULL AND not_after > c.lists_after AND i.shard = 0
    ) a ON true
    LEFT JOIN LATERAL (
        SELECT count(*) FILTER (WHERE number <= before) AS steps_back,
               (array_agg(sha256 ORDER BY id DESC))[1] AS published_sha256
        FROM (
            SELECT id, detail ->> 'sha256' AS sha256, number, lag(number) OVER (ORDER BY id) AS before
            FROM (
                SELECT id, object, CASE WHEN {IS_PLAIN} THEN detail END AS detail FROM audit_event
            ) event, LATERAL (
                SELECT CASE WHEN detail ->> 'number' ~ '^[0-9]{{1,18}}$' THEN (detail ->> 'number')::bigint END AS number
            ) read
            WHERE object = ('crl:' || i.issuer_id || '/' || i.shard) COLLATE "default"
        ) told
    ) e ON true"""


async def shard(
    database: Database, issuers: Collection[IssuerId], *, after: tuple[str, int], now: datetime
) -> ShardRecord | None:
    """The next shard behind (issuer, shard) `after` of one of the issuers that has not expired; None: that was all."""
    row = await database.fetchrow(_SHARD, *after, now, issuers)
    return _shard_of(row) if row is not None else None


def _shard_of(row: Row) -> ShardRecord:
    leaves, cas = row["leaves"] or (), row["cas"] or ()
    return ShardRecord(
        issuer=row["issuer_id"],
        shard=row["shard"],
        about=scope_of(row["kind"], row["issuer_der"], row["shard"]),
        is_expected=row["is_expected"],
        is_finished=row["is_finished"],
        created=row["created"],
        crl=_crl_of(row) if row["number"] is not None else None,
        listing=(
            *(
                Entry(serial, _second(revoked), reason, _second(since) if since else None)
                for serial, revoked, reason, since, _ in leaves
                if revoked is not None
            ),
            *(
                Entry(serial, _second(revoked), reason)
                for der, revoked, reason in cas
                for serial in _serials(der)
            ),
        ),
        changed={leaf[0]: leaf[-1] for leaf in leaves},
        wishes=frozenset(row["wishes"] or ()),
        steps_back=row["steps_back"],
        published_sha256=row["published_sha256"],
    )


def _crl_of(row: Row) -> StoredCrl:
    return StoredCrl(
        number=row["number"],
        this_update=row["this_update"],
        next_update=row["next_update"],
        entries=row["entries"],
        der=row["der"],
        delta=row["delta"],
        urls=tuple(row["urls"]),
        base_number=row["base_number"],
        base=row["base"],
    )


def _second(time: datetime) -> datetime:
    return time.replace(microsecond=0)


def _serials(der: bytes) -> tuple[Serial, ...]:
    """Of a CA certificate; none where the row's bytes are not one."""
    try:
        return (serial_text(x509.load_der_x509_certificate(der).serial_number),)
    except ValueError:
        return ()


# ---------------------------------------------------------------- rows to values


def _certificate_of(row: Row) -> CertificateRecord:
    return CertificateRecord(
        serial=row["serial"],
        issuer=row["issuer_id"],
        account_id=row["account_id"],
        order_id=row["order_id"],
        requested_by=row["requested_by"],
        profile=ProfileRef.model_construct(name=row["profile"], version=row["profile_version"]),
        identifiers=tuple(row["identifiers"]),
        spki_sha256=row["spki_sha256"],
        not_before=row["not_before"],
        not_after=row["not_after"],
        shard=row["shard"],
        recorded=row["recorded"],
        der=row["der"],
        revoked=row["revoked"],
        reason=row["reason"],
        invalid_since=row["invalid_since"],
        order=_order_of(row) if row["order_status"] is not None else None,
        authorizations=tuple(map(_authorization_of, row["authorizations"] or ())),
        events=_events_of(row),
        account_key_since=row["account_key_since"],
        compromised_since=row["compromised_since"],
        blocked_since=row["blocked_since"],
    )


def _order_of(row: Row) -> OrderRecord:
    return OrderRecord(
        account_id=row["order_account"],
        status=row["order_status"],
        identifiers=tuple(row["order_identifiers"]),
        authorizations=tuple(row["authzs"]),
        created=row["order_created"],
        expires=row["order_expires"],
        not_before=row["wished_not_before"],
        not_after=row["wished_not_after"],
        profile=ProfileRef.model_construct(name=row["order_profile"], version=row["order_profile_version"]),
        issuer=row["order_issuer"],
        serial=row["order_serial"],
    )


def _events_of(row: Row) -> tuple[EventRecord, ...]:
    return tuple(map(_event_of, row["events"] or ()))


def _event_of(columns: tuple[Any, ...]) -> EventRecord:
    event, at, actor, detail = columns
    return EventRecord(event, at, actor, details.members(detail))


def _authorization_of(columns: tuple[Any, ...]) -> AuthorizationRecord:
    id_, account, identifier, status, challenge, validated, expires, validations, scope = columns
    return AuthorizationRecord(
        id=id_,
        account_id=account,
        identifier=identifier,
        status=status,
        challenge=challenge,
        validated=validated,
        expires=expires,
        validations=tuple(ValidationRecord(*validation) for validation in validations or ()),
        scope=ScopeRecord(*scope) if scope is not None else None,
    )
