"""The name policy: denied wins, an allow-list is complete, suffixes end at dots."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.core import identifiers
from acme_ca.core.policy import NamePolicy
from acme_ca.core.problems import ErrorType

TEN = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
INTERNAL = NamePolicy(allowed_domains=("vcc.internal",))
DENYING = NamePolicy(denied_domains=("secret.vcc.internal",), allowed_domains=("vcc.internal",))
NETWORKS = NamePolicy(allowed_ip_networks=TEN)

CASES = {
    "no policy": (NamePolicy(), "dns", "any.example.com", True),
    "no policy, address": (NamePolicy(), "ip", "192.0.2.1", True),
    "allowed itself": (INTERNAL, "dns", "vcc.internal", True),
    "allowed below": (INTERNAL, "dns", "a.b.vcc.internal", True),
    "allowed wildcard": (INTERNAL, "dns", "*.vcc.internal", True),
    "allowed in other case": (INTERNAL, "dns", "A.VCC.Internal", True),
    "not allowed": (INTERNAL, "dns", "example.com", False),
    "allowed only as text": (INTERNAL, "dns", "evilvcc.internal", False),
    "allowed as prefix": (INTERNAL, "dns", "vcc.internal.example.com", False),
    "parent of the allowed": (INTERNAL, "dns", "x.internal", False),
    "wildcard over the allowed": (INTERNAL, "dns", "*.x.internal", False),
    "address beside a list of domains": (INTERNAL, "ip", "10.0.0.1", False),
    "denied itself": (DENYING, "dns", "secret.vcc.internal", False),
    "denied below": (DENYING, "dns", "a.secret.vcc.internal", False),
    "denied wildcard": (DENYING, "dns", "*.secret.vcc.internal", False),
    "beside the denied": (DENYING, "dns", "a.vcc.internal", True),
    "address in a network": (NETWORKS, "ip", "10.1.2.3", True),
    "IPv6 in a network": (NETWORKS, "ip", "fd00::1", True),
    "address outside": (NETWORKS, "ip", "192.0.2.1", False),
    "name beside a list of networks": (NETWORKS, "dns", "vcc.internal", False),
}


@pytest.mark.parametrize(("policy", "kind", "value", "allowed"), CASES.values(), ids=CASES)
def test_which_names_are_issued(policy, kind, value, allowed):
    identifier = identifiers.parse(kind, value)
    violations = policy.violations([identifier])
    assert (violations == []) is allowed
    for problem in violations:
        assert (problem.type, problem.identifier) == (ErrorType.REJECTED_IDENTIFIER, identifier)
        assert identifier.value in problem.detail


def test_each_identifier_has_its_own_problem():
    wanted = [identifiers.dns(name) for name in ("a.vcc.internal", "b.example", "c.example")]
    assert [problem.identifier for problem in INTERNAL.violations(wanted)] == wanted[1:]


LABELS = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=3).map(".".join)


@given(LABELS, LABELS, st.lists(LABELS, max_size=3))
def test_denied_wins(below, denied, allowed):
    policy = NamePolicy(allowed_domains=tuple(allowed), denied_domains=(denied,))
    for name in (denied, f"{below}.{denied}"):
        assert policy.violations([identifiers.dns(name)])


def test_a_wildcard_over_a_denied_name_would_cover_it():
    """`*.vcc.internal` is good for `secret.vcc.internal`, which is denied."""
    assert DENYING.violations([identifiers.dns("*.vcc.internal")])
