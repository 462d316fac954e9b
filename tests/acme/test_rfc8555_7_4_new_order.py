"""RFC 8555 §7.1.3, §7.4 and §7.4.1: which orders are taken, what becomes of their wishes, and RFC 8738 for addresses."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from acme_ca.acme.messages import timestamp
from acme_ca.core.problems import ErrorType
from tests.support.client import assert_problem, prove
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.issuing import names_of
from tests.support.responders import HttpResponder

pytestmark = IN_SESSION_LOOP

MALFORMED, REJECTED = ErrorType.MALFORMED, ErrorType.REJECTED_IDENTIFIER


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def dns(value: object) -> dict[str, object]:
    return {"type": "dns", "value": value}


# ---------------------------------------------------------------- §7.4: newOrder


async def test_7_4_a_new_order(ca, account):
    name = ca.name()
    answer = await account.new_order(
        name, more=1, status="valid", finalize="https://evil.test/", certificate="x"
    )
    assert answer.status == 201
    order = answer.json
    assert set(order) == {"status", "expires", "identifiers", "authorizations", "finalize", "profile"}
    assert (order["status"], order["identifiers"]) == ("pending", [dns(name)])
    assert datetime.fromisoformat(order["expires"]) > now()
    assert order["finalize"] == answer.location + "/finalize"
    assert len(order["authorizations"]) == 1
    assert (await account.read(answer.location)).json == order


async def test_7_4_an_authorization_for_each_name(ca, account):
    names = [ca.name() for _ in range(4)]
    order = await account.order(*names)
    assert order.names == names
    assert [one["identifier"]["value"] for one in await order.authorizations()] == names


async def test_7_4_one_name_however_often_and_however_spelled(ca, account):
    """Lesson 22: duplicates inside one order are folded."""
    name = ca.name()
    order = await account.order(name, name.upper(), name)
    assert order.object["identifiers"] == [dns(name)]
    assert len(order.object["authorizations"]) == 1


async def test_7_4_two_orders_are_two_orders(ca, account):
    """Lesson 22."""
    name = ca.name()
    one, two = await asyncio.gather(account.order(name), account.order(name))
    assert one.url != two.url
    assert one.object["authorizations"] != two.object["authorizations"]


NO_ORDERS = {
    "no identifiers": {},
    "null": {"identifiers": None},
    "empty": {"identifiers": []},
    "text": {"identifiers": "a.example.test"},
    "object": {"identifiers": dns("a.example.test")},
    "names alone": {"identifiers": ["a.example.test"]},
    "nested": {"identifiers": [[dns("a.example.test")]]},
    "no value": {"identifiers": [{"type": "dns"}]},
    "value is a number": {"identifiers": [dns(1)]},
    "value is a list": {"identifiers": [dns(["a.example.test"])]},
    "type is null": {"identifiers": [{"type": None, "value": "a.example.test"}]},
    "101 names": {"identifiers": [dns(f"n{n}.example.test") for n in range(101)]},
    "nonsense for a time": {"identifiers": [dns("a.example.test")], "notBefore": "now"},
}


@pytest.mark.parametrize("payload", NO_ORDERS.values(), ids=NO_ORDERS)
async def test_7_4_what_is_no_order_is_malformed(ca, account, payload):
    assert_problem(await account.post(ca.client.url("new-order"), payload), MALFORMED, status=400)


async def test_7_4_a_hundred_names_are_taken(account):
    order = await account.order(*(f"n{n}.example.test" for n in range(100)))
    assert len(order.object["authorizations"]) == 100


@pytest.mark.parametrize(
    ("name", "error", "status"),
    [
        (dns("a_b.example.test"), REJECTED, 403),
        (dns("xn--999999999.example.test"), REJECTED, 403),
        (dns("127.0.0.1"), REJECTED, 403),
        (dns("\ud800.example.test"), REJECTED, 403),
        (dns("a\0.example.test"), REJECTED, 403),
        ({"type": "ip", "value": "a.example.test"}, REJECTED, 403),
        ({"type": "telepathy", "value": "x"}, ErrorType.UNSUPPORTED_IDENTIFIER, 400),
    ],
)
async def test_7_4_a_name_that_is_refused(account, name, error, status):
    assert_problem(await account.new_order(name), error, status=status)


async def test_6_7_1_each_refused_name_has_its_subproblem(ca, account):
    bad = [dns("Bad_.example.test"), dns("*.com"), {"type": "fax", "value": "1"}]
    problem = assert_problem(await account.new_order(ca.name(), *bad), REJECTED)
    assert [sub["identifier"] for sub in problem["subproblems"]] == bad
    assert all(sub["detail"] for sub in problem["subproblems"])


async def test_7_1_4_a_labels_are_taken_and_kept(account):
    (shown,) = (await account.order("xn--bcher-kva.example.test")).names
    assert shown == "xn--bcher-kva.example.test"


# ---------------------------------------------------------------- the name policy


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def strict(new_ca):
    policy = {
        "allowed_domains": "example.test",
        "denied_domains": "denied.example.test",
        "allowed_ip_networks": "127.0.0.1/32",
    }
    async with new_ca(policy=policy) as made:
        yield made


POLICY = {
    "allowed": ("a.example.test", True),
    "allowed wildcard": ("*.b.example.test", True),
    "allowed address": ("127.0.0.1", True),
    "denied": ("denied.example.test", False),
    "below denied": ("a.denied.example.test", False),
    "wildcard below denied": ("*.denied.example.test", False),
    "not allowed": ("example.com", False),
    "allowed as text only": ("evilexample.test", False),
    "address not allowed": ("127.0.0.2", False),
}


@pytest.mark.parametrize(("name", "allowed"), POLICY.values(), ids=POLICY)
async def test_the_policy_says_which_names_are_issued(strict, name, allowed):
    account = await strict.account()
    answer = await account.new_order(name)
    if allowed:
        assert answer.status == 201
    else:
        problem = assert_problem(answer, REJECTED, name, status=403)
        assert [sub["identifier"]["value"] for sub in problem["subproblems"]] == [name]


async def test_the_policy_names_every_name_that_it_refuses(strict):
    account = await strict.account()
    answer = await account.new_order("a.example.test", "denied.example.test", "example.com", "127.0.0.2")
    problem = assert_problem(answer, REJECTED, status=403)
    assert [sub["identifier"]["value"] for sub in problem["subproblems"]] == [
        "denied.example.test",
        "example.com",
        "127.0.0.2",
    ]


async def test_the_policy_holds_for_newauthz_too(strict):
    """Lesson 2: on every path."""
    account = await strict.account()
    for value, status in (("a.example.test", 201), ("example.com", 403)):
        answer = await account.post(strict.client.url("new-authz"), {"identifier": dns(value)})
        assert answer.status == status


async def test_the_policy_is_asked_again_to_finalize(new_ca, ca):
    """Lesson 2: an order that was made under another policy."""
    account = await ca.account()
    order = await ca.ready(account)
    async with new_ca(dsn=ca.dsn, policy={"denied_domains": "example.test"}) as stricter:
        order.account.client = stricter.client
        assert_problem(await order.finalize(), REJECTED, status=403)
        assert (await order.read())["status"] == "ready"


# ---------------------------------------------------------------- notBefore, notAfter


async def test_7_4_wishes_for_the_validity_are_met_to_the_second(ca, account):
    begin, end = now() - timedelta(hours=1), now() + timedelta(days=3)
    order = await account.order(ca.name(), notBefore=timestamp(begin), notAfter=timestamp(end))
    assert (order.object["notBefore"], order.object["notAfter"]) == (timestamp(begin), timestamp(end))
    (leaf, *_) = await order.issue(ca.web)
    assert (leaf.not_valid_before_utc, leaf.not_valid_after_utc) == (begin, end)


async def test_7_4_a_wish_in_another_zone(ca, account):
    order = await account.order(ca.name(), notAfter=(now() + timedelta(days=1)).isoformat()[:-6] + "-01:30")
    expected = now() + timedelta(days=1, hours=1, minutes=30)
    assert abs(datetime.fromisoformat(order.object["notAfter"]) - expected) < timedelta(seconds=30)


WISHES = {
    "over": {"notAfter": timedelta(days=-1)},
    "reversed": {"notBefore": timedelta(days=2), "notAfter": timedelta(days=1)},
    "too long": {"notAfter": timedelta(days=399)},
    "a century": {"notAfter": timedelta(days=36_500)},
    "begun long ago": {"notBefore": timedelta(days=-10)},
    "far ahead": {"notBefore": timedelta(days=300), "notAfter": timedelta(days=301)},
}


@pytest.mark.parametrize("wish", WISHES.values(), ids=WISHES)
async def test_7_4_a_wish_that_cannot_be_met_is_refused(ca, account, wish):
    """ "the server MUST return an error if it cannot fulfill the request"."""
    times = {member: timestamp(now() + offset) for member, offset in wish.items()}
    assert_problem(await account.new_order(ca.name(), **times), MALFORMED, status=400)


async def test_7_4_without_a_wish_the_profile_decides(ca, account):
    (leaf, *_) = await (await account.order(ca.name())).issue(ca.web)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(days=90, seconds=-1)
    assert timedelta(seconds=50) < now() - leaf.not_valid_before_utc < timedelta(seconds=120)


# ---------------------------------------------------------------- wildcards


async def test_7_1_3_a_wildcard_and_its_base_are_two(ca, account):
    name = ca.name()
    order = await account.order(f"*.{name}", name)
    wildcard, base = await order.authorizations()
    assert order.names == [f"*.{name}", name]
    assert (wildcard["identifier"], wildcard["wildcard"]) == (dns(name), True)
    assert base["identifier"] == dns(name)
    assert "wildcard" not in base


async def test_lesson_8_a_wildcard_is_offered_dns_01_alone(ca, account):
    name = ca.name()
    order = await account.order(f"*.{name}")
    (authorization,) = await order.authorizations()
    (challenge,) = authorization["challenges"]
    assert challenge["type"] == "dns-01"
    for kind in ("http-01", "tls-alpn-01"):
        url = challenge["url"].replace("dns-01", kind)
        assert_problem(await account.post(url, {}), MALFORMED, status=404)
    assert (await order.read())["status"] == "pending"


async def test_lesson_8_a_proof_of_the_base_is_none_of_the_wildcard(ca, account):
    name = ca.name()
    await (await account.order(name)).issue(ca.web)
    assert (await account.order(f"*.{name}")).object["status"] == "pending"


async def test_lesson_8_a_proof_of_the_wildcard_is_none_of_the_base(ca, account):
    name = ca.name()
    wildcard = await (await account.order(f"*.{name}")).prove_by_dns(ca.dns)
    assert (await wildcard.finalize()).json["status"] == "valid"
    assert (await account.order(name)).object["status"] == "pending"


async def test_without_dns_01_no_wildcard(new_ca):
    async with new_ca(validation={"challenges": "http-01"}) as ca:
        account = await ca.account()
        assert_problem(await account.new_order(f"*.{ca.name()}"), REJECTED, status=403)


# ---------------------------------------------------------------- RFC 8738: addresses


@pytest.fixture(scope="module")
def web6(outside):
    """A web server at ::1, on the port of the validators."""
    try:
        server = HttpResponder("::1", outside.web.port)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with server:
        yield server


async def test_rfc_8738_a_certificate_for_an_ipv4_address(ca, account):
    order = await account.order("127.0.0.1")
    assert order.object["identifiers"] == [{"type": "ip", "value": "127.0.0.1"}]
    (leaf, *_) = await order.issue(ca.web)
    assert names_of(leaf) == ["127.0.0.1"]
    assert ca.web.requests[-1].headers["host"] == f"127.0.0.1:{ca.web.port}"


async def test_rfc_8738_a_certificate_for_an_ipv6_address(ca, account, web6):
    (leaf, *_) = await (await account.order("::1")).issue(web6)
    assert names_of(leaf) == ["::1"]
    assert web6.requests[-1].headers["host"] == f"[::1]:{web6.port}"


async def test_rfc_8738_names_and_addresses_in_one_order(ca, account):
    name = ca.name()
    (leaf, *_) = await (await account.order(name, "127.0.0.1")).issue(ca.web)
    assert sorted(names_of(leaf)) == ["127.0.0.1", name]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_rfc_8738_an_address_is_not_offered_dns_01(account, address):
    """RFC 8738 §7."""
    stranger = await account.client.register()
    (authorization,) = await (await stranger.order(address)).authorizations()
    assert {one["type"] for one in authorization["challenges"]} == {"http-01", "tls-alpn-01"}
    url = authorization["challenges"][0]["url"].rpartition("/")[0] + "/dns-01"
    assert_problem(await stranger.post(url, {}), MALFORMED, status=404)


@pytest.mark.parametrize(
    "value",
    ["127.0.0.01", "0:0:0:0:0:0:0:1", "::01", "2001:DB8::1", "[::1]", "fe80::1%lo", "127.1", "::ffff:7f00:1"],
)
async def test_rfc_8738_an_address_has_one_form(account, value):
    """RFC 8738 §3."""
    assert_problem(await account.new_order({"type": "ip", "value": value}), REJECTED, status=403)


async def test_without_http_01_and_tls_alpn_01_no_address(new_ca):
    async with new_ca(validation={"challenges": "dns-01"}) as ca:
        assert_problem(await (await ca.account()).new_order("127.0.0.1"), REJECTED, status=403)


# ---------------------------------------------------------------- reuse of authorizations, §7.4.1


async def test_7_4_a_valid_authorization_is_used_again_by_its_account(ca, account, stranger):
    order = await ca.ready(account, names=2)
    again = await account.order(*reversed(order.names))
    assert again.object["status"] == "ready"
    assert again.object["authorizations"] == order.object["authorizations"][::-1]
    assert (await again.finalize()).json["status"] == "valid"
    assert (await stranger.order(*order.names)).object["status"] == "pending"


async def test_7_4_without_reuse_each_order_is_proved(new_ca):
    async with new_ca(validation={"reuse": 0}) as ca:
        account = await ca.account()
        order = await ca.ready(account)
        assert (await account.order(*order.names)).object["status"] == "pending"
        assert (await order.finalize()).json["status"] == "valid"


async def test_7_4_1_pre_authorization(ca, account):
    name = ca.name()
    answer = await account.post(ca.client.url("new-authz"), {"identifier": dns(name), "more": 1})
    assert answer.status == 201
    assert (answer.json["status"], answer.json["identifier"]) == ("pending", dns(name))
    assert (await account.read(answer.location)).json == answer.json
    await prove(account, answer.location, ca.web)
    order = await account.order(name)
    assert (order.object["status"], order.object["authorizations"]) == ("ready", [answer.location])
    assert (await order.finalize()).json["status"] == "valid"


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ({}, MALFORMED),
        ({"identifier": None}, MALFORMED),
        ({"identifier": {}}, MALFORMED),
        ({"identifier": [dns("a.example.test")]}, MALFORMED),
        ({"identifiers": [dns("a.example.test")]}, MALFORMED),
        ({"identifier": dns("*.example.test")}, REJECTED),
        ({"identifier": dns("-a.example.test")}, REJECTED),
        ({"identifier": {"type": "x", "value": "y"}}, ErrorType.UNSUPPORTED_IDENTIFIER),
    ],
)
async def test_7_4_1_what_cannot_be_pre_authorized(ca, account, payload, error):
    assert_problem(await account.post(ca.client.url("new-authz"), payload), error)
