"""Orders, authorizations and the validations that decide them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from typing import Any

from acme_ca.core.certificates import LintedCertificate, RecordedCertificate
from acme_ca.core.challenges import Attempt, ChallengeType, Outcome
from acme_ca.core.identifiers import Identifier, search_words
from acme_ca.core.ids import AccountId, AuthorizationId, IssuerId, OrderId, Serial
from acme_ca.core.limits import Charge
from acme_ca.core.orders import Authorization, Order
from acme_ca.core.problems import ErrorType
from acme_ca.core.profiles import Profile, ProfileRef
from acme_ca.core.states import AuthorizationStatus, OrderStatus, authorization_status, order_status
from acme_ca.storage import limits
from acme_ca.storage.database import Database, Row, from_json, to_json
from acme_ca.storage.limits import Paused, Refused
from acme_ca.storage.signers import ACTING, SIGNER_COLUMNS, Credential, Signer, signer_of

ORDER_SOURCE = """
    SELECT o.*, z.authz_statuses, z.authz_expires FROM orders o LEFT JOIN LATERAL (
        SELECT array_agg(status) AS authz_statuses, min(expires) AS authz_expires
        FROM authz WHERE id = ANY (o.authzs) AND o.status = 'pending'
    ) z ON true"""
"""Orders with what their status follows from."""

ORDER_COLUMNS = """
    o.id AS order_id, o.account_id AS order_account, o.status AS order_status, o.identifiers, o.authzs, o.expires, o.not_before,
    o.not_after, o.profile, o.profile_version, o.issuer_id, o.serial, o.replaces, o.renews, o.error, o.authz_statuses, o.authz_expires"""

AUTHORIZATION_COLUMNS = """
    z.id AS authz_id, z.account_id AS authz_account, z.identifier, z.status AS authz_status, z.expires, z.token, z.offered,
    z.challenge, z.validated, z.scope_id, z.error"""


# ---------------------------------------------------------------- rows to values


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


def authorization_of(row: Row, now: datetime) -> Authorization:
    return Authorization(
        id=row["authz_id"],
        account_id=row["authz_account"],
        identifier=Identifier.from_text(row["identifier"]),
        status=authorization_status(
            AuthorizationStatus(row["authz_status"]), expires=row["expires"], now=now
        ),
        expires=row["expires"],
        token=row["token"],
        offered=tuple(map(ChallengeType, row["offered"])),
        challenge=ChallengeType(row["challenge"]) if row["challenge"] else None,
        validated=row["validated"],
        scope_id=row["scope_id"],
        error=from_json(row["error"]),
    )


# ---------------------------------------------------------------- new orders and authorizations


class Unordered(Enum):
    """Why there is no order."""

    NOT_ENTITLED = auto()
    """The signer's account may not use the profile, or could not act at all."""
    REPLACED = auto()
    """Another living order replaces the same certificate."""


# FOR SHARE: who revokes the scope at this very moment goes first, or finds the authorization.
_APPROVED = """
    SELECT c.expires FROM approved_scope c, signer s
    WHERE c.id = {scope} AND c.revoked IS NULL AND c.expires > {now}
      AND (c.account_id = s.id OR c.eab_key_id = s.eab_key_id) FOR SHARE OF c"""
"""The end of a scope, if it is the signer's and lives: what was proposed by what a process remembers is confirmed."""


def _create_order(admitted: str) -> str:
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
    ) held ON true LEFT JOIN LATERAL ({_APPROVED.format(scope="p.scope_id", now="$11")}) approved ON held.id IS NULL
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


_CREATE_ORDER = _create_order(limits.all_admitted("entitled"))
_CREATE_LIMITED_ORDER = _create_order(limits.admitted("entitled", first=25, moment=11))


async def create_order(
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
        _CREATE_LIMITED_ORDER if charges else _CREATE_ORDER,
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


async def reusable(
    database: Database,
    account: AccountId,
    identifiers: Sequence[Identifier],
    *,
    challenges: Collection[ChallengeType],
    since: datetime,
    now: datetime,
) -> dict[Identifier, AuthorizationId]:
    """The valid authorizations that an order of the account would take, as `create_order` chooses them."""
    rows = await database.fetch(
        """SELECT DISTINCT ON (identifier) identifier, id FROM authz
           WHERE account_id = $1 AND identifier = ANY ($2) AND status = 'valid' AND validated > $3 AND expires > $4
             AND challenge = ANY ($5::text[]) ORDER BY identifier, expires DESC""",
        account,
        [str(identifier) for identifier in identifiers],
        since,
        now,
        list(challenges),
    )
    return {Identifier.from_text(row["identifier"]): row["id"] for row in rows}


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


def _create_authorization(admitted: str) -> str:
    return f"""WITH acting AS (SELECT $2::text AS id), {limits.PAUSED.format(identifiers="ARRAY[$3::text]")},
    wanted AS (SELECT acting.id FROM acting WHERE NOT EXISTS (SELECT FROM paused)), {admitted}, signer AS (
        SELECT id, eab_key_id FROM account WHERE id = $2
    ), approved AS MATERIALIZED ({_APPROVED.format(scope="$8::text", now="$7")}), made AS (
        INSERT INTO authz (id, account_id, identifier, status, expires, token, offered, created, validated, scope_id)
        SELECT $1, id, $3, CASE WHEN approved.expires IS NULL THEN 'pending' ELSE 'valid' END, least($4, approved.expires),
               $5, $6, $7, CASE WHEN approved.expires IS NOT NULL THEN $7::timestamptz END,
               CASE WHEN approved.expires IS NOT NULL THEN $8::text END
        FROM admitted LEFT JOIN approved ON true WHERE refused IS NULL
        RETURNING status, expires, validated, scope_id
    )
    SELECT {limits.REFUSAL_COLUMNS}, (SELECT array_agg(identifier) FROM paused) AS paused, made.*
    FROM (VALUES (1)) AS always LEFT JOIN made ON true"""


_CREATE_AUTHORIZATION = _create_authorization(limits.all_admitted("wanted"))
_CREATE_LIMITED_AUTHORIZATION = _create_authorization(limits.admitted("wanted", first=9, moment=7))


async def create_authorization(
    database: Database, authorization: Authorization, *, charges: Sequence[Charge] = (), now: datetime
) -> Authorization | Refused | Paused:
    """Store a pre-authorization (RFC 8555 §7.4.1), and pay the `charges`; or neither, and say why. It is valid at once if
    its scope is the account's and lives.
    """
    row = await database.fetchrow(
        _CREATE_LIMITED_AUTHORIZATION if charges else _CREATE_AUTHORIZATION,
        authorization.id,
        authorization.account_id,
        str(authorization.identifier),
        authorization.expires,
        authorization.token,
        list(authorization.offered),
        now,
        authorization.scope_id,
        *(limits.parameters(charges) if charges else ()),
    )
    assert row is not None, "a LEFT JOIN on a constant row gives a row"  # noqa: S101
    if limited := limits.paused_of(row) or limits.refusal_of(row, charges):
        return limited
    return replace(
        authorization,
        status=AuthorizationStatus(row["status"]),
        expires=row["expires"],
        validated=row["validated"],
        scope_id=row["scope_id"],
    )


async def order_ids(
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


async def deactivate_authorization(
    database: Database, authorization: AuthorizationId, *, client: str, now: datetime
) -> bool:
    """End an authorization at its holder's wish (RFC 8555 §7.5.2). False: it had ended before."""
    row = await database.fetchrow_durably(
        """WITH ended AS (
               UPDATE authz z SET status = 'deactivated', attempt_due = NULL, error = NULL
               FROM (SELECT id, status AS before FROM authz WHERE id = $1 FOR UPDATE) was
               WHERE z.id = was.id AND status IN ('pending', 'valid') AND expires > $2
               RETURNING z.id, account_id, identifier, before, status
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $2, 'authorization.deactivated', 'account:' || account_id, $3, 'authorization:' || id,
                  json_build_object('identifier', identifier, 'before', before, 'after', status)
           FROM ended RETURNING true""",
        authorization,
        now,
        client,
    )
    return row is not None


async def holds_all(
    database: Database, account: AccountId, identifiers: Sequence[Identifier], *, now: datetime
) -> bool:
    """Whether the account holds valid authorizations for all the identifiers (RFC 8555 §7.6)."""
    found: bool = await database.fetchval(
        """SELECT bool_and(EXISTS (SELECT FROM authz z WHERE z.account_id = $1 AND z.identifier = wanted.identifier
                                   AND z.status = 'valid' AND z.expires > $3))
           FROM unnest($2::text[]) AS wanted (identifier)""",
        account,
        [str(identifier) for identifier in identifiers],
        now,
    )
    return found is True


# ---------------------------------------------------------------- validation


_ANSWER = f"""{ACTING}, begun AS (
    UPDATE authz z SET challenge = $7, attempt_due = $8 FROM acting
    WHERE z.id = $6 AND z.account_id = acting.id AND z.status = 'pending' AND z.challenge IS NULL AND z.expires > $9
      AND $7 = ANY (z.offered) RETURNING z.id
)
SELECT {SIGNER_COLUMNS}, {AUTHORIZATION_COLUMNS}, begun.id IS NOT NULL AS begun
FROM signer a LEFT JOIN authz z ON z.id = $6 AND z.account_id = a.id LEFT JOIN begun ON true"""


async def answer(
    database: Database,
    credential: Credential,
    authorization: AuthorizationId,
    challenge: ChallengeType,
    *,
    due: datetime,
    now: datetime,
) -> tuple[Signer, Authorization | None, bool]:
    """The signer answers a challenge: it becomes `processing`, unless another answer came first or it is too late.

    Returns the authorization as it was before, if it is the signer's, and whether an attempt has begun. `due` is when
    the sweep may take the attempt over from a process that died.
    """
    row = await database.fetchrow(_ANSWER, *credential.parameters, authorization, challenge, due, now)
    assert row is not None, "a LEFT JOIN on a constant row gives a row"  # noqa: S101
    found = authorization_of(row, now) if row["authz_id"] is not None else None
    return signer_of(row), found, row["begun"]


def _settle(status: str, then: str = "") -> str:
    return f"""WITH settled AS (
               UPDATE authz SET status = '{status}', error = $3, attempt_due = NULL,
                   validated = CASE WHEN $3::json IS NULL THEN $5::timestamptz END,
                   expires = CASE WHEN $3::json IS NULL THEN $6 ELSE expires END
               WHERE id = $1 AND challenge = $2 AND status = 'pending' AND expires > $5
                 AND NOT EXISTS (SELECT FROM account a WHERE a.id = account_id AND a.frozen IS NOT NULL)
               RETURNING id, account_id, identifier
           ), kept AS (
               INSERT INTO validation (authz_id, account_id, identifier, challenge, at, error, record)
               SELECT $1, account_id, identifier, $2, $5, $3, $4 FROM authz WHERE id = $1
           ){then}
           SELECT true FROM settled"""


# Whose order fails with it is written there; who tried to get a certificate for this name stays when that is deleted.
_TOLD = """told AS (
               INSERT INTO audit_event (at, event, actor, source, object, detail)
               SELECT $5, 'authorization.failed', 'account:' || account_id, $7, 'authorization:' || id,
                      json_build_object('identifier', identifier, 'challenge', $2::text, 'error', $3::json) FROM settled
           )"""
_SUCCEED = _settle("valid", f", {limits.FORGIVEN}")
_FAIL = _settle("invalid", f", {_TOLD}")
_FAIL_COUNTING = _settle("invalid", f", {_TOLD}, {limits.COUNTED}")


async def settle(
    database: Database,
    attempt: Attempt,
    outcome: Outcome,
    *,
    valid_until: datetime,
    failures_before_pause: int = 0,
    client: str = "",
    now: datetime,
) -> bool:
    """Record a validation and end the challenge and its authorization accordingly. When the account has failed for the
    name `failures_before_pause` times in a row, it is paused for it; 0: never. A failure is in the audit, with `client`:
    the address that answered the challenge; empty: a sweep made the attempt again.

    False: the authorization had been settled, deactivated or had expired before, or its account is frozen, and the
    attempt made again when that is lifted; the record is kept all the same.
    """
    about = attempt.authorization_id, attempt.challenge
    record, problem = to_json(outcome.record), outcome.problem
    if problem is None:
        return await database.fetchrow(_SUCCEED, *about, None, record, now, valid_until) is not None
    failed = (*about, to_json(problem.document()), record, now, valid_until, client)
    # The server's own trouble is not the client's.
    if failures_before_pause and problem.type is not ErrorType.SERVER_INTERNAL:
        counting = failures_before_pause, now - limits.FORGOTTEN_AFTER
        return await database.fetchrow_durably(_FAIL_COUNTING, *failed, *counting) is not None
    return await database.fetchrow_durably(_FAIL, *failed) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAttempt:
    """An attempt to be made, as the database knows it: `Attempt` has the account's URL instead of its id."""

    authorization_id: AuthorizationId
    account_id: AccountId
    identifier: Identifier
    challenge: ChallengeType
    token: str
    thumbprint: str
    client: str = ""
    """The address that answered the challenge, where this process knows it."""


async def take_over_attempts(
    database: Database, *, due: datetime, limit: int, now: datetime
) -> list[OpenAttempt]:
    """Attempts of living accounts that nobody finished in time; they are this caller's until `due`."""
    rows = await database.fetch(
        """WITH mine AS (
               SELECT z.id, a.thumbprint FROM authz z JOIN account a ON a.id = z.account_id AND a.status = 'valid' AND a.frozen IS NULL
               WHERE z.attempt_due <= $1 AND z.expires > $1
               ORDER BY z.attempt_due LIMIT $3 FOR UPDATE OF z SKIP LOCKED
           )
           UPDATE authz z SET attempt_due = $2 FROM mine WHERE z.id = mine.id
           RETURNING z.id, z.account_id, z.identifier, z.challenge, z.token, mine.thumbprint""",
        now,
        due,
        limit,
    )
    return [
        OpenAttempt(
            authorization_id=row["id"],
            account_id=row["account_id"],
            identifier=Identifier.from_text(row["identifier"]),
            challenge=ChallengeType(row["challenge"]),
            token=row["token"],
            thumbprint=row["thumbprint"],
        )
        for row in rows
    ]


async def renew_attempt(
    database: Database, authorization: AuthorizationId, *, due: datetime, now: datetime
) -> bool:
    """An attempt that had to wait begins now. False: it was ended meanwhile."""
    touched = await database.execute(
        "UPDATE authz SET attempt_due = $2 WHERE id = $1 AND attempt_due IS NOT NULL AND expires > $3",
        authorization,
        due,
        now,
    )
    return touched == 1


async def put_back_attempts(
    database: Database, authorizations: Sequence[AuthorizationId], *, now: datetime
) -> None:
    """Attempts that a process ending in order could not finish: anyone may take them over at once."""
    await database.execute(
        "UPDATE authz SET attempt_due = $2 WHERE id = ANY ($1) AND attempt_due IS NOT NULL",
        list(authorizations),
        now,
    )


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
    database: Database, *, before: datetime, limit: int
) -> list[tuple[OrderId, RecordedCertificate]]:
    """Orders that a crash left `processing` since before `before`, with what was recorded for them."""
    rows = await database.fetch(
        """SELECT o.id, c.serial, c.issuer_id, c.tbs FROM orders o JOIN certificate c ON c.serial = o.serial
           WHERE o.status = 'processing' AND c.recorded < $1 AND c.tbs IS NOT NULL ORDER BY o.created LIMIT $2""",
        before,
        limit,
    )
    return [
        (row["id"], RecordedCertificate(serial=row["serial"], issuer=row["issuer_id"], tbs=row["tbs"]))
        for row in rows
    ]
