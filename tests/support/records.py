"""Rows for tests: an account, its orders and authorizations, as the ACME rooms make them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from acme_ca.ca import profiles
from acme_ca.ca.profiles import SERVER
from acme_ca.core import identifiers
from acme_ca.core.accounts import Account
from acme_ca.core.actors import Actor
from acme_ca.core.certificates import (
    IssuanceRequest,
    LintedCertificate,
    PreparedCertificate,
    RecordedCertificate,
    SignedCertificate,
)
from acme_ca.core.challenges import Attempt, ChallengeType, Outcome
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AccountId, AuthorizationId, IssuerId, OrderId, Serial, serial_text
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.orders import Authorization, Order
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.profiles import Profile
from acme_ca.core.states import AccountStatus, AuthorizationStatus, IssuerState, OrderStatus
from acme_ca.storage import accounts, authorizations, certificates, issuers, operations, orders, resources
from acme_ca.storage.database import Database
from acme_ca.storage.issuers import IssuerRecord
from acme_ca.storage.resources import OwnedResource, Resource
from acme_ca.storage.signers import Credential, SpentNonce

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
PROVED = Outcome(problem=None)
REFUSED = Outcome(problem=Problem(ErrorType.CONNECTION, "refused"), record=({"asked": "x"},))
EPOCH = 7
ISSUER = IssuerId("1" * 32)


def new_id() -> str:
    return os.urandom(16).hex()


@asynccontextmanager
async def stocked(dsn: str) -> AsyncIterator[Database]:
    """A database with an issuer and the built-in profiles."""
    async with Database.open(dsn, connections=10) as database:
        await issuers.register(database, issuer_record(), actor=Actor("server"))
        await profiles.register(database, now=NOW)
        await operations.nonce_epoch(database, EPOCH)
        yield database


def issuer_record(id_: IssuerId = ISSUER, **fields: Any) -> IssuerRecord:
    """An active intermediate; `fields` win."""
    record = IssuerRecord(
        id=id_,
        der=b"issuer " + id_.encode(),
        kind=IssuerKind.INTERMEDIATE,
        parent_id=None,
        spki_sha256=id_.encode(),
        key_uri=None,
        state=IssuerState.ACTIVE,
        not_before=NOW - DAY,
        not_after=NOW + 900 * DAY,
        created=NOW,
        activated=NOW,
    )
    return replace(record, **fields)


def credential(owner: Account, *, epoch: int = EPOCH) -> Credential:
    """With a nonce of its own, of the epoch that `stocked` makes."""
    nonce = SpentNonce(value=int.from_bytes(os.urandom(8), signed=True), expires=2**31, epoch=epoch)
    return Credential(nonce=nonce, account=owner.id, thumbprint=owner.thumbprint)


async def account(database: Database) -> Account:
    key = os.urandom(32).hex()
    made, created = await accounts.create(
        database,
        Account(id=AccountId(new_id()), status=AccountStatus.VALID, jwk='{"kty":"EC"}', thumbprint=key),
        spki_sha256=key.encode(),
        now=NOW,
        client="127.0.0.1",
    )
    assert created
    return made


def proposal(account_id: AccountId, name: str, *, expires: datetime = NOW + 7 * DAY) -> Authorization:
    identifier = identifiers.dns(name)
    offered = (ChallengeType.DNS_01,) if identifier.wildcard else tuple(ChallengeType)
    return Authorization(
        id=AuthorizationId(new_id()),
        account_id=account_id,
        identifier=identifier,
        status=AuthorizationStatus.PENDING,
        expires=expires,
        token="token",
        offered=offered,
    )


async def order(
    database: Database,
    owner: Account,
    *names: str,
    profile: Profile = SERVER,
    reusable_since: datetime = NOW - DAY,
    now: datetime = NOW,
) -> Order:
    proposals = [proposal(owner.id, name) for name in names]
    _, made = await orders.create(
        database,
        credential(owner),
        Order(
            id=OrderId(new_id()),
            account_id=owner.id,
            status=OrderStatus.PENDING,
            identifiers=tuple(one.identifier for one in proposals),
            authorizations=(),
            expires=now + 7 * DAY,
            not_before=None,
            not_after=None,
            profile=profile.ref,
            issuer=ISSUER,
        ),
        proposals,
        profile=profile,
        now=now,
        reusable_since=reusable_since,
    )
    assert isinstance(made, Order), made
    return made


async def read_order(
    database: Database, owner: Account, order_id: str, now: datetime = NOW
) -> OwnedResource | None:
    """As the owner sees it; None: it is not theirs."""
    _, found = await resources.read(
        database, credential(owner), resource=Resource.ORDER, resource_id=order_id, now=now
    )
    return found


def attempt(
    authorization: AuthorizationId, name: str, kind: ChallengeType = ChallengeType.HTTP_01
) -> Attempt:
    return Attempt(
        authorization_id=authorization,
        identifier=identifiers.dns(name),
        challenge=kind,
        token="token",
        thumbprint="thumbprint",
        account_url="https://ca.test/acme/acct/1",
    )


async def answer(
    database: Database,
    owner: Account,
    authorization: AuthorizationId,
    kind: ChallengeType,
    *,
    due: datetime = NOW + DAY,
    now: datetime = NOW,
) -> bool:
    """Whether an attempt has begun."""
    _, _, begun = await authorizations.answer(
        database, credential(owner), authorization, kind, due=due, now=now
    )
    return begun


async def validate(
    database: Database, owner: Account, owned: Order, *, now: datetime = NOW, outcome: Outcome = PROVED
) -> None:
    """Answer and settle every authorization of an order."""
    for authorization, identifier in zip(owned.authorizations, owned.identifiers, strict=True):
        kind = ChallengeType.DNS_01
        assert await answer(database, owner, authorization, kind, due=now + DAY, now=now)
        settled = await authorizations.settle(
            database,
            attempt(authorization, identifier.value, kind),
            outcome,
            valid_until=now + 7 * DAY,
            now=now,
        )
        assert settled


def linted(owned: Order, draft: x509.Certificate) -> LintedCertificate:
    request = IssuanceRequest(
        identifiers=owned.identifiers,
        public_key=ec.generate_private_key(ec.SECP256R1()).public_key(),
        profile=SERVER,
        issuer=ISSUER,
        shard=0,
        not_before=None,
        not_after=None,
    )
    prepared = PreparedCertificate(
        request=request,
        serial=serial_text(int.from_bytes(os.urandom(16))),
        not_before=NOW,
        not_after=NOW + 90 * DAY,
        tbs=draft.tbs_certificate_bytes,
        draft=draft,
    )
    return LintedCertificate(prepared)


async def claim(
    database: Database, owned: Order, draft: x509.Certificate, *, spki_sha256: bytes | None = None
) -> RecordedCertificate:
    """Record a certificate for a ready order: it is `processing` now."""
    certificate = linted(owned, draft)
    key = certificate.prepared.serial.encode() if spki_sha256 is None else spki_sha256
    recorded = await orders.claim_and_record(database, owned, certificate, spki_sha256=key, now=NOW)
    assert recorded is not None
    return recorded


async def claim_with(database: Database, owner: Account, draft: x509.Certificate, key: bytes) -> Serial:
    """The serial number of a certificate with that key."""
    made = await order(database, owner, "claimed.example")
    await validate(database, owner, made)
    return (await claim(database, made, draft, spki_sha256=key)).serial


async def compromise(database: Database, owner: Account, draft: x509.Certificate, key: bytes) -> None:
    serial = await claim_with(database, owner, draft, key)
    assert await certificates.revoke(database, serial, reason=1, actor=Actor("operator"), now=NOW)


async def issue(database: Database, owned: Order, draft: x509.Certificate) -> Serial:
    """Make a ready order `valid`, with some bytes for a certificate."""
    recorded = await claim(database, owned, draft)
    signed = SignedCertificate(serial=recorded.serial, der=b"signed " + recorded.serial.encode())
    assert await certificates.store(database, signed, now=NOW)
    return recorded.serial


async def certificate(database: Database, **fields: Any) -> Serial:
    """A certificate's row, of no order; `fields` win."""
    serial = serial_text(int.from_bytes(os.urandom(16)))
    row = {
        "serial": serial,
        "issuer_id": ISSUER,
        "profile": "server",
        "profile_version": 1,
        "identifiers": ["dns:a.example"],
        "spki_sha256": os.urandom(32),
        "not_before": NOW - DAY,
        "not_after": NOW + 90 * DAY,
        "shard": 0,
        "recorded": NOW,
        "der": b"der",
        **fields,
    }
    words = identifiers.search_words(map(Identifier.from_text, row["identifiers"]))
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    await database.execute(
        f"INSERT INTO certificate ({', '.join(row)}, words) VALUES ({places}, array_to_tsvector(${len(row) + 1}::text[]))",
        *row.values(),
        words,
    )
    return Serial(row["serial"])
