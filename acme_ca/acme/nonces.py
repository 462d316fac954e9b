"""Nonces (RFC 8555 §6.5): self-authenticating when they come back, spent exactly once by the database.

A nonce is base64url of 8 random bytes, 4 bytes of expiry, 8 bytes of epoch and a 16-byte MAC over them: any replica
knows its own family without a look-up, and a made-up nonce costs no round trip.
"""

from __future__ import annotations

import hmac
import struct
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import datetime
from hashlib import blake2b

from acme_ca.core import base64url
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.storage.signers import SpentNonce

_BODY = struct.Struct(">qIq")
_MAC_BYTES = 16


class Nonces:
    """`epoch` is the nonce table's: it changes when a crash emptied the table, and refuses every nonce of before."""

    def __init__(
        self,
        *,
        secret: bytes,
        epoch: int,
        lifetime: int,
        clock: Callable[[], datetime],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.epoch = epoch
        self._secret = secret
        self._lifetime = lifetime
        self._clock = clock
        self._random_bytes = random_bytes

    def mint(self) -> str:
        value = int.from_bytes(self._random_bytes(8), signed=True)
        body = _BODY.pack(value, int(self._clock().timestamp()) + self._lifetime, self.epoch)
        return urlsafe_b64encode(body + self._mac(body)).decode().rstrip("=")

    def check(self, nonce: object) -> SpentNonce:
        """The numbers of an authentic nonce that has not expired; whether it is unspent only the database knows.

        Raises Problem: `badNonce`, or `malformed` for text that is not base64url (RFC 8555 §6.5.2).
        """
        if nonce is None:
            raise bad_nonce("The request carries no nonce")
        if not isinstance(nonce, str):
            raise bad_nonce("The nonce is not a string")
        raw = base64url.decode(nonce, "The nonce")
        body, mac = raw[: _BODY.size], raw[_BODY.size :]
        if len(body) != _BODY.size or not hmac.compare_digest(mac, self._mac(body)):
            raise bad_nonce("The nonce was not issued by this server")
        value, expires, epoch = _BODY.unpack(body)
        if expires < self._clock().timestamp():
            raise bad_nonce("The nonce has expired")
        return SpentNonce(value=value, expires=expires, epoch=epoch)

    def _mac(self, body: bytes) -> bytes:
        return blake2b(body, key=self._secret, digest_size=_MAC_BYTES).digest()


def bad_nonce(what: str) -> Problem:
    return Problem(
        ErrorType.BAD_NONCE, f"{what}: try again with the nonce of this answer's Replay-Nonce header."
    )
