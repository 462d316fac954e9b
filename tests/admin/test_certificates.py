"""Certificates over the API: issued, renewed, looked at, taken back; by the same rules as anywhere, and for whom."""

import base64
import itertools
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from acme_ca.admin.access import Role
from acme_ca.core.codes import Code
from tests.support import issuing
from tests.support.admin import assert_refused
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def one(ca):
    return await ca.operator(Role.OPERATOR)


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def administrator(ca):
    return await ca.operator(Role.ADMINISTRATOR)


def pem_csr(*names: str, key=issuing.EC_KEY) -> str:
    request = x509.load_der_x509_csr(issuing.csr(*names, key=key))
    return request.public_bytes(Encoding.PEM).decode()


async def register(ca, who, *domains: str) -> str:
    id_ = ca.name().partition(".")[0]
    wish = {"service_id": id_, "name": "A", "owner": "B", "domains": list(domains)}
    await who.post("/services/register", wish, status=201)
    return id_


async def issue(ca, who, **wish) -> dict:
    return await who.post(
        "/certificates/issue", {"names": [ca.name()], "generate_key": True, **wish}, status=201
    )


# ---------------------------------------------------------------- issued


@pytest.mark.parametrize("form", ["pem", "base64", "pem with CRLF"])
async def test_from_a_csr(ca, one, form):
    name = ca.name()
    text = {
        "pem": pem_csr(name),
        "base64": base64.b64encode(issuing.csr(name)).decode(),
        "pem with CRLF": pem_csr(name).replace("\n", "\r\n"),
    }[form]
    made = await one.post("/certificates/issue", {"csr": text, "validity_days": 30}, status=201)
    leaf = x509.load_pem_x509_certificate(made["certificate"].encode())
    assert leaf.public_key() == issuing.EC_KEY.public_key()
    (intermediate,) = x509.load_pem_x509_certificates(made["chain"].encode())
    leaf.verify_directly_issued_by(intermediate)
    assert (made["status"], made["names"], made["private_key"]) == ("good", [name], None)
    assert made["requested_by"] == f"operator:{one.name}"
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= timedelta(days=30)


async def test_with_a_key_that_is_shown_once(ca, one):
    answer = await one.ask(
        "POST", "/certificates/issue", {"names": [ca.name()], "generate_key": True, "key_type": "ec-p384"}
    )
    assert answer.status == 201
    assert answer.headers["Cache-Control"] == "no-store"
    made = answer.json
    assert made["private_key"].startswith("-----BEGIN PRIVATE KEY-----")
    key = load_pem_private_key(made["private_key"].encode(), None)
    leaf = x509.load_pem_x509_certificate(made["certificate"].encode())
    assert leaf.public_key() == key.public_key()
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert made["key_sha256"] == __import__("hashlib").sha256(spki).hexdigest()
    again = await one.get(f"/certificates/{made['serial']}")
    assert again == {name: made[name] for name in again}
    assert "private_key" not in again
    secret = made["private_key"].splitlines()[1]
    assert secret not in str(ca.log.entries)


BAD = {
    "nothing": ({}, "body"),
    "neither csr nor key": ({"names": ["a.example"]}, "body"),
    "csr and key": ({"csr": "x", "generate_key": True}, "body"),
    "a kind of key for a csr": ({"csr": "x", "key_type": "ec-p256"}, "body"),
    "an unknown kind of key": (
        {"names": ["a.example"], "generate_key": True, "key_type": "dsa"},
        "key_type",
    ),
    "a name that is none": ({"names": ["a b"], "generate_key": True}, "names.0"),
    "too many names": ({"names": [f"n{n}.example" for n in range(101)], "generate_key": True}, "names"),
    "no days": ({"names": ["a.example"], "generate_key": True, "validity_days": 0}, "validity_days"),
    "a century": ({"names": ["a.example"], "generate_key": True, "validity_days": 36500}, "validity_days"),
    "an unknown field": ({"names": ["a.example"], "generate_key": True, "ca": True}, "ca"),
    "a service that cannot be": (
        {"names": ["a.example"], "generate_key": True, "service_id": "A B"},
        "service_id",
    ),
}


@pytest.mark.parametrize(("body", "field"), BAD.values(), ids=BAD)
async def test_what_is_wrong_is_named(ca, one, body, field):
    before = await ca.sql("SELECT count(*) FROM certificate")
    answer = await one.ask("POST", "/certificates/issue", body)
    assert_refused(answer, Code.FIELD_INVALID, status=400, field=field)
    assert await ca.sql("SELECT count(*) FROM certificate") == before


@pytest.mark.parametrize(
    "csr",
    [
        "x",
        "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        "AAAA",
        "é",
        "A" * 40000,
    ],
)
async def test_what_is_no_csr_is_refused(one, csr):
    answer = await one.ask("POST", "/certificates/issue", {"csr": csr})
    assert_refused(answer, "bad-csr", status=400)


async def test_lesson_1_a_csr_with_more_than_the_names_is_refused(ca, one):
    name = ca.name()
    wish = {"names": [name], "csr": pem_csr(name, "extra.example.test")}
    assert_refused(await one.ask("POST", "/certificates/issue", wish), "bad-csr", "extra", status=400)


async def test_lesson_2_the_policy_holds_over_the_api(new_ca):
    async with new_ca(policy={"denied_domains": "forbidden.test"}) as ca:
        who = await ca.operator()
        wish = {"names": ["a.forbidden.test"], "generate_key": True}
        answer = await who.ask("POST", "/certificates/issue", wish)
        assert answer.status == 403
        assert answer.json["subproblems"][0]["code"] == Code.NAME_DENIED
        made = await issue(ca, who)
        assert made["status"] == "good"


async def test_profiles_that_clients_cannot_order_are_for_administrators(one, administrator):
    wish = {"names": ["alice.operators.example"], "generate_key": True, "profile": "operator"}
    assert_refused(await one.ask("POST", "/certificates/issue", wish), Code.FORBIDDEN, status=403)
    made = await administrator.post("/certificates/issue", wish, status=201)
    assert made["profile"]["name"] == "operator"
    wish["profile"] = "acme_server"
    answer = await administrator.ask("POST", "/certificates/issue", wish)
    assert_refused(answer, "invalid-profile", status=400)


# ---------------------------------------------------------------- services


async def test_a_service_has_its_certificates(ca, one):
    first, second = ca.name(), ca.name()
    id_ = await register(ca, one, first, second)
    made = [await issue(ca, one, names=[name], service_id=id_) for name in (first, second, first)]
    found = await one.pages(f"/certificates/{id_}", limit=2)
    assert [each["serial"] for each in found] == [each["serial"] for each in reversed(made)]
    several = await one.ask("POST", "/certificates/renew", {"service_id": id_})
    assert_refused(several, Code.CONFLICT, "2 certificates", status=409)
    stranger = await one.ask(
        "POST",
        "/certificates/issue",
        {"names": ["else.example.test"], "generate_key": True, "service_id": id_},
    )
    assert stranger.json["subproblems"][0]["code"] == Code.NAME_NOT_OF_SERVICE
    gone = await one.ask("DELETE", f"/services/{id_}", revoke_certificates="true")
    assert_refused(gone, Code.FORBIDDEN, status=403)
    administrator = await ca.operator()
    gone = await administrator.ask("DELETE", f"/services/{id_}", revoke_certificates="true")
    assert gone.json["certificates_revoked"] == 3
    assert {each["status"] for each in await one.pages(f"/certificates/{id_}")} == {"revoked"}


async def test_the_certificates_of_a_service_that_is_retired_already_are_taken_back(ca, one):
    """Asked for later, or again where it was broken off: nothing half-done stays behind."""
    name, administrator = ca.name(), await ca.operator()
    id_ = await register(ca, one, name)
    await issue(ca, one, names=[name], service_id=id_)
    assert (await one.delete(f"/services/{id_}"))["certificates_revoked"] == 0
    for left in (1, 0):
        gone = await administrator.ask("DELETE", f"/services/{id_}", revoke_certificates="true")
        assert gone.status == 200, gone
        assert (gone.json["state"], gone.json["certificates_revoked"]) == ("retired", left)
        assert (gone.json["eab_keys"], gone.json["accounts"]) == ([], [])
    assert {each["status"] for each in await one.pages(f"/certificates/{id_}")} == {"revoked"}


async def test_a_token_for_some_services_sees_and_touches_only_theirs(ca, administrator):
    name, foreign = ca.name(), ca.name()
    mine, other = await register(ca, administrator, name), await register(ca, administrator, foreign)
    scoped = await ca.operator(services=(mine,))
    own = await issue(ca, scoped, names=[name], service_id=mine)
    theirs = await issue(ca, administrator, names=[foreign], service_id=other)
    free = await issue(ca, administrator)
    assert (await scoped.get(f"/certificates/{own['serial']}"))["serial"] == own["serial"]
    assert len(await scoped.pages(f"/certificates/{mine}")) == 1
    missing = (await scoped.ask("GET", f"/certificates/{'0' * 32}")).json["detail"]
    for serial in (theirs["serial"], free["serial"]):
        for method, path, body in (
            ("GET", f"/certificates/{serial}", None),
            ("GET", f"/certificates/{serial}/pem", None),
            ("POST", f"/certificates/{serial}/revoke", {}),
            ("POST", f"/certificates/{serial}/hold", {}),
            ("POST", f"/certificates/{serial}/release", {}),
            ("POST", f"/certificates/{serial}/renewal-window", {"end": "2030-01-01T00:00:00Z"}),
            ("POST", "/certificates/revoke", {"serial": serial}),
            ("POST", "/certificates/renew", {"serial": serial}),
        ):
            told = assert_refused(await scoped.ask(method, path, body), Code.NOT_FOUND, status=404)
            assert told["detail"] == missing, "nor is it told that there is one"
    assert_refused(await scoped.ask("GET", f"/certificates/{other}"), Code.NOT_FOUND, status=404)
    for wish in ({"service_id": other}, {}):
        body = {"names": [name], "generate_key": True, **wish}
        assert (await scoped.ask("POST", "/certificates/issue", body)).status in {400, 404}
    renewed = await scoped.ask("POST", "/certificates/renew", {"service_id": other})
    assert_refused(renewed, Code.NOT_FOUND, status=404)
    bulk = await scoped.ask("POST", "/certificates/revoke-bulk", {"service_id": mine})
    assert_refused(bulk, Code.FORBIDDEN, status=403)
    wish = {"names": [name], "generate_key": True, "service_id": mine, "profile": "operator"}
    assert_refused(await scoped.ask("POST", "/certificates/issue", wish), Code.FORBIDDEN, status=403)
    assert (await administrator.get(f"/certificates/{theirs['serial']}"))["status"] == "good"


# ---------------------------------------------------------------- renewed


async def test_renewed_by_serial_and_by_service(ca, one):
    name = ca.name()
    id_ = await register(ca, one, name)
    old = await issue(ca, one, names=[name], service_id=id_, profile="mtls")
    same = await one.post("/certificates/renew", {"serial": old["serial"]}, status=201)
    assert (same["key_sha256"], same["private_key"]) == (old["key_sha256"], None)
    assert (same["names"], same["profile"], same["service_id"]) == ([name], old["profile"], id_)
    fresh = await one.post("/certificates/renew", {"service_id": id_, "generate_key": True}, status=201)
    assert fresh["private_key"] is not None
    assert fresh["key_sha256"] != old["key_sha256"]
    given = await one.post(
        "/certificates/renew",
        {"serial": f"0x{old['serial'].upper()}", "csr": pem_csr(name), "validity_days": 5},
        status=201,
    )
    assert given["names"] == [name]
    await one.post(f"/certificates/{old['serial']}/revoke", {})
    answer = await one.ask("POST", "/certificates/renew", {"serial": old["serial"]})
    assert_refused(answer, Code.CONFLICT, status=409)
    for wish in ({}, {"serial": "1", "service_id": id_}):
        answer = await one.ask("POST", "/certificates/renew", wish)
        assert_refused(answer, Code.FIELD_INVALID, status=400, field="body")


# ---------------------------------------------------------------- taken back


async def test_held_released_and_revoked(ca, one):
    serial = (await issue(ca, one))["serial"]
    held = await one.post(f"/certificates/{serial}/hold", {"comment": "Stolen?"})
    assert (held["status"], held["comment"]) == ("on_hold", "Stolen?")
    again = await one.ask("POST", f"/certificates/{serial}/hold", {})
    assert_refused(again, Code.ALREADY_REVOKED, status=409)
    assert (await one.post(f"/certificates/{serial}/release", {}))["status"] == "good"
    none = await one.ask("POST", f"/certificates/{serial}/release", {})
    assert none.status == 409
    since = (datetime.now(UTC) - timedelta(days=1)).replace(microsecond=0).isoformat()
    gone = await one.post(
        "/certificates/revoke", {"serial": serial, "reason": "superseded", "invalid_since": since}
    )
    assert (gone["status"], gone["reason"]) == ("revoked", "superseded")
    assert datetime.fromisoformat(gone["invalid_since"]) == datetime.fromisoformat(since)
    graver = await one.post(f"/certificates/{serial}/revoke", {"reason": "keyCompromise"})
    assert graver["reason"] == "keyCompromise"
    over = await one.ask("POST", f"/certificates/{serial}/revoke", {"reason": "superseded"})
    assert_refused(over, Code.ALREADY_REVOKED, status=409)
    said = await ca.sql(
        "SELECT array_agg(event || ' ' || actor || ' ' || source ORDER BY id) FROM audit_event "
        f"WHERE object = 'certificate:{serial}'"
    )
    acts = ("issued", "held", "released", "revoked", "revoked")
    assert said == [f"certificate.{act} operator:{one.name} 127.0.0.1" for act in acts]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"reason": "certificateHold"}, "reason"),
        ({"reason": 1}, "reason"),
        ({"comment": "a\nb"}, "comment"),
        ({"comment": "a" * 1001}, "comment"),
        ({"invalid_since": "yesterday"}, "invalid_since"),
        ({"invalid_since": "2020-01-01T00:00:00"}, "invalid_since"),
        ({"invalid_since": "0001-01-01T00:00:00Z"}, "invalid_since"),
        ({"why": "x"}, "why"),
    ],
)
async def test_a_bad_revocation_changes_nothing(ca, one, body, field):
    serial = (await issue(ca, one))["serial"]
    answer = await one.ask("POST", f"/certificates/{serial}/revoke", body)
    assert_refused(answer, Code.FIELD_INVALID, status=400, field=field)
    assert (await one.get(f"/certificates/{serial}"))["status"] == "good"


@pytest.mark.parametrize("serial", ["0" * 32, "0" * 31, "xyz", "%25", "f" * 33, "f" * 300])
async def test_unknown_serials_are_not_found(one, serial):
    for path in ("revoke", "hold", "release", "renewal-window"):
        body = {"end": "2030-01-01T00:00:00Z"} if path == "renewal-window" else {}
        answer = await one.ask("POST", f"/certificates/{serial}/{path}", body)
        assert_refused(answer, Code.NOT_FOUND, status=404)
    assert_refused(await one.ask("GET", f"/certificates/{serial}"), Code.NOT_FOUND, status=404)


async def test_the_window_is_moved_and_computed_again(ca, one):
    serial = (await issue(ca, one))["serial"]
    path = f"/certificates/{serial}/renewal-window"
    end = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    moved = await one.post(path, {"end": end.isoformat(), "explanation_url": "https://ca.example/why"})
    assert datetime.fromisoformat(moved["renewal_window"]["end"]) == end
    assert moved["explanation_url"] == "https://ca.example/why"
    assert (await one.post(path, {}))["renewal_window"] is None
    assert_refused(await one.ask("POST", path, {}), Code.CONFLICT, status=409)
    bad = {"end": end.isoformat(), "explanation_url": "ftp://x"}
    answer = await one.ask("POST", path, bad)
    assert_refused(answer, Code.FIELD_INVALID, status=400, field="explanation_url")
    bad = {"start": end.isoformat(), "end": end.isoformat()}
    assert_refused(await one.ask("POST", path, bad), Code.FIELD_INVALID, status=400, field="end")
    late = {"end": (end + timedelta(days=4000)).isoformat()}
    assert_refused(await one.ask("POST", path, late), Code.CONFLICT, status=409)
    for early in ("0001-01-01T00:00:00Z", "0001-01-01T00:00:01Z", "0001-01-01T14:00:00.5+14:00"):
        answer = await one.ask("POST", path, {"end": early})
        assert_refused(answer, Code.FIELD_INVALID, status=400, field="end")
    assert (await one.get(f"/certificates/{serial}"))["renewal_window"] is None


async def test_the_certificate_with_its_chain(ca, one):
    made = await issue(ca, one)
    answer = await one.ask("GET", f"/certificates/{made['serial']}/pem")
    assert answer.content_type == "application/pem-certificate-chain"
    assert answer.body.decode() == made["certificate"] + made["chain"]


EARLY = ("-infinity", "4000-01-01 BC")
LATE = ("infinity", "294000-01-01")


@pytest.mark.parametrize(
    ("column", "time"),
    [
        *itertools.product(("not_before", "not_after", "revoked", "invalid_since", "recorded"), EARLY + LATE),
        *itertools.product(("window_start",), EARLY),
        *itertools.product(("window_end",), LATE),
    ],
)
async def test_a_certificate_whose_times_somebody_changed_is_shown(ca, one, column, time):
    name = ca.name()
    service = await register(ca, one, name)
    serial = (await issue(ca, one, names=[name], service_id=service))["serial"]
    end = {"end": (datetime.now(UTC) + timedelta(days=1)).isoformat()}
    await one.post(f"/certificates/{serial}/renewal-window", end)
    await one.post(f"/certificates/{serial}/revoke", {"invalid_since": "2026-01-01T00:00:00Z"})
    await ca.sql(f"UPDATE certificate SET {column} = '{time}' WHERE serial = '{serial}'")
    shown = await one.get(f"/certificates/{serial}")
    assert (shown["serial"], shown["status"]) == (serial, "revoked")
    assert (shown["invalid_since"] is None) == (column == "invalid_since")
    others = [(await issue(ca, one, names=[name], service_id=service))["serial"] for _ in range(2)]
    await ca.sql(f"UPDATE certificate SET recorded = '{time}' WHERE serial = '{others[0]}'")
    listed = await one.pages(f"/certificates/{service}", limit=1)
    assert sorted(each["serial"] for each in listed) == sorted([serial, *others])
    assert shown in listed


# ---------------------------------------------------------------- many


async def test_many_are_shown_and_then_taken_back(ca, one):
    officer = await ca.operator(Role.SECURITY_OFFICER)
    name = ca.name()
    made = [await issue(ca, one, names=[name]) for _ in range(3)]
    wish = {"name": name, "reason": "superseded", "comment": "Moved."}
    path = "/certificates/revoke-bulk"
    shown = await officer.post(path, wish)
    assert (shown["dry_run"], shown["count"]) == (True, 3)
    assert {each["serial"] for each in shown["sample"]} == {each["serial"] for each in made}
    assert shown["sample"][0]["names"] == [name]
    act = {**wish, "dry_run": False}
    assert_refused(await officer.ask("POST", path, act), Code.FIELD_INVALID, status=400)
    assert_refused(await officer.ask("POST", path, {**act, "expected": 2}), Code.CONFLICT, status=409)
    other = {**act, "expected": 3, "digest": "0" * 64}
    assert_refused(await officer.ask("POST", path, other), Code.CONFLICT, status=409)
    done = await officer.post(path, {**act, "expected": 3, "digest": shown["digest"]})
    assert (done["dry_run"], done["count"]) == (False, 3)
    for each in made:
        found = await one.get(f"/certificates/{each['serial']}")
        assert (found["status"], found["comment"]) == ("revoked", "Moved.")
    assert (await officer.post(path, wish))["count"] == 0
    for empty in ({}, {"reason": "superseded"}):
        assert_refused(await officer.ask("POST", path, empty), Code.FIELD_INVALID, "empty", status=400)
    for field in ("issuer", "account"):
        answer = await officer.ask("POST", path, {field: "0" * 12})
        assert_refused(answer, Code.FIELD_INVALID, status=400, field=field)
    assert_refused(await one.ask("POST", path, wish), Code.FORBIDDEN, status=403)


async def test_a_second_person_approves_the_act_and_not_the_look(new_ca):
    async with new_ca(admin={"two_person": "certificates.revoke-bulk"}) as ca:
        one, two = await ca.operator(name="alice"), await ca.operator(name="bob")
        name = ca.name()
        serial = (await issue(ca, one, names=[name]))["serial"]
        path = "/certificates/revoke-bulk"
        shown = await one.post(path, {"name": name})
        asked = await one.post(path, {"name": name, "dry_run": False, "expected": shown["count"]}, status=202)
        assert (await one.get(f"/certificates/{serial}"))["status"] == "good"
        decided = await two.post(f"/approvals/{asked['id']}/approve")
        assert decided["outcome"]["body"]["count"] == 1
        assert (await one.get(f"/certificates/{serial}"))["status"] == "revoked"
