"""tls-alpn-01: RFC 8737, RFC 8738 §6 for addresses, lesson 6."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import socket
import ssl
from contextlib import contextmanager
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from acme_ca.core import identifiers
from acme_ca.core.challenges import ChallengeType
from acme_ca.core.problems import ErrorType
from acme_ca.validation.tlsalpn01 import flaw, server_name
from tests.support.responders import (
    OBSOLETE_ACME_IDENTIFIER,
    AlpnResponder,
    HttpResponder,
    SilentServer,
    challenge_certificate,
)
from tests.support.sockets import TcpServer
from tests.validation.conftest import ATTEMPT, NAME, assert_problem

ALPN01 = replace(ATTEMPT, challenge=ChallengeType.TLS_ALPN_01)
KEY_AUTHORIZATION = ALPN01.key_authorization
DIGEST = hashlib.sha256(KEY_AUTHORIZATION.encode()).digest()
IPV4 = identifiers.ip("127.0.0.1")
IPV6 = identifiers.ip("::1")


def certificate(name=NAME, **wrong):
    return challenge_certificate(name, KEY_AUTHORIZATION, **wrong)


@pytest.fixture
def show(dns, proving):
    """Serves credentials and validates against them: `outcome, responder = await show(credentials, …)`."""
    dns.add(NAME, "A", "127.0.0.1")

    async def validate(credentials, *, attempt=ALPN01, host="127.0.0.1", **responder):
        with AlpnResponder(credentials, host, **responder) as server:
            outcome = await proving.changed(tlsalpn01_port=server.port).outcome(attempt)
        return outcome, server

    return validate


# ---------------------------------------------------------------- proofs


async def test_the_challenge_certificate_proves_control(show):
    outcome, server = await show(certificate())
    assert outcome.problem is None
    assert server.server_names == [NAME]
    *_, tls = outcome.record
    assert (tls["asked"], tls["server_name"], tls["protocol"]) == ("tls", NAME, "acme-tls/1")


async def test_the_connection_is_closed_after_the_handshake(show):
    """RFC 8737 §4: no data is exchanged under acme-tls/1, and the connection is closed at once."""
    _, server = await show(certificate())
    assert server.received == b""
    assert server.closed_by_client == 1


async def test_names_are_compared_without_case(show):
    outcome, _ = await show(certificate(names=[x509.DNSName(NAME.upper())]))
    assert outcome.problem is None


async def test_tls_1_2_suffices(show):
    outcome, _ = await show(certificate(), newest=ssl.TLSVersion.TLSv1_2)
    assert outcome.problem is None
    assert outcome.record[-1]["version"] == "TLSv1.2"


async def test_an_ipv4_identifier(dns, show):
    outcome, server = await show(certificate("127.0.0.1"), attempt=replace(ALPN01, identifier=IPV4))
    assert outcome.problem is None
    assert server.server_names == ["1.0.0.127.in-addr.arpa"]
    assert dns.queries == []


async def test_an_ipv6_identifier(show, ipv6_loopback):
    outcome, server = await show(certificate("::1"), attempt=replace(ALPN01, identifier=IPV6), host="::1")
    assert outcome.problem is None
    assert server.server_names == ["1." + "0." * 31 + "ip6.arpa"]


def test_server_names():
    # the examples of RFC 8738 §6
    assert server_name(identifiers.ip("192.0.2.1")) == "1.2.0.192.in-addr.arpa"
    assert (
        server_name(identifiers.ip("2001:db8::1"))
        == "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
    )
    assert server_name(identifiers.dns(NAME)) == NAME


# ---------------------------------------------------------------- certificates that prove nothing

WRONG = {
    "obsolete OID": ({"oid": OBSOLETE_ACME_IDENTIFIER}, "no acmeIdentifier"),
    "non-critical extension": ({"critical": False}, "not critical"),
    "no extension": ({"without_extension": True}, "no acmeIdentifier"),
    "wrong digest": ({"value": b"\x04\x20" + bytes(32)}, "another key authorization"),
    "no SAN": ({"names": []}, "no subjectAltName"),
    "two SANs": ({"names": [x509.DNSName(NAME), x509.DNSName("other.test")]}, "2 names"),
    "the SAN twice": ({"names": [x509.DNSName(NAME), x509.DNSName(NAME)]}, "2 names"),
    "a name and an address": ({"names": [x509.DNSName(NAME), x509.IPAddress(IPV4.address)]}, "2 names"),
    "another name": ({"names": [x509.DNSName("other.test")]}, "not for"),
    "a wildcard": ({"names": [x509.DNSName("*.example.test")]}, "not for"),
    "the name with a dot": ({"names": [x509.DNSName(NAME + ".")]}, "not for"),
    "a URI": ({"names": [x509.UniformResourceIdentifier("https://" + NAME)]}, "not for"),
    "an e-mail address": ({"names": [x509.RFC822Name("x@" + NAME)]}, "not for"),
    "the name as otherName": (
        {"names": [x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x0c\x00")]},
        "not for",
    ),
    "another's signature": ({"signed_by": certificate()}, "not self-signed"),
}
WRONG_VALUES = {
    "trailing byte after": b"\x04\x20" + DIGEST + b"\x00",
    "trailing byte inside": b"\x04\x21" + DIGEST + b"\x00",
    "bare digest": DIGEST,
    "long-form length": b"\x04\x81\x20" + DIGEST,
    "wrapped twice": b"\x04\x22\x04\x20" + DIGEST,
    "bit string": b"\x03\x20" + DIGEST,
    "constructed": b"\x24\x22\x04\x20" + DIGEST,
    "in a sequence": b"\x30\x22\x04\x20" + DIGEST,
    "cut": b"\x04\x20" + DIGEST[:-1],
    "hexadecimal": b"\x04\x40" + DIGEST.hex().encode(),
    "key authorization": b"\x04\x57" + KEY_AUTHORIZATION.encode(),
    "empty": b"",
    "NULL": b"\x05\x00",
}


@pytest.mark.parametrize(("wrong", "words"), WRONG.values(), ids=WRONG)
async def test_a_wrong_certificate_is_refused(show, wrong, words):
    outcome, _ = await show(certificate(**wrong))
    assert_problem(outcome.problem, ErrorType.UNAUTHORIZED, words, NAME, "127.0.0.1")


@pytest.mark.parametrize("value", WRONG_VALUES.values(), ids=WRONG_VALUES)
async def test_a_wrong_encoding_of_the_digest_is_refused(show, value):
    outcome, _ = await show(certificate(value=value))
    assert_problem(outcome.problem, ErrorType.UNAUTHORIZED, "acmeIdentifier", "32 bytes")


WRONG_FOR_ADDRESS = {
    "the address as dNSName": [x509.DNSName("127.0.0.1")],
    "the reverse name": [x509.DNSName("1.0.0.127.in-addr.arpa")],
    "another address": [x509.IPAddress(identifiers.ip("127.0.0.2").address)],
    "the mapped address": [x509.IPAddress(ipaddress.ip_address("::ffff:7f00:1"))],
    "the address twice": [x509.IPAddress(IPV4.address)] * 2,
    "the address and its reverse name": [
        x509.IPAddress(IPV4.address),
        x509.DNSName("1.0.0.127.in-addr.arpa"),
    ],
}


@pytest.mark.parametrize("names", WRONG_FOR_ADDRESS.values(), ids=WRONG_FOR_ADDRESS)
async def test_a_wrong_name_for_an_address_is_refused(show, names):
    outcome, _ = await show(certificate(names=names), attempt=replace(ALPN01, identifier=IPV4))
    assert_problem(outcome.problem, ErrorType.UNAUTHORIZED, "127.0.0.1")


def test_an_address_does_not_prove_the_name_that_spells_it():
    der = certificate(names=[x509.IPAddress(IPV4.address)]).der
    assert "not for" in flaw(der, identifiers.dns(NAME), KEY_AUTHORIZATION)


def test_a_common_name_proves_nothing():
    der = certificate(names=[]).der
    assert "no subjectAltName" in flaw(der, identifiers.dns("challenge"), KEY_AUTHORIZATION)


def test_a_certificate_of_another_issuer_name_is_refused():
    key = ec.generate_private_key(ec.SECP256R1())
    own = certificate().certificate
    builder = x509.CertificateBuilder(
        issuer_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "another")]),
        subject_name=own.subject,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=own.not_valid_before_utc,
        not_valid_after=own.not_valid_after_utc,
        extensions=list(own.extensions),
    )
    der = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    assert "self-signed" in flaw(der, identifiers.dns(NAME), KEY_AUTHORIZATION)


def test_the_flawless_one():
    assert flaw(certificate().der, identifiers.dns(NAME), KEY_AUTHORIZATION) is None


FLAWLESS = certificate().der


@settings(max_examples=300)
@given(st.data())
def test_hostile_der_never_crashes_and_never_proves(data):
    """Lesson 24: any change of a byte, any cut, any bytes."""
    position = data.draw(st.integers(0, len(FLAWLESS) - 1))
    byte = data.draw(st.integers(0, 255))
    changed = FLAWLESS[:position] + bytes([byte]) + FLAWLESS[position + 1 :]
    cut = FLAWLESS[:position]
    for der in (changed, cut, FLAWLESS + bytes([byte]), data.draw(st.binary())):
        verdict = flaw(der, identifiers.dns(NAME), KEY_AUTHORIZATION)
        assert (verdict is None) == (der == FLAWLESS)


# ---------------------------------------------------------------- handshakes that fail


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_obsolete_tls_is_refused(show, version):
    outcome, _ = await show(certificate(), newest=version)
    assert_problem(outcome.problem, ErrorType.TLS, "TLS 1.2")


async def test_no_alpn_in_the_answer_is_refused(show):
    outcome, _ = await show(certificate(), protocols=None)
    assert_problem(outcome.problem, ErrorType.UNAUTHORIZED, "acme-tls/1")


async def test_a_server_of_other_protocols_is_refused(show):
    outcome, _ = await show(certificate(), protocols=("h2", "http/1.1"))
    assert outcome.problem.type in {ErrorType.TLS, ErrorType.UNAUTHORIZED}
    assert "acme-tls/1" in outcome.problem.detail


async def test_only_the_acme_protocol_is_offered(dns, proving):
    """RFC 8737 §3: an ALPN extension with the single protocol; and SNI with the name."""
    dns.add(NAME, "A", "127.0.0.1")
    with _listener() as (listener, port):
        problem = await proving.changed(tlsalpn01_port=port, timeout=1).problem(ALPN01)
        connection, _ = listener.accept()
        with connection:
            hello = connection.recv(4096)
    assert b"\x00\x10\x00\x0d\x00\x0b\x0aacme-tls/1" in hello
    assert NAME.encode() in hello
    assert_problem(problem, ErrorType.CONNECTION, "1 seconds", "handshake")


async def test_no_tls_at_all(dns, proving):
    dns.add(NAME, "A", "127.0.0.1")
    with SilentServer(greeting=b"220 secret greeting\r\n") as plain:
        problem = await proving.changed(tlsalpn01_port=plain.port).problem(ALPN01)
    assert_problem(problem, ErrorType.TLS, NAME, "127.0.0.1", str(plain.port))
    assert "secret" not in problem.detail


class FloodingServer(TcpServer):
    """Sends HelloRequests, which a TLS 1.2 client passes over, as fast as they are taken."""

    def serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b"\x16\x03\x03\x00\x04\x00\x00\x00\x00" * 10_000)


async def test_a_peer_that_never_stops_sending_keeps_nobody_waiting(dns, proving):
    dns.add(NAME, "A", "127.0.0.1")
    beats = 0

    async def beat():
        nonlocal beats
        while True:
            await asyncio.sleep(0.001)
            beats += 1

    heart = asyncio.create_task(beat())
    with FloodingServer() as flood:
        problem = await proving.changed(tlsalpn01_port=flood.port).problem(ALPN01)
    heart.cancel()
    assert_problem(problem, ErrorType.CONNECTION, NAME)
    assert "message too long" in problem.detail, "ended by what was received, long before the time was over"
    assert beats > 0


async def test_a_connection_closed_in_the_handshake(dns, proving):
    dns.add(NAME, "A", "127.0.0.1")
    with _Closing() as server:
        problem = await proving.changed(tlsalpn01_port=server.port).problem(ALPN01)
    assert problem.type in {ErrorType.TLS, ErrorType.CONNECTION}


async def test_nobody_listens(dns, proving, free_port):
    dns.add(NAME, "A", "127.0.0.1")
    problem = await proving.changed(tlsalpn01_port=free_port).problem(ALPN01)
    assert_problem(problem, ErrorType.CONNECTION, NAME, str(free_port), "connection refused")


async def test_a_wildcard_is_refused_unasked(dns, proving):
    problem = await proving.problem(ALPN01, identifier=identifiers.dns(f"*.{NAME}"))
    assert_problem(problem, ErrorType.REJECTED_IDENTIFIER, "dns-01")
    assert dns.queries == []


class _Closing(HttpResponder):
    def serve(self, connection):
        connection.recv(1)


@contextmanager
def _listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener, listener.getsockname()[1]
