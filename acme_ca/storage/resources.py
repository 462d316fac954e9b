"""What the URLs of an account's own things name, read together with the account that signs."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

from acme_ca.core.certificates import Certificate
from acme_ca.core.orders import Authorization, Order
from acme_ca.storage import authorizations, certificates, orders
from acme_ca.storage.database import Database, Row
from acme_ca.storage.signers import READING, SIGNER_COLUMNS, Credential, Signer, signer_of

OwnedResource = Order | Authorization | Certificate


class Resource(Enum):
    """The kinds of things; each is found only when it belongs to the signer."""

    ORDER = (
        f"{orders.COLUMNS} FROM signer a LEFT JOIN ({orders.SOURCE}) o ON o.id = $5 AND o.account_id = a.id"
    )
    AUTHORIZATION = (
        f"{authorizations.COLUMNS} FROM signer a LEFT JOIN authz z ON z.id = $5 AND z.account_id = a.id"
    )
    CERTIFICATE = f"{certificates.AS_STORED} FROM signer a LEFT JOIN certificate c ON c.serial = $5 AND c.account_id = a.id"


_ALONE = f"{READING} SELECT {SIGNER_COLUMNS} FROM signer a"
_TOGETHER = {resource: f"{READING} SELECT {SIGNER_COLUMNS}, {resource.value}" for resource in Resource}


async def read(
    database: Database, credential: Credential, *, resource: Resource | None, resource_id: str, now: datetime
) -> tuple[Signer, OwnedResource | None]:
    """Spend the nonce and read the account, and the thing if it is the account's own: one round trip."""
    *signer, _ = credential.parameters
    if resource is None:
        row = await database.fetchrow(_ALONE, *signer)
    else:
        row = await database.fetchrow(_TOGETHER[resource], *signer, resource_id)
    assert row is not None, "a LEFT JOIN on a constant row gives a row"  # noqa: S101
    return signer_of(row), _resource(row, resource, now)


def _resource(row: Row, resource: Resource | None, now: datetime) -> OwnedResource | None:
    if resource is Resource.ORDER:
        return orders.order_of(row, now) if row["order_id"] is not None else None
    if resource is Resource.AUTHORIZATION:
        return authorizations.authorization_of(row, now) if row["authz_id"] is not None else None
    if resource is Resource.CERTIFICATE:
        return certificates.certificate_of(row) if row["serial"] is not None else None
    return None
