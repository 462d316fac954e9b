"""Two persons for a dangerous act: taking back many certificates stands for all of them."""

import asyncio

import pytest
import pytest_asyncio

from acme_ca.admin.access import Role
from acme_ca.config import ConfigurationError
from acme_ca.core.codes import Code
from tests.support.admin import Operator, assert_refused
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP

ACT = "certificates.revoke-bulk"


@pytest_asyncio.fixture(loop_scope="session")
async def ca(new_ca):
    async with new_ca(admin={"two_person": ACT}) as made:
        yield made


async def one_certificate(ca):
    return await (await ca.ready(await ca.account())).issue(ca.web)


def wish(count=1):
    return {"profile": "server", "reason": "superseded", "dry_run": False, "expected": count}


async def revoked(ca):
    return await ca.sql("SELECT count(*) FROM certificate WHERE revoked IS NOT NULL")


async def test_an_act_is_done_when_another_person_approves_it(ca):
    await one_certificate(ca)
    alice, bob = await ca.operator(name="alice"), await ca.operator(Role.SECURITY_OFFICER, name="bob")
    shown = await alice.post("/certificates/revoke-bulk", {"profile": "server"})
    assert shown["count"] == 1, "a look needs nobody"
    asked = await alice.post("/certificates/revoke-bulk", wish(), status=202)
    assert (asked["state"], asked["requested_by"], asked["action"]) == ("waiting", "alice", ACT)
    assert await revoked(ca) == 0
    mine = await alice.ask("POST", f"/approvals/{asked['id']}/approve")
    assert_refused(mine, Code.APPROVAL_BY_ANOTHER, status=403)
    assert [one["id"] for one in await bob.pages("/approvals", state="waiting")] == [asked["id"]]
    done = await bob.post(f"/approvals/{asked['id']}/approve")
    assert (done["state"], done["decided_by"]) == ("approved", "bob")
    assert (done["outcome"]["status"], done["outcome"]["body"]["count"]) == (200, 1)
    assert await revoked(ca) == 1
    again = await bob.ask("POST", f"/approvals/{asked['id']}/approve")
    assert_refused(again, Code.CONFLICT, status=409)
    assert await bob.pages("/approvals", state="waiting") == []
    said = await ca.sql(
        "SELECT array_agg(event || ' ' || actor ORDER BY id) FROM audit_event "
        "WHERE event ~ '^approval' OR event = 'certificate.revoked'"
    )
    assert said == [
        "approval.requested operator:alice",
        "approval.approved operator:bob",
        "certificate.revoked operator:bob",
    ]


async def test_what_is_rejected_or_withdrawn_or_too_old_is_not_done(ca):
    await one_certificate(ca)
    alice, bob = await ca.operator(), await ca.operator(Role.SECURITY_OFFICER)
    ids = [(await alice.post("/certificates/revoke-bulk", wish(), status=202))["id"] for _ in range(3)]
    assert (await bob.post(f"/approvals/{ids[0]}/reject"))["state"] == "rejected"
    assert (await alice.post(f"/approvals/{ids[1]}/reject"))["state"] == "rejected"
    await ca.sql(f"UPDATE approval SET expires = now() WHERE id = '{ids[2]}'")
    assert (await bob.get(f"/approvals/{ids[2]}"))["state"] == "expired"
    for id_ in ids:
        assert_refused(await bob.ask("POST", f"/approvals/{id_}/approve"), Code.CONFLICT, status=409)
        assert_refused(await bob.ask("POST", f"/approvals/{id_}/reject"), Code.CONFLICT, status=409)
    assert await revoked(ca) == 0


@pytest.mark.parametrize(
    "before",
    ["action = 'certificates.burn'", """request = jsonb_set(request::jsonb, '{body,issuer}', '"short"')"""],
    ids=["act", "field"],
)
async def test_what_an_older_version_took_and_this_one_does_not_is_told_and_not_done(ca, before):
    await one_certificate(ca)
    alice, bob = await ca.operator(), await ca.operator(Role.SECURITY_OFFICER)
    asked = await alice.post("/certificates/revoke-bulk", wish(), status=202)
    await ca.sql(f"UPDATE approval SET {before}")
    answer = await bob.ask("POST", f"/approvals/{asked['id']}/approve")
    assert_refused(answer, Code.CONFLICT, "This version", status=409)
    assert (await bob.get(f"/approvals/{asked['id']}"))["state"] == "waiting"
    assert await revoked(ca) == 0


async def test_of_many_who_approve_at_once_one_does_it(ca):
    await one_certificate(ca)
    alice = await ca.operator()
    officers = [await ca.operator(Role.SECURITY_OFFICER) for _ in range(8)]
    id_ = (await alice.post("/certificates/revoke-bulk", wish(), status=202))["id"]
    answers = await asyncio.gather(*(one.ask("POST", f"/approvals/{id_}/approve") for one in officers))
    assert sorted(answer.status for answer in answers) == [200, *[409] * 7]


async def test_an_act_that_is_refused_when_it_is_done_says_so_in_its_outcome(ca):
    alice, bob = await ca.operator(), await ca.operator(Role.SECURITY_OFFICER)
    id_ = (await alice.post("/certificates/revoke-bulk", wish(7), status=202))["id"]
    done = await bob.post(f"/approvals/{id_}/approve")
    assert done["outcome"]["status"] == 409
    assert done["outcome"]["body"]["code"] == Code.CONFLICT


async def test_who_approves_must_be_allowed_the_act_itself(ca):
    """An officer may decide, an operator may not, whatever was asked for."""
    alice, operator = await ca.operator(), await ca.operator(Role.OPERATOR)
    id_ = (await alice.post("/certificates/revoke-bulk", wish(), status=202))["id"]
    assert_refused(await operator.ask("POST", f"/approvals/{id_}/approve"), Code.FORBIDDEN, status=403)
    assert (await operator.get(f"/approvals/{id_}"))["state"] == "waiting"


async def test_a_bad_request_is_refused_before_it_waits(ca):
    alice = await ca.operator()
    answer = await alice.ask("POST", "/certificates/revoke-bulk", {**wish(), "reason": "boredom"})
    assert_refused(answer, Code.FIELD_INVALID, status=400, field="reason")
    assert await ca.sql("SELECT count(*) FROM approval") == 0


async def test_unknown_approvals_are_not_found(ca):
    alice = await ca.operator()
    for method, path in (("GET", ""), ("POST", "/approve"), ("POST", "/reject")):
        assert_refused(await alice.ask(method, f"/approvals/0{path}"), Code.NOT_FOUND, status=404)


async def test_a_name_of_no_dangerous_act_stops_the_start(new_ca):
    with pytest.raises(ConfigurationError, match=r"ACME_CA_ADMIN__TWO_PERSON.*certificates\.revoke-bulk"):
        async with new_ca(admin={"two_person": "certificates.revok-bulk"}):
            pass
    async with new_ca(admin={"two_person": "all"}) as ca:
        alice = await ca.operator()
        await alice.post("/certificates/revoke-bulk", wish(0), status=202)


async def test_an_act_reaches_no_further_than_the_token_that_asked_for_it(new_ca):
    """Whoever approves may reach everything."""
    async with new_ca(admin={"two_person": "all"}) as ca:
        everybody, bob = await ca.operator(), await ca.operator(name="bob")
        scoped = await ca.operator(services=("web",))
        wish = {"reason": "superseded", "comment": "x"}
        for service, status in (("mail", 404), ("web", 200)):
            key = await everybody.post("/eab-keys", {"owner": "x", "service": service}, status=201)
            await everybody.post(f"/eab-keys/{key['id']}/revoke", {"reason": "x"})
            asked = await scoped.post(f"/eab-keys/{key['id']}/revoke-certificates", wish, status=202)
            assert asked["request"]["services"] == ["web"], "the approver sees it"
            done = await bob.post(f"/approvals/{asked['id']}/approve")
            assert done["outcome"]["status"] == status


@pytest.mark.parametrize("end", ["revoked", "expires"])
async def test_what_somebody_asked_for_whose_token_has_ended_is_not_done(ca, end):
    await one_certificate(ca)
    alice, bob = await ca.operator(name="alice"), await ca.operator(Role.SECURITY_OFFICER, name="bob")
    id_ = (await alice.post("/certificates/revoke-bulk", wish(), status=202))["id"]
    await ca.sql(f"UPDATE api_token SET {end} = now() WHERE name = 'alice'")
    answer = await bob.ask("POST", f"/approvals/{id_}/approve")
    assert_refused(answer, Code.CONFLICT, "credential", status=409)
    assert await revoked(ca) == 0
    assert (await bob.post(f"/approvals/{id_}/reject"))["state"] == "rejected"


async def test_a_user_of_this_machine_has_no_credential_that_ends(ca):
    bob = await ca.operator(Role.SECURITY_OFFICER)
    alice = await ca.operator()
    id_ = (await alice.post("/certificates/revoke-bulk", wish(0), status=202))["id"]
    await ca.sql(f"UPDATE approval SET requested_by = 'root@localhost' WHERE id = '{id_}'")
    assert (await bob.post(f"/approvals/{id_}/approve"))["outcome"]["status"] == 200


async def test_taking_back_the_certificates_of_a_service_waits_and_retiring_it_does_not(new_ca):
    async with new_ca(admin={"two_person": "all"}) as ca:
        alice, bob = await ca.operator(), await ca.operator()
        for id_ in ("web", "mail"):
            service = {"service_id": id_, "name": "x", "owner": "y"}
            await alice.post("/services/register", service, status=201)
        assert (await alice.delete("/services/mail"))["state"] == "retired"
        answer = await alice.ask("DELETE", "/services/web", revoke_certificates="true")
        assert answer.status == 202, answer
        assert (await alice.get("/services/web"))["state"] == "approved"
        done = await bob.post(f"/approvals/{answer.json['id']}/approve")
        assert done["outcome"]["body"]["state"] == "retired"


# ---------------------------------------------------------------- one person with two credentials


async def by_api(ca, maker, name, **wish):
    """A credential that `maker` made over the API."""
    made = await maker.post("/tokens", {"name": name, "role": "administrator", **wish}, status=201)
    assert made["made_by"] == f"operator:{maker.name}"
    return Operator(ca.client, made["token"], name)


async def assert_not_approved(ca, asks, decides, *words):
    id_ = (await asks.post("/certificates/revoke-bulk", wish(0), status=202))["id"]
    answer = await decides.ask("POST", f"/approvals/{id_}/approve")
    assert_refused(answer, Code.APPROVAL_BY_ANOTHER, *words, status=403)
    assert (await decides.get(f"/approvals/{id_}"))["state"] == "waiting"
    assert (await decides.post(f"/approvals/{id_}/reject"))["state"] == "rejected"


async def assert_approved(asks, decides):
    id_ = (await asks.post("/certificates/revoke-bulk", wish(0), status=202))["id"]
    assert (await decides.post(f"/approvals/{id_}/approve"))["outcome"]["status"] == 200


async def test_nobody_approves_with_a_second_token_that_they_made(ca):
    """Also not through a third, nor the other way round, nor with two that they made."""
    alice, bob = await ca.operator(name="alice"), await ca.operator(name="bob")
    second, sister = await by_api(ca, alice, "second"), await by_api(ca, alice, "sister")
    third = await by_api(ca, second, "third")
    for asks, decides in ((alice, second), (second, alice), (alice, third), (third, sister)):
        await assert_not_approved(ca, asks, decides, "operator:alice", "server's machine")
    for asks, decides in ((third, bob), (bob, third)):
        await assert_approved(asks, decides)


async def test_the_name_of_another_does_not_hide_who_made_a_token(ca):
    """Names may be freed and given again."""
    alice, bob = await ca.operator(name="alice"), await ca.operator(name="bob")
    await alice.post(f"/tokens/{bob.token.split('_')[1]}/revoke")
    await assert_not_approved(ca, alice, await by_api(ca, alice, "bob"), "operator:alice")


async def test_what_waits_is_not_for_a_later_token_of_the_same_name(ca):
    alice, bob, carol = [await ca.operator(name=name) for name in ("alice", "bob", "carol")]
    id_ = (await alice.post("/certificates/revoke-bulk", wish(0), status=202))["id"]
    await carol.post(f"/tokens/{alice.token.split('_')[1]}/revoke")
    await by_api(ca, carol, "alice")
    answer = await bob.ask("POST", f"/approvals/{id_}/approve")
    assert_refused(answer, Code.CONFLICT, "credential", status=409)


async def logs_in_with_a_certificate(ca, name):
    """As far as the approvals can tell: the operator of that name had an entry for a certificate, too."""
    certified = ca.name()
    await ca.sql(
        "INSERT INTO api_token (id, name, certificate_name, role, created, made_by, revoked) "
        f"VALUES ('{name}', '{name}', 'dns:{certified}', 'viewer', now(), 'operator:root@localhost', now())"
    )
    return {"names": [certified], "profile": "operator", "generate_key": True}


async def test_who_had_a_client_certificate_issued_may_have_its_key(ca):
    alice, bob, carol = [await ca.operator(name=name) for name in ("alice", "bob", "carol")]
    wish = await logs_in_with_a_certificate(ca, "bob")
    await assert_approved(alice, bob)
    await carol.post("/certificates/issue", wish, status=201)
    await assert_approved(alice, bob)
    await assert_not_approved(ca, bob, carol, "operator:carol")
    made = await alice.post("/certificates/issue", wish, status=201)
    await assert_not_approved(ca, alice, bob, "operator:alice")
    await alice.post(f"/certificates/{made['serial']}/revoke", {})
    await assert_not_approved(ca, alice, bob, "operator:alice")


async def test_nobody_can_tell_who_has_the_key_of_a_certificate_that_an_account_ordered(ca):
    alice, bob = await ca.operator(name="alice"), await ca.operator(name="bob")
    made = await alice.post("/certificates/issue", await logs_in_with_a_certificate(ca, "bob"), status=201)
    await ca.account()
    await ca.sql(
        "UPDATE certificate SET requested_by = NULL, account_id = (SELECT min(id) FROM account) "
        f"WHERE serial = '{made['serial']}'"
    )
    await assert_not_approved(ca, alice, bob, "nobody can tell")
    await assert_not_approved(ca, bob, alice, "nobody can tell")
