"""Keys for external account binding (RFC 8555 §7.3.4), as operators make and end them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from acme_ca.core.model import UNRESTRICTED, AccountId, Actor, EabKey, EabKeyId, Restrictions
from acme_ca.storage import eab
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

    async def create(
        self,
        *,
        owner: str,
        service: str | None = None,
        contact: tuple[str, ...] = (),
        max_accounts: int | None = None,
        restrictions: Restrictions = UNRESTRICTED,
        expires: datetime | None = None,
        pending: bool = False,
        actor: Actor,
    ) -> EabKey:
        """A new key for `owner`, a note for operators. `service`: whose accounts are made with it, for profiles, policies
        and replacements. `max_accounts` None: for any number of accounts. `pending`: it waits for approval.
        """
        now = self._clock()
        key = EabKey(
            id=EabKeyId(self._random_bytes(KEY_ID_BYTES).hex()),
            hmac_key=self._random_bytes(HMAC_KEY_BYTES),
            owner=owner,
            service=service,
            contact=contact,
            max_accounts=max_accounts,
            restrictions=restrictions,
            created=now,
            approved=None if pending else now,
            expires=expires,
        )
        await eab.create(self._database, key, actor=actor)
        return key

    async def all(self) -> list[EabKey]:
        return await eab.all_keys(self._database)

    async def revoke(self, key: str, *, reason: str, actor: Actor) -> tuple[AccountId, ...] | None:
        """No further account can be made with it, and those that were are frozen. None: there is no such key, or it was
        revoked before.
        """
        return await eab.revoke(self._database, key, reason=reason, actor=actor, now=self._clock())
