"""CRLs of roots whose key is elsewhere: the list that goes out, and what is made of the CRL that comes in."""

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import ValidationError

from acme_ca.ca import crls as signing
from acme_ca.core.actors import SERVER, Actor
from acme_ca.core.ids import serial_text
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.problems import Problem
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.root_list import RootList
from acme_ca.revocation.freshness import PAUSE, Freshness
from acme_ca.revocation.root_crl import MAX_AHEAD, RootCrls
from acme_ca.storage import crls
from acme_ca.storage import issuers as issuer_store
from acme_ca.storage.crls import Shard
from tests.support.crls import BASE_URL, OPERATOR, RULES, estate, number, serials
from tests.support.issuing import NOW
from tests.support.records import DAY

SECOND = timedelta(seconds=1)


@pytest.fixture
async def world(database_url, hierarchy):
    async with estate(database_url, NOW) as made:
        await made.add(hierarchy)
        yield made


@pytest.fixture
def shard(hierarchy):
    return Shard(hierarchy.root.id, 0)


@pytest.fixture
def roots(world):
    return RootCrls(
        database=world.database, public_http_url=BASE_URL, lifetime=RULES.root_lifetime, clock=world.clock
    )


@pytest.fixture
def signed(world, roots, hierarchy, root_key):
    """A function: the root's CRL as the list wants it, carried out and in."""

    async def sign():
        wanted = RootList.model_validate_json((await roots.list_for(hierarchy.root.id)).model_dump_json())
        root = hierarchy.root.certificate
        return signing.sign(
            root, root_key, wanted.unsigned(root_ends=root.not_valid_after_utc, now=world.now)
        )

    return sign


async def revoke_intermediate(world, hierarchy):
    reason = RevocationReason.CA_COMPROMISE
    await world.room.revoke_issuer(hierarchy.intermediate.id, by=OPERATOR, reason=reason)
    return serial_text(hierarchy.intermediate.certificate.serial_number)


async def test_a_list_goes_out_and_a_crl_comes_in(world, roots, hierarchy, signed, shard):
    assert await roots.upload(await signed(), actor=Actor("operator")) == shard.issuer
    first = await world.full(shard)
    assert serials(first) == set()
    assert first.next_update_utc == world.now + RULES.root_lifetime
    serial = await revoke_intermediate(world, hierarchy)
    assert await world.queue() == 1
    world.now += SECOND
    (revoked,) = (await roots.list_for(shard.issuer)).revoked
    assert (revoked.serial, revoked.reason) == (serial, "cACompromise")
    assert "Intermediate" in revoked.subject
    await roots.upload(await signed(), actor=Actor("operator"))
    assert serials(await world.full(shard)) == {serial}
    assert number(await world.full(shard)) > number(first)
    assert await world.queue() == 0
    events = "SELECT count(*) FROM audit_event WHERE event = 'crl.uploaded' AND actor = 'operator'"
    assert await world.database.fetchval(events) == 2


async def test_what_was_installed_below_a_cross_certificate_of_the_root_is_listed(
    world, roots, hierarchy, signed, shard
):
    """Relying parties see one CA: it signed the intermediate, and its CRL has to say so."""
    root = (await issuer_store.all_issuers(world.database))[0]
    cross = replace(root, id="c" * 32, der=b"the root, signed by another", kind=IssuerKind.CROSS)
    await issuer_store.register(world.database, cross, actor=SERVER)
    await world.database.execute("UPDATE issuer SET parent_id = $1 WHERE kind = 'intermediate'", cross.id)
    serial = await revoke_intermediate(world, hierarchy)
    assert await world.queue() == 1
    assert [revoked.serial for revoked in (await roots.list_for(shard.issuer)).revoked] == [serial]
    await roots.upload(await signed(), actor=Actor("operator"))
    assert serials(await world.full(shard)) == {serial}
    assert await world.queue() == 0


async def test_its_number_is_above_the_last_whatever_the_clock_beside_the_key_says(
    world, roots, signed, shard
):
    await roots.upload(await signed(), actor=Actor("operator"))
    last = number(await world.full(shard))
    world.now -= DAY
    await roots.upload(await signed(), actor=Actor("operator"))
    assert number(await world.full(shard)) == last + 1


async def test_a_crl_from_before_a_revocation_is_refused(world, roots, hierarchy, signed):
    before = await signed()
    serial = await revoke_intermediate(world, hierarchy)
    with pytest.raises(Problem, match=f"does not list {serial}"):
        await roots.upload(before, actor=Actor("operator"))
    assert await world.queue() == 1


async def test_the_same_crl_twice_is_refused(roots, signed):
    der = await signed()
    await roots.upload(der, actor=Actor("operator"))
    with pytest.raises(Problem, match="not above"):
        await roots.upload(der, actor=Actor("operator"))


async def test_a_crl_whose_time_is_wrong_is_refused(world, roots, signed):
    der, now = await signed(), world.now
    for moment, said in ((now - MAX_AHEAD - DAY, "still to come"), (now + RULES.root_lifetime, "has passed")):
        world.now = moment
        with pytest.raises(Problem, match=said):
            await roots.upload(der, actor=Actor("operator"))


def crl_of(root, key, *extensions, name=None, number_=1):
    """By hand, as another program would make it."""
    numbered = [(x509.CRLNumber(number_), False)] if number_ else []
    return (
        x509.CertificateRevocationListBuilder(
            name or root.subject,
            NOW.replace(microsecond=0),
            NOW.replace(microsecond=0) + DAY,
            [x509.Extension(value.oid, critical, value) for value, critical in (*numbered, *extensions)],
        )
        .sign(key, hashes.SHA384())
        .public_bytes(Encoding.DER)
    )


def scope(*urls, user=False, cas=False, indirect=False):
    names = [x509.UniformResourceIdentifier(url) for url in urls] or None
    point = x509.IssuingDistributionPoint(names, None, user, cas, None, indirect, False)
    return point, True


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "no CRL", id="nothing"),
        pytest.param(b"0\x03\x02\x01\x00", "no CRL", id="no CRL"),
    ],
)
async def test_what_is_no_crl_is_refused(roots, content, said):
    with pytest.raises(Problem, match=said):
        await roots.upload(content, actor=Actor("operator"))


async def test_a_crl_of_another_is_refused(roots, hierarchy, root_key):
    root, other = hierarchy.root.certificate, ec.generate_private_key(ec.SECP384R1())
    for der in (
        crl_of(root, other),
        crl_of(root, root_key, name=hierarchy.intermediate.certificate.subject),
        crl_of(hierarchy.intermediate.certificate, hierarchy.intermediate.key),
    ):
        with pytest.raises(Problem, match="No root"):
            await roots.upload(der, actor=Actor("operator"))
    with pytest.raises(Problem, match="no CRL"):
        await roots.upload(crl_of(root, root_key) + b"\0", actor=Actor("operator"))


async def test_a_crl_that_is_not_all_of_it_is_refused(roots, hierarchy, root_key, shard):
    root, url = hierarchy.root.certificate, f"{BASE_URL}/crl/{shard.issuer}/0.crl"
    for extensions, said in (
        ([(x509.DeltaCRLIndicator(1), True)], "a delta's"),
        ([scope(url, cas=True)], "issuingDistributionPoint"),
        ([scope(user=True)], "issuingDistributionPoint"),
        ([scope(indirect=True)], "issuingDistributionPoint"),
    ):
        with pytest.raises(Problem, match=said):
            await roots.upload(crl_of(root, root_key, *extensions, number_=5), actor=Actor("operator"))
    for number_, said in ((0, "no number"), (1 << 62, "too large")):
        with pytest.raises(Problem, match=said):
            await roots.upload(crl_of(root, root_key, number_=number_), actor=Actor("operator"))


async def test_a_crl_made_by_other_means_is_taken(world, roots, hierarchy, root_key, shard):
    """Without a scope it is about all that the root issues."""
    root = hierarchy.root.certificate
    await roots.upload(crl_of(root, root_key, number_=7), actor=Actor("operator"))
    await roots.upload(crl_of(root, root_key, scope(cas=True), number_=8), actor=Actor("operator"))
    assert number(await world.full(shard)) == 8


async def test_lists_that_were_changed_on_the_way(roots, hierarchy):
    good = (await roots.list_for(hierarchy.root.id)).model_dump(mode="json")
    revoked = {"serial": "0" * 32, "subject": "", "revoked": "2026-01-01T00:00:00Z", "reason": "superseded"}
    RootList.model_validate({**good, "revoked": [revoked]})
    for change in (
        {"issuer": "x"},
        {"above": -1},
        {"days": 0},
        {"more": 1},
        {"revoked": [{**revoked, "reason": "certificateHold"}]},
        {"revoked": [{**revoked, "serial": "1"}]},
        {"revoked": [{**revoked, "revoked": "2026-01-01T00:00:00"}]},
    ):
        with pytest.raises(ValidationError):
            RootList.model_validate({**good, **change})


async def test_what_expired_since_the_last_crl_is_listed_once_more(world, roots, hierarchy, signed, shard):
    await roots.upload(await signed(), actor=Actor("operator"))
    serial = await revoke_intermediate(world, hierarchy)
    world.now = hierarchy.intermediate.not_after + DAY
    for expected in ({serial}, set()):
        world.now += SECOND
        await roots.upload(await signed(), actor=Actor("operator"))
        assert serials(await world.full(shard)) == expected


async def test_only_roots_have_lists(roots, hierarchy):
    for issuer in (hierarchy.intermediate.id, "0" * 32):
        with pytest.raises(Problem, match="no such root"):
            await roots.list_for(issuer)


async def test_what_is_refused_of_ca_certificates(world, hierarchy):
    superseded, hold = RevocationReason.SUPERSEDED, RevocationReason.CERTIFICATE_HOLD
    for issuer, reason, said in (
        (hierarchy.root.id, superseded, "not revoked but trusted no more"),
        ("0" * 32, superseded, "no such CA certificate"),
        (hierarchy.intermediate.id, hold, "not put on hold"),
    ):
        with pytest.raises(Problem, match=said):
            await world.room.revoke_issuer(issuer, by=OPERATOR, reason=reason)
    await world.room.revoke_issuer(hierarchy.intermediate.id, by=OPERATOR, reason=superseded)
    with pytest.raises(Problem, match="only be changed to keyCompromise"):
        await world.room.revoke_issuer(hierarchy.intermediate.id, by=OPERATOR, reason=superseded)


# ---------------------------------------------------------------- freshness


@pytest.fixture
def freshness(world):
    return Freshness(database=world.database, rules=RULES, clock=world.clock)


async def test_crls_that_get_old_are_noticed(world, freshness):
    assert await freshness.look() == "stale", "none was made yet"
    await world.publisher().publish_due()
    assert await freshness.look() == "stale", "it is not looked at each time"
    world.now += PAUSE
    assert await freshness.look() == "ok"
    world.now += RULES.late
    assert await freshness.look() == "stale"


async def test_freshness_is_looked_at_anew_when_the_clock_was_set_back(world, freshness, shard):
    await world.publisher().publish_due()
    assert await freshness.look() == "ok"
    await world.database.execute("DELETE FROM crl")
    world.now -= DAY
    assert await freshness.look() == "stale"


async def test_a_roots_crl_that_nears_its_end_is_noticed(world, freshness, roots, signed, shard):
    await roots.upload(await signed(), actor=Actor("operator"))
    for passed, state in (
        (timedelta(0), "ok"),
        (RULES.root_lifetime - RULES.root_warning - DAY, "ok"),
        (DAY, "late"),
        (RULES.root_warning, "over"),
    ):
        world.now += passed
        await world.publisher().publish_due()
        found = await crls.states(
            world.database, late=RULES.late, root_warning=RULES.root_warning, now=world.now
        )
        assert next(one.state for one in found if one.shard == shard) == state
        assert await freshness.look() == ("ok" if state == "ok" else "stale")


async def test_a_root_that_is_another_s_to_keep_is_not_missed(world, hierarchy, freshness):
    """No certificate names a CRL of it here, and its key is not here."""
    await world.publisher().publish_due()
    found = await crls.states(world.database, late=RULES.late, root_warning=RULES.root_warning, now=world.now)
    assert [one.shard.issuer for one in found] == [hierarchy.intermediate.id]
    named = b"http://ca.test/crl/" + hierarchy.root.id.encode() + b"/0.crl"
    await world.database.execute(
        "UPDATE issuer SET der = der || $1 WHERE id = $2", named, hierarchy.intermediate.id
    )
    found = await crls.states(world.database, late=RULES.late, root_warning=RULES.root_warning, now=world.now)
    assert {one.shard.issuer: one.state for one in found} == {
        hierarchy.intermediate.id: "ok",
        hierarchy.root.id: "missing",
    }
