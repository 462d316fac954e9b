"""The service registry, as operators and the services themselves keep it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from acme_ca.core.actors import Actor
from acme_ca.core.codes import Code
from acme_ca.core.eab import EabKey, Restrictions
from acme_ca.core.ids import EabKeyId
from acme_ca.core.policy import NameRules
from acme_ca.core.problems import Problem, conflict, not_found
from acme_ca.core.services import RegisteredService, Service, ServiceId
from acme_ca.core.states import ServiceState
from acme_ca.lifecycle.eab import HMAC_KEY_BYTES, KEY_ID_BYTES
from acme_ca.storage import services
from acme_ca.storage.database import Database
from acme_ca.storage.services import Retirement


class Services:
    """`approval_required`: a service waits for an administrator before it may have certificates."""

    def __init__(
        self,
        *,
        database: Database,
        approval_required: bool,
        clock: Callable[[], datetime],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._approval_required = approval_required
        self._clock = clock
        self._random_bytes = random_bytes

    async def register(
        self, service: Service, *, with_eab_key: bool = False, wait: bool = False, actor: Actor
    ) -> tuple[RegisteredService, EabKey | None]:
        """`wait`: for approval, whatever the setting says. Raises Problem (`exists`): ids are never given twice."""
        waits = wait or self._approval_required
        state = ServiceState.PENDING if waits else ServiceState.APPROVED
        key = self._key_for(service, state) if with_eab_key else None
        made = await services.register(
            self._database, service, state, eab_key=key, actor=actor, now=self._clock()
        )
        if made is None:
            raise conflict(
                f"There is a service {service.service_id} already: change that, or choose another id.",
                Code.EXISTS,
            )
        return made, key

    async def make_eab_key(self, service: str, *, actor: Actor) -> tuple[RegisteredService, EabKey]:
        """One more, for the domains that the service has now. Raises Problem: `not-found`, `conflict`."""
        found = await self.find(service)
        if found.state is ServiceState.RETIRED:
            raise conflict("The service is retired: approve it first.", Code.SERVICE_NOT_APPROVED)
        _check_readable(found)
        key = self._key_for(found.service, found.state)
        if not await services.add_eab_key(self._database, found, key, actor=actor):
            raise _overtaken()
        return found, key

    def _key_for(self, service: Service, state: ServiceState) -> EabKey:
        """It makes accounts once the service is approved, and these get certificates for its domains only. Raises Problem
        (`conflict`) where it has none: a key without rules would open every name.
        """
        if not service.domains:
            raise conflict("An EAB key of a service is for its domains, and it has none: give it some first.")
        now = self._clock()
        return EabKey(
            id=EabKeyId(self._random_bytes(KEY_ID_BYTES).hex()),
            hmac_key=self._random_bytes(HMAC_KEY_BYTES),
            owner=service.owner,
            service=service.service_id,
            contact=service.contacts,
            restrictions=Restrictions(names=NameRules(allow=service.name_rules)),
            created=now,
            approved=None if state is ServiceState.PENDING else now,
        )

    async def find(self, service: str) -> RegisteredService:
        """Raises Problem (`not-found`)."""
        found = await services.find(self._database, service)
        if found is None:
            raise not_found("There is no such service.")
        return found

    async def change(self, service: Service, *, actor: Actor) -> RegisteredService:
        """Replace what is known of a service. Its EAB keys keep the names that they were made for.

        Raises Problem: `not-found`, `conflict`.
        """
        before = await self.find(service.service_id)
        if before.state is ServiceState.RETIRED:
            raise conflict("The service is retired: approve it first.")
        _check_readable(before)
        if before.service == service:
            return before
        changed = await services.change(self._database, before, service, actor=actor, now=self._clock())
        if changed is None:
            raise _overtaken()
        return changed

    async def approve(self, service: str, *, actor: Actor) -> RegisteredService:
        """Also one that was retired. Raises Problem: `not-found`, `conflict`."""
        approved = await services.approve(self._database, ServiceId(service), actor=actor, now=self._clock())
        if approved is None:
            raise await self._is_already(service)
        return approved

    async def retire(self, service: str, *, actor: Actor) -> Retirement:
        """It gets no more certificates; those that it has stay good. Raises Problem: `not-found`, `conflict`."""
        gone = await services.retire(self._database, ServiceId(service), actor=actor, now=self._clock())
        if gone is None:
            raise await self._is_already(service)
        return gone

    async def _is_already(self, service: str) -> Problem:
        found = await self.find(service)
        return conflict(f"The service is {found.state} already.")


def _check_readable(found: RegisteredService) -> None:
    if not found.readable:
        raise conflict("A later release described the service: change it there.", Code.POLICY_UNREADABLE)


def _overtaken() -> Problem:
    return conflict("Somebody else changed the service just now: look at it, and try again.")
