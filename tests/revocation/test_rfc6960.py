"""OCSP through the real server (RFC 6960, RFC 5019, RFC 9654)."""

import asyncio
import base64
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.ocsp import OCSPCertStatus, OCSPResponseStatus

from acme_ca.app.background import OCSP_RENEWAL_INTERVAL
from acme_ca.core.actors import Actor
from acme_ca.core.ids import Serial, serial_text
from acme_ca.core.revocation import RevocationReason
from acme_ca.http import MAX_BODY
from acme_ca.revocation.revoke import Revocation
from acme_ca.storage.database import Database
from tests.support.application import at_work
from tests.support.client import Answer
from tests.support.fixtures import IN_SESSION_LOOP, new_hierarchy
from tests.support.ocsp import (
    UNHEARD_OF,
    about,
    assert_refuses,
    assert_says,
    cert_id,
    extension,
    nonce,
    request,
)

pytestmark = IN_SESSION_LOOP

RESPONSE = "application/ocsp-response"
OPERATOR = Actor("operator:test")
SUPERSEDED = RevocationReason.SUPERSEDED
BOTH = pytest.mark.parametrize("listener", ["client", "plain"])


async def post(ca, body: bytes, *, listener: str = "plain") -> Answer:
    client = getattr(ca, listener)
    headers = {"Content-Type": "application/ocsp-request"}
    answer = await client.request("POST", client.public_url + "/ocsp", body=body, headers=headers)
    assert (answer.status, answer.content_type) == (200, RESPONSE), answer
    return answer


async def get(ca, path: str, *, listener: str = "plain", status: int = 200, **headers: str) -> Answer:
    """`path`: what follows /ocsp/."""
    client = getattr(ca, listener)
    answer = await client.request("GET", f"{client.public_url}/ocsp/{path}", headers=headers)
    assert answer.status == status, answer
    assert status != 200 or answer.content_type == RESPONSE
    return answer


def in_path(der: bytes, *, safe: str = "") -> str:
    return quote(base64.b64encode(der), safe=safe)


@pytest.fixture
def issuer(ca) -> x509.Certificate:
    return ca.hierarchy.intermediate.certificate


async def issued(ca, account) -> x509.Certificate:
    (leaf, *_) = await (await account.order(ca.name())).issue(ca.web)
    return leaf


@pytest_asyncio.fixture(loop_scope="session")
async def leaf(ca, account) -> x509.Certificate:
    return await issued(ca, account)


@asynccontextmanager
async def operating(ca):
    """The room that operators revoke in."""
    async with Database.open(ca.dsn, connections=1) as database:
        yield Revocation(database=database, clock=lambda: datetime.now(UTC))


def serial_of(certificate: x509.Certificate) -> Serial:
    return serial_text(certificate.serial_number)


# ---------------------------------------------------------------- what is said


@BOTH
async def test_2_2_a_good_certificate(ca, leaf, issuer, listener):
    before = datetime.now(UTC).replace(microsecond=0)
    said = assert_says((await post(ca, about(leaf, issuer), listener=listener)).body, issuer)
    assert said.status is OCSPCertStatus.GOOD
    assert said.response.serial_number == leaf.serial_number
    assert before <= said.response.this_update_utc <= datetime.now(UTC)
    assert said.response.next_update_utc - said.response.this_update_utc == timedelta(hours=6)
    assert not list(said.response.extensions)


async def test_2_2_a_revoked_certificate(ca, account, leaf, issuer):
    asked = about(leaf, issuer)
    assert assert_says((await post(ca, asked)).body, issuer).status is OCSPCertStatus.GOOD
    before = datetime.now(UTC).replace(microsecond=0)
    assert (await account.revoke(leaf.public_bytes(Encoding.DER), reason=4)).status == 200
    said = assert_says((await post(ca, asked)).body, issuer)
    assert (said.status, said.reason) == (OCSPCertStatus.REVOKED, x509.ReasonFlags.superseded)
    assert before <= said.revoked <= said.response.this_update_utc


async def test_2_2_a_certificate_on_hold_and_released(ca, leaf, issuer):
    """And what was good before the hold is not said again after it."""
    asked = about(leaf, issuer)
    first = await post(ca, asked)
    async with operating(ca) as room:
        await room.take_back(serial_of(leaf), by=OPERATOR, reason=RevocationReason.CERTIFICATE_HOLD)
        held = assert_says((await post(ca, asked)).body, issuer)
        assert (held.status, held.reason) == (OCSPCertStatus.REVOKED, x509.ReasonFlags.certificate_hold)
        await room.release(serial_of(leaf), by=OPERATOR)
    last = await post(ca, asked)
    assert assert_says(last.body, issuer).status is OCSPCertStatus.GOOD
    assert last.body != first.body


@pytest.mark.parametrize("number", [1, 2**128 - 1, 2**159, -5])
async def test_2_2_what_was_never_issued_is_unknown(ca, issuer, number):
    answer = await get(ca, in_path(request(cert_id(issuer, number))))
    said = assert_says(answer.body, issuer)
    assert said.status is OCSPCertStatus.UNKNOWN
    assert said.response.next_update_utc - said.response.this_update_utc <= timedelta(minutes=5)
    assert answer.headers["Cache-Control"] == "no-store", "it may be issued at any moment"


async def test_2_2_what_was_recorded_and_not_signed_is_unknown_until_it_is_revoked(new_ca, ca, issuer):
    async with new_ca(dsn=ca.dsn, dev=True, test={"delay_issuance": 300}) as slow:
        order = await slow.ready(await slow.account())
        assert (await order.finalize()).json["status"] == "processing"
    identity = order.url.rpartition("/")[2]
    serial = await ca.sql(f"SELECT serial FROM certificate WHERE order_id = '{identity}' AND der IS NULL")
    asked = request(cert_id(issuer, int(serial, 16)))
    assert assert_says((await post(ca, asked)).body, issuer).status is OCSPCertStatus.UNKNOWN
    async with operating(ca) as room:
        await room.take_back(serial, by=OPERATOR, reason=SUPERSEDED)
    assert assert_says((await post(ca, asked)).body, issuer).status is OCSPCertStatus.REVOKED


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha384", "sha512"])
@pytest.mark.parametrize("parameters", [b"", b"\x05\x00"], ids=["none", "NULL"])
async def test_4_1_1_issuers_are_named_by_any_of_these_hashes(ca, leaf, issuer, algorithm, parameters):
    named = cert_id(issuer, leaf.serial_number, algorithm=algorithm, parameters=parameters)
    answer = (await post(ca, request(named))).body
    assert assert_says(answer, issuer).status is OCSPCertStatus.GOOD
    assert named in answer, "as it was asked, byte for byte"


async def test_4_1_1_several_certificates_in_one_request(ca, leaf, issuer):
    asked = request(
        cert_id(issuer, leaf.serial_number),
        cert_id(issuer, 12345),
        cert_id(issuer, leaf.serial_number, algorithm="sha256"),
    )
    response = ocsp.load_der_ocsp_response((await post(ca, asked)).body)
    statuses = [one.certificate_status for one in response.responses]
    assert statuses == [OCSPCertStatus.GOOD, OCSPCertStatus.UNKNOWN, OCSPCertStatus.GOOD]


async def test_the_responders_own_certificate_is_good(ca, leaf, issuer):
    """Though nobody has to ask (id-pkix-ocsp-nocheck)."""
    said = assert_says((await post(ca, about(leaf, issuer))).body, issuer)
    (responder,) = said.response.certificates
    again = assert_says((await post(ca, about(responder, issuer))).body, issuer)
    assert again.status is OCSPCertStatus.GOOD


# ---------------------------------------------------------------- several issuers


async def test_issuers_that_come_and_go(new_ca):
    """A running server takes up a new one, and goes on for a retired one."""
    async with new_ca() as ca, at_work(ca):
        account = await ca.account()
        first = ca.hierarchy.intermediate
        old = await issued(ca, account)
        second, _ = await ca.add_issuer()
        await ca.retire(first)
        new = await issued(ca, account)
        new.verify_directly_issued_by(second.certificate)
        for leaf, issuer in ((old, first.certificate), (new, second.certificate)):
            said = assert_says(await answered(ca, about(leaf, issuer)), issuer)
            assert said.status is OCSPCertStatus.GOOD
        stranger = request(cert_id(second.certificate, old.serial_number))
        said = assert_says((await post(ca, stranger)).body, second.certificate)
        assert said.status is OCSPCertStatus.UNKNOWN, "of the right CA, and not of this issuer"
        both = request(
            cert_id(first.certificate, old.serial_number), cert_id(second.certificate, new.serial_number)
        )
        assert_refuses((await post(ca, both)).body, OCSPResponseStatus.UNAUTHORIZED)
        health = await ca.plain.request("GET", "http://ca.test/health")
        assert health.json["checks"]["ocsp"] == "ok"


async def answered(ca, asked: bytes) -> bytes:
    """As soon as the issuer has a responder."""
    deadline = time.monotonic() + 3 * OCSP_RENEWAL_INTERVAL
    while True:
        body = (await post(ca, asked)).body
        if ocsp.load_der_ocsp_response(body).response_status is OCSPResponseStatus.SUCCESSFUL:
            return body
        assert time.monotonic() < deadline, body
        await asyncio.sleep(0.1)


async def test_without_a_responder_it_is_an_internal_error(new_ca):
    """Until there is one."""
    async with new_ca() as ca:
        (second, _), responders = await ca.add_issuer(), ca.application.responders
        asked = request(cert_id(second.certificate, 5))
        assert_refuses((await post(ca, asked)).body, OCSPResponseStatus.UNAUTHORIZED)
        await responders.refresh()
        assert_refuses((await post(ca, asked)).body, OCSPResponseStatus.INTERNAL_ERROR)
        assert ca.logged("OCSP has no responder")
        await responders.renew_when_due()
        assert assert_says((await post(ca, asked)).body, second.certificate).status is OCSPCertStatus.UNKNOWN


# ---------------------------------------------------------------- why there is no answer


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> x509.Certificate:
    """The intermediate of another CA that has the same names."""
    return new_hierarchy(tmp_path_factory.mktemp("foreign"), "Example").intermediate.certificate


async def test_2_3_issuers_that_are_not_ours_are_unauthorized(ca, leaf, issuer, foreign):
    assert foreign.subject == issuer.subject
    for asked in (
        request(cert_id(foreign, leaf.serial_number)),
        request(cert_id(issuer, leaf.serial_number, algorithm="md5")),
        request(cert_id(issuer, leaf.serial_number), cert_id(foreign, leaf.serial_number)),
    ):
        assert_refuses((await post(ca, asked)).body, OCSPResponseStatus.UNAUTHORIZED)


async def test_2_3_the_root_answers_by_its_crl_only(ca, issuer):
    asked = request(cert_id(ca.hierarchy.root.certificate, issuer.serial_number))
    assert_refuses((await post(ca, asked)).body, OCSPResponseStatus.UNAUTHORIZED)


@BOTH
@pytest.mark.parametrize("body", [b"", b"\x30\x00", b"{}", bytes(5000), bytes(MAX_BODY + 1)])
async def test_2_3_garbage_is_a_malformed_request(ca, body, listener):
    assert_refuses((await post(ca, body, listener=listener)).body, OCSPResponseStatus.MALFORMED_REQUEST)


async def test_2_3_a_coded_body_is_a_malformed_request(ca, leaf, issuer):
    answer = await ca.plain.request(
        "POST", "http://ca.test/ocsp", body=about(leaf, issuer), headers={"Content-Encoding": "gzip"}
    )
    assert answer.status == 200
    assert_refuses(answer.body, OCSPResponseStatus.MALFORMED_REQUEST)


async def test_2_3_without_its_database_try_later(new_ca, postgres, hierarchy):
    name = await postgres.create()
    async with new_ca(dsn=postgres.url(name)) as broken:
        await postgres.drop(name)
        issuer = hierarchy.intermediate.certificate
        answer = await post(broken, request(cert_id(issuer, 5)))
        assert_refuses(answer.body, OCSPResponseStatus.TRY_LATER)
        assert answer.headers["Cache-Control"] == "no-store"
        assert broken.logged("OCSP waits for the database")
        assert_refuses((await post(broken, b"x")).body, OCSPResponseStatus.MALFORMED_REQUEST)


async def test_2_3_a_database_that_is_not_as_it_should_be(new_ca, hierarchy):
    async with new_ca() as broken:
        await broken.sql("ALTER TABLE certificate RENAME TO missing")
        answer = await post(broken, request(cert_id(hierarchy.intermediate.certificate, 5)))
        assert_refuses(answer.body, OCSPResponseStatus.INTERNAL_ERROR)
        (failure,) = broken.logged("OCSP request failed")
        assert "UndefinedTableError" in failure["exception"]


# ---------------------------------------------------------------- RFC 5019: GET and caches


async def test_rfc_5019_5_get_in_all_its_spellings(ca, leaf, issuer):
    """With an extension that gives base64 all of its odd characters."""
    plus_and_slash = b"\xfb\xef\xbe\0" * 3 + b"\xff" * 6  # wherever in a group of three it begins
    padded = [extension(UNHEARD_OF, plus_and_slash + bytes(more)) for more in range(3)]
    spelled = [base64.b64encode(about(leaf, issuer, extensions=[odd])).decode() for odd in padded]
    encoded = next(one for one in spelled if all(character in one for character in "+/="))
    for path in (
        quote(encoded, safe=""),
        quote(encoded, safe="/"),
        quote(encoded, safe="+"),
        encoded,
        encoded.rstrip("="),
        quote(encoded, safe="").replace("%2B", "%2b").replace("%2F", "%2f"),
    ):
        assert assert_says((await get(ca, path)).body, issuer).status is OCSPCertStatus.GOOD, path


@BOTH
async def test_rfc_5019_6_2_get_may_be_cached(ca, leaf, issuer, listener):
    answer = await get(ca, in_path(about(leaf, issuer)), listener=listener)
    said = assert_says(answer.body, issuer).response
    headers = answer.headers
    assert headers["Cache-Control"] == "max-age=60, public, no-transform, must-revalidate"
    assert parsedate_to_datetime(headers["Last-Modified"]) == said.this_update_utc
    assert parsedate_to_datetime(headers["Expires"]) == said.next_update_utc
    assert "Replay-Nonce" not in headers
    again = await get(ca, in_path(about(leaf, issuer)), listener=listener, status=304, **{"If-None-Match": headers["ETag"]})  # fmt: skip
    assert (again.body, again.headers["ETag"]) == (b"", headers["ETag"])
    other = await get(ca, in_path(about(leaf, issuer)), listener=listener, **{"If-None-Match": '"x"'})
    assert other.body == answer.body


async def test_rfc_5019_6_2_a_revocation_has_another_tag(ca, account, leaf, issuer):
    path = in_path(about(leaf, issuer))
    tag = (await get(ca, path)).headers["ETag"]
    await account.revoke(leaf.public_bytes(Encoding.DER))
    answer = await get(ca, path, **{"If-None-Match": tag})
    assert assert_says(answer.body, issuer).status is OCSPCertStatus.REVOKED


async def test_rfc_5019_6_2_what_is_no_answer_is_not_cached(ca, issuer):
    for path in ("", "%00", "MAo=", "%F0%9F%92%A9", "é", "a" * 4000, "AAAA////", "=", "?x=y", "%0D%0A"):
        answer = await get(ca, quote(path, safe="%?=/"))
        assert_refuses(answer.body, OCSPResponseStatus.MALFORMED_REQUEST)
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Expires" not in answer.headers


async def test_post_is_not_cached(ca, leaf, issuer):
    assert (await post(ca, about(leaf, issuer))).headers["Cache-Control"] == "no-store"


async def test_head_and_other_methods(ca, leaf, issuer):
    path = in_path(about(leaf, issuer))
    head = await ca.plain.request("HEAD", f"http://ca.test/ocsp/{path}")
    assert (head.status, head.body, head.content_type) == (200, b"", RESPONSE)
    for method, url in (("GET", "/ocsp"), ("PUT", "/ocsp"), ("POST", f"/ocsp/{path}")):
        assert (await ca.plain.request(method, "http://ca.test" + url)).status == 405


async def test_signatures_are_made_once(ca, leaf, issuer):
    answers = [await post(ca, about(leaf, issuer)) for _ in range(3)]
    assert len({answer.body for answer in answers}) == 1


# ---------------------------------------------------------------- RFC 9654: nonces


@pytest.mark.parametrize("length", [1, 16, 32, 128])
async def test_rfc_9654_a_nonce_comes_back(ca, leaf, issuer, length):
    asked = about(leaf, issuer, extensions=[nonce(b"\x00" * length)])
    answers = [await get(ca, in_path(asked)) for _ in range(2)]
    for answer in answers:
        (echoed,) = assert_says(answer.body, issuer).response.extensions
        assert echoed.value == x509.OCSPNonce(b"\x00" * length)
        assert answer.headers["Cache-Control"] == "no-store"
    assert answers[0].body != answers[1].body, "never from a cache"


@pytest.mark.parametrize("length", [0, 129, 5000])
async def test_rfc_9654_a_nonce_of_another_length_is_malformed(ca, leaf, issuer, length):
    asked = about(leaf, issuer, extensions=[nonce(bytes(length))])
    assert_refuses((await post(ca, asked)).body, OCSPResponseStatus.MALFORMED_REQUEST)


# ---------------------------------------------------------------- lesson 19


async def test_lesson_19_a_revocation_shows_at_once_in_every_worker(ca, new_ca, account, issuer):
    """Each of them has a signed "good" at hand."""
    async with new_ca(dsn=ca.dsn) as second:
        for _ in range(5):
            leaf = await issued(ca, account)
            asked = about(leaf, issuer)
            for worker in (ca, second, ca, second):
                assert assert_says((await post(worker, asked)).body, issuer).status is OCSPCertStatus.GOOD
            assert (await account.revoke(leaf.public_bytes(Encoding.DER))).status == 200
            answers = await asyncio.gather(*(post(worker, asked) for worker in (second, ca)))
            for answer in answers:
                assert assert_says(answer.body, issuer).status is OCSPCertStatus.REVOKED


async def test_lesson_19_one_number_one_certificate(ca, account, issuer):
    """A small serial number, as rows spell it with its leading zeros."""
    leaf = await issued(ca, account)
    small = 0xABC
    await ca.sql(
        f"UPDATE certificate SET serial = '{serial_text(small)}' WHERE serial = '{serial_of(leaf)}' RETURNING 1"
    )
    for number in (small, b"\x0a\xbc"):
        answer = await post(ca, request(cert_id(issuer, number)))
        assert assert_says(answer.body, issuer).status is OCSPCertStatus.GOOD
