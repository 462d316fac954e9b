"""Keys for external account binding, and the bindings that clients make with them (RFC 8555 §7.3.4)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from acme_ca.core.model import EabKey, EabKeyId
from acme_ca.storage import accounts
from acme_ca.storage.database import Database
from tests.support.jose import Key, compact, mac_jws

if TYPE_CHECKING:
    from tests.support.application import Ca
    from tests.support.client import Account

SECRET = bytes(range(32))


async def add_eab_key(ca: Ca, name: str, *, most: int | None = None, service: str | None = None) -> None:
    async with Database.open(ca.dsn, connections=1) as database:
        key = EabKey(
            id=EabKeyId(name),
            hmac_key=SECRET,
            owner="x",
            service=service,
            max_accounts=most,
            accounts=0,
            created=datetime.now(UTC),
            revoked=None,
        )
        await accounts.create_eab_key(database, key)


async def revoke_eab_key(ca: Ca, name: str) -> None:
    async with Database.open(ca.dsn, connections=1) as database:
        assert await accounts.revoke_eab_key(database, name, now=datetime.now(UTC))


def binding(
    key: Key, *, kid: str = "many", secret: bytes = SECRET, digest: str = "sha256", **header: object
) -> dict[str, str]:
    members = {"alg": "HS256", "kid": kid, "url": "https://ca.test/acme/new-account", **header}
    return mac_jws(members, compact(key.jwk), secret, digest)


async def bound_account(ca: Ca, kid: str) -> Account:
    """An account of its own with this EAB key."""
    key = Key.generate()
    return await ca.client.register(key, externalAccountBinding=binding(key, kid=kid))
