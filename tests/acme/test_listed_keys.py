"""Published lists of weak keys (CVE-2008-0166), as clients meet them (lesson 4)."""

import hashlib
from dataclasses import replace

import pytest
import pytest_asyncio

from acme_ca.core import keys
from acme_ca.core.problems import ErrorType
from tests.support.client import assert_problem, key_change
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.issuing import csr
from tests.support.jose import Key

pytestmark = IN_SESSION_LOOP

LISTED = {algorithm: Key.generate(algorithm) for algorithm in ("RS256", "ES256")}
ALREADY_AN_ACCOUNTS = Key.generate()


def line(key: Key) -> str:
    """Of an RSA key as Debian's list has it, of another by its SPKI."""
    public = key.private.public_key()
    if key.algorithm != "RS256":
        return keys.spki_sha256(public).hex()
    return hashlib.sha1(f"Modulus={public.public_numbers().n:X}\n".encode()).hexdigest()[20:]


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def strict(new_ca, ca, tmp_path_factory):
    """A worker on the shared database that knows the lists."""
    place = tmp_path_factory.mktemp("lists")
    listed = [*LISTED.values(), ALREADY_AN_ACCOUNTS]
    files = [place / str(number) for number, _ in enumerate(listed)]
    for file, key in zip(files, listed, strict=True):
        file.write_text(f"# a list\n{line(key)}\n")
    async with new_ca(dsn=ca.dsn, weak_keys_files=",".join(map(str, files))) as made:
        yield made


@pytest.mark.parametrize("algorithm", LISTED)
@pytest.mark.parametrize("use", ["certificate", "newAccount", "keyChange"])
async def test_lesson_4_a_listed_key_is_refused(strict, algorithm, use):
    key = LISTED[algorithm]
    account = await strict.account()
    if use == "certificate":
        order = await strict.ready(account)
        answer = await order.finalize(csr(*order.names, key=key.private))
    elif use == "newAccount":
        answer = await strict.client.post(strict.client.url("new-account"), {}, key=key)
    else:
        answer = await account.post(strict.client.url("key-change"), key_change(account, key))
    error = ErrorType.BAD_CSR if use == "certificate" else ErrorType.BAD_PUBLIC_KEY
    assert_problem(answer, error, "CVE-2008-0166", status=400)
    if use == "certificate":
        assert (await order.read())["status"] == "ready", "for another key"
        assert (await order.finalize(csr(*order.names, key=Key.generate().private))).status == 200


async def test_lesson_4_an_account_with_a_key_that_was_listed_later_is_refused(ca, strict):
    """Made when no list was known; also where everybody can sign with its key."""
    account = await ca.account(key=ALREADY_AN_ACCOUNTS)
    assert (await account.read(account.url)).status == 200
    answer = await replace(account, client=strict.client).new_order(strict.name())
    assert_problem(answer, ErrorType.BAD_PUBLIC_KEY, "CVE-2008-0166", status=400)


async def test_other_keys_are_accepted(strict):
    account = await strict.account(key=Key.generate("RS256"))
    order = await strict.ready(account)
    answer = await order.finalize(csr(*order.names, key=Key.generate("RS256").private))
    assert answer.json["status"] == "valid"
