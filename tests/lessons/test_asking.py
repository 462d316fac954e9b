"""Who is asking: lessons 10, 11, 13 and 15."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from acme_ca.acme import endpoints
from acme_ca.acme.endpoints import ROUTES
from tests.support.client import Account, Answer, Client, Order, assert_refused, key_change, payload_bytes
from tests.support.eab import freeze
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.issuing import csr
from tests.support.jose import Key, base64url, compact, jws, mac_jws

pytestmark = IN_SESSION_LOOP

DNS = {"type": "dns", "value": "asked-for.example.test"}


@dataclass
class Estate:
    """An account with one of everything, another account with nothing, and one that ended."""

    client: Client
    owner: Account
    other: Account
    ended: Account
    frozen: Account
    pending: Order
    ready: Order
    issued: Order
    certificate: bytes
    certificate_key: Key
    authorization: str
    challenge: str

    def request(self, endpoint: str) -> tuple[str, Any]:
        """URL and payload of a request that its owner may make."""
        owner, client = self.owner, self.client
        requests: dict[str, tuple[str, Any]] = {
            "directory": (client.directory_url, None),
            "new_nonce": (client.url("new-nonce"), None),
            "new_account": (client.url("new-account"), {}),
            "new_order": (client.url("new-order"), {"identifiers": [DNS]}),
            "new_authz": (client.url("new-authz"), {"identifier": DNS}),
            "key_change": (client.url("key-change"), key_change(owner, Key.generate())),
            "revoke_cert": (client.url("revoke-cert"), {"certificate": base64url(self.certificate)}),
            "account": (owner.url, {"contact": ["mailto:changed@example.test"]}),
            "orders": (f"{owner.url}/orders", None),
            "order": (self.pending.url, None),
            "finalize": (self.ready.object["finalize"], {"csr": base64url(csr(*self.ready.names))}),
            "authorization": (self.authorization, {"status": "deactivated"}),
            "challenge": (self.challenge, {}),
            "certificate": (self.issued.object["certificate"], None),
            "other_chain": (self.issued.object["certificate"] + "/1", None),
        }
        return requests[endpoint]

    async def state(self) -> list[Any]:
        """All that its owner sees."""
        urls = [self.owner.url, f"{self.owner.url}/orders", self.pending.url, self.ready.url, self.issued.url]
        urls += [self.authorization, self.challenge]
        return [(await self.owner.read(url)).json for url in urls]


async def make_estate(ca) -> Estate:
    owner, other, ended, frozen = [await ca.account() for _ in range(4)]
    await freeze(ca, frozen)
    await ended.post(ended.url, {"status": "deactivated"})
    pending, ready, issued = await owner.order(ca.name()), await ca.ready(owner), await owner.order(ca.name())
    key = Key.generate()
    (leaf, *_) = await issued.issue(ca.web, csr(*issued.names, key=key.private))
    return Estate(
        client=ca.client,
        owner=owner,
        other=other,
        ended=ended,
        frozen=frozen,
        pending=pending,
        ready=ready,
        issued=issued,
        certificate=leaf.public_bytes(Encoding.DER),
        certificate_key=key,
        authorization=pending.object["authorizations"][0],
        challenge=(await pending.challenge())["url"],
    )


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def estate(ca) -> Estate:
    """For what is refused."""
    return await make_estate(ca)


# ---------------------------------------------------------------- lesson 10: every credential against every route

Send = Callable[[Estate, str, Any], Awaitable[Answer]]


def signed(who: Callable[[Estate], dict[str, Any]]) -> Send:
    """`who`: the arguments of `Client.post` that say who signs."""

    async def send(estate: Estate, url: str, payload: Any) -> Answer:
        return await estate.client.post(url, payload, **who(estate))

    return send


async def mac_under_public_key(estate: Estate, url: str, payload: Any) -> Answer:
    public = estate.owner.key.private.public_key()
    secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256", "kid": estate.owner.url, "nonce": await estate.client.nonce(), "url": url}
    return await estate.client.send(url, mac_jws(header, payload_bytes(payload), secret))


async def unsigned(estate: Estate, url: str, payload: Any) -> Answer:
    return await estate.client.send(url, payload_bytes(payload))


async def bearer_token(estate: Estate, url: str, payload: Any) -> Answer:
    headers = {"Content-Type": "application/jose+json", "Authorization": "Bearer " + estate.owner.url}
    return await estate.client.request("POST", url, body=payload_bytes(payload), headers=headers)


CREDENTIALS: dict[str, Send] = {
    "the account": signed(lambda e: {"key": e.owner.key, "kid": e.owner.url}),
    "another account": signed(lambda e: {"key": e.other.key, "kid": e.other.url}),
    "an ended account": signed(lambda e: {"key": e.ended.key, "kid": e.ended.url}),
    "a frozen account": signed(lambda e: {"key": e.frozen.key, "kid": e.frozen.url}),
    "a frozen account's key as jwk": signed(lambda e: {"key": e.frozen.key}),
    "a new key": signed(lambda _: {"key": Key.generate()}),
    "the account's key as jwk": signed(lambda e: {"key": e.owner.key}),
    "an ended account's key as jwk": signed(lambda e: {"key": e.ended.key}),
    "the certificate's key": signed(lambda e: {"key": e.certificate_key}),
    "the certificate's key under the account's kid": signed(
        lambda e: {"key": e.certificate_key, "kid": e.owner.url}
    ),
    "another account's key under the account's kid": signed(
        lambda e: {"key": e.other.key, "kid": e.owner.url}
    ),
    "a new key under the account's kid": signed(lambda e: {"key": Key.generate(), "kid": e.owner.url}),
    "kid of nobody": signed(lambda e: {"key": e.owner.key, "kid": e.owner.url[:-8] + "0" * 8}),
    "kid of another server": signed(
        lambda e: {"key": e.owner.key, "kid": e.owner.url.replace("ca.test", "evil.test")}
    ),
    "kid is an order": signed(lambda e: {"key": e.owner.key, "kid": e.pending.url}),
    "kid and jwk": signed(
        lambda e: {"key": e.owner.key, "header": {"kid": e.owner.url, "jwk": e.owner.key.jwk}}
    ),
    "neither kid nor jwk": signed(lambda e: {"key": e.owner.key, "without": ["jwk"]}),
    "kid null": signed(lambda e: {"key": e.owner.key, "kid": e.owner.url, "header": {"kid": None}}),
    "jwk null": signed(lambda e: {"key": e.owner.key, "header": {"jwk": None}}),
    "alg none": signed(
        lambda e: {
            "key": e.owner.key,
            "kid": e.owner.url,
            "header": {"alg": "none"},
            "change": lambda made: {**made, "signature": ""},
        }
    ),
    "a MAC under the account's public key": mac_under_public_key,
    "no signature at all": unsigned,
    "a bearer token": bearer_token,
}

ENDPOINTS = tuple(route.endpoint.__name__ for route in ROUTES)
FREE = {"directory", "new_nonce", "new_order", "new_authz"}
ACCEPTED: dict[str, set[str]] = {
    "the account": set(ENDPOINTS) - {"new_account", "other_chain"},  # there is one chain
    "another account": FREE,
    "a new key": {"new_account"},
    "the account's key as jwk": {"new_account"},
    "the certificate's key": {"new_account", "revoke_cert"},
}
"""Everything that is not here is refused."""


async def test_the_matrix_knows_every_route_and_every_credential():
    assert len(set(ENDPOINTS)) == len(ROUTES) == 15
    assert all(getattr(endpoints, name) for name in ENDPOINTS)
    assert set(ACCEPTED) <= set(CREDENTIALS)


def cases(*, accepted: bool) -> list[tuple[str, str]]:
    return [
        (endpoint, credential)
        for endpoint in ENDPOINTS
        for credential in CREDENTIALS
        if (endpoint in ACCEPTED.get(credential, set())) is accepted
    ]


@pytest.mark.parametrize(("endpoint", "credential"), cases(accepted=False))
async def test_lesson_10_refused(estate, endpoint, credential):
    url, payload = estate.request(endpoint)
    answer = await CREDENTIALS[credential](estate, url, payload)
    assert_refused(answer)
    assert answer.error in {
        "malformed",
        "unauthorized",
        "accountDoesNotExist",
        "badSignatureAlgorithm",
        "badNonce",
    }


async def test_lesson_10_what_was_refused_changed_nothing(estate):
    """After all of them once more, at once."""
    before = await estate.state()
    for endpoint, credential in cases(accepted=False):
        await CREDENTIALS[credential](estate, *estate.request(endpoint))
    assert await estate.state() == before
    assert (await estate.owner.revoke(estate.certificate)).status == 200, "nobody had revoked it"


@pytest.mark.parametrize(("endpoint", "credential"), cases(accepted=True))
async def test_lesson_10_accepted(ca, endpoint, credential):
    own = await make_estate(ca)
    answer = await CREDENTIALS[credential](own, *own.request(endpoint))
    assert answer.status in {200, 201, 204}, answer


# ---------------------------------------------------------------- lesson 11: what is another's

OWNED = ("account", "orders", "order", "finalize", "authorization", "challenge", "certificate")


@pytest.mark.parametrize("reading", [False, True], ids=["acting", "reading"])
@pytest.mark.parametrize("endpoint", OWNED)
async def test_lesson_11_another_account_gets_403_or_404_and_learns_nothing(estate, endpoint, reading):
    url, payload = estate.request(endpoint)
    answer = await estate.other.post(url, None if reading else payload)
    assert answer.status == (403 if endpoint in {"account", "orders"} else 404)
    text = answer.body.decode()
    assert not any(
        name in text for order in (estate.pending, estate.ready, estate.issued) for name in order.names
    )


@pytest.mark.parametrize("endpoint", ["order", "finalize", "authorization", "challenge", "certificate"])
async def test_lesson_11_what_is_anothers_looks_like_what_is_not_there(estate, endpoint):
    url, payload = estate.request(endpoint)
    identity = next(part for part in url.split("/") if len(part) == 32)
    another = await estate.other.post(url, payload)
    nothing = await estate.other.post(url.replace(identity, "0" * 32), payload)
    assert (another.status, another.json) == (nothing.status, nothing.json)


async def test_lesson_11_ids_of_one_kind_are_none_of_another(estate):
    """An order's id does not open an authorization."""
    ids = [url.rpartition("/")[2] for url in (estate.pending.url, estate.authorization, estate.owner.url)]
    client = estate.client
    for place, path in enumerate(["order/", "authz/"]):
        for number, identity in enumerate(ids):
            answer = await estate.owner.read(client.url(path + identity))
            assert answer.status == (200 if place == number else 404)


# ---------------------------------------------------------------- lesson 13: nonces on several workers


async def test_lesson_13_replays_on_two_workers_one_wins(ca, new_ca):
    """The nonce of one worker is good at the other, and once."""
    account = await ca.account()
    async with new_ca(dsn=ca.dsn) as second:
        for _ in range(3):
            header = {
                "alg": "ES256",
                "kid": account.url,
                "nonce": await ca.client.nonce(),
                "url": account.url,
            }
            body = compact(jws(header, b"", account.key))
            clients = [ca.client, second.client] * 10
            answers = await asyncio.gather(*(client.send(account.url, body) for client in clients))
            assert sorted(answer.status for answer in answers) == [200] + [400] * 19


async def test_lesson_13_when_the_database_lost_the_nonces_all_older_ones_are_bad(new_ca):
    """Unlogged tables are emptied by a crash of PostgreSQL: a client that tries again gets through."""
    async with new_ca() as ca:
        account = await ca.account()
        old = [await ca.client.nonce() for _ in range(2)]
        assert (await account.read(account.url, header={"nonce": old[0]})).status == 200
        await ca.sql("TRUNCATE nonce, nonce_epoch")
        refused = [await account.read(account.url, header={"nonce": nonce}) for nonce in old]
        assert [answer.error for answer in refused] == ["badNonce", "badNonce"]
        fresh = refused[-1].nonce
        assert (await account.read(account.url, header={"nonce": fresh})).status == 200


async def test_lesson_13_a_database_error_refuses(new_ca):
    """The nonce cannot be spent: the request fails, and with a fresh nonce."""
    async with new_ca() as ca:
        account = await ca.account()
        await ca.sql("ALTER TABLE nonce RENAME TO lost")
        answer = await account.read(account.url, failing=True)
        assert answer.status == 500
        assert answer.nonce


# ---------------------------------------------------------------- lesson 15: what the log keeps to itself


async def test_lesson_15_no_secret_in_the_log(new_ca):
    async with new_ca() as ca:
        account = await ca.account()
        order = await account.order(ca.name())
        token = (await order.challenge())["token"]
        await order.issue(ca.web)
        await account.read(account.url, change=lambda made: {**made, "signature": "AAAA"})
        lines = str(ca.log.entries)
    assert len(ca.logged("request")) > 5
    for secret in (token, account.key.thumbprint, account.key.jwk["x"], *list(ca.client.nonces)[:50]):
        assert secret not in lines


# ---------------------------------------------------------------- what one worker remembers of an account

BY_ACCOUNT = sorted(ACCEPTED["the account"])
COUNTED = (
    "orders",
    "authz",
    "certificate WHERE der IS NOT NULL",
    "certificate WHERE revoked IS NOT NULL",
    "account",
)


async def counts(ca) -> list[int]:
    return [await ca.sql(f"SELECT count(*) FROM {table}") for table in COUNTED]


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def second(ca, new_ca):
    """Another worker on the same database."""
    async with new_ca(dsn=ca.dsn) as made:
        yield made


@pytest.mark.parametrize("endpoint", BY_ACCOUNT)
async def test_lesson_15_an_account_that_ended_at_another_worker_is_dead_here(ca, second, endpoint):
    own = await make_estate(ca)
    assert (await own.owner.read(own.owner.url)).status == 200
    elsewhere = replace(own.owner, client=second.client)
    assert (await elsewhere.post(own.owner.url, {"status": "deactivated"})).status == 200
    before = await counts(ca)
    answer = await own.owner.post(*own.request(endpoint))
    assert (answer.status, answer.error) == (401, "unauthorized")
    assert await counts(ca) == before
    answered = own.challenge.split("/")[-2]
    assert await ca.sql(f"SELECT challenge FROM authz WHERE id = '{answered}'") is None


@pytest.mark.parametrize("endpoint", BY_ACCOUNT)
async def test_lesson_10_a_key_that_was_changed_at_another_worker_opens_nothing_here(ca, second, endpoint):
    own = await make_estate(ca)
    assert (await own.owner.read(own.owner.url)).status == 200
    new = Key.generate()
    elsewhere = replace(own.owner, client=second.client)
    assert (await elsewhere.post(ca.client.url("key-change"), key_change(own.owner, new))).status == 200
    before = await counts(ca)
    for _ in range(2):
        assert_refused(await own.owner.post(*own.request(endpoint)))
    assert await counts(ca) == before
    assert (await replace(own.owner, key=new).read(own.owner.url)).status == 200


@pytest.mark.parametrize("endpoint", ["new_order", "new_authz", "challenge", "account"])
async def test_lesson_13_a_replayed_act_is_done_once(ca, second, endpoint):
    """The nonce is spent by the very statement that acts: whoever comes second has done nothing."""
    own = await make_estate(ca)
    url, payload = own.request(endpoint)
    header = {"alg": "ES256", "kid": own.owner.url, "nonce": await ca.client.nonce(), "url": url}
    body = compact(jws(header, payload_bytes(payload), own.owner.key))
    before = await counts(ca)
    answers = await asyncio.gather(*(worker.client.send(url, body) for worker in [ca, second] * 6))
    assert [answer.status < 300 for answer in answers].count(True) == 1
    assert {answer.error for answer in answers if answer.status >= 300} == {"badNonce"}
    grown = [after - then for then, after in zip(before, await counts(ca), strict=True)]
    assert max(grown) <= 1


@pytest.mark.parametrize("endpoint", ["new_order", "new_authz", "challenge", "finalize", "account"])
async def test_lesson_13_an_act_that_is_refused_spends_its_nonce(ca, endpoint):
    own = await make_estate(ca)
    url, _ = own.request(endpoint)
    nonce = await ca.client.nonce()
    refused = await own.owner.post(url, b"[]", header={"nonce": nonce})
    assert refused.error == "malformed"
    again = await own.owner.read(own.owner.url, header={"nonce": nonce})
    assert again.error == "badNonce"


# ---------------------------------------------------------------- one account's workers


async def test_an_account_made_at_one_worker_is_known_at_the_other(ca, new_ca):
    account = await ca.account()
    async with new_ca(dsn=ca.dsn) as second:
        order = await replace(account, client=second.client).order(ca.name())
        (leaf, *_) = await Order(account, order.url, order.object).issue(ca.web)
    assert isinstance(leaf, x509.Certificate)
