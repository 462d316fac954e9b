"""The acts with an offline root, apart from the people: wrapping, opening, its CRLs."""

import shutil
import subprocess
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.ca import ceremony, certify, folder, shares
from acme_ca.ca.ceremony import RootTerms
from acme_ca.ca.issuers import IssuerError
from acme_ca.ca.keystore import KeyKind
from acme_ca.ca.shares import ShareError
from acme_ca.core.model import RevocationReason
from tests.support.authorities import below
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


def test_the_first_crl_is_empty_and_lives_long(root):
    crl = ceremony.sign_crl(root, now=NOW)
    assert_no_errors(findings_in_crl(crl.public_bytes(Encoding.DER)))
    assert list(crl) == []
    assert crl.is_signature_valid(root.certificate.public_key())
    assert crl.next_update_utc == (NOW + timedelta(days=365)).replace(microsecond=0)
    assert ceremony.number(crl) == int(NOW.timestamp() * 1000)


def test_a_crl_keeps_what_the_last_one_had(root):
    first = ceremony.sign_crl(root, [7, 7], reason=RevocationReason.KEY_COMPROMISE, now=NOW)
    second = ceremony.sign_crl(root, [9], previous=first, now=NOW - timedelta(days=1))
    assert [entry.serial_number for entry in second] == [7, 9]
    reason = second[0].extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason is x509.ReasonFlags.key_compromise
    assert list(second[1].extensions) == []
    assert_no_errors(findings_in_crl(second.public_bytes(Encoding.DER)))


def test_crl_numbers_rise_also_when_the_clock_went_back(root):
    first = ceremony.sign_crl(root, now=NOW)
    second = ceremony.sign_crl(root, previous=first, now=NOW - timedelta(days=400))
    assert ceremony.number(second) == ceremony.number(first) + 1


def test_what_is_revoked_is_not_revoked_again(root):
    first = ceremony.sign_crl(root, [0xAB], now=NOW)
    with pytest.raises(IssuerError, match="ab is revoked already"):
        ceremony.sign_crl(root, [0xAB], previous=first, now=NOW)


def test_a_crl_does_not_outlive_the_root(root):
    crl = ceremony.sign_crl(root, lifetime=timedelta(days=9999), now=NOW)
    assert crl.next_update_utc == root.certificate.not_valid_after_utc


def test_the_crl_beside_the_root_is_read(made, root, tmp_path):
    shutil.copy(made / "root.pem", tmp_path)
    assert ceremony.read_crl(tmp_path) is None
    crl = ceremony.sign_crl(root, [5], now=NOW)
    folder.replace(tmp_path / "root.crl", crl.public_bytes(Encoding.DER))
    folder.replace(tmp_path / "root.crl", crl.public_bytes(Encoding.DER))
    assert ceremony.read_crl(tmp_path) == crl
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root.crl", "root.pem"]


@pytest.mark.parametrize("spoil", ["garbage", "of another CA", "without a number"])
def test_a_crl_that_is_not_the_roots(made, root, tmp_path, spoil):
    shutil.copy(made / "root.pem", tmp_path)
    (tmp_path / "root.crl").write_bytes(spoiled(root, spoil))
    with pytest.raises(IssuerError, match=r"root\.crl is no CRL of this root"):
        ceremony.read_crl(tmp_path)


def spoiled(root, how: str) -> bytes:
    if how == "garbage":
        return b"hello"
    if how == "of another CA":
        return ceremony.sign_crl(below(root), now=NOW).public_bytes(Encoding.DER)
    builder = x509.CertificateRevocationListBuilder().issuer_name(root.certificate.subject)
    builder = builder.last_update(NOW).next_update(NOW + timedelta(days=1))
    return builder.sign(root.key, root.certificate.signature_hash_algorithm).public_bytes(Encoding.DER)
