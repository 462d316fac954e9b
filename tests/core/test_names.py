import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.core.identifiers import Identifier
from acme_ca.core.names import MAX_PATTERN, NameRule
from tests.support.issuing import names

MATCHES = {
    "exact:a.example.org": (
        ["a.example.org"],
        ["b.a.example.org", "example.org", "*.a.example.org", "10.0.0.1"],
    ),
    "exact:*.example.org": (["*.example.org"], ["a.example.org", "example.org"]),
    "exact:10.0.0.1": (["10.0.0.1"], ["10.0.0.2", "a.example.org"]),
    "exact:2001:db8::1": (["2001:db8::1"], ["2001:db8::2"]),
    "suffix:example.org": (
        ["example.org", "a.example.org", "a.b.example.org", "*.example.org", "*.a.example.org"],
        ["xexample.org", "org", "example.org.evil", "10.0.0.1"],
    ),
    "suffix:internal": (["internal", "a.internal"], ["internal.evil"]),
    "wildcard:*.example.org": (
        ["a.example.org", "*.example.org"],
        ["example.org", "a.b.example.org", "*.a.example.org", "10.0.0.1"],
    ),
    r"regex:web[0-9]+\.example\.org": (
        ["web1.example.org", "web23.example.org"],
        ["web.example.org", "web1xexample.org", "web1.example.org.evil", "a.web1.example.org"],
    ),
    r"regex:a|b": (["a", "b"], ["ab", "aevil", "evilb"]),
    r"regex:.*": (["a.example.org"], ["*.example.org", "10.0.0.1"]),
    r"regex:[^.]\.example\.org": (["a.example.org"], ["*.example.org"]),
    r"regex:(?i)A\.EXAMPLE": (["a.example"], ["b.example"]),
    "network:10.0.0.0/8": (["10.0.0.1", "10.255.255.255"], ["11.0.0.1", "2001:db8::1", "a.example.org"]),
    "network:2001:db8::/32": (["2001:db8::1"], ["2001:db9::1", "10.0.0.1"]),
    "network:10.0.0.1/32": (["10.0.0.1"], ["10.0.0.2"]),
}


@pytest.mark.parametrize(("text", "found"), MATCHES.items(), ids=MATCHES)
def test_what_a_rule_matches(text, found):
    rule = NameRule.parse(text)
    assert str(rule) == text
    matched, others = (names(*several) for several in found)
    assert [name.value for name in matched if not rule.matches(name)] == []
    assert [name.value for name in others if rule.matches(name)] == []


REFUSED = {
    "": "kind:value",
    "example.org": "kind:value",
    "prefix:example.org": "kind:value",
    "exact:": "empty label",
    "exact:bad name": "letters, digits",
    "exact:1.2.3.256": "no IPv4 or IPv6",
    "suffix:.example.org": "empty label",
    "suffix:*.example.org": "suffix:example.org means",
    "wildcard:example.org": r"write wildcard:\*.example.org",
    "wildcard:*": "letters, digits",
    "network:10.0.0.1/8": "host bits",
    "network:example.org": "no network",
    "network:::ffff:10.0.0.0/104": "write network:10.0.0.0/8",
    "network:::ffff:0:0/96": "write network:0.0.0.0/0",
    "regex:[": "unclosed character class",
    "regex:a)|(?:b": "unopened group",
    "regex:(?=a)": "look-around",
    r"regex:(a)\1": "backreferences",
    "regex:(?x)a #": "cannot be used",
    "regex:((a{1000}){1000}){1000}": "size limit",
    "regex:" + "a" * (MAX_PATTERN + 1): "at most 256",
}


@pytest.mark.parametrize(("text", "why"), REFUSED.items(), ids=[text[:30] for text in REFUSED])
def test_a_rule_that_cannot_be_used_is_refused(text, why):
    with pytest.raises(ValueError, match=why):
        NameRule.parse(text)


@pytest.mark.parametrize("value", [None, 1, ["exact:a"], {"exact": "a"}])
def test_a_rule_is_text(value):
    with pytest.raises(ValueError, match="kind:value"):
        NameRule.parse(value)


def test_a_rule_is_kept_in_its_canonical_form():
    assert str(NameRule.parse("exact:A.Example.org")) == "exact:a.example.org"
    assert str(NameRule.parse("network:10.0.0.1")) == "network:10.0.0.1/32"


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a*)*b", "(a|aa)+b", "(?:a?){250}a{250}b", "(.*)(.*)(.*)(.*)(.*)b"]
)
def test_no_name_makes_a_pattern_run_for_ever(pattern):
    """A backtracking engine would not end within the age of the universe; the test's timeout is the judge."""
    longest = Identifier(names("a")[0].type, ".".join(["a" * 63] * 4))
    assert not NameRule.parse(f"regex:{pattern}").matches(longest)


# ---------------------------------------------------------------- laws

labels = st.text("ab", min_size=1, max_size=2)
plain = st.lists(labels, min_size=1, max_size=4).map(".".join)
wild = st.lists(labels, min_size=2, max_size=3).map(lambda parts: "*." + ".".join(parts))
addresses = st.integers(0, 7).map(lambda last: f"10.0.0.{last}")
identifiers = (plain | wild | addresses).map(lambda text: names(text)[0])
rules = (
    (plain | wild | addresses).map("exact:{}".format)
    | plain.map("suffix:{}".format)
    | wild.map("wildcard:{}".format)
    | plain.map(lambda name: "regex:" + re.escape(name))
    | st.sampled_from(["10.0.0.0/30", "10.0.0.4/31", "10.0.0.6", "10.0.0.0/24"]).map("network:{}".format)
).map(NameRule.parse)


@given(rules, rules, identifiers)
def test_rules_that_match_the_same_overlap(one, another, identifier):
    if one.matches(identifier) and another.matches(identifier):
        assert one.overlaps(another)
        assert another.overlaps(one)


@given(rules, rules)
def test_overlapping_is_mutual(one, another):
    assert one.overlaps(another) == another.overlaps(one)


@given(rules)
def test_what_is_printed_reads_the_same(rule):
    assert NameRule.parse(str(rule)) == rule


@given(plain, plain)
def test_an_escaped_name_is_a_pattern_for_itself_alone(name, other):
    rule = NameRule.parse("regex:" + re.escape(name))
    assert rule.matches(names(other)[0]) == (name == other)


DISJOINT = [
    ("suffix:a.example", "suffix:b.example"),
    ("exact:a.example", "suffix:b.example"),
    ("wildcard:*.a.example", "suffix:x.y.a.example"),
    ("wildcard:*.a.example", "wildcard:*.b.a.example"),
    ("network:10.0.0.0/8", "suffix:example"),
    ("network:10.0.0.0/8", "network:2001:db8::/32"),
    ("network:10.0.0.0/8", "regex:.*"),
    ("exact:a.example", "regex:b.*"),
]


@pytest.mark.parametrize(("one", "another"), DISJOINT)
def test_rules_that_nothing_can_match_both(one, another):
    assert not NameRule.parse(one).overlaps(NameRule.parse(another))
    assert not NameRule.parse(another).overlaps(NameRule.parse(one))
