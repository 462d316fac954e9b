"""Each rule, by a database that a real CA filled and of which exactly one thing is spoiled then."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.audit import check
from acme_ca.audit.findings import Findings, Severity
from acme_ca.ca.hierarchy import Hierarchy
from acme_ca.core import identifiers
from acme_ca.core.ids import serial_text
from acme_ca.core.policy import NamePolicy
from acme_ca.storage.audit import Scope
from acme_ca.storage.database import Database
from tests.audit.conftest import AS_OWNER, AUDIT_WITHOUT_TRIGGERS, KEPT
from tests.support import issuing
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP

LATER = timedelta(minutes=5)
OTHER = "f" * 32


@dataclass(frozen=True)
class Stock:
    """A database and what is in it. `leaves`: by what they are there for."""

    name: str
    hierarchy: Hierarchy
    leaves: dict[str, x509.Certificate]

    def serial(self, which: str) -> str:
        return serial_text(self.leaves[which].serial_number)


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def stock(postgres, new_ca, hierarchy) -> AsyncIterator[Stock]:
    name = await postgres.create()
    async with new_ca(dsn=postgres.url(name)) as ca:
        account, _ = await ca.account(), await ca.account()
        shared = issuing.csr(plain := ca.name(), key=new_key())
        leaves = {
            "plain": (await (await account.order(plain)).issue(ca.web, shared))[0],
            "twin": (await (await account.order(plain)).issue(ca.web, shared))[0],
            "pair": await issued(ca, account, ca.name(), ca.name()),
            "revoked": await issued(ca, account, ca.name()),
        }
        await account.revoke(leaves["revoked"].public_bytes(Encoding.DER))
        wildcard = await (await account.order(f"*.{ca.name()}")).prove_by_dns(ca.dns)
        await wildcard.finalize(issuing.csr(*wildcard.names, key=new_key()))
        answer = await account.read((await wildcard.read())["certificate"])
        leaves["wildcard"] = x509.load_pem_x509_certificate(answer.body)
    yield Stock(name, hierarchy, leaves)
    await postgres.drop(name)


async def issued(ca, account, *names: str) -> x509.Certificate:
    order = await account.order(*names)
    return (await order.issue(ca.web, issuing.csr(*names, key=new_key())))[0]


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest_asyncio.fixture(loop_scope="session")
async def database(postgres, stock) -> AsyncIterator[Database]:
    """A copy for this test alone."""
    name = await postgres.copy(stock.name)
    async with Database.open(postgres.url(name), connections=1) as opened:
        await opened.fetch(AS_OWNER)
        await opened.fetch(AUDIT_WITHOUT_TRIGGERS)
        yield opened
    await postgres.drop(name)


async def checked(
    database: Database, *, policy: NamePolicy | None = None, own: str = "ca.test", **scope
) -> Findings:
    now = datetime.now(UTC) + LATER
    limits = {"since": datetime.fromtimestamp(0, UTC), "until": now, "issuer": None, **scope}
    background = await check.background(
        database, now=now, policy=policy or NamePolicy(), own=identifiers.dns(own), evidence_kept=KEPT
    )
    total = Findings()
    after = check.Position(limits["since"])
    async for step in check.steps(database, Scope(**limits), background, after=after):
        total += step.findings
    return total


def told(findings: Findings) -> set[tuple[str, str, str]]:
    return {(finding.severity.value, finding.code, finding.object) for finding in findings.found}


async def test_what_a_ca_did_is_in_order(database):
    findings = await checked(database)
    assert findings.found == []
    assert (findings.certificates, findings.own, findings.unsigned, findings.unproved) == (7, 2, 0, 0)


# ---------------------------------------------------------------- what was signed


def with_names(*names: str) -> Callable[[x509.Certificate], x509.CertificateBuilder]:
    def spoil(leaf: x509.Certificate) -> x509.CertificateBuilder:
        builder = issuing.builder_like(leaf, without=x509.SubjectAlternativeName)
        return builder.add_extension(
            x509.SubjectAlternativeName(issuing.general_names(*names)), critical=False
        )

    return spoil


def with_field(name: str, value: object) -> Callable[[x509.Certificate], x509.CertificateBuilder]:
    return lambda leaf: issuing.builder_like(leaf, fields={name: value})


def with_staple(leaf: x509.Certificate) -> x509.CertificateBuilder:
    staple = x509.TLSFeature([x509.TLSFeatureType.status_request])
    return issuing.builder_like(leaf).add_extension(staple, critical=False)


SIGNED_OTHERWISE = {
    "certificate.issuer": with_field("issuer_name", issuing.subject("Somebody else")),
    "certificate.serial": with_field("serial_number", 2**100),
    "certificate.names": with_names("other.example.test"),
    "certificate.key": with_field("public_key", issuing.EC_KEY.public_key()),
    "certificate.validity": with_field("not_valid_after", datetime(2040, 1, 1)),  # noqa: DTZ001  as builders want it
    "certificate.lint": with_staple,
}


@pytest.mark.parametrize("code", SIGNED_OTHERWISE)
async def test_the_issuer_signed_something_else(database, stock, code):
    builder = SIGNED_OTHERWISE[code](stock.leaves["plain"])
    der = builder.sign(stock.hierarchy.intermediate.key, hashes.SHA256()).public_bytes(Encoding.DER)
    await put(database, stock.serial("plain"), der)
    assert told(await checked(database)) == {("error", code, f"certificate:{stock.serial('plain')}")}


async def test_another_key_signed_it(database, stock):
    leaf = stock.leaves["plain"]
    der = issuing.builder_like(leaf).sign(issuing.EC_KEY, hashes.SHA256()).public_bytes(Encoding.DER)
    await put(database, stock.serial("plain"), der)
    found = told(await checked(database))
    assert found == {("error", "certificate.signature", f"certificate:{stock.serial('plain')}")}


@pytest.mark.parametrize(
    "spoil", [lambda der: der + b"\0", lambda der: der[:-1], lambda _: b"", lambda _: b"0\0"]
)
async def test_it_cannot_be_read(database, stock, spoil):
    await put(database, stock.serial("plain"), spoil(stock.leaves["plain"].public_bytes(Encoding.DER)))
    found = told(await checked(database))
    assert found == {("error", "certificate.unreadable", f"certificate:{stock.serial('plain')}")}


async def put(database: Database, serial: str, der: bytes) -> None:
    assert await database.execute("UPDATE certificate SET der = $2 WHERE serial = $1", serial, der) == 1


# ---------------------------------------------------------------- what it was issued on

# Of the certificate, its order or authorizations `{…}` stand for what tells them apart.
OF = {
    "order": "orders WHERE serial = '{serial}'",
    "authz": "authz WHERE id = ANY (SELECT unnest(authzs) FROM orders WHERE serial = '{serial}')",
    "validation": "validation WHERE authz_id = ANY (SELECT unnest(authzs) FROM orders WHERE serial = '{serial}')",
    "event": "audit_event WHERE object = 'certificate:{serial}'",
}


def change(what: str, assignment: str) -> str:
    table, _, where = OF[what].partition(" ")
    return f"UPDATE {table} SET {assignment} {where}"


def delete(what: str) -> str:
    return f"DELETE FROM {OF[what]}"


REVOKED_EARLIER = "UPDATE certificate SET revoked = revoked - interval '1 second' WHERE serial = '{serial}'"
OTHER_ACCOUNT = "account_id = (SELECT id FROM account WHERE id <> account_id LIMIT 1)"
FREE = [
    "ALTER TABLE authz DROP CONSTRAINT authz_wildcard_by_dns",
    "ALTER TABLE authz DROP CONSTRAINT authz_offered",
]
SPOILED = {
    "the order is gone": ("order.missing", "plain", [delete("order")]),
    "the order failed": ("order.status", "plain", [change("order", "status = 'invalid'")]),
    "the order has another certificate": (
        "order.certificate",
        "plain",
        [
            f"UPDATE orders SET serial = '{OTHER}' WHERE id = (SELECT order_id FROM certificate WHERE serial = '{{serial}}')"
        ],
    ),
    "the order is another account's": ("order.account", "plain", [change("order", OTHER_ACCOUNT)]),
    "the order has another name": (
        "order.names",
        "plain",
        [change("order", "identifiers = ARRAY['dns:x.example']")],
    ),
    "the order's names have another order": (
        "order.names",
        "pair",
        [change("order", "identifiers = ARRAY[identifiers[2], identifiers[1]]")],
    ),
    "the order pins another profile": ("order.profile", "plain", [change("order", "profile = 'client'")]),
    "the order pins another issuer": (
        "order.issuer",
        "plain",
        [change("order", "issuer_id = (SELECT id FROM issuer WHERE kind = 'root')")],
    ),
    "the order had expired": ("order.time", "plain", [change("order", "expires = created")]),
    "the order came later": ("order.time", "plain", [change("order", "created = expires")]),
    "an authorization is gone": ("authorization.missing", "pair", [delete("authz")]),
    "an authorization is another account's": (
        "authorization.account",
        "revoked",
        [change("authz", OTHER_ACCOUNT), change("validation", OTHER_ACCOUNT)],
    ),
    "an authorization is for another name": (
        "authorization.names",
        "revoked",
        [
            change("authz", "identifier = 'dns:x.example'"),
            change("validation", "identifier = 'dns:x.example'"),
        ],
    ),
    "an authorization failed": (
        "authorization.status",
        "revoked",
        [change("authz", "status = 'invalid', error = '{{}}'")],
    ),
    "an authorization was never validated": (
        "authorization.status",
        "revoked",
        [change("authz", "status = 'pending', validated = NULL")],
    ),
    "an authorization had expired": (
        "authorization.time",
        "revoked",
        [change("authz", "expires = validated")],
    ),
    "an authorization was valid too late": (
        "authorization.time",
        "revoked",
        [
            change("authz", "validated = validated + interval '1 minute'"),
            change("validation", "at = at + interval '1 minute'"),
        ],
    ),
    "a wildcard was authorized by http-01": (
        "authorization.challenge",
        "wildcard",
        [*FREE, change("authz", "challenge = 'http-01'"), change("validation", "challenge = 'http-01'")],
    ),
    "no validation is on record": ("validation.missing", "revoked", [delete("validation")]),
    "the validation failed": ("validation.missing", "revoked", [change("validation", "error = '{{}}'")]),
    "the validation was for another account": (
        "validation.binding",
        "revoked",
        [change("validation", OTHER_ACCOUNT)],
    ),
    "the validation was for another name": (
        "validation.binding",
        "revoked",
        [change("validation", "identifier = 'dns:x.example'")],
    ),
    "the validation was by another challenge": (
        "validation.binding",
        "revoked",
        [change("validation", "challenge = 'dns-01'")],
    ),
    "the validation was later": (
        "validation.time",
        "revoked",
        [change("validation", "at = at + interval '1 hour'")],
    ),
    "the row has another shard": (
        "certificate.shard",
        "plain",
        ["UPDATE certificate SET shard = 7 WHERE serial = '{serial}'"],
    ),
    "its key was an account's": (
        "key.account",
        "pair",
        [
            """UPDATE account a SET spki_sha256 = c.spki_sha256 FROM certificate c
               WHERE c.serial = '{serial}' AND a.id = c.account_id"""
        ],
    ),
    "its key was blocked": (
        "key.blocked",
        "revoked",
        [
            "INSERT INTO blocked_key SELECT spki_sha256, '', 'operator', recorded FROM certificate WHERE serial = '{serial}'"
        ],
    ),
    "its issuance is in no audit": ("audit.issued", "plain", [delete("event")]),
    "its issuance is told of twice": (
        "audit.issued",
        "plain",
        [
            """INSERT INTO audit_event (at, event, actor, object)
               SELECT at, event, actor, object FROM audit_event WHERE object = 'certificate:{serial}'"""
        ],
    ),
    "it was issued before it was recorded": (
        "audit.time",
        "plain",
        [change("event", "at = at - interval '1 minute'")],
    ),
    "it is revoked, and no audit says so": (
        "audit.revoked",
        "plain",
        [
            "UPDATE certificate SET revoked = recorded, status_changed = recorded, reason = 0 WHERE serial = '{serial}'"
        ],
    ),
    "the audit says it is revoked": (
        "audit.revoked",
        "revoked",
        ["UPDATE certificate SET revoked = NULL, reason = NULL WHERE serial = '{serial}'"],
    ),
    "it was issued to another account": (
        "audit.issued",
        "plain",
        [change("event", "actor = 'account:' || repeat('f', 32)")],
    ),
    "it was issued for another order": ("audit.issued", "plain", [change("event", "detail = '[]'")]),
    "it was revoked earlier": ("audit.revoked", "revoked", [REVOKED_EARLIER]),
    "it was revoked for another reason": (
        "audit.revoked",
        "revoked",
        ["UPDATE certificate SET reason = 4 WHERE serial = '{serial}'"],
    ),
    "it was invalid earlier": (
        "audit.revoked",
        "revoked",
        ["UPDATE certificate SET invalid_since = recorded WHERE serial = '{serial}'"],
    ),
    **{
        f"it is recorded {when}": (
            "certificate.recorded",
            "plain",
            [f"UPDATE certificate SET recorded = '{when}' WHERE serial = '{{serial}}'"],
        )
        for when in ("infinity", "-infinity", "2090-01-01", "1960-01-01")
    },
    "an authorization is for no name at all": (
        "certificate.unjudged",
        "revoked",
        [change("authz", "identifier = 'x'")],
    ),
}


@pytest.mark.parametrize("what", SPOILED)
async def test_what_is_spoiled_is_found_and_nothing_else(database, stock, what):
    code, which, statements = SPOILED[what]
    serial = stock.serial(which)
    for statement in statements:
        await database.fetch(statement.format(serial=serial))
    assert told(await checked(database)) == {("error", code, f"certificate:{serial}")}


async def test_it_is_not_there(database, stock):
    """Nor is the audit of it, in the second case: its order is."""
    order = await database.fetchval(
        "SELECT order_id FROM certificate WHERE serial = $1", stock.serial("plain")
    )
    await database.execute("DELETE FROM certificate WHERE serial = $1", stock.serial("plain"))
    missing = ("error", "certificate.missing", f"order:{order}")
    lost = ("error", "audit.certificate", f"certificate:{stock.serial('plain')}")
    assert told(await checked(database)) == {missing, lost}
    await database.fetch(delete("event").format(serial=stock.serial("plain")))
    assert told(await checked(database)) == {missing}
    assert told(await checked(database, issuer=stock.hierarchy.root.id)) == set()


async def test_an_account_s_certificate_is_passed_off_as_the_server_s_own(database, stock):
    """And its audit with it."""
    serial = stock.serial("plain")
    await database.execute(
        "UPDATE certificate SET account_id = NULL, order_id = NULL WHERE serial = $1", serial
    )
    await database.fetch(change("event", "actor = 'server'").format(serial=serial))
    codes = {code for severity, code, _ in told(await checked(database)) if severity == "error"}
    assert codes == {"order.missing", "audit.issued", "certificate.missing"}


# Whatever a row holds, the check comes to its end and finds it.
DAMAGED = {
    "names": "UPDATE certificate SET identifiers = '{x}' WHERE serial = '$'",
    "an address": "UPDATE certificate SET identifiers = '{ip:x}' WHERE serial = '$'",
    "no name": "UPDATE certificate SET identifiers = '{NULL}' WHERE serial = '$'",
    "an end": "UPDATE certificate SET not_after = 'infinity' WHERE serial = '$'",
    "a revocation": "UPDATE certificate SET revoked = 'infinity', reason = 0, status_changed = 'infinity' WHERE serial = '$'",
    "an order": "UPDATE orders SET expires = 'infinity', not_after = '-infinity' WHERE serial = '$'",
    "evidence": "INSERT INTO evidence (complete_since) VALUES ('infinity')",
    "evidence since long": "INSERT INTO evidence (complete_since) VALUES ('4000-01-01 BC')",
    "events": "UPDATE audit_event SET at = 'infinity', detail = '[]'",
    "a CA certificate": "UPDATE issuer SET der = '\\x00' WHERE kind = 'intermediate'",
    "its dates": "UPDATE issuer SET not_before = '-infinity', not_after = 'infinity'",
    **{
        f"{time} as {table}.{column}": statement.format(f"{column} = '{time}'")
        for time in ("4000-01-01 BC", "294000-01-01")
        for table, columns, statement in (
            ("certificate", ("not_before", "not_after"), "UPDATE certificate SET {} WHERE serial = '$'"),
            (
                "certificate",
                ("revoked", "invalid_since"),
                "UPDATE certificate SET {} WHERE revoked IS NOT NULL",
            ),
            ("orders", ("created", "expires"), "UPDATE orders SET {} WHERE serial = '$'"),
            ("authz", ("validated", "expires"), "UPDATE authz SET {}"),
            ("validation", ("at",), "UPDATE validation SET {}"),
            ("audit_event", ("at",), "UPDATE audit_event SET {} WHERE object = 'certificate:$'"),
            ("issuer", ("not_before", "not_after"), "UPDATE issuer SET {}"),
        )
        for column in columns
    },
    "a profile": "UPDATE profile SET body = '{}' WHERE name = 'server'",
    "an empty profile": "UPDATE profile SET body = '[]' WHERE name = 'server'",
}


@pytest.mark.parametrize("what", DAMAGED)
async def test_no_damage_ends_the_check_or_passes(database, stock, what):
    await database.fetch(DAMAGED[what].replace("$", stock.serial("plain")))
    assert (await checked(database)).of(Severity.ERROR)


UNREADABLE = {
    "a surrogate": r'{"a": "\ud800"}',
    "a number of 5000 digits": '{"a": ' + "9" * 5000 + "}",
    "lists in lists": "[" * 3000 + "]" * 3000,
    "lists in an object": '{"a":' + "[" * 101 + "]" * 101 + "}",
}


@pytest.mark.parametrize("what", [*UNREADABLE, "4000-01-01 BC", "294000-01-01", "infinity", "-infinity"])
async def test_an_event_that_cannot_be_read_is_named(database, stock, what):
    """Whatever it is about, and wherever readers meet it first."""
    issuer, serial = stock.hierarchy.intermediate.id, stock.serial("plain")
    objects = {f"certificate:{serial}", f"issuer:{issuer}", f"crl:{issuer}/0", "profile:server", "x:y"}
    at, detail = ("now()", UNREADABLE[what]) if what in UNREADABLE else (f"'{what}'", "{}")
    for object_ in objects:
        await database.execute(
            f"INSERT INTO audit_event (at, event, actor, object, detail) VALUES ({at}, 'x.y', 'server', $1, $2)",
            object_,
            detail,
        )
    found = await checked(database)
    assert {("error", "audit.unreadable", object_) for object_ in objects} <= told(found)
    assert {one.code for one in found.found} <= {"audit.unreadable", "crl.audit"}


async def test_an_event_that_has_much_to_tell_is_in_order(database):
    detail = json.dumps({"comment": "\U0001f600" * 200, "a": [[[1, 2.5, None, {"b": True}]]]})
    await database.execute(
        "INSERT INTO audit_event (at, event, actor, object, detail) VALUES (now(), 'x.y', 'server', 'x:y', $1)",
        detail,
    )
    assert (await checked(database)).found == []


@pytest.mark.parametrize(
    ("event", "object_", "detail"),
    [
        ("profile.saved", "profile:server", r'{"version": 1, "sha256": "\u0000"}'),
        ("profile.saved", "profile:server", r'{"version": "\u0000"}'),
        ("crl.published", "crl:{}/0", r'{"number": "\u0000"}'),
        ("crl.published", "crl:{}/0", r'{"sha256": "\ud800"}'),
        ("crl.published", "crl:{}/0", '{"number": ' + "9" * 5000 + "}"),
    ],
)
async def test_an_event_that_postgresql_cannot_take_apart_does_not_end_the_check(
    database, stock, event, object_, detail
):
    place = object_.format(stock.hierarchy.intermediate.id)
    await database.execute(
        "INSERT INTO audit_event (at, event, actor, object, detail) VALUES (now(), $1, 'server', $2, $3)",
        event,
        place,
        detail,
    )
    codes = {code for _, code, object_ in told(await checked(database))}
    assert codes <= {"profile.changed", "audit.unreadable", "crl.audit"}
    if detail.startswith('{"version": 1'):
        assert codes == {"profile.changed"}


# ---------------------------------------------------------------- what certificates rest on

RESTS_ON = {
    "issuer.row": "UPDATE issuer SET not_after = not_after + interval '1 year'",
    "issuer.signature": "UPDATE issuer SET parent_id = id",
    "issuer.audit": "UPDATE issuer SET kind = 'cross'",
    "issuer.state": "UPDATE issuer SET state = 'retired', retired = created",
    "issuer.revoked": "UPDATE issuer SET revoked = created, reason = 1",
}


@pytest.mark.parametrize("code", RESTS_ON)
async def test_a_ca_certificate_is_not_what_was_registered(database, stock, code):
    intermediate = stock.hierarchy.intermediate.id
    await database.fetch(f"{RESTS_ON[code]} WHERE id = '{intermediate}'")
    assert told(await checked(database)) == {("error", code, f"issuer:{intermediate}")}


async def test_a_version_of_a_profile_was_changed(database):
    """So that a certificate which it did not allow would pass."""
    await database.fetch(
        """UPDATE profile SET body = body || '{"max_validity": "4000 days"}' WHERE name = 'server'"""
    )
    assert told(await checked(database)) == {("error", "profile.changed", "profile:server/1")}


async def test_evidence_is_said_to_begin_later(database):
    await database.execute("INSERT INTO evidence (complete_since) VALUES (now() + interval '1 day')")
    assert told(await checked(database)) == {("error", "evidence.time", "evidence")}


async def test_a_compromised_key_is_certified_again(database, stock):
    """One of the two that share a key was revoked before the other was recorded."""
    await database.execute(
        """UPDATE certificate SET reason = 1, revoked = recorded, status_changed = recorded WHERE serial = $1""",
        stock.serial("plain"),
    )
    await database.execute(
        """INSERT INTO audit_event (at, event, actor, object, detail)
           SELECT recorded, 'certificate.revoked', 'operator', 'certificate:' || serial, '{"reason": 1}'
           FROM certificate WHERE serial = $1""",
        stock.serial("plain"),
    )
    found = told(await checked(database))
    twin = f"certificate:{stock.serial('twin')}"
    assert found == {("error", "key.compromised", twin), ("note", "certificate.refused_key", twin)}


async def test_a_valid_order_without_a_signed_certificate(database, stock):
    await unsign(database, stock.serial("plain"))
    found = told(await checked(database))
    assert found == {
        ("error", code, f"certificate:{stock.serial('plain')}")
        for code in ("order.status", "audit.certificate")
    } | {("note", "certificate.unsigned", f"certificate:{stock.serial('plain')}")}


async def unsign(database: Database, serial: str) -> None:
    await database.execute("UPDATE certificate SET tbs = der, der = NULL WHERE serial = $1", serial)


# ---------------------------------------------------------------- what is in order all the same


async def test_an_authorization_that_ended_later_was_valid(database, stock):
    await database.fetch("UPDATE authz SET status = 'deactivated'")
    assert (await checked(database)).found == []


async def test_a_key_that_became_an_accounts_later(database, stock):
    await database.fetch(SPOILED["its key was an account's"][2][0].format(serial=stock.serial("pair")))
    await database.execute(
        "INSERT INTO audit_event (at, event, actor, object) SELECT now(), 'account.key-changed', 'x', 'account:' || id FROM account"
    )
    assert (await checked(database)).found == []


async def test_evidence_that_was_deleted_in_order_is_counted(database, stock):
    recorded = await database.fetchval(
        "SELECT recorded FROM certificate WHERE serial = $1", stock.serial("pair")
    )
    await database.execute(
        "INSERT INTO evidence (complete_since) VALUES ($1)", recorded + timedelta(microseconds=1)
    )
    for statement in (delete("validation"), delete("authz"), delete("order")):
        for which in ("plain", "pair"):
            await database.fetch(statement.format(serial=stock.serial(which)))
    findings = await checked(database)
    assert told(findings) == {("note", "evidence.deleted", "evidence")}, "earlier than it is kept today"
    assert findings.unproved == 3, "the twin shares its authorization with the plain one"


async def test_a_hold_that_was_released(database, stock):
    for event in ("certificate.held", "certificate.released"):
        await database.execute(
            "INSERT INTO audit_event (at, event, actor, object) VALUES (now(), $1, 'operator', $2)",
            event,
            f"certificate:{stock.serial('plain')}",
        )
    assert (await checked(database)).found == []


# ---------------------------------------------------------------- notes


@pytest.mark.parametrize("state", ["processing", "invalid"])
async def test_what_was_never_signed_is_noted(database, stock, state):
    serial = stock.serial("plain")
    await unsign(database, serial)
    await database.fetch(change("order", f"status = '{state}'").format(serial=serial))
    await database.fetch(delete("event").format(serial=serial))
    findings = await checked(database)
    noted = {("note", "certificate.unsigned", f"certificate:{serial}")}
    assert told(findings) == (noted if state == "invalid" else set())
    assert findings.unsigned == 1


async def test_what_todays_policy_would_refuse_is_noted_while_it_lives(database, stock):
    findings = await checked(database, policy=NamePolicy.of_settings(denied_domains=("example.test",)))
    living = {"plain", "twin", "pair", "wildcard"}
    assert told(findings) == {
        ("note", "certificate.policy", f"certificate:{stock.serial(which)}") for which in living
    }
    assert len(findings.of(Severity.NOTE)) == 5, "one for each name"


async def test_a_certificate_of_the_servers_own_for_another_name_is_noted(database):
    findings = await checked(database, own="elsewhere.test")
    assert [finding.code for finding in findings.found] == ["certificate.own"]


# ---------------------------------------------------------------- the scope


async def test_a_time_and_an_issuer(database, stock):
    times = [
        row["recorded"] for row in await database.fetch("SELECT recorded FROM certificate ORDER BY recorded")
    ]
    assert (await checked(database, since=times[1], until=times[4])).certificates == 3
    root, intermediate = stock.hierarchy.root.id, stock.hierarchy.intermediate.id
    assert (await checked(database, issuer=root)).certificates == 0
    assert (await checked(database, issuer=intermediate)).certificates == 7


async def test_a_batch_follows_the_other(database, monkeypatch):
    """Also where many were recorded at once."""
    from acme_ca.storage import audit

    monkeypatch.setattr(audit, "_CERTIFICATES", audit._CERTIFICATES.replace("LIMIT 500", "LIMIT 2"))
    await database.fetch("UPDATE certificate SET recorded = (SELECT max(recorded) FROM certificate)")
    await database.fetch(
        "UPDATE audit_event SET at = at + interval '1 minute' WHERE event = 'certificate.issued'"
    )
    findings = await checked(database)
    assert findings.certificates == 7
    assert findings.found == []


# ---------------------------------------------------------------- approved names

SCOPE = "INSERT INTO approved_scope (id, account_id, rule, reason, approved_by, created, expires, revoked) "
OF_SCOPE = {
    "all in order": (
        "'suffix:example.test'",
        "recorded - interval '1 hour'",
        "recorded + interval '1 year'",
        "NULL",
        set(),
    ),
    "other names": (
        "'exact:b.example'",
        "recorded - interval '1 hour'",
        "recorded + interval '1 year'",
        "NULL",
        {"scope.names"},
    ),
    "approved later": (
        "'suffix:example.test'",
        "recorded",
        "recorded + interval '1 year'",
        "NULL",
        {"scope.time"},
    ),
    "over by then": (
        "'suffix:example.test'",
        "recorded - interval '1 hour'",
        "recorded",
        "NULL",
        {"scope.time"},
    ),
    "revoked by then": (
        "'suffix:example.test'",
        "recorded - interval '1 hour'",
        "recorded + interval '1 year'",
        "recorded - interval '1 second'",
        {"scope.time"},
    ),
    "revoked since": (
        "'suffix:example.test'",
        "recorded - interval '1 hour'",
        "recorded + interval '1 year'",
        "recorded + interval '1 second'",
        set(),
    ),
}


async def approved(database, stock, *, rule, created, expires, revoked, whose="c.account_id") -> None:
    """The single certificate's name was never proved, but approved."""
    serial = stock.serial("pair")
    await database.execute(
        f"{SCOPE} SELECT 'scope1', {whose}, {rule}, 'no way in', 'operator:olga', {created}, {expires}, {revoked} "
        f"FROM certificate c WHERE serial = '{serial}'"
    )
    ids = f"(SELECT unnest(authzs) FROM orders WHERE serial = '{serial}')"
    await database.execute(f"DELETE FROM validation WHERE authz_id IN {ids}")
    await database.execute(
        f"UPDATE authz SET challenge = NULL, scope_id = 'scope1', status = 'revoked' WHERE id IN {ids}"
    )


@pytest.mark.parametrize("case", OF_SCOPE)
async def test_an_approved_name(database, stock, case):
    rule, created, expires, revoked, codes = OF_SCOPE[case]
    await approved(database, stock, rule=rule, created=created, expires=expires, revoked=revoked)
    findings = await checked(database)
    assert {finding.code for finding in findings.of(Severity.ERROR)} == codes
    assert findings.approved == 1
    notes = [finding for finding in findings.of(Severity.NOTE) if finding.code == "certificate.approved"]
    assert len(notes) == 2
    assert all("scope scope1" in note.sentence and "operator:olga" in note.sentence for note in notes)
    assert all("because: no way in" in note.sentence for note in notes)


async def test_a_name_that_was_approved_for_another_account(database, stock):
    other = "(SELECT id FROM account WHERE id <> c.account_id LIMIT 1)"
    await approved(
        database,
        stock,
        rule="'suffix:example.test'",
        created="recorded - interval '1 hour'",
        expires="recorded + interval '1 year'",
        revoked="NULL",
        whose=other,
    )
    assert {finding.code for finding in (await checked(database)).of(Severity.ERROR)} == {"scope.names"}
