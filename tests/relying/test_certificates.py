"""Certificates of a running server, judged by pkilint, OpenSSL, GnuTLS and Java."""

import ssl
from dataclasses import dataclass
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from acme_ca.ca import profiles
from tests.support.acme_client import PrivateKey, new_key
from tests.support.lint import assert_no_errors, findings_in_certificate
from tests.support.relying import (
    Question,
    Status,
    assert_refused,
    assert_valid,
    certtool_verify,
    java_validate,
    openssl_verify,
)

pytestmark = pytest.mark.client


@pytest.fixture(scope="module")
def leaf(ca):
    return ca.issue()


def test_the_certificates_of_the_ca_have_no_errors(ca):
    for certificate in (ca.root, ca.intermediate):
        assert_no_errors(findings_in_certificate(certificate))


def test_the_servers_own_certificate_has_no_errors(ca):
    pem = ssl.get_server_certificate(("localhost", ca.server.https_port))
    own = x509.load_pem_x509_certificate(pem.encode())
    found = findings_in_certificate(own)
    # pkilint takes a name of one label, localhost, for no domain name.
    assert_no_errors(finding for finding in found if finding.code != "pkix.invalid_domain_name_syntax")
    assert_valid(openssl_verify(own, ca.party), certtool_verify(own, ca.party, host="localhost"))


def test_a_leaf_is_accepted_for_its_name(ca, leaf):
    (name,) = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert_no_errors(findings_in_certificate(leaf))
    assert_valid(openssl_verify(leaf, ca.party), certtool_verify(leaf, ca.party, host=name.value))
    assert_refused(certtool_verify(leaf, ca.party, host="another.example.test"))


def test_java_finds_the_issuer_where_the_leaf_says(ca, leaf):
    """The URL of caIssuers (RFC 5280 §4.2.2.1)."""
    (built,) = java_validate(Question(leaf=leaf, party=ca.party.with_intermediates(), means="none"))
    assert_valid(built)


# ---------------------------------------------------------------- profiles


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A certificate to be ordered, and what it is good for."""

    name: str | None = None
    rsa_bits: int | None = None
    purposes: tuple[str, ...] = ("sslserver",)
    """For `openssl verify`. Its version 3.0 has none for code signing."""


SAMPLES = {
    "server": Sample(),
    "client": Sample(purposes=("sslclient",)),
    "mtls": Sample(purposes=("sslserver", "sslclient")),
    "shortlived": Sample(),
    "clara_service_auth": Sample(name="service.clara.vcc.internal", purposes=("sslserver", "sslclient")),
    "clara_model_signing": Sample(rsa_bits=4096, purposes=("any",)),
    "covina_orchestrator": Sample(name="covina.vcc.internal", purposes=("sslserver", "sslclient")),
    "argus_api": Sample(name="api.argus.vcc.internal"),
    "veritas_pipeline": Sample(purposes=("sslclient",)),
}


@pytest.fixture(scope="module")
def certificates(ca):
    """One of each profile."""
    return {
        name: ca.issue(sample.name, key=_key(sample.rsa_bits), profile=name)
        for name, sample in SAMPLES.items()
    }


@cache
def _key(bits: int | None) -> PrivateKey:
    return new_key() if bits is None else rsa.generate_private_key(public_exponent=65537, key_size=bits)


def test_all_built_in_profiles_are_here():
    assert set(SAMPLES) == {profile.name for profile in profiles.BUILT_IN.values() if profile.offered}


@pytest.mark.parametrize("profile", SAMPLES)
def test_a_certificate_of_the_profile_is_good_for_its_purposes_alone(ca, certificates, profile):
    certificate, purposes = certificates[profile], SAMPLES[profile].purposes
    assert_no_errors(findings_in_certificate(certificate))
    for purpose in ("sslserver", "sslclient", "any"):
        verdict = openssl_verify(certificate, ca.party, purpose=purpose)
        assert (verdict.status is Status.VALID) == (purpose in {*purposes, "any"}), verdict.said
    assert_valid(certtool_verify(certificate, ca.party))


def test_java_accepts_certificates_of_every_profile(ca, certificates):
    assert_valid(
        *java_validate(*(Question(leaf=c, party=ca.party, means="none") for c in certificates.values()))
    )
