"""The name policy: denied wins, an allow-list is complete, suffixes end at dots, each layer can only take away."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from acme_ca.core import identifiers
from acme_ca.core.codes import Code
from acme_ca.core.policy import Layer, NamePolicy, NameRules
from acme_ca.core.problems import ErrorType

TEN = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
INTERNAL = NamePolicy.of_settings(allowed_domains=("vcc.internal",))
DENYING = NamePolicy.of_settings(denied_domains=("secret.vcc.internal",), allowed_domains=("vcc.internal",))
NETWORKS = NamePolicy.of_settings(allowed_ip_networks=TEN)


def rules(*, allow=(), deny=(), who="the server") -> NamePolicy:
    return NamePolicy((Layer(who, NameRules(allow=allow, deny=deny)),))


NO_REGEX = rules(deny=[r"regex:.*-test\.example"])
EXACT = rules(deny=["exact:www.example", "exact:10.0.0.1", "network:192.168.0.0/16"])
ONE_LABEL = rules(deny=["wildcard:*.a.example"])
LISTED = rules(allow=["exact:*.a.example", "wildcard:*.b.example", r"regex:web\d+\.example", "exact:::1"])

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
    "denied wildcard below": (DENYING, "dns", "*.a.secret.vcc.internal", False),
    "wildcard that would cover the denied": (DENYING, "dns", "*.vcc.internal", False),
    "wildcard beside the denied": (DENYING, "dns", "*.a.vcc.internal", True),
    "beside the denied": (DENYING, "dns", "a.vcc.internal", True),
    "address in a network": (NETWORKS, "ip", "10.1.2.3", True),
    "IPv6 in a network": (NETWORKS, "ip", "fd00::1", True),
    "address outside": (NETWORKS, "ip", "192.0.2.1", False),
    "name beside a list of networks": (NETWORKS, "dns", "vcc.internal", False),
    "denied exactly": (EXACT, "dns", "www.example", False),
    "below what is denied exactly": (EXACT, "dns", "a.www.example", True),
    "wildcard over what is denied exactly": (EXACT, "dns", "*.example.example", True),
    "denied address": (EXACT, "ip", "10.0.0.1", False),
    "address in a denied network": (EXACT, "ip", "192.168.3.4", False),
    "another address": (EXACT, "ip", "10.0.0.2", True),
    "denied by an expression": (NO_REGEX, "dns", "a-test.example", False),
    "not denied by an expression": (NO_REGEX, "dns", "a.example", True),
    "wildcard that an expression may deny": (NO_REGEX, "dns", "*.x.example", False),
    "denied by a wildcard": (ONE_LABEL, "dns", "x.a.example", False),
    "the denied wildcard": (ONE_LABEL, "dns", "*.a.example", False),
    "two labels under a denied wildcard": (ONE_LABEL, "dns", "y.x.a.example", True),
    "wildcard below a denied one": (ONE_LABEL, "dns", "*.x.a.example", True),
    "an allowed wildcard": (LISTED, "dns", "*.a.example", True),
    "a name under a wildcard that is allowed alone": (LISTED, "dns", "x.a.example", False),
    "a name under an allowed wildcard": (LISTED, "dns", "x.b.example", True),
    "a name that an expression allows": (LISTED, "dns", "web7.example", True),
    "a name that has more than an expression": (LISTED, "dns", "web7.example.org", False),
    "an address allowed exactly": (LISTED, "ip", "::1", True),
}


@pytest.mark.parametrize(("policy", "kind", "value", "allowed"), CASES.values(), ids=CASES)
def test_which_names_are_issued(policy, kind, value, allowed):
    identifier = identifiers.parse(kind, value)
    violations = policy.violations([identifier])
    assert (violations == []) is allowed
    for problem in violations:
        assert (problem.type, problem.identifier) == (ErrorType.REJECTED_IDENTIFIER, identifier)
        assert problem.code in {Code.NAME_DENIED, Code.NAME_NOT_ALLOWED}
        assert identifier.value in problem.detail


def test_each_identifier_has_its_own_problem():
    wanted = [identifiers.dns(name) for name in ("a.vcc.internal", "b.example", "c.example")]
    assert [problem.identifier for problem in INTERNAL.violations(wanted)] == wanted[1:]


def test_who_refuses_and_by_which_rule_is_said():
    """What nobody allows is also said of the first that does not; what somebody denies comes before."""
    server = Layer("the server", NameRules(allow=["suffix:vcc.internal"]))
    service = Layer("the service clara", NameRules(deny=["suffix:secret.vcc.internal"]))
    policy = NamePolicy((server, service))
    denied, missing = policy.violations(
        [identifiers.dns("a.secret.vcc.internal"), identifiers.dns("b.example")]
    )
    assert (denied.code, missing.code) == (Code.NAME_DENIED, Code.NAME_NOT_ALLOWED)
    assert "suffix:secret.vcc.internal of the service clara denies it" in denied.detail
    assert "no rule of the server allows it" in missing.detail
    (covered,) = rules(deny=["exact:a.b.example"]).violations([identifiers.dns("*.b.example")])
    assert "denies names that it could cover" in covered.detail


@pytest.mark.parametrize(
    "document",
    [
        {"allow": ["vcc.internal"]},
        {"deny": [1]},
        {"allowed": []},
        {"allow": "suffix:a.example"},
        {"deny": None},
    ],
)
def test_rules_that_are_none_are_refused(document):
    with pytest.raises(ValidationError):
        NameRules.model_validate(document)


# ---------------------------------------------------------------- laws

LABELS = st.lists(st.text("abc", min_size=1, max_size=2), min_size=2, max_size=4).map(".".join)
NAMES = st.one_of(LABELS, LABELS.map("*.{}".format)).map(identifiers.dns)
RULES = st.one_of(
    LABELS.map("exact:{}".format),
    LABELS.map("suffix:{}".format),
    LABELS.map("wildcard:*.{}".format),
    LABELS.map("exact:*.{}".format),
)
POLICIES = st.builds(rules, allow=st.lists(RULES, max_size=3), deny=st.lists(RULES, max_size=2))


@given(LABELS, LABELS, st.lists(LABELS, max_size=3))
def test_denied_wins(below, denied, allowed):
    policy = NamePolicy.of_settings(allowed_domains=tuple(allowed), denied_domains=(denied,))
    for name in (denied, f"{below}.{denied}"):
        assert policy.violations([identifiers.dns(name)])


@given(POLICIES, POLICIES, NAMES)
def test_a_layer_can_only_take_away(one, other, name):
    both = NamePolicy((*one.layers, *other.layers))
    refused = bool(both.violations([name]))
    assert refused is bool(one.violations([name]) or other.violations([name]))


@given(POLICIES, POLICIES, NAMES)
def test_what_is_ruled_of_a_name_is_what_holds(one, other, name):
    both = NamePolicy((*one.layers, *other.layers))
    rulings = both.rulings(name)
    assert all(ruling.allowed for ruling in rulings) is (both.violations([name]) == [])
    for ruling in rulings:
        if ruling.rule is not None and ruling.allowed:
            assert ruling.rule.matches(name)


@given(st.lists(RULES, max_size=3), LABELS, st.text("abc", min_size=1, max_size=2))
def test_a_wildcard_is_refused_whenever_a_name_that_it_covers_is_denied(deny, base, label):
    """RFC 6125 §6.4.3."""
    policy = rules(deny=deny)
    if policy.violations([identifiers.dns(f"{label}.{base}")]):
        assert policy.violations([identifiers.dns(f"*.{base}")])


@given(st.lists(RULES, max_size=3), st.lists(RULES, max_size=3))
def test_what_is_stored_is_read_again(allow, deny):
    made = NameRules(allow=allow, deny=deny)
    assert NameRules.model_validate_json(made.model_dump_json()) == made
