"""Authorizations: made for an order or ahead of one, ended by their holder, and decided by validations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from acme_ca.core.challenges import Attempt, ChallengeType, Outcome
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AccountId, AuthorizationId
from acme_ca.core.limits import Charge
from acme_ca.core.orders import Authorization
from acme_ca.core.problems import ErrorType
from acme_ca.core.states import AuthorizationStatus, authorization_status
from acme_ca.storage import limits
from acme_ca.storage.database import Database, Row, from_json, to_json
from acme_ca.storage.limits import Paused, Refused
from acme_ca.storage.signers import ACTING, SIGNER_COLUMNS, Credential, Signer, signer_of

_LONGEST_ATTEMPT = timedelta(days=1)

COLUMNS = """
    z.id AS authz_id, z.account_id AS authz_account, z.identifier, z.status AS authz_status, z.expires, z.token, z.offered,
    z.challenge, z.validated, z.scope_id, z.error"""


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


# FOR SHARE: who revokes the scope at this very moment goes first, or finds the authorization.
APPROVED = """
    SELECT c.expires FROM approved_scope c, signer s
    WHERE c.id = {scope} AND c.revoked IS NULL AND c.expires > {now}
      AND (c.account_id = s.id OR c.eab_key_id = s.eab_key_id) FOR SHARE OF c"""
"""The end of a scope, if it is the signer's and lives: what was proposed by what a process remembers is confirmed."""


def _create(admitted: str) -> str:
    return f"""WITH acting AS (SELECT $2::text AS id), {limits.PAUSED.format(identifiers="ARRAY[$3::text]")},
    wanted AS (SELECT acting.id FROM acting WHERE NOT EXISTS (SELECT FROM paused)), {admitted}, signer AS (
        SELECT id, eab_key_id FROM account WHERE id = $2
    ), approved AS MATERIALIZED ({APPROVED.format(scope="$8::text", now="$7")}), made AS (
        INSERT INTO authz (id, account_id, identifier, status, expires, token, offered, created, validated, scope_id)
        SELECT $1, id, $3, CASE WHEN approved.expires IS NULL THEN 'pending' ELSE 'valid' END, least($4, approved.expires),
               $5, $6, $7, CASE WHEN approved.expires IS NOT NULL THEN $7::timestamptz END,
               CASE WHEN approved.expires IS NOT NULL THEN $8::text END
        FROM admitted LEFT JOIN approved ON true WHERE refused IS NULL
        RETURNING status, expires, validated, scope_id
    )
    SELECT {limits.REFUSAL_COLUMNS}, (SELECT array_agg(identifier) FROM paused) AS paused, made.*
    FROM (VALUES (1)) AS always LEFT JOIN made ON true"""


_CREATE = _create(limits.all_admitted("wanted"))
_CREATE_LIMITED = _create(limits.admitted("wanted", first=9, moment=7))


async def create(
    database: Database, authorization: Authorization, *, charges: Sequence[Charge] = (), now: datetime
) -> Authorization | Refused | Paused:
    """Store a pre-authorization (RFC 8555 §7.4.1), and pay the `charges`; or neither, and say why. It is valid at once if
    its scope is the account's and lives.
    """
    row = await database.fetchrow(
        _CREATE_LIMITED if charges else _CREATE,
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


async def reusable(
    database: Database,
    account: AccountId,
    identifiers: Sequence[Identifier],
    *,
    challenges: Collection[ChallengeType],
    since: datetime,
    now: datetime,
) -> dict[Identifier, AuthorizationId]:
    """The valid authorizations that an order of the account would take, as `orders.create` chooses them."""
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


async def deactivate(
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
SELECT {SIGNER_COLUMNS}, {COLUMNS}, begun.id IS NOT NULL AS begun
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
    """Attempts of living accounts that nobody finished in time; they are this caller's until `due`. One that would be
    somebody's for longer than any validation lasts, by whatever settings, is of a clock that was ahead.
    """
    rows = await database.fetch(
        """WITH mine AS (
               SELECT z.id, a.thumbprint FROM authz z JOIN account a ON a.id = z.account_id AND a.status = 'valid' AND a.frozen IS NULL
               WHERE (z.attempt_due <= $1 OR z.attempt_due > $4) AND z.expires > $1
               ORDER BY z.attempt_due LIMIT $3 FOR UPDATE OF z SKIP LOCKED
           )
           UPDATE authz z SET attempt_due = $2 FROM mine WHERE z.id = mine.id
           RETURNING z.id, z.account_id, z.identifier, z.challenge, z.token, mine.thumbprint""",
        now,
        due,
        limit,
        now + _LONGEST_ATTEMPT,
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
