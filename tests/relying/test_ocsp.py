"""OCSP answers of a running server, judged by pkilint, OpenSSL, GnuTLS and Java."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from urllib.request import Request, urlopen

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID

from tests.support.lint import assert_no_errors, findings_in_certificate, findings_in_ocsp
from tests.support.pki import Holder
from tests.support.relying import (
    Question,
    Status,
    assert_refused,
    assert_revoked,
    assert_valid,
    java_validate,
    ocsptool_ask,
    ocsptool_response,
    openssl_ocsp,
    openssl_verify,
)

pytestmark = pytest.mark.client


@dataclass(frozen=True, kw_only=True)
class Story:
    """Certificates by what became of them. `unknown`: of the CA's name, and it never issued it."""

    good: x509.Certificate
    revoked: x509.Certificate
    held: x509.Certificate
    unknown: x509.Certificate


@pytest.fixture(scope="module")
def story(ca):
    good, revoked, held = (ca.issue() for _ in range(3))
    before = openssl_ocsp(revoked, ca.intermediate, ca.party, url=_url(revoked))
    assert_valid(before)
    ca.client.acme.revoke(revoked, 4)
    ca.hold(held)
    return Story(good=good, revoked=revoked, held=held, unknown=_never_issued(ca.intermediate))


def _url(leaf: x509.Certificate) -> str:
    """Where the certificate says that the responder is."""
    access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    (url,) = (
        one.access_location.value for one in access if one.access_method == AuthorityInformationAccessOID.OCSP
    )
    return str(url)


def _never_issued(issuer: x509.Certificate) -> x509.Certificate:
    other = Holder.root("Another")
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(other.key.public_key())
        .serial_number(x509.random_serial_number() >> 32)
        .not_valid_before(issuer.not_valid_before_utc)
        .not_valid_after(issuer.not_valid_after_utc)
        .sign(other.key, hashes.SHA256())
    )


def _fetched(ca, leaf: x509.Certificate, *, nonce: bytes | None = None) -> bytes:
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, ca.intermediate, hashes.SHA1())
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    headers = {"Content-Type": "application/ocsp-request"}
    asked = Request(f"{ca.server.http_base}/ocsp", builder.build().public_bytes(Encoding.DER), headers)
    with urlopen(asked, timeout=10) as answer:
        content: bytes = answer.read()
    return content


# ---------------------------------------------------------------- what they say


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("good", Status.VALID, ""),
        ("revoked", Status.REVOKED, "superseded"),
        ("held", Status.REVOKED, "certificateHold"),
        ("unknown", Status.UNKNOWN, ""),
    ],
)
def test_openssl(ca, story, name, status, reason):
    """With and without a nonce, by both hashes of a CertID (RFC 6960 §4.1.1, RFC 5019 §2.1.1)."""
    leaf, url = getattr(story, name), _url(story.good)
    for nonce, certid in product((True, False), ("sha1", "sha256")):
        said = openssl_ocsp(leaf, ca.intermediate, ca.party, url=url, nonce=nonce, certid=certid)
        assert (said.status, said.reason) == (status, reason), said.said


@pytest.mark.parametrize("nonce", [True, False], ids=["nonce", "no nonce"])
def test_gnutls(ca, story, nonce):
    url = _url(story.good)
    for name, status in {
        "good": Status.VALID,
        "revoked": Status.REVOKED,
        "held": Status.REVOKED,
        "unknown": Status.UNKNOWN,
    }.items():
        said = ocsptool_ask(getattr(story, name), ca.intermediate, ca.party, url=url, nonce=nonce)
        assert said.status is status, said.said


def test_java(ca, story):
    good, revoked, held = java_validate(
        *(
            Question(leaf=leaf, party=ca.party, means="ocsp")
            for leaf in (story.good, story.revoked, story.held)
        )
    )
    assert_valid(good)
    assert_revoked(revoked, held)
    assert (revoked.reason, held.reason) == ("SUPERSEDED", "CERTIFICATE_HOLD")


def test_a_stapled_answer(ca, story):
    """As a TLS server would fetch and hand it on."""
    good, revoked = (_fetched(ca, leaf) for leaf in (story.good, story.revoked))
    assert_valid(
        openssl_ocsp(story.good, ca.intermediate, ca.party, response=good, nonce=False),
        ocsptool_response(good, ca.intermediate, ca.party),
    )
    asked = [(story.good, good), (story.revoked, revoked), (story.good, revoked)]
    verdicts = java_validate(
        *(Question(leaf=leaf, party=ca.party, means="stapled", response=answer) for leaf, answer in asked)
    )
    assert [verdict.status for verdict in verdicts] == [Status.VALID, Status.REVOKED, Status.REFUSED]


def test_another_cas_certificate_is_no_business_of_the_responder(ca, story):
    stranger = Holder.root("Stranger").intermediate("Stranger's CA")
    said = openssl_ocsp(
        stranger.leaf("a.test", crl_url=_url(story.good), ocsp_url=_url(story.good)).certificate,
        stranger.certificate,
        ca.party,
        url=_url(story.good),
    )
    assert_refused(said)
    assert "unauthorized (6)" in said.said


# ---------------------------------------------------------------- what they are


def test_answers_have_no_errors(ca, story):
    for leaf in (story.good, story.revoked, story.held, story.unknown):
        for nonce in (None, bytes(32)):
            assert_no_errors(findings_in_ocsp(_fetched(ca, leaf, nonce=nonce)))


def test_the_responders_certificate_has_no_errors(ca, story):
    answer = ocsp.load_der_ocsp_response(_fetched(ca, story.good))
    (responder,) = answer.certificates
    assert_no_errors(findings_in_certificate(responder))
    assert_valid(openssl_verify(responder, ca.party, purpose="ocsphelper"))
