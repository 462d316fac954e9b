"""Lesson 24: every parser of what clients send, against mutations of what is sound. Seeded: a failure comes again.

A value or a `Problem` is a good end; anything else fails. `ROUNDS` mutations for each parser.
"""

import json
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.acme import jws, messages
from acme_ca.acme.urls import Urls
from acme_ca.core import csr as requests
from acme_ca.core import identifiers
from acme_ca.core.problems import Problem
from acme_ca.revocation import revoke
from tests.support import mutations
from tests.support.issuing import NOW, RSA_KEY, csr, subject
from tests.support.jose import Key, base64url, compact, mac_jws
from tests.support.jose import jws as make_jws
from tests.support.problems import tried

ROUNDS = 3000
SECONDS = 4.0
"""A parser that takes longer for its rounds fails: hostile bytes must not cost much either."""

KEY, OTHER = Key.generate(), Key(RSA_KEY, "RS256")
URL = "https://ca.test/acme/new-account"
HEADER = {"alg": "ES256", "jwk": KEY.jwk, "nonce": "AAAA", "url": URL}
ACCOUNT = {
    "contact": ["mailto:a@example.test", "mailto:b@example.test"],
    "termsOfServiceAgreed": True,
    "onlyReturnExisting": False,
    "externalAccountBinding": mac_jws(
        {"alg": "HS256", "kid": "key-1", "url": URL}, compact(KEY.jwk), bytes(32)
    ),
}
ORDER = {
    "identifiers": [
        {"type": "dns", "value": "*.xn--bcher-kva.example.test"},
        {"type": "ip", "value": "2001:db8::1"},
    ],
    "notBefore": "2030-01-31T12:00:00Z",
    "notAfter": "2030-02-28T12:00:00.25+01:00",
}
CSR = csr(
    "a.example.test",
    "*.example.test",
    "10.0.0.1",
    named=subject("a.example.test", organization_name="Example"),
    extensions=[
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.TLSFeature([x509.TLSFeatureType.status_request]), False),
    ],
)
CERTIFICATE = (
    x509.CertificateBuilder(subject("a"), subject("a"), KEY.private.public_key(), 2**127, NOW, NOW)
    .add_extension(x509.SubjectAlternativeName([x509.DNSName("a.example.test")]), critical=False)
    .sign(KEY.private, hashes.SHA256())
    .public_bytes(Encoding.DER)
)

Fuzz = Callable[[Random], Any]


def fuzz_body(random: Random) -> Any:
    return tried(jws.parse, mutations.document_like(make_jws(HEADER, b"{}", KEY), random))


def fuzz_header(random: Random) -> Any:
    """Signed soundly, whatever it says."""
    made = make_jws(mutations.document_like(HEADER, random), b"{}", KEY)
    return tried(authenticated, compact(made))


def authenticated(body: bytes) -> None:
    request = jws.parse(body)
    jws.algorithm_of(request.header)
    if isinstance(kid := request.header.get("kid"), str):
        Urls("https://ca.test").account_id(kid)
    jws.verify(jws.parse_jwk(request.header.get("jwk")).key, request)


def fuzz_jwk(random: Random) -> Any:
    key = random.choice([KEY, OTHER])
    return tried(jws.parse_jwk, mutations.json_like(key.jwk, random))


def fuzz_account(random: Random) -> Any:
    return tried(account, mutations.document_like(ACCOUNT, random))


def account(raw: bytes) -> None:
    wish = messages.new_account(messages.payload_of(raw))
    messages.contacts(wish.contact, most=10)
    if wish.binding is not None:
        binding = jws.parse_binding(wish.binding, url=URL, account_key=jws.parse_jwk(KEY.jwk))
        jws.binding_is_genuine(binding, bytes(32))


def fuzz_binding(random: Random) -> Any:
    """Authentic, whatever it says."""
    header = mutations.json_like({"alg": "HS256", "kid": "key-1", "url": URL}, random)
    return tried(
        account, compact({**ACCOUNT, "externalAccountBinding": mac_jws(header, compact(KEY.jwk), bytes(32))})
    )


def fuzz_order(random: Random) -> Any:
    outcome = tried(
        lambda raw: messages.new_order(messages.payload_of(raw), most=100),
        mutations.document_like(ORDER, random),
    )
    if isinstance(outcome, Problem):
        json.dumps(outcome.document()).encode()
    return outcome


def fuzz_identifier(random: Random) -> Any:
    text = random.choice(["*.xn--bcher-kva.example.test", "a.b-c.example.test", "2001:db8::1", "10.0.0.1"])
    return tried(identifiers.parse, random.choice(["dns", "ip"]), mutations.text_like(text, random))


def fuzz_csr(random: Random) -> Any:
    return tried(csr_and_names, mutations.bytes_like(CSR, random))


def csr_and_names(der: bytes) -> None:
    requests.check_names(requests.parse_csr(der), [identifiers.dns("a.example.test")])


def fuzz_certificate(random: Random) -> Any:
    return tried(revoke._parse, mutations.bytes_like(CERTIFICATE, random))


def fuzz_base64url(random: Random) -> Any:
    return tried(messages.csr_of, {"csr": mutations.text_like(base64url(CSR), random)})


PARSERS: list[Fuzz] = [
    fuzz_body,
    fuzz_header,
    fuzz_jwk,
    fuzz_account,
    fuzz_binding,
    fuzz_order,
    fuzz_identifier,
    fuzz_csr,
    fuzz_certificate,
    fuzz_base64url,
]


@pytest.mark.parametrize("fuzz", PARSERS)
def test_lesson_24_no_bytes_crash_a_parser(fuzz):
    began = time.process_time()
    refused = 0
    for seed in range(ROUNDS):
        try:
            outcome = fuzz(Random(f"{fuzz.__name__} {seed}"))
        except Exception as error:
            raise AssertionError(f"round {seed} of {fuzz.__name__}") from error
        if isinstance(outcome, Problem):
            refused += 1
            assert outcome.detail
    assert time.process_time() - began < SECONDS
    assert refused > ROUNDS / 4, "the mutations do not bite"


def test_unmutated_all_of_it_is_sound():
    """Without this the fuzz run could be about nothing."""
    authenticated(compact(make_jws(HEADER, b"{}", KEY)))
    account(compact(ACCOUNT))
    assert len(messages.new_order(ORDER, most=100).identifiers) == 2
    assert len(requests.parse_csr(CSR).identifiers) == 3
    assert revoke._parse(CERTIFICATE).serial_number == 2**127
