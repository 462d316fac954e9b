"""Keys for external account binding (RFC 8555 §7.3.4), as the operator makes and ends them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from acme_ca.core.model import EabKey, EabKeyId
from acme_ca.storage import accounts
from acme_ca.storage.database import Database

HMAC_KEY_BYTES = 32
KEY_ID_BYTES = 12


class EabKeys:
    def __init__(
        self, *, database: Database, clock: Callable[[], datetime], random_bytes: Callable[[int], bytes]
    ) -> None:
        self._database = database
        self._clock = clock
        self._random_bytes = random_bytes

    async def create(self, *, owner: str, service: str | None, max_accounts: int | None) -> EabKey:
        """A new key for `owner`, a note for operators. `service`: whose accounts are made with it, for profiles and
        replacements. `max_accounts` None: for any number of accounts.
        """
        key = EabKey(
            id=EabKeyId(self._random_bytes(KEY_ID_BYTES).hex()),
            hmac_key=self._random_bytes(HMAC_KEY_BYTES),
            owner=owner,
            service=service,
            max_accounts=max_accounts,
            accounts=0,
            created=self._clock(),
            revoked=None,
        )
        await accounts.create_eab_key(self._database, key)
        return key

    async def all(self) -> list[EabKey]:
        return await accounts.eab_keys(self._database)

    async def revoke(self, key: str) -> bool:
        """No further account can be made with it. False: there is no such key, or it was revoked before."""
        return await accounts.revoke_eab_key(self._database, key, now=self._clock())
