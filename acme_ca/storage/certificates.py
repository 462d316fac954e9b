"""Certificates: recorded, then signed and stored, perhaps revoked. Never deleted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from acme_ca.core import revocation
from acme_ca.core.actors import Actor
from acme_ca.core.certificates import (
    Certificate,
    CertificateStatus,
    LintedCertificate,
    RecordedCertificate,
    SignedCertificate,
)
from acme_ca.core.identifiers import Identifier, search_words
from acme_ca.core.ids import Serial
from acme_ca.core.profiles import ProfileRef
from acme_ca.core.renewal import SuggestedWindow
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.services import ServiceId
from acme_ca.core.times import LAST
from acme_ca.storage import keys
from acme_ca.storage.database import Database, Row
from acme_ca.storage.times import known, within

_BUT_TIMES = """
    c.serial, c.issuer_id, c.account_id AS certificate_account, c.identifiers, c.der, c.profile, c.profile_version, c.shard,
    c.reason, c.comment, c.explanation_url, c.service, c.requested_by"""
AS_STORED = (
    f"""{_BUT_TIMES}, c.not_before, c.not_after, c.revoked, c.invalid_since, c.window_start, c.window_end"""
)
"""For downloads, which every order ends with and which tell none of the times."""
COLUMNS = f"""{_BUT_TIMES}, {within("c.not_before")} AS not_before, {within("c.not_after")} AS not_after,
    {within("c.revoked")} AS revoked, {known("c.invalid_since")} AS invalid_since,
    {within("c.window_start", since="0001-01-02")} AS window_start, {within("c.window_end", since="0001-01-02")} AS window_end"""


def certificate_of(row: Row) -> Certificate:
    moved = None
    if row["window_start"] is not None:
        moved = SuggestedWindow(start=row["window_start"], end=row["window_end"])
    return Certificate(
        serial=row["serial"],
        issuer=row["issuer_id"],
        account_id=row["certificate_account"],
        identifiers=tuple(map(Identifier.from_text, row["identifiers"])),
        profile=ProfileRef(name=row["profile"], version=row["profile_version"]),
        shard=row["shard"],
        der=row["der"],
        not_before=row["not_before"],
        not_after=row["not_after"],
        revoked=row["revoked"],
        reason=None if row["reason"] is None else RevocationReason(row["reason"]),
        invalid_since=row["invalid_since"],
        comment=row["comment"],
        moved=moved,
        explanation_url=row["explanation_url"],
        service=row["service"],
        requested_by=row["requested_by"],
    )


async def store(
    database: Database, certificate: SignedCertificate, *, now: datetime, source: str = ""
) -> bool:
    """Keep what was signed and make its order `valid`: one durable statement, with the audit event.

    `source`: the address that asked for it. False: it is stored already (a sweep and the request met).
    """
    row = await database.fetchrow_durably(
        """WITH stored AS (
               UPDATE certificate SET der = $2, tbs = NULL WHERE serial = $1 AND der IS NULL
               RETURNING serial, order_id, account_id, identifiers, requested_by
           ), done AS (
               UPDATE orders SET status = 'valid' WHERE id = (SELECT order_id FROM stored) AND status = 'processing'
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $3, 'certificate.issued', coalesce('account:' || account_id, requested_by, 'server'), $4, 'certificate:' || serial,
                  json_build_object('order', order_id, 'identifiers', identifiers) FROM stored RETURNING true""",
        certificate.serial,
        certificate.der,
        now,
        source,
    )
    return row is not None


async def is_revoked(database: Database, serial: Serial) -> bool:
    """Or on hold."""
    found: bool | None = await database.fetchval(
        "SELECT revoked IS NOT NULL FROM certificate WHERE serial = $1", serial
    )
    return found is True


async def record_own(
    database: Database, certificate: LintedCertificate, *, spki_sha256: bytes, now: datetime
) -> RecordedCertificate:
    """Write down a certificate for the server itself, which no order asks for, before it is signed."""
    await database.fetchrow_durably(
        f"""INSERT INTO certificate ({_RECORDED})
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, array_to_tsvector($12::text[])) RETURNING true""",
        *_row(certificate, spki_sha256=spki_sha256, now=now),
    )
    return _recorded(certificate)


async def record_for_operator(
    database: Database,
    certificate: LintedCertificate,
    *,
    spki_sha256: bytes,
    service: ServiceId | None,
    requested_by: str,
    now: datetime,
) -> RecordedCertificate | None:
    """Write down a certificate that an operator asks for, before it is signed; only while its issuer is active, its
    profile not withdrawn, the service approved, and the key belongs to no account, is not blocked and was not revoked
    as compromised. None: one of these does not hold (any more).
    """
    row = await database.fetchrow_durably(
        f"""INSERT INTO certificate ({_RECORDED}, service, requested_by)
            SELECT $1, i.id, $3, $4, $5, $6, $7, $8, $9, $10, $11, array_to_tsvector($12::text[]), $13, $14 FROM issuer i
            WHERE i.id = $2 AND i.state = 'active' AND i.revoked IS NULL
              AND NOT EXISTS (SELECT FROM profile p WHERE p.name = $3 AND p.withdrawn IS NOT NULL)
              AND ($13::text IS NULL OR EXISTS (SELECT FROM service s WHERE s.id = $13 AND s.state = 'approved' FOR SHARE))
              AND NOT EXISTS (SELECT FROM account WHERE spki_sha256 = $6) AND NOT {keys.REFUSED.format("$6")}
            RETURNING true""",
        *_row(certificate, spki_sha256=spki_sha256, now=now),
        service,
        requested_by,
    )
    return None if row is None else _recorded(certificate)


_RECORDED = """serial, issuer_id, profile, profile_version, identifiers, spki_sha256, not_before, not_after, recorded, tbs,
               shard, words"""


def _row(certificate: LintedCertificate, *, spki_sha256: bytes, now: datetime) -> tuple[Any, ...]:
    """What the columns of _RECORDED get."""
    prepared = certificate.prepared
    request = prepared.request
    return (
        prepared.serial,
        request.issuer,
        request.profile.name,
        request.profile.version,
        [str(identifier) for identifier in request.identifiers],
        spki_sha256,
        prepared.not_before,
        prepared.not_after,
        now,
        prepared.tbs,
        request.shard,
        search_words(request.identifiers),
    )


def _recorded(certificate: LintedCertificate) -> RecordedCertificate:
    prepared = certificate.prepared
    return RecordedCertificate(serial=prepared.serial, issuer=prepared.request.issuer, tbs=prepared.tbs)


async def leave_unsigned(database: Database, serial: Serial, *, actor: Actor, now: datetime) -> None:
    """The signature could not be had, and nobody will try again: the audit tells of it. A key store may have signed and
    not been heard, so what was recorded stays and can be revoked.
    """
    await database.fetchrow_durably(
        """INSERT INTO audit_event (at, event, actor, source, object)
           SELECT $2, 'certificate.unsigned', $3, $4, 'certificate:' || serial
           FROM certificate WHERE serial = $1 AND der IS NULL RETURNING true""",
        serial,
        now,
        actor.name,
        actor.source,
    )


async def newest_of_service(database: Database, service: ServiceId, *, now: datetime) -> list[Certificate]:
    """Of each set of names the newest certificate that the service has, signed, and neither expired nor revoked."""
    rows = await database.fetch(
        f"""SELECT DISTINCT ON (c.identifiers, c.profile) {COLUMNS} FROM certificate c
            WHERE c.service = $1 AND c.der IS NOT NULL AND c.not_after > $2 AND c.revoked IS NULL
            ORDER BY c.identifiers, c.profile, c.recorded DESC""",
        service,
        now,
    )
    return [certificate_of(row) for row in rows]


async def of_service(
    database: Database, service: str, *, before: tuple[datetime, str] | None, limit: int
) -> list[tuple[datetime, Certificate]]:
    """Those of a service with their times of recording, newest first, `before` this time and serial number: the time that
    the certificate has, which somebody may have made one that no cursor can tell.
    """
    rows = await database.fetch(
        f"""SELECT {COLUMNS}, {within("c.recorded")} AS recorded FROM certificate c
            WHERE c.service = $1
              AND (c.recorded, c.serial) < (coalesce((SELECT recorded FROM certificate WHERE serial = $3), $2), $3)
            ORDER BY c.recorded DESC, c.serial DESC LIMIT $4""",
        service,
        *(before or (LAST, _BEHIND_ALL)),
        limit,
    )
    return [(row["recorded"], certificate_of(row)) for row in rows]


_BEHIND_ALL = "g"
"""No serial number, which has hexadecimal digits, sorts behind it."""


async def find(database: Database, serial: Serial) -> Certificate | None:
    row = await database.fetchrow(f"SELECT {COLUMNS} FROM certificate c WHERE c.serial = $1", serial)
    return certificate_of(row) if row else None


async def living_with_keys(
    database: Database, spki_sha256s: Sequence[bytes], *, now: datetime
) -> list[Certificate]:
    """Certificates that hold one of these keys, have not expired, and are not revoked or on hold only; oldest first."""
    rows = await database.fetch(
        f"""SELECT {COLUMNS} FROM certificate c
            WHERE c.spki_sha256 = ANY ($1) AND c.not_after > $2 AND (c.revoked IS NULL OR c.reason = 6)
            ORDER BY c.recorded, c.serial""",
        spki_sha256s,
        now,
    )
    return [certificate_of(row) for row in rows]


async def statuses(database: Database, serials: Collection[Serial]) -> dict[Serial, CertificateStatus]:
    """Of those serial numbers that were ever recorded."""
    rows = await database.fetch(
        f"""SELECT serial, issuer_id, der IS NOT NULL AS signed, {within("revoked")} AS revoked, reason,
                  {within("status_changed")} AS status_changed
           FROM certificate WHERE serial = ANY ($1)""",
        serials,
    )
    return {row["serial"]: _status_of(row) for row in rows}


def _status_of(row: Row) -> CertificateStatus:
    return CertificateStatus(
        issuer=row["issuer_id"],
        signed=row["signed"],
        revoked=row["revoked"],
        reason=None if row["reason"] is None else RevocationReason(row["reason"]),
        changed=row["status_changed"],
    )


async def revoke(
    database: Database,
    serial: Serial,
    *,
    reason: RevocationReason,
    actor: Actor,
    now: datetime,
    invalid_since: datetime | None = None,
    comment: str | None = None,
) -> bool:
    """Take a certificate back, put it on hold, or give it a graver reason, as REASONS_AFTER allows; its CRL shard is due
    then. It stays revoked since the first of these. A key that is compromised is no account's any more: the account that
    has it ends in the same statement. False: there is no such certificate, or no such way from its reason.
    """
    before = revocation.origins(reason)
    row = await database.fetchrow_durably(
        """WITH gone AS (
               UPDATE certificate c SET revoked = coalesce(revoked, $2), reason = $3, status_changed = $2,
                   invalid_since = coalesce($6, invalid_since), comment = coalesce($7, comment)
               FROM (SELECT serial, reason AS before FROM certificate WHERE serial = $1 FOR UPDATE) was
               WHERE c.serial = was.serial AND (reason = ANY ($4) OR (reason IS NULL AND $5))
               RETURNING c.serial, issuer_id, shard, spki_sha256, before
           ), ended AS (
               UPDATE account SET status = 'revoked' FROM gone
               WHERE $3 = 1 AND account.spki_sha256 = gone.spki_sha256 AND status = 'valid' RETURNING id
           ), due AS (
               INSERT INTO crl_due (issuer_id, shard, at) SELECT issuer_id, shard, $2 FROM gone
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $2, $8, $9, $10, 'certificate:' || serial,
                  json_strip_nulls(json_build_object('before', before, 'reason', $3::smallint, 'invalid_since', $6::timestamptz, 'comment', $7::text))
           FROM gone
           UNION ALL
           SELECT $2, 'account.revoked', $9, $10, 'account:' || id, json_build_object('why', 'its key is compromised') FROM ended
           RETURNING true""",
        serial,
        now,
        reason,
        [one for one in before if one is not None],
        None in before,
        invalid_since,
        comment,
        "certificate.held" if reason is revocation.HOLD else "certificate.revoked",
        actor.name,
        actor.source,
    )
    return row is not None


async def release(
    database: Database, serial: Serial, *, actor: Actor, comment: str | None, now: datetime
) -> bool:
    """End a hold: the certificate is good again. False: it is not on hold."""
    row = await database.fetchrow_durably(
        """WITH back AS (
               UPDATE certificate c SET revoked = NULL, reason = NULL, invalid_since = NULL, comment = NULL, status_changed = $2
               FROM (SELECT serial, reason, revoked, invalid_since, comment FROM certificate WHERE serial = $1 FOR UPDATE) was
               WHERE c.serial = was.serial AND c.reason = $3 RETURNING c.serial, issuer_id, shard, was AS before
           ), due AS (
               INSERT INTO crl_due (issuer_id, shard, at) SELECT issuer_id, shard, $2 FROM back
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $2, 'certificate.released', $4, $6, 'certificate:' || serial, json_strip_nulls(json_build_object(
                  'before', json_build_object('reason', (before).reason, 'revoked', (before).revoked,
                                              'invalid_since', (before).invalid_since, 'comment', (before).comment),
                  'comment', $5::text)) FROM back RETURNING true""",
        serial,
        now,
        revocation.HOLD,
        actor.name,
        comment,
        actor.source,
    )
    return row is not None
