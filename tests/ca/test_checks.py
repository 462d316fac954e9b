"""What is imported or installed: a sound chain, and each check with a chain that is spoiled in that one thing."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from acme_ca.ca import certify, checks
from acme_ca.ca.constraints import NameConstraints
from acme_ca.ca.issuers import IssuerError
from tests.support.authorities import KEY, OTHER_KEY, ROOT_KEY, RSA_1024, a_root, below, remade
from tests.support.issuing import NOW, RSA_KEY, extensions_of, subject

ROOT = a_root()
BELOW = below(ROOT)
LATER = NOW + timedelta(days=10)
PUBLIC_KEY = KEY.public_key()
SHA224 = hashes.SHA224()


def root(*added, **changed) -> x509.Certificate:
    return remade(ROOT.certificate, ROOT_KEY, *added, **changed)


def intermediate(*added, **changed) -> x509.Certificate:
    return remade(BELOW.certificate, changed.pop("signer", ROOT_KEY), *added, **changed)


def usage(**changes: bool) -> x509.KeyUsage:
    sound = extensions_of(ROOT.certificate)["keyUsage"][1]
    names = [name for name in x509.KeyUsage.__init__.__annotations__ if name != "return"]
    fields = {name: False if name.endswith("only") else getattr(sound, name) for name in names}
    return x509.KeyUsage(**(fields | changes))


CA = x509.BasicConstraints(ca=True, path_length=0)
NO_CA = x509.BasicConstraints(ca=False, path_length=None)
CLIENTS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
ONE_NAME = NameConstraints(permitted=("vcc.internal",)).extension()
SUBJECTS = x509.NameConstraints([x509.DirectoryName(subject("Corp"))], None)
UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\5\0")
BROKEN = x509.UnrecognizedExtension(x509.NameConstraints.oid, b"broken")
OTHER_KEY_ID = x509.AuthorityKeyIdentifier(b"\1" * 20, None, None)
NOT_A_CA = "not that of a CA"

# ---------------------------------------------------------------- one by one

SPOILED_INTERMEDIATE = {
    "no basicConstraints": (intermediate(without=x509.BasicConstraints), NOT_A_CA),
    "basicConstraints not critical": (intermediate((CA, False)), NOT_A_CA),
    "not a CA": (intermediate((NO_CA, True)), NOT_A_CA),
    "no keyUsage": (intermediate(without=x509.KeyUsage), NOT_A_CA),
    "may not sign certificates": (intermediate((usage(key_cert_sign=False), True)), NOT_A_CA),
    "may not sign CRLs": (intermediate((usage(crl_sign=False), True)), NOT_A_CA),
    "no subjectKeyIdentifier": (intermediate(without=x509.SubjectKeyIdentifier), NOT_A_CA),
    "for TLS clients only": (intermediate((CLIENTS, False)), "allows no TLS servers"),
    "name constraints not critical": (intermediate((ONE_NAME, False)), "not critical"),
    "constraints of subjects": (intermediate((SUBJECTS, True)), "certain subject names only"),
    "an unknown critical extension": (intermediate((UNKNOWN, True)), r"nobody knows: 1\.2\.3\.4"),
    "a broken extension": (intermediate((BROKEN, True)), "not well-formed"),
    "SHA-224": (intermediate(digest=SHA224), "not signed with SHA-256"),
    "an empty subject": (intermediate(subject_name=x509.Name([])), "empty subject"),
    "another CA's signature": (intermediate(signer=OTHER_KEY), "not issued by the root certificate"),
    "another CA's name": (intermediate(issuer_name=subject("Other")), "not issued by the root certificate"),
    "another key identifier": (intermediate((OTHER_KEY_ID, False)), "names another key of its issuer"),
    "outlives the root": (
        intermediate(not_valid_after=ROOT.certificate.not_valid_after_utc + timedelta(days=1)),
        "would outlive the root",
    ),
    "expired": (intermediate(not_valid_after=NOW), "intermediate certificate expired on"),
    "not yet valid": (intermediate(not_valid_before=LATER), "intermediate certificate is valid only from"),
}

SPOILED_ROOT = {
    "not a CA": (root((NO_CA, True)), NOT_A_CA),
    "no CA below it": (root((CA, True)), "allows 0 CAs below it"),
    "not signed by itself": (remade(ROOT.certificate, OTHER_KEY), "not issued by itself"),
    "SHA-224": (root(digest=SHA224), "not signed with SHA-256"),
    "expired": (root(not_valid_after=NOW), "root certificate expired on"),
    "not yet valid": (root(not_valid_before=LATER), "root certificate is valid only from"),
}


@pytest.mark.parametrize(("spoiled", "says"), SPOILED_INTERMEDIATE.values(), ids=SPOILED_INTERMEDIATE)
def test_an_intermediate_that_is_not_imported(spoiled, says):
    with pytest.raises(IssuerError, match=says):
        imported(intermediate=spoiled)


@pytest.mark.parametrize(("spoiled", "says"), SPOILED_ROOT.values(), ids=SPOILED_ROOT)
def test_a_root_that_is_not_imported(spoiled, says):
    with pytest.raises(IssuerError, match=says):
        imported(root=spoiled)


@pytest.mark.parametrize(
    ("key", "says"),
    [(RSA_1024, "2048 to 8192 bits"), (ec.generate_private_key(ec.SECP521R1()), "not accepted")],
)
def test_keys_that_no_ca_has(key, says):
    public_key = key.public_key()
    with pytest.raises(IssuerError, match=says):
        imported(intermediate=intermediate(public_key=public_key), intermediate_key=public_key)
    made = remade(ROOT.certificate, key, public_key=public_key)
    with pytest.raises(IssuerError, match=says):
        checks.check_import(made, None, root_key=None, intermediate_key=None, now=NOW)


def test_sha_1_is_not_imported_either():
    made = a_root("Old", key=RSA_KEY).certificate
    with pytest.raises(IssuerError, match="not signed with SHA-256"):
        imported(root=signed_with_sha_1(made), intermediate=None, root_key=None, intermediate_key=None)


def signed_with_sha_1(certificate: x509.Certificate) -> x509.Certificate:
    """By hand: cryptography does not sign so any more. The last octet of the algorithm's identifier tells the hash."""
    with_sha_256, with_sha_1 = (bytes.fromhex(f"2a864886f70d0101{last}") for last in ("0b", "05"))
    der = certificate.public_bytes(Encoding.DER).replace(with_sha_256, with_sha_1)
    return x509.load_der_x509_certificate(der)


def imported(**changes) -> None:
    sound = {
        "root": ROOT.certificate,
        "intermediate": BELOW.certificate,
        "root_key": ROOT_KEY.public_key(),
        "intermediate_key": PUBLIC_KEY,
        "now": NOW,
    }
    asked = sound | changes
    checks.check_import(asked.pop("root"), asked.pop("intermediate"), **asked)


# ---------------------------------------------------------------- keys and chains


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"root_key": None},
        {"intermediate": None, "intermediate_key": None},
        {"intermediate": None, "intermediate_key": None, "root_key": None},
        {"intermediate": intermediate(without=x509.AuthorityKeyIdentifier)},
        {"intermediate": intermediate((ONE_NAME, True))},
    ],
)
def test_what_is_sound_is_imported(changes):
    imported(**changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"intermediate_key": None}, "without its key"),
        ({"intermediate": None}, "no intermediate certificate"),
        ({"intermediate_key": OTHER_KEY.public_key()}, "not hold the key of the intermediate's key file"),
        ({"root_key": PUBLIC_KEY}, "not hold the key of the root's key file"),
    ],
)
def test_keys_go_with_their_certificates(changes, says):
    with pytest.raises(IssuerError, match=says):
        imported(**changes)


DEEP_ROOT = a_root("Foreign", key=RSA_KEY, path_length=2)
MIDDLE_KEY = ec.generate_private_key(ec.SECP256R1())
MIDDLE = below(DEEP_ROOT, key=MIDDLE_KEY, name="Middle", path_length=1)
INSTALLED = below(MIDDLE, name="Ours").certificate
SHALLOW = remade(MIDDLE.certificate, RSA_KEY, (CA, True))


def test_the_chain_is_put_in_order():
    expected = (INSTALLED, MIDDLE.certificate, DEEP_ROOT.certificate)
    for above in (expected[1:], expected[:0:-1], (ROOT.certificate, *expected), expected * 2):
        assert checks.check_installable(INSTALLED, PUBLIC_KEY, above, now=NOW) == expected


def test_the_shorter_way_of_a_cross_signed_issuer():
    cross = certify.cross_sign(DEEP_ROOT.certificate, a_root(path_length=None), now=NOW)
    above = [cross, MIDDLE.certificate, ROOT.certificate, DEEP_ROOT.certificate]
    made = checks.check_installable(INSTALLED, PUBLIC_KEY, above, now=NOW)
    assert made[-1] == DEEP_ROOT.certificate


@pytest.mark.parametrize(
    ("certificate", "key", "above", "says"),
    [
        (INSTALLED, OTHER_KEY, (MIDDLE.certificate, DEEP_ROOT.certificate), "does not hold the key"),
        (INSTALLED, KEY, (DEEP_ROOT.certificate,), "signed with is missing"),
        (INSTALLED, KEY, (MIDDLE.certificate,), "signed with is missing"),
        (INSTALLED, KEY, (), "signed with is missing"),
        (INSTALLED, KEY, (SHALLOW, DEEP_ROOT.certificate), "allows 0 CAs below it"),
        (INSTALLED, KEY, (DEEP_ROOT.certificate,) * 11, "more than 10"),
        (ROOT.certificate, ROOT_KEY, (ROOT.certificate,), "signed with its own key"),
        (intermediate((NO_CA, True)), KEY, (ROOT.certificate,), NOT_A_CA),
    ],
)
def test_what_is_not_installed(certificate, key, above, says):
    with pytest.raises(IssuerError, match=says):
        checks.check_installable(certificate, key.public_key(), above, now=NOW)
