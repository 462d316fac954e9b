"""RFC 8555 §7.1.1 to §7.3: directory, nonces, accounts and what becomes of them."""

import asyncio

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.core.problems import ErrorType
from tests.support.client import Account, assert_problem, assert_refused, key_change
from tests.support.eab import add_eab_key, binding, revoke_eab_key
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.issuing import csr
from tests.support.jose import Key, base64url, compact, jws

pytestmark = IN_SESSION_LOOP

MALFORMED, UNAUTHORIZED = ErrorType.MALFORMED, ErrorType.UNAUTHORIZED


@pytest_asyncio.fixture(loop_scope="session")
async def fresh(ca) -> Account:
    """An account that the test may break."""
    return await ca.account(contact=["mailto:first@example.test"])


# ---------------------------------------------------------------- §7.1.1, §7.2


async def test_7_1_1_the_directory(ca):
    answer = await ca.client.request("GET", ca.client.directory_url)
    assert answer.content_type == "application/json"
    found = answer.json
    assert "server" in found["meta"].pop("profiles")
    assert found == {
        "newNonce": "https://ca.test/acme/new-nonce",
        "newAccount": "https://ca.test/acme/new-account",
        "newOrder": "https://ca.test/acme/new-order",
        "newAuthz": "https://ca.test/acme/new-authz",
        "revokeCert": "https://ca.test/acme/revoke-cert",
        "keyChange": "https://ca.test/acme/key-change",
        "renewalInfo": "https://ca.test/acme/renewal-info",
        "meta": {"externalAccountRequired": False, "caaIdentities": ["ca.test"]},
    }


async def test_7_1_1_the_directory_tells_what_is_configured(new_ca):
    async with new_ca(
        terms_of_service="https://ca.test/terms",
        website="https://ca.test/",
        eab_required=True,
        caa={"identities": "one.test,two.test"},
    ) as ca:
        meta = (await ca.client.request("GET", ca.client.directory_url)).json["meta"]
    del meta["profiles"]
    assert meta == {
        "termsOfService": "https://ca.test/terms",
        "website": "https://ca.test/",
        "externalAccountRequired": True,
        "caaIdentities": ["one.test", "two.test"],
    }


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204)])
async def test_7_2_a_fresh_nonce(ca, method, status):
    answer = await ca.client.request(method, ca.client.url("new-nonce"))
    assert (answer.status, answer.body) == (status, b"")
    assert answer.nonce


# ---------------------------------------------------------------- §7.3: new accounts


async def test_7_3_a_new_account(ca):
    answer = await ca.client.post(
        ca.client.url("new-account"),
        {"termsOfServiceAgreed": True, "contact": ["mailto:a@example.test"]},
        key=Key.generate(),
    )
    assert answer.status == 201
    assert answer.json == {
        "status": "valid",
        "contact": ["mailto:a@example.test"],
        "termsOfServiceAgreed": True,
        "orders": f"{answer.location}/orders",
    }


async def test_7_3_what_the_client_has_no_say_in_is_ignored(ca):
    """§7.3: "MUST ignore the "orders" field", unknown ones too, and not reflect them."""
    account = await ca.account(
        orders="https://evil.test/", status="revoked", more=1, onlyReturnExisting=False, initialIp="::"
    )
    assert (await account.read(account.url)).json == {"status": "valid", "orders": f"{account.url}/orders"}


@pytest.mark.parametrize(
    ("contact", "error"),
    [
        (["tel:+12025551212"], ErrorType.UNSUPPORTED_CONTACT),
        (["mailto:a@example.test?subject=x"], ErrorType.INVALID_CONTACT),
        (["mailto:a@example.test,b@example.test"], ErrorType.INVALID_CONTACT),
        ("mailto:a@example.test", MALFORMED),
        ([f"mailto:u{n}@example.test" for n in range(11)], ErrorType.INVALID_CONTACT),
    ],
)
async def test_7_3_contacts_are_checked_whenever_they_come(ca, fresh, contact, error):
    new = await ca.client.post(ca.client.url("new-account"), {"contact": contact}, key=Key.generate())
    assert_problem(new, error, status=400)
    assert "Location" not in new.headers
    assert_problem(await fresh.post(fresh.url, {"contact": contact}), error, status=400)
    assert (await fresh.read(fresh.url)).json["contact"] == ["mailto:first@example.test"]


# ---------------------------------------------------------------- §7.3.1


async def find(ca, key, **payload):
    return await ca.client.post(ca.client.url("new-account"), payload, key=key)


async def test_7_3_1_the_same_key_is_the_same_account(ca, fresh):
    again = await find(ca, fresh.key, contact=["mailto:second@example.test"])
    assert (again.status, again.location) == (200, fresh.url)
    assert again.json["contact"] == ["mailto:first@example.test"]


async def test_7_3_1_only_an_existing_account_is_returned(ca, fresh):
    found = await find(ca, fresh.key, onlyReturnExisting=True)
    assert (found.status, found.location) == (200, fresh.url)
    key = Key.generate()
    for _ in range(2):
        assert_problem(
            await find(ca, key, onlyReturnExisting=True), ErrorType.ACCOUNT_DOES_NOT_EXIST, status=400
        )


async def test_7_3_1_a_key_is_known_by_its_value_not_its_text(ca, fresh):
    jwk = {"use": "sig", "kid": "mine", **dict(reversed(fresh.key.jwk.items()))}
    found = await ca.client.post(
        ca.client.url("new-account"), {"onlyReturnExisting": True}, key=fresh.key, header={"jwk": jwk}
    )
    assert (found.status, found.location) == (200, fresh.url)


async def test_7_3_1_parallel_creation_makes_one_account(ca):
    """Lesson 31: clients register in parallel."""
    key = Key.generate()
    answers = await asyncio.gather(*(find(ca, key) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [200] * 7 + [201]
    assert len({answer.location for answer in answers}) == 1


# ---------------------------------------------------------------- §7.3.2


async def test_7_3_2_contacts_are_replaced(fresh):
    changed = await fresh.post(fresh.url, {"contact": ["mailto:second@example.test"]})
    assert (changed.status, changed.json["contact"]) == (200, ["mailto:second@example.test"])
    emptied = await fresh.post(fresh.url, {"contact": []})
    assert emptied.status == 200
    assert "contact" not in (await fresh.read(fresh.url)).json


@pytest.mark.parametrize(
    "update",
    [
        {},
        {"status": "revoked"},
        {"status": "valid"},
        {"status": "DEACTIVATED"},
        {"status": ["deactivated"]},
        {"status": None},
        {"orders": "https://evil.test/", "termsOfServiceAgreed": True, "more": 1},
        {"externalAccountBinding": {"protected": "", "payload": "", "signature": ""}},
        {"key": {}, "jwk": {}},
    ],
)
async def test_7_3_2_everything_else_is_ignored(fresh, update):
    before = (await fresh.read(fresh.url)).json
    answer = await fresh.post(fresh.url, update)
    assert (answer.status, answer.json) == (200, before)
    assert (await fresh.read(fresh.url)).json == before


# ---------------------------------------------------------------- §7.3.3: terms of service


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def with_terms(new_ca):
    async with new_ca(terms_of_service="https://ca.test/terms") as made:
        yield made


@pytest.mark.parametrize("agreed", [{}, {"termsOfServiceAgreed": False}, {"termsOfServiceAgreed": None}])
async def test_7_3_3_without_agreement_no_account(with_terms, agreed):
    key = Key.generate()
    answer = await find(with_terms, key, **agreed)
    assert_problem(answer, ErrorType.USER_ACTION_REQUIRED, "https://ca.test/terms", status=403)
    assert answer.links("terms-of-service") == ["https://ca.test/terms"]
    nobody = await find(with_terms, key, onlyReturnExisting=True)
    assert_problem(nobody, ErrorType.ACCOUNT_DOES_NOT_EXIST)


@pytest.mark.parametrize("agreed", ["true", 1, [True]])
async def test_7_3_3_only_true_agrees(with_terms, agreed):
    """Lesson 10."""
    assert_problem(await find(with_terms, Key.generate(), termsOfServiceAgreed=agreed), MALFORMED)


async def test_7_3_3_who_agreed_has_an_account(with_terms):
    account = await with_terms.client.register(termsOfServiceAgreed=True)
    assert (await account.read(account.url)).json["termsOfServiceAgreed"] is True
    assert (await find(with_terms, account.key)).status == 200, "an account that exists needs not agree again"


async def test_7_3_3_without_terms_nobody_must_agree(ca):
    account = await ca.account()
    assert "termsOfServiceAgreed" not in (await account.read(account.url)).json


# ---------------------------------------------------------------- §7.3.4: external account binding


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def bound(new_ca):
    """A CA that wants external account bindings, with a key."""
    async with new_ca(eab_required=True) as made:
        await add_eab_key(made, "many")
        yield made


@pytest.mark.parametrize(
    ("algorithm", "digest"), [("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")]
)
async def test_7_3_4_a_bound_account_shows_its_binding(bound, algorithm, digest):
    key = Key.generate()
    value = binding(key, alg=algorithm, digest=digest)
    answer = await find(bound, key, externalAccountBinding=value)
    assert (answer.status, answer.json["externalAccountBinding"]) == (201, value)
    account = Account(bound.client, key, answer.location)
    assert (await account.read(account.url)).json["externalAccountBinding"] == value
    assert (await find(bound, key)).status == 200


async def test_7_3_4_without_binding_no_account(bound):
    key = Key.generate()
    for value in ({}, {"externalAccountBinding": None}):
        assert_problem(await find(bound, key, **value), ErrorType.EXTERNAL_ACCOUNT_REQUIRED, status=403)
    nobody = await find(bound, key, onlyReturnExisting=True)
    assert_problem(nobody, ErrorType.ACCOUNT_DOES_NOT_EXIST)


BAD_BINDINGS = {
    "another secret": lambda key: binding(key, secret=bytes(32)),
    "empty secret": lambda key: binding(key, secret=b""),
    "unknown kid": lambda key: binding(key, kid="nobody"),
    "kid is a pattern": lambda key: binding(key, kid="man%"),
    "kid with NUL": lambda key: binding(key, kid="many\0"),
    "kid is a lone surrogate": lambda key: binding(key, kid="\ud800"),
    "another key": lambda _: binding(Key.generate()),
    "another url": lambda key: binding(key, url="https://ca.test/acme/new-order"),
    "a nonce": lambda key: binding(key, nonce="AAAA"),
    "none": lambda key: {**binding(key, alg="none"), "signature": ""},
    "algorithm is a list": lambda key: binding(key, alg=["HS256"]),
    "algorithm is an object": lambda key: binding(key, alg={}),
    "a signature": lambda key: jws(
        {"alg": "ES256", "kid": "many", "url": "https://ca.test/acme/new-account"}, compact(key.jwk), key
    ),
    "no signature": lambda key: {**binding(key), "signature": ""},
    "cut signature": lambda key: {**binding(key), "signature": binding(key)["signature"][:8]},
    "text": lambda _: "abc",
    "false": lambda _: False,
    "zero": lambda _: 0,
    "empty": lambda _: {},
    "list": lambda _: [],
}


@pytest.mark.parametrize("bad", BAD_BINDINGS.values(), ids=BAD_BINDINGS)
@pytest.mark.parametrize("required", [True, False], ids=["required", "optional"])
async def test_7_3_4_a_binding_is_verified_whenever_there_is_one(ca, bound, bad, required):
    """Lessons 10 and 14: also where none is required."""
    asked, key = bound if required else ca, Key.generate()
    assert_refused(await find(asked, key, externalAccountBinding=bad(key)))
    nobody = await find(asked, key, onlyReturnExisting=True)
    assert_problem(nobody, ErrorType.ACCOUNT_DOES_NOT_EXIST)


async def test_7_3_4_a_binding_that_was_seen_binds_no_other_key(bound):
    seen = binding(Key.generate())
    assert_problem(await find(bound, Key.generate(), externalAccountBinding=seen), MALFORMED)


async def test_7_3_4_which_keys_exist_is_not_told(bound):
    key = Key.generate()
    unknown = await find(bound, key, externalAccountBinding=binding(key, kid="nobody"))
    wrong = await find(bound, key, externalAccountBinding=binding(key, secret=bytes(32)))
    assert_problem(unknown, UNAUTHORIZED, status=403)
    assert unknown.json == wrong.json


async def test_7_3_4_a_key_for_one_account_makes_one(bound):
    """Lesson 14."""
    await add_eab_key(bound, "once", most=1)

    async def register(key):
        return await find(bound, key, externalAccountBinding=binding(key, kid="once"))

    answers = await asyncio.gather(*(register(Key.generate()) for _ in range(6)))
    assert sorted(answer.status for answer in answers) == [201] + [403] * 5
    for answer in answers:
        if answer.status == 403:
            assert_problem(answer, UNAUTHORIZED)


async def test_7_3_4_a_revoked_key_makes_no_account(bound):
    """Lesson 14."""
    await add_eab_key(bound, "revoked")
    await revoke_eab_key(bound, "revoked")
    key = Key.generate()
    answer = await find(bound, key, externalAccountBinding=binding(key, kid="revoked"))
    assert_problem(answer, UNAUTHORIZED, status=403)


# ---------------------------------------------------------------- §7.3.5: key change


async def change_key(account: Account, new: Key, **spoiling: object):
    return await account.post(account.client.url("key-change"), key_change(account, new, **spoiling))


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "EdDSA"])
async def test_7_3_5_the_new_key_signs_the_old_one_no_more(ca, fresh, algorithm):
    old, new = fresh.key, Key.generate(algorithm)
    changed = await change_key(fresh, new)
    assert (changed.status, changed.location, changed.json["status"]) == (200, fresh.url, "valid")
    assert_refused(await fresh.read(fresh.url))
    fresh.key = new
    assert (await fresh.read(fresh.url)).status == 200
    assert (await find(ca, new, onlyReturnExisting=True)).location == fresh.url
    assert_problem(await find(ca, old, onlyReturnExisting=True), ErrorType.ACCOUNT_DOES_NOT_EXIST)


async def test_7_3_5_orders_survive_and_are_proved_with_the_new_key(ca, fresh):
    order = await fresh.order(ca.name())
    new = Key.generate()
    assert (await change_key(fresh, new)).status == 200
    fresh.key = new
    (leaf, *_) = await order.issue(ca.web)
    assert (await fresh.revoke(leaf.public_bytes(Encoding.DER))).status == 200


async def test_7_3_5_a_key_that_is_taken_is_409_with_its_account(fresh, stranger):
    for account in (stranger, fresh):
        answer = await change_key(fresh, account.key)
        assert_problem(answer, MALFORMED, status=409)
        assert answer.location == account.url
    assert (await fresh.read(fresh.url)).status == 200


async def test_7_3_5_of_parallel_changes_one_wins(ca, fresh):
    keys = [Key.generate() for _ in range(5)]
    answers = await asyncio.gather(*(change_key(fresh, key) for key in keys))
    won = [key for key, answer in zip(keys, answers, strict=True) if answer.status == 200]
    assert len(won) == 1
    fresh.key = won[0]
    assert (await fresh.read(fresh.url)).status == 200


BAD_CHANGES = {
    "another url": {"url": "https://evil.test/"},
    "no url": {"url": ...},
    "no jwk": {"jwk": ...},
    "kid": {"kid": "x"},
    "kid for jwk": {"kid": "x", "jwk": ...},
    "a nonce": {"nonce": "AAAA"},
    "none": {"alg": "none"},
    "no alg": {"alg": ...},
    "alg is a list": {"alg": ["ES256"]},
    "another jwk": {"jwk": Key.generate().jwk},
    "weak jwk": {"jwk": {"kty": "RSA", "e": "AQAB", "n": base64url(bytes([255] * 64))}},
    "crit": {"crit": ["x"]},
    "empty payload": {"payload": b""},
    "array": {"payload": b"[]"},
    "account missing": {"payload": {"oldKey": {}}},
    "account of another": {"payload": {"account": "https://ca.test/acme/acct/" + "0" * 32, "oldKey": {}}},
}


@pytest.mark.parametrize("spoiling", BAD_CHANGES.values(), ids=BAD_CHANGES)
async def test_7_3_5_a_change_that_is_not_as_it_must_be_is_refused(ca, fresh, spoiling):
    new = Key.generate()
    assert_refused(await change_key(fresh, new, **spoiling))
    await assert_not_changed(ca, fresh, new)


async def assert_not_changed(ca, account: Account, new: Key) -> None:
    assert (await account.read(account.url)).status == 200
    assert_problem(await find(ca, new, onlyReturnExisting=True), ErrorType.ACCOUNT_DOES_NOT_EXIST)


@pytest.mark.parametrize("old", [None, "x", {}, Key.generate().jwk])
async def test_7_3_5_the_old_key_must_be_named(ca, fresh, old):
    new = Key.generate()
    assert_refused(await change_key(fresh, new, payload={"account": fresh.url, "oldKey": old}))
    await assert_not_changed(ca, fresh, new)


@pytest.mark.parametrize("payload", [{}, {"protected": "", "payload": "", "signature": ""}, b"[]"])
async def test_7_3_5_the_inner_jws_must_be_one(ca, fresh, payload):
    assert_problem(await fresh.post(ca.client.url("key-change"), payload), MALFORMED)


async def test_7_3_5_nobody_changes_anothers_key(ca, fresh, stranger):
    """The new key's consent and the account's URL are not enough: the account's key signs the outer JWS."""
    new = Key.generate()
    answer = await stranger.post(ca.client.url("key-change"), key_change(fresh, new))
    assert_problem(answer, MALFORMED)
    await assert_not_changed(ca, fresh, new)


# ---------------------------------------------------------------- §7.3.6: deactivation


async def test_7_3_6_a_deactivated_account_is_dead_everywhere(ca, fresh):
    """401 `unauthorized`, for whatever it asks."""
    order = await ca.ready(fresh)
    challenge = await order.challenge()
    ended = await fresh.post(fresh.url, {"status": "deactivated"})
    assert (ended.status, ended.json["status"]) == (200, "deactivated")
    name = {"type": "dns", "value": ca.name()}
    for url, payload in (
        (fresh.url, None),
        (fresh.url, {"contact": []}),
        (fresh.url, {"status": "valid"}),
        (f"{fresh.url}/orders", None),
        (ca.client.directory_url, None),
        (ca.client.url("new-nonce"), None),
        (ca.client.url("new-order"), {"identifiers": [name]}),
        (ca.client.url("new-authz"), {"identifier": name}),
        (ca.client.url("key-change"), key_change(fresh, Key.generate())),
        (ca.client.url("revoke-cert"), {"certificate": "AAAA"}),
        (order.url, None),
        (order.object["finalize"], {"csr": base64url(csr(*order.names))}),
        (order.object["authorizations"][0], None),
        (order.object["authorizations"][0], {"status": "deactivated"}),
        (challenge["url"], {}),
    ):
        assert_problem(await fresh.post(url, payload), UNAUTHORIZED, "deactivated", status=401)


async def test_7_3_6_a_deactivated_account_stays_dead(ca, fresh):
    """Lesson 15: newAccount does not revive it."""
    assert (await fresh.post(fresh.url, {"status": "deactivated"})).status == 200
    for payload in ({}, {"onlyReturnExisting": True}, {"termsOfServiceAgreed": True}):
        assert_problem(await find(ca, fresh.key, **payload), UNAUTHORIZED, status=401)


async def test_7_3_6_only_the_account_deactivates_itself(fresh, stranger):
    assert_refused(await stranger.post(fresh.url, {"status": "deactivated"}))
    assert_refused(await fresh.post(fresh.url, {"status": "deactivated"}, key=stranger.key))
    assert (await fresh.read(fresh.url)).json["status"] == "valid"


# ---------------------------------------------------------------- §7.1.2.1: the list of orders


async def listed(account: Account) -> list[list[str]]:
    """The orders, page by page."""
    pages, url = [], f"{account.url}/orders"
    while url:
        answer = await account.read(url)
        assert (answer.status, answer.content_type) == (200, "application/json")
        pages.append(answer.json["orders"])
        url = next(iter(answer.links("next")), None)
    return pages


async def test_7_1_2_1_orders_come_in_pages(new_ca):
    async with new_ca(orders_page=2) as ca:
        account = await ca.account()
        assert await listed(account) == [[]]
        made = [(await account.order(ca.name())).url for _ in range(5)]
        pages = await listed(account)
        assert [len(page) for page in pages] == [2, 2, 1]
        assert sorted(sum(pages, [])) == sorted(made)  # noqa: RUF017  three short pages


async def test_7_1_2_1_a_page_that_is_just_full_is_the_last(new_ca):
    async with new_ca(orders_page=2) as ca:
        account = await ca.account()
        for _ in range(2):
            await account.order(ca.name())
        assert [len(page) for page in await listed(account)] == [2]


@pytest.mark.parametrize(
    "after", ["%", "%25", "zzz", "a" * 2000, "%00", "%ff", "'", "1&after=2", "%F0%9F%98%80"]
)
async def test_7_1_2_1_a_page_that_nobody_was_sent_to_is_none(account, after):
    """Lessons 24 and 26."""
    answer = await account.read(f"{account.url}/orders?after={after}")
    assert_problem(answer, MALFORMED, status=404)


async def test_7_1_2_1_dead_orders_are_not_listed(ca, fresh):
    """ "SHOULD include pending orders and SHOULD NOT include orders that are invalid"."""
    dead, alive = [await fresh.order(ca.name()) for _ in range(2)]
    await fresh.post(dead.object["authorizations"][0], {"status": "deactivated"})
    assert (await dead.read())["status"] == "invalid"
    assert await listed(fresh) == [[alive.url]]
