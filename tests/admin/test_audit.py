"""The audit trail over the API."""

import asyncio
import json
from datetime import datetime
from urllib.parse import quote

import pytest

from acme_ca.admin.access import Role
from acme_ca.core.codes import Code
from tests.support.admin import assert_refused
from tests.support.application import at_work
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP


async def test_who_did_what_is_found_by_object_actor_event_and_time(new_ca):
    async with new_ca() as ca:
        officer = await ca.operator(Role.SECURITY_OFFICER)
        account = await ca.account()
        for contact in ("a", "b", "c"):
            await account.post(account.url, {"contact": [f"mailto:{contact}@example.org"]})
        actor = f"account:{account.url.rpartition('/')[2]}"
        told = await officer.pages("/audit/events", actor=actor, limit=2)
        assert [one["event"] for one in told] == ["account.updated"] * 3 + ["account.created"]
        assert told[0]["detail"]["before"]["contact"] == ["mailto:b@example.org"]
        assert told[0]["source"] == "127.0.0.1"
        oldest = await officer.pages("/audit/events", object=actor, sort="at", limit=1)
        assert oldest == told[::-1]
        assert await officer.get(f"/audit/events/{told[0]['id']}") == told[0]
        from_here = {"object": actor, "source": "127.0.0.1"}
        assert await officer.pages("/audit/events", **from_here) == told
        mapped = from_here | {"source": "::ffff:127.0.0.1"}
        assert await officer.pages("/audit/events", **mapped) == told
        assert await officer.pages("/audit/events", **(from_here | {"source": "127.0.0.2"})) == []
        on_the_machine = await officer.pages("/audit/events", source="socket")
        assert {one["event"] for one in on_the_machine} == {"token.created"}
        made = (await officer.get("/audit/events", event="account.created"))["items"]
        assert told[3] in made
        until = {"object": actor, "until": told[0]["at"], "since": told[2]["at"]}
        assert (await officer.get("/audit/events", **until))["items"] == told[1:3]
        exported = await officer.ask("GET", "/audit/export", object=actor, limit=3)
        assert exported.content_type == "application/jsonl"
        lines = [json.loads(line) for line in exported.body.splitlines()]
        assert [line["id"] for line in lines] == [one["id"] for one in told[:0:-1]]
        after = {"object": actor, "after": lines[-1]["id"]}
        rest = await officer.ask("GET", "/audit/export", **after)
        assert json.loads(rest.body)["id"] == told[0]["id"]


async def test_events_whose_times_somebody_changed_break_no_page(new_ca):
    """`audit verify` names them; the list has each of them once, in either order."""
    async with new_ca() as ca:
        officer = await ca.operator(Role.SECURITY_OFFICER)
        account = await ca.account()
        for contact in "abcdefgh":
            await account.post(account.url, {"contact": [f"mailto:{contact}@example.org"]})
        ids = await ca.sql(
            "SELECT array_agg(id ORDER BY id) FROM audit_event WHERE event = 'account.updated'"
        )
        odd = (
            "infinity",
            "-infinity",
            "4000-01-01 BC",
            "294000-01-01",
            "1969-12-31",
            "0001-01-01",
            "9999-12-31",
        )
        await ca.sql("ALTER TABLE audit_event DISABLE TRIGGER USER")
        for id_, time in zip(ids, odd, strict=False):
            await ca.sql(f"UPDATE audit_event SET at = '{time}' WHERE id = {id_}")
        expected = await ca.sql("SELECT array_agg(id ORDER BY at, id) FROM audit_event")
        for limit in (1, 2, 3):
            for sort, wanted in (("at", expected), ("-at", expected[::-1])):
                found = await officer.pages("/audit/events", sort=sort, limit=limit)
                assert [one["id"] for one in found] == wanted
        page = await officer.get("/audit/events", sort="at", limit=2)
        await ca.sql(f"DELETE FROM audit_event WHERE id = {page['items'][-1]['id']}")
        gone = await officer.ask("GET", "/audit/events", sort="at", limit=2, cursor=page["next"])
        assert_refused(gone, Code.FIELD_INVALID, status=400, field="cursor")


async def test_every_event_that_is_listed_is_shown(new_ca):
    """Whatever its id; and what is no id is no event."""
    async with new_ca() as ca:
        officer = await ca.operator(Role.SECURITY_OFFICER)
        for id_ in (-(2**63), 10**18, 2**63 - 1):
            await ca.sql(
                f"""INSERT INTO audit_event (id, at, event, actor, object) OVERRIDING SYSTEM VALUE
                    VALUES ({id_}, now(), 'x', 'server', 'x')"""
            )
        for one in await officer.pages("/audit/events", event="x"):
            assert await officer.get(f"/audit/events/{one['id']}") == one
        for text in (str(2**63), str(-(2**63) - 1), "9" * 5000, "--1", "-", "+1", "1_0", "٣"):
            answer = await officer.ask("GET", f"/audit/events/{quote(text)}")
            assert_refused(answer, Code.NOT_FOUND, status=404)


UNREADABLE = {
    "half a character": r'{"a":"\ud800"}',
    "a name of half a character": r'{"\ud800":1}',
    "a number of 5000 digits": '{"a":' + "9" * 5000 + "}",
    "a number without an end": '{"a":1e999}',
    "lists in lists": "[" * 3000 + "]" * 3000,
    "lists in an object": '{"a":' + "[" * 300 + "]" * 300 + "}",
}


async def test_events_whose_details_somebody_changed_are_shown_as_they_are_stored(new_ca):
    async with new_ca() as ca:
        officer = await ca.operator(Role.SECURITY_OFFICER)
        for detail in UNREADABLE.values():
            await ca.sql(
                f"INSERT INTO audit_event (at, event, actor, object, detail) VALUES (now(), 'x.y', 'server', 'x:y', '{detail}')"
            )
        found = await officer.pages("/audit/events", object="x:y", sort="at", limit=2)
        assert [one["detail"] for one in found] == list(UNREADABLE.values())
        assert [await officer.get(f"/audit/events/{one['id']}") for one in found] == found
        exported = await officer.ask("GET", "/audit/export", object="x:y")
        assert exported.body.count(b"\n") == len(UNREADABLE)


@pytest.mark.parametrize(
    "detail", [{"a": "\U0001f600\0"}, {"a": [[[{"b": [1, -2.5, None, True]}]]]}, [], "x", 7, None]
)
async def test_a_detail_that_can_be_read_is_what_it_was(ca, detail):
    officer = await ca.operator(Role.SECURITY_OFFICER)
    object_ = f"x:{ca.name()}"
    await ca.sql(
        f"""INSERT INTO audit_event (at, event, actor, object, detail)
            VALUES (now(), 'x.y', 'server', '{object_}', '{json.dumps(detail)}')"""
    )
    (found,) = await officer.pages("/audit/events", object=object_)
    assert found["detail"] == detail


async def test_what_happened_is_sealed_within_seconds(new_ca):
    async with new_ca() as ca:
        officer = await ca.operator(Role.SECURITY_OFFICER)
        assert_refused(await officer.ask("GET", "/audit/checkpoint"), Code.NOT_FOUND, "sealed", status=404)
        async with at_work(ca):
            for _ in range(100):
                if (answer := await officer.ask("GET", "/audit/checkpoint")).status == 200:
                    break
                await asyncio.sleep(0.1)
        checkpoint = answer.json
        assert checkpoint["text"].startswith(
            f"acme-ca audit checkpoint 1\norigin {ca.settings.public_url}\nseal 1\n"
        )
        assert ca.settings.audit_checkpoint.read_text() == checkpoint["text"]
        (seal,) = await officer.pages("/audit/seals")
        assert (seal["id"], seal["hash"]) == (1, checkpoint["hash"])
        assert datetime.fromisoformat(seal["at"]) == datetime.fromisoformat(checkpoint["at"])
        first = (await officer.get("/audit/events", sort="at"))["items"][0]
        assert first["seal"] == 1


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/audit/events", {"since": "yesterday"}, "since"),
        ("/audit/events", {"since": "2030-01-01T00:00:00"}, "since"),
        ("/audit/events", {"sort": "sideways"}, "sort"),
        ("/audit/events", {"actor": ""}, "actor"),
        ("/audit/events", {"cursor": "x"}, "cursor"),
        ("/audit/events", {"who": "x"}, "who"),
        ("/audit/export", {"after": "x"}, "after"),
        ("/audit/export", {"after": str(2**63)}, "after"),
        ("/audit/export", {"limit": "10001"}, "limit"),
        ("/audit/seals", {"cursor": "WyJhIl0"}, "cursor"),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused_by_the_field(ca, path, query, field):
    officer = await ca.operator(Role.SECURITY_OFFICER)
    assert_refused(await officer.ask("GET", path, **query), Code.FIELD_INVALID, status=400, field=field)


@pytest.mark.parametrize("id_", ["0", "x", "-1", "9" * 30, "%25", "%D9%A1"])
async def test_an_event_that_is_not_there(ca, id_):
    officer = await ca.operator(Role.SECURITY_OFFICER)
    assert_refused(await officer.ask("GET", f"/audit/events/{id_}"), Code.NOT_FOUND, status=404)
