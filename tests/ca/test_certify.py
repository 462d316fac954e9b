from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.ca import certify
from acme_ca.ca.certify import Parent, UnsuitableName
from acme_ca.ca.constraints import NameConstraints
from acme_ca.ca.issuers import IssuerError, issuer_id, key_identifier
from tests.support.authorities import KEY, OTHER_KEY, ROOT_KEY, RSA_1024, a_root, below, remade
from tests.support.issuing import NOW, RSA_KEY, csr, extensions_of, subject
from tests.support.lint import assert_no_errors, findings_in_certificate

BASE_URL = "http://pki.example.org"
CONSTRAINTS = NameConstraints.parse(["vcc.internal", "10.0.0.0/8"], ["secret.vcc.internal"])
ROOT = a_root(path_length=2)
OTHER_ROOT = a_root("Other", key=RSA_KEY)


# ---------------------------------------------------------------- names


def test_names_of_intermediates_are_counted():
    root = certify.root_name("VCC", "Org", "de")
    taken: list[x509.Name] = []
    for _ in range(3):
        taken.append(certify.intermediate_name(root, taken=taken))
    assert [name.rfc4514_string() for name in taken] == [
        "CN=VCC Intermediate CA,O=Org,C=DE",
        "CN=VCC Intermediate CA 2,O=Org,C=DE",
        "CN=VCC Intermediate CA 3,O=Org,C=DE",
    ]


def test_below_a_foreign_root_too():
    assert certify.intermediate_name(subject("Corp Trust G2")) == subject("Corp Trust G2 Intermediate CA")
    assert certify.intermediate_name(subject(organization_name="Corp")).rfc4514_string() == (
        "CN=Intermediate CA,O=Corp"
    )


def test_a_chosen_name_is_not_given_twice():
    root = certify.root_name("VCC")
    name = certify.intermediate_name(root, common_name=" Mine ")
    assert name == subject("Mine")
    with pytest.raises(UnsuitableName, match="already"):
        certify.intermediate_name(root, taken=[name], common_name="Mine")
    with pytest.raises(UnsuitableName, match="empty"):
        certify.intermediate_name(root, common_name=" ")


# ---------------------------------------------------------------- certificates

MADE = {
    "root": a_root().certificate,
    "root of any depth": a_root(path_length=None).certificate,
    "intermediate": below(ROOT).certificate,
    "intermediate with all": below(
        ROOT, path_length=1, name_constraints=CONSTRAINTS, base_url=BASE_URL
    ).certificate,
    "intermediate for names only": below(
        ROOT, name_constraints=NameConstraints.parse(["vcc.internal"])
    ).certificate,
    "intermediate for addresses only": below(
        ROOT, name_constraints=NameConstraints.parse(["10.0.0.0/8"])
    ).certificate,
    "cross": certify.cross_sign(below(ROOT).certificate, OTHER_ROOT, base_url=BASE_URL, now=NOW),
}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_pkilint_finds_no_error(made):
    assert_no_errors(findings_in_certificate(made))


def test_an_intermediate_names_the_crl_and_the_certificate_of_its_parent():
    extensions = extensions_of(MADE["intermediate with all"])
    (point,) = extensions["cRLDistributionPoints"][1]
    (access,) = extensions["authorityInfoAccess"][1]
    id_ = issuer_id(ROOT.certificate)
    assert point.full_name == [x509.UniformResourceIdentifier(f"{BASE_URL}/crl/{id_}/0.crl")]
    assert access.access_location.value == f"{BASE_URL}/ca/{id_}.cer"
    assert extensions["authorityKeyIdentifier"][1].key_identifier == key_identifier(ROOT.certificate)


@pytest.mark.parametrize(
    "url",
    [
        None,
        "http://localhost:8080",
        "http://LOCALHOST",
        "http://127.0.0.1:1",
        "http://[::1]:80",
        "http://x.localhost",
    ],
)
def test_but_not_on_loopback(url):
    extensions = extensions_of(below(ROOT, base_url=url).certificate)
    assert extensions.keys() & {"cRLDistributionPoints", "authorityInfoAccess"} == set()


def test_name_constraints_are_critical():
    assert extensions_of(MADE["intermediate with all"])["nameConstraints"] == (True, CONSTRAINTS.extension())


def test_serials_are_random():
    serials = {below(ROOT).certificate.serial_number for _ in range(20)}
    assert len(serials) == 20
    assert max(serials) > 1 << 120
    assert max(serials) < 1 << 128


def test_an_intermediate_does_not_outlive_its_parent():
    parent = a_root(lifetime=timedelta(days=100))
    assert below(parent).certificate.not_valid_after_utc == parent.certificate.not_valid_after_utc
    assert (
        below(parent, lifetime=timedelta(days=30)).certificate.not_valid_after_utc
        < parent.certificate.not_valid_after_utc
    )


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ({"now": NOW + timedelta(days=4000)}, "expired at once"),
        ({"lifetime": timedelta(minutes=1)}, "expired at once"),
        ({"path_length": -1}, "0 or more"),
        ({"path_length": 2}, "path lengths up to 1 below it"),
        ({"key": RSA_1024}, "2048"),
        ({"key": ec.generate_private_key(ec.SECP521R1())}, "kind"),
        ({"key": ed25519.Ed25519PrivateKey.generate()}, "kind"),
        ({"name": "Example Root CA"}, "same name"),
        ({"name": "x" * 65}, "64"),
    ],
)
def test_no_such_intermediate(terms, says):
    with pytest.raises(IssuerError, match=says):
        below(ROOT, **terms)


def test_nothing_below_the_last():
    with pytest.raises(IssuerError, match="allows no CA below it"):
        below(below(ROOT), key=OTHER_KEY, name="Deeper")


def test_name_constraints_narrow_down():
    parent = below(ROOT, path_length=1, name_constraints=CONSTRAINTS)
    narrow = NameConstraints.parse(["a.vcc.internal"])
    assert (
        NameConstraints.of(below(parent, key=OTHER_KEY, name="Narrow", name_constraints=narrow).certificate)
        == narrow
    )
    with pytest.raises(IssuerError, match=r"may not itself issue for other\.test"):
        below(parent, key=OTHER_KEY, name="Wide", name_constraints=NameConstraints.parse(["other.test"]))


def test_a_parent_has_its_own_key():
    with pytest.raises(IssuerError, match="does not belong"):
        Parent(certificate=ROOT.certificate, key=KEY)


# ---------------------------------------------------------------- cross-certificates


def test_a_cross_certificate_is_the_same_ca():
    original = MADE["intermediate with all"]
    cross = certify.cross_sign(original, a_root("Other", key=RSA_KEY, path_length=None), now=NOW)
    assert (cross.subject, cross.public_key()) == (original.subject, original.public_key())
    before, after = extensions_of(original), extensions_of(cross)
    for name in ("subjectKeyIdentifier", "basicConstraints", "keyUsage", "nameConstraints"):
        assert before[name] == after[name]
    assert issuer_id(cross) != issuer_id(original)
    assert cross.issuer == OTHER_ROOT.certificate.subject


def test_a_foreign_key_identifier_stays():
    identifier = x509.SubjectKeyIdentifier(b"\1" * 20)
    original = remade(MADE["intermediate"], ROOT_KEY, (identifier, False))
    assert key_identifier(certify.cross_sign(original, OTHER_ROOT, now=NOW)) == b"\1" * 20


def test_a_cross_certificate_outlives_neither():
    shorter = a_root("Short", key=RSA_KEY, lifetime=timedelta(days=9))
    cross = certify.cross_sign(MADE["intermediate"], shorter, now=NOW)
    assert cross.not_valid_after_utc == shorter.certificate.not_valid_after_utc
    original = below(ROOT, lifetime=timedelta(days=9)).certificate
    cross = certify.cross_sign(original, OTHER_ROOT, now=NOW)
    assert cross.not_valid_after_utc == original.not_valid_after_utc


def test_a_ca_of_any_depth_gets_what_the_parent_may_give():
    cross = certify.cross_sign(a_root(path_length=None).certificate, OTHER_ROOT, now=NOW)
    assert extensions_of(cross)["basicConstraints"][1].path_length == 0


@pytest.mark.parametrize(
    ("original", "says"),
    [
        (a_root(path_length=1).certificate, "path lengths up to 0"),
        (OTHER_ROOT.certificate, "cannot cross-sign itself"),
        (a_root("Old", key=RSA_1024).certificate, "2048"),
    ],
)
def test_what_is_not_cross_signed(original, says):
    with pytest.raises(IssuerError, match=says):
        certify.cross_sign(original, OTHER_ROOT, now=NOW)


# ---------------------------------------------------------------- requests


def test_a_request_asks_for_what_it_is_to_be():
    asked = certify.certificate_request(KEY, subject("New CA"), path_length=1, name_constraints=CONSTRAINTS)
    request = certify.read_request(asked)
    assert (request.subject, request.public_key) == (subject("New CA"), KEY.public_key())
    assert (request.path_length, request.name_constraints) == (1, CONSTRAINTS)
    extensions = {e.oid._name: e.critical for e in x509.load_der_x509_csr(asked).extensions}
    assert extensions == {
        "basicConstraints": True,
        "keyUsage": True,
        "subjectKeyIdentifier": False,
        "nameConstraints": True,
    }


def test_requests_in_pem_and_of_others_are_read_too():
    pem = x509.load_der_x509_csr(csr(named=subject("Plain"))).public_bytes(Encoding.PEM)
    request = certify.read_request(pem)
    assert (request.path_length, request.name_constraints) == (0, None)


def spoiled_signature() -> bytes:
    sound = csr(named=subject("CA"))
    return sound[:-1] + bytes([sound[-1] ^ 1])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no well-formed CSR"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nhello", "no well-formed CSR"),
        (csr(named=subject("CA"))[:-9], "no well-formed CSR"),
        (spoiled_signature(), "signature of the CSR"),
        (csr(), "no subject"),
        (csr(named=subject("CA"), key=RSA_1024), "2048"),
    ],
)
def test_what_is_no_request_for_a_ca(content, says):
    with pytest.raises(IssuerError, match=says):
        certify.read_request(content)
