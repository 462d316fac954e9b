"""A key store on request: it can be taken away, and it can be slow."""

from __future__ import annotations

import threading

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from acme_ca.ca.keystore import KeyUnavailable, PrivateKey
from acme_ca.ca.remotekey import RSA_HASH, RemoteEcKey, RemoteRsaKey, ec_hash


class Store:
    """Holds one key; `key()` is what the server gets of it."""

    def __init__(self, held: PrivateKey) -> None:
        self.held = held
        self.away = False
        self.signatures = 0
        self.asked = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def key(self) -> PrivateKey:
        if isinstance(self.held, ec.EllipticCurvePrivateKey):
            return RemoteEcKey(self.held.public_key(), self._sign)
        return RemoteRsaKey(self.held.public_key(), self._sign)

    def _sign(self, digest: bytes) -> bytes:
        self.asked.set()
        assert self.go_on.wait(10)
        if self.away:
            raise KeyUnavailable("The key store is away.")
        self.signatures += 1
        if isinstance(self.held, rsa.RSAPrivateKey):
            return self.held.sign(digest, padding.PKCS1v15(), Prehashed(RSA_HASH))
        return self.held.sign(digest, ec.ECDSA(Prehashed(ec_hash(self.held.curve))))
