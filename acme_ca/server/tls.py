"""The TLS of the listeners: the server's own certificate, loaded again in place when its file changes."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca import log

WATCH_INTERVAL = 5.0
"""Seconds between two looks at the file."""


class ServerTls:
    """`context` serves the certificate of `file`: PEM, the unencrypted key and the chain, leaf first. `clients` does, too,
    and wants a certificate of the client.

    Made before the workers are: their session tickets then have the same keys, and a client may resume at any of them.
    Raises OSError, ssl.SSLError (also an OSError) when the file cannot be used.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen = self._stamp()
        self.context = _context()
        self.clients = _context()
        self.clients.verify_mode = ssl.CERT_REQUIRED
        # Issuers are trusted themselves, whatever is above them: whether a certificate is good the database says.
        self.clients.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        self._trusted: set[bytes] = set()
        self._load()

    def trust(self, issuers: Iterable[x509.Certificate]) -> None:
        """Take client certificates of these CAs on `clients`, beside those of before."""
        for issuer in issuers:
            der = issuer.public_bytes(Encoding.DER)
            if der not in self._trusted:
                self.clients.load_verify_locations(cadata=der)
                self._trusted.add(der)

    async def watch(self, interval: float = WATCH_INTERVAL) -> None:
        """Reload whenever the file has changed, until cancelled."""
        while True:
            await asyncio.sleep(interval)
            self.refresh()

    def refresh(self) -> None:
        """Reload if the file has changed; one that cannot be used is logged and tried again the next time."""
        try:
            stamp = self._stamp()
            if stamp != self._seen:
                self._load()
                self._seen = stamp
                log.get().info("server certificate reloaded", file=str(self._file))
        except OSError as error:
            log.get().warning("server certificate not reloaded", file=str(self._file), reason=str(error))

    def _stamp(self) -> tuple[int, int]:
        found = self._file.stat()
        return found.st_mtime_ns, found.st_ino

    def _load(self) -> None:
        # From a copy in memory, tried in a context of its own first: OpenSSL drops the good key of a live context
        # when it is given a certificate of another, and the file may be replaced between the two.
        copy = os.memfd_create("acme-ca-tls")
        try:
            os.write(copy, self._file.read_bytes())
            pem = f"/proc/self/fd/{copy}"
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(pem, password=_no_password)
            for context in (self.context, self.clients):
                context.load_cert_chain(pem, password=_no_password)
        finally:
            os.close(copy)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 1
    return context


def _no_password() -> str:
    # Without it OpenSSL would ask on the terminal for the password of an encrypted key, and the server would hang.
    raise ssl.SSLError("the key is encrypted")
