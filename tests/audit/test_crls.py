"""The rules of CRLs, by a database in which exactly one thing is spoiled, and by whatever happens to a CA."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.audit import check, crls
from acme_ca.audit.findings import Findings, Severity
from acme_ca.core import identifiers
from acme_ca.core.crl import Entry, pack, unpack
from acme_ca.core.policy import NamePolicy
from acme_ca.core.revocation import RevocationReason
from acme_ca.storage import issuers
from acme_ca.storage.audit import Scope
from acme_ca.storage.crls import Shard
from tests.audit.conftest import AUDIT_WITHOUT_TRIGGERS, KEPT
from tests.support import issuing
from tests.support.crls import OPERATOR, Estate, estate
from tests.support.issuing import NOW
from tests.support.records import DAY

SECOND = timedelta(seconds=1)
ROOT_KEY = "file:root.key"


class World:
    """An estate with five certificates: good, revoked, compromised, held, released; and their CRLs."""

    def __init__(self, of: Estate, shard: Shard, root: Shard) -> None:
        self.estate = of
        self.shard = shard
        self.root = root
        self.serials: dict[str, str] = {}
        self._publisher = of.publisher()

    @property
    def place(self) -> str:
        return f"crl:{self.shard.issuer}/0"

    async def publish(self) -> None:
        self.estate.now += SECOND
        await self._publisher.publish_due()

    async def sql(self, statement: str, *arguments: object) -> None:
        await self.estate.database.fetch(AUDIT_WITHOUT_TRIGGERS)
        await self.estate.database.fetch(statement, *arguments)

    async def checked(self, *, issuer: str | None = None, later: timedelta = SECOND) -> Findings:
        """The CRLs alone."""
        now, database = self.estate.now + later, self.estate.database
        background = await check.background(
            database, now=now, policy=NamePolicy(), own=identifiers.dns("ca.test"), evidence_kept=KEPT
        )
        scope = Scope(since=NOW, until=now, issuer=issuer)
        total = Findings()
        behind = check.Position(now, issuer="")
        async for step in check.steps(database, scope, background, after=behind):
            total += step.findings
        return total

    async def told(self, **options) -> set[tuple[str, str, str]]:
        found = (await self.checked(**options)).found
        return {(finding.severity.value, finding.code, finding.object) for finding in found}


@pytest.fixture
async def world(database_url, hierarchy, root_key):
    async with estate(database_url, NOW) as made:
        made.keys[ROOT_KEY] = root_key
        shard = await made.add(hierarchy, root_key=ROOT_KEY)
        world = World(made, shard, Shard(hierarchy.root.id, 0))
        for name in ("good", "revoked", "compromised", "held", "released"):
            world.serials[name] = await made.issue(shard)
        await made.revoke(world.serials["revoked"])
        await made.hold(world.serials["released"])
        await world.publish()
        await made.hold(world.serials["held"])
        since = NOW.replace(microsecond=0) - DAY
        reason = RevocationReason.KEY_COMPROMISE
        await made.revoke(world.serials["compromised"], reason, invalid_since=since)
        await made.release(world.serials["released"])
        await world.publish()
        yield world


async def test_what_a_ca_published_is_in_order(world):
    findings = await world.checked()
    assert findings.found == []
    assert findings.crls == 2
    assert (await world.checked(issuer=world.root.issuer)).crls == 1


# ---------------------------------------------------------------- spoiled rows

SPOILED = {
    "crl.number": "UPDATE crl SET number = number + 1",
    "crl.times": "UPDATE crl SET this_update = this_update + interval '1 second'",
    "crl.entries": "UPDATE crl SET entries = entries + 1",
    "crl.delta": "UPDATE crl SET base = '\\x'",
    "crl.address": "UPDATE crl SET urls = urls || '{http://old.test/crl/x/0.crl}'",
    "crl.audit": "UPDATE audit_event SET detail = '{}' WHERE object = 'crl:{issuer}/0'",
    "crl.history": """INSERT INTO audit_event (at, event, actor, object, detail)
        SELECT at, event, actor, object, detail FROM audit_event WHERE object = 'crl:{issuer}/0' ORDER BY id DESC LIMIT 1""",
    "crl.unreadable": "UPDATE crl SET der = der || '\\x00'",
}


@pytest.mark.parametrize("code", SPOILED)
async def test_what_is_spoiled_is_found_and_nothing_else(world, code):
    statement = SPOILED[code].replace("{issuer}", world.shard.issuer)
    if statement.startswith("UPDATE crl"):
        statement += f" WHERE issuer_id = '{world.shard.issuer}'"
    await world.sql(statement)
    assert await world.told() == {("error", code, world.place)}


# Whatever a row holds, the check comes to its end and finds it.
DAMAGED = {
    "an address": "UPDATE crl SET urls = '{http://[::}'",
    "no address": "UPDATE crl SET urls = '{NULL}'",
    "a base": "UPDATE crl SET base = '\\x01'",
    "a time": "UPDATE crl SET next_update = 'infinity'",
    **{
        f"{time} as {column}": f"UPDATE crl SET {column} = '{time}'"
        for time in ("4000-01-01 BC", "294000-01-01", "-infinity")
        for column in ("this_update", "next_update")
    },
    "the newest in an event": r"""UPDATE audit_event SET detail = '{"sha256": "\u0000"}' WHERE object LIKE 'crl:%'""",
    "half a character": r"""UPDATE audit_event SET detail = '{"sha256": "\ud800"}' WHERE object LIKE 'crl:%'""",
    "a number": "UPDATE crl SET number = 9223372036854775807",
    "bytes": "UPDATE crl SET der = '', delta = '\\x3000'",
    "an event": "UPDATE audit_event SET detail = '[]' WHERE object LIKE 'crl:%'",
    "the number in an event": """UPDATE audit_event SET detail = '{"number": "x"}' WHERE object LIKE 'crl:%'""",
    "a revocation": "UPDATE certificate SET revoked = 'infinity', status_changed = 'infinity' WHERE reason = 1",
}


@pytest.mark.parametrize("what", DAMAGED)
async def test_no_damage_ends_the_check_or_passes(world, what):
    await world.sql(DAMAGED[what])
    assert (await world.checked()).of(Severity.ERROR)


@pytest.mark.parametrize(
    ("code", "which", "statement"),
    [
        ("crl.not_listed", "good", "revoked = not_before, reason = 0, status_changed = not_before"),
        ("crl.listed", "revoked", "revoked = NULL, reason = NULL"),
        ("crl.listed", "revoked", "shard = 7"),
        ("crl.entry", "revoked", "reason = 5"),
        ("crl.entry", "revoked", "revoked = revoked - interval '1 second'"),
        ("crl.entry", "compromised", "invalid_since = NULL"),
    ],
)
async def test_a_crl_that_does_not_say_what_is_revoked(world, code, which, statement):
    """Lesson 16."""
    serial = world.serials[which]
    await world.sql(f"UPDATE certificate SET {statement} WHERE serial = $1", serial)
    assert await world.told() == {("error", code, f"certificate:{serial}")}


async def test_a_ca_certificate_that_is_not_listed(world, hierarchy):
    await world.sql("UPDATE issuer SET revoked = $1, reason = 1 WHERE parent_id IS NOT NULL", NOW)
    serial = f"{hierarchy.intermediate.certificate.serial_number:032x}"
    assert await world.told() == {("error", "crl.not_listed", f"certificate:{serial}")}


async def test_an_issuer_that_came_after_the_check_began(world):
    """It is for the next check."""
    now, database = world.estate.now + SECOND, world.estate.database
    background = await check.background(
        database, now=now, policy=NamePolicy(), own=identifiers.dns("ca.test"), evidence_kept=KEPT
    )
    known = {id_: one for id_, one in background.issuers.items() if id_ != world.shard.issuer}
    scope, behind = Scope(since=NOW, until=now, issuer=None), check.Position(now, issuer="")
    earlier = replace(background, issuers=known)
    found = [step.findings async for step in check.steps(database, scope, earlier, after=behind)]
    assert [(findings.crls, findings.found) for findings in found] == [(1, [])]


async def test_an_issuer_without_a_crl(world):
    """Lesson 17."""
    await world.sql("DELETE FROM crl WHERE issuer_id = $1", world.shard.issuer)
    assert await world.told() == set(), "a new issuer has an hour"
    assert await world.told(later=crls.MISSING_AFTER) == {("error", "crl.missing", world.place)}


async def test_a_crl_that_was_not_made_anew(world):
    """Of the root the CRL lives longer."""
    assert await world.told(later=2 * DAY) == {("error", "crl.expired", world.place)}
    assert await world.told(later=DAY - timedelta(hours=1)) == set()


# ---------------------------------------------------------------- signed otherwise


def rebuilt(crl: x509.CertificateRevocationList, key, **fields) -> bytes:
    """The same CRL but for some fields."""
    builder = x509.CertificateRevocationListBuilder(
        **{
            "issuer_name": crl.issuer,
            "last_update": crl.last_update_utc.replace(tzinfo=None),
            "next_update": crl.next_update_utc.replace(tzinfo=None),
            "extensions": list(crl.extensions),
            "revoked_certificates": list(crl),
            **fields,
        }
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def other_scope(crl: x509.CertificateRevocationList) -> list[x509.Extension]:
    """About CA certificates."""
    scope = x509.IssuingDistributionPoint(
        full_name=crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value.full_name,
        relative_name=None,
        only_contains_user_certs=False,
        only_contains_ca_certs=True,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )
    replaced = x509.Extension(scope.oid, True, scope)
    return [replaced if e.oid == scope.oid else e for e in crl.extensions]


@pytest.mark.parametrize("code", ["crl.issuer", "crl.signature", "crl.address", "crl.entries"])
async def test_the_issuer_signed_something_else(world, hierarchy, code):
    crl, key = await world.estate.full(world.shard), hierarchy.intermediate.key
    der = {
        "crl.issuer": lambda: rebuilt(crl, key, issuer_name=issuing.subject("Somebody else")),
        "crl.signature": lambda: rebuilt(crl, issuing.EC_KEY),
        "crl.address": lambda: rebuilt(crl, key, extensions=other_scope(crl)),
        "crl.entries": lambda: rebuilt(crl, key, revoked_certificates=[*crl, next(iter(crl))]),
    }[code]()
    await put(world, "der", der)
    assert await world.told() == {("error", code, world.place)}


async def test_a_delta_that_leaves_something_out(world, hierarchy):
    delta = await world.estate.delta(world.shard)
    assert len(delta) == 3, "a hold, a revocation, a release"
    await put(
        world, "delta", rebuilt(delta, hierarchy.intermediate.key, revoked_certificates=list(delta)[1:])
    )
    assert await world.told() == {("error", "crl.delta", world.place)}


async def put(world: World, column: str, der: bytes) -> None:
    """And the audit tells of it."""
    await world.sql(f"UPDATE crl SET {column} = $1 WHERE issuer_id = $2", der, world.shard.issuer)
    if column == "der":
        told = "jsonb_set(detail::jsonb, '{sha256}', to_jsonb($1::text))::json"
        sha256 = hashlib.sha256(der).hexdigest()
        await world.sql(f"UPDATE audit_event SET detail = {told} WHERE object = $2", sha256, world.place)


CODES = {
    *SPOILED,
    *("crl.issuer", "crl.signature", "crl.expired", "crl.missing"),
    *("crl.not_listed", "crl.listed", "crl.entry"),
}


def test_all_rules_are_spoiled():
    assert {code for code, _ in crls.RULES} <= CODES


# ---------------------------------------------------------------- what waits


async def test_changes_that_wait_for_the_next_crl_are_not_missed(world):
    world.estate.now += SECOND
    await world.estate.revoke(world.serials["good"])
    await world.estate.release(world.serials["held"])
    await world.estate.revoke(world.serials["revoked"], RevocationReason.KEY_COMPROMISE)
    assert await world.told() == set()
    assert await world.told(later=timedelta(minutes=11)) == {("note", "crl.overdue", world.place)}
    await world.sql("DELETE FROM crl_due")
    codes = {code for _, code, _ in await world.told()}
    assert codes == {"crl.not_listed", "crl.listed", "crl.entry"}


async def test_a_ca_certificate_that_waits(world):
    await issuers.revoke(
        world.estate.database,
        world.shard.issuer,
        reason=RevocationReason.CA_COMPROMISE,
        actor=OPERATOR,
        now=world.estate.now,
    )
    assert await world.told() == set()
    await world.publish()
    assert await world.told() == set()


async def test_a_wish_hides_nothing_else(world):
    """A lost revocation beside one that waits."""
    await world.estate.revoke(world.serials["good"])
    await world.sql(
        "UPDATE certificate SET revoked = NULL, reason = NULL WHERE serial = $1", world.serials["revoked"]
    )
    lost = f"certificate:{world.serials['revoked']}"
    assert await world.told() == {("error", "crl.listed", lost)}


# ---------------------------------------------------------------- the law


@given(
    st.lists(
        st.builds(
            Entry,
            st.integers(1, 2**128 - 1).map("{:032x}".format),
            st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)).map(  # noqa: DTZ001
                lambda time: time.replace(microsecond=0, tzinfo=NOW.tzinfo)
            ),
            st.integers(0, 10),
            st.none() | st.just(NOW.replace(microsecond=0)),
        )
    )
)
def test_what_is_packed_is_unpacked(entries):
    assert list(unpack(pack(entries))) == entries
