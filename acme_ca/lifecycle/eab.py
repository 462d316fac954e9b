"""Keys for external account binding (RFC 8555 §7.3.4), as operators make and end them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from acme_ca.core.actors import Actor
from acme_ca.core.codes import Code
from acme_ca.core.eab import UNRESTRICTED, EabKey, EabKeyState, Restrictions
from acme_ca.core.ids import AccountId, EabKeyId
from acme_ca.core.problems import Problem, conflict, not_found
from acme_ca.core.states import ServiceState
from acme_ca.storage import eab, services
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
        and replacements; where it is registered and waits for approval, so does the key. `max_accounts` None: for any
        number of accounts. `pending`: it waits for approval. Raises Problem (`service-not-approved`).
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
        registered = await services.find(self._database, service) if service is not None else None
        if registered is None:
            await eab.create(self._database, key, actor=actor)
            return key
        if registered.state is ServiceState.PENDING:
            key = replace(key, approved=None)
        if not await services.add_eab_key(self._database, registered, key, actor=actor):
            raise conflict("The service is retired: approve it first.", Code.SERVICE_NOT_APPROVED)
        return key

    async def find(self, key: str) -> EabKey:
        """Raises Problem (`not-found`)."""
        found = await eab.find(self._database, key)
        if found is None:
            raise no_such_key()
        return found

    async def change(self, before: EabKey, after: EabKey, *, actor: Actor) -> EabKey:
        """Raises Problem (`conflict`)."""
        if before == after:
            return before
        changed = await eab.change(self._database, before, after, actor=actor, now=self._clock())
        if changed is None:
            raise conflict("The EAB key is revoked, or has made more accounts than that already.")
        return changed

    async def approve(self, key: str, *, actor: Actor) -> EabKey:
        """Raises Problem: `not-found`, `conflict`."""
        approved = await eab.approve(self._database, key, actor=actor, now=self._clock())
        if approved is None:
            raise conflict(f"The EAB key does not wait for approval: it is {await self._state(key)}.")
        return approved

    async def rotate(self, key: str, *, actor: Actor) -> EabKey:
        """With a new HMAC key. Raises Problem: `not-found`, `conflict`."""
        secret = self._random_bytes(HMAC_KEY_BYTES)
        rotated = await eab.rotate(self._database, key, secret, actor=actor, now=self._clock())
        if rotated is None:
            raise conflict(f"The EAB key is {await self._state(key)}: make another.")
        return rotated

    async def revoke(self, key: str, *, reason: str, actor: Actor) -> tuple[AccountId, ...]:
        """No further account can be made with it, and those that were are frozen: those that were frozen now.

        Raises Problem: `not-found`, `conflict`.
        """
        frozen = await eab.revoke(self._database, key, reason=reason, actor=actor, now=self._clock())
        if frozen is None:
            raise conflict(f"The EAB key is {await self._state(key)} already.")
        return frozen

    async def _state(self, key: str) -> EabKeyState:
        return (await self.find(key)).state(self._clock())


def no_such_key() -> Problem:
    return not_found("There is no such EAB key.")
