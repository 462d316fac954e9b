"""The service registry over the API: registered, found, changed, retired; and for whom."""

import pytest

from acme_ca.admin.access import Role
from acme_ca.core.codes import Code
from tests.support.admin import assert_refused
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP

ORDERS = {"service_id": "orders", "name": "Orders", "owner": "Trade"}


def described(service_id: str, **fields) -> dict:
    return {**ORDERS, "service_id": service_id, **fields}


@pytest.fixture
def new_id(ca):
    """Ids that no other test has."""
    return lambda: ca.name().partition(".")[0]


async def test_the_life_of_a_service(ca, new_id):
    id_ = new_id()
    one = await ca.operator(Role.OPERATOR)
    wish = described(
        id_,
        version="1.0",
        contacts=["trade@example.org"],
        endpoints=["https://orders.example/"],
        health_url="https://orders.example/health",
        metadata={"tier": 1},
        domains=["orders.example"],
        tags=["trade"],
    )
    made = await one.post("/services/register", wish, status=201)
    assert {name: made[name] for name in wish} == wish
    assert (made["state"], made["eab"], made["retired"]) == ("approved", None, None)
    shown = await one.get(f"/services/{id_}")
    assert shown == {name: value for name, value in made.items() if name != "eab"}
    changed = await one.put(f"/services/{id_}", {**wish, "version": "2.0"})
    assert changed["version"] == "2.0"
    gone = await one.delete(f"/services/{id_}")
    assert (gone["state"], gone["eab_keys"], gone["accounts"]) == ("retired", [], [])
    again = await one.ask("DELETE", f"/services/{id_}")
    assert_refused(again, Code.CONFLICT, "retired already", status=409)
    assert_refused(await one.ask("PUT", f"/services/{id_}", wish), Code.CONFLICT, status=409)
    assert_refused(await one.ask("POST", "/services/register", wish), Code.EXISTS, status=409)
    officer = await ca.operator(Role.SECURITY_OFFICER)
    assert (await officer.post(f"/services/{id_}/approve"))["state"] == "approved"
    assert_refused(await officer.ask("POST", f"/services/{id_}/approve"), Code.CONFLICT, status=409)


async def test_lists_are_filtered_and_in_pages(ca, new_id):
    one, tag = await ca.operator(), new_id()
    ids = sorted(new_id() for _ in range(5))
    for number, id_ in enumerate(ids):
        await one.post("/services/register", described(id_, tags=[tag], owner=f"{tag}-{number}"), status=201)
    await one.delete(f"/services/{ids[0]}")
    found = await one.pages("/services", tag=tag, limit=2)
    assert [service["service_id"] for service in found] == ids
    assert [each["service_id"] for each in await one.pages("/services", owner=f"{tag}-3")] == [ids[3]]
    retired = await one.pages("/services", tag=tag, state="retired")
    assert [each["service_id"] for each in retired] == [ids[0]]
    assert_refused(
        await one.ask("GET", "/services", cursor="x"), Code.FIELD_INVALID, status=400, field="cursor"
    )


BAD = {
    "nothing": ({}, "service_id"),
    "no owner": ({"service_id": "a", "name": "A"}, "owner"),
    "an id with a slash": (described("a/b"), "service_id"),
    "an id of a certificate": (described("0f" * 16), "service_id"),
    "an unknown field": (described("a", status="approved"), "status"),
    "a state": (described("a", state="approved"), "state"),
    "a URL to fetch": (described("a", health_url="gopher://inside/"), "health_url"),
    "domains that are none": (described("a", domains=["..", "a.example"]), "domains.0"),
    "metadata in depth": (described("a", metadata={"a": {"b": 1}}), "metadata.a"),
    "a number for a name": (described("a", name=1), "name"),
    "a list": ([], "body"),
}


@pytest.mark.parametrize(("body", "field"), BAD.values(), ids=BAD)
async def test_what_is_wrong_is_named_and_nothing_is_kept(ca, body, field):
    one = await ca.operator()
    before = await ca.sql("SELECT count(*) FROM service")
    answer = await one.ask("POST", "/services/register", body)
    assert_refused(answer, Code.FIELD_INVALID, status=400, field=field)
    assert await ca.sql("SELECT count(*) FROM service") == before


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("PUT", ""),
        ("DELETE", ""),
        ("POST", "/approve"),
        ("POST", "/eab-keys"),
    ],
)
@pytest.mark.parametrize("id_", ["nothing", "%25", "a%27b", "x" * 200])
async def test_what_is_not_there_is_not_found(ca, method, path, id_):
    one = await ca.operator()
    body = described("nothing") if method == "PUT" else None
    answer = await one.ask(method, f"/services/{id_}{path}", body)
    if method == "PUT" and id_ != "nothing":
        assert_refused(answer, Code.FIELD_INVALID, status=400, field="service_id")
    else:
        assert_refused(answer, Code.NOT_FOUND, status=404)


# ---------------------------------------------------------------- EAB keys


async def test_a_key_and_its_lines_are_shown_once(ca, new_id):
    id_, one = new_id(), await ca.operator()
    wish = described(id_, domains=["a.example", "b.example"], eab=True)
    made = await one.post("/services/register", wish, status=201)
    key = made["eab"]
    assert key["directory"] == "https://ca.test/acme/directory"
    assert key["root_url"] == "http://ca.test/ca/root.pem"
    assert key["root_sha256"] == ca.hierarchy.root.fingerprint
    for line in (key["certbot"], key["lego"]):
        assert "\n" not in line
        assert key["kid"] in line
        assert f"={key['hmac_key']}" in line
        assert key["directory"] in line
    assert key["certbot"].endswith("-d a.example -d b.example")
    assert key["lego"].endswith("--domains a.example --domains b.example run")
    assert key["hmac_key"] not in str(await one.get(f"/services/{id_}"))
    assert key["hmac_key"] not in str(await one.get("/services", limit=1000))
    assert key["hmac_key"] not in str(ca.log.entries)
    further = await one.post(f"/services/{id_}/eab-keys", status=201)
    assert further["kid"] != key["kid"]
    gone = await one.delete(f"/services/{id_}")
    assert set(gone["eab_keys"]) == {key["kid"], further["kid"]}
    refused = await one.ask("POST", f"/services/{id_}/eab-keys")
    assert_refused(refused, Code.SERVICE_NOT_APPROVED, status=409)


@pytest.mark.parametrize(
    ("domains", "certbot", "lego"),
    [
        (["192.0.2.1"], "--ip-address 192.0.2.1", "{http} --domains 192.0.2.1 run"),
        (["*.a.example"], "-d '*.a.example'", "--dns manual --domains '*.a.example' run"),
    ],
)
async def test_the_lines_fit_the_domains(ca, new_id, domains, certbot, lego):
    wish = described(new_id(), domains=domains, eab=True)
    key = (await (await ca.operator()).post("/services/register", wish, status=201))["eab"]
    assert key["certbot"].endswith(certbot)
    port = ca.settings.validation.http01_port
    assert key["lego"].endswith(lego.format(http=f"--http --http.port :{port}"))
    assert ("--standalone" in key["certbot"]) is ("*" not in "".join(domains))


async def test_without_domains_there_is_no_eab_key_that_would_open_every_name(new_ca):
    async with new_ca() as ca:
        one = await ca.operator()
        answer = await one.ask("POST", "/services/register", described("orders", eab=True))
        assert_refused(answer, Code.CONFLICT, "domains", status=409)
        assert await one.pages("/services") == [], "nothing half done"
        await one.post("/services/register", described("orders"), status=201)
        answer = await one.ask("POST", "/services/orders/eab-keys")
        assert_refused(answer, Code.CONFLICT, "domains", status=409)


async def test_a_pending_service_has_a_key_that_waits(new_ca):
    async with new_ca(services={"approval_required": True}) as ca:
        one = await ca.operator()
        made = await one.post(
            "/services/register", described("orders", eab=True, domains=["orders.example"]), status=201
        )
        assert made["state"] == "pending"
        key = made["eab"]["kid"]
        assert await ca.sql(f"SELECT approved FROM eab_key WHERE id = '{key}'") is None
        await one.post("/services/orders/approve")
        assert await ca.sql(f"SELECT approved FROM eab_key WHERE id = '{key}'") is not None


# ---------------------------------------------------------------- tokens for some services


async def test_a_token_for_some_services_sees_and_touches_only_these(ca, new_id):
    mine, other = new_id(), new_id()
    all_, scoped = await ca.operator(), await ca.operator(services=(mine, "unborn"))
    for id_ in (mine, other):
        await all_.post("/services/register", described(id_), status=201)
    assert [each["service_id"] for each in await scoped.pages("/services")] == [mine]
    assert (await scoped.get(f"/services/{mine}"))["service_id"] == mine
    for method, path, body in (
        ("GET", "", None),
        ("PUT", "", described(other)),
        ("DELETE", "", None),
        ("POST", "/eab-keys", None),
    ):
        answer = await scoped.ask(method, f"/services/{other}{path}", body)
        assert_refused(answer, Code.NOT_FOUND, status=404)
    refused = await scoped.ask("POST", "/services/register", described("another"))
    assert_refused(refused, Code.NOT_FOUND, status=404)
    refused = await scoped.ask("POST", f"/services/{mine}/approve")
    assert_refused(refused, Code.FORBIDDEN, status=403)
    assert (await all_.get(f"/services/{other}"))["state"] == "approved"


async def test_what_a_service_says_of_itself_waits_for_approval(ca, new_id):
    """Its domains are what it may have certificates for."""
    id_ = new_id()
    scoped = await ca.operator(Role.OPERATOR, services=(id_,))
    made = await scoped.post("/services/register", described(id_, domains=["a.example"]), status=201)
    assert made["state"] == "pending"
    changed = await scoped.put(f"/services/{id_}", described(id_, domains=["a.example"], version="2"))
    assert changed["version"] == "2"
    more = described(id_, domains=["a.example", "b.example"])
    refused = await scoped.ask("PUT", f"/services/{id_}", more)
    assert_refused(refused, Code.FIELD_INVALID, status=400, field="domains")


async def test_who_may_not_make_eab_keys_registers_without(ca, new_id):
    viewer = await ca.operator(Role.VIEWER)
    answer = await viewer.ask("POST", "/services/register", described(new_id(), eab=True))
    assert_refused(answer, Code.FORBIDDEN, status=403)
