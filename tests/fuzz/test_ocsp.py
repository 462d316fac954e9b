"""Lesson 24 for OCSP: whatever is sent, HTTP 200 and a well-formed answer, never a 5xx. Seeded: a failure comes again."""

import base64
import time
from collections import Counter
from random import Random
from urllib.parse import quote

import pytest
from cryptography.x509 import ocsp
from cryptography.x509.ocsp import OCSPResponseStatus
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.core.der import Unreadable, integer, tlv
from acme_ca.revocation import ocsp_messages
from tests.support import mutations
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.ocsp import UNHEARD_OF, assert_is_signed, cert_id, extension, nonce, request

PARSED = 5000
SECONDS = 4.0
"""Hostile bytes must not cost much either."""
SENT = 400
ANSWERED = {
    OCSPResponseStatus.SUCCESSFUL,
    OCSPResponseStatus.MALFORMED_REQUEST,
    OCSPResponseStatus.UNAUTHORIZED,
}


def sound(issuer, *numbers: int) -> bytes:
    """With everything that a request may have."""
    return request(
        *(cert_id(issuer, number) for number in numbers),
        cert_id(issuer, 2**159, algorithm="sha512"),
        version=tlv(0xA0, b"\x02\x01\x00"),
        requestor=tlv(0xA1, tlv(0x82, b"example.test")),
        extensions=[nonce(bytes(32)), extension(UNHEARD_OF, b"?", critical=b"\x01\x01\x00")],
        single=[extension(UNHEARD_OF, b"?")],
        signature=tlv(0xA0, tlv(0x30, b"whatever")),
    )


def parsed(raw: bytes) -> bool:
    try:
        read = ocsp_messages.parse(raw)
    except Unreadable:
        return False
    for about in read.certificates:
        assert about.serial is None or int(about.serial, 16) == about.number
        assert about.der in raw
    return True


def test_lesson_24_no_bytes_crash_the_parser(hierarchy):
    whole = sound(hierarchy.intermediate.certificate, 1, 2)
    assert parsed(whole)
    began = time.process_time()
    refused = sum(not parsed(mutations.bytes_like(whole, Random(seed))) for seed in range(PARSED))
    assert time.process_time() - began < SECONDS
    assert PARSED / 2 < refused < PARSED


@given(st.recursive(st.binary(max_size=20), lambda inner: st.lists(inner, max_size=4)), st.data())
def test_lesson_24_no_structure_crashes_the_parser(tree, data):
    tags = st.sampled_from([0x30, 0x02, 0x04, 0x06, 0x05, 0x01, 0xA0, 0xA1, 0xA2, 0x80, 0x1F, 0xFF])

    def encoded(node) -> bytes:
        content = node if isinstance(node, bytes) else b"".join(encoded(part) for part in node)
        return tlv(data.draw(tags), content)

    parsed(encoded(tree))


@given(st.integers(min_value=-(2**200), max_value=2**200))
def test_an_integer_has_one_encoding(number):
    bits = (number if number >= 0 else ~number).bit_length()
    content = number.to_bytes(bits // 8 + 1, signed=True)
    assert integer(content) == number
    with pytest.raises(Unreadable):
        integer((b"\xff" if number < 0 else b"\0") + content)


# ---------------------------------------------------------------- through the server


def assert_is_an_answer(body: bytes, issuer) -> OCSPResponseStatus:
    response = ocsp.load_der_ocsp_response(body)
    if response.response_status is OCSPResponseStatus.SUCCESSFUL:
        assert_is_signed(response, issuer)
    return response.response_status


async def send(ca, random: Random, whole: bytes):
    """By POST, or by GET in one of its spellings, as it is or broken again."""
    if random.random() < 0.5:
        return await ca.plain.request("POST", "http://ca.test/ocsp", body=whole)
    path = base64.b64encode(whole).decode()
    if random.random() < 0.3:
        path = mutations.text_like(path, random)
    safe = random.choice(["", "/+=", "/+=?#%&;:@"])
    return await ca.plain.request("GET", "http://ca.test/ocsp/" + quote(path, safe=safe))


@IN_SESSION_LOOP
async def test_lesson_24_whatever_is_sent_ocsp_answers(ca):
    issuer = ca.hierarchy.intermediate.certificate
    seen: Counter[OCSPResponseStatus] = Counter()
    for number in range(SENT):
        random = Random(number)
        whole = mutations.bytes_like(sound(issuer, random.getrandbits(128)), random)
        answer = await send(ca, random, whole)
        try:
            assert answer.status == 200
            assert answer.content_type == "application/ocsp-response"
            seen[assert_is_an_answer(answer.body, issuer)] += 1
        except Exception as error:
            raise AssertionError(f"round {number}: {answer}") from error
    assert set(seen) == ANSWERED, seen
    assert not ca.logged("OCSP request failed")
