"""Name constraints and cross-certificates as relying parties understand them."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from acme_ca.ca import certify
from acme_ca.ca.certify import Parent
from acme_ca.ca.constraints import NameConstraints
from acme_ca.ca.issuers import key_identifier
from tests.support.authorities import a_root, below
from tests.support.issuing import EC_KEY, NOW, RSA_KEY, general_names, names
from tests.support.relying import (
    Party,
    Question,
    Verdict,
    assert_refused,
    assert_valid,
    certtool_verify,
    java_validate,
    openssl_verify,
)

pytestmark = pytest.mark.client

NAMES = (
    "vcc.internal",
    "a.vcc.internal",
    "a.secret.vcc.internal",
    "xvcc.internal",
    "other.test",
    "10.1.2.3",
    "11.1.2.3",
    "fd00::1",
)
CONSTRAINTS = {
    "names": NameConstraints.parse(["vcc.internal"], ["secret.vcc.internal"]),
    "addresses": NameConstraints.parse(["10.0.0.0/8"]),
    "both": NameConstraints.parse(["vcc.internal", "10.0.0.0/8"]),
    "exclusion": NameConstraints.parse([], ["vcc.internal", "fd00::/8"]),
}


@pytest.mark.parametrize("constraints", CONSTRAINTS.values(), ids=CONSTRAINTS)
def test_relying_parties_draw_the_same_line(tmp_path, constraints):
    root = a_root()
    issuer = below(root, name_constraints=constraints)
    party = Party(place=tmp_path, root=root.certificate, intermediates=[issuer.certificate])
    permitted = [name for name in NAMES if constraints.permits(*names(name))]
    forbidden = [name for name in NAMES if name not in permitted]
    assert_valid(*judged(issuer, party, *permitted))
    assert_refused(*judged(issuer, party, *forbidden))


def test_a_cross_signed_ca_is_trusted_by_either_root(tmp_path):
    root, other = a_root(), a_root("Other", key=RSA_KEY)
    issuer = below(root, name_constraints=CONSTRAINTS["names"])
    cross = certify.cross_sign(issuer.certificate, other, now=NOW)
    for anchor, above in ((root, issuer.certificate), (other, cross)):
        party = Party(place=tmp_path, root=anchor.certificate, intermediates=[above])
        assert_valid(*judged(issuer, party, "a.vcc.internal"))
        assert_refused(*judged(issuer, party, "other.test"))


def judged(issuer: Parent, party: Party, *hosts: str) -> list[Verdict]:
    """By each relying party, for each host.

    OpenSSL alone is asked about IPv6: constraints on IPv4 do not bind it for GnuTLS, and end in an exception in Java.
    """
    leaves = [leaf(issuer, host) for host in hosts]
    all_agree_on = [made for made, host in zip(leaves, hosts, strict=True) if ":" not in host]
    with_crl = party.with_crls(crl(issuer))
    return [
        *(openssl_verify(made, party) for made in leaves),
        *(certtool_verify(made, party) for made in all_agree_on),
        *java_validate(*(Question(leaf=made, party=with_crl, means="crl") for made in all_agree_on)),
    ]


def leaf(issuer: Parent, host: str) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.certificate.subject)
        .public_key(EC_KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(minutes=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(general_names(host)), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(authority(issuer), critical=False)
        .sign(issuer.key, hashes.SHA256())
    )


def crl(issuer: Parent) -> bytes:
    return (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(NOW)
        .next_update(NOW + timedelta(days=1))
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(authority(issuer), critical=False)
        .sign(issuer.key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def authority(issuer: Parent) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(key_identifier(issuer.certificate), None, None)
