"""The approved scopes that live, as one process knows them: found by whom they are for and by their rule, however many
there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from acme_ca.core.accounts import Account
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AccountId, EabKeyId, ScopeId
from acme_ca.core.names import NameRule
from acme_ca.core.scopes import ApprovedScope, ScopeState, covering

_Holder = tuple[AccountId | None, EabKeyId | None]
"""Whom a scope is for: the other is None."""


class LivingScopes:
    def __init__(self) -> None:
        self._by_id: dict[ScopeId, ApprovedScope] = {}
        self._by_holder: dict[_Holder, dict[NameRule, set[ScopeId]]] = {}

    def learn(self, found: Iterable[ApprovedScope], *, now: datetime) -> None:
        """What became of scopes, known ones and others. One whose rule a later release wrote approves nothing."""
        for scope in found:
            self._forget(scope.id)
            if scope.rule is not None and scope.state(now) is ScopeState.LIVING:
                self._by_id[scope.id] = scope
                of_holder = self._by_holder.setdefault(_holder(scope), {})
                of_holder.setdefault(scope.rule, set()).add(scope.id)

    def _forget(self, id_: ScopeId) -> None:
        known = self._by_id.pop(id_, None)
        if known is None or known.rule is None:
            return
        of_holder = self._by_holder[_holder(known)]
        of_holder[known.rule].discard(id_)
        if not of_holder[known.rule]:
            del of_holder[known.rule]
        if not of_holder:
            del self._by_holder[_holder(known)]

    def best(self, account: Account, identifier: Identifier, *, now: datetime) -> ApprovedScope | None:
        """The one that ends last, of those that approve the name for the account or its EAB key."""
        holders = ((account.id, None), (None, account.eab_key_id))
        known = [of_holder for holder in holders if (of_holder := self._by_holder.get(holder))]
        if not known:
            return None
        ids = (id_ for rule in covering(identifier) for rules in known for id_ in rules.get(rule, ()))
        approvals = [scope for id_ in ids if (scope := self._by_id[id_]).expires > now]
        return max(approvals, key=lambda scope: scope.expires, default=None)


def _holder(scope: ApprovedScope) -> _Holder:
    return scope.account_id, scope.eab_key_id
