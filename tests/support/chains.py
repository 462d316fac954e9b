"""What a certificate chain is worth to those who rely on it: openssl, Python's ssl, and a TLS handshake."""

from __future__ import annotations

import ipaddress
import shutil
import socket
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from tests.support.sockets import TcpServer


@dataclass(frozen=True, kw_only=True)
class Issued:
    """What a client wrote to disk: the leaf and the certificates behind it, and the leaf's key."""

    chain: Path
    key: Path

    @property
    def certificates(self) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates(self.chain.read_bytes())

    @property
    def leaf(self) -> x509.Certificate:
        return self.certificates[0]

    @property
    def names(self) -> set[str]:
        """Names and addresses of the subjectAltName."""
        general = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return {str(name.value) for name in general}


def assert_good(issued: Issued, *names: str, root: Path) -> None:
    """The leaf is for exactly `names`, and everybody who trusts `root` alone accepts it for each of them."""
    assert issued.names == set(names)
    for name in names:
        host = name.replace("*", "anything")
        _assert_openssl_accepts(issued, host, root)
        _assert_handshake_succeeds(issued, host, root)


def _assert_openssl_accepts(issued: Issued, host: str, root: Path) -> None:
    openssl = shutil.which("openssl")
    assert openssl is not None, "ask for the fixture `openssl`"
    checked = "-verify_ip" if _is_address(host) else "-verify_hostname"
    words = [openssl, "verify", "-x509_strict", "-purpose", "sslserver", "-no-CApath", "-no-CAstore"]
    words += ["-CAfile", root, "-untrusted", issued.chain, checked, host, issued.chain]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _assert_handshake_succeeds(issued: Issued, host: str, root: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(root))
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    assert trusting.check_hostname
    with (
        _TlsServer(issued) as server,
        socket.create_connection((server.host, server.port), timeout=10) as plain,
        trusting.wrap_socket(plain, server_hostname=host) as stream,
    ):
        assert stream.recv(100) == _TlsServer.GREETING


class _TlsServer(TcpServer):
    """Serves TLS with what a client was issued."""

    GREETING = b"good morning"

    def __init__(self, issued: Issued) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(issued.chain, issued.key)
        super().__init__()

    def serve(self, connection: socket.socket) -> None:
        with self._context.wrap_socket(connection, server_side=True) as stream:
            stream.sendall(self.GREETING)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
