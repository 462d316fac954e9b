"""The guarded network against a real DNS server and real sockets: lesson 7."""

from __future__ import annotations

from dataclasses import replace

import pytest

from acme_ca.core import identifiers
from acme_ca.core.challenges import ChallengeType
from acme_ca.core.identifiers import Identifier, IdentifierType
from acme_ca.core.problems import ErrorType
from tests.support.dns import DROP, GARBAGE, NODATA, NXDOMAIN, REFUSED, SERVFAIL, DnsServer
from tests.support.responders import HttpResponder
from tests.validation.conftest import ATTEMPT, NAME, TOKEN, assert_problem

KEY_AUTHORIZATION = ATTEMPT.key_authorization


def dialled(outcome) -> list[tuple[str, str]]:
    return [(entry["address"], entry["result"]) for entry in outcome.record if entry["asked"] == "connect"]


async def test_ipv4_is_tried_after_ipv6_fails(dns, web, http, ipv6_loopback):
    dns.add(NAME, "AAAA", "::1")
    web.serve_token(TOKEN, KEY_AUTHORIZATION)
    outcome = await http.outcome()
    assert outcome.problem is None
    assert dialled(outcome) == [("::1", "connection refused"), ("127.0.0.1", "connected")]


async def test_ipv6_is_preferred(dns, proving, ipv6_loopback):
    with HttpResponder("::1") as web6:
        dns.add(NAME, "AAAA", "::1")
        dns.add(NAME, "A", "127.0.0.1")
        web6.serve_token(TOKEN, KEY_AUTHORIZATION)
        outcome = await proving.changed(http01_port=web6.port).outcome()
    assert outcome.problem is None
    assert dialled(outcome) == [("::1", "connected")]


async def test_at_most_four_addresses_are_tried(dns, proving, free_port):
    dns.add(NAME, "A", *(f"127.0.0.{last}" for last in range(1, 21)))
    outcome = await proving.changed(http01_port=free_port).outcome()
    assert len(dialled(outcome)) == 4
    assert_problem(outcome.problem, ErrorType.CONNECTION, "connection refused", str(free_port))


async def test_a_refused_address_among_others_is_not_dialled(dns, web, http):
    dns.add(NAME, "A", "169.254.169.254", "0.0.0.0")
    dns.add(NAME, "AAAA", "fe80::1", "::")
    web.serve_token(TOKEN, KEY_AUTHORIZATION)
    outcome = await http.outcome()
    assert outcome.problem is None
    assert {address for address, result in dialled(outcome) if result == "connected"} == {"127.0.0.1"}
    assert sum(result.startswith("not dialled") for _, result in dialled(outcome)) == 4


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.10.10", "0.0.0.0", "255.255.255.255", "224.0.0.1"])
async def test_a_name_with_refused_addresses_only_is_not_dialled(dns, web, http, address):
    dns.remove(NAME)
    dns.add(NAME, "A", address)
    web.serve_token(TOKEN, KEY_AUTHORIZATION)
    problem = await http.changed(allow_networks="").problem()
    assert_problem(problem, ErrorType.CONNECTION, "does not dial", address, "validation.allow_networks")
    assert web.connections == 0


async def test_metadata_addresses_are_refused_even_when_allowed(dns, http):
    dns.remove(NAME)
    dns.add(NAME, "A", "169.254.169.254")
    problem = await http.changed(allow_networks="0.0.0.0/0").problem()
    assert_problem(problem, ErrorType.CONNECTION, "169.254.169.254", "metadata")


async def test_refused_networks_win(dns, web, http):
    problem = await http.changed(refuse_networks="127.0.0.0/8").problem()
    assert_problem(problem, ErrorType.CONNECTION, "validation.refuse_networks")
    assert web.connections == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fe80::1"])
@pytest.mark.parametrize("challenge", [ChallengeType.HTTP_01, ChallengeType.TLS_ALPN_01])
async def test_address_identifiers_are_judged_too(proving, address, challenge):
    attempt = replace(ATTEMPT, identifier=Identifier(IdentifierType.IP, address), challenge=challenge)
    problem = await proving.changed(allow_networks="").problem(attempt)
    assert_problem(problem, ErrorType.CONNECTION, "does not dial")


async def test_a_refused_address_is_not_tried_again(dns, http):
    outcome = await http.changed(allow_networks="", attempts=3, retry_delay=30).outcome()
    assert_problem(outcome.problem, ErrorType.CONNECTION)
    assert dns.asked(NAME, "A") == 1


async def test_rebinding_the_name_is_resolved_once_and_that_address_is_dialled(dns, web, http):
    """The DNS server would send a second resolution elsewhere (lesson 7)."""
    dns.answer(NAME, ["127.0.0.1"], ["127.9.9.9"], kind="A")
    dns.answer(NAME, NODATA, kind="AAAA")
    web.serve_token(TOKEN, KEY_AUTHORIZATION)
    outcome = await http.changed(allow_networks="127.0.0.1/32").outcome()
    assert outcome.problem is None
    assert dns.asked(NAME, "A") == 1


async def test_rebinding_over_a_redirect_is_refused(dns, web, http):
    dns.answer("other.example.test", ["127.9.9.9"], kind="A")
    web.redirect(f"/.well-known/acme-challenge/{TOKEN}", f"http://other.example.test:{web.port}/")
    problem = await http.changed(allow_networks="127.0.0.1/32").problem()
    assert_problem(problem, ErrorType.CONNECTION, "does not dial", "redirect 1", "127.9.9.9")
    assert web.connections == 1


async def test_answers_are_not_remembered_between_tries_and_attempts(dns, web, http):
    """c-ares would keep an answer for its TTL and an empty one for an hour."""
    dns.answer(NAME, NODATA, ["127.0.0.1"], NODATA, kind="A")
    dns.answer(NAME, NODATA, kind="AAAA")
    web.serve_token(TOKEN, KEY_AUTHORIZATION)
    proving = http.changed(attempts=2)
    validator = proving.validator()
    assert (await validator.validate(ATTEMPT)).problem is None
    assert_problem((await validator.validate(ATTEMPT)).problem, ErrorType.DNS)


UNRESOLVED = {
    "no such name": (NXDOMAIN, "neither an AAAA nor an A record"),
    "no address": (NODATA, "neither an AAAA nor an A record"),
    "broken": (SERVFAIL, "SERVFAIL"),
    "refused": (REFUSED, "REFUSED"),
    "silent": (DROP, "no answer"),
    "garbage": (GARBAGE, "failed"),
}


@pytest.mark.parametrize(("answer", "words"), UNRESOLVED.values(), ids=UNRESOLVED)
@pytest.mark.usefixtures("silent_dns")
async def test_a_name_that_cannot_be_resolved_is_a_dns_problem(dns, proving, answer, words):
    dns.answer(NAME, answer)
    problem = await proving.problem()
    assert_problem(problem, ErrorType.DNS, words, NAME)


async def test_one_family_may_fail_when_the_other_answers(dns, web, http):
    dns.answer(NAME, SERVFAIL, kind="AAAA")
    web.serve_token(TOKEN, KEY_AUTHORIZATION)
    assert (await http.outcome()).problem is None


async def test_no_dns_server_at_all(proving, free_port):
    problem = await proving.changed(resolvers=f"127.0.0.1:{free_port}").problem()
    assert_problem(problem, ErrorType.DNS, NAME, str(free_port))


async def test_the_longest_zone_decides_which_server_is_asked(dns, web, http):
    web.serve_token(TOKEN, KEY_AUTHORIZATION)
    with DnsServer() as other:
        resolvers = f"{other.address},test={other.address},example.test={dns.address}"
        assert (await http.changed(resolvers=resolvers).outcome()).problem is None
        assert other.queries == []


async def test_a_zone_ends_at_a_dot(dns, proving):
    with DnsServer() as other:
        resolvers = f"{dns.address},ample.test={other.address}"
        assert_problem(await proving.changed(resolvers=resolvers).problem(), ErrorType.DNS)
        assert other.queries == []
        assert dns.asked(NAME, "A") == 1


async def test_the_second_server_of_a_zone_is_asked_when_the_first_is_dead(dns, web, http, free_port):
    web.serve_token(TOKEN, KEY_AUTHORIZATION)
    outcome = await http.changed(resolvers=f"127.0.0.1:{free_port},{dns.address}").outcome()
    assert outcome.problem is None


async def test_a_dns_server_on_ipv6(web, http, ipv6_loopback):
    web.serve_token(TOKEN, KEY_AUTHORIZATION)
    with DnsServer("::1") as dns6:
        dns6.add(NAME, "A", "127.0.0.1")
        assert (await http.changed(resolvers=dns6.address).outcome()).problem is None


async def test_an_address_behind_cnames_of_another_zone(web, http):
    web.serve_token(TOKEN, KEY_AUTHORIZATION)
    with DnsServer(authoritative_only=True) as zone, DnsServer(authoritative_only=True) as farm:
        zone.add(NAME, "CNAME", "Node.Farm.test")
        farm.add("node.farm.test", "A", "127.0.0.1")
        resolvers = f"example.test={zone.address},farm.test={farm.address}"
        assert (await http.changed(resolvers=resolvers).outcome()).problem is None


LOCALHOST = ["localhost", "svc.localhost", "a.b.localhost"]


@pytest.mark.parametrize("name", LOCALHOST)
async def test_localhost_means_loopback_in_development_without_dns(dns, web, http, name):
    web.serve_token(TOKEN, KEY_AUTHORIZATION)
    outcome = await http.changed(dev=True, allow_networks="").outcome(identifier=identifiers.dns(name))
    assert outcome.problem is None
    assert dns.queries == []
    assert dialled(outcome) == [("127.0.0.1", "connected")]


async def test_localhost_falls_back_to_ipv6_loopback(dns, proving, ipv6_loopback):
    with HttpResponder("::1") as web6:
        web6.serve_token(TOKEN, KEY_AUTHORIZATION)
        proving = proving.changed(dev=True, allow_networks="", http01_port=web6.port)
        assert (await proving.outcome(identifier=identifiers.dns("svc.localhost"))).problem is None


@pytest.mark.parametrize("name", LOCALHOST)
@pytest.mark.parametrize("challenge", ChallengeType)
async def test_localhost_is_refused_outside_development(dns, web, http, name, challenge):
    dns.add(name, "A", "127.0.0.1")
    problem = await http.problem(identifier=identifiers.dns(name), challenge=challenge)
    assert problem.type in {ErrorType.CONNECTION, ErrorType.REJECTED_IDENTIFIER}
    assert "development mode" in problem.detail
    assert dns.queries == []
    assert web.connections == 0


async def test_localhost_cannot_be_reached_by_redirect_to_another_port(web, http):
    with HttpResponder() as inside:
        web.redirect(f"/.well-known/acme-challenge/{TOKEN}", f"http://x.localhost:{inside.port}/")
        proving = http.changed(dev=True, allow_networks="", redirect_ports=str(inside.port))
        problem = await proving.problem(identifier=identifiers.dns("svc.localhost"))
        assert_problem(problem, ErrorType.CONNECTION, "redirect 1", f"port {web.port} only")
        assert inside.connections == 0


async def test_localhost_may_redirect_to_the_challenges_own_port(web, http):
    web.redirect(f"/.well-known/acme-challenge/{TOKEN}", f"http://x.localhost:{web.port}/elsewhere")
    web.respond("/elsewhere", KEY_AUTHORIZATION)
    proving = http.changed(dev=True, allow_networks="")
    assert (await proving.outcome(identifier=identifiers.dns("svc.localhost"))).problem is None


async def test_refused_networks_hold_for_localhost(web, http):
    proving = http.changed(dev=True, refuse_networks="127.0.0.0/8,::1/128")
    problem = await proving.problem(identifier=identifiers.dns("svc.localhost"))
    assert_problem(problem, ErrorType.CONNECTION, "validation.refuse_networks")
    assert web.connections == 0


async def test_development_does_not_open_loopback_for_other_names(web, http):
    problem = await http.changed(dev=True, allow_networks="").problem()
    assert_problem(problem, ErrorType.CONNECTION, "does not dial", "127.0.0.1")
    assert web.connections == 0


@pytest.mark.parametrize("name", ["www.127.0.0.1.example.test", "127-0-0-1.example.test", "0x7f000001.test"])
async def test_a_name_that_spells_an_address_is_only_a_name(dns, web, http, name):
    """Lesson 7: what counts is the address that DNS gives, and that one is judged."""
    dns.add(name, "A", "127.0.0.1")
    problem = await http.changed(allow_networks="").problem(identifier=identifiers.dns(name))
    assert_problem(problem, ErrorType.CONNECTION, "does not dial", "loopback")
    assert web.connections == 0
