"""What an ACME client runs to answer challenges, on loopback, and how it may go wrong.

with HttpResponder() as web:
    web.serve_token(token, key_authorization)
    web.redirect("/from", "http://elsewhere.test/to")
    web.raw("/.well-known/acme-challenge/t", b"no HTTP at all")

with AlpnResponder(challenge_certificate("www.example.test", key_authorization)) as tls: ...
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.sockets import TcpServer

CHALLENGE_PATH = "/.well-known/acme-challenge/"
ACME_IDENTIFIER = "1.3.6.1.5.5.7.1.31"
OBSOLETE_ACME_IDENTIFIER = "1.3.6.1.5.5.7.1.30.1"


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""


@dataclass(frozen=True)
class Credentials:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


class HttpResponder(TcpServer):
    """A web server for http-01. Unknown paths get 404; `requests` keeps what came. With `tls` it speaks https.

    What is served at a path that ends in a slash is served for what stands behind the slash, too.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, tls: Credentials | None = None) -> None:
        self.requests: list[Request] = []
        self._routes: dict[str, _Script] = {}
        self._tls = server_context(tls) if tls else None
        super().__init__(host, port)

    def serve_token(self, token: str, key_authorization: str) -> None:
        self.respond(CHALLENGE_PATH + token, key_authorization)

    def respond(
        self,
        path: str,
        body: str | bytes = b"",
        *,
        status: int = 200,
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        content = body.encode() if isinstance(body, str) else body
        lines = [
            f"HTTP/1.1 {status} Whatever",
            f"Content-Length: {len(content)}",
            *(f"{n}: {v}" for n, v in headers),
        ]
        self.raw(path, "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content)

    def redirect(self, path: str, location: str, *, status: int = 302) -> None:
        self.respond(path, status=status, headers=[("Location", location)])

    def raw(self, path: str, *parts: bytes, pause: float = 0.0, hold: bool = False) -> None:
        """Answers with these very bytes, `pause` seconds between the parts; `hold`: then keeps the connection open."""
        self._routes[path] = _Script(parts, pause, hold)

    def serve(self, connection: socket.socket) -> None:
        if self._tls is None:
            self._answer(connection)
        else:
            with self._tls.wrap_socket(connection, server_side=True) as stream:
                self._answer(stream)

    def _answer(self, stream: socket.socket) -> None:
        request = _read_request(stream)
        if request is None:
            return
        self.requests.append(request)
        path = request.target.partition("?")[0]
        script = self._routes.get(path) or self._routes.get(path.rpartition("/")[0] + "/", _NOT_FOUND)
        for part in script.parts:
            stream.sendall(part)
            time.sleep(script.pause)
        if script.hold:
            stream.recv(1)


@dataclass(frozen=True)
class _Script:
    parts: tuple[bytes, ...]
    pause: float = 0.0
    hold: bool = False


_NOT_FOUND = _Script((b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",))


class AlpnResponder(TcpServer):
    """A TLS server for tls-alpn-01. `protocols` None: it knows no ALPN at all. `server_names` keeps the SNI of each client."""

    def __init__(
        self,
        credentials: Credentials,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        protocols: tuple[str, ...] | None = ("acme-tls/1",),
        newest: ssl.TLSVersion | None = None,
    ) -> None:
        self.server_names: list[str | None] = []
        self.closed_by_client = 0
        self.received = b""
        self._context = server_context(credentials, newest=newest)
        if protocols is not None:
            self._context.set_alpn_protocols(list(protocols))
        self._context.sni_callback = lambda _, name, __: self.server_names.append(name)
        super().__init__(host, port)

    def serve(self, connection: socket.socket) -> None:
        with self._context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=True) as stream:
            self.received += stream.recv(1024)
            self.closed_by_client += 1


class SilentServer(TcpServer):
    """Accepts and says nothing, or `greeting`, until the client goes away."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, greeting: bytes = b"") -> None:
        self._greeting = greeting
        super().__init__(host, port)

    def serve(self, connection: socket.socket) -> None:
        connection.sendall(self._greeting)
        while connection.recv(4096):
            pass


def challenge_certificate(
    name: str,
    key_authorization: str,
    *,
    names: list[x509.GeneralName] | None = None,
    oid: str = ACME_IDENTIFIER,
    critical: bool = True,
    value: bytes | None = None,
    without_extension: bool = False,
    signed_by: Credentials | None = None,
) -> Credentials:
    """The certificate of RFC 8737 §3 for a name or an address; each parameter after those two makes it wrong.

    `names`: the subjectAltName ([]: none). `value`: the extension's DER. `signed_by`: another's key signs.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "challenge")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )
    names = [general_name(name)] if names is None else names
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if not without_extension:
        der = b"\x04\x20" + hashlib.sha256(key_authorization.encode()).digest() if value is None else value
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), der), critical=critical
        )
    return Credentials(builder.sign(signed_by.key if signed_by else key, hashes.SHA256()), key)


def general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def server_context(credentials: Credentials, *, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """`newest`: the latest version of TLS it speaks, obsolete ones included."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if newest is not None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = min(newest, ssl.TLSVersion.TLSv1_2)
            context.maximum_version = newest
    with tempfile.TemporaryDirectory() as directory:
        pem = Path(directory) / "credentials.pem"
        key = credentials.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        pem.write_bytes(credentials.certificate.public_bytes(Encoding.PEM) + key)
        context.load_cert_chain(pem)
    return context


def _read_request(stream: socket.socket) -> Request | None:
    head = b""
    while b"\r\n\r\n" not in head:
        received = stream.recv(4096)
        if not received:
            return None
        head += received
    head, _, body = head.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    # A connection that is closed before its body was read is reset, and the answer lost.
    missing = int(headers.get("content-length", "0")) - len(body)
    while missing > 0 and (received := stream.recv(missing)):
        missing -= len(received)
    return Request(method, target, headers)
