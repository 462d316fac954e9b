"""CRLs in a real database: what makes them, what is in them, and what a crash or a rival leaves."""

import asyncio
import hashlib
import itertools
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from acme_ca.ca import certify
from acme_ca.ca.certify import Parent
from acme_ca.ca.crls import CrlSigner
from acme_ca.ca.hierarchy import Hierarchy
from acme_ca.ca.issuers import issuer
from acme_ca.ca.keystore import KeyUnavailable
from acme_ca.ca.served import record_of
from acme_ca.core.actors import Actor
from acme_ca.core.crl import BACKDATING, ENTRY_SIZE
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.states import IssuerState
from acme_ca.revocation.crl import PAUSE, ROOT_PAUSE
from acme_ca.storage import crls, issuers
from acme_ca.storage.crls import Shard
from tests.support import crls as support
from tests.support.crls import (
    BASE_URL,
    HOUR,
    OPERATOR,
    Estate,
    estate,
    listed,
    number,
    reason,
    scope,
    serials,
)
from tests.support.fixtures import new_hierarchy
from tests.support.issuing import NOW, subject
from tests.support.keys import Store
from tests.support.records import DAY

SECOND = timedelta(seconds=1)
FLAGS = x509.ReasonFlags


@pytest.fixture
async def world(database_url):
    async with estate(database_url, NOW) as made:
        yield made


@pytest.fixture
async def shard(world: Estate, hierarchy: Hierarchy) -> Shard:
    return await world.add(hierarchy)


def root_shard(hierarchy: Hierarchy) -> Shard:
    return Shard(hierarchy.root.id, 0)


# ---------------------------------------------------------------- what makes a CRL


async def test_every_issuer_has_a_crl_from_the_start(world, shard, hierarchy):
    await world.publisher().publish_due()
    full, delta = await world.full(shard), await world.delta(shard)
    assert (listed(full), listed(delta)) == ({}, {})
    assert number(full) == number(delta) == support.base_number(delta)
    assert full.is_signature_valid(hierarchy.intermediate.public_key)
    assert full.issuer == hierarchy.intermediate.certificate.subject


async def test_a_revocation_makes_one_and_many_make_one(world, shard):
    publisher = world.publisher()
    await publisher.publish_due()
    first = number(await world.full(shard))
    for _ in range(3):
        await publisher.publish_due()
    assert number(await world.full(shard)) == first, "nothing is due"
    some = {await world.issue(shard) for _ in range(5)}
    for serial in some:
        await world.revoke(serial)
    world.now += SECOND
    await publisher.publish_due()
    assert serials(await world.full(shard)) == some
    assert await world.queue() == 0
    events = "SELECT count(*) FROM audit_event WHERE event = 'crl.published'"
    assert await world.database.fetchval(events) == 2


async def test_it_is_refreshed_on_schedule(world, shard):
    publisher = world.publisher()
    await publisher.publish_due()
    first = await world.full(shard)
    world.now += HOUR - timedelta(minutes=2)
    await publisher.publish_due()
    assert number(await world.full(shard)) == number(first)
    world.now += timedelta(minutes=2)
    await publisher.publish_due()
    second = await world.full(shard)
    assert number(second) > number(first)
    assert second.next_update_utc == world.now + 7 * DAY
    assert (await world.delta(shard)).next_update_utc == world.now + DAY


async def test_retired_issuers_go_on(world, shard):
    """Lesson 17."""
    publisher, serial = world.publisher(), await world.issue(shard)
    await world.database.execute(
        "UPDATE issuer SET state = 'retired', retired = $1 WHERE id = $2", world.now, shard.issuer
    )
    await world.revoke(serial)
    await publisher.publish_due()
    assert serials(await world.full(shard)) == {serial}
    world.now += HOUR
    await publisher.publish_due()
    assert (await world.full(shard)).next_update_utc == world.now + 7 * DAY


async def test_an_operator_asks_for_one(world, shard):
    publisher = world.publisher()
    await publisher.publish_due()
    first = number(await world.full(shard))
    assert await crls.wish(world.database, issuer=shard.issuer, shard=0, now=world.now) == 1
    assert await crls.wish(world.database, issuer=shard.issuer, shard=7, now=world.now) == 0
    await publisher.publish_due()
    assert number(await world.full(shard)) > first


# ---------------------------------------------------------------- what is in it


async def test_entries(world, shard):
    """RFC 5280 §5.3: no reason for unspecified, invalidityDate where somebody knows it."""
    stolen = world.now - 3 * DAY
    unspecified, compromised, held = [await world.issue(shard) for _ in range(3)]
    await world.revoke(unspecified, RevocationReason.UNSPECIFIED)
    await world.revoke(compromised, RevocationReason.KEY_COMPROMISE, invalid_since=stolen)
    await world.hold(held)
    await world.publisher().publish_due()
    full = await world.full(shard)
    assert reason(full, unspecified) is None
    assert reason(full, compromised) is FLAGS.key_compromise
    assert reason(full, held) is FLAGS.certificate_hold
    entry = full.get_revoked_certificate_by_serial_number(int(compromised, 16))
    assert entry.revocation_date_utc == world.now
    invalidity = entry.extensions.get_extension_for_class(x509.InvalidityDate).value
    assert invalidity.invalidity_date_utc == stolen


async def test_extensions(world, shard, hierarchy):
    """RFC 5280 §5.2: the scope is critical and the same in both; only the full CRL says where the delta is."""
    await world.publisher().publish_due()
    full, delta = await world.full(shard), await world.delta(shard)
    url = f"{BASE_URL}/crl/{shard.issuer}/0.crl"
    distribution = full.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    assert [name.value for name in distribution.full_name] == [url]
    assert (distribution.only_contains_user_certs, distribution.only_contains_ca_certs) == (True, False)
    assert scope(full) == scope(delta)
    (point,) = full.extensions.get_extension_for_class(x509.FreshestCRL).value
    assert [name.value for name in point.full_name] == [f"{BASE_URL}/crl/{shard.issuer}/0-delta.crl"]
    issuer_key = hierarchy.intermediate.certificate.extensions.get_extension_for_class(
        x509.SubjectKeyIdentifier
    )
    for crl in (full, delta):
        authority = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert authority.key_identifier == issuer_key.value.digest
    names = [{e.oid._name: e.critical for e in crl.extensions} for crl in (full, delta)]
    common = {"authorityKeyIdentifier": False, "cRLNumber": False, "issuingDistributionPoint": True}
    assert names == [{**common, "freshestCRL": False}, {**common, "deltaCRLIndicator": True}]


async def test_an_address_that_changed_stays_in_it(world, shard):
    """Certificates of before name the old one."""
    await world.publisher().publish_due()
    moved = world.publisher()
    moved._public_http_url = "http://new.test"
    world.now += HOUR
    await moved.publish_due()
    distribution = (await world.full(shard)).extensions.get_extension_for_class(x509.IssuingDistributionPoint)
    urls = [name.value for name in distribution.value.full_name]
    assert urls == [f"{base}/crl/{shard.issuer}/0.crl" for base in (BASE_URL, "http://new.test")]


async def test_each_shard_has_its_own(world, shard):
    await world.database.execute("UPDATE issuer SET open_shard = 1 WHERE id = $1", shard.issuer)
    second = shard._replace(number=1)
    here, there = await world.issue(shard), await world.issue(second)
    for serial in (here, there):
        await world.revoke(serial)
    await world.publisher().publish_due()
    assert serials(await world.full(shard)) == {here}
    assert serials(await world.full(second)) == {there}


async def test_the_size_of_an_entry(world, shard):
    """What the size budget of a shard counts with."""
    await world.publisher().publish_due()
    empty = len((await world.files(shard)).der)
    for _ in range(50):
        await world.revoke(await world.issue(shard))
    world.now += SECOND
    await world.publisher().publish_due()
    size = (len((await world.files(shard)).der) - empty) / 50
    assert ENTRY_SIZE - 1 <= size <= ENTRY_SIZE + 0.2, size


async def test_lesson_16_a_revoked_certificate_is_listed_until_one_crl_after_its_end(world, shard):
    publisher, serial = world.publisher(), await world.issue(shard, life=10 * DAY)
    await publisher.publish_due()
    await world.revoke(serial)
    ends, seen_after_the_end = world.now + 10 * DAY, 0
    while world.now < ends + 3 * DAY:
        world.now += HOUR
        await publisher.publish_due()
        full = await world.full(shard)
        if serial in serials(full):
            seen_after_the_end += full.last_update_utc > ends
        else:
            assert seen_after_the_end >= 1
    assert seen_after_the_end >= 1
    assert serials(await world.full(shard)) == set()


async def test_lesson_16_the_last_second_is_part_of_a_certificates_life(world, shard):
    """RFC 5280 §4.1.2.5: a CRL of that second is none from after its end (§3.3). Each publisher is one that was started anew."""
    await world.publisher().publish_due()
    serial = await world.issue(shard, life=DAY)
    await world.revoke(serial)
    world.now += DAY + BACKDATING
    for listed_still in (True, True, False):
        await crls.wish(world.database, issuer=shard.issuer, shard=0, now=world.now)
        await world.publisher().publish_due()
        full = await world.full(shard)
        assert (serial in serials(full)) == listed_still
        world.now += SECOND


# ---------------------------------------------------------------- deltas


async def test_the_delta_has_what_changed_since_the_base(world, shard):
    publisher = world.publisher()
    before, held, kept = [await world.issue(shard) for _ in range(3)]
    await world.revoke(before)
    await world.hold(held)
    await publisher.publish_due()
    base = await world.full(shard)
    await world.revoke(kept)
    await world.revoke(before, RevocationReason.KEY_COMPROMISE)
    await world.release(held)
    world.now += SECOND
    await publisher.publish_due()
    full, delta = await world.full(shard), await world.delta(shard)
    assert (number(delta), support.base_number(delta)) == (number(full), number(base))
    assert serials(full) == {before, kept}
    assert reason(delta, held) is FLAGS.remove_from_crl
    assert reason(delta, before) is FLAGS.key_compromise
    assert reason(delta, kept) is FLAGS.superseded
    assert support.applied(base, delta) == listed(full)
    assert len(delta.extensions) == 4


async def test_a_hold_that_came_and_went_since_the_base_is_taken_out_as_well(world, shard):
    """RFC 5280 §5.2.4: "MUST be listed on the delta CRL with revocation reason removeFromCRL"."""
    publisher, serial = world.publisher(), await world.issue(shard)
    await publisher.publish_due()
    await world.hold(serial)
    world.now += SECOND
    await publisher.publish_due()
    between = await world.full(shard)
    await world.release(serial)
    world.now += SECOND
    await publisher.publish_due()
    assert reason(await world.delta(shard), serial) is FLAGS.remove_from_crl
    assert support.applied(between, await world.delta(shard)) == {}


async def test_the_base_is_renewed(world, shard):
    publisher, serial = world.publisher(), await world.issue(shard)
    await publisher.publish_due()
    await world.revoke(serial)
    world.now += DAY
    await publisher.publish_due()
    full, delta = await world.full(shard), await world.delta(shard)
    assert (serials(full), listed(delta)) == ({serial}, {})
    assert support.base_number(delta) == number(full)


# ---------------------------------------------------------------- issuers that cannot sign


async def test_one_issuers_missing_key_stops_no_other(world, shard, tmp_path):
    broken_shard = await world.add(broken := new_hierarchy(tmp_path, "Broken"))
    store = Store(broken.intermediate.key)
    world.issuers[broken_shard.issuer] = replace(broken.intermediate, key=store.key())
    store.away = True
    publisher = world.publisher()
    await publisher.publish_due()
    assert await crls.files(world.database, broken_shard) is None
    assert listed(await world.full(shard)) == {}
    store.away = False
    await publisher.publish_due()
    assert await crls.files(world.database, broken_shard) is None, "it is left alone for a moment"
    world.now += PAUSE
    await publisher.publish_due()
    assert listed(await world.full(broken_shard)) == {}
    store.away = True
    await world.revoke(serial := await world.issue(broken_shard))
    await publisher.publish_due()
    store.away = False
    assert await world.queue() == 1
    await world.revoke(other := await world.issue(broken_shard))
    await publisher.publish_due()
    assert serials(await world.full(broken_shard)) == {serial, other}, "another revocation is no time to wait"


class Hanging:
    """A signer that gives up the keys of some issuers only after a while; others sign in `busy`."""

    def __init__(self, world: Estate, *, wait: timedelta, busy: timedelta = timedelta()) -> None:
        self._world, self._signer, self._wait, self._busy = world, world.signer(), wait, busy
        self.hung: set[str] = set()

    async def sign(self, wanted, *, key_uri):
        if wanted[0].issuer in self.hung:
            self._world.now += self._wait
            raise KeyUnavailable("The key store did not answer.")
        self._world.now += self._busy
        return await self._signer.sign(wanted, key_uri=key_uri)


async def several(world, tmp_path, count):
    """Shards of so many issuers more."""
    places = [tmp_path / str(n) for n in range(count)]
    for place in places:
        place.mkdir()
    return [await world.add(new_hierarchy(place, f"Another {place.name}")) for place in places]


async def rounds_until(world, publisher, is_done, *, most):
    """How many it took; more than `most`: it was not to be."""
    for done in range(most):
        if await is_done():
            return done
        await publisher.publish_due()
        world.now += SECOND
    return most if await is_done() else most + 1


@pytest.mark.parametrize(("hung", "wait"), [(2, timedelta(seconds=10)), (3, timedelta(seconds=4))])
async def test_issuers_whose_keys_hang_do_not_starve_others(world, shard, tmp_path, hung, wait):
    """Each of them uses up a ROUND, and while it does the PAUSE of the one before runs out."""
    signer = Hanging(world, wait=wait)
    publisher = world.publisher(signer=signer)
    bad = await several(world, tmp_path, hung)
    await publisher.publish_due()
    world.now += SECOND
    await crls.wish(world.database, issuer=shard.issuer, shard=0, now=world.now)
    await publisher.publish_due()
    assert (await world.full(shard)).last_update_utc > (await world.full(bad[0])).last_update_utc, (
        "it sorts last"
    )
    signer.hung = {one.issuer for one in bad}
    for one in bad:
        await world.revoke(await world.issue(one))
    for _ in range(hung):
        await publisher.publish_due()
        world.now += SECOND
    await world.revoke(serial := await world.issue(shard))

    async def is_published():
        return serial in serials(await world.full(shard))

    assert await rounds_until(world, publisher, is_published, most=20) == 1


async def test_issuers_that_failed_have_their_turns(world, shard, tmp_path):
    """One whose key is back is not kept waiting by two whose keys still hang."""
    signer = Hanging(world, wait=timedelta(seconds=10))
    publisher = world.publisher(signer=signer)
    bad = await several(world, tmp_path, 2)
    await publisher.publish_due()
    world.now += SECOND
    await crls.wish(world.database, issuer=shard.issuer, shard=0, now=world.now)
    await publisher.publish_due()
    signer.hung = {one.issuer for one in (*bad, shard)}
    await world.revoke(serial := await world.issue(shard))
    for one in bad:
        await world.revoke(await world.issue(one))
    for _ in range(3):
        await publisher.publish_due()
        world.now += SECOND
    signer.hung.remove(shard.issuer)

    async def is_published():
        return serial in serials(await world.full(shard))

    assert await rounds_until(world, publisher, is_published, most=20) <= 3


async def test_an_issuer_that_failed_has_its_turn_while_others_are_busy(world, shard, tmp_path):
    """They fill each ROUND."""
    signer = Hanging(world, wait=SECOND, busy=timedelta(seconds=1.1))
    publisher = world.publisher(signer=signer)
    busy = await several(world, tmp_path, 3)
    for _ in range(4):
        await publisher.publish_due()
    signer.hung = {shard.issuer}
    await world.revoke(serial := await world.issue(shard))

    async def is_published():
        for one in busy:
            await world.revoke(await world.issue(one))
        return serial in serials(await world.full(shard))

    assert await rounds_until(world, publisher, is_published, most=5) > 5, "it failed indeed"
    signer.hung = set()
    assert await rounds_until(world, publisher, is_published, most=30) <= 10


@pytest.mark.parametrize("ahead", [timedelta(minutes=20), 30 * DAY])
async def test_a_clock_that_was_ahead_makes_no_pause_longer(world, shard, hierarchy, ahead):
    store = Store(hierarchy.intermediate.key)
    world.issuers[shard.issuer] = replace(hierarchy.intermediate, key=store.key())
    publisher = world.publisher()
    await publisher.publish_due()
    await world.revoke(serial := await world.issue(shard, life=60 * DAY))
    world.now += ahead
    store.away = True
    await publisher.publish_due()
    assert serials(await world.full(shard)) == set(), "it failed indeed"
    store.away = False
    world.now -= ahead
    world.now += PAUSE
    await publisher.publish_due()
    assert serials(await world.full(shard)) == {serial}


async def test_a_shard_that_fails_again_and_again_stops_no_other(world, shard):
    await world.database.execute("UPDATE issuer SET open_shard = 1 WHERE id = $1", shard.issuer)
    publisher, other = world.publisher(), shard._replace(number=1)
    await publisher.publish_due()
    first, second = number(await world.full(shard)), number(await world.full(other))
    await world.revoke(await world.issue(shard))
    await world.database.execute("UPDATE certificate SET serial = repeat('?', 32)")
    world.now += HOUR
    for _ in range(3):
        world.now += PAUSE
        await publisher.publish_due()
    assert number(await world.full(shard)) == first, "it fails indeed"
    assert number(await world.full(other)) > second


@pytest.mark.parametrize("time", ["-infinity", "infinity", "4000-01-01 BC", "294000-01-01"])
@pytest.mark.parametrize("column", ["invalid_since", "revoked", "status_changed"])
async def test_a_time_that_somebody_changed_keeps_no_revocation_from_its_crl(world, shard, column, time):
    changed, other = await world.issue(shard), await world.issue(shard)
    for serial in (changed, other):
        await world.revoke(serial, RevocationReason.KEY_COMPROMISE, invalid_since=world.now - DAY)
    await world.database.execute(f"UPDATE certificate SET {column} = '{time}' WHERE serial = $1", changed)
    await world.publisher().publish_due()
    full = await world.full(shard)
    assert serials(full) == {changed, other}
    entry = full.get_revoked_certificate_by_serial_number(int(changed, 16))
    dated = any(isinstance(extension.value, x509.InvalidityDate) for extension in entry.extensions)
    assert dated == (column != "invalid_since"), "what nobody can have meant is left out"


EARLY, LATE = ("-infinity", "4000-01-01 BC"), ("infinity", "294000-01-01")


@pytest.mark.parametrize(
    ("column", "time"),
    [
        *itertools.product(("crl.this_update", "crl.next_update", "issuer.created"), EARLY + LATE),
        *itertools.product(("crl.base_at", "issuer.not_after"), LATE),
        *itertools.product(("crl.lists_after",), EARLY),
    ],
)
async def test_a_crl_whose_times_somebody_changed_is_followed_by_the_next(world, shard, column, time):
    first = await world.issue(shard)
    await world.revoke(first)
    publisher = world.publisher()
    await publisher.publish_due()
    table, _, name = column.partition(".")
    await world.database.execute(f"UPDATE {table} SET {name} = '{time}'")
    assert (await world.files(shard)).der
    states = await crls.states(world.database, late=HOUR, root_warning=DAY, now=world.now)
    assert shard in [state.shard for state in states]
    await world.revoke(second := await world.issue(shard))
    world.now += SECOND
    await publisher.publish_due()
    assert second in serials(await world.full(shard))


async def test_another_issuers_key_signs_nothing(world, shard, hierarchy, tmp_path):
    other = new_hierarchy(tmp_path, "Other").intermediate
    world.issuers[shard.issuer] = replace(hierarchy.intermediate, key=other.key)
    await world.publisher().publish_due()
    assert await crls.files(world.database, shard) is None


# ---------------------------------------------------------------- rivals and crashes


class Interrupted(CrlSigner):
    """Does something between signing and storing."""

    def __init__(self, world, act):
        super().__init__(issuers=world._find, open_key=world._open)
        self._act = act

    async def sign(self, crls, *, key_uri):
        signed = await super().sign(crls, key_uri=key_uri)
        await self._act()
        return signed


async def test_a_publisher_that_dies_before_storing_leaves_all_to_the_next(world, shard):
    await world.publisher().publish_due()
    await world.revoke(serial := await world.issue(shard))

    async def die():
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await world.publisher(signer=Interrupted(world, die)).publish_due()
    assert serials(await world.full(shard)) == set()
    assert await world.queue() == 1
    await world.publisher().publish_due()
    assert serials(await world.full(shard)) == {serial}


async def test_what_is_revoked_while_a_crl_is_made_is_in_the_next(world, shard):
    await world.publisher().publish_due()
    first, second = await world.issue(shard), await world.issue(shard)
    await world.revoke(first)
    slow = world.publisher(signer=Interrupted(world, lambda: world.revoke(second)))
    (due,) = await due_now(world)
    assert await slow.publish(due)
    assert serials(await world.full(shard)) == {first}
    assert await world.queue() == 1, "the wish that was not read is still there"
    await world.publisher().publish_due()
    assert serials(await world.full(shard)) == {first, second}


async def test_a_publisher_that_was_overtaken_stores_nothing(world, shard):
    """Its list is the older one, though its clock may be ahead."""
    await world.publisher().publish_due()
    first, second = await world.issue(shard), await world.issue(shard)
    await world.revoke(first)

    async def overtake():
        await world.revoke(second)
        await world.publisher().publish_due()
        world.now += HOUR

    slow = world.publisher(signer=Interrupted(world, overtake))
    (due,) = await due_now(world)
    assert not await slow.publish(due)
    assert serials(await world.full(shard)) == {first, second}


async def test_two_publishers_at_once(world, shard):
    publishers = [world.publisher() for _ in range(2)]
    revoked, last = set(), 0
    for _ in range(15):
        revoked.add(serial := await world.issue(shard))
        await asyncio.gather(world.revoke(serial), *(one.publish_due() for one in publishers))
        world.now += SECOND
        await asyncio.gather(*(one.publish_due() for one in publishers))
        full = await world.full(shard)
        assert serials(full) == revoked
        assert number(full) > last
        last = number(full)
        assert support.applied(full, await world.delta(shard)) == listed(full)
    assert await world.queue() == 0


async def due_now(world):
    rules = support.RULES
    found = await crls.due(
        world.database, refresh=rules.refresh, root_refresh=rules.root_refresh, now=world.now
    )
    return [one for one in found if not one.of_root]


# ---------------------------------------------------------------- roots


async def test_a_roots_crl_lists_its_intermediates(world, hierarchy, root_key):
    await world.add(hierarchy, root_key="file:root.key")
    world.keys["file:root.key"] = root_key
    publisher, shard = world.publisher(), root_shard(hierarchy)
    await publisher.publish_due()
    empty = await world.full(shard)
    assert (listed(empty), empty.next_update_utc) == ({}, world.now + 180 * DAY)
    assert (await world.files(shard)).delta is None
    distribution = empty.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    assert (distribution.only_contains_user_certs, distribution.only_contains_ca_certs) == (False, True)
    assert distribution.full_name is None, "a CA certificate may name another address, or none"
    assert "freshestCRL" not in {e.oid._name for e in empty.extensions}
    await issuers.revoke(
        world.database,
        hierarchy.intermediate.id,
        reason=RevocationReason.CA_COMPROMISE,
        actor=Actor("operator"),
        now=world.now,
    )
    world.now += SECOND
    await publisher.publish_due()
    full = await world.full(shard)
    assert [entry.serial_number for entry in full] == [hierarchy.intermediate.certificate.serial_number]
    assert reason(full, f"{hierarchy.intermediate.certificate.serial_number:032x}") is FLAGS.ca_compromise
    assert full.is_signature_valid(hierarchy.root.public_key)


async def test_an_intermediate_that_has_cas_below_it_lists_these_too(world):
    """In its shard 0, which is then about both; the others are about leaves."""
    highest, middle, below = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    root = certify.make_root(subject("Highest"), highest, path_length=2, now=NOW)
    made = certify.make_intermediate(
        subject("Middle"),
        middle.public_key(),
        Parent(certificate=root, key=highest),
        path_length=1,
        now=NOW,
    )
    lowest = certify.make_intermediate(
        subject("Below"), below.public_key(), Parent(certificate=made, key=middle), now=NOW
    )
    above = issuer(made, middle, chain=(made,))
    shard = await world.add(Hierarchy(root=issuer(root, None, chain=()), intermediate=above))
    child = issuer(lowest, below, chain=(lowest, made))
    record = record_of(
        child,
        IssuerKind.INTERMEDIATE,
        parent=above.id,
        key_uri=None,
        state=IssuerState.ACTIVE,
        now=world.now,
    )
    await issuers.register(world.database, record, actor=Actor("operator"))
    await world.database.execute("UPDATE issuer SET open_shard = 1 WHERE id = $1", above.id)
    await world.revoke(serial := await world.issue(shard))
    await world.room.revoke_issuer(child.id, by=OPERATOR, reason=RevocationReason.CA_COMPROMISE)
    await world.publisher().publish_due()
    assert serials(await world.full(shard)) == {serial, f"{lowest.serial_number:032x}"}
    about = []
    for number_ in (0, 1):
        full = await world.full(shard._replace(number=number_))
        distribution = full.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
        about.append((distribution.only_contains_user_certs, distribution.only_contains_ca_certs))
    assert about == [(False, False), (True, False)]


async def test_a_root_signs_again_in_the_second_half_of_its_crls_life(world, hierarchy, root_key):
    await world.add(hierarchy, root_key="file:root.key")
    world.keys["file:root.key"] = root_key
    publisher, shard = world.publisher(), root_shard(hierarchy)
    await publisher.publish_due()
    first = number(await world.full(shard))
    for days, fresh in ((89, True), (2, False)):
        world.now += days * DAY
        await publisher.publish_due()
        assert (number(await world.full(shard)) == first) is fresh


async def test_a_root_out_of_reach_is_asked_seldom(world, hierarchy, root_key):
    await world.add(hierarchy, root_key="file:root.key")
    publisher, shard = world.publisher(), root_shard(hierarchy)
    await publisher.publish_due()
    world.keys["file:root.key"] = root_key
    for wait, found in ((timedelta(0), False), (ROOT_PAUSE, True)):
        world.now += wait
        await publisher.publish_due()
        assert (await crls.files(world.database, shard) is not None) is found


async def test_the_audit_knows_every_crl_by_its_hash(world, shard):
    await world.publisher().publish_due()
    row = await world.database.fetchrow("SELECT * FROM audit_event WHERE event = 'crl.published'")
    assert (row["actor"], row["object"]) == ("server", f"crl:{shard.issuer}/0")
    detail, files = json.loads(row["detail"]), await world.files(shard)
    assert detail["number"] == files.number
    assert detail["sha256"] == hashlib.sha256(files.der).hexdigest()
    assert detail["delta_sha256"] == hashlib.sha256(files.delta).hexdigest()


# ---------------------------------------------------------------- clocks


@pytest.mark.parametrize("back", [timedelta(seconds=90), HOUR, 30 * DAY], ids=str)
async def test_after_the_clock_went_back_all_is_made_anew_at_once(world, shard, back):
    """No relying party takes a CRL whose thisUpdate is still to come."""
    world.now += timedelta(microseconds=123456)
    publisher, serial = world.publisher(), await world.issue(shard)
    await publisher.publish_due()
    first = await world.full(shard)
    world.now -= back
    await publisher.publish_due()
    full, delta = await world.full(shard), await world.delta(shard)
    assert number(delta) == number(full) > number(first)
    assert delta.last_update_utc == full.last_update_utc <= world.now < first.last_update_utc
    await publisher.publish_due()
    assert await world.full(shard) == full, "once is enough"
    await world.revoke(serial)
    await publisher.publish_due()
    assert serial in serials(await world.full(shard))
