"""What holds for whom, as this process knows it: the name policies of the server and of services, the restrictions of EAB
keys, and the names that were approved for accounts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from acme_ca.ca.scopes import LivingScopes
from acme_ca.core.accounts import Account
from acme_ca.core.codes import Code
from acme_ca.core.eab import UNRESTRICTED, Restrictions
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import EabKeyId
from acme_ca.core.names import NameRule
from acme_ca.core.policy import Layer, NamePolicy, NameRules, Ruling
from acme_ca.core.problems import ErrorType, Problem, compound
from acme_ca.core.scopes import ApprovedScope
from acme_ca.core.times import CLOCKS_APART
from acme_ca.refreshing import Refresh
from acme_ca.storage import eab
from acme_ca.storage import policies as store
from acme_ca.storage import scopes as storage_scopes
from acme_ca.storage.database import Database, from_json

Model = TypeVar("Model", bound=BaseModel)

MAX_REMEMBERED = 10_000
"""EAB keys that one worker remembers."""
SERVER = "server"


def scope_of_service(service: str) -> str:
    return f"service:{service}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountPolicy:
    """What one account is held to, as of the last look."""

    names: NamePolicy
    restrictions: Restrictions = UNRESTRICTED
    """Of its EAB key."""
    unbound_names: tuple[NameRule, ...] | None = None
    """The account has no EAB key where the server requires one: it is good for these names. None: that is not so."""

    def check_names(self, wanted: Sequence[Identifier]) -> None:
        """Raises Problem: `rejectedIdentifier`, or `externalAccountRequired`."""
        if violations := self.names.violations(wanted):
            raise compound(violations)
        if beyond := [identifier for identifier in wanted if not self._is_unbound(identifier)]:
            raise compound([_wants_binding(identifier) for identifier in beyond])

    def _is_unbound(self, identifier: Identifier) -> bool:
        return self.unbound_names is None or any(rule.matches(identifier) for rule in self.unbound_names)

    def rulings(self, identifier: Identifier) -> list[Ruling]:
        """What everybody who has a say says of the name."""
        found = self.names.rulings(identifier)
        if self.unbound_names is not None:
            rule = next((rule for rule in self.unbound_names if rule.matches(identifier)), None)
            found.append(Ruling("the names that need no EAB key", allowed=rule is not None, rule=rule))
        return found

    def check_request(self, *, client: str, profile: str) -> None:
        """Of an order. Raises Problem."""
        self.restrictions.check_source(client)
        self.restrictions.check_profile(profile)

    def default_profile(self, usual: str) -> str:
        """Of orders that ask for none. Many clients cannot ask."""
        allowed = self.restrictions.profiles
        return usual if not allowed or usual in allowed else allowed[0]


@dataclass(frozen=True, slots=True)
class _Key:
    service: str | None
    restrictions: Restrictions | None
    """None: a later release has written them."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """Of a stored policy. `body`: as it is stored."""

    body: str
    rules: NameRules | None
    """None: a later release has written them."""


class Policies:
    """Operators change policies and EAB keys while servers run: each process looks at the database every few seconds, and
    at once when it meets an EAB key that it does not know. What it cannot read refuses, it never allows.
    """

    def __init__(
        self,
        *,
        database: Database,
        settings: NamePolicy,
        unbound_names: tuple[NameRule, ...] | None,
        clock: Callable[[], datetime],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """`unbound_names`: for which accounts need no EAB key; None: for all."""
        self._database = database
        self._settings = settings
        self._unbound_names = unbound_names
        self._clock = clock
        self._log = log
        self._rules: Mapping[str, _Rules] = {}
        self._keys: dict[EabKeyId, _Key] = {}
        self._composed: dict[EabKeyId | None, AccountPolicy] = {}
        self._scopes = LivingScopes()
        self._looked: datetime | None = None
        self._looks = 0
        self.refresh = Refresh(self._look)

    async def _look(self) -> None:
        """Of what there may be very much only what has changed is read."""
        now = self._clock()
        bodies = await store.bodies(self._database)
        if self._looked is None or now < self._looked:  # a clock that was ahead may have ended what lives
            changed, living = list(self._keys), LivingScopes()
            scopes = await storage_scopes.living(self._database, now=now)
        else:
            since, living = self._looked - CLOCKS_APART, self._scopes
            changed = await eab.changed_since(self._database, since)
            scopes = await storage_scopes.changed(self._database, since=since, now=now)
        known = await self._read_keys([key for key in changed if key in self._keys])
        self._rules = {scope: self._rules_of(scope, body) for scope, body in bodies.items()}
        self._keys |= known
        living.learn(scopes, now=now)
        self._scopes = living
        self._composed = {}
        self._looked = now
        self._looks += 1

    def _rules_of(self, scope: str, body: str) -> _Rules:
        known = self._rules.get(scope)
        if known is not None and known.body == body:
            return known
        return _Rules(body, self._read(NameRules, from_json(body), policy=scope))

    async def _read_keys(self, wanted: Sequence[EabKeyId]) -> dict[EabKeyId, _Key]:
        if not wanted:
            return {}
        found = await eab.restrictions(self._database, wanted)
        return {
            key: _Key(service, self._read(Restrictions, body, eab_key=key))
            for key, (service, body) in found.items()
        }

    def _read(self, model: type[Model], body: Mapping[str, Any], **what: str) -> Model | None:
        try:
            return model.model_validate(body)
        except ValidationError:
            self._log.error("a policy cannot be read by this release", **what)
            return None

    async def of(self, key: EabKeyId | None) -> AccountPolicy:
        """What holds for the accounts of an EAB key; None: for those without. Raises Problem (`serverInternal`)."""
        composed = self._composed.get(key)
        if composed is None:
            if key is not None and key not in self._keys:
                await self._learn(key)
            composed = self._composed[key] = self._compose(key)
        return composed

    async def _learn(self, key: EabKeyId) -> None:
        if len(self._keys) >= MAX_REMEMBERED:
            self._keys, self._composed = {}, {}
        looks, found = -1, dict[EabKeyId, _Key]()
        while (
            looks != self._looks
        ):  # a look meanwhile was not for this key, which may have been changed before it
            looks = self._looks
            found = await self._read_keys([key])
        self._keys |= found

    def _compose(self, id_: EabKeyId | None) -> AccountPolicy:
        if id_ is None:
            return AccountPolicy(names=self.of_service(None), unbound_names=self._unbound_names)
        key = self._keys.get(id_)
        if key is None or key.restrictions is None:
            raise unreadable()
        own = _layer(f"the EAB key {id_}", key.restrictions.names)
        names = NamePolicy((*self.of_service(key.service).layers, *own))
        return AccountPolicy(names=names, restrictions=key.restrictions)

    def scope_for(self, account: Account, identifier: Identifier) -> ApprovedScope | None:
        """An approval of the name for the account or its EAB key, the one that ends last; as of the last look, so that who
        relies on it has to make sure.
        """
        return self._scopes.best(account, identifier, now=self._clock())

    def of_service(self, service: str | None) -> NamePolicy:
        """What holds for a service's certificates; None: for everybody's. Raises Problem (`serverInternal`)."""
        layers = [*self._settings.layers, *self._stored(SERVER, "the server")]
        if service is not None:
            layers += self._stored(scope_of_service(service), f"the service {service}")
        return NamePolicy(tuple(layers))

    def _stored(self, scope: str, who: str) -> tuple[Layer, ...]:
        stored = self._rules.get(scope)
        if stored is None:
            return ()
        if stored.rules is None:
            raise unreadable()
        return _layer(who, stored.rules)


def _layer(who: str, rules: NameRules) -> tuple[Layer, ...]:
    return (Layer(who, rules),) if rules.allow or rules.deny else ()


def unreadable() -> Problem:
    return Problem(
        ErrorType.SERVER_INTERNAL,
        "The policy for this account is of a later release than this server: try again later.",
        status=503,
        code=Code.POLICY_UNREADABLE,
        headers={"Retry-After": "60"},
    )


def _wants_binding(identifier: Identifier) -> Problem:
    return Problem(
        ErrorType.EXTERNAL_ACCOUNT_REQUIRED,
        f"For {identifier.value} this CA wants an account with an external account binding: ask its operator for a key id "
        "and an HMAC key, and make another account with them.",
        identifier=identifier,
        code=Code.EAB_KEY_MISSING,
    )
