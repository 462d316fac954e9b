"""CRLs of a running server, judged by pkilint, OpenSSL, GnuTLS and Java: full, delta, and the root's."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime

import pytest
from cryptography import x509

from acme_ca.core.revocation import RevocationReason
from tests.support.lint import assert_no_errors, findings_in_crl
from tests.support.relying import (
    Question,
    assert_refused,
    assert_revoked,
    assert_valid,
    certtool_crl,
    certtool_crl_info,
    certtool_verify,
    java_validate,
    openssl_crl,
    openssl_verify,
)

pytestmark = pytest.mark.client

STOLEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Leaves:
    """Of one shard, by what became of them."""

    good: x509.Certificate
    compromised: x509.Certificate
    held: x509.Certificate
    released: x509.Certificate
    """Was on hold."""


@dataclass(frozen=True, kw_only=True)
class Crls:
    """Of that shard, one after the other, and the root's."""

    empty: bytes
    before: bytes
    """`released` is still on hold, and the others are good."""
    full: bytes
    delta: bytes
    root: bytes


@pytest.fixture(scope="module")
def leaves(ca) -> Leaves:
    return Leaves(**{field.name: ca.issue() for field in fields(Leaves)})


@pytest.fixture(scope="module")
def crls(ca, leaves) -> Crls:
    url = ca.crl_url(leaves.good)
    ca.hold(leaves.released)
    before = ca.await_crl(url, lambda crl: _lists(crl, leaves.released))
    ca.release(leaves.released)
    ca.hold(leaves.held)
    ca.revoke(leaves.compromised, RevocationReason.KEY_COMPROMISE, since=STOLEN)
    full = ca.await_crl(url, lambda crl: _lists(crl, leaves.compromised))
    number = _number(full)
    delta = ca.await_crl(url.replace(".crl", "-delta.crl"), lambda crl: _number(crl) == number)
    return Crls(empty=ca.first_crl, before=before, full=full, delta=delta, root=ca.root_crl())


def _serial(certificate: x509.Certificate) -> str:
    return f"{certificate.serial_number:x}"


def _lists(crl: bytes, certificate: x509.Certificate) -> bool:
    entry = x509.load_der_x509_crl(crl).get_revoked_certificate_by_serial_number(certificate.serial_number)
    return entry is not None


def _number(crl: bytes) -> int:
    return x509.load_der_x509_crl(crl).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


# ---------------------------------------------------------------- what they are


@pytest.mark.parametrize("name", [field.name for field in fields(Crls)])
def test_no_errors_and_the_issuers_signature(ca, crls, name):
    crl = getattr(crls, name)
    issuer, other = (ca.root, ca.intermediate) if name == "root" else (ca.intermediate, ca.root)
    assert_no_errors(findings_in_crl(crl))
    assert_valid(openssl_crl(crl, issuer, ca.party), certtool_crl(crl, issuer, ca.party))
    assert_refused(openssl_crl(crl, other, ca.party), certtool_crl(crl, other, ca.party))


def test_what_is_in_them(ca, leaves, crls):
    assert len(x509.load_der_x509_crl(crls.empty)) == 0
    for crl in (crls.full, crls.delta):
        said = certtool_crl_info(crl, ca.party)
        assert all(_serial(leaf) in said for leaf in (leaves.compromised, leaves.held))
        assert _serial(leaves.good) not in said
        told = openssl_crl(crl, ca.intermediate, ca.party).said
        assert all(words in told for words in ("Key Compromise", "Certificate Hold", "Jan  2 03:04:05 2026"))
    assert _lists(crls.delta, leaves.released), "to be taken out"
    assert not _lists(crls.full, leaves.released)


# ---------------------------------------------------------------- what they do


def test_openssl(ca, leaves, crls):
    before, full = ca.party.with_crls(crls.before), ca.party.with_crls(crls.full)
    for leaf in (leaves.good, leaves.compromised, leaves.held):
        assert_valid(openssl_verify(leaf, before, crls="leaf"))
    assert_revoked(openssl_verify(leaves.released, before, crls="leaf"))
    for leaf in (leaves.good, leaves.released):
        assert_valid(openssl_verify(leaf, full, crls="leaf"))
    for leaf in (leaves.compromised, leaves.held):
        assert_revoked(openssl_verify(leaf, full, crls="leaf"))


@pytest.mark.parametrize("base", ["empty", "before", "full"])
def test_openssl_with_a_delta(ca, leaves, crls, base):
    """Whichever full CRL a relying party has, the delta makes the newest of it (RFC 5280 §5.2.4)."""
    party = ca.party.with_crls(getattr(crls, base), crls.delta)
    for leaf in (leaves.good, leaves.released):
        assert_valid(openssl_verify(leaf, party, crls="leaf", deltas=True))
    for leaf in (leaves.compromised, leaves.held):
        assert_revoked(openssl_verify(leaf, party, crls="leaf", deltas=True))


def test_openssl_for_the_whole_chain(ca, leaves, crls):
    party = ca.party.with_crls(crls.full, crls.root)
    assert_valid(openssl_verify(leaves.good, party, crls="chain"))
    assert_revoked(openssl_verify(leaves.compromised, party, crls="chain"))


def test_gnutls(ca, leaves, crls):
    party = ca.party.with_crls(crls.full, crls.root)
    for leaf in (leaves.good, leaves.released):
        assert_valid(certtool_verify(leaf, party))
    for leaf in (leaves.compromised, leaves.held):
        assert_revoked(certtool_verify(leaf, party))


def test_java(ca, leaves, crls):
    """With the CRLs at hand, and with those that it fetches from the certificates' addresses."""
    at_hand = ca.party.with_crls(crls.full, crls.root)
    shown = [leaves.good, leaves.released, leaves.compromised, leaves.held]
    verdicts = java_validate(
        *(Question(leaf=leaf, party=at_hand, means="crl", scope="chain") for leaf in shown),
        *(Question(leaf=leaf, party=ca.party, means="crldp") for leaf in shown),
    )
    for found in (verdicts[:4], verdicts[4:]):
        assert_valid(*found[:2])
        assert_revoked(*found[2:])
        assert [verdict.reason for verdict in found[2:]] == ["KEY_COMPROMISE", "CERTIFICATE_HOLD"]
