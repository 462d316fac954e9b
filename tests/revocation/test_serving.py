"""What relying parties fetch from a running server: soon after a revocation, and cheaply."""

import asyncio
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.core.actors import Actor
from acme_ca.core.crl import History
from acme_ca.core.ids import serial_text
from acme_ca.core.problems import ErrorType
from acme_ca.core.revocation import RevocationReason
from acme_ca.revocation.crl_files import CrlFiles
from acme_ca.revocation.revoke import Revocation
from acme_ca.storage import crls
from acme_ca.storage.crls import Shard
from acme_ca.storage.database import Database
from tests.support.application import at_work
from tests.support.client import assert_problem
from tests.support.crls import number, serials
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.issuing import NOW

pytestmark = IN_SESSION_LOOP

LIMIT = 20.0
"""Seconds until a test gives up."""


@dataclass
class Fetching:
    ca: object
    path: str

    async def get(self, suffix=".crl", listener="plain", method="GET", **headers):
        client = getattr(self.ca, listener)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.request(method, client.public_url + self.path + suffix, headers=names)

    async def crl(self, suffix=".crl"):
        return x509.load_der_x509_crl((await self.get(suffix)).body)

    async def until(self, condition, suffix=".crl"):
        """The first CRL for which the condition holds."""
        async with asyncio.timeout(LIMIT):
            while True:
                answer = await self.get(suffix)
                if answer.status == 200 and condition(crl := x509.load_der_x509_crl(answer.body)):
                    return crl
                await asyncio.sleep(0.05)


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def working(new_ca):
    async with new_ca() as ca, at_work(ca):
        yield ca


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def fetching(working):
    found = Fetching(working, f"/crl/{working.hierarchy.intermediate.id}/0")
    await found.until(lambda _: True)
    return found


async def issued(ca) -> bytes:
    account = await ca.account()
    order = await account.order(ca.name())
    (leaf, *_) = await order.issue(ca.web)
    return account, leaf


# ---------------------------------------------------------------- how soon


async def test_a_revocation_is_seen_within_seconds(working, fetching):
    account, leaf = await issued(working)
    serial = serial_text(leaf.serial_number)
    assert (await account.revoke(leaf.public_bytes(Encoding.DER), reason=4)).status == 200
    full = await fetching.until(lambda crl: serial in serials(crl))
    delta = await fetching.crl("-delta.crl")
    assert serial in serials(delta)
    assert number(delta) == number(full)


async def test_a_hold_comes_and_goes(working, fetching):
    _, leaf = await issued(working)
    serial = serial_text(leaf.serial_number)
    async with Database.open(working.dsn, connections=1) as database:
        room = Revocation(database=database, clock=lambda: NOW)
        await room.take_back(serial, by=Actor("operator"), reason=RevocationReason.CERTIFICATE_HOLD)
        await fetching.until(lambda crl: serial in serials(crl))
        await room.release(serial, by=Actor("operator"))
        await fetching.until(lambda crl: serial not in serials(crl))


async def test_every_worker_serves_it(working, fetching, new_ca):
    async with new_ca(dsn=working.dsn) as second, at_work(second):
        other = Fetching(second, fetching.path)
        await other.get()
        account, leaf = await issued(working)
        await account.revoke(leaf.public_bytes(Encoding.DER))
        serial = serial_text(leaf.serial_number)
        await other.until(lambda crl: serial in serials(crl))


# ---------------------------------------------------------------- HTTP


@pytest.mark.parametrize("listener", ["client", "plain"])
@pytest.mark.parametrize("suffix", [".crl", "-delta.crl"])
async def test_headers(fetching, listener, suffix):
    answer = await fetching.get(suffix, listener)
    assert (answer.status, answer.content_type) == (200, "application/pkix-crl")
    assert answer.headers["Cache-Control"] == "public, max-age=60"
    assert answer.headers["ETag"].startswith('"')
    crl = x509.load_der_x509_crl(answer.body)
    assert parsedate_to_datetime(answer.headers["Last-Modified"]) == crl.last_update_utc
    life = parsedate_to_datetime(answer.headers["Expires"]) - parsedate_to_datetime(answer.headers["Date"])
    assert 58 <= life.total_seconds() <= 61
    assert "Replay-Nonce" not in answer.headers


async def test_full_and_delta_have_tags_of_their_own(fetching):
    tags = {(await fetching.get(suffix)).headers["ETag"] for suffix in (".crl", "-delta.crl")}
    assert len(tags) == 2


async def test_what_the_client_has_is_not_sent_again(fetching):
    """RFC 9110 §13."""
    answer = await fetching.get()
    tag, modified = answer.headers["ETag"], answer.headers["Last-Modified"]
    for headers, status in (
        ({"If_None_Match": tag}, 304),
        ({"If_None_Match": f'"other", {tag}'}, 304),
        ({"If_None_Match": f"W/{tag}"}, 304),
        ({"If_None_Match": "*"}, 304),
        ({"If_None_Match": '"other"'}, 200),
        ({"If_None_Match": '"other"', "If_Modified_Since": modified}, 200),
        ({"If_Modified_Since": modified}, 304),
        ({"If_Modified_Since": "Thu, 01 Jan 2015 00:00:00 GMT"}, 200),
        ({"If_Modified_Since": "yesterday"}, 200),
    ):
        again = await fetching.get(**headers)
        assert again.status == status, headers
        assert again.headers["ETag"] == tag
        assert bool(again.body) is (status == 200)


async def test_only_reading(fetching):
    head = await fetching.get(method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["Content-Length"]) == len((await fetching.get()).body)
    assert_problem(await fetching.get(method="POST"), ErrorType.MALFORMED, status=405)


@pytest.mark.parametrize(
    "path",
    [
        "/crl/{id}/1.crl",
        "/crl/{id}/00.crl",
        "/crl/{id}/-1.crl",
        "/crl/{id}/999999999.crl",
        "/crl/{id}/9999999999.crl",
        "/crl/{id}/0.crl/",
        "/crl/{id}/0",
        "/crl/{id}/%30.crl%00",
        "/crl/{root}/0-delta.crl",
        "/crl/" + "0" * 32 + "/0.crl",
        "/crl/%/0.crl",
    ],
)
async def test_what_is_not_there_is_404(working, path):
    issuers = working.hierarchy
    url = "http://ca.test" + path.format(id=issuers.intermediate.id, root=issuers.root.id)
    answer = await working.plain.request("GET", url)
    assert_problem(answer, ErrorType.MALFORMED, status=404)


# ---------------------------------------------------------------- memory


class Counting(Database):
    """Counts what was asked of the tables of CRLs."""

    loads = 0

    async def fetchrow(self, query, *arguments):
        self.loads += "FROM crl" in query
        return await super().fetchrow(query, *arguments)


@pytest_asyncio.fixture(loop_scope="session")
async def database(working, fetching):
    async with Counting.open(working.dsn, connections=4) as opened:
        yield opened


async def test_of_many_who_ask_for_the_first_time_one_asks_the_database(database, working):
    shard = Shard(working.hierarchy.intermediate.id, 0)
    files = CrlFiles(database=database, history=History())
    found = await asyncio.gather(*(files.get(shard, delta=bool(n % 2)) for n in range(20)))
    assert len({one.etag for one in found}) == 2
    assert database.loads == 1
    await files.look()
    await files.get(shard, delta=False)
    assert database.loads == 1, "it is the newest"


async def test_it_keeps_what_was_asked_for_last(database, working):
    shards = [Shard(issuer.id, 0) for issuer in (working.hierarchy.intermediate, working.hierarchy.root)]
    first = await crls.files(database, shards[0])
    await database.execute(
        """INSERT INTO crl SELECT $1, shard, number, this_update, next_update, entries, der, delta, urls, base_number, base_at,
               base, lists_after, opened, closed, taken, counted, ends FROM crl WHERE issuer_id = $2 ON CONFLICT DO NOTHING""",
        shards[1].issuer,
        shards[0].issuer,
    )
    room = len(first.der) + len(first.delta)
    files = CrlFiles(database=database, history=History(), memory=room)
    database.loads = 0
    for shard in (shards[0], shards[0], shards[1], shards[1], shards[0]):
        assert await files.get(shard, delta=False)
    assert database.loads == 3


async def test_without_its_database_it_serves_what_it_has(new_ca, postgres):
    name = await postgres.create()
    async with new_ca(dsn=postgres.url(name)) as ca:
        fetching = Fetching(ca, f"/crl/{ca.hierarchy.intermediate.id}/0")
        async with at_work(ca):
            await fetching.until(lambda _: True)
            await postgres.drop(name)
            await asyncio.sleep(1.5)
            assert (await fetching.get()).status == 200
            other = f"http://ca.test/crl/{ca.hierarchy.intermediate.id}/7.crl"
            assert (await ca.plain.request("GET", other, failing=True)).status == 503
