"""RFC 9773: when to renew, and orders that say what they replace."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from acme_ca.ca.profiles import SERVER
from acme_ca.core import base64url
from acme_ca.core.actors import Actor
from acme_ca.core.ids import serial_text
from acme_ca.core.problems import ErrorType
from acme_ca.core.renewal import CertId, SuggestedWindow
from acme_ca.core.revocation import RevocationReason
from acme_ca.storage import certificates, renewals
from acme_ca.storage import profiles as profile_store
from acme_ca.storage.database import Database
from tests.support.client import assert_problem
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.records import new_id

pytestmark = IN_SESSION_LOOP

MALFORMED = ErrorType.MALFORMED


class Issued:
    def __init__(self, names, leaf):
        self.names = names
        self.leaf = leaf
        self.der = leaf.public_bytes(Encoding.DER)
        self.cert_id = str(CertId.of(leaf))


@pytest_asyncio.fixture(loop_scope="session")
async def issued(ca, account):
    order = await account.order(ca.name())
    leaf, *_ = await order.issue(ca.web)
    return Issued(order.names, leaf)


async def renewal_info(ca, cert_id, **headers):
    directory = (await ca.client.request("GET", ca.client.url("directory"))).json
    return await ca.client.request("GET", f"{directory['renewalInfo']}/{cert_id}", headers=headers)


def when(text):
    return datetime.fromisoformat(text)


# ---------------------------------------------------------------- §4 renewal information


async def test_4_2_the_window_is_in_the_last_third_of_the_life(ca, issued):
    answer = await renewal_info(ca, issued.cert_id)
    assert (answer.status, answer.content_type) == (200, "application/json")
    window = answer.json["suggestedWindow"]
    begin, end = issued.leaf.not_valid_before_utc, issued.leaf.not_valid_after_utc
    third = begin + (end - begin) * 2 / 3
    assert third - timedelta(seconds=1) <= when(window["start"]) < when(window["end"]) < end


async def test_4_2_a_profiles_renewal_threshold(new_ca):
    """Over when the threshold is left, begun when twice as much is; the version that the order pinned counts."""
    async with new_ca() as ca:
        pinned = SERVER.model_copy(update={"name": "early", "renewal_threshold": timedelta(days=25)})
        async with Database.open(ca.dsn, connections=1) as database:
            now = datetime.now(UTC)
            assert await profile_store.save(
                database, pinned, built_in=False, actor=Actor("operator"), now=now
            )
            order = await (await ca.account()).order(ca.name(), profile="early")
            later = pinned.model_copy(update={"renewal_threshold": timedelta(days=5)})
            assert await profile_store.save(database, later, built_in=False, actor=Actor("operator"), now=now)
        (leaf, *_) = await order.issue(ca.web)
        window = (await renewal_info(ca, str(CertId.of(leaf)))).json["suggestedWindow"]
    end, second = leaf.not_valid_after_utc, timedelta(seconds=1)
    assert end - timedelta(days=40) - second <= when(window["start"]), (
        "a sixth of the life is less than 25 days"
    )
    assert when(window["start"]) < when(window["end"]) <= end - timedelta(days=25)


async def test_4_3_when_to_ask_again(ca, issued):
    """Seconds, never a date (lesson 28)."""
    answer = await renewal_info(ca, issued.cert_id)
    assert answer.headers["Retry-After"] == "21600"


async def test_it_may_be_kept_and_so_has_no_nonce(ca, issued):
    answer = await renewal_info(ca, issued.cert_id)
    assert answer.headers["Cache-Control"] == "public, no-cache", "kept, but asked for every time"
    assert "Replay-Nonce" not in answer.headers
    again = await renewal_info(ca, issued.cert_id, **{"If-None-Match": answer.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
    other = await renewal_info(ca, issued.cert_id, **{"If-None-Match": '"other"'})
    assert other.status == 200


async def test_4_2_a_revoked_certificate_is_to_be_renewed_at_once(ca, account, issued):
    before = (await renewal_info(ca, issued.cert_id)).headers["ETag"]
    assert (await account.revoke(issued.der)).status == 200
    answer = await renewal_info(ca, issued.cert_id, **{"If-None-Match": before})
    assert answer.status == 200
    assert when(answer.json["suggestedWindow"]["end"]) <= datetime.now(UTC)


async def move(ca, issued, window, why):
    serial = serial_text(issued.leaf.serial_number)
    async with Database.open(ca.dsn, connections=1) as database:
        moved = await renewals.move_windows(
            database, [serial], window, explanation_url=why, actor=Actor("operator"), now=datetime.now(UTC)
        )
    assert moved == [serial]


async def test_4_2_an_operator_moves_the_window_and_says_why(ca, issued):
    computed = await renewal_info(ca, issued.cert_id)
    assert "explanationURL" not in computed.json
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    window = SuggestedWindow(start=start, end=start + timedelta(minutes=30))
    seen = [computed.headers["ETag"]]
    for why in ("https://ca.test/why?a=b", None):
        await move(ca, issued, window, why)
        answer = await renewal_info(ca, issued.cert_id, **{"If-None-Match": seen[-1]})
        assert answer.status == 200
        assert {name: when(time) for name, time in answer.json["suggestedWindow"].items()} == {
            "start": window.start,
            "end": window.end,
        }
        assert answer.json.get("explanationURL") == why
        assert int(answer.headers["Retry-After"]) <= 21600
        seen.append(answer.headers["ETag"])
    assert len(set(seen)) == 3
    async with Database.open(ca.dsn, connections=1) as database:
        serial = serial_text(issued.leaf.serial_number)
        await renewals.clear_windows(database, [serial], actor=Actor("operator"), now=datetime.now(UTC))
    assert (await renewal_info(ca, issued.cert_id)).json == computed.json


@pytest.mark.parametrize("start", ["-infinity", "4000-01-01 BC"])
async def test_a_window_that_somebody_made_begin_before_all_time_is_due(ca, account, issued, start):
    now = datetime.now(UTC).replace(microsecond=0)
    await move(ca, issued, SuggestedWindow(start=now, end=now + timedelta(days=1)), None)
    serial = serial_text(issued.leaf.serial_number)
    await ca.sql(f"UPDATE certificate SET window_start = '{start}' WHERE serial = '{serial}'")
    window = (await renewal_info(ca, issued.cert_id)).json["suggestedWindow"]
    assert (when(window["start"]) < now, when(window["end"])) == (True, now + timedelta(days=1))
    order = await account.order(*issued.names, replaces=issued.cert_id)
    assert order.object["replaces"] == issued.cert_id


async def test_4_2_revoked_is_revoked_wherever_the_window_was(ca, account, issued):
    now = datetime.now(UTC).replace(microsecond=0)
    later = SuggestedWindow(start=now + timedelta(days=10), end=now + timedelta(days=20))
    await move(ca, issued, later, None)
    assert (await account.revoke(issued.der)).status == 200
    answer = await renewal_info(ca, issued.cert_id)
    assert when(answer.json["suggestedWindow"]["end"]) <= datetime.now(UTC)


async def test_4_2_on_hold_is_not_revoked(ca, issued):
    """A hold ends; its holder is not told to get round it."""
    before = (await renewal_info(ca, issued.cert_id)).json
    async with Database.open(ca.dsn, connections=1) as database:
        serial, now = serial_text(issued.leaf.serial_number), datetime.now(UTC)
        reason = RevocationReason.CERTIFICATE_HOLD
        assert await certificates.revoke(database, serial, reason=reason, actor=Actor("operator"), now=now)
    assert (await renewal_info(ca, issued.cert_id)).json == before


async def test_4_1_a_certificate_that_was_not_signed_is_404(ca, issued):
    serial = serial_text(issued.leaf.serial_number)
    await ca.sql(f"UPDATE certificate SET tbs = der, der = NULL WHERE serial = '{serial}'")
    assert_problem(await renewal_info(ca, issued.cert_id), MALFORMED, status=404)


async def test_4_1_also_of_an_issuer_that_signs_no_more(ca, issued):
    """What an issuer does now does not matter to what it signed."""
    issuer = ca.hierarchy.intermediate.id
    state = f"FROM issuer WHERE id = '{issuer}'"
    try:
        await ca.sql(f"UPDATE issuer SET state = 'retired', retired = now() WHERE id = '{issuer}'")
        assert await ca.sql(f"SELECT state {state}") == "retired"
        assert (await renewal_info(ca, issued.cert_id)).status == 200
    finally:
        await ca.sql(f"UPDATE issuer SET state = 'active', retired = NULL WHERE id = '{issuer}'")


@given(
    st.binary(max_size=60)
    | st.text(max_size=40).map(lambda text: text.encode(errors="surrogatepass"))
    | st.tuples(st.binary(max_size=64), st.binary(max_size=64)).map(
        lambda parts: ".".join(map(base64url.encode, parts)).encode()
    )
    | st.text(alphabet="ABab019-_.=+/%", max_size=60).map(str.encode)
)
@settings(max_examples=300, deadline=None)
async def test_lesson_24_garbage_in_the_path_is_never_a_500(ca, raw):
    """`Client` refuses every 5xx. What is escaped, and what is not; none of it names a certificate."""
    escaped = "".join(f"%{octet:02x}" for octet in raw)
    plain = raw.decode("ascii", errors="replace").replace("\ufffd", "%FF")
    for path in (escaped, "".join(c if c.isprintable() and c not in "#? " else "%20" for c in plain)):
        answer = await ca.client.request("GET", ca.client.url(f"renewal-info/{path}"))
        assert answer.status in {400, 404}
        assert_problem(answer, MALFORMED)


@pytest.mark.parametrize(
    "text", ["x", "AAAA", "a.b.c", "..", "%00", "AA.AA%3D", "a" * 3000, "%ff.%fe", "AA.hw"]
)
async def test_4_1_what_is_no_identifier_is_malformed(ca, text):
    answer = await renewal_info(ca, text)
    assert answer.status in {400, 404}
    assert_problem(answer, MALFORMED)


async def test_4_1_an_unknown_certificate_is_404(ca, issued):
    key = CertId.of(issued.leaf).authority_key_identifier
    strangers = [
        CertId(authority_key_identifier=key, serial=issued.leaf.serial_number ^ 1),
        CertId(authority_key_identifier=key[::-1], serial=issued.leaf.serial_number),
    ]
    for stranger in strangers:
        assert_problem(await renewal_info(ca, stranger), MALFORMED, status=404)


async def test_it_takes_get_alone(ca, issued):
    url = f"https://ca.test/acme/renewal-info/{issued.cert_id}"
    assert_problem(await ca.client.request("DELETE", url), MALFORMED, status=405)


# ---------------------------------------------------------------- §5 replaces


async def test_5_an_order_replaces_a_certificate_and_says_so(ca, account, issued):
    order = await account.order(*issued.names, replaces=issued.cert_id)
    assert order.object["replaces"] == issued.cert_id
    assert (await order.read())["replaces"] == issued.cert_id
    assert "replaces" not in (await account.order(*issued.names)).object


async def test_5_a_certificate_is_replaced_once(ca, account, issued):
    first = await account.order(*issued.names, replaces=issued.cert_id)
    refused = await account.new_order(*issued.names, replaces=issued.cert_id)
    assert_problem(refused, ErrorType.ALREADY_REPLACED, status=409)
    await first.issue(ca.web)
    refused = await account.new_order(*issued.names, replaces=issued.cert_id)
    assert_problem(refused, ErrorType.ALREADY_REPLACED, status=409)


async def test_5_of_parallel_orders_one_replaces(ca, account, issued):
    answers = await asyncio.gather(
        *(account.new_order(*issued.names, replaces=issued.cert_id) for _ in range(8))
    )
    assert sorted(answer.status for answer in answers) == [201] + [409] * 7


@pytest.mark.parametrize("death", ["failed", "deactivated", "expired"])
async def test_lesson_21_the_claim_of_a_dead_order_is_released(ca, account, issued, death):
    """Lesson 21."""
    extra = ca.name()
    order = await account.order(*issued.names, extra, replaces=issued.cert_id)
    fresh = order.object["authorizations"][-1]
    if death == "deactivated":
        assert (await account.post(fresh, {"status": "deactivated"})).status == 200
    elif death == "failed":
        challenge = next(c for c in (await account.read(fresh)).json["challenges"] if c["type"] == "http-01")
        ca.web.serve_token(challenge["token"], "wrong")
        await account.post(challenge["url"], {})
        assert (await account.settled(fresh))["status"] == "invalid"
    else:
        async with Database.open(ca.dsn, connections=1) as database:
            await database.execute(
                "UPDATE orders SET expires = now() WHERE id = $1", order.url.rpartition("/")[2]
            )
    assert (await order.read())["status"] == "invalid"
    again = await account.order(*issued.names, replaces=issued.cert_id)
    assert again.object["replaces"] == issued.cert_id


async def test_5_another_accounts_certificate_is_not_replaced(ca, issued):
    stranger = await ca.account()
    refused = await stranger.new_order(*issued.names, replaces=issued.cert_id)
    assert_problem(refused, ErrorType.UNAUTHORIZED, status=403)


async def test_5_one_name_must_be_shared(ca, account, issued):
    assert_problem(await account.new_order(ca.name(), replaces=issued.cert_id), MALFORMED, status=400)
    shared = await account.new_order(ca.name(), *issued.names, replaces=issued.cert_id)
    assert shared.status == 201


async def bind(ca, account, service: str) -> None:
    """As if it had been made with an EAB key of the service."""
    kid, identity = new_id(), account.url.rpartition("/")[2]
    await ca.sql(
        f"""INSERT INTO eab_key (id, hmac_key, owner, service, created)
            VALUES ('{kid}', decode(repeat('00', 32), 'hex'), 'o', '{service}', now())"""
    )
    await ca.sql(f"UPDATE account SET eab_key_id = '{kid}', eab_binding = '{{}}' WHERE id = '{identity}'")


@pytest.mark.parametrize(("service", "status"), [("shop", 201), ("bank", 403)])
async def test_5_an_account_of_the_same_service_replaces(ca, service, status):
    owner, other = [await ca.account() for _ in range(2)]
    await bind(ca, owner, "shop")
    await bind(ca, other, service)
    order = await owner.order(ca.name())
    (leaf, *_) = await order.issue(ca.web)
    answer = await other.new_order(*order.names, replaces=str(CertId.of(leaf)))
    assert answer.status == status
    if status == 201:
        assert answer.json["replaces"] == str(CertId.of(leaf))


@pytest.mark.parametrize("value", [1, True, [], {}, "", "x", "AA.AA", "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"])
async def test_5_what_is_no_certificate_of_this_ca_cannot_be_replaced(ca, account, value):
    refused = await account.new_order(ca.name(), replaces=value)
    assert refused.status in {400, 404}
    assert_problem(refused, MALFORMED)
