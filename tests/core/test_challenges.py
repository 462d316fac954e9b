"""Which challenge can prove control of what."""

import pytest

from acme_ca.core import identifiers
from acme_ca.core.challenges import ChallengeType, proving, proving_any
from acme_ca.core.names import NameRule

EVERY = set(ChallengeType)
DNS = {ChallengeType.DNS_01}
DIALLED = {ChallengeType.HTTP_01, ChallengeType.TLS_ALPN_01}


@pytest.mark.parametrize(
    ("identifier", "challenges"),
    [
        (identifiers.dns("a.example"), EVERY),
        (identifiers.dns("*.a.example"), DNS),
        (identifiers.ip("10.0.0.1"), DIALLED),
        (identifiers.ip("2001:db8::1"), DIALLED),
    ],
)
def test_an_identifier(identifier, challenges):
    assert proving(identifier) == challenges


@pytest.mark.parametrize(
    ("rule", "challenges"),
    [
        ("exact:a.example", EVERY),
        ("exact:*.a.example", DNS),
        ("exact:10.0.0.1", DIALLED),
        ("network:10.0.0.0/8", DIALLED),
        ("suffix:a.example", EVERY),
        ("wildcard:*.a.example", EVERY),
        ("regex:[a-z]+", EVERY),
    ],
)
def test_something_that_a_rule_matches(rule, challenges):
    assert proving_any(NameRule.parse(rule)) == challenges
