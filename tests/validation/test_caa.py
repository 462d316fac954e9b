"""CAA: RFC 8659 with RFC 8657."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from acme_ca.core import identifiers
from acme_ca.core.challenges import ChallengeType
from acme_ca.core.problems import ErrorType
from acme_ca.validation.caa import CaaRecord, CaaRules, IssueValue, forbidden, parse_issue
from acme_ca.validation.dns01 import expected_text
from tests.support.dns import DROP, GARBAGE, NODATA, NXDOMAIN, REFUSED, SERVFAIL, DnsServer
from tests.validation.conftest import ACCOUNT, ATTEMPT, NAME, TOKEN, assert_problem

CA = "ca.example.test"
OTHER = "letsencrypt.org"
WILDCARD = replace(ATTEMPT, identifier=identifiers.dns(f"*.{NAME}"), challenge=ChallengeType.DNS_01)


# ---------------------------------------------------------------- the grammar (RFC 8659 §4.2)

PARSED = {
    "": ("", ()),
    ";": ("", ()),
    "  ;\t": ("", ()),
    "ca.example.test": (CA, ()),
    " \tCA.Example.Test\t ": (CA, ()),
    "ca.example.test;": (CA, ()),
    "ca.example.test; account=230123": (CA, (("account", "230123"),)),
    "ca.example.test;a=1;b=2": (CA, (("a", "1"), ("b", "2"))),
    "ca.example.test ; A = 1 ; b-c = x=y ": (CA, (("a", "1"), ("b-c", "x=y"))),
    "ca.example.test; empty=": (CA, (("empty", ""),)),
    "; a=1": ("", (("a", "1"),)),
    "localhost": ("localhost", ()),
    "a--b.test": ("a--b.test", ()),
}
MALFORMED = [
    "%%%%%",
    "ca.example.test account=1",
    "ca.example.test; account",
    "ca.example.test; =1",
    "ca.example.test; a=1;",
    "ca.example.test; a=1;;b=2",
    "ca.example.test; a=1 2",
    "ca.example.test; a_b=1",
    "ca.example.test; -a=1",
    "ca.example.test; a=\u00e9",
    "ca.example.test; a=\x7f",
    "ca.example.test.",
    ".ca.example.test",
    "ca..example.test",
    "-ca.example.test",
    "ca-.example.test",
    "ca_x.example.test",
    "*.example.test",
    "ca.example.test\n",
    "ca.example.test\0",
    "\u00e9.test",
]


@pytest.mark.parametrize("value", PARSED)
def test_issue_values(value):
    assert parse_issue(value) == IssueValue(*PARSED[value])


@pytest.mark.parametrize("value", MALFORMED)
def test_malformed_issue_values(value):
    assert parse_issue(value) is None


@given(st.one_of(st.text(), st.text(alphabet="ca.;=- \t1A", max_size=30)))
@example("a=" * 5000)
@example("-" * 100_000)
def test_any_issue_value_is_read_or_malformed(value):
    """Lesson 24."""
    parsed = parse_issue(value)
    if parsed is not None:
        printed = "; ".join([parsed.issuer, *(f"{tag}={text}" for tag, text in parsed.parameters)])
        assert parse_issue(printed) == parsed


# ---------------------------------------------------------------- the rule


def caa(*properties: tuple[int, str, str]) -> list[CaaRecord]:
    return [CaaRecord(*one) for one in properties]


PERMITTED = {
    "this CA": caa((0, "issue", CA)),
    "this CA in capitals": caa((0, "ISSUE", "CA.EXAMPLE.TEST")),
    "this CA among others": caa((0, "issue", OTHER), (0, "issue", CA)),
    "critical and known": caa((128, "issue", CA), (128, "iodef", "mailto:x@y.test")),
    "only iodef": caa((0, "iodef", "mailto:x@y.test")),
    "only an unknown property": caa((0, "contactemail", "x@y.test")),
    "unknown flags": caa((1, "issue", CA), (127, "future", "x")),
    "issuewild does not concern a name": caa((0, "issuewild", ";")),
    "issuewild beside issue": caa((0, "issue", CA), (0, "issuewild", OTHER)),
    "this account": caa((0, "issue", f"{CA}; accounturi={ACCOUNT}")),
    "this account, tag in capitals": caa((0, "issue", f"{CA}; AccountURI={ACCOUNT}")),
    "this method": caa((0, "issue", f"{CA}; validationmethods=http-01")),
    "this method among others": caa((0, "issue", f"{CA}; validationmethods=dns-01,http-01,x-y")),
    "account and method": caa((0, "issue", f"{CA}; validationmethods=http-01; accounturi={ACCOUNT}")),
    "another property permits": caa((0, "issue", f"{CA}; accounturi=https://x.test/"), (0, "issue", CA)),
    "unknown parameter": caa((0, "issue", f"{CA}; policy=ev")),
}
FORBIDDEN = {
    "nobody": (caa((0, "issue", ";")), "no property names this CA"),
    "nobody, empty": (caa((0, "issue", "")), "no property"),
    "another CA": (caa((0, "issue", OTHER)), "no property"),
    "a parent of this CA": (caa((0, "issue", "example.test")), "no property"),
    "a child of this CA": (caa((0, "issue", f"x.{CA}")), "no property"),
    "malformed": (caa((0, "issue", "%%%%%")), "no property"),
    "this CA, malformed parameter": (caa((0, "issue", f"{CA}; nothing")), "no property"),
    "unknown and critical": (caa((0, "issue", CA), (128, "future", "x")), "critical"),
    "unknown and critical, alone": (caa((128, "future", "x")), "critical"),
    "unknown and critical, other bits too": (caa((0, "issue", CA), (0x81, "future", "x")), "critical"),
    "issuemail and critical": (caa((128, "issuemail", CA)), "critical"),
    "another account": (caa((0, "issue", f"{CA}; accounturi={ACCOUNT}2")), "accounturi"),
    "account in other case": (caa((0, "issue", f"{CA}; accounturi={ACCOUNT.upper()}")), "accounturi"),
    "no account": (caa((0, "issue", f"{CA}; accounturi=")), "accounturi"),
    "two accounts": (caa((0, "issue", f"{CA}; accounturi={ACCOUNT}; accounturi={ACCOUNT}")), "accounturi"),
    "two accounts in other case": (
        caa((0, "issue", f"{CA}; accounturi={ACCOUNT}; ACCOUNTURI=x")),
        "accounturi",
    ),
    "another method": (caa((0, "issue", f"{CA}; validationmethods=dns-01")), "validationmethods"),
    "no method": (caa((0, "issue", f"{CA}; validationmethods=")), "validationmethods"),
    "method in other case": (caa((0, "issue", f"{CA}; validationmethods=HTTP-01")), "validationmethods"),
    "malformed methods": (caa((0, "issue", f"{CA}; validationmethods=http-01,")), "validationmethods"),
    "method as prefix": (caa((0, "issue", f"{CA}; validationmethods=http-011")), "validationmethods"),
    "methods twice": (
        caa((0, "issue", f"{CA}; validationmethods=http-01; validationmethods=http-01")),
        "validationmethods",
    ),
    "right method, wrong account": (
        caa((0, "issue", f"{CA}; validationmethods=http-01; accounturi=x")),
        "accounturi",
    ),
    "right account and right method in two properties": (
        caa(
            (0, "issue", f"{CA}; accounturi={ACCOUNT}; validationmethods=dns-01"),
            (0, "issue", f"{CA}; accounturi=x"),
        ),
        "validationmethods",
    ),
}
WILDCARDS_PERMITTED = {
    "issue": caa((0, "issue", CA)),
    "issuewild": caa((0, "issuewild", CA)),
    "issuewild wins": caa((0, "issue", OTHER), (0, "issuewild", CA)),
    "issuewild in capitals": caa((0, "issue", ";"), (0, "IssueWild", CA)),
    "neither": caa((0, "iodef", "mailto:x@y.test")),
}
WILDCARDS_FORBIDDEN = {
    "issue": caa((0, "issue", OTHER)),
    "issuewild wins": caa((0, "issue", CA), (0, "issuewild", ";")),
    "issuewild of another": caa((0, "issue", CA), (0, "issuewild", OTHER)),
    "malformed issuewild": caa((0, "issue", CA), (0, "issuewild", "%%%")),
    "method": caa((0, "issuewild", f"{CA}; validationmethods=http-01")),
}


@pytest.mark.parametrize("records", PERMITTED.values(), ids=PERMITTED)
def test_permitted(records):
    assert forbidden(records, ATTEMPT, (CA,)) is None


@pytest.mark.parametrize(("records", "words"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_forbidden(records, words):
    assert words in forbidden(records, ATTEMPT, (CA,))


@pytest.mark.parametrize("records", WILDCARDS_PERMITTED.values(), ids=WILDCARDS_PERMITTED)
def test_wildcards_permitted(records):
    assert forbidden(records, WILDCARD, (CA,)) is None


@pytest.mark.parametrize("records", WILDCARDS_FORBIDDEN.values(), ids=WILDCARDS_FORBIDDEN)
def test_wildcards_forbidden(records):
    assert forbidden(records, WILDCARD, (CA,))


def test_any_identity_of_this_ca_will_do():
    assert forbidden(PERMITTED["this CA"], ATTEMPT, ("second.test", CA)) is None


@pytest.mark.parametrize("identities", [("",), (CA, ""), (";",), ("a b",)])
def test_identities_that_are_no_names_stop_the_start(identities):
    """An empty one would make `issue ";"`, which forbids, mean this CA."""
    with pytest.raises(ValueError, match="CAA"):
        CaaRules(identities=identities, exempt=())


# ---------------------------------------------------------------- the lookup


@pytest.fixture
def checking(http, web):
    web.serve_token(TOKEN, ATTEMPT.key_authorization)
    return http.changed(caa=True)


def caa_queries(dns) -> list[str]:
    return [name for name, kind in dns.queries if kind == "CAA"]


async def test_no_record_up_to_the_top_permits(dns, checking):
    assert (await checking.outcome()).problem is None
    assert caa_queries(dns) == [NAME, "example.test", "test"]


@pytest.mark.parametrize("at", [NAME, "example.test", "test"])
async def test_the_first_name_with_records_decides(dns, checking, at):
    dns.add(at, "CAA", (0, "issue", OTHER))
    problem = await checking.problem()
    assert_problem(problem, ErrorType.CAA, at, NAME, f'issue "{CA}"')
    assert OTHER not in problem.detail
    dns.remove(at, "CAA")
    dns.add(at, "CAA", (0, "issue", CA))
    assert (await checking.outcome()).problem is None


async def test_a_parent_does_not_overrule_its_child(dns, checking):
    dns.add(NAME, "CAA", (0, "issue", CA))
    dns.add("example.test", "CAA", (0, "issue", ";"))
    assert (await checking.outcome()).problem is None


async def test_a_failing_lookup_above_the_deciding_name_does_not_matter(dns, checking):
    dns.add(NAME, "CAA", (0, "issue", CA))
    dns.answer("example.test", SERVFAIL, kind="CAA")
    assert (await checking.outcome()).problem is None


async def test_a_long_way_up_is_climbed_to_its_end(dns, checking):
    deep = "a.b.c.d.e.f.g.h.example.test"
    dns.add("test", "CAA", (0, "issue", ";"))
    dns.add(f"_acme-challenge.{deep}", "TXT", expected_text(WILDCARD.key_authorization))
    outcome = await checking.outcome(identifier=identifiers.dns(deep), challenge=ChallengeType.DNS_01)
    assert outcome.problem is not None
    assert outcome.problem.type is ErrorType.CAA
    assert len(caa_queries(dns)) == 10


async def test_a_set_without_issue_ends_the_climb(dns, checking):
    dns.add(NAME, "CAA", (0, "iodef", "mailto:x@y.test"))
    dns.add("example.test", "CAA", (0, "issue", ";"))
    assert (await checking.outcome()).problem is None


@pytest.mark.parametrize("answer", [NXDOMAIN, NODATA])
async def test_absence_climbs(dns, checking, answer):
    dns.answer(NAME, answer, kind="CAA")
    dns.add("example.test", "CAA", (0, "issue", ";"))
    assert_problem(await checking.problem(), ErrorType.CAA, "example.test")


@pytest.mark.parametrize(
    ("at", "answer"),
    [(NAME, REFUSED), *((at, answer) for at in (NAME, "test") for answer in (SERVFAIL, DROP, GARBAGE))],
)
@pytest.mark.usefixtures("silent_dns")
async def test_a_failing_lookup_fails_closed(dns, checking, answer, at):
    """Lesson 10."""
    dns.answer(at, answer, kind="CAA")
    assert_problem(await checking.problem(), ErrorType.DNS, "CAA", at)


async def test_a_refusal_below_an_answer_is_no_end_of_the_way(dns, checking):
    """Lesson 10: what a server hides in the middle may forbid."""
    dns.answer("example.test", REFUSED, kind="CAA")
    assert_problem(await checking.problem(), ErrorType.DNS, "CAA", "example.test")
    dns.add("test", "CAA", (0, "issue", ";"))
    assert (await checking.problem()).type is ErrorType.DNS


async def test_a_refusal_behind_a_cname_is_no_end_of_the_way(checking):
    with DnsServer(authoritative_only=True) as dns:
        dns.add(NAME, "A", "127.0.0.1")
        dns.add("example.test", "CNAME", "other.zone")
        dns.answer("other.zone", REFUSED, kind="CAA")
        dns.answer("test", REFUSED, kind="CAA")
        elsewhere = checking.changed(caa=True, resolvers=dns.address)
        assert_problem(await elsewhere.problem(), ErrorType.DNS, "CAA")


async def test_a_ca_without_a_name_is_permitted_by_no_property(dns, checking):
    """As when `public_url` has an address and caa.identities is not set."""
    nameless = replace(checking, caa_identities=())
    assert (await nameless.outcome()).problem is None
    for value in (CA, ";"):
        dns.remove(NAME, "CAA")
        dns.add(NAME, "CAA", (0, "issue", value))
        assert_problem(await nameless.problem(), ErrorType.CAA, "operator")


async def test_the_way_up_ends_where_the_operators_own_servers_know_nothing(dns, checking):
    """An authoritative server without recursion refuses what is above its zones."""
    dns.answer("test", REFUSED, kind="CAA")
    assert (await checking.outcome()).problem is None
    dns.add("example.test", "CAA", (0, "issue", ";"))
    assert_problem(await checking.problem(), ErrorType.CAA, "example.test")


async def test_the_critical_flag_on_the_wire(dns, checking):
    dns.add(NAME, "CAA", (0, "issue", CA), (128, "future", "x"))
    assert_problem(await checking.problem(), ErrorType.CAA, "critical")
    dns.remove(NAME, "CAA")
    dns.add(NAME, "CAA", (0, "issue", CA), (0, "future", "x"))
    assert (await checking.outcome()).problem is None


WIRE = {
    "empty value": bytes([0, 5]) + b"issue",
    "no ASCII": bytes([0, 5]) + b"issue\xff\xfe",
    "empty tag": bytes([0, 0]) + CA.encode(),
    "tag longer than the record": bytes([0, 200]) + b"issue",
    "nothing": b"",
}


@pytest.mark.parametrize("rdata", WIRE.values(), ids=WIRE)
async def test_malformed_records_permit_nothing(dns, checking, rdata):
    dns.add(NAME, "CAA", rdata)
    problem = await checking.problem()
    assert problem.type in {ErrorType.CAA, ErrorType.DNS}


async def test_cnames_are_followed_and_the_climb_goes_on_from_the_name(proving, web):
    """RFC 8659 §3: the records at the alias' target count; then the parents of the name, not of the target."""
    web.serve_token(TOKEN, ATTEMPT.key_authorization)
    for authoritative_only in (False, True):
        with DnsServer(authoritative_only=authoritative_only) as dns:
            dns.add(NAME, "CNAME", "node.farm.invalid")
            dns.add("node.farm.invalid", "A", "127.0.0.1")
            dns.add("farm.invalid", "CAA", (0, "issue", OTHER))
            checking = proving.changed(caa=True, resolvers=dns.address, http01_port=web.port)
            assert (await checking.outcome()).problem is None
            assert "farm.invalid" not in caa_queries(dns)
            dns.add("node.farm.invalid", "CAA", (0, "issue", OTHER))
            assert_problem(await checking.problem(), ErrorType.CAA, NAME)


async def test_a_change_is_seen_at_once(dns, checking):
    validator = checking.validator()
    assert (await validator.validate(ATTEMPT)).problem is None
    dns.add(NAME, "CAA", (0, "issue", ";"))
    assert (await validator.validate(ATTEMPT)).problem.type is ErrorType.CAA


async def test_accounturi_and_validationmethods_on_the_wire(dns, checking):
    dns.add(NAME, "CAA", (0, "issue", f"{CA}; accounturi={ACCOUNT}; validationmethods=http-01"))
    assert (await checking.outcome()).problem is None
    assert_problem(await checking.problem(account_url=ACCOUNT + "0"), ErrorType.CAA, "accounturi")


async def test_wildcards(dns, proving):
    dns.add(f"_acme-challenge.{NAME}", "TXT", expected_text(WILDCARD.key_authorization))
    dns.add("example.test", "CAA", (0, "issue", CA), (0, "issuewild", ";"))
    checking = proving.changed(caa=True)
    assert (await checking.outcome(replace(WILDCARD, identifier=identifiers.dns(NAME)))).problem is None
    assert_problem(await checking.problem(WILDCARD), ErrorType.CAA, f"*.{NAME}", "issuewild")
    assert "*" not in "".join(caa_queries(dns))


async def test_a_failed_challenge_is_told_first(dns, checking, web):
    web.serve_token(TOKEN, "wrong")
    dns.add(NAME, "CAA", (0, "issue", ";"))
    assert_problem(await checking.problem(), ErrorType.UNAUTHORIZED)


@pytest.mark.parametrize("suffix", [NAME, "example.test", "test"])
async def test_exempt_suffixes_are_not_asked_about(dns, checking, suffix):
    dns.add(NAME, "CAA", (0, "issue", ";"))
    assert (await checking.changed(caa=True, caa_exempt=("a.test", suffix)).outcome()).problem is None
    assert caa_queries(dns) == []


@pytest.mark.parametrize("suffix", ["ample.test", "ww.example.test", f"x.{NAME}", "example"])
async def test_a_suffix_ends_at_a_dot(dns, checking, suffix):
    dns.add(NAME, "CAA", (0, "issue", ";"))
    assert_problem(await checking.changed(caa=True, caa_exempt=(suffix,)).problem(), ErrorType.CAA)


async def test_off(dns, checking):
    dns.add(NAME, "CAA", (0, "issue", ";"))
    assert (await checking.changed(caa=False).outcome()).problem is None
    assert caa_queries(dns) == []


async def test_addresses_have_no_caa(dns, checking):
    assert (await checking.outcome(identifier=identifiers.ip("127.0.0.1"))).problem is None
    assert dns.queries == []
