"""The approved scopes that one process knows, against a look at all of them."""

from datetime import timedelta

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.ca.policies import Policies
from acme_ca.ca.scopes import LivingScopes
from acme_ca.core import identifiers
from acme_ca.core.accounts import Account
from acme_ca.core.actors import SERVER
from acme_ca.core.ids import AccountId, EabKeyId, ScopeId
from acme_ca.core.names import NameRule, RuleKind
from acme_ca.core.policy import NamePolicy, NameRules
from acme_ca.core.scopes import KINDS, ApprovedScope, ScopeState
from acme_ca.core.states import AccountStatus
from acme_ca.core.times import CLOCKS_APART
from acme_ca.storage import policies as stored_policies
from acme_ca.storage import scopes
from tests.support import records
from tests.support.records import DAY, NOW

SECOND = timedelta(seconds=1)
labels = st.sampled_from(["a", "b", "xn--4ca"])
names = st.lists(labels, min_size=1, max_size=3).map(".".join)
wildcards = names.map(lambda name: f"*.{name}.a")
addresses = st.sampled_from(["192.0.2.1", "2001:db8::1"])
asked = st.one_of(names, wildcards).map(identifiers.dns) | addresses.map(identifiers.ip)
rules = st.one_of(
    st.one_of(names, wildcards, addresses).map(lambda value: f"exact:{value}"),
    names.map(lambda value: f"suffix:{value}"),
    wildcards.map(lambda value: f"wildcard:{value}"),
).map(NameRule.parse)
holders = st.sampled_from([{"account_id": AccountId("mine")}, {"eab_key_id": EabKeyId("ours")}, {"account_id": AccountId("other")}])  # fmt: skip
MINE = Account(
    id=AccountId("mine"), status=AccountStatus.VALID, jwk="", thumbprint="", eab_key_id=EabKeyId("ours")
)
found_scopes = st.builds(
    lambda id_, holder, rule, lasts, revoked: ApprovedScope(
        id=ScopeId(id_),
        **holder,
        rule=rule,
        reason="r",
        approved_by="operator:olga",
        created=NOW,
        expires=NOW + lasts * SECOND,
        revoked=NOW if revoked else None,
    ),
    st.sampled_from("0123456789"),
    holders,
    st.none() | rules,
    st.integers(-1, 5),
    st.booleans(),
)


@given(st.lists(st.lists(found_scopes, max_size=8), max_size=4), asked, st.integers(0, 5))
def test_law_what_is_found_is_the_best_of_all_that_live(looks, name, later):
    """Whatever became of scopes meanwhile: the last that was learned of each is what counts."""
    known, all_ = LivingScopes(), {}
    for look in looks:
        known.learn(look, now=NOW)
        all_ |= {scope.id: scope for scope in look}
    now = NOW + later * SECOND
    fitting = [
        scope
        for scope in all_.values()
        if scope.state(NOW) is scope.state(now) is ScopeState.LIVING
        and scope.rule is not None
        and scope.rule.matches(name)
        and scope.account_id in {None, MINE.id}
    ]
    best = known.best(MINE, name, now=now)
    if fitting:
        assert best in fitting
        assert best.expires == max(scope.expires for scope in fitting)
    else:
        assert best is None


def test_the_kinds_that_can_be_approved_are_those_that_are_looked_up():
    assert {RuleKind.EXACT, RuleKind.SUFFIX, RuleKind.WILDCARD} == KINDS


# ---------------------------------------------------------------- in the database


class World:
    def __init__(self, database):
        self.database = database
        self.now = NOW
        self.log = structlog.testing.CapturingLogger()
        self.policies = Policies(
            database=database,
            settings=NamePolicy(()),
            unbound_names=None,
            clock=lambda: self.now,
            log=structlog.wrap_logger(self.log),
        )
        self.account = None

    async def approve(self, name, *, lasts=DAY):
        scope = ApprovedScope(
            id=ScopeId(records.new_id()),
            account_id=self.account.id,
            rule=NameRule.parse(f"exact:{name}"),
            reason="r",
            approved_by="operator:olga",
            created=self.now,
            expires=self.now + lasts,
        )
        assert await scopes.create(self.database, scope, actor=SERVER)
        return scope.id

    async def approved(self, name):
        await self.policies.refresh()
        return self.policies.scope_for(self.account, identifiers.dns(name)) is not None

    async def read_again(self):
        """How many scopes a look reads."""
        since = self.now - CLOCKS_APART
        return len(await scopes.changed(self.database, since=since, now=self.now))


@pytest.fixture
async def world(database_url):
    async with records.stocked(database_url) as opened:
        made = World(opened)
        made.account = await records.account(opened)
        yield made


async def test_a_look_reads_what_has_changed_and_forgets_what_has_ended(world):
    old = await world.approve("old.example")
    assert await world.approved("old.example")
    world.now += DAY / 2
    assert await world.read_again() == 0
    assert await world.approved("old.example"), "though it is not read again"
    brief = await world.approve("brief.example", lasts=timedelta(hours=1))
    assert await world.approved("brief.example")
    assert await world.read_again() == 1
    world.now += timedelta(hours=1)
    assert await world.read_again() == 1, "it has expired"
    assert not await world.approved("brief.example")
    assert brief not in world.policies._scopes._by_id
    await scopes.revoke(world.database, old, reason="r", actor=SERVER, now=world.now)
    assert await world.read_again() == 2
    assert not await world.approved("old.example")
    assert not world.policies._scopes._by_id
    assert not world.policies._scopes._by_holder


async def test_who_begins_knows_what_was_approved_long_ago(world):
    await world.approve("old.example", lasts=10 * DAY)
    world.now += 5 * DAY
    assert await world.approved("old.example")


@pytest.mark.parametrize("knows", [True, False], ids=["already known", "read first with that clock"])
async def test_a_clock_that_was_ahead_ends_nothing_for_good(world, knows):
    await world.approve("a.example", lasts=10 * DAY)
    assert not knows or await world.approved("a.example")
    world.now += 2 * DAY
    assert not knows or await world.approved("a.example")
    world.now += 11 * DAY
    assert not await world.approved("a.example")
    world.now -= 11 * DAY
    assert await world.approved("a.example")


async def test_a_change_of_another_server_whose_clock_goes_after_is_seen(world):
    assert not await world.approved("a.example")
    world.now -= CLOCKS_APART - SECOND
    await world.approve("a.example")
    world.now += CLOCKS_APART
    assert await world.approved("a.example")


async def test_a_policy_that_cannot_be_read_is_told_once_and_read_when_it_was_changed(world):
    await world.database.execute(
        "INSERT INTO policy (scope, body, changed) VALUES ('server', '{\"moons\": 2}', $1)", NOW
    )
    for _ in range(3):
        await world.policies.refresh()
    assert len(world.log.calls) == 1
    rules = NameRules(deny=(NameRule.parse("exact:a.example"),))
    await stored_policies.put(world.database, "server", rules, actor=SERVER, now=NOW)
    await world.policies.refresh()
    assert world.policies.of_service(None).violations([identifiers.dns("a.example")])
    assert await stored_policies.delete(world.database, "server", actor=SERVER, now=NOW)
    await world.policies.refresh()
    assert not world.policies.of_service(None).violations([identifiers.dns("a.example")])
