"""Who signed a request, as the database knows it: the beginning of every statement that a signed request makes.

The nonce is spent and the account read in the statement that also reads or does what is asked for: one round trip. What
is done is done only for `acting`: an account in good standing, not frozen, whose key is the one that the signature was
checked with, and a nonce that was not used before.
"""

from __future__ import annotations

from dataclasses import dataclass

from acme_ca.core.accounts import Account
from acme_ca.core.ids import AccountId
from acme_ca.core.states import AccountStatus
from acme_ca.storage.database import Database, Row, from_json


@dataclass(frozen=True, slots=True, kw_only=True)
class SpentNonce:
    """The numbers of a nonce that was found authentic, to be spent: see `acme.nonces`."""

    value: int
    expires: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a request's signature was checked with, for the statement to check again and to use up."""

    nonce: SpentNonce
    account: AccountId
    thumbprint: str

    @property
    def parameters(self) -> tuple[int, int, int, str, str]:
        """$1 to $5 of a statement that begins with ACTING."""
        return (self.nonce.value, self.nonce.expires, self.nonce.epoch, self.account, self.thumbprint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """What the statement found out."""

    nonce_was_fresh: bool
    epoch: int | None
    """The epoch of the nonce table now; None: a crash has emptied it."""
    account: Account | None


ACCOUNT_COLUMNS = """
    a.id AS account_id, a.status AS account_status, a.jwk, a.thumbprint, a.contact, a.terms_agreed IS NOT NULL AS terms_agreed,
    a.eab_key_id, a.eab_binding, a.frozen IS NOT NULL AS frozen"""

_SPENDING = """
WITH spent AS (
    INSERT INTO nonce (value, expires) SELECT $1, $2 FROM nonce_epoch WHERE epoch = $3
    ON CONFLICT DO NOTHING RETURNING true AS fresh
), signer AS (
    SELECT a.*, spent.fresh, nonce_epoch.epoch FROM (VALUES (1)) AS always
    LEFT JOIN spent ON true LEFT JOIN nonce_epoch ON true LEFT JOIN account a ON a.{key} = $4
)"""

SIGNER_COLUMNS = f"a.fresh, a.epoch, {ACCOUNT_COLUMNS}"

READING = _SPENDING.format(key="id")
"""Begins a statement that reads; $1 to $4 are the first of `Credential.parameters`."""

ACTING = (
    READING
    + """, acting AS (
    SELECT id FROM signer WHERE fresh AND status = 'valid' AND frozen IS NULL AND thumbprint = $5
)"""
)
"""Begins a statement that acts: its CTEs follow, its SELECT has SIGNER_COLUMNS and ends FROM signer a."""

_BY_KEY = f"{_SPENDING.format(key='thumbprint')} SELECT {SIGNER_COLUMNS} FROM signer a"


async def spend_by_key(database: Database, nonce: SpentNonce, thumbprint: str) -> Signer:
    """Spend the nonce of a request that carries its key: the account is the one with that key, if any."""
    row = await database.fetchrow(_BY_KEY, nonce.value, nonce.expires, nonce.epoch, thumbprint)
    assert row is not None, "a LEFT JOIN on a constant row gives a row"  # noqa: S101
    return signer_of(row)


def signer_of(row: Row) -> Signer:
    return Signer(
        nonce_was_fresh=row["fresh"] is True,
        epoch=row["epoch"],
        account=account_of(row) if row["account_id"] is not None else None,
    )


def account_of(row: Row) -> Account:
    return Account(
        id=row["account_id"],
        status=AccountStatus(row["account_status"]),
        jwk=row["jwk"],
        thumbprint=row["thumbprint"],
        contact=tuple(row["contact"]),
        terms_agreed=row["terms_agreed"],
        eab_key_id=row["eab_key_id"],
        eab_binding=from_json(row["eab_binding"]),
        frozen=row["frozen"],
    )
