"""CA certificates: their keys' places and what they are used for. Never deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from acme_ca.core import revocation
from acme_ca.core.actors import Actor
from acme_ca.core.ids import IssuerId
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.states import ISSUER_TRANSITIONS, IssuerState
from acme_ca.storage.database import Database, to_json
from acme_ca.storage.times import within

TIMES = ("not_before", "not_after", "created", "activated", "retired", "revoked")
COLUMNS_BUT_TIMES = "id, der, kind, parent_id, spki_sha256, key_uri, state, open_shard, reason"
COLUMNS = f"{COLUMNS_BUT_TIMES}, {', '.join(f'{within(time)} AS {time}' for time in TIMES)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerRecord:
    """A CA certificate as it is stored. `state`: the stored one, see `core.states.issuer_state`."""

    id: IssuerId
    der: bytes = field(repr=False)
    kind: IssuerKind
    parent_id: IssuerId | None
    spki_sha256: bytes = field(repr=False)
    key_uri: str | None
    state: IssuerState
    open_shard: int = 0
    not_before: datetime
    not_after: datetime
    created: datetime
    activated: datetime | None = None
    retired: datetime | None = None
    revoked: datetime | None = None
    reason: RevocationReason | None = None


IssuerSort = Literal["created", "-created", "not_after", "-not_after", "subject", "-subject"]


async def all_issuers(database: Database) -> list[IssuerRecord]:
    """Oldest first, a root before what was made with it."""
    rows = await database.fetch(f"SELECT {COLUMNS} FROM issuer ORDER BY created, kind <> 'root', id")
    return [record_of(dict(row)) for row in rows]


async def register(
    database: Database, issuer: IssuerRecord, *, actor: Actor, detail: Mapping[str, Any] | None = None
) -> bool:
    """Make a CA certificate known, with its audit event. False: it is known already, and left as it is."""
    row = await database.fetchrow_durably(
        """WITH made AS (
               INSERT INTO issuer (id, der, kind, parent_id, spki_sha256, key_uri, state, not_before, not_after, created,
                                   activated)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING RETURNING id
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $10, 'issuer.registered', $12, $14, 'issuer:' || id, $13 FROM made RETURNING true""",
        issuer.id,
        issuer.der,
        issuer.kind,
        issuer.parent_id,
        issuer.spki_sha256,
        issuer.key_uri,
        issuer.state,
        issuer.not_before,
        issuer.not_after,
        issuer.created,
        issuer.activated,
        actor.name,
        to_json({"kind": issuer.kind, "state": issuer.state, "key_uri": issuer.key_uri, **(detail or {})}),
        actor.source,
    )
    return row is not None


async def change_state(
    database: Database, issuer: IssuerId, to: IssuerState, *, actor: Actor, now: datetime
) -> bool:
    """Along ISSUER_TRANSITIONS; what is revoked is not activated, and the last that signs leaves is not retired. False:
    that, or there is no such issuer, or no such way from its state.

    The one that is activated last is so in the database, whatever the operators' clocks say.
    """
    origins = [state for state, ends in ISSUER_TRANSITIONS.items() if to in ends]
    row = await database.fetchrow_durably(
        """WITH serving AS (
               -- Locked: of two who retire one each, the second sees what the first has done.
               SELECT id FROM issuer WHERE kind = 'intermediate' AND state = 'active' AND revoked IS NULL AND not_after > $3
               ORDER BY id FOR UPDATE
           ), was AS (
               SELECT id, state AS before FROM issuer WHERE id = $1 AND (SELECT count(*) FROM serving) >= 0 FOR UPDATE
           ), changed AS (
               UPDATE issuer SET state = $2, retired = CASE WHEN $2 = 'retired' THEN $3 END,
                   activated = CASE WHEN $2 <> 'active' THEN activated ELSE greatest($3, (
                       SELECT max(activated) + interval '1 microsecond' FROM issuer WHERE kind = 'intermediate')) END
               FROM was WHERE issuer.id = was.id AND state = ANY ($4) AND not_after > $3 AND NOT ($2 = 'active' AND revoked IS NOT NULL)
                 AND ($2 <> 'retired' OR ARRAY(SELECT id FROM serving) <> ARRAY[$1::text]) RETURNING issuer.id, before
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $3, 'issuer.' || $2, $5, $6, 'issuer:' || id,
                  json_build_object('before', before, 'after', $2::text) FROM changed RETURNING true""",
        issuer,
        to,
        now,
        origins,
        actor.name,
        actor.source,
    )
    return row is not None


async def move_key(
    database: Database, issuer: IssuerId, from_uri: str, to_uri: str, *, actor: Actor, now: datetime
) -> bool:
    """The issuer's key is used at another place, for all certificates that share it and those that are yet to be
    installed. False: it is not at `from_uri`.
    """
    row = await database.fetchrow_durably(
        """WITH moved AS (
               UPDATE issuer SET key_uri = $3
               WHERE key_uri = $2 AND spki_sha256 = (SELECT spki_sha256 FROM issuer WHERE id = $1 AND key_uri = $2)
               RETURNING id
           ), requested AS (
               UPDATE issuer_request SET key_uri = $3 WHERE key_uri = $2 AND EXISTS (SELECT FROM moved)
           ), told AS (
               INSERT INTO audit_event (at, event, actor, source, object, detail)
               SELECT $4, 'issuer.key-moved', $5, $7, 'issuer:' || id, $6 FROM moved RETURNING id
           )
           SELECT true FROM told LIMIT 1""",
        issuer,
        from_uri,
        to_uri,
        now,
        actor.name,
        to_json({"from": from_uri, "to": to_uri}),
        actor.source,
    )
    return row is not None


async def revoke(
    database: Database, issuer: IssuerId, *, reason: RevocationReason, actor: Actor, now: datetime
) -> bool:
    """Take a CA certificate back, or give it a graver reason (`core.revocation`); the CRL of the CA that signed it, by
    whichever certificate that is known here, is due then, and it is retired: it signs status only.

    False: there is none that another one signed, or no such way from its reason. CA certificates are not put on hold.
    """
    before = revocation.origins(reason)
    row = await database.fetchrow_durably(
        """WITH gone AS (
               UPDATE issuer SET revoked = coalesce(revoked, $2), reason = $3, state = 'retired', retired = coalesce(retired, $2)
               FROM (SELECT id, state, reason FROM issuer WHERE id = $1 FOR UPDATE) was
               WHERE issuer.id = was.id AND parent_id IS NOT NULL
                 AND (issuer.reason = ANY ($4) OR (issuer.reason IS NULL AND $5))
               RETURNING issuer.id, parent_id, was.state, was.reason
           ), due AS (
               INSERT INTO crl_due (issuer_id, shard, at)
               SELECT i.id, 0, $2 FROM gone JOIN issuer p ON p.id = gone.parent_id JOIN issuer i USING (spki_sha256)
               WHERE i.kind <> 'cross'
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $2, 'issuer.revoked', $6, $7, 'issuer:' || id, json_build_object(
                  'reason', $3::smallint, 'before', json_build_object('state', state, 'reason', reason))
           FROM gone RETURNING true""",
        issuer,
        now,
        reason,
        [one for one in before if one is not None],
        None in before,
        actor.name,
        actor.source,
    )
    return row is not None


def record_of(row: Mapping[str, Any]) -> IssuerRecord:
    fields = {**row, "kind": IssuerKind(row["kind"]), "state": IssuerState(row["state"])}
    fields["reason"] = None if row["reason"] is None else RevocationReason(row["reason"])
    return IssuerRecord(**fields)


# ---------------------------------------------------------------- certificates to be signed elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerRequest:
    """A key that was made here and waits for the certificate that another CA signs. `csr`: DER."""

    spki_sha256: bytes = field(repr=False)
    csr: bytes = field(repr=False)
    key_uri: str
    created: datetime


async def add_request(database: Database, request: IssuerRequest, *, actor: Actor) -> None:
    await database.fetchrow_durably(
        """WITH made AS (
               INSERT INTO issuer_request (spki_sha256, csr, key_uri, created) VALUES ($1, $2, $3, $4) RETURNING key_uri
           )
           INSERT INTO audit_event (at, event, actor, source, object, detail)
           SELECT $4, 'issuer.requested', $5, $6, 'key:' || encode($1, 'hex'), json_build_object('key_uri', key_uri)
           FROM made RETURNING true""",
        request.spki_sha256,
        request.csr,
        request.key_uri,
        request.created,
        actor.name,
        actor.source,
    )


async def request_for(database: Database, spki_sha256: bytes) -> IssuerRequest | None:
    row = await database.fetchrow(
        "SELECT spki_sha256, csr, key_uri, created FROM issuer_request WHERE spki_sha256 = $1", spki_sha256
    )
    return IssuerRequest(**row) if row else None


async def announce(
    database: Database, *, subject: str, spki_sha256: bytes, parent: IssuerId, actor: Actor, now: datetime
) -> None:
    """Write down that a CA certificate is about to be signed: every signature is accounted for, also after a crash."""
    await database.fetchrow_durably(
        """INSERT INTO audit_event (at, event, actor, source, object, detail)
           VALUES ($1, 'issuer.announced', $2, $5, 'issuer:' || $3, $4) RETURNING true""",
        now,
        actor.name,
        parent,
        to_json({"subject": subject, "spki_sha256": spki_sha256.hex()}),
        actor.source,
    )
