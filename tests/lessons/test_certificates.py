"""What gets into a certificate: lessons 1, 2 and 4."""

import asyncio
import os
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from acme_ca.ca import hierarchy as hierarchies
from acme_ca.ca import lint, profiles
from acme_ca.ca.authority import Authority
from acme_ca.core import csr as requests
from acme_ca.core import keys
from acme_ca.core.certificates import IssuanceRequest
from acme_ca.core.policy import NamePolicy
from acme_ca.core.problems import ErrorType, Problem
from tests.support.issuing import (
    EC_KEY,
    NOW,
    alternative_names_extension,
    csr,
    extension_request,
    extensions_of,
    names,
    recorded,
    request_info,
    signed_request,
    subject,
    tlv,
)

NAME = "a.example.org"
ORDERED = names(NAME)
SERVER = profiles.BUILT_IN["server"]
CA_USAGE = {
    "key_agreement": False,
    "content_commitment": False,
    "data_encipherment": False,
    "key_encipherment": False,
}


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    return hierarchies.create_hierarchy(
        tmp_path_factory.mktemp("lessons") / "ca",
        common_name="Example",
        organization="",
        country="",
        key_type="ec",
        password=b"correct horse",
        now=NOW,
    ).intermediate


def issued(issuer, der: bytes, *, policy: NamePolicy | None = None) -> x509.Certificate:
    """From a CSR to a certificate for ORDERED, by the steps of finalize. Raises Problem or LintError."""
    request = requests.parse_csr(der)
    requests.check_names(request, ORDERED)
    keys.check_certificate_key(request.public_key, SERVER)
    authority = Authority(
        issuers={issuer.id: issuer}.get,
        public_http_url="http://ca",
        clock=lambda: NOW,
        random_bytes=os.urandom,
    )
    prepared = authority.prepare(
        IssuanceRequest(
            identifiers=ORDERED,
            public_key=request.public_key,
            profile=SERVER,
            issuer=issuer.id,
            shard=0,
            not_before=None,
            not_after=None,
        )
    )
    lint.lint(prepared, policy=policy or NamePolicy(), issuer=issuer, now=NOW)
    return x509.load_der_x509_certificate(asyncio.run(authority.sign(recorded(prepared))).der)


# ---------------------------------------------------------------- lesson 1


def ca_usage(*, key_cert_sign: bool, crl_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        **CA_USAGE,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def asking_for(value: x509.ExtensionType, *, critical: bool = False) -> bytes:
    return csr(NAME, extensions=[(value, critical)])


def second_extension_request() -> bytes:
    extra = extension_request(alternative_names_extension(tlv(0x82, b"evil.example.org")))
    return signed_request(
        request_info(extension_request(alternative_names_extension(tlv(0x82, NAME.encode()))), extra)
    )


UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
UNKNOWN = x509.ObjectIdentifier("1.2.3.4.5")
EXTRA = {
    "dNSName": csr(NAME, "evil.example.org"),
    "iPAddress": csr(NAME, "10.0.0.1"),
    "wildcard": csr(NAME, "*.example.org"),
    "name missing": csr(),
    "parent instead": csr("example.org"),
    "e-mail": csr(NAME, x509.RFC822Name("admin@example.org")),
    "URI": csr(NAME, x509.UniformResourceIdentifier("spiffe://example.org/admin")),
    "directoryName": csr(NAME, x509.DirectoryName(subject("admin"))),
    "registeredID": csr(NAME, x509.RegisteredID(UNKNOWN)),
    "otherName (UPN)": csr(NAME, x509.OtherName(UPN, b"\x0c\x05admin")),
    "CN not in SAN": csr(NAME, named=subject("evil.example.org")),
    "CN that is no name": csr(NAME, named=subject("Administrator")),
    "two CNs": csr(NAME, "evil.example.org", named=subject(NAME, "evil.example.org")),
    "the same CN twice": csr(NAME, named=subject(NAME, NAME)),
    "e-mail in the subject": csr(NAME, named=subject(NAME, email_address="admin@example.org")),
    "user id in the subject": csr(NAME, named=subject(NAME, user_id="admin")),
    "NUL in a name": signed_request(
        request_info(extension_request(alternative_names_extension(tlv(0x82, b"a.example.org\0.evil.org"))))
    ),
    "names in a second extension request": second_extension_request(),
    "basicConstraints CA": asking_for(x509.BasicConstraints(ca=True, path_length=None), critical=True),
    "basicConstraints CA, pathlen": asking_for(x509.BasicConstraints(ca=True, path_length=0)),
    "nameConstraints": asking_for(x509.NameConstraints([x509.DNSName("example.org")], None), critical=True),
    "keyCertSign": asking_for(ca_usage(key_cert_sign=True, crl_sign=False), critical=True),
    "cRLSign": asking_for(ca_usage(key_cert_sign=False, crl_sign=True)),
    "EKU codeSigning": asking_for(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING])
    ),
    "EKU any": asking_for(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])),
    "EKU OCSPSigning": asking_for(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])),
    "unknown critical extension": asking_for(x509.UnrecognizedExtension(UNKNOWN, b"\5\0"), critical=True),
    "known extension, critical": asking_for(x509.InhibitAnyPolicy(0), critical=True),
}


@pytest.mark.parametrize("der", EXTRA.values(), ids=EXTRA)
def test_lesson_1_what_the_order_has_not_is_refused(issuer, der):
    with pytest.raises(Problem) as refused:
        issued(issuer, der)
    assert refused.value.type is ErrorType.BAD_CSR


HARMLESS = {
    "nothing": csr(NAME),
    "name in CN alone": csr(named=subject(NAME)),
    "upper case": csr(NAME.upper(), named=subject(NAME.title())),
    "organization and country": csr(NAME, named=subject(NAME, organization_name="Evil", country_name="DE")),
    "CA:FALSE": asking_for(x509.BasicConstraints(ca=False, path_length=None), critical=True),
    "usual key usage": asking_for(ca_usage(key_cert_sign=False, crl_sign=False), critical=True),
    "EKU clientAuth": asking_for(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])),
    "key identifier": asking_for(x509.SubjectKeyIdentifier(b"chosen by the client")),
    "must staple": asking_for(x509.TLSFeature([x509.TLSFeatureType.status_request])),
    "OCSP no check": asking_for(x509.OCSPNoCheck()),
    "unknown extension": asking_for(x509.UnrecognizedExtension(UNKNOWN, b"\5\0")),
}


@pytest.mark.parametrize("der", HARMLESS.values(), ids=HARMLESS)
def test_lesson_1_only_the_key_is_taken(issuer, der):
    """Whatever else it asks for, the certificate is that of the barest CSR with the same key."""
    assert content(issued(issuer, der)) == content(issued(issuer, csr(NAME)))


def content(leaf: x509.Certificate) -> tuple[object, ...]:
    life: timedelta = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    return leaf.subject, leaf.public_key(), life, extensions_of(leaf)


def test_lesson_1_the_barest_certificate(issuer):
    leaf = issued(issuer, csr(NAME))
    assert [(part.oid, part.value) for part in leaf.subject] == [(NameOID.COMMON_NAME, NAME)]
    assert list(extensions_of(leaf)["subjectAltName"][1]) == [x509.DNSName(NAME)]
    assert leaf.public_key() == EC_KEY.public_key()


# ---------------------------------------------------------------- lesson 2

POLICIES = {
    "denied": (NamePolicy.of_settings(denied_domains=("example.org",)), False),
    "not among the allowed": (NamePolicy.of_settings(allowed_domains=("vcc.internal",)), False),
    "allowed": (NamePolicy.of_settings(allowed_domains=("example.org",)), True),
}


@pytest.mark.parametrize(("policy", "allowed"), POLICIES.values(), ids=POLICIES)
def test_lesson_2_policy_is_asked_about_the_certificate_to_be_signed(issuer, policy, allowed):
    """On the way to every signature, also for an order that was made under another policy."""
    if allowed:
        assert issued(issuer, csr(NAME), policy=policy)
    else:
        with pytest.raises(lint.LintError, match=r"does not issue for a\.example\.org"):
            issued(issuer, csr(NAME), policy=policy)


# ---------------------------------------------------------------- lesson 4 (the arithmetic: tests/core/test_keys.py)

WEAK = {
    "RSA 1024": rsa.generate_private_key(public_exponent=65537, key_size=1024),
    "RSA 2055": rsa.generate_private_key(public_exponent=65537, key_size=2055),
    "RSA exponent 3": rsa.generate_private_key(public_exponent=3, key_size=2048),
    "P-521": ec.generate_private_key(ec.SECP521R1()),
    "secp256k1": ec.generate_private_key(ec.SECP256K1()),
    "P-192": ec.generate_private_key(ec.SECP192R1()),
}


@pytest.mark.parametrize("key", WEAK.values(), ids=WEAK)
def test_lesson_4_weak_keys_are_refused(issuer, key):
    with pytest.raises(Problem) as refused:
        issued(issuer, csr(NAME, key=key))
    assert refused.value.type is ErrorType.BAD_CSR
    assert "key" in refused.value.detail
