"""tls-alpn-01 (RFC 8737, for addresses RFC 8738): a certificate that only the challenge's TLS server shows."""

from __future__ import annotations

import hashlib
import hmac
import ssl

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from acme_ca.core.challenges import Attempt
from acme_ca.core.der import Unreadable, strictly
from acme_ca.core.identifiers import Identifier, IdentifierType
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.validation.network import Network, reason
from acme_ca.validation.record import Unreachable

PROTOCOL = "acme-tls/1"
ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")


def client_context() -> ssl.SSLContext:
    """TLS 1.2 or later, one protocol offered, and no chain verified: the certificate is self-signed by design."""
    context = unverified_context()
    context.set_alpn_protocols([PROTOCOL])
    return context


def unverified_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


async def prove(attempt: Attempt, network: Network, *, port: int, context: ssl.SSLContext) -> None:
    """Returns when the identifier's TLS server shows the challenge certificate. Raises `Problem`."""
    host = attempt.identifier.value
    with await network.dial(host, port, called=host) as connection:
        where = f"The TLS server of {host} at {connection.peer}"
        with network.record.asking(
            "tls", server_name=server_name(attempt.identifier), address=connection.peer
        ) as entry:
            try:
                tls = await connection.start_tls(context, server_name=server_name(attempt.identifier))
            except OSError as error:
                entry["result"] = reason(error)
                raise _failed(where, error) from None
            entry.update(version=tls.version(), protocol=_known(tls.selected_alpn_protocol()))
    if tls.selected_alpn_protocol() != PROTOCOL:
        raise _unauthorized(where, f"did not choose the protocol {PROTOCOL} (ALPN)")
    why = flaw(tls.getpeercert(binary_form=True) or b"", attempt.identifier, attempt.key_authorization)
    if why is not None:
        raise _unauthorized(where, f"shows a certificate that {why}")


def server_name(identifier: Identifier) -> str:
    """The SNI: the name, or for an address its reverse name (RFC 8738 §6)."""
    return identifier.address.reverse_pointer if identifier.type is IdentifierType.IP else identifier.value


def flaw(der: bytes, identifier: Identifier, key_authorization: str) -> str | None:
    """What keeps a certificate from proving control (RFC 8737 §3), as the end of a sentence. None: it does."""
    try:
        with strictly():
            certificate = x509.load_der_x509_certificate(der)
            extensions = certificate.extensions
    except Unreadable:
        return "cannot be read"
    return (
        _name_flaw(extensions, identifier)
        or _digest_flaw(extensions, key_authorization)
        or _signature_flaw(certificate)
    )


def _name_flaw(extensions: x509.Extensions, identifier: Identifier) -> str | None:
    try:
        names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return "has no subjectAltName"
    if len(names) != 1:
        return f"has {len(names)} names; exactly one is allowed"
    if not _same(names[0], identifier):
        return f"is not for {identifier.value}"
    return None


def _same(name: x509.GeneralName, identifier: Identifier) -> bool:
    match name:
        case x509.DNSName(value=value):
            return identifier.type is IdentifierType.DNS and value.lower() == identifier.value
        case x509.IPAddress(value=value):
            return identifier.type is IdentifierType.IP and value == identifier.address
        case _:
            return False


def _digest_flaw(extensions: x509.Extensions, key_authorization: str) -> str | None:
    try:
        extension = extensions.get_extension_for_oid(ACME_IDENTIFIER)
    except x509.ExtensionNotFound:
        return f"has no acmeIdentifier extension ({ACME_IDENTIFIER.dotted_string})"
    if not extension.critical:
        return "has an acmeIdentifier extension that is not critical"
    # RFC 8737 §3: an OCTET STRING of 32 bytes in DER; nothing before it, nothing after it
    expected = b"\x04\x20" + hashlib.sha256(key_authorization.encode()).digest()
    shown = extension.value.public_bytes()
    if len(shown) != len(expected) or shown[:2] != expected[:2]:
        return "has an acmeIdentifier that is not an OCTET STRING of 32 bytes"
    if not hmac.compare_digest(shown, expected):
        return "has the digest of another key authorization; make it for the account key that made the order"
    return None


def _signature_flaw(certificate: x509.Certificate) -> str | None:
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return "is not self-signed"
    return None


def _known(protocol: str | None) -> str | None:
    return protocol if protocol in {PROTOCOL, None} else "another"


def _failed(where: str, error: OSError) -> Problem:
    kind = ErrorType.TLS if isinstance(error, ssl.SSLError) else ErrorType.CONNECTION
    return Unreachable(
        kind,
        f"{where} did not complete the handshake for tls-alpn-01: {reason(error)}. "
        f"See that it speaks TLS 1.2 or later and answers the protocol {PROTOCOL}, then try again.",
    )


def _unauthorized(where: str, what: str) -> Problem:
    return Problem(
        ErrorType.UNAUTHORIZED,
        f"{where} {what}. Let the ACME client answer there with the challenge's certificate.",
    )
