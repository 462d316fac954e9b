"""The certificates of the CA over the API."""

import pytest
import pytest_asyncio
from cryptography import x509

from acme_ca.admin.access import Role
from acme_ca.core.codes import Code
from tests.support.admin import assert_refused
from tests.support.application import Keys
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP


@pytest_asyncio.fixture(loop_scope="session")
async def served(new_ca, hierarchy, root_key):
    """A CA whose root's key is within reach, and an administrator."""
    keys = Keys({"file:intermediate.key": hierarchy.intermediate.key, "file:root.key": root_key})
    async with new_ca(keys=keys) as ca:
        yield ca, await ca.operator(name="alice")


async def test_what_issues_now(served):
    ca, alice = served
    found = await alice.get("/ca/info")
    assert found["ca_initialized"] is True
    assert found["root"]["id"] == ca.hierarchy.root.id
    assert found["intermediate"]["id"] == ca.hierarchy.intermediate.id
    assert found["intermediate"]["state"] == "active"
    certificate = x509.load_pem_x509_certificate(found["root"]["pem"].encode())
    assert certificate == ca.hierarchy.root.certificate


async def test_the_bundle_is_for_everybody(served):
    ca, alice = served
    stranger = type(alice)(ca.client, None)
    for prefix in ("/api", "/api/v1"):
        answer = await stranger.ask("GET", "/ca/bundle", prefix=prefix)
        assert (answer.status, answer.content_type) == (200, "application/x-pem-file")
        assert x509.load_pem_x509_certificates(answer.body) == [
            ca.hierarchy.intermediate.certificate,
            ca.hierarchy.root.certificate,
        ]


async def test_a_rotation(served):
    ca, alice = served
    first = ca.hierarchy.intermediate.id
    made = await alice.post("/ca/intermediate", {"permit": ["example.test"]}, status=201)
    assert (made["state"], made["kind"]) == ("staged", "intermediate")
    assert_refused(
        await alice.ask("POST", f"/issuers/{first}/retire"), Code.CONFLICT, "only active", status=409
    )
    changed = await alice.post(f"/issuers/{made['id'][:8]}/activate")
    assert changed["state"] == "active"
    assert any("the server's own name" in note for note in changed["notes"])
    assert (await alice.get("/ca/info"))["intermediate"]["id"] == made["id"]
    assert (await alice.post(f"/issuers/{first}/retire"))["state"] == "retired"
    assert_refused(await alice.ask("POST", f"/issuers/{first}/retire"), Code.CONFLICT, status=409)
    revoked = await alice.post(f"/issuers/{first}/revoke", {"reason": "superseded"})
    assert revoked["revoked"] is not None
    assert_refused(
        await alice.ask("POST", f"/issuers/{first}/activate"), Code.CONFLICT, "revoked", status=409
    )
    states = {one["id"]: one["state"] for one in await alice.pages("/issuers", limit=1)}
    assert states == {ca.hierarchy.root.id: "active", first: "retired", made["id"]: "active"}
    said = await ca.sql(
        "SELECT array_agg(event ORDER BY id) FROM audit_event WHERE actor = 'operator:alice' AND source = '127.0.0.1'"
    )
    assert [event for event in said if event.startswith("issuer.")] != []


async def test_a_second_root_wants_to_be_meant(served):
    ca, alice = served
    assert_refused(await alice.ask("POST", "/ca/root", {}), Code.EXISTS, "additional", status=409)
    wish = {"common_name": "Second", "organization": "", "additional": True}
    made = await alice.post("/ca/root", wish, status=201)
    assert (made["kind"], made["state"], made["subject"]) == ("root", "active", "CN=Second Root CA")
    assert_refused(await alice.ask("POST", "/ca/root", wish), Code.CONFLICT, "name", status=409)
    below = await alice.post("/ca/intermediate", {"parent": made["id"]}, status=201)
    assert below["issuer"] == made["subject"]
    crossed = await alice.post(f"/issuers/{below['id']}/cross-sign", {"by": ca.hierarchy.root.id}, status=201)
    assert (crossed["kind"], crossed["subject"]) == ("cross", below["subject"])


async def test_a_request_is_signed_elsewhere_or_refused(served):
    _, alice = served
    made = await alice.post("/issuers/requests", {"path_length": 1}, status=201)
    csr = x509.load_pem_x509_csr(made["csr"].encode())
    assert csr.is_signature_valid
    root = (await alice.get("/ca/info"))["root"]["pem"]
    answer = await alice.ask("POST", "/issuers/install", {"certificate": root})
    assert_refused(answer, Code.CONFLICT, "request", status=409)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/ca/root", {"country": "Utopia"}, "country"),
        ("/ca/root", {"common_name": "a\x01b"}, "common_name"),
        ("/ca/root", {"validity_days": 0}, "validity_days"),
        ("/ca/root", {"key_type": "dsa"}, "key_type"),
        ("/ca/intermediate", {"permit": ["not a name"]}, "permit"),
        ("/ca/intermediate", {"path_length": -1}, "path_length"),
        ("/ca/intermediate", {"colour": "red"}, "colour"),
        ("/issuers/install", {"certificate": "x"}, "certificate"),
        (
            "/issuers/install",
            {"certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"},
            "certificate",
        ),
        ("/issuers/install", {}, "certificate"),
    ],
)
async def test_bad_wishes_name_their_field(served, path, body, field):
    _, alice = served
    assert_refused(await alice.ask("POST", path, body), Code.FIELD_INVALID, status=400, field=field)


@pytest.mark.parametrize(
    "uri",
    [
        "file:/etc/cron.d/x",
        "file:../x.key",
        "FILE:x.key",
        "pkcs11:token=t;object=o?module-path=/tmp/evil.so",
        "pkcs11:token=t?MODULE-PATH=/tmp/evil.so",
        "pkcs11:token=t?pin-source=/etc/shadow",
        "pkcs11:token=t?pin-value=1234",
        "x y:z",
    ],
)
async def test_paths_of_the_machine_are_not_given_from_afar(served, uri):
    _, alice = served
    answer = await alice.ask("POST", "/ca/intermediate", {"key_uri": uri})
    assert_refused(answer, Code.FIELD_INVALID, status=400, field="key_uri")


async def test_a_name_of_a_file_is_given(served):
    ca, alice = served
    await alice.post("/ca/intermediate", {"key_uri": "file:next.key"}, status=201)
    assert "file:next.key" in ca.keys


async def test_what_is_not_there(served):
    ca, alice = served
    for id_ in ("0" * 32, ca.hierarchy.root.id[:3], "zzzzzz"):
        assert_refused(await alice.ask("GET", f"/issuers/{id_}"), Code.NOT_FOUND, status=404)
    answer = await alice.ask("POST", f"/issuers/{ca.hierarchy.root.id}/revoke", {"reason": "superseded"})
    assert_refused(answer, Code.CONFLICT, "root", status=409)
    answer = await alice.ask("POST", f"/issuers/{ca.hierarchy.root.id}/revoke", {"reason": "certificateHold"})
    assert_refused(answer, Code.FIELD_INVALID, status=400, field="reason")


async def test_a_key_that_is_offline_is_a_sentence(new_ca):
    async with new_ca() as ca:
        alice = await ca.operator(Role.ADMINISTRATOR)
        answer = await alice.ask("POST", "/ca/intermediate", {})
        assert_refused(answer, Code.CONFLICT, "out of reach", status=409)


async def test_a_ca_is_made_from_nothing(served):
    """As VCC does it: a root, then an intermediate, which issues."""
    ca, alice = served
    await ca.sql("UPDATE issuer SET state = 'retired', retired = now(), activated = now()")
    root = await alice.post("/ca/root", {"common_name": "New", "additional": True}, status=201)
    made = await alice.post("/ca/intermediate", {"parent": root["id"]}, status=201)
    assert made["state"] == "active"
    found = await alice.get("/ca/info")
    assert (found["ca_initialized"], found["root"]["id"]) == (True, root["id"])
