"""One validation: the challenge, then CAA, within a time, tried again where the client could not be reached."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

from structlog.typing import FilteringBoundLogger

from acme_ca.config import ValidationSettings
from acme_ca.core.challenges import Attempt, ChallengeType, Outcome
from acme_ca.core.identifiers import IdentifierType
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.validation import caa, dns01, http01, tlsalpn01
from acme_ca.validation.network import AddressRules, Network, is_localhost
from acme_ca.validation.record import Record, Unreachable
from acme_ca.validation.resolver import Dns, RecordType, Zones

# One address may use this share of a try's time to accept a connection, so that there is time left for another.
CONNECT_SHARE = 0.3


T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a validation would do."""

    servers: tuple[str, ...]
    """DNS servers for the name, `address:port`; empty: the system's."""
    addresses: tuple[str, ...]
    """That would be dialled, the first one first."""
    port: int | None
    """None: nothing is dialled, the proof is in the DNS."""
    unreachable: Problem | None
    """Why nothing can be asked."""
    caa: Problem | None
    """What CAA has against it; None also where it is not asked."""
    record: tuple[dict[str, Any], ...]


class Validator:
    """Proves control of identifiers. Nothing outlives a try: no connection, no DNS answer, no earlier result."""

    def __init__(
        self,
        *,
        settings: ValidationSettings,
        caa_enabled: bool,
        caa_identities: tuple[str, ...],
        caa_exempt: tuple[str, ...],
        dev: bool,
        log: FilteringBoundLogger,
    ) -> None:
        """`dev`: names under `.localhost` mean loopback (RFC 6761). ValueError: `caa_identities` are no domain names."""
        self._settings = settings
        self._zones = Zones(settings.resolvers)
        self._rules = AddressRules(allow=settings.allow_networks, refuse=settings.refuse_networks)
        self._ports = http01.Ports(challenge=settings.http01_port, redirect=settings.redirect_ports)
        self._caa = caa.CaaRules(identities=caa_identities, exempt=caa_exempt) if caa_enabled else None
        self._dev = dev
        self._log = log
        self._redirect_tls = tlsalpn01.unverified_context()
        self._challenge_tls = tlsalpn01.client_context()

    async def validate(self, attempt: Attempt) -> Outcome:
        """Tries up to `settings.attempts` times, each at most `settings.timeout` seconds long.

        A failure is in the outcome; only cancellation is raised.
        """
        record = Record()
        problem = await self._try(attempt, record)
        for _ in range(self._settings.attempts - 1):
            if not isinstance(problem, Unreachable):
                break
            await asyncio.sleep(self._settings.retry_delay)
            problem = await self._try(attempt, record)
        return Outcome(problem=problem, record=record.entries)

    async def rehearse(self, attempt: Attempt) -> Outcome:
        """One try, whatever comes of it. Nothing is stored."""
        record = Record()
        return Outcome(problem=await self._try(attempt, record), record=record.entries)

    async def look(self, attempt: Attempt) -> Look:
        """Whom a validation would ask, and what CAA says. The DNS is asked; no host is dialled."""
        record = Record()
        network = self._network(attempt, record)
        try:
            addresses = await self._within_time(attempt, record, self._aim(attempt, network))
            objection = await self._within_time(attempt, record, self._check_caa(attempt, network))
        finally:
            network.close()
        return Look(
            servers=self._zones.servers(attempt.identifier.base),
            addresses=() if isinstance(addresses, Problem) else addresses or (),
            port=self._port(attempt.challenge),
            unreachable=addresses if isinstance(addresses, Problem) else None,
            caa=objection if isinstance(objection, Problem) else None,
            record=record.entries,
        )

    async def _within_time(self, attempt: Attempt, record: Record, work: Awaitable[T]) -> T | Problem:
        try:
            async with asyncio.timeout(self._settings.timeout):
                return await work
        except Problem as problem:
            return problem
        except TimeoutError:
            return self._timed_out(attempt, record)

    async def _aim(self, attempt: Attempt, network: Network) -> tuple[str, ...]:
        self._check_applicable(attempt)
        identifier, port = attempt.identifier, self._port(attempt.challenge)
        if port is None:
            await network.dns.ask(f"_acme-challenge.{identifier.base}", RecordType.TXT)
            return ()
        found = await network.permitted(identifier.value, port, identifier.value)
        return tuple(map(str, found))

    def _port(self, challenge: ChallengeType) -> int | None:
        return {
            ChallengeType.HTTP_01: self._settings.http01_port,
            ChallengeType.TLS_ALPN_01: self._settings.tlsalpn01_port,
        }.get(challenge)

    async def _try(self, attempt: Attempt, record: Record) -> Problem | None:
        network = self._network(attempt, record)
        try:
            async with asyncio.timeout(self._settings.timeout):
                await self._prove(attempt, network)
                await self._check_caa(attempt, network)
        except Problem as problem:
            return problem
        except TimeoutError:
            return self._timed_out(attempt, record)
        except Exception:  # noqa: BLE001  it is logged, and the challenge must end
            # A surprise must end the challenge like any other failure: left `processing`, it would hang the client.
            self._log.exception("validation failed unexpectedly", authz=attempt.authorization_id)
            return Problem(
                ErrorType.SERVER_INTERNAL,
                "The validation failed inside this CA. Try again; tell its operator.",
            )
        finally:
            network.close()
        return None

    def _network(self, attempt: Attempt, record: Record) -> Network:
        settings = self._settings
        tls = attempt.challenge is ChallengeType.TLS_ALPN_01
        return Network(
            rules=self._rules,
            dns=Dns(self._zones, timeout=settings.timeout, record=record),
            record=record,
            challenge_port=settings.tlsalpn01_port if tls else settings.http01_port,
            dev=self._dev,
            connect_timeout=settings.timeout * CONNECT_SHARE,
        )

    async def _prove(self, attempt: Attempt, network: Network) -> None:
        self._check_applicable(attempt)
        match attempt.challenge:
            case ChallengeType.HTTP_01:
                await http01.prove(attempt, network, ports=self._ports, redirect_tls=self._redirect_tls)
            case ChallengeType.TLS_ALPN_01:
                port = self._settings.tlsalpn01_port
                await tlsalpn01.prove(attempt, network, port=port, context=self._challenge_tls)
            case ChallengeType.DNS_01:
                await dns01.prove(attempt, network.dns)
            case _:
                raise AssertionError(attempt.challenge)

    def _check_applicable(self, attempt: Attempt) -> None:
        """Lesson 8: a wildcard is proved in DNS and in no other way; an address has no DNS to prove it in (RFC 8738 §7)."""
        identifier = attempt.identifier
        if identifier.wildcard and attempt.challenge is not ChallengeType.DNS_01:
            raise _rejected(attempt, "a wildcard is proved by dns-01 only")
        if identifier.type is IdentifierType.IP and attempt.challenge is ChallengeType.DNS_01:
            raise _rejected(attempt, "an IP address is proved by http-01 or tls-alpn-01 only")
        if attempt.challenge is ChallengeType.DNS_01 and is_localhost(identifier.base) and not self._dev:
            raise _rejected(
                attempt, "names under .localhost mean loopback and are nobody's, except in development mode"
            )

    async def _check_caa(self, attempt: Attempt, network: Network) -> None:
        # After the challenge: most failures then cost no CAA query.
        if self._caa is not None and attempt.identifier.type is IdentifierType.DNS:
            await caa.check(attempt, network.dns, self._caa)

    def _timed_out(self, attempt: Attempt, record: Record) -> Problem:
        last = record.last
        kind, waiting = _WAITING.get(last.get("asked", ""), (ErrorType.CONNECTION, "nothing was asked"))
        whom = f" ({last['address']})" if "address" in last else ""
        return Unreachable(
            kind,
            f"The {attempt.challenge} validation of {attempt.identifier.value} was not done after "
            f"{self._settings.timeout:g} seconds: {waiting}{whom}. Answer faster, then try again.",
        )


_WAITING = {
    "dns": (ErrorType.DNS, "a DNS server had not answered"),
    "connect": (ErrorType.CONNECTION, "the connection was not open"),
    "http": (ErrorType.CONNECTION, "the web server had not sent its whole response"),
    "tls": (ErrorType.CONNECTION, "the TLS server had not completed the handshake"),
}


def _rejected(attempt: Attempt, why: str) -> Problem:
    return Problem(
        ErrorType.REJECTED_IDENTIFIER,
        f"{attempt.challenge} does not prove control of {attempt.identifier.value}: {why}. Use another challenge.",
    )
