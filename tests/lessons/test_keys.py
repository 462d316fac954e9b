"""Weak and known keys: lesson 4, for certificates and accounts alike, through the whole server.

Each key is a real one that signs its own CSRs and requests; the arithmetic is in tests/core/test_keys.py.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.core import keys
from acme_ca.core.actors import Actor
from acme_ca.core.problems import ErrorType
from acme_ca.storage import keys as key_store
from acme_ca.storage.database import Database
from tests.support.client import Account, Answer, assert_problem, key_change
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.issuing import csr
from tests.support.jose import Key, base64url
from tests.support.weakness import near_primes, roca_primes, small_prime_and_another

pytestmark = IN_SESSION_LOOP


@cache
def of_primes(name: str) -> Key:
    p, q = {"ROCA": roca_primes, "Fermat": near_primes, "small factor": small_prime_and_another}[name]()
    exponent = 65537
    d = pow(exponent, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=d % (p - 1),
        dmq1=d % (q - 1),
        iqmp=pow(q, -1, p),
        public_numbers=rsa.RSAPublicNumbers(exponent, p * q),
    )
    return Key(numbers.private_key(unsafe_skip_rsa_key_validation=True), "RS256")


def generated(bits: int, exponent: int = 65537) -> Callable[[], Key]:
    return lambda: Key(rsa.generate_private_key(public_exponent=exponent, key_size=bits), "RS256")


COMPUTED: dict[str, tuple[Callable[[], Key], str]] = {
    "1024 bits": (generated(1024), "2048 to 8192 bits"),
    "2055 bits": (generated(2055), "multiple of 8"),
    "exponent 3": (generated(2048, 3), "exponent"),
    "ROCA": (lambda: of_primes("ROCA"), "ROCA"),
    "Fermat": (lambda: of_primes("Fermat"), "too close"),
    "small factor": (lambda: of_primes("small factor"), "small prime factor"),
}
USES = pytest.mark.parametrize("use", ["certificate", "newAccount", "keyChange"])


async def offer(ca, account: Account, key: Key, use: str) -> Answer:
    if use == "certificate":
        order = await ca.ready(account)
        return await order.finalize(csr(*order.names, key=key.private))
    if use == "newAccount":
        return await ca.client.post(ca.client.url("new-account"), {}, key=key)
    other = await ca.account()
    answer = await other.post(ca.client.url("key-change"), key_change(other, key))
    if answer.status >= 400:
        assert (await other.read(other.url)).status == 200, "its key is the old one still"
    return answer


def assert_key_is_refused(answer: Answer, use: str, *words: str) -> None:
    error = ErrorType.BAD_CSR if use == "certificate" else ErrorType.BAD_PUBLIC_KEY
    assert_problem(answer, error, *words, status=400)


@USES
@pytest.mark.parametrize(("make", "says"), COMPUTED.values(), ids=COMPUTED)
async def test_lesson_4_a_weak_key(ca, account, make, says, use):
    assert_key_is_refused(await offer(ca, account, make(), use), use, says)


@USES
@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "RS256"])
async def test_lesson_4_a_good_key(ca, account, algorithm, use):
    """The same ways, so that the refusals above are of the keys and of nothing else."""
    assert (await offer(ca, account, Key.generate(algorithm), use)).status in {200, 201}


# ---------------------------------------------------------------- keys that somebody knows something about


async def blocked(ca, _account: Account, key: Key) -> str:
    async with Database.open(ca.dsn, connections=1) as database:
        spki = keys.spki_sha256(key.private.public_key())
        await key_store.block(database, [spki], comment="", actor=Actor("operator"), now=datetime.now(UTC))
    return "block list"


async def compromised(ca, account: Account, key: Key) -> str:
    order = await ca.ready(account)
    (leaf, *_) = await order.issue(ca.web, csr(*order.names, key=key.private))
    wish = {"certificate": base64url(leaf.public_bytes(Encoding.DER)), "reason": 1}
    assert (await ca.client.post(ca.client.url("revoke-cert"), wish, key=key)).status == 200
    return "compromised"


@USES
@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
@pytest.mark.parametrize("happen", [blocked, compromised])
async def test_lesson_4_a_known_key(ca, account, happen, algorithm, use):
    key = Key.generate(algorithm)
    why = await happen(ca, account, key)
    assert_key_is_refused(await offer(ca, account, key, use), use, why)


LISTED = {algorithm: Key.generate(algorithm) for algorithm in ("RS256", "ES256")}
AN_ACCOUNTS_ALREADY = Key.generate()


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def listing(new_ca, ca, tmp_path_factory):
    """A worker on the shared database that knows lists: an RSA key as Debian's have it, others by their SPKI."""
    place = tmp_path_factory.mktemp("lists")
    printed = f"Modulus={LISTED['RS256'].private.public_key().public_numbers().n:X}\n"
    (place / "blacklist.RSA-2048").write_text(
        f"# RSA-2048\n{hashlib.sha1(printed.encode()).hexdigest()[20:]}\n"
    )
    others = (LISTED["ES256"], AN_ACCOUNTS_ALREADY)
    digests = [keys.spki_sha256(key.private.public_key()).hex() for key in others]
    (place / "others").write_text("\n".join(digests))
    async with new_ca(
        dsn=ca.dsn, weak_keys_files=f"{place / 'blacklist.RSA-2048'},{place / 'others'}"
    ) as made:
        yield made


@USES
@pytest.mark.parametrize("key", LISTED.values(), ids=LISTED)
async def test_lesson_4_a_listed_key(listing, key, use):
    answer = await offer(listing, await listing.account(), key, use)
    assert_key_is_refused(answer, use, "CVE-2008-0166")


@USES
async def test_lesson_4_a_key_that_is_not_listed(listing, use):
    answer = await offer(listing, await listing.account(), Key.generate("RS256"), use)
    assert answer.status in {200, 201}


async def test_lesson_4_an_account_with_a_key_that_was_listed_later(ca, listing):
    """Made when no list was known."""
    account = await ca.account(key=AN_ACCOUNTS_ALREADY)
    assert (await account.read(account.url)).status == 200
    answer = await replace(account, client=listing.client).new_order(listing.name())
    assert_problem(answer, ErrorType.BAD_PUBLIC_KEY, "CVE-2008-0166", status=400)


@pytest.mark.parametrize("whose", ["its own", "another's"])
async def test_lesson_4_an_accounts_key_in_a_certificate(ca, account, whose):
    """RFC 8555 §11.1."""
    key = account.key if whose == "its own" else (await ca.account()).key
    answer = await offer(ca, account, key, "certificate")
    assert_key_is_refused(answer, "certificate", "the key of an ACME account")
