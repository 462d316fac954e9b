"""The validator as its callers see it: tries, time, cancellation, one identifier at a time."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from acme_ca.core import identifiers
from acme_ca.core.challenges import ChallengeType
from acme_ca.core.problems import ErrorType
from tests.support.dns import DROP, SERVFAIL
from tests.support.responders import AlpnResponder, HttpResponder, SilentServer, challenge_certificate
from tests.validation.conftest import ATTEMPT, NAME, TOKEN, Proving, assert_problem


def open_sockets() -> int:
    count = 0
    for fd in Path("/proc/self/fd").iterdir():
        try:
            count += str(fd.readlink()).startswith("socket:")
        except FileNotFoundError:
            continue
    return count


async def settled_sockets(expected: int) -> int:
    """How many sockets are open once pycares' thread and the servers' have closed what was given up."""
    for _ in range(500):
        if open_sockets() <= expected:
            break
        await asyncio.sleep(0.02)
    return open_sockets()


# ---------------------------------------------------------------- tries


async def test_what_could_not_be_reached_is_tried_again(dns, web, http):
    dns.answer(NAME, SERVFAIL, SERVFAIL, SERVFAIL, SERVFAIL, ["127.0.0.1"], kind="A")
    dns.answer(NAME, [], kind="AAAA")
    web.serve_token(TOKEN, ATTEMPT.key_authorization)
    assert (await http.changed(attempts=3).outcome()).problem is None


async def test_a_refused_connection_is_tried_again(dns, proving, free_port):
    dns.add(NAME, "A", "127.0.0.1")
    outcome = await proving.changed(http01_port=free_port, attempts=3).outcome()
    assert [entry["asked"] for entry in outcome.record].count("connect") == 3


async def test_a_wrong_answer_is_final(web, http):
    web.serve_token(TOKEN, "wrong")
    await http.changed(attempts=3, retry_delay=30).problem()
    assert len(web.requests) == 1


async def test_tries_are_apart(dns, proving, free_port):
    dns.add(NAME, "A", "127.0.0.1")
    started = time.monotonic()
    await proving.changed(http01_port=free_port, attempts=3, retry_delay=0.1).problem()
    assert time.monotonic() - started >= 0.2


async def test_each_try_has_its_time(dns, proving):
    dns.add(NAME, "A", "127.0.0.1")
    with SilentServer() as silent:
        started = time.monotonic()
        await proving.changed(http01_port=silent.port, timeout=0.7, attempts=2).problem()
        assert time.monotonic() - started >= 1.4
        assert silent.connections == 2


# ---------------------------------------------------------------- lessons


@pytest.mark.parametrize("challenge", [ChallengeType.HTTP_01, ChallengeType.TLS_ALPN_01])
async def test_lesson_8_a_wildcard_is_proved_in_dns_only(dns, web, http, challenge):
    web.serve_token(TOKEN, ATTEMPT.key_authorization)
    attempt = replace(ATTEMPT, identifier=identifiers.dns(f"*.{NAME}"), challenge=challenge)
    assert_problem(await http.problem(attempt), ErrorType.REJECTED_IDENTIFIER, f"*.{NAME}", "dns-01")
    assert dns.queries == []
    assert web.connections == 0


async def test_lesson_5_each_of_n_names_is_checked_by_itself(dns, http, web):
    """One of the names is spoiled: its attempt fails, and only its attempt, in whatever order."""
    names = [f"n{number}.example.test" for number in range(5)]
    for name in names:
        dns.add(name, "A", "127.0.0.2" if name == names[3] else "127.0.0.1")
    web.serve_token(TOKEN, ATTEMPT.key_authorization)
    validator = http.validator()
    for order in (names, names[::-1]):
        attempts = [replace(ATTEMPT, identifier=identifiers.dns(name)) for name in order]
        web.requests.clear()
        outcomes = await asyncio.gather(*map(validator.validate, attempts))
        proved = [name for name, outcome in zip(order, outcomes, strict=True) if outcome.problem is None]
        assert proved == [name for name in order if name != names[3]]
        assert sorted(request.headers["host"] for request in web.requests) == sorted(
            f"{n}:{web.port}" for n in proved
        )


async def test_lesson_9_the_proof_is_bound_to_token_and_thumbprint(web, http):
    web.serve_token(TOKEN, ATTEMPT.key_authorization)
    assert_problem(await http.problem(thumbprint="A" * 43), ErrorType.UNAUTHORIZED)


async def test_lesson_10_an_unknown_challenge_type_is_refused(http):
    outcome = await http.outcome(challenge="email-reply-00")
    assert_problem(outcome.problem, ErrorType.SERVER_INTERNAL)


async def test_the_record_is_json_and_bounded(dns, web, http):
    dns.add(NAME, "A", *(f"169.254.1.{last}" for last in range(200)))
    web.redirect(f"/.well-known/acme-challenge/{TOKEN}", f"http://{NAME}:{web.port}/" + "x" * 2000)
    outcome = await http.outcome()
    assert len(json.dumps(outcome.record)) < 32_000
    assert all({"asked", "at_ms", "ms"} <= entry.keys() for entry in outcome.record)


async def test_a_timeout_is_on_record(dns, proving):
    dns.add(NAME, "A", "127.0.0.1")
    dns.answer(NAME, DROP, kind="AAAA")
    outcome = await proving.changed(timeout=0.5).outcome()
    assert_problem(outcome.problem, ErrorType.DNS, "0.5 seconds")
    assert "status" not in outcome.record[0]
    assert outcome.record[0]["ms"] >= 100


# ---------------------------------------------------------------- nothing is left behind


async def test_cancellation_leaves_no_task_and_no_socket(dns, proving):
    dns.add(NAME, "A", "127.0.0.1")
    dns.answer("silent.example.test", DROP)
    dns.answer("_acme-challenge.silent.example.test", DROP)
    with SilentServer() as silent:
        before_tasks, before_sockets = len(asyncio.all_tasks()), open_sockets()
        stuck = proving.changed(http01_port=silent.port, tlsalpn01_port=silent.port, timeout=30)
        validator = stuck.validator()
        attempts = [
            ATTEMPT,
            replace(ATTEMPT, challenge=ChallengeType.TLS_ALPN_01),
            replace(
                ATTEMPT, challenge=ChallengeType.DNS_01, identifier=identifiers.dns("silent.example.test")
            ),
            replace(ATTEMPT, identifier=identifiers.dns("silent.example.test")),
        ]
        tasks = [asyncio.create_task(validator.validate(attempt)) for attempt in attempts]
        await asyncio.sleep(0.1)
        assert open_sockets() > before_sockets
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 4, results
        assert len(asyncio.all_tasks()) == before_tasks
        assert await settled_sockets(before_sockets) == before_sockets
    gc.collect()


async def test_many_validations_leave_nothing(dns, web, http):
    web.serve_token(TOKEN, ATTEMPT.key_authorization)
    validator = http.changed(caa=True).validator()
    await validator.validate(ATTEMPT)
    before = open_sockets()
    outcomes = await asyncio.gather(*(validator.validate(ATTEMPT) for _ in range(50)))
    assert all(outcome.problem is None for outcome in outcomes)
    assert await settled_sockets(before) <= before, "one of an earlier test may have been closed meanwhile"
    assert len(asyncio.all_tasks()) == 1
    gc.collect()


def test_under_uvloop(dns, web, http):
    """The loop of production: every challenge, a timeout, a cancellation."""
    web.serve_token(TOKEN, ATTEMPT.key_authorization)
    dns.answer("silent.example.test", DROP)

    async def story(proving: Proving, silent: SilentServer) -> None:
        assert (await proving.outcome()).problem is None
        assert (await proving.outcome(challenge=ChallengeType.TLS_ALPN_01)).problem is None
        assert (
            await proving.changed(http01_port=silent.port, timeout=1).problem()
        ).type is ErrorType.CONNECTION
        task = asyncio.create_task(proving.outcome(identifier=identifiers.dns("silent.example.test")))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    certificate = challenge_certificate(NAME, ATTEMPT.key_authorization)
    with AlpnResponder(certificate) as tls, SilentServer() as silent:
        uvloop.run(story(http.changed(tlsalpn01_port=tls.port), silent))


async def test_both_addresses_and_names_side_by_side(dns, proving):
    """Two validators with different settings share nothing."""
    with HttpResponder() as first, HttpResponder() as second:
        dns.add(NAME, "A", "127.0.0.1")
        first.serve_token(TOKEN, ATTEMPT.key_authorization)
        one, two = proving.changed(http01_port=first.port), proving.changed(http01_port=second.port)
        good, bad = await asyncio.gather(one.outcome(), two.outcome())
    assert good.problem is None
    assert_problem(bad.problem, ErrorType.INCORRECT_RESPONSE, "404")
