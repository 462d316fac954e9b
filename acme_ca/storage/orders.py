"""Orders: made, claimed for a certificate that is recorded with it, ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from enum import Enum, auto
from typing import Any

from acme_ca.core.certificates import LintedCertificate, RecordedCertificate
from acme_ca.core.identifiers import Identifier, search_words
from acme_ca.core.ids import AccountId, IssuerId, OrderId, Serial
from acme_ca.core.limits import Charge
from acme_ca.core.orders import Authorization, Order
from acme_ca.core.profiles import Profile, ProfileRef
from acme_ca.core.states import AuthorizationStatus, OrderStatus, order_status
from acme_ca.core.times import CLOCKS_APART
from acme_ca.storage import limits
from acme_ca.storage.authorizations import APPROVED
from acme_ca.storage.database import Database, Row, from_json, to_json
from acme_ca.storage.limits import Paused, Refused
from acme_ca.storage.signers import ACTING, SIGNER_COLUMNS, Credential, Signer, signer_of

SOURCE = """
    SELECT o.*, z.authz_statuses, z.authz_expires FROM orders o LEFT JOIN LATERAL (
        SELECT array_agg(status) AS authz_statuses, min(expires) AS authz_expires
        FROM authz WHERE id = ANY (o.authzs) AND o.status = 'pending'
    ) z ON true"""
"""Orders with what their status follows from."""

COLUMNS = """
    o.id AS order_id, o.account_id AS order_account, o.status AS order_status, o.identifiers, o.authzs, o.expires, o.not_before,
    o.not_after, o.profile, o.profile_version, o.issuer_id, o.serial, o.replaces, o.renews, o.error, o.authz_statuses, o.authz_expires"""


def order_of(row: Row, now: datetime) -> Order:
    statuses = {AuthorizationStatus(status) for status in row["authz_statuses"] or ()}
    if row["authz_expires"] is not None and row["authz_expires"] <= now:
        statuses.add(AuthorizationStatus.EXPIRED)
    return Order(
        id=row["order_id"],
        account_id=row["order_account"],
        status=order_status(
            OrderStatus(row["order_status"]), authorizations=statuses, expires=row["expires"], now=now
        ),
        identifiers=tuple(map(Identifier.from_text, row["identifiers"])),
        authorizations=tuple(row["authzs"]),
        expires=row["expires"],
        not_before=row["not_before"],
        not_after=row["not_after"],
        profile=ProfileRef(name=row["profile"], version=row["profile_version"]),
        issuer=row["issuer_id"],
        serial=row["serial"],
        replaces=row["replaces"],
        renews=tuple(map(Identifier.from_text, row["renews"])),
        error=from_json(row["error"]),
    )


# ---------------------------------------------------------------- new orders


class Unordered(Enum):
    """Why there is no order."""

    NOT_ENTITLED = auto()
    """The signer's account may not use the profile, or could not act at all."""
    REPLACED = auto()
    """Another living order replaces the same certificate."""


def _create(admitted: str) -> str:
    return f"""{ACTING}, {limits.PAUSED.format(identifiers="$7::text[]")}, entitled AS (
    SELECT acting.id FROM acting JOIN signer s ON s.id = acting.id
    WHERE ((cardinality($20::text[]) = 0 AND cardinality($21::text[]) = 0)
       OR EXISTS (SELECT FROM eab_key k WHERE k.id = s.eab_key_id AND k.revoked IS NULL
                  AND (k.id = ANY ($20) OR k.service = ANY ($21)))) AND NOT EXISTS (SELECT FROM paused)
), {admitted}, proposed AS (
    SELECT p.* FROM admitted, unnest($6::text[], $7::text[], $8::text[], $9::text[], $23::text[])
    WITH ORDINALITY AS p (id, identifier, token, offered, scope_id, place) WHERE admitted.refused IS NULL
), chosen AS (
    SELECT p.*, held.id AS held_id, approved.expires AS approved_until FROM proposed p LEFT JOIN LATERAL (
        SELECT z.id FROM authz z
        WHERE z.account_id = $4 AND z.identifier = p.identifier AND z.status = 'valid'
          AND z.validated > $10 AND z.expires > $11 AND z.challenge = ANY ($22::text[]) ORDER BY z.expires DESC LIMIT 1
    ) held ON true LEFT JOIN LATERAL ({APPROVED.format(scope="p.scope_id", now="$11")}) approved ON held.id IS NULL
), made AS (
    INSERT INTO authz (id, account_id, identifier, status, expires, token, offered, created, validated, scope_id)
    SELECT id, $4, identifier, CASE WHEN approved_until IS NULL THEN 'pending' ELSE 'valid' END, least($12, approved_until),
           token, string_to_array(offered, ' '), $11, CASE WHEN approved_until IS NOT NULL THEN $11 END,
           CASE WHEN approved_until IS NOT NULL THEN scope_id END
    FROM chosen WHERE held_id IS NULL
), ordered AS (
    INSERT INTO orders (id, account_id, status, identifiers, authzs, expires, not_before, not_after, profile,
                        profile_version, issuer_id, created, replaces, renews)
    SELECT $13, admitted.id, 'pending', $7::text[],
           (SELECT array_agg(coalesce(held_id, id) ORDER BY place) FROM chosen), $12, $14, $15, $16, $17, $18, $11, $19, $24
    FROM admitted WHERE refused IS NULL
    ON CONFLICT (replaces) WHERE replaces IS NOT NULL AND status <> 'invalid' DO NOTHING
    RETURNING authzs
)
SELECT {SIGNER_COLUMNS}, ordered.authzs, EXISTS (SELECT FROM entitled) AS entitled, {limits.REFUSAL_COLUMNS},
       (SELECT array_agg(identifier) FROM paused) AS paused,
       (SELECT bool_and(held_id IS NOT NULL OR approved_until IS NOT NULL) FROM chosen) AS ready
FROM signer a LEFT JOIN ordered ON true"""


_CREATE = _create(limits.all_admitted("entitled"))
_CREATE_LIMITED = _create(limits.admitted("entitled", first=25, moment=11))


async def create(
    database: Database,
    credential: Credential,
    order: Order,
    authorizations: Sequence[Authorization],
    *,
    profile: Profile,
    charges: Sequence[Charge] = (),
    now: datetime,
    reusable_since: datetime,
) -> tuple[Signer, Order | Unordered | Refused | Paused]:
    """Store a new order of the signer, of a profile that the signer may use. `authorizations` are proposals, one for each
    identifier, in their order: where the account holds a valid one that was validated after `reusable_since`, and by a
    challenge of the profile, the order takes that and the proposal is dropped. One with a scope is valid at once, if the
    scope is the signer's and lives. `charges` are paid, or there is no order.
    """
    row = await database.fetchrow(
        _CREATE_LIMITED if charges else _CREATE,
        *credential.parameters,
        [authorization.id for authorization in authorizations],
        [str(authorization.identifier) for authorization in authorizations],
        [authorization.token for authorization in authorizations],
        [" ".join(authorization.offered) for authorization in authorizations],
        reusable_since,
        now,
        order.expires,
        order.id,
        order.not_before,
        order.not_after,
        profile.name,
        profile.version,
        order.issuer,
        order.replaces,
        profile.allowed_eab_keys,
        profile.allowed_services,
        list(profile.challenges),
        [authorization.scope_id for authorization in authorizations],
        [str(identifier) for identifier in order.renews],
        *(limits.parameters(charges) if charges else ()),
    )
    assert row is not None, "a LEFT JOIN on a constant row gives a row"  # noqa: S101
    signer = signer_of(row)
    if row["authzs"] is None:
        return signer, _why_unordered(row, charges)
    status = OrderStatus.READY if row["ready"] else OrderStatus.PENDING
    return signer, replace(order, status=status, authorizations=tuple(row["authzs"]))


def _why_unordered(row: Row, charges: Sequence[Charge]) -> Unordered | Refused | Paused:
    limited = limits.paused_of(row) or limits.refusal_of(row, charges)
    return limited or (Unordered.REPLACED if row["entitled"] else Unordered.NOT_ENTITLED)


async def release_replaced(database: Database, cert_id: str, *, now: datetime) -> None:
    """End the order that replaces a certificate if it is dead."""
    await database.execute(
        f"UPDATE orders o SET status = 'invalid' WHERE replaces = $1 AND {_IS_DEAD}", cert_id, now
    )


_IS_DEAD = """(status = 'pending' AND (expires <= $2 OR
    cardinality(authzs) > (SELECT count(*) FROM authz z WHERE z.id = ANY (o.authzs)
                           AND z.status IN ('pending', 'valid') AND z.expires > $2)))"""
"""At $2: it expired, or one of its authorizations did or failed."""


async def is_replaced(database: Database, cert_id: str, *, now: datetime) -> bool:
    """Whether an order replaces the certificate, and is not dead."""
    found: bool = await database.fetchval(
        f"SELECT EXISTS (SELECT FROM orders o WHERE replaces = $1 AND status <> 'invalid' AND NOT {_IS_DEAD})",
        cert_id,
        now,
    )
    return found


async def living_ids(
    database: Database, account: AccountId, *, after: str, limit: int, now: datetime
) -> list[OrderId]:
    """Ids of the account's orders that are not invalid (RFC 8555 §7.1.2.1), oldest first, behind `after`."""
    rows = await database.fetch(
        """SELECT id FROM orders o WHERE account_id = $1 AND id > $2 AND status <> 'invalid'
             AND (status <> 'pending' OR (expires > $3 AND cardinality(authzs) = (
                 SELECT count(*) FROM authz z WHERE z.id = ANY (o.authzs) AND z.status IN ('pending', 'valid') AND z.expires > $3)))
           ORDER BY id LIMIT $4""",
        account,
        after,
        now,
        limit,
    )
    return [row["id"] for row in rows]


# ---------------------------------------------------------------- finalize


_CLAIMABLE = """o.id = $1 AND o.status = 'pending' AND o.expires > $3 AND o.issuer_id = $9
                 AND EXISTS (SELECT FROM issuer i WHERE i.id = o.issuer_id AND i.state = 'active' AND i.revoked IS NULL)
                 AND (SELECT bool_and(z.status = 'valid' AND z.expires > $3 AND z.stands) IS TRUE AND count(z.status) = cardinality(o.authzs)
                      FROM unnest(o.authzs) AS wanted (id), LATERAL (
                          -- OFFSET 0 keeps the look-up one by primary key, whatever the planner thinks of partial indexes
                          SELECT status, expires, scope_id IS NULL OR EXISTS (
                              SELECT FROM approved_scope c WHERE c.id = scope_id AND c.revoked IS NULL FOR SHARE) AS stands
                          FROM authz WHERE authz.id = wanted.id OFFSET 0) z)
                 AND NOT EXISTS (SELECT FROM account WHERE spki_sha256 = $4)
                 AND NOT EXISTS (SELECT FROM blocked_key WHERE spki_sha256 = $4)
                 AND NOT EXISTS (SELECT FROM certificate WHERE spki_sha256 = $4 AND reason = 1)
                 -- FOR SHARE: who freezes the account at this very moment goes first, or waits for this certificate
                 AND EXISTS (SELECT FROM account a WHERE a.id = o.account_id AND a.status = 'valid' AND a.frozen IS NULL FOR SHARE)"""
_RECORDED = """recorded AS (
               INSERT INTO certificate (serial, issuer_id, account_id, order_id, profile, profile_version, identifiers,
                                        spki_sha256, not_before, not_after, recorded, tbs, shard, words,
                                        service)
               SELECT $2, issuer_id, account_id, id, profile, profile_version, identifiers, $4, $5, $6, $3, $7, $8,
                      array_to_tsvector($10::text[]),
                      (SELECT k.service FROM account a JOIN eab_key k ON k.id = a.eab_key_id WHERE a.id = claimed.account_id)
               FROM claimed RETURNING true AS done
           )"""
_CLAIM = f"""WITH claimed AS (
               UPDATE orders o SET status = 'processing', serial = $2 WHERE {_CLAIMABLE} RETURNING o.*
           ), {_RECORDED}
           SELECT done, NULL::integer AS refused FROM recorded"""
# The lock makes sure that of several who claim an order at once one pays.
_CLAIM_LIMITED = f"""WITH claimable AS MATERIALIZED (
               SELECT o.id FROM orders o WHERE {_CLAIMABLE} FOR UPDATE OF o
           ), {limits.admitted("claimable", first=11, moment=3)}, claimed AS (
               UPDATE orders o SET status = 'processing', serial = $2 FROM admitted
               WHERE o.id = admitted.id AND admitted.refused IS NULL RETURNING o.*
           ), {_RECORDED}
           SELECT recorded.done, admitted.refused, admitted.free_at AS limit_free_at FROM admitted LEFT JOIN recorded ON true"""


async def claim_and_record(
    database: Database,
    order: Order,
    certificate: LintedCertificate,
    *,
    spki_sha256: bytes,
    charges: Sequence[Charge] = (),
    now: datetime,
) -> RecordedCertificate | Refused | None:
    """Win the order for this certificate and write down what will be signed: one durable statement.

    Exactly one caller gets a RecordedCertificate, and only while every authorization of the order is valid, its account
    is not frozen, its issuer is active, and the key belongs to no account (RFC 8555 §11.1), is not blocked and was not
    revoked as compromised. That one pays the `charges`. None: one of these does not hold (any more).
    """
    prepared = certificate.prepared
    row = await database.fetchrow_durably(
        _CLAIM_LIMITED if charges else _CLAIM,
        order.id,
        prepared.serial,
        now,
        spki_sha256,
        prepared.not_before,
        prepared.not_after,
        prepared.tbs,
        prepared.request.shard,
        prepared.request.issuer,
        search_words(prepared.request.identifiers),
        *(limits.parameters(charges) if charges else ()),
    )
    if row is None:
        return None
    refused = limits.refusal_of(row, charges)
    return refused or RecordedCertificate(
        serial=prepared.serial, issuer=prepared.request.issuer, tbs=prepared.tbs
    )


async def fail(
    database: Database, order: OrderId, error: dict[str, Any], *, client: str, now: datetime
) -> None:
    """End an order whose certificate could not be signed. What was recorded stays recorded."""
    await database.fetchrow_durably(
        """WITH failed AS (
               UPDATE orders SET status = 'invalid', error = $2 WHERE id = $1 AND status = 'processing'
               RETURNING id, account_id, identifiers, serial
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $3, 'order.failed', 'account:' || account_id, $4, 'order:' || id,
                  json_build_object('identifiers', identifiers, 'serial', serial, 'error', $2::json)
           FROM failed RETURNING true""",
        order,
        to_json(error),
        now,
        client,
    )


async def give_back(database: Database, order: OrderId, serial: Serial, *, now: datetime) -> None:
    """The signature could not be had: the order is as before it was claimed. The recorded certificate stays, without an
    order: a key store may have signed it and not been heard, so it can be revoked.
    """
    await database.fetchrow_durably(
        """WITH given AS (
               UPDATE orders SET status = 'pending', serial = NULL
               WHERE id = $1 AND status = 'processing' AND serial = $2 RETURNING id
           ), left_over AS (
               UPDATE certificate SET order_id = NULL WHERE serial = $2 AND der IS NULL AND order_id = (SELECT id FROM given)
               RETURNING serial, order_id
           )
           INSERT INTO audit_event (at, event, actor, object, detail)
           SELECT $3, 'certificate.unsigned', 'server', 'certificate:' || serial, json_build_object('order', $1::text)
           FROM left_over RETURNING true""",
        order,
        serial,
        now,
    )


async def move(database: Database, order: Order, issuer: IssuerId, *, now: datetime) -> bool:
    """To another issuer: its own was retired before anything was recorded. False: that is not so."""
    row = await database.fetchrow_durably(
        """WITH moved AS (
               UPDATE orders o SET issuer_id = $2 WHERE id = $1 AND status = 'pending' AND issuer_id = $3
                 AND NOT EXISTS (SELECT FROM issuer i WHERE i.id = o.issuer_id AND i.state = 'active'
                                 AND i.revoked IS NULL AND i.not_after > $4)
               RETURNING id
           )
           INSERT INTO audit_event (at, event, actor, object, detail)
           SELECT $4, 'order.moved', 'server', 'order:' || id, json_build_object('from', $3::text, 'to', $2::text)
           FROM moved RETURNING true""",
        order.id,
        issuer,
        order.issuer,
        now,
    )
    return row is not None


async def unsigned(
    database: Database, *, before: datetime, limit: int, now: datetime
) -> list[tuple[OrderId, RecordedCertificate]]:
    """Orders that a crash left `processing` since before `before`, with what was recorded for them; also by a clock that was
    far ahead.
    """
    rows = await database.fetch(
        """SELECT o.id, c.serial, c.issuer_id, c.tbs FROM orders o JOIN certificate c ON c.serial = o.serial
           WHERE o.status = 'processing' AND (c.recorded < $1 OR c.recorded > $3) AND c.tbs IS NOT NULL
           ORDER BY o.created LIMIT $2""",
        before,
        limit,
        now + CLOCKS_APART,
    )
    return [
        (row["id"], RecordedCertificate(serial=row["serial"], issuer=row["issuer_id"], tbs=row["tbs"]))
        for row in rows
    ]
