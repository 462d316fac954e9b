"""The acts with an offline root, apart from the people: wrapping, opening, its CRLs."""

import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.ca import ceremony, certify, crls, folder, shares
from acme_ca.ca.ceremony import RootTerms
from acme_ca.ca.issuers import IssuerError, issuer_id
from acme_ca.ca.keystore import KeyKind
from acme_ca.ca.shares import ShareError
from acme_ca.core.crl import Entry
from acme_ca.core.ids import serial_text
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.root_list import RevokedCa, RootList
from tests.support.authorities import a_root, below
from tests.support.issuing import NOW
from tests.support.lint import assert_no_errors, findings_in_certificate, findings_in_crl

SECRET = bytes(range(32))
SHARES = shares.split(SECRET, threshold=2, count=3)
TERMS = RootTerms(name=certify.root_name("Example"), kind=KeyKind.EC_P384)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a root. Not to be changed."""
    place = tmp_path_factory.mktemp("offline")
    ceremony.make_root(place, TERMS, SECRET, now=NOW)
    return place


@pytest.fixture(scope="module")
def root(made):
    return ceremony.open_root(made, SHARES, now=NOW)


def test_a_root_that_was_opened_signs(root):
    assert root.certificate.subject == TERMS.name
    assert_no_errors(findings_in_certificate(root.certificate))
    below(root).certificate.verify_directly_issued_by(root.certificate)


def test_the_key_opens_without_this_program(made):
    done = subprocess.run(
        ["openssl", "pkey", "-in", made / "root.key", "-passin", f"pass:{SECRET.hex()}", "-noout"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_each_share_is_tried(made):
    ceremony.check_all_shares(made, SHARES, now=NOW)
    foreign = shares.split(SECRET, threshold=2, count=3)
    with pytest.raises(ShareError, match="another ceremony"):
        ceremony.check_all_shares(made, [*SHARES[:2], foreign[2]], now=NOW)


def test_a_root_is_not_opened_by_other_shares(made):
    foreign = shares.split(bytes(32), threshold=2, count=2)
    with pytest.raises(IssuerError, match="Are these the shares of this root"):
        ceremony.open_root(made, foreign, now=NOW)
    with pytest.raises(ShareError, match="2 shares are needed, 1 were given"):
        ceremony.open_root(made, SHARES[:1], now=NOW)


def test_a_root_that_is_none_any_more(made):
    with pytest.raises(IssuerError, match="expired on"):
        ceremony.read_root(made, now=NOW + timedelta(days=4000))


def test_a_key_beside_another_certificate(made, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    ceremony.make_root(other, TERMS, SECRET, now=NOW)
    shutil.copy(made / "root.pem", other)
    with pytest.raises(IssuerError, match="does not belong"):
        ceremony.open_root(other, SHARES, now=NOW)


# ---------------------------------------------------------------- CRLs


def signed(root, **said) -> x509.CertificateRevocationList:
    der = crls.sign(root.certificate, root.key, ceremony.next_crl(root.certificate, **{"now": NOW, **said}))
    assert_no_errors(findings_in_crl(der))
    return x509.load_der_x509_crl(der)


def listed(root, *serials: int, above: int = 0, days: float = 30) -> RootList:
    return RootList(
        issuer=issuer_id(root.certificate),
        above=above,
        days=days,
        revoked=tuple(
            RevokedCa(serial=serial_text(serial), subject="CN=An issuer", revoked=NOW, reason="cACompromise")
            for serial in serials
        ),
    )


def test_the_first_crl_is_empty_and_lives_long(root):
    crl = signed(root)
    assert list(crl) == []
    assert crl.is_signature_valid(root.certificate.public_key())
    assert crl.next_update_utc == (NOW + timedelta(days=365)).replace(microsecond=0)
    assert ceremony.number(crl) == int(NOW.timestamp() * 1000)


def test_a_crl_keeps_what_the_last_one_had_and_takes_what_a_server_has_listed(root):
    first = signed(root, revoked=[serial_text(7)], reason=RevocationReason.KEY_COMPROMISE)
    second = signed(
        root, revoked=[serial_text(9)], previous=first, listed=listed(root, 8), now=NOW - timedelta(days=1)
    )
    assert [entry.serial_number for entry in second] == [7, 8, 9]
    reasons = [entry.extensions.get_extension_for_class(x509.CRLReason).value.reason for entry in second[0:2]]
    assert reasons == [x509.ReasonFlags.key_compromise, x509.ReasonFlags.ca_compromise]
    assert list(second[2].extensions) == []
    assert second.next_update_utc == (NOW + timedelta(days=29)).replace(microsecond=0)


def test_a_crl_keeps_since_when_something_was_invalid(root):
    since = datetime(2026, 1, 2, tzinfo=UTC)
    entry = Entry(serial_text(7), NOW.replace(microsecond=0), RevocationReason.CA_COMPROMISE, since)
    unsigned = replace(ceremony.next_crl(root.certificate, now=NOW), entries=[entry])
    first = x509.load_der_x509_crl(crls.sign(root.certificate, root.key, unsigned))
    assert ceremony.next_crl(root.certificate, previous=first, now=NOW).entries == [entry]


def test_crl_numbers_rise_also_when_the_clock_went_back(root):
    first = signed(root)
    second = signed(root, previous=first, now=NOW - timedelta(days=400))
    assert ceremony.number(second) == ceremony.number(first) + 1
    third = signed(root, previous=second, listed=listed(root, above=10**15))
    assert ceremony.number(third) == 10**15 + 1


@pytest.mark.parametrize("known", ["previous", "listed"])
def test_what_is_revoked_is_not_revoked_again(root, known):
    before = signed(root, revoked=[serial_text(0xAB)]) if known == "previous" else listed(root, 0xAB)
    with pytest.raises(IssuerError, match="ab is revoked already"):
        ceremony.next_crl(root.certificate, revoked=[serial_text(0xAB)], now=NOW, **{known: before})


def test_a_list_of_another_root(root):
    with pytest.raises(IssuerError, match="another root's"):
        ceremony.next_crl(root.certificate, listed=listed(a_root()), now=NOW)


def test_a_crl_does_not_outlive_the_root(root):
    crl = signed(root, lifetime=timedelta(days=9999))
    assert crl.next_update_utc == root.certificate.not_valid_after_utc


def test_the_crl_beside_the_root_is_read(made, root, tmp_path):
    shutil.copy(made / "root.pem", tmp_path)
    assert ceremony.read_crl(tmp_path) is None
    crl = signed(root, revoked=[serial_text(5)])
    folder.replace(tmp_path / "root.crl", crl.public_bytes(Encoding.DER))
    folder.replace(tmp_path / "root.crl", crl.public_bytes(Encoding.DER))
    assert ceremony.read_crl(tmp_path) == crl
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root.crl", "root.pem"]


@pytest.mark.parametrize("spoil", ["garbage", "of another CA", "without a number", "of an odd reason"])
def test_a_crl_that_is_not_the_roots(made, root, tmp_path, spoil):
    shutil.copy(made / "root.pem", tmp_path)
    (tmp_path / "root.crl").write_bytes(spoiled(root, spoil))
    with pytest.raises(IssuerError, match=r"root\.crl is no CRL of this root"):
        ceremony.read_crl(tmp_path)


def spoiled(root, how: str) -> bytes:
    if how == "garbage":
        return b"hello"
    if how == "of another CA":
        return signed(below(root)).public_bytes(Encoding.DER)
    builder = x509.CertificateRevocationListBuilder().issuer_name(root.certificate.subject)
    builder = builder.last_update(NOW).next_update(NOW + timedelta(days=1))
    if how == "of an odd reason":
        reason = x509.CRLReason(x509.ReasonFlags.remove_from_crl)
        entry = x509.RevokedCertificateBuilder().serial_number(1).revocation_date(NOW)
        builder = builder.add_revoked_certificate(entry.add_extension(reason, critical=False).build())
        builder = builder.add_extension(x509.CRLNumber(1), critical=False)
    return builder.sign(root.key, root.certificate.signature_hash_algorithm).public_bytes(Encoding.DER)
