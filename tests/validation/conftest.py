"""Fixtures: a DNS server, a web server, and validations against them on loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import structlog

from acme_ca.config import ValidationSettings
from acme_ca.core import identifiers
from acme_ca.core.challenges import Attempt, ChallengeType, Outcome
from acme_ca.core.ids import AuthorizationId
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.validation import resolver
from acme_ca.validation.validator import Validator
from tests.support.dns import DnsServer
from tests.support.responders import HttpResponder

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
THUMBPRINT = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
NAME = "www.example.test"
ACCOUNT = "https://ca.example.test/acme/acct/1"

ATTEMPT = Attempt(
    authorization_id=AuthorizationId("authz-1"),
    identifier=identifiers.dns(NAME),
    challenge=ChallengeType.HTTP_01,
    token=TOKEN,
    thumbprint=THUMBPRINT,
    account_url=ACCOUNT,
)


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture
def web(dns: DnsServer) -> Iterator[HttpResponder]:
    """A web server, which the name of the attempt leads to."""
    dns.add(NAME, "A", "127.0.0.1")
    with HttpResponder() as responder:
        yield responder


@pytest.fixture
def ipv6_loopback() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")


@dataclass
class Proving:
    """Validations with the settings of a test; `changed` makes others."""

    settings: dict[str, Any]
    caa: bool = False
    caa_identities: tuple[str, ...] = ("ca.example.test",)
    caa_exempt: tuple[str, ...] = ()
    dev: bool = False

    def changed(
        self, *, caa: bool = False, dev: bool = False, caa_exempt: tuple[str, ...] = (), **settings: Any
    ) -> Proving:
        return replace(self, settings={**self.settings, **settings}, caa=caa, dev=dev, caa_exempt=caa_exempt)

    def validator(self) -> Validator:
        return Validator(
            settings=ValidationSettings(**self.settings),
            caa_enabled=self.caa,
            caa_identities=self.caa_identities,
            caa_exempt=self.caa_exempt,
            dev=self.dev,
            log=structlog.get_logger(),
        )

    async def outcome(self, attempt: Attempt = ATTEMPT, **changes: Any) -> Outcome:
        return await self.validator().validate(replace(attempt, **changes))

    async def problem(self, attempt: Attempt = ATTEMPT, **changes: Any) -> Problem:
        problem = (await self.outcome(attempt, **changes)).problem
        assert problem is not None, "control was proved"
        return problem


@pytest.fixture
def proving(dns: DnsServer) -> Proving:
    """Asks the test's DNS server; loopback may be dialled; one try, with time enough for a busy machine."""
    return Proving(
        {
            "resolvers": dns.address,
            "allow_networks": "127.0.0.0/8,::1/128",
            "timeout": 30,
            "attempts": 1,
            "retry_delay": 0.01,
        }
    )


@pytest.fixture
def http(proving: Proving, web: HttpResponder) -> Proving:
    return proving.changed(http01_port=web.port)


@pytest.fixture
def silent_dns(monkeypatch) -> None:
    """Of a DNS server that keeps silent nobody expects an answer for long, though a try has much time."""
    monkeypatch.setattr(resolver, "QUERY_SHARE", 0.01)


def assert_problem(problem: Problem | None, kind: ErrorType, *words: str) -> None:
    assert problem is not None, "control was proved"
    assert problem.type is kind, problem
    for word in words:
        assert word in problem.detail, problem.detail
    assert problem.detail.isprintable()
    assert problem.detail.endswith((".", '".')), problem.detail
