"""Clients that ask for a profile (draft-ietf-acme-profiles)."""

from datetime import timedelta

import pytest
from cryptography import x509

from tests.support.chains import assert_good
from tests.support.issuing import extensions_of

pytestmark = pytest.mark.client

WEEK = timedelta(days=7)
SECOND = timedelta(seconds=1)


def life(leaf: x509.Certificate) -> timedelta:
    return leaf.not_valid_after_utc - leaf.not_valid_before_utc + SECOND


@pytest.mark.parametrize("option", ["--required-profile", "--preferred-profile"])
def test_certbot_asks_for_a_profile_and_renews_with_it(certbot, new_hosts, option):
    (host,) = new_hosts(1)
    certbot.run("certonly", *certbot.http01, "--cert-name=main", f"--domain={host}", option, "shortlived")
    assert_good(certbot.issued("main"), host, root=certbot.server.root)
    first = certbot.issued("main").leaf
    assert life(first) == WEEK
    assert not extensions_of(first).keys() & {"cRLDistributionPoints", "authorityInfoAccess"}
    certbot.run("renew", "--force-renewal", "--no-random-sleep-on-renew")
    again = certbot.issued("main").leaf
    assert again.serial_number != first.serial_number
    assert life(again) == WEEK


def test_certbot_says_that_a_required_profile_is_not_offered(certbot, new_hosts):
    (host,) = new_hosts(1)
    said = certbot.fail(
        "certonly", *certbot.http01, f"--domain={host}", "--required-profile", "ocsp_responder"
    )
    assert "This CA does not offer the profile" in said


def test_certbot_does_without_a_preferred_profile(certbot, new_hosts):
    (host,) = new_hosts(1)
    certbot.run(
        "certonly", *certbot.http01, "--cert-name=main", f"--domain={host}", "--preferred-profile", "nonesuch"
    )
    assert life(certbot.issued("main").leaf) == timedelta(days=90)


def test_certbot_is_told_which_name_the_profile_does_not_allow(certbot, new_hosts):
    (host,) = new_hosts(1)
    said = certbot.fail("certonly", *certbot.http01, f"--domain={host}", "--required-profile", "argus_api")
    assert f"The profile argus_api is not for {host}" in said
