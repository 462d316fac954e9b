"""Keys for external account binding, and the bindings that clients make with them (RFC 8555 §7.3.4)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from acme_ca.core.actors import Actor
from acme_ca.core.eab import UNRESTRICTED, EabKey, Restrictions
from acme_ca.core.ids import AccountId, EabKeyId
from acme_ca.storage import accounts, eab
from acme_ca.storage.database import Database
from tests.support.jose import Key, compact, mac_jws

if TYPE_CHECKING:
    from tests.support.application import Ca
    from tests.support.client import Account

SECRET = bytes(range(32))


OPERATOR = Actor("operator:olga", "192.0.2.9")


async def add_eab_key(
    ca: Ca,
    name: str,
    *,
    most: int | None = None,
    service: str | None = None,
    restrictions: Restrictions = UNRESTRICTED,
    pending: bool = False,
    expires: datetime | None = None,
) -> None:
    now = datetime.now(UTC)
    key = EabKey(
        id=EabKeyId(name),
        hmac_key=SECRET,
        owner="x",
        service=service,
        max_accounts=most,
        restrictions=restrictions,
        created=now,
        approved=None if pending else now,
        expires=expires,
    )
    async with Database.open(ca.dsn, connections=1) as database:
        await eab.create(database, key, actor=OPERATOR)


async def revoke_eab_key(ca: Ca, name: str) -> None:
    async with Database.open(ca.dsn, connections=1) as database:
        frozen = await eab.revoke(
            database, name, reason="left the house", actor=OPERATOR, now=datetime.now(UTC)
        )
    assert frozen is not None


async def freeze(ca: Ca, account: Account) -> None:
    async with Database.open(ca.dsn, connections=1) as database:
        assert await accounts.freeze(
            database, id_of(account), reason="a test", actor=OPERATOR, now=datetime.now(UTC)
        )


async def unfreeze(ca: Ca, account: Account) -> bool:
    async with Database.open(ca.dsn, connections=1) as database:
        return await accounts.unfreeze(
            database, id_of(account), reason="a test", actor=OPERATOR, now=datetime.now(UTC)
        )


def id_of(account: Account) -> AccountId:
    return AccountId(account.url.rpartition("/")[2])


def binding(
    key: Key, *, kid: str = "many", secret: bytes = SECRET, digest: str = "sha256", **header: object
) -> dict[str, str]:
    members = {"alg": "HS256", "kid": kid, "url": "https://ca.test/acme/new-account", **header}
    return mac_jws(members, compact(key.jwk), secret, digest)


async def bound_account(ca: Ca, kid: str) -> Account:
    """An account of its own with this EAB key."""
    key = Key.generate()
    return await ca.client.register(key, externalAccountBinding=binding(key, kid=kid))
