"""What becomes of accounts whose key is blocked, or shown to be compromised (lesson 4). The refusals of keys:
tests/lessons/test_keys.py.
"""

from dataclasses import replace

from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.core import keys
from acme_ca.core.actors import Actor
from acme_ca.core.problems import ErrorType
from acme_ca.storage import keys as key_store
from acme_ca.storage.database import Database
from tests.support.client import Order, assert_problem
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.issuing import csr
from tests.support.jose import Key, base64url
from tests.support.records import NOW

pytestmark = IN_SESSION_LOOP


async def block(ca, key: Key) -> None:
    async with Database.open(ca.dsn, connections=1) as database:
        spki = keys.spki_sha256(key.private.public_key())
        await key_store.block(database, [spki], comment="leaked", actor=Actor("operator"), now=NOW)


async def test_an_account_whose_key_is_blocked_ends_at_every_worker_at_once(ca, new_ca):
    account = await ca.account()
    order = await ca.ready(account)
    async with new_ca(dsn=ca.dsn) as second:
        elsewhere = replace(account, client=second.client)
        assert (await elsewhere.read(account.url)).status == 200
        await block(ca, account.key)
        for seen in (account, elsewhere):
            refused = await Order(seen, order.url, order.object).finalize()
            assert_problem(refused, ErrorType.UNAUTHORIZED, "revoked", status=401)
            refused = await seen.new_order(ca.name())
            assert_problem(refused, ErrorType.UNAUTHORIZED, "revoked", status=401)
    again = await ca.client.post(ca.client.url("new-account"), {}, key=account.key)
    assert_problem(again, ErrorType.UNAUTHORIZED, "revoked", status=401)


async def test_an_account_whose_key_was_shown_to_be_compromised_ends(ca, account):
    """A certificate's key became an account's afterwards; who has it too says so of the certificate."""
    key = Key.generate()
    order = await ca.ready(account)
    (leaf, *_) = await order.issue(ca.web, csr(*order.names, key=key.private))
    careless = await ca.client.register(key)
    wish = {"certificate": base64url(leaf.public_bytes(Encoding.DER)), "reason": 1}
    assert (await ca.client.post(ca.client.url("revoke-cert"), wish, key=key)).status == 200
    assert_problem(await careless.read(careless.url), ErrorType.UNAUTHORIZED, "revoked", status=401)
