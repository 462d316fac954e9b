"""RFC 8555 §7.6: who may revoke, for which reason, and that it is done once."""

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.core.actors import Actor
from acme_ca.core.ids import serial_text
from acme_ca.core.problems import ErrorType
from acme_ca.core.revocation import RevocationReason
from acme_ca.revocation.revoke import Revocation
from acme_ca.storage.database import Database
from tests.support.client import Account, Answer, Order, assert_problem, assert_refused, key_change
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.issuing import NOW, csr, subject
from tests.support.jose import Key, base64url

pytestmark = IN_SESSION_LOOP

MALFORMED, UNAUTHORIZED = ErrorType.MALFORMED, ErrorType.UNAUTHORIZED


@dataclass
class Issued:
    order: Order
    key: Key
    chain: list[x509.Certificate]

    @property
    def der(self) -> bytes:
        return self.chain[0].public_bytes(Encoding.DER)

    async def revoke(self, *, key: Key, **members: object) -> Answer:
        """By a key that the request carries."""
        client = self.order.account.client
        payload = {"certificate": base64url(self.der), **members}
        return await client.post(client.url("revoke-cert"), payload, key=key)


async def issue(ca, account: Account, names: int = 1, key: Key | None = None) -> Issued:
    key = key or Key.generate()
    order = await account.order(*(ca.name() for _ in range(names)))
    return Issued(order, key, await order.issue(ca.web, csr(*order.names, key=key.private)))


@pytest_asyncio.fixture(loop_scope="session")
async def issued(ca, account) -> Issued:
    return await issue(ca, account)


async def test_by_the_account_that_ordered(account, issued):
    answer = await account.revoke(issued.der)
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "RS256"])
async def test_by_the_certificates_own_key(ca, account, algorithm):
    key = Key.generate(algorithm)
    issued = await issue(ca, account, key=key)
    assert (await issued.revoke(key=key, reason=1)).status == 200


async def test_by_an_account_that_holds_authorizations_for_all_names(ca, account):
    issued = await issue(ca, account, names=2)
    other = await ca.account()
    assert_problem(await other.revoke(issued.der), UNAUTHORIZED, status=403)
    await (await other.order(issued.order.names[0])).prove(ca.web)
    assert_problem(await other.revoke(issued.der), UNAUTHORIZED, status=403)
    await (await other.order(*issued.order.names)).prove(ca.web)
    assert (await other.revoke(issued.der)).status == 200


async def test_by_nobody_else(ca, account, stranger, issued):
    assert_problem(await stranger.revoke(issued.der), UNAUTHORIZED, status=403)
    for key in (Key.generate(), account.key, stranger.key):
        assert_problem(await issued.revoke(key=key), UNAUTHORIZED, status=403)
    another = await issue(ca, account)
    assert_problem(await another.revoke(key=issued.key), UNAUTHORIZED)
    assert (await account.revoke(issued.der)).status == 200, "none of these did it"


async def test_authorizations_that_ended_do_not_count(ca, account, issued):
    other = await ca.account()
    order = await (await other.order(*issued.order.names)).prove(ca.web)
    await other.post(order.object["authorizations"][0], {"status": "deactivated"})
    assert_problem(await other.revoke(issued.der), UNAUTHORIZED)


async def test_an_authorization_for_the_wildcard_does_not_count_for_the_name(ca, account):
    """And no other way round: identifiers are compared, not names covered."""
    issued = await issue(ca, account)
    parent = issued.order.names[0].partition(".")[2]
    other = await ca.account()
    order = await other.order(f"*.{parent}")
    assert_problem(await other.revoke(issued.der), UNAUTHORIZED)
    assert order.object["status"] == "pending"


@pytest.mark.parametrize("by", ["account", "key"])
async def test_once(account, issued, by):
    async def revoke() -> Answer:
        return await account.revoke(issued.der) if by == "account" else await issued.revoke(key=issued.key)

    assert (await revoke()).status == 200
    assert_problem(await revoke(), ErrorType.ALREADY_REVOKED, status=400)


async def test_a_key_calls_itself_compromised_also_afterwards(account, issued):
    """The gravest reason may come late: by the key alone, and once."""
    assert (await account.revoke(issued.der, reason=4)).status == 200
    assert_problem(await account.revoke(issued.der, reason=1), ErrorType.BAD_REVOCATION_REASON)
    assert_problem(await issued.revoke(key=Key.generate(), reason=1), UNAUTHORIZED)
    assert (await issued.revoke(key=issued.key, reason=1)).status == 200
    for reason in (0, 1, 4):
        answer = await issued.revoke(key=issued.key, reason=reason)
        assert_problem(answer, ErrorType.ALREADY_REVOKED, status=400)


@pytest.mark.parametrize("by", ["account", "key"])
async def test_a_certificate_on_hold_is_revoked_for_good(ca, account, issued, by):
    serial = serial_text(issued.chain[0].serial_number)
    async with Database.open(ca.dsn, connections=1) as database:
        room = Revocation(database=database, clock=lambda: NOW)
        await room.take_back(serial, by=Actor("operator"), reason=RevocationReason.CERTIFICATE_HOLD)
        answer = await (account.revoke(issued.der) if by == "account" else issued.revoke(key=issued.key))
        assert answer.status == 200
        assert (await room.find(serial)).reason is RevocationReason.UNSPECIFIED


async def test_of_parallel_revocations_one_succeeds(account, issued):
    answers = await asyncio.gather(*(account.revoke(issued.der) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [400] * 7
    assert {answer.error for answer in answers if answer.status == 400} == {ErrorType.ALREADY_REVOKED}


@pytest.mark.parametrize("reason", [0, 3, 4, 5])
async def test_reasons_of_subscribers(account, issued, reason):
    assert (await account.revoke(issued.der, reason=reason)).status == 200


async def test_that_a_key_is_compromised_is_for_the_key_to_say(account, issued):
    """Its effect is on the key, whoever else uses it."""
    assert_problem(await account.revoke(issued.der, reason=1), ErrorType.BAD_REVOCATION_REASON, status=400)
    assert (await account.revoke(issued.der, reason=4)).status == 200


@pytest.mark.parametrize(
    ("reason", "error"),
    [(number, ErrorType.BAD_REVOCATION_REASON) for number in (2, 6, 7, 8, 9, 10, 11, 99, -1, 10**30)]
    + [(other, MALFORMED) for other in ("1", [], {}, 1.5, True, None)],
)
async def test_other_reasons_are_refused_and_revoke_nothing(account, issued, reason, error):
    assert_problem(await account.revoke(issued.der, reason=reason), error, status=400)
    assert (await account.revoke(issued.der)).status == 200


@pytest.mark.parametrize(
    "value", [..., "", "AAAA", "A", "AA==", "-----BEGIN CERTIFICATE-----", None, 1, {}, []]
)
async def test_what_is_no_certificate_is_malformed(ca, account, value):
    payload = {} if value is ... else {"certificate": value}
    assert_problem(await account.post(ca.client.url("revoke-cert"), payload), MALFORMED, status=400)


def forged(leaf: x509.Certificate, key: Key) -> bytes:
    """The same names, issuer and serial number, under another key."""
    return (
        x509.CertificateBuilder()
        .subject_name(leaf.subject)
        .issuer_name(leaf.issuer)
        .public_key(key.private.public_key())
        .serial_number(leaf.serial_number)
        .not_valid_before(leaf.not_valid_before_utc)
        .not_valid_after(leaf.not_valid_after_utc)
        .sign(key.private, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


async def test_a_forged_certificate_with_a_known_serial_revokes_nothing(ca, account, issued):
    """The attacker's key, the real serial number."""
    key = Key.generate()
    der = forged(issued.chain[0], key)
    answer = await ca.client.post(ca.client.url("revoke-cert"), {"certificate": base64url(der)}, key=key)
    assert_problem(answer, MALFORMED, status=404)
    assert_problem(await account.revoke(der), MALFORMED, status=404)
    assert (await account.revoke(issued.der)).status == 200


async def test_changed_bytes_are_another_certificate(account, issued):
    """Bytes behind, and a changed signature."""
    assert_refused(await account.revoke(issued.der + b"\0"))
    assert_refused(await account.revoke(issued.der[:-1] + bytes((issued.der[-1] ^ 1,))))
    assert (await account.revoke(issued.der)).status == 200


async def test_certificates_of_others_and_of_the_ca_are_not_ours_to_revoke(ca, account, issued):
    key = ec.generate_private_key(ec.SECP256R1())
    foreign = (
        x509.CertificateBuilder(
            subject("x"), subject("x"), key.public_key(), 12345, NOW, NOW + timedelta(days=1)
        )
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    for der in (
        foreign,
        ca.hierarchy.intermediate.certificate.public_bytes(Encoding.DER),
        ca.hierarchy.root.certificate.public_bytes(Encoding.DER),
    ):
        assert_problem(await account.revoke(der), MALFORMED, status=404)


async def test_the_servers_own_certificate_is_nobodys(ca, account):
    own = x509.load_pem_x509_certificates(ca.settings.tls_file.read_bytes())[0]
    assert_problem(await account.revoke(own.public_bytes(Encoding.DER)), UNAUTHORIZED, status=403)


async def test_the_order_shows_its_certificate_still(account, issued):
    await account.revoke(issued.der)
    assert (await issued.order.read())["status"] == "valid"
    assert (await account.read(issued.order.object["certificate"])).status == 200


async def test_an_account_that_ended_revokes_nothing_its_certificates_keys_still_do(ca):
    account = await ca.account()
    issued = await issue(ca, account)
    await account.post(account.url, {"status": "deactivated"})
    assert_problem(await account.revoke(issued.der), UNAUTHORIZED, status=401)
    assert (await issued.revoke(key=issued.key)).status == 200


# ---------------------------------------------------------------- lesson 4: keys revoked as compromised

KEY_COMPROMISE = 1
OTHER_REASONS = pytest.mark.parametrize("reason", [None, 0, 3, 4, 5])


async def revoked_key(ca, account: Account, reason: int | None) -> Key:
    """The key of a certificate that was revoked for this reason, or not at all."""
    issued = await issue(ca, account)
    if reason is not None:
        assert (await issued.revoke(key=issued.key, reason=reason)).status == 200
    return issued.key


@pytest.mark.parametrize("whose", ["the same account", "another account"])
async def test_lesson_4_a_compromised_key_is_not_certified_again(ca, account, whose):
    """Neither for another name, nor for another account; the order is good for another key."""
    key = await revoked_key(ca, account, KEY_COMPROMISE)
    order = await ca.ready(account if whose == "the same account" else await ca.account())
    answer = await order.finalize(csr(*order.names, key=key.private))
    assert_problem(answer, ErrorType.BAD_CSR, "compromised", status=400)
    assert (await order.read())["status"] == "ready"
    assert (await order.finalize(csr(*order.names, key=Key.generate().private))).status == 200


async def test_lesson_4_a_key_that_its_holder_gives_up_is_compromised_at_every_worker(ca, new_ca, account):
    """Revoked by the key itself; an order that was ready before."""
    issued, order = await issue(ca, account), await ca.ready(account)
    async with new_ca(dsn=ca.dsn) as second:
        waiting = Order(replace(account, client=second.client), order.url, order.object)
        assert (await issued.revoke(key=issued.key, reason=KEY_COMPROMISE)).status == 200
        answer = await waiting.finalize(csr(*order.names, key=issued.key.private))
    assert_problem(answer, ErrorType.BAD_CSR, "compromised", status=400)


@OTHER_REASONS
async def test_a_key_that_was_revoked_for_another_reason_is_certified_again(ca, account, reason):
    key = await revoked_key(ca, account, reason)
    order = await ca.ready(account)
    assert (await order.finalize(csr(*order.names, key=key.private))).json["status"] == "valid"


async def test_lesson_4_a_compromised_key_is_no_accounts_key(ca, account):
    key = await revoked_key(ca, account, KEY_COMPROMISE)
    answer = await ca.client.post(ca.client.url("new-account"), {}, key=key)
    assert_problem(answer, ErrorType.BAD_PUBLIC_KEY, "compromised", status=400)
    wish = {"onlyReturnExisting": True}
    nobody = await ca.client.post(ca.client.url("new-account"), wish, key=key)
    assert_problem(nobody, ErrorType.ACCOUNT_DOES_NOT_EXIST)


async def test_lesson_4_no_account_changes_to_a_compromised_key(ca, account):
    key = await revoked_key(ca, account, KEY_COMPROMISE)
    other = await ca.account()
    answer = await other.post(ca.client.url("key-change"), key_change(other, key))
    assert_problem(answer, ErrorType.BAD_PUBLIC_KEY, "compromised", status=400)
    assert (await other.read(other.url)).status == 200, "its key is the old one still"


@OTHER_REASONS
async def test_a_key_that_was_revoked_for_another_reason_may_be_an_accounts(ca, account, reason):
    first, second = [await revoked_key(ca, account, reason) for _ in range(2)]
    made = await ca.client.register(first)
    assert (await made.post(ca.client.url("key-change"), key_change(made, second))).status == 200
