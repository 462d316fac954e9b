"""What every route does with a request: bodies, queries, paths; and what its answers carry."""

import json
from base64 import urlsafe_b64encode

import pytest
import pytest_asyncio

from acme_ca.admin.paging import MAX_CURSOR, read_cursor, write_cursor
from acme_ca.admin.routes import ROUTES
from acme_ca.core.codes import Code
from acme_ca.core.problems import Problem
from tests.support.admin import assert_refused
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP

GOOD = {"name": "somebody", "role": "viewer"}


def as_cursor(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def administrator(ca):
    return await ca.operator()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({**GOOD, "role": "king"}, "role"),
        ({**GOOD, "role": None}, "role"),
        ({**GOOD, "name": 7}, "name"),
        ({**GOOD, "name": "x" * 65}, "name"),
        ({**GOOD, "name": "a\nb"}, "name"),
        ({**GOOD, "services": "covina"}, "services"),
        ({**GOOD, "services": ["covina", 1]}, "services.1"),
        ({**GOOD, "expires_in": "soon"}, "expires_in"),
        ({**GOOD, "expires_in": "0 days"}, "expires_in"),
        ({**GOOD, "expires_in": "11 years"}, "expires_in"),
        ({**GOOD, "certificate_name": "-"}, "certificate_name"),
        ({**GOOD, "certificate_name": "\ud800"}, None),
        ({**GOOD, "surprise": 1}, "surprise"),
        ({**GOOD, "services": ["a\0b"]}, "body"),
        ([], "body"),
        ("name", "body"),
        (None, "name"),
        (b"\xff", None),
        (b'{"name": ', None),
        (b"{" * 10_000, None),
        (b'{"name": "\\ud800", "role": "viewer"}', None),
        (b'{"name": "a", "name": "b", "role": "viewer"}', "name"),
        (b'{"name": "a", "role": "viewer", "\\u0072ole": "administrator"}', "role"),
        (b'{"name": "a", "role": "viewer", "a b": 1, "a b": 2}', "body"),
        (b'{"name": "a", "role": "viewer", "services": [{"x": 1, "x": 2}]}', "x"),
    ],
)
async def test_a_bad_body_is_refused_with_the_fields_name(ca, administrator, body, field):
    before = await ca.sql("SELECT count(*) FROM api_token")
    answer = await administrator.ask("POST", "/tokens", body)
    document = assert_refused(answer, answer.json["code"], status=400)
    assert document["code"] in {Code.FIELD_INVALID, Code.NOT_JSON}
    if field is not None:
        assert field in [error["field"] for error in document["errors"]], document
    assert await ca.sql("SELECT count(*) FROM api_token") == before


async def test_all_that_is_wrong_is_said_at_once(administrator):
    answer = await administrator.ask("POST", "/tokens", {"name": "", "role": "x", "more": 1})
    assert {error["field"] for error in answer.json["errors"]} == {"name", "role", "more"}


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"limit": 1001},
        {"limit": "ten"},
        {"limit": 10**30},
        {"cursor": "%00"},
        {"cursor": "x"},
        {"cursor": write_cursor("2026-01-01T00:00:00+00:00")},
        {"cursor": write_cursor(1, "x")},
        {"cursor": write_cursor("2026-01-01T00:00:00", "x")},
        {"cursor": write_cursor("yesterday", "x")},
        {"cursor": write_cursor("2026-01-01T00:00:00+00:00", "\0")},
        {"cursor": as_cursor(b'["2026-01-01T00:00:00+00:00","\\ud800"]')},
        {"cursor": as_cursor(b'["\xff","x"]')},
        {"cursor": as_cursor(b"[" * 1500)},
        {"cursor": "x" * (MAX_CURSOR + 1)},
        {"surprise": 1},
        {"all": "perhaps"},
        {"limit": ["1", "2"]},
        {"all": "\0"},
    ],
)
async def test_a_bad_query_is_refused(administrator, query):
    assert_refused(await administrator.ask("GET", "/tokens", **query), Code.FIELD_INVALID, status=400)


NONSENSE = "!nonsense \u2603 "
ANYTHING = {
    *(("audit.list", name) for name in ("object", "actor", "event")),
    *(("audit.export", name) for name in ("object", "actor", "event")),
    *(("services.list", name) for name in ("owner",)),
    *(("certificates.list", name) for name in ("service", "profile", "text")),
    *(("eab-keys.list", name) for name in ("owner", "service", "contact", "text")),
    *(("accounts.list", name) for name in ("eab_key", "service", "contact")),
    *(("orders.list", name) for name in ("service", "profile")),
    *(("scopes.list", name) for name in ("eab_key", "approved_by", "text")),
    *(("tokens.list", name) for name in ("service", "made_by", "text")),
    *(("approvals.list", name) for name in ("action", "requested_by", "decided_by")),
    *(("limits.overrides.list", name) for name in ("subject", "text")),
    *(("blocklist.list", name) for name in ("actor", "text")),
    *((f"{room}.list", "text") for room in ("services", "policies", "profiles", "issuers")),
}
"""Filters by what people write, or once wrote: that nothing has it is an answer."""
QUERIES = [(route, name) for route in ROUTES if route.query for name in route.query.model_fields]


@pytest.mark.parametrize(("route", "name"), QUERIES, ids=[f"{route.name}-{name}" for route, name in QUERIES])
@pytest.mark.parametrize("value", [NONSENSE, ""], ids=["nonsense", "empty"])
async def test_nonsense_in_a_query_is_refused_with_the_fields_name(administrator, route, name, value):
    path = route.path
    for parameter in route.parameters:
        path = path.replace(f"{{{parameter}}}", "server")
    answer = await administrator.ask(route.method, path, **{name: value})
    if value and (route.name, name) in ANYTHING:
        assert answer.status == 200, answer
        assert answer.content_type != "application/json" or answer.json["items"] == []
    elif answer.status != 404 or not route.parameters:
        assert_refused(answer, Code.FIELD_INVALID, status=400, field=name)


async def test_what_a_field_is_to_look_like_is_said_in_words(administrator):
    for path, query, words in (
        ("/orders", {"account": "zzz"}, "32 hexadecimal digits"),
        ("/certificates", {"key_sha256": "zzz"}, "64 hexadecimal digits"),
    ):
        answer = await administrator.ask("GET", path, **query)
        assert_refused(answer, Code.FIELD_INVALID, words, status=400, field=next(iter(query)))
    for path, body, field, words in (
        ("/tokens", {"name": "a b", "role": "viewer"}, "name", "1 to 64 letters"),
        (
            "/services/register",
            {"service_id": "A b", "name": "x", "owner": "x"},
            "service_id",
            "1 to 63 small letters",
        ),
    ):
        assert_refused(
            await administrator.ask("POST", path, body), Code.FIELD_INVALID, words, status=400, field=field
        )


@pytest.mark.parametrize("id_", ["0", "%00", "%0a", "a%2fb", "%27%3b--", "%25", "_", "x" * 3000, "%ed%a0%80"])
async def test_an_unknown_id_is_not_found(administrator, id_):
    answer = await administrator.ask("GET", f"/tokens/{id_}")
    assert answer.status == 404, answer
    assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize(
    "time", ["0", "0.5", "1767225600", "2026-01-01", "yesterday", "2026-13-01T00:00:00Z"]
)
async def test_a_time_is_written_as_one(administrator, time):
    answer = await administrator.ask("GET", "/audit/events", until=time)
    assert_refused(answer, Code.FIELD_INVALID, status=400, field="until")
    assert await administrator.get("/audit/events", until="2000-01-01T00:00:00Z") == {
        "items": [],
        "next": None,
    }


async def test_a_body_that_is_too_large_or_of_another_kind_is_refused(administrator):
    for size in (70_000, 1 << 20):
        answer = await administrator.ask("POST", "/tokens", b" " * size)
        assert_refused(answer, Code.BODY_TOO_LARGE, "65536 bytes", status=413)
    for kind in ("application/x-www-form-urlencoded", "text/plain", "application/jsonl", ""):
        answer = await administrator.ask("POST", "/tokens", b"{}", headers={"Content-Type": kind})
        assert_refused(answer, Code.MEDIA_TYPE_WRONG, "application/json", status=415)
    packed = await administrator.ask("POST", "/tokens", b"{}", headers={"Content-Encoding": "gzip"})
    assert_refused(packed, Code.MEDIA_TYPE_WRONG, "Content-Encoding", status=415)
    for method, path in (("GET", "/tokens"), ("DELETE", "/services/x"), ("GET", "/ca/bundle")):
        answer = await administrator.ask(method, path, {})
        assert_refused(answer, Code.FIELD_INVALID, "takes no body", status=400, field="body")


async def test_no_route_and_no_such_method_are_problems_too(administrator):
    answer = await administrator.ask("DELETE", "/tokens")
    assert_refused(answer, Code.METHOD_NOT_ALLOWED, "method", status=405)
    assert set(answer.headers["Allow"].split(",")) == {"GET", "POST"}
    for method, path in (("GET", "/nonesuch"), ("POST", "/tokens/0/1/2/3"), ("GET", "/tokens/")):
        answer = await administrator.ask(method, path)
        assert_refused(answer, Code.URL_UNKNOWN, "nothing at this URL", status=404)


async def test_what_is_no_json_is_told_in_plain_words(administrator):
    answer = await administrator.ask("POST", "/tokens", b'{"name": ')
    document = assert_refused(answer, Code.NOT_JSON, "The body is no JSON: EOF", status=400)
    assert "Invalid JSON" not in document["detail"]
    bad = {"kind": "orders-per-account", "subject": "x", "limit": "many", "reason": "a\nb"}
    answer = await administrator.ask("PUT", "/limits/overrides", bad)
    told = {error["field"]: error["detail"] for error in answer.json["errors"]}
    assert told["reason"] == "It has characters that do not print."
    assert "Value error" not in told["limit"]


async def test_answers_are_kept_by_nobody_and_both_prefixes_are_the_same(administrator):
    one, another = [
        await administrator.ask("GET", "/tokens", prefix=prefix) for prefix in ("/api/v1", "/api")
    ]
    assert one.headers["Cache-Control"] == "no-store"
    assert one.headers["X-Content-Type-Options"] == "nosniff"
    assert "Replay-Nonce" not in one.headers
    assert one.json["items"][0]["id"] == another.json["items"][0]["id"]


async def test_pages_neither_lose_nor_repeat(new_ca):
    async with new_ca() as ca:
        administrator = await ca.operator()
        names = [f"robot-{number}" for number in range(7)]
        for name in names:
            await administrator.post("/tokens", {"name": name, "role": "viewer"}, status=201)
        found = await administrator.pages("/tokens", limit=2)
        assert [token["name"] for token in found] == [*reversed(names), administrator.name]


async def test_a_cursor_is_what_it_was():
    assert read_cursor(write_cursor("a", 1), str, int) == ("a", 1)
    for cursor in ("", "!", write_cursor("a"), write_cursor(1, "a"), write_cursor("a", 2**63)):
        with pytest.raises(Problem):
            read_cursor(cursor, str, int)
    assert json.loads(json.dumps(write_cursor("ä"))) == write_cursor("ä")


BEYOND = [
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    # To PostgreSQL these are infinities; Go writes the first for no time at all.
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
    "0001-01-01T14:00:00+14:00",
]
LISTS = [route for route in ROUTES if route.method == "GET" and route.query and route.permission]


@pytest.mark.parametrize("time", BEYOND)
@pytest.mark.parametrize("route", LISTS, ids=lambda route: route.name)
async def test_a_time_that_cannot_be_kept_breaks_no_list(administrator, route, time):
    path = route.path.replace("{service_id}", "nonesuch")
    fields = route.query.model_json_schema()["properties"]
    queries = [{name: time} for name, one in fields.items() if "date-time" in str(one)]
    if "cursor" in fields:
        queries += [{"cursor": write_cursor(*key)} for key in ((time, "a"), ("-recorded", time, "0" * 32))]
    for query in queries:
        answer = await administrator.ask("GET", path, **query)
        if answer.status != 404:  # there is no such service or profile whose list it would be
            assert_refused(answer, Code.FIELD_INVALID, status=400, field=next(iter(query)))


@pytest.mark.parametrize("time", BEYOND)
async def test_a_time_that_cannot_be_kept_is_refused_in_bodies(administrator, time):
    for path, body, field in (
        ("/certificates/revoke-bulk", {"issued_from": time}, "issued_from"),
        ("/explain", {"names": ["a.example.test"], "not_after": time}, "not_after"),
        (f"/certificates/{'0' * 32}/revoke", {"invalid_since": time}, "invalid_since"),
        ("/certificates/revoke", {"serial": "0" * 32, "invalid_since": time}, "invalid_since"),
        (f"/certificates/{'0' * 32}/renewal-window", {"start": time, "end": "2026-01-01T00:00:00Z"}, "start"),
        (f"/certificates/{'0' * 32}/renewal-window", {"end": time}, "end"),
    ):
        answer = await administrator.ask("POST", path, body)
        assert_refused(answer, Code.FIELD_INVALID, "UTC", status=400, field=field)
