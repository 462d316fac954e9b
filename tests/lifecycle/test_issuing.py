"""Certificates that operators have issued: the same rules as for orders, and an account of each."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from acme_ca.app.sources import utc_now
from acme_ca.audit import check
from acme_ca.audit.findings import Findings
from acme_ca.ca.authority import Authority
from acme_ca.ca.constraints import NameConstraints
from acme_ca.ca.keystore import KeyKind, KeyUnavailable
from acme_ca.ca.policies import Policies, scope_of_service
from acme_ca.ca.profiles import SERVER
from acme_ca.core import csr, identifiers, keys
from acme_ca.core.actors import Actor
from acme_ca.core.codes import Code
from acme_ca.core.ids import Serial
from acme_ca.core.policy import NamePolicy, NameRules
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.profiles import Profile
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.services import Service, ServiceId
from acme_ca.core.states import ServiceState
from acme_ca.core.weakkeys import WeakKeys
from acme_ca.lifecycle.issuing import Issued, Issuing, NewKey, Wish
from acme_ca.storage import certificates, services
from acme_ca.storage import keys as key_store
from acme_ca.storage import policies as policy_store
from acme_ca.storage import profiles as profile_store
from acme_ca.storage.audit import Scope
from acme_ca.storage.database import Database
from tests.support import issuing
from tests.support.application import Ca
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.issuing import names

pytestmark = IN_SESSION_LOOP

ALICE = Actor("operator:alice", "192.0.2.7")
KEY = ec.generate_private_key(ec.SECP256R1())


@dataclass
class Desk:
    ca: Ca
    database: Database
    room: Issuing

    async def events(self, serial: Serial) -> list[tuple]:
        rows = await self.database.fetch(
            "SELECT event, actor, source, detail FROM audit_event WHERE object = $1 ORDER BY id",
            f"certificate:{serial}",
        )
        return [(row["event"], row["actor"], row["source"], json.loads(row["detail"])) for row in rows]

    async def service(self, *domains: str, state: ServiceState = ServiceState.APPROVED) -> ServiceId:
        described = Service(service_id=f"s-{os.urandom(4).hex()}", name="A", owner="B", domains=domains)
        made = await services.register(
            self.database, described, ServiceState.PENDING, actor=ALICE, now=utc_now()
        )
        assert made is not None
        id_ = ServiceId(described.service_id)
        if state is ServiceState.APPROVED:
            await services.approve(self.database, id_, actor=ALICE, now=utc_now())
        elif state is ServiceState.RETIRED:
            await services.retire(self.database, id_, actor=ALICE, now=utc_now())
        return id_

    async def rows(self) -> int:
        number: int = await self.database.fetchval("SELECT count(*) FROM certificate")
        return number


def policies(database: Database, settings: NamePolicy = NamePolicy()) -> Policies:  # noqa: B008  frozen
    return Policies(
        database=database, settings=settings, unbound_names=None, clock=utc_now, log=structlog.get_logger()
    )


def desk_of(ca: Ca, database: Database, **parts) -> Desk:
    authority = Authority(
        issuers=ca.application.issuers.get,
        public_http_url=ca.settings.public_http_url,
        clock=utc_now,
        random_bytes=os.urandom,
    )
    room = Issuing(
        **{
            "database": database,
            "authority": authority,
            "issuers": ca.application.issuers,
            "profiles": ca.application.profiles,
            "default_profile": "server",
            "policies": policies(database),
            "weak_keys": WeakKeys.of([]),
            "clock": utc_now,
            "log": ca.application.issuers._log,
            **parts,
        }
    )
    return Desk(ca, database, room)


@asynccontextmanager
async def opened(ca: Ca, **parts) -> AsyncIterator[Desk]:
    async with Database.open(ca.dsn, connections=4) as database:
        yield desk_of(ca, database, **parts)


@pytest_asyncio.fixture(loop_scope="session")
async def desk(ca) -> AsyncIterator[Desk]:
    async with opened(ca) as made:
        yield made


def request(*texts: str, key=KEY, **differences) -> csr.CertificateRequest:
    return csr.parse_csr(issuing.csr(*texts, key=key, **differences))


def leaf(issued: Issued) -> x509.Certificate:
    assert issued.certificate.der is not None
    return x509.load_der_x509_certificate(issued.certificate.der)


async def refused(desk: Desk, wish: Wish, **how) -> Problem:
    """Nothing may be recorded for it."""
    before = await desk.rows()
    with pytest.raises(Problem) as raised:
        await desk.room.issue(wish, actor=ALICE, **how)
    assert await desk.rows() == before
    return raised.value


# ---------------------------------------------------------------- issued


async def test_a_request_becomes_a_certificate_that_is_accounted_for(desk):
    name = desk.ca.name()
    service = await desk.service(name, "192.0.2.5")
    wish = Wish(names=names(name, "192.0.2.5"), key=request(name, "192.0.2.5"), service=service)
    issued = await desk.room.issue(wish, actor=ALICE)
    certificate = leaf(issued)
    assert certificate.public_key() == KEY.public_key()
    assert issuing.names_of(certificate) == [name, "192.0.2.5"]
    assert issued.key is None
    certificate.verify_directly_issued_by(desk.ca.hierarchy.intermediate.certificate)
    stored = issued.certificate
    assert (stored.service, stored.requested_by, stored.account_id) == (service, "operator:alice", None)
    assert await desk.events(stored.serial) == [
        (
            "certificate.issued",
            "operator:alice",
            "192.0.2.7",
            {"order": None, "identifiers": [f"dns:{name}", "ip:192.0.2.5"]},
        )
    ]


async def test_without_names_those_of_the_request_count(desk):
    first, second = sorted((desk.ca.name(), desk.ca.name()))
    issued = await desk.room.issue(Wish(names=(), key=request(second, first)), actor=ALICE)
    assert issuing.names_of(leaf(issued)) == [first, second]


@pytest.mark.parametrize(
    ("kind", "bits"),
    [(None, 256), (KeyKind.EC_P256, 256), (KeyKind.EC_P384, 384), (KeyKind.RSA_2048, 2048)],
)
async def test_a_key_is_made_here_only_when_it_is_asked_for(desk, kind, bits):
    issued = await desk.room.issue(Wish(names=names(desk.ca.name()), key=NewKey(kind)), actor=ALICE)
    assert issued.key is not None
    assert issued.key.key_size == bits
    assert leaf(issued).public_key() == issued.key.public_key()


async def test_a_profile_for_great_keys_gets_one(desk):
    signing = Wish(names=names(desk.ca.name()), key=NewKey(), profile="clara_model_signing")
    issued = await desk.room.issue(signing, actor=ALICE)
    assert isinstance(issued.key, rsa.RSAPrivateKey)
    assert issued.key.key_size == 4096


async def test_a_key_that_was_made_here_is_nowhere_in_the_database_or_the_log(desk, postgres):
    issued = await desk.room.issue(Wish(names=names(desk.ca.name()), key=NewKey()), actor=ALICE)
    assert issued.key is not None
    number = issued.key.private_numbers().private_value
    der = issued.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    secrets = {number.to_bytes(32).hex(), der.hex(), str(number)}
    tables = await desk.database.fetch(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    )
    for table in tables:
        rows = await desk.database.fetch(f'SELECT t::text AS row FROM "{table["table_name"]}" t')
        assert not [row for row in rows if any(secret in row["row"].lower() for secret in secrets)]
    told = f"{desk.ca.log.entries!r} {issued!r}".lower()
    assert not any(secret in told for secret in secrets)
    assert "private" not in repr(issued).lower()


async def test_days_are_met_to_the_second(desk):
    issued = await desk.room.issue(Wish(names=names(desk.ca.name()), key=NewKey(), days=398), actor=ALICE)
    certificate = leaf(issued)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert timedelta(days=398, seconds=-2) <= life <= timedelta(days=398, seconds=-1)


# ---------------------------------------------------------------- refused (lesson 2)

LARGE = rsa.generate_private_key(public_exponent=65537, key_size=3072)

WISHES = {
    "no names": (Wish(names=(), key=NewKey()), "malformed"),
    "other names than the request": (
        Wish(names=names("a.example.test"), key=request("b.example.test")),
        "badCSR",
    ),
    "a name more in the request": (
        Wish(names=names("a.example.test"), key=request("a.example.test", "b.example.test")),
        "badCSR",
    ),
    "an unknown profile": (Wish(names=names("a.example"), key=NewKey(), profile="nothing"), "invalidProfile"),
    "the server's TLS profile": (
        Wish(names=names("a.example"), key=NewKey(), profile="acme_server"),
        "invalidProfile",
    ),
    "the responders' profile": (
        Wish(names=names("a.example"), key=NewKey(), profile="ocsp_responder"),
        "invalidProfile",
    ),
    "a name that the profile is not for": (
        Wish(names=names("a.example"), key=NewKey(), profile="argus_api"),
        "rejectedIdentifier",
    ),
    "a key that the profile is not for": (
        Wish(
            names=names("clara.vcc.internal"),
            key=request("clara.vcc.internal", key=LARGE),
            profile="clara_service_auth",
        ),
        "badCSR",
    ),
    "a made key that the profile is not for": (
        Wish(names=names("clara.vcc.internal"), key=NewKey(KeyKind.EC_P384), profile="clara_service_auth"),
        "badCSR",
    ),
    "longer than the profile": (Wish(names=names("a.example"), key=NewKey(), days=399), "malformed"),
    "an unknown service": (
        Wish(names=names("a.example"), key=NewKey(), service=ServiceId("nothing")),
        "malformed",
    ),
}


@pytest.mark.parametrize(("wish", "error"), WISHES.values(), ids=WISHES)
async def test_what_cannot_be_is_refused_and_not_recorded(desk, wish, error):
    assert (await refused(desk, wish, privileged=True)).type == error


@pytest.mark.parametrize("with_request", [True, False])
async def test_lesson_2_the_name_policy_holds_for_operators(ca, with_request):
    policy = NamePolicy.of_settings(allowed_domains=("vcc.internal",), denied_domains=("root.vcc.internal",))
    async with opened(ca) as plain:
        desk = desk_of(ca, plain.database, policies=policies(plain.database, policy))
        for name in ("a.example", "a.root.vcc.internal", "192.0.2.1"):
            wish = Wish(names=names(name), key=request(name) if with_request else NewKey())
            assert (await refused(desk, wish, privileged=True)).type is ErrorType.REJECTED_IDENTIFIER
        allowed = Wish(names=names("a.vcc.internal"), key=NewKey())
        assert (await desk.room.issue(allowed, actor=ALICE)).certificate.requested_by == "operator:alice"


async def test_lesson_2_the_policy_of_the_service_holds(desk):
    service, other = await desk.service("a.example"), await desk.service("a.example")
    rules = NameRules.model_validate({"deny": ["exact:a.example"]})
    await policy_store.put(desk.database, scope_of_service(service), rules, actor=ALICE, now=utc_now())
    await desk.room._policies.refresh()
    problem = await refused(desk, Wish(names=names("a.example"), key=NewKey(), service=service))
    assert problem.subproblems[0].code is Code.NAME_DENIED
    await desk.room.issue(Wish(names=names("a.example"), key=NewKey(), service=other), actor=ALICE)


async def test_lesson_2_the_linter_sees_every_certificate(desk):
    """The policy changes after the first look at the names."""

    class Turning(NamePolicy):
        def violations(self, identifiers):
            asked.append(identifiers)
            return [] if len(asked) == 1 else [Problem(ErrorType.REJECTED_IDENTIFIER, "No.")]

    asked = []
    changing = policies(desk.database)
    changing.of_service = lambda _: Turning()

    turning = desk_of(desk.ca, desk.database, policies=changing)
    assert (await refused(turning, Wish(names=names(desk.ca.name()), key=NewKey()))).type == "serverInternal"


async def test_the_constraints_of_the_issuer_hold(new_ca):
    async with new_ca() as ca:
        constraints = NameConstraints(permitted=("vcc.internal",))
        await ca.add_issuer(constraints=constraints)
        async with opened(ca) as desk:
            problem = await refused(desk, Wish(names=names("a.example"), key=NewKey()))
            assert problem.type is ErrorType.REJECTED_IDENTIFIER


@pytest.mark.parametrize("objection", ["blocked", "compromised", "account", "weak"])
async def test_lesson_4_a_bad_key_is_refused(ca, objection):
    key = ec.generate_private_key(ec.SECP256R1())
    digest = keys.spki_sha256(key.public_key())
    weak = WeakKeys.of([digest]) if objection == "weak" else WeakKeys.of([])
    async with opened(ca, weak_keys=weak) as desk:
        name = ca.name()
        wish = Wish(names=names(name), key=request(name, key=key))
        if objection == "blocked":
            await key_store.block(desk.database, [digest], comment="", actor=ALICE, now=utc_now())
        elif objection == "compromised":
            issued = await desk.room.issue(wish, actor=ALICE)
            await certificates.revoke(
                desk.database,
                issued.certificate.serial,
                reason=RevocationReason.KEY_COMPROMISE,
                actor=ALICE,
                now=utc_now(),
            )
        elif objection == "account":
            account = await ca.account()
            await desk.database.execute(
                "UPDATE account SET spki_sha256 = $1 WHERE id = $2",
                digest,
                account.url.rpartition("/")[2],
            )
        assert (await refused(desk, wish)).type is ErrorType.BAD_CSR


# ---------------------------------------------------------------- profiles


async def test_profiles_that_clients_cannot_order_are_for_the_privileged(desk):
    wish = Wish(names=names("alice.operators.example"), key=NewKey(), profile="operator")
    problem = await refused(desk, wish)
    assert (problem.code, problem.type) == (Code.FORBIDDEN, ErrorType.UNAUTHORIZED)
    issued = await desk.room.issue(wish, actor=ALICE, privileged=True)
    purposes = leaf(issued).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert issued.certificate.profile.name == "operator"


async def test_clients_cannot_order_the_profile_of_operators(ca):
    account = await ca.account()
    answer = await account.new_order(ca.name(), profile="operator")
    assert answer.status == 400
    assert answer.json["type"].endswith("invalidProfile")


async def test_a_profile_for_services_wants_one_of_them(new_ca):
    async with new_ca() as ca, opened(ca) as desk:
        mine, other = await desk.service("a.example"), await desk.service("a.example")
        house = Profile(**SERVER.model_dump() | {"name": "house", "allowed_services": [mine]})
        await profile_store.save(desk.database, house, built_in=False, actor=ALICE, now=utc_now())
        for service in (None, other):
            wish = Wish(names=names("a.example"), key=NewKey(), profile="house", service=service)
            assert (await refused(desk, wish)).code is Code.PROFILE_NOT_ALLOWED
        wish = Wish(names=names("a.example"), key=NewKey(), profile="house", service=mine)
        assert (await desk.room.issue(wish, actor=ALICE)).certificate.service == mine


async def test_a_withdrawn_profile_is_not_issued(new_ca):
    async with new_ca() as ca, opened(ca) as desk:
        await profile_store.withdraw(desk.database, "client", actor=ALICE, now=utc_now())
        wish = Wish(names=names("a.example"), key=NewKey(), profile="client")
        # this process may not have noticed yet: the statement does
        assert (await refused(desk, wish)).status == 409
        assert (await refused(desk, wish)).type is ErrorType.INVALID_PROFILE


# ---------------------------------------------------------------- services


@pytest.mark.parametrize("state", [ServiceState.PENDING, ServiceState.RETIRED])
async def test_only_approved_services_have_certificates(desk, state):
    service = await desk.service("a.example", state=state)
    problem = await refused(desk, Wish(names=names("a.example"), key=NewKey(), service=service))
    assert (problem.code, problem.status) == (Code.SERVICE_NOT_APPROVED, 409)


async def test_a_service_that_retires_meanwhile_gets_none(desk):
    """Between the look at the service and the record."""
    service = await desk.service("a.example")
    approved = desk.room._approved

    async def then_retired(id_):
        found = await approved(id_)
        await services.retire(desk.database, id_, actor=ALICE, now=utc_now())
        return found

    desk.room._approved = then_retired
    before = await desk.rows()
    try:
        with pytest.raises(Problem):
            await desk.room.issue(Wish(names=names("a.example"), key=NewKey(), service=service), actor=ALICE)
    finally:
        del desk.room._approved
    assert await desk.rows() == before


@pytest.mark.parametrize("domains", [(), ("b.example",), ("*.a.example",)])
async def test_without_proof_a_service_has_only_its_domains(desk, domains):
    service = await desk.service(*domains)
    problem = await refused(desk, Wish(names=names("a.example"), key=NewKey(), service=service))
    assert problem.subproblems[0].code is Code.NAME_NOT_OF_SERVICE


# ---------------------------------------------------------------- what fails on the way


async def test_a_crash_after_recording_leaves_what_can_be_revoked(desk):
    """Nobody signs it later: who asked for it never got an answer, and a key that was made here is lost."""
    name = desk.ca.name()

    async def dies(recorded):
        raise asyncio.CancelledError

    desk.room._authority.sign = dies
    with pytest.raises(asyncio.CancelledError):
        await desk.room.issue(Wish(names=names(name), key=NewKey()), actor=ALICE)
    row = await desk.database.fetchrow(
        "SELECT serial, der, tbs, requested_by FROM certificate WHERE identifiers = $1", [f"dns:{name}"]
    )
    assert (row["der"], row["requested_by"]) == (None, "operator:alice")
    assert row["tbs"]
    assert await certificates.revoke(
        desk.database,
        row["serial"],
        reason=RevocationReason.UNSPECIFIED,
        actor=ALICE,
        now=utc_now(),
    )


async def test_without_the_key_it_says_so_and_the_audit_knows(new_ca):
    async with new_ca() as ca, opened(ca) as desk:
        name = ca.name()

        async def away(recorded):
            raise KeyUnavailable("The key is away.")

        desk.room._authority.sign = away
        with pytest.raises(Problem) as raised:
            await desk.room.issue(Wish(names=names(name), key=NewKey()), actor=ALICE)
        assert raised.value.status == 503
        serial = await desk.database.fetchval(
            "SELECT serial FROM certificate WHERE identifiers = $1", [f"dns:{name}"]
        )
        assert await desk.events(serial) == [("certificate.unsigned", "operator:alice", "192.0.2.7", {})]


# ---------------------------------------------------------------- renewed


async def test_a_renewal_has_names_profile_and_service_of_the_old_one(desk):
    name = desk.ca.name()
    service = await desk.service(name)
    old = await desk.room.issue(
        Wish(names=names(name), key=request(name), service=service, profile="mtls"), actor=ALICE
    )
    again = await desk.room.renew(old.certificate.serial, None, days=10, actor=ALICE)
    assert leaf(again).public_key() == KEY.public_key()
    assert again.certificate.serial != old.certificate.serial
    assert (again.certificate.service, again.certificate.profile.name) == (service, "mtls")
    fresh = await desk.room.renew(old.certificate.serial, NewKey(), days=None, actor=ALICE)
    assert fresh.key is not None
    assert leaf(fresh).public_key() == fresh.key.public_key()
    other = ec.generate_private_key(ec.SECP256R1())
    given = await desk.room.renew(old.certificate.serial, request(name, key=other), days=None, actor=ALICE)
    assert leaf(given).public_key() == other.public_key()
    with pytest.raises(Problem, match="CSR"):
        await desk.room.renew(old.certificate.serial, request("b.example"), days=None, actor=ALICE)


async def test_a_certificate_that_a_client_ordered_is_renewed_too(desk):
    account = await desk.ca.account()
    issued = await (await account.order(desk.ca.name())).issue(desk.ca.web)
    serial = Serial(f"{issued[0].serial_number:032x}")
    again = await desk.room.renew(serial, None, days=None, actor=ALICE)
    assert (again.certificate.account_id, again.certificate.requested_by) == (None, "operator:alice")


@pytest.mark.parametrize("what", ["revoked", "on hold", "unknown", "the server's own", "key compromised"])
async def test_not_renewed(desk, what):
    name = desk.ca.name()
    key = ec.generate_private_key(ec.SECP256R1())
    issued = await desk.room.issue(Wish(names=names(name), key=request(name, key=key)), actor=ALICE)
    serial = issued.certificate.serial
    reasons = {
        "revoked": RevocationReason.SUPERSEDED,
        "on hold": RevocationReason.CERTIFICATE_HOLD,
        "key compromised": RevocationReason.KEY_COMPROMISE,
    }
    if what in reasons:
        await certificates.revoke(desk.database, serial, reason=reasons[what], actor=ALICE, now=utc_now())
    elif what == "unknown":
        serial = Serial("0" * 32)
    elif what == "the server's own":
        serial = await desk.database.fetchval("SELECT serial FROM certificate WHERE profile = 'acme_server'")
    before = await desk.rows()
    with pytest.raises(Problem):
        await desk.room.renew(serial, None, days=None, actor=ALICE, privileged=True)
    assert await desk.rows() == before


async def test_of_a_service_the_one_certificate_is_found_or_the_choice_told(desk):
    first, second = desk.ca.name(), desk.ca.name()
    service = await desk.service(first, second)
    with pytest.raises(Problem) as none:
        await desk.room.current(service)
    assert none.value.code is Code.NOT_FOUND
    for _ in range(2):
        last = await desk.room.issue(Wish(names=names(first), key=NewKey(), service=service), actor=ALICE)
    assert await desk.room.current(service) == last.certificate.serial
    await desk.room.issue(Wish(names=names(second), key=NewKey(), service=service), actor=ALICE)
    with pytest.raises(Problem, match="2 certificates") as several:
        await desk.room.current(service)
    assert several.value.status == 409


# ---------------------------------------------------------------- the service of an order's certificate


async def test_an_orders_certificate_is_of_the_service_of_its_eab_key(desk):
    account = await desk.ca.account()
    id_ = account.url.rpartition("/")[2]
    await desk.database.execute(
        "INSERT INTO eab_key (id, hmac_key, owner, service, created) VALUES ($1, $2, 'o', 'orders', now())",
        id_,
        b"k" * 32,
    )
    await desk.database.execute("UPDATE account SET eab_key_id = $1, eab_binding = '{}' WHERE id = $1", id_)
    issued = await (await account.order(desk.ca.name())).issue(desk.ca.web)
    stored = await certificates.find(desk.database, Serial(f"{issued[0].serial_number:032x}"))
    assert stored is not None
    assert stored.service == "orders"


# ---------------------------------------------------------------- what the auditor says


async def checked(database: Database) -> Findings:
    now = datetime.now(UTC) + timedelta(minutes=5)
    background = await check.background(
        database, now=now, policy=NamePolicy(), own=identifiers.dns("ca.test"), evidence_kept=timedelta(9)
    )
    beginning = datetime.fromtimestamp(0, UTC)
    total = Findings()
    scope = Scope(since=beginning, until=now, issuer=None)
    async for step in check.steps(database, scope, background, after=check.Position(beginning)):
        total += step.findings
    return total


SPOILT = {
    "nothing": (None, set()),
    "another actor": (
        "UPDATE certificate SET requested_by = 'operator:bob' WHERE requested_by IS NOT NULL",
        {"audit.issued"},
    ),
    "no operator": (
        "UPDATE certificate SET requested_by = 'mallory' WHERE requested_by IS NOT NULL",
        {"audit.issued", "operator.unknown"},
    ),
    "nobody asked": (
        "UPDATE certificate SET requested_by = NULL WHERE requested_by IS NOT NULL",
        {"audit.issued", "order.missing", "certificate.own"},
    ),
    "other names": (
        "UPDATE certificate SET identifiers = '{dns:b.example}' WHERE requested_by IS NOT NULL",
        {"audit.issued", "certificate.names"},
    ),
    "the server's own, taken": (
        "UPDATE certificate SET requested_by = 'operator:alice' WHERE profile = 'acme_server'",
        {"audit.issued", "operator.profile"},
    ),
}


@pytest.mark.parametrize(("spoil", "codes"), SPOILT.values(), ids=SPOILT)
async def test_the_auditor_accounts_for_them(new_ca, spoil, codes):
    async with new_ca() as ca, opened(ca) as desk:
        await desk.room.issue(Wish(names=names("a.example"), key=NewKey()), actor=ALICE)
        if spoil is not None:
            await desk.database.execute(spoil)
        findings = await checked(desk.database)
        assert codes <= {finding.code for finding in findings.found if finding.code[:4] != "crl."}
        if spoil is None:
            assert [finding.code for finding in findings.found if not finding.code.startswith("crl.")] == []
            assert (findings.certificates, findings.operators, findings.own) == (3, 1, 2)
