"""Certificates of a running server, judged by pkilint, OpenSSL, GnuTLS and Java."""

import ssl

import pytest
from cryptography import x509

from tests.support.lint import assert_no_errors, findings_in_certificate
from tests.support.relying import (
    Question,
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
    (built,) = java_validate(Question(leaf=leaf, party=ca.party.with_intermediates(), means="aia"))
    assert_valid(built)
