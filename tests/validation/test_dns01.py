"""dns-01: RFC 8555 §8.4, lesson 8."""

from __future__ import annotations

from dataclasses import replace

import pytest

from acme_ca.core import identifiers
from acme_ca.core.challenges import ChallengeType
from acme_ca.core.problems import ErrorType
from acme_ca.validation.dns01 import expected_text
from tests.support.dns import DROP, GARBAGE, NODATA, NXDOMAIN, REFUSED, SERVFAIL, DnsServer
from tests.validation.conftest import ATTEMPT, NAME, assert_problem

DNS01 = replace(ATTEMPT, challenge=ChallengeType.DNS_01)
WILDCARD = replace(DNS01, identifier=identifiers.dns(f"*.{NAME}"))
TXT = f"_acme-challenge.{NAME}"
# RFC 8555 §8.1's token and thumbprint; computed with openssl: sha256, base64url, no padding
EXPECTED = "lCM7cZyQXcVHK2nnW3jjAhNT3Fvm18UN-kWZZknKoYM"


def test_the_expected_text():
    text = expected_text(
        "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
    )
    assert text == EXPECTED.encode()


@pytest.mark.parametrize("attempt", [DNS01, WILDCARD], ids=["name", "wildcard"])
async def test_a_txt_record_proves_control(dns, proving, attempt):
    dns.add(TXT, "TXT", EXPECTED)
    outcome = await proving.outcome(attempt)
    assert outcome.problem is None
    assert dns.queries == [(TXT, "TXT")]
    (entry,) = outcome.record
    assert (entry["asked"], entry["name"], entry["type"], entry["status"]) == ("dns", TXT, "TXT", "NOERROR")
    assert entry["answers"][0]["value"] == repr(EXPECTED.encode())


GOOD = {
    "among others": ["x", "another-challenge", EXPECTED, ""],
    "in two strings": [(EXPECTED[:20], EXPECTED[20:])],
    "in single characters": [tuple(EXPECTED)],
    "more than a UDP answer holds": [*("x" * 200 + str(n) for n in range(60)), EXPECTED],
}


@pytest.mark.parametrize("values", GOOD.values(), ids=GOOD)
async def test_any_of_several_records_counts(dns, proving, values):
    dns.add(TXT, "TXT", *values)
    assert (await proving.outcome(DNS01)).problem is None


async def test_large_answers_come_over_tcp(dns, proving):
    dns.add(TXT, "TXT", *GOOD["more than a UDP answer holds"])
    assert (await proving.outcome(DNS01)).problem is None
    assert dns.tcp_queries == 1


BAD = {
    "empty": [""],
    "another": ["A" * 43],
    "the key authorization itself": [DNS01.key_authorization],
    "padded": [EXPECTED + "="],
    "white space": [EXPECTED + " "],
    "quotes": [f'"{EXPECTED}"'],
    "other case": [EXPECTED.lower()],
    "its halves in two records": [EXPECTED[:20], EXPECTED[20:]],
    "no ASCII": [b"\xff\x00" + EXPECTED.encode()],
}


@pytest.mark.parametrize("values", BAD.values(), ids=BAD)
async def test_other_records_do_not(dns, proving, values):
    dns.add(TXT, "TXT", *values)
    outcome = await proving.changed(attempts=3, retry_delay=30).outcome(DNS01)
    assert_problem(outcome.problem, ErrorType.UNAUTHORIZED, TXT, str(len(values)))
    assert dns.asked(TXT, "TXT") == 1


async def test_nothing_of_a_record_is_repeated(dns, proving):
    dns.add(TXT, "TXT", "internal-secret")
    assert "secret" not in (await proving.problem(DNS01)).detail


async def test_a_record_at_the_name_itself_does_not_count(dns, proving):
    dns.add(NAME, "TXT", EXPECTED)
    assert_problem(await proving.problem(DNS01), ErrorType.DNS, TXT)


async def test_a_record_below_the_asterisk_does_not_count(dns, proving):
    dns.add(f"_acme-challenge.*.{NAME}", "TXT", EXPECTED)
    assert_problem(await proving.problem(WILDCARD), ErrorType.DNS, TXT)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (NXDOMAIN, "no TXT record"),
        (NODATA, "no TXT record"),
        (SERVFAIL, "SERVFAIL"),
        (REFUSED, "REFUSED"),
        (DROP, "no answer"),
        (GARBAGE, "failed"),
    ],
)
@pytest.mark.usefixtures("silent_dns")
async def test_no_record_is_a_dns_problem(dns, proving, answer, words):
    dns.answer(TXT, answer)
    assert_problem(await proving.problem(DNS01), ErrorType.DNS, words, TXT)


async def test_a_record_published_a_moment_later_is_seen(dns, proving):
    dns.answer(TXT, NXDOMAIN, NODATA, [EXPECTED], kind="TXT")
    outcome = await proving.changed(attempts=3).outcome(DNS01)
    assert outcome.problem is None
    assert [entry["status"] for entry in outcome.record] == ["NXDOMAIN", "NODATA", "NOERROR"]


@pytest.mark.parametrize("authoritative_only", [False, True])
async def test_cnames_are_followed(proving, authoritative_only):
    with DnsServer(authoritative_only=authoritative_only) as dns:
        dns.add(TXT, "CNAME", "first.Alias.test")
        dns.add("first.alias.test", "CNAME", "second.alias.test.")
        dns.add("second.alias.test", "TXT", EXPECTED)
        assert (await proving.changed(resolvers=dns.address).outcome(DNS01)).problem is None


async def test_cnames_are_followed_into_other_zones(proving):
    with DnsServer(authoritative_only=True) as first, DnsServer(authoritative_only=True) as second:
        first.add(TXT, "CNAME", "challenge.other.test")
        second.add("challenge.other.test", "CNAME", f"back.{NAME}")
        first.add(f"back.{NAME}", "TXT", EXPECTED)
        resolvers = f"example.test={first.address},other.test={second.address}"
        outcome = await proving.changed(resolvers=resolvers).outcome(DNS01)
    assert outcome.problem is None
    assert [entry["name"] for entry in outcome.record] == [TXT, "challenge.other.test", f"back.{NAME}"]


@pytest.mark.parametrize(("count", "proved"), [(10, True), (11, False)])
async def test_ten_cnames_are_followed_and_no_eleventh(proving, count, proved):
    with DnsServer(authoritative_only=True) as dns:
        dns.add(TXT, "CNAME", "n1.test")
        for step in range(1, count):
            dns.add(f"n{step}.test", "CNAME", f"n{step + 1}.test")
        dns.add(f"n{count}.test", "TXT", EXPECTED)
        problem = (await proving.changed(resolvers=dns.address).outcome(DNS01)).problem
    if proved:
        assert problem is None
    else:
        assert_problem(problem, ErrorType.DNS, "More than 10 CNAME", TXT)


@pytest.mark.parametrize("authoritative_only", [False, True])
@pytest.mark.parametrize("cycle", [[TXT], ["a.test", TXT], ["a.test", "b.test", "A.test"]])
async def test_cname_circles_are_stopped(proving, cycle, authoritative_only):
    with DnsServer(authoritative_only=authoritative_only) as dns:
        for at, to in zip([TXT, *cycle], cycle, strict=False):
            dns.add(at, "CNAME", to)
        problem = await proving.changed(resolvers=dns.address).problem(DNS01)
    assert_problem(problem, ErrorType.DNS, "circle", TXT)


async def test_a_cname_to_nothing(dns, proving):
    dns.add(TXT, "CNAME", "secret-target.test")
    problem = await proving.problem(DNS01)
    assert_problem(problem, ErrorType.DNS, TXT)
    assert "secret-target" not in problem.detail


async def test_a_record_of_another_name_in_the_answer_does_not_count(dns, proving, monkeypatch):
    # an answer whose TXT record belongs to a name that no CNAME leads to
    honest = dns.respond

    def dishonest(message: bytes, *, tcp: bool) -> bytes | None:
        answer = honest(message, tcp=tcp)
        return answer.replace(b"\xc0\x0c\x00\x10", b"\x00\x00\x10") if answer else answer

    dns.add(TXT, "TXT", EXPECTED)
    monkeypatch.setattr(dns, "respond", dishonest)
    outcome = await proving.outcome(DNS01)
    assert_problem(outcome.problem, ErrorType.DNS, TXT)
    assert outcome.record[0]["answers"][0]["value"] == repr(EXPECTED.encode())


async def test_an_address_has_no_dns_01(dns, proving):
    problem = await proving.problem(DNS01, identifier=identifiers.ip("127.0.0.1"))
    assert_problem(problem, ErrorType.REJECTED_IDENTIFIER, "127.0.0.1")
    assert dns.queries == []


async def test_a_name_too_long_to_ask_for(dns, proving):
    long = ".".join(["a" * 60] * 4)
    problem = await proving.problem(DNS01, identifier=identifiers.dns(long))
    assert problem.type is ErrorType.DNS


async def test_localhost_in_development(dns, proving):
    dns.add("_acme-challenge.svc.localhost", "TXT", EXPECTED)
    outcome = await proving.changed(dev=True).outcome(DNS01, identifier=identifiers.dns("*.svc.localhost"))
    assert outcome.problem is None
