"""RFC 8555 §7.4 and §7.4.2 from the CSR to the certificate, and §7.1.6: the states of orders."""

import asyncio
import re
from itertools import pairwise

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID

from acme_ca.core.problems import ErrorType
from acme_ca.core.states import ORDER_TRANSITIONS, OrderStatus
from tests.support.client import Order, assert_problem, prove
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.issuing import EC_KEY, RSA_KEY, csr, names_of, subject
from tests.support.jose import base64url, compact, jws

pytestmark = IN_SESSION_LOOP

MALFORMED, NOT_READY, BAD_CSR = ErrorType.MALFORMED, ErrorType.ORDER_NOT_READY, ErrorType.BAD_CSR


# ---------------------------------------------------------------- §7.4: finalize


@pytest_asyncio.fixture(loop_scope="session")
async def ready(ca, account) -> Order:
    return await ca.ready(account)


async def test_7_4_finalize_gives_the_certificate(ready):
    answer = await ready.finalize()
    assert (answer.status, answer.location, answer.json["status"]) == (200, ready.url, "valid")
    assert answer.json["certificate"].startswith("https://ca.test/acme/cert/")
    assert (await ready.read()) == answer.json


async def test_7_4_not_before_all_is_proved(ca, account):
    order = await account.order(ca.name(), ca.name())
    await prove(account, order.object["authorizations"][0], ca.web)
    assert (await order.read())["status"] == "pending"
    assert_problem(await order.finalize(), NOT_READY, status=403)
    assert (await order.read())["status"] == "pending"


async def test_7_4_not_twice(ready):
    assert (await ready.finalize()).status == 200
    certificate = (await ready.read())["certificate"]
    assert_problem(await ready.finalize(), NOT_READY, status=403)
    assert (await ready.read())["certificate"] == certificate


def name_of(order: Order) -> str:
    return order.names[0]


CSRS = {
    "one more": lambda order: csr(name_of(order), "more.example.test"),
    "another": lambda _: csr("other.example.test"),
    "none": lambda _: csr(),
    "the wildcard": lambda order: csr("*." + name_of(order)),
    "the parent": lambda _: csr("example.test"),
    "an address more": lambda order: csr(name_of(order), "10.0.0.1"),
    "another CN": lambda order: csr(name_of(order), named=subject("other.example.test")),
    "an e-mail address": lambda order: csr(name_of(order), x509.RFC822Name("a@example.test")),
    "CA:TRUE": lambda order: csr(
        name_of(order), extensions=[(x509.BasicConstraints(ca=True, path_length=None), True)]
    ),
    "broken signature": lambda order: csr(name_of(order))[:-1] + b"\0",
    "bytes behind": lambda order: csr(name_of(order)) + b"\0",
    "no DER": lambda _: b"MIIB",
}


@pytest.mark.parametrize("make", CSRS.values(), ids=CSRS)
async def test_7_4_a_csr_that_does_not_fit_changes_nothing(ready, make):
    """Lesson 1: refused before the order changes; a better one may follow."""
    assert_problem(await ready.finalize(make(ready)), BAD_CSR, status=400)
    assert (await ready.read())["status"] == "ready"
    assert (await ready.finalize()).status == 200


@pytest.mark.parametrize(
    "payload", [{}, {"csr": ""}, {"csr": None}, {"csr": 1}, {"csr": "AA=="}, {"csr": "-----BEGIN"}]
)
async def test_7_4_without_a_csr_no_certificate(account, ready, payload):
    assert_problem(await account.post(ready.object["finalize"], payload), MALFORMED, status=400)
    assert (await ready.read())["status"] == "ready"


async def test_11_1_not_the_key_of_any_account(ca, account, stranger, ready):
    for key in (account.key, stranger.key):
        answer = await ready.finalize(csr(*ready.names, key=key.private))
        assert_problem(answer, BAD_CSR, "account", status=400)
    assert (await ready.read())["status"] == "ready"


async def test_7_4_names_in_any_order_and_case(ca, account):
    order = await ca.ready(account, names=3)
    one, two, three = order.names
    answer = await order.finalize(csr(three.upper(), one, two, named=subject(two)))
    assert answer.json["status"] == "valid"


async def test_7_4_a_name_in_the_cn_alone(ca, account, ready):
    assert (await ready.finalize(csr(named=subject(name_of(ready))))).status == 200
    downloaded = await account.read((await ready.read())["certificate"])
    assert names_of(x509.load_pem_x509_certificates(downloaded.body)[0]) == ready.names


@pytest.mark.parametrize("key", [EC_KEY, RSA_KEY], ids=["P-256", "RSA"])
async def test_7_4_the_key_of_the_csr_is_certified(ca, account, key):
    order = await account.order(ca.name())
    (leaf, *_) = await order.issue(ca.web, csr(*order.names, key=key))
    assert leaf.public_key() == key.public_key()


async def test_7_4_the_body_of_the_csr_may_be_large(ca, account):
    """A hundred of the longest names: within 64 KiB."""
    base = ".".join(["a" * 63, "b" * 63, "c" * 63])
    names = [f"{number:040}.{base}.test" for number in range(100)]
    order = await account.order(*names)
    answer = await account.post(order.object["finalize"], {"csr": base64url(csr(*names))})
    assert_problem(answer, NOT_READY)


# ---------------------------------------------------------------- §7.4.2: the certificate


async def test_7_4_2_the_chain(ca, account):
    order = await account.order(ca.name())
    leaf, intermediate = await order.issue(ca.web)
    assert intermediate == ca.hierarchy.intermediate.certificate
    leaf.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(ca.hierarchy.root.certificate)
    assert names_of(leaf) == order.names
    answer = await account.read(order.object["certificate"])
    assert answer.content_type == "application/pem-certificate-chain"
    assert answer.links("alternate") == []


async def test_9_1_the_pem_is_strict(ca, account):
    """Certificates alone, no text around, lines of 64 characters (RFC 7468 §3)."""
    order = await account.order(ca.name())
    chain = await order.issue(ca.web)
    body = (await account.read(order.object["certificate"])).body.decode("ascii")
    block = r"-----BEGIN CERTIFICATE-----\n(?:[A-Za-z0-9+/]{64}\n)*[A-Za-z0-9+/]{1,64}={0,2}\n-----END CERTIFICATE-----\n"
    assert re.fullmatch(f"(?:{block}){{{len(chain)}}}", body)
    assert not any(link.issuer == link.subject for link in chain), "the root stays at home"


@pytest.mark.parametrize(
    "accept", ["application/pem-certificate-chain", "*/*", "application/pkix-cert", "text/html;q=0"]
)
async def test_7_4_2_what_is_accepted_makes_no_difference(ca, account, ready, accept):
    await ready.finalize()
    url = (await ready.read())["certificate"]
    header = {"alg": account.key.algorithm, "kid": account.url, "nonce": await ca.client.nonce(), "url": url}
    answer = await ca.client.request(
        "POST",
        url,
        body=compact(jws(header, b"", account.key)),
        headers={"Content-Type": "application/jose+json", "Accept": accept},
    )
    assert (answer.status, answer.content_type) == (200, "application/pem-certificate-chain")


async def test_7_4_2_the_certificate_never_changes(ca, account, ready):
    await ready.finalize()
    url = (await ready.read())["certificate"]
    before = (await account.read(url)).body
    (leaf, *_) = x509.load_pem_x509_certificates(before)
    assert (await account.revoke(leaf.public_bytes(Encoding.DER))).status == 200
    assert (await account.read(url)).body == before


async def test_7_4_2_addresses_in_the_certificate_are_those_of_the_plain_listener(ca, account):
    """And what stands there can be fetched."""
    (leaf, *_) = await (await account.order(ca.name())).issue(ca.web)
    access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    (url,) = (
        entry.access_location.value
        for entry in access
        if entry.access_method == AuthorityInformationAccessOID.CA_ISSUERS
    )
    answer = await ca.plain.request("GET", url)
    assert x509.load_der_x509_certificate(answer.body) == ca.hierarchy.intermediate.certificate


# ---------------------------------------------------------------- §7.1.6: the states, in real flows


async def observed(order: Order, *, until: set[str]) -> list[str]:
    """The statuses that an order shows, each once, till it shows one of `until`."""
    seen = [order.object["status"]]
    while seen[-1] not in until:
        await asyncio.sleep(0.005)
        if (status := (await order.read())["status"]) != seen[-1]:
            seen.append(status)
    return seen


def assert_along_the_table(seen: list[str]) -> None:
    statuses = [OrderStatus(status) for status in seen]
    assert all(after in ORDER_TRANSITIONS[before] for before, after in pairwise(statuses)), seen


async def test_7_1_6_from_pending_to_valid(new_ca):
    async with new_ca(dev=True, test={"delay_issuance": 0.5}) as ca:
        order = await (await ca.account()).order(ca.name())
        seen = [order.object["status"]]
        await order.prove(ca.web)
        seen.append(order.object["status"])
        answer = await order.finalize()
        assert (answer.status, answer.headers["Retry-After"]) == (200, "1")
        assert "certificate" not in answer.json
        seen.append(answer.json["status"])
        assert_problem(await order.finalize(), NOT_READY, status=403)
        polled = await order.account.read(order.url)
        assert polled.headers["Retry-After"] == "1"
        order.object = polled.json
        seen += (await observed(order, until={"valid", "invalid"}))[1:]
    assert seen == ["pending", "ready", "processing", "valid"]
    assert_along_the_table(seen)


async def test_7_1_6_one_failure_makes_the_order_invalid(ca, account):
    """Lesson 5: spoil one of three."""
    order = await account.order(ca.name(), ca.name(), ca.name())
    for url in order.object["authorizations"][:2]:
        await prove(account, url, ca.web)
    await account.post((await order.challenge(place=2))["url"], {})
    seen = await observed(order, until={"invalid", "valid"})
    assert seen == ["pending", "invalid"]
    assert_problem(await order.finalize(), NOT_READY, status=403)
    assert (await order.read())["status"] == "invalid"


@pytest.mark.parametrize("when", ["pending", "ready"])
async def test_7_1_6_a_deactivated_authorization_makes_the_order_invalid(ca, account, when):
    order = await account.order(ca.name())
    if when == "ready":
        await order.prove(ca.web)
    await account.post(order.object["authorizations"][0], {"status": "deactivated"})
    assert (await order.read())["status"] == "invalid"
    assert_problem(await order.finalize(), NOT_READY, status=403)


async def test_7_1_6_what_is_not_answered_expires(new_ca):
    async with new_ca() as ca:
        account = await ca.account()
        order = await account.order(ca.name())
        for table in ("orders", "authz"):
            await ca.sql(f"UPDATE {table} SET expires = now() - interval '1 second'")
        (authorization,) = await order.authorizations()
        assert (authorization["status"], (await order.read())["status"]) == ("expired", "invalid")
        challenge = authorization["challenges"][0]
        await account.post(challenge["url"], {})
        assert (await order.authorizations())[0]["status"] == "expired"
        answer = await account.post(order.object["authorizations"][0], {"status": "deactivated"})
        assert answer.json["status"] == "expired"
        assert_problem(await order.finalize(), NOT_READY, status=403)
