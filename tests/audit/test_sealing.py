"""The chain of seals: everything that an attacker with the database may do to the audit is found, and nothing else is."""

import asyncio
import contextlib
import re
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.audit import chain, sealing, signers, verify
from acme_ca.audit.chain import Checkpoint
from acme_ca.audit.numbering import PAUSE, Numbering
from acme_ca.audit.signers import Trust
from acme_ca.ca import profiles
from acme_ca.core.actors import SERVER
from acme_ca.storage import issuers as issuer_store
from acme_ca.storage import operations, seals
from acme_ca.storage.database import Database
from tests.support.issuing import NOW
from tests.support.records import issuer_record
from tests.support.trails import ORIGIN, Trail


@pytest.fixture
async def trail(database_url, hierarchy, tmp_path):
    """An audit trail that is sealed."""
    async with Database.open(database_url, connections=8) as database:
        intermediate = hierarchy.intermediate
        der = intermediate.certificate.public_bytes(Encoding.DER)
        await issuer_store.register(database, issuer_record(intermediate.id, der=der), actor=SERVER)
        await profiles.register(database, now=NOW)
        yield Trail(database, hierarchy, tmp_path)


@pytest.fixture
async def sealed(trail):
    """Three seals, the last of seven events."""
    for _ in range(3):
        await trail.act(7)
        await trail.seal()
    return trail


# ---------------------------------------------------------------- nothing is wrong


async def test_a_trail_that_nobody_touched_verifies(sealed):
    report = await sealed.verify()
    assert (report.findings, report.seals, report.tail.events) == ([], 3, 0)
    count = await sealed.database.fetchval("SELECT count(*) FROM audit_event")
    assert report.events == count
    await sealed.act(2)
    report = await sealed.verify()
    assert (report.findings, report.events, report.tail.events) == ([], count, 2)
    assert report.tail.since == NOW


async def test_nothing_is_sealed_when_nothing_happened(sealed):
    assert await sealed.seal() == 0
    assert (await sealed.verify()).seals == 3


async def test_an_empty_trail_verifies(trail):
    report = await trail.verify()
    assert (report.findings, report.seals, report.last) == ([], 0, None)


async def test_a_seal_takes_in_so_many_events_and_no_more(trail, monkeypatch):
    monkeypatch.setattr(sealing, "MOST_EVENTS", 10)
    await trail.act(25)
    sealed = await trail.seal()
    report = await trail.verify()
    assert (report.findings, report.events) == ([], sealed)
    assert report.seals == -(-sealed // 10)


async def test_ids_that_were_drawn_and_never_used_are_no_gap(trail):
    await trail.act(2)
    with contextlib.suppress(ZeroDivisionError):
        async with trail.database.transaction() as connection:
            await operations.record_event(connection, at=NOW, event="x", actor=SERVER, object_="x", detail={})
            raise ZeroDivisionError
    await trail.act(2)
    await trail.seal()
    assert await trail.wrong() == []


async def test_a_checkpoint_is_verified_with_openssl_as_the_docs_say(sealed):
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    recipe = re.findall(r"^    ((?:sed|openssl) .*)$", page, re.MULTILINE)
    assert len(recipe) == 4
    script = "\n".join(recipe).replace("checkpoint.txt", sealed.checkpoint.name)
    command = ["sh", "-ec", script]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=sealed.checkpoint.parent, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "Verified OK", done.stderr
    sealed.checkpoint.write_text(sealed.checkpoint.read_text().replace("seal 3", "seal 4"))
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=sealed.checkpoint.parent, capture_output=True, text=True, check=False
    )
    assert "Verified OK" not in done.stdout


# ---------------------------------------------------------------- tampering

CHANGES = {
    "at": "at = at + interval '1 microsecond'",
    "at, beyond all years": "at = 'infinity'",
    "at, before our era": "at = at - interval '4000 years'",
    "event": "event = 'thing.undone'",
    "actor": "actor = 'operator:mallory'",
    "source": "source = '192.0.2.2'",
    "object": "object = 'thing:other'",
    "detail": """detail = '{"before": 3, "after": "b"}'""",
    "detail, its white space": "detail = (detail::text || ' ')::json",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_changed_event_is_named(sealed, change):
    third = (await sealed.ids())[10]
    await sealed.as_owner(f"UPDATE audit_event SET {change} WHERE id = {third}")
    assert await sealed.wrong() == [("event.changed", f"audit_event:{third}")]


async def test_a_deleted_event_is_named(sealed):
    third = (await sealed.ids())[10]
    await sealed.as_owner(f"DELETE FROM audit_event WHERE id = {third}")
    assert await sealed.wrong() == [("event.missing", f"audit_event:{third}")]


@pytest.mark.parametrize("place", ["in a gap", "before all"])
async def test_an_event_put_between_is_named(trail, place):
    await trail.act(3)
    gap = await trail.database.fetchval("SELECT nextval(pg_get_serial_sequence('audit_event', 'id'))")
    await trail.act(3)
    await trail.seal()
    id_ = gap if place == "in a gap" else -7
    await trail.database.execute(
        f"""INSERT INTO audit_event (id, at, event, actor, object) OVERRIDING SYSTEM VALUE
            VALUES ({id_}, now(), 'thing.done', 'operator:bob', 'thing:1')"""
    )
    assert await trail.wrong() == [("event.inserted", f"audit_event:{id_}")]


async def test_events_that_changed_places_are_named(sealed):
    one, other = (await sealed.ids())[10:12]
    await sealed.as_owner(
        f"""ALTER TABLE audit_event ALTER id DROP IDENTITY;
            UPDATE audit_event SET id = -1 WHERE id = {one};
            UPDATE audit_event SET id = {one} WHERE id = {other};
            UPDATE audit_event SET id = {other} WHERE id = -1"""
    )
    report = await sealed.verify()
    assert [(finding.code, finding.object) for finding in report.findings] == [
        ("event.moved", f"audit_event:{one}"),
        ("event.moved", f"audit_event:{other}"),
    ]
    assert f"event {other}" in report.findings[0].sentence


SEAL_CHANGES = {
    "at": "at = at + interval '1 second'",
    "origin": "origin = 'https://other.test'",
    "first_event": "first_event = first_event - 1",
    "entries": "entries = set_byte(entries, 20, get_byte(entries, 20) # 1)",
    "previous": "previous = set_byte(previous, 0, get_byte(previous, 0) # 1)",
    "hash": "hash = set_byte(hash, 0, get_byte(hash, 0) # 1)",
    "signature": "signature = set_byte(signature, 20, get_byte(signature, 20) # 1)",
    "signature, gone": "signature = ''",
    "signer": "signer = sha256('x')",
}


@pytest.mark.parametrize("change", SEAL_CHANGES.values(), ids=SEAL_CHANGES)
async def test_a_changed_seal_is_named(sealed, change):
    await sealed.as_owner(f"UPDATE audit_seal SET {change} WHERE id = 2")
    wrong = await sealed.wrong()
    assert "audit_seal:2" in {object_ for _, object_ in wrong}
    assert {code for code, _ in wrong} <= {
        "seal.changed",
        "seal.signature",
        "seal.order",
        "event.changed",
    }


async def test_a_missing_seal_is_named_and_the_others_still_prove_theirs(sealed):
    await sealed.as_owner("DELETE FROM audit_seal WHERE id = 2")
    assert await sealed.wrong() == [("seal.missing", "audit_seal:2")]
    last = (await sealed.ids())[-1]
    await sealed.as_owner(f"UPDATE audit_event SET actor = 'x' WHERE id = {last}")
    assert ("event.changed", f"audit_event:{last}") in await sealed.wrong()


async def test_a_tail_that_was_cut_off_is_found_by_a_checkpoint_of_elsewhere(sealed):
    kept = Checkpoint.parse(sealed.checkpoint.read_text())
    assert await sealed.wrong(kept) == []
    await sealed.as_owner(
        """DELETE FROM audit_event WHERE id >= (SELECT first_event FROM audit_seal WHERE id = 3);
           DELETE FROM audit_seal WHERE id = 3"""
    )
    assert await sealed.wrong() == [], "nothing in the database tells of it"
    assert await sealed.wrong(kept) == [("trail.cut-off", "audit_seal:3")]
    await sealed.act(1)
    await sealed.seal()
    assert await sealed.wrong(kept) == [("trail.replaced", "audit_seal:3")]


# ---------------------------------------------------------------- forged signatures


async def test_seals_of_another_key_are_not_believed(sealed):
    """The whole chain made anew by an attacker, with a certificate of the attacker's own CA, which the database knows."""
    event = (await sealed.ids())[3]
    await sealed.as_owner(f"UPDATE audit_event SET actor = 'operator:bob' WHERE id = {event}")
    await forge(sealed, *_attacker())
    assert {code for code, _ in await sealed.wrong()} == {"seal.signature"}
    assert len(await sealed.wrong()) == 3


@pytest.mark.parametrize("kind", ["with a name", "for another purpose"])
async def test_certificates_of_the_ca_that_clients_can_have_seal_nothing(sealed, hierarchy, kind):
    key = ec.generate_private_key(ec.SECP256R1())
    usage = signers.AUDIT_SIGNING if kind == "with a name" else x509.ExtendedKeyUsageOID.SERVER_AUTH
    names = x509.SubjectAlternativeName([x509.DNSName("mallory.test")])
    issuer = hierarchy.intermediate
    builder = _leaf(key, issuer.certificate.subject, usage)
    if kind == "with a name":
        builder = builder.add_extension(names, critical=False)
    await forge(sealed, key, builder.sign(issuer.key, issuer_hash(issuer)))
    assert {code for code, _ in await sealed.wrong()} == {"seal.signature"}


def issuer_hash(issuer):
    return signers.issuers.signature_hash(issuer.public_key)


def _attacker():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Mallory")])
    return key, _leaf(key, name, signers.AUDIT_SIGNING).sign(
        key, signers.issuers.signature_hash(key.public_key())
    )


def _leaf(key, issuer_name, usage):
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Audit signer")]))
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(1234)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )


async def forge(trail, key, certificate):
    """All seals made anew over the events as they are now."""
    old = [seal async for seal in seals.seals(trail.database, until=2**62)]
    events = [event async for event in seals.all_events(trail.database, until=2**62)]
    await trail.as_owner("DELETE FROM audit_seal")
    previous = chain.NOTHING
    der = certificate.public_bytes(Encoding.DER)
    for seal in old:
        covered = [event for event in events if seal.first_event <= event.id <= seal.last_event]
        fresh = replace(seal, entries=chain.entries_of(covered), previous=previous, signer=der)
        fresh = replace(fresh, hash=chain.hash_of(fresh))
        text = Checkpoint.of(fresh).text.encode()
        hash_ = signers.issuers.signature_hash(key.public_key())
        fresh = replace(fresh, signature=key.sign(text, ec.ECDSA(hash_)))
        assert await seals.add(
            trail.database, fresh, signer_sha256=chain.hashlib.sha256(der).digest(), signer_serial=""
        )
        previous = fresh.hash


async def test_a_root_that_the_attacker_put_in_the_database_is_not_the_one_given(sealed, hierarchy):
    other = Trust(hierarchy.intermediate.certificate, [])
    report = await verify.verify(sealed.database, other)
    assert report.errors == 0, "trusting the intermediate itself"
    key, certificate = _attacker()
    report = await verify.verify(sealed.database, Trust(certificate, [hierarchy.intermediate.certificate]))
    assert {finding.code for finding in report.findings} == {"seal.signature"}
    del key


# ---------------------------------------------------------------- keys, crashes, others at the same time


async def test_while_the_key_store_is_away_events_wait(trail):
    await trail.act(3)
    trail.keys.away = True
    assert await trail.seal() == 0
    assert "the key that seals the audit is not renewed" in trail.log.calls[0].args[0]
    assert await trail.seal() == 0
    assert len(trail.log.calls) == 1, "told once"
    trail.keys.away = False
    assert await trail.seal() > 3
    assert await trail.wrong() == []
    trail.keys.away = True
    await trail.act(1)
    assert await trail.seal() == 1, "the key that there is goes on"


async def test_the_key_is_renewed_and_both_generations_verify(trail):
    await trail.act(1)
    await trail.seal()
    trail.clock.now += timedelta(days=70)
    await trail.act(1)
    await trail.seal()
    assert await trail.wrong() == []
    assert await trail.database.fetchval("SELECT count(*) FROM audit_signer") == 2


async def test_a_crash_before_the_seal_loses_nothing_and_one_after_it_seals_nothing_twice(trail, monkeypatch):
    class Crash(BaseException): ...

    def crash(*_, **__):
        raise Crash

    await trail.act(3)
    for place in ("entries_of", "hash_of", "signed_text"):
        with monkeypatch.context() as patched:
            patched.setattr(chain, place, crash)
            with pytest.raises(Crash):
                await trail.seal()
    report = await trail.verify()
    assert (report.findings, report.seals) == ([], 1), "the last crash came after the seal was written"
    assert await trail.seal() == 0


async def test_many_write_while_two_seal(trail, tmp_path, monkeypatch):
    """Neither a false alarm nor a double seal, whatever the order of the commits."""
    monkeypatch.setattr(sealing, "MOST_EVENTS", 20)
    other = trail.sealer(tmp_path / "other" / "signer.pem")
    writing = True

    async def seal(sealer):
        while writing:
            await sealer.seal_due()
            await asyncio.sleep(0.01)

    async def write(number):
        for _ in range(25):
            await trail.act(1, object_=f"writer{number}")
            await asyncio.sleep(0.001 * (number % 3))

    sealers = [asyncio.create_task(seal(sealer)) for sealer in (trail.sealing, other)]
    await asyncio.gather(*map(write, range(8)))
    writing = False
    await asyncio.gather(*sealers)
    await trail.seal()
    report = await trail.verify()
    count = await trail.database.fetchval("SELECT count(*) FROM audit_event")
    assert (report.findings, report.events, report.tail.events) == ([], count, 0)
    assert report.seals > 5


async def test_an_event_that_is_not_committed_yet_is_not_passed_over(trail):
    """Its id is smaller than those that were committed meanwhile: nothing is sealed until it is there."""
    async with trail.database.transaction() as connection:
        await operations.record_event(
            connection, at=NOW, event="slow", actor=SERVER, object_="slow", detail={}
        )
        await trail.act(3)
        assert await seals.settled(trail.database) is None
        assert await trail.seal() == 0
    assert await trail.seal() >= 4
    assert await trail.wrong() == []


# ---------------------------------------------------------------- ids that nobody drew

_SEAL_ABOVE = """INSERT INTO audit_seal (id, at, origin, first_event, last_event, entries, previous, hash, signature, signer)
                 SELECT max(id) + 1, now(), '', 1, {id}, '', min(hash), min(hash), '', min(signer) FROM audit_seal"""
_TARGET_ABOVE = "INSERT INTO audit_forward VALUES ('syslog', {id}, now())"


async def put_event(trail, id_):
    await trail.database.execute(
        f"""INSERT INTO audit_event (id, at, event, actor, object) OVERRIDING SYSTEM VALUE
            VALUES ({id_}, now(), 'thing.done', 'operator:bob', 'thing:1')"""
    )


async def test_an_event_whose_id_somebody_chose_keeps_no_other_from_its_seal(sealed):
    """Once sealed, all that followed were below it: never sealed, never handed on."""
    above = await sealed.ids()
    await put_event(sealed, above[-1] + 1000)
    assert await sealed.seal() == 0, "it is not sealed"
    assert await seals.settled(sealed.database) == above[-1]
    await sealed.act(5)
    assert await sealed.seal() == 5
    report = await sealed.verify()
    assert (report.findings, report.tail.events) == ([], 1)


@pytest.mark.parametrize("id_", [2**62, 2**63 - 1])
@pytest.mark.parametrize(
    ("what", "statement"), [("seal", _SEAL_ABOVE), ("syslog", _TARGET_ABOVE), ("event", None)]
)
async def test_what_is_above_the_last_id_that_was_drawn_is_told_once(sealed, what, statement, id_):
    watch = Numbering(database=sealed.database, clock=sealed.clock)
    assert await watch.look() == "ok"
    if statement:
        await sealed.database.execute(statement.format(id=id_))
    else:
        await put_event(sealed, id_)
    assert await watch.look() == "ok", "anyone may ask: it looks now and then"
    sealed.clock.now += PAUSE
    assert await watch.look() == "odd ids"
    for _ in range(3):
        await sealed.act(1)
        await sealed.seal()
    (told,) = sealed.log.calls
    assert told.method_name == "error"
    assert "'of': ['" + what + "']" in str(told) or f"of=['{what}']" in str(told)


async def test_a_clock_that_was_set_back_keeps_no_old_answer(sealed):
    watch = Numbering(database=sealed.database, clock=sealed.clock)
    sealed.clock.now += timedelta(days=1)
    assert await watch.look() == "ok"
    sealed.clock.now -= timedelta(days=1)
    await sealed.database.execute(_SEAL_ABOVE.format(id=2**62))
    assert await watch.look() == "odd ids"


async def test_the_way_back_of_the_docs(sealed):
    """Ids go on above the seal that nobody should have made."""
    await sealed.database.execute(_SEAL_ABOVE.format(id=2**62))
    await sealed.act(3)
    assert await sealed.seal() == 0
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    (statement,) = re.findall(r"^    (SELECT setval\(.*);$", page, re.MULTILINE)
    await sealed.database.fetch(statement)
    await sealed.act(3)
    assert await sealed.seal() == 3
    assert await seals.above_drawn(sealed.database) == []
    await sealed.database.fetch(statement)
    await sealed.act(3)
    assert await sealed.seal() == 3, "once more takes nothing back"


async def test_the_way_back_of_the_docs_brings_no_ids_to_their_end(sealed):
    """Nothing could be issued or revoked any more."""
    await sealed.database.execute(_SEAL_ABOVE.format(id=2**63 - 1))
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    (statement,) = re.findall(r"^    (SELECT setval\(.*);$", page, re.MULTILINE)
    await sealed.database.fetch(statement)
    await sealed.act(3)
    assert await seals.above_drawn(sealed.database) == ["seal"]


async def test_a_target_may_have_come_as_far_as_ids_go(trail):
    """Before the first, too."""
    assert await seals.above_drawn(trail.database) == []
    await trail.database.execute("DELETE FROM audit_forward")
    last = await trail.database.fetchval("SELECT coalesce(max(id), 0) FROM audit_event")
    await trail.database.execute(_TARGET_ABOVE.format(id=last))
    assert await seals.above_drawn(trail.database) == []
    await trail.database.execute("UPDATE audit_forward SET last_event = last_event + 1")
    assert await seals.above_drawn(trail.database) == ["syslog"]


# ---------------------------------------------------------------- append-only


@pytest.mark.parametrize("table", ["audit_event", "audit_seal", "audit_signer"])
@pytest.mark.parametrize("act", ["UPDATE {} SET id = id", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
async def test_the_database_refuses_to_change_what_was_written(sealed, table, act):
    statement = act.format(table).replace(
        "SET id = id", "SET sha256 = sha256" if table == "audit_signer" else "SET at = at"
    )
    with pytest.raises(Exception, match="append-only"):
        await sealed.database.execute(statement)
    assert await sealed.wrong() == []


def test_the_checkpoint_is_read_as_it_is_written():
    at = NOW + timedelta(microseconds=1)
    made = Checkpoint(origin=ORIGIN, seal=7, last_event=99, hash=bytes(range(32)), at=at)
    assert Checkpoint.parse(made.text + "\nsignature x\n") == made
    for spoilt in (made.text[:-1], made.text.replace("seal 7", "seal 7x"), "x" + made.text, ""):
        with pytest.raises(ValueError, match="no checkpoint"):
            Checkpoint.parse(spoilt)


@pytest.mark.parametrize("last", [-(2**63), -1, 10**18, 2**62, 2**63 - 1])
def test_a_checkpoint_may_have_any_id(last):
    made = Checkpoint(origin=ORIGIN, seal=2**63 - 1, last_event=last, hash=bytes(32), at=NOW)
    assert Checkpoint.parse(made.text) == made


@pytest.mark.parametrize(("seal", "last"), [(1, 2**63), (1, -(2**63) - 1), (2**63, 1), (1, "٣")])
def test_a_checkpoint_with_an_id_that_no_database_has_is_none(seal, last):
    text = Checkpoint(origin=ORIGIN, seal=seal, last_event=last, hash=bytes(32), at=NOW).text
    with pytest.raises(ValueError, match="no checkpoint"):
        Checkpoint.parse(text)
