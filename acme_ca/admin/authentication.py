"""Who asks: a bearer token, a client certificate of this CA, or a process of this machine become a Principal."""

from __future__ import annotations

import hmac
import math
import os
import pwd
import re
import socket
import struct
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from hashlib import sha256

from aiohttp import web
from cryptography import x509

from acme_ca.admin.access import Principal, Role
from acme_ca.core.actors import MACHINE, SOCKET
from acme_ca.core.codes import Code
from acme_ca.core.ids import serial_text
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.times import CLOCKS_APART
from acme_ca.http import CLIENT
from acme_ca.storage import certificates, tokens
from acme_ca.storage.database import Database
from acme_ca.storage.tokens import Attempt, Token

PREFIX = "acmeca"
ID_BYTES, SECRET_BYTES = 8, 32
FREE_FAILURES = 5
LONGEST_WAIT = 900.0
"""Seconds that a source waits at most after wrong credentials."""
USED_GRAIN = timedelta(minutes=1)
OPERATOR_PROFILE = "operator"
"""Client certificates of this profile open the API, and no others."""

_TOKEN = re.compile(rf"{PREFIX}_([0-9a-f]{{{2 * ID_BYTES}}})_([0-9a-f]{{{2 * SECRET_BYTES}}})", re.ASCII)
_PEER = struct.Struct("3i")


def new_token(random_bytes: Callable[[int], bytes]) -> tuple[str, bytes, str]:
    """(Id, SHA-256 of the secret, the token to be shown once)."""
    id_, secret = random_bytes(ID_BYTES).hex(), random_bytes(SECRET_BYTES).hex()
    return id_, _digest(secret), f"{PREFIX}_{id_}_{secret}"


class Doorkeeper:
    def __init__(self, *, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def by_token(self, request: web.Request) -> Principal:
        """`Authorization: Bearer …` (RFC 6750 §2.1). Raises Problem."""
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise _missing()
        source = request[CLIENT]
        match = _TOKEN.fullmatch(shown.strip())
        id_, secret = match.groups() if match else ("", "")
        attempt = await tokens.attempt(self._database, id_, source=source)
        self._check_lock(attempt)
        token = attempt.token
        if (
            token is None
            or token.secret_sha256 is None
            or not hmac.compare_digest(token.secret_sha256, _digest(secret))
        ):
            raise await self._wrong(token, source)
        return await self._admitted(token, attempt, source)

    async def by_certificate(self, request: web.Request) -> Principal:
        """The certificate of the TLS handshake, which has shown that the client has its key. Raises Problem.

        It is looked up at every request, byte for byte: what was revoked a moment ago opens nothing (lesson 20). Browsers show
        certificates for whichever page sends the request, and then say whose it is in Origin (RFC 6454 §7): no page of ours
        sends any.
        """
        if "Origin" in request.headers:
            raise Problem(
                ErrorType.UNAUTHORIZED,
                "With a client certificate no web page may ask; give it a token.",
                code=Code.FORBIDDEN,
            )
        tls = request.transport.get_extra_info("ssl_object") if request.transport else None
        der = tls.getpeercert(binary_form=True) if tls else None
        if der is None:
            raise _missing()
        source = request[CLIENT]
        serial = serial_text(x509.load_der_x509_certificate(der).serial_number)
        known = await certificates.find(self._database, serial)
        now = self._clock()
        if (
            known is None
            or known.der != der
            or known.revoked is not None
            or not known.not_before <= now < known.not_after
            or known.profile.name != OPERATOR_PROFILE
        ):
            raise await self._wrong(None, source)
        names = [str(identifier) for identifier in known.identifiers]
        attempt, *others = await tokens.attempts_by_certificate(self._database, names, source=source)
        if attempt.token is None:
            raise await self._wrong(None, source)
        if others:
            raise _ambiguous([attempt, *others])
        return await self._admitted(attempt.token, attempt, source)

    async def by_socket(self, request: web.Request) -> Principal:
        """Whoever may open the socket is the server's own user, or root: an administrator."""
        return Principal(name=_peer(request) + MACHINE, role=Role.ADMINISTRATOR, source=SOCKET)

    async def _admitted(self, token: Token, attempt: Attempt, source: str) -> Principal:
        now = self._clock()
        if not token.is_good(now):
            raise await self._wrong(token, source)
        noted = token.last_used is not None and token.last_used <= now <= token.last_used + USED_GRAIN
        if attempt.locked_until is not None or not noted:
            await tokens.used(self._database, token.id, source=source, now=now)
        return Principal(
            name=token.name, role=Role(token.role), services=frozenset(token.services), source=source
        )

    def _check_lock(self, attempt: Attempt) -> None:
        """One source's wrong tokens do not keep out its good ones: each token that there is has a lock of its own."""
        wait = (attempt.locked_until - self._clock()).total_seconds() if attempt.locked_until else 0
        if 0 < wait <= LONGEST_WAIT + CLOCKS_APART.total_seconds():  # beyond, a wrong clock was at work
            raise Problem(
                ErrorType.RATE_LIMITED,
                "Too many wrong credentials came from this address: wait, then try the right one.",
                code=Code.LOCKED_OUT,
                headers={"Retry-After": str(math.ceil(wait))},
            )

    async def _wrong(self, token: Token | None, source: str) -> Problem:
        await tokens.failed(
            self._database,
            token.id if token else "",
            source=source,
            free=FREE_FAILURES,
            longest=LONGEST_WAIT,
            now=self._clock(),
        )
        return _refused(Code.CREDENTIALS_WRONG, "This token or certificate is unknown, revoked or expired.")


def _digest(secret: str) -> bytes:
    """The secret has 256 random bits: no dictionary has it, and a slow hash would only slow us."""
    return sha256(secret.encode()).digest()


def _missing() -> Problem:
    return _refused(Code.CREDENTIALS_MISSING, "Show a token, in the header Authorization: Bearer TOKEN.")


def _ambiguous(attempts: Sequence[Attempt]) -> Problem:
    """Which role holds would be chance, or the choice of whoever put the names into one certificate.

    An operator whose entry has expired counts as well: until it is revoked the name is theirs, and nobody else can be
    given it. Otherwise the passing of a date, which nobody decides at that moment, would make a certificate that was
    refused someone's login, and its holder another person for the audit and for two-person approval.
    """
    named = ", ".join(attempt.token.name for attempt in attempts if attempt.token)
    return _refused(
        Code.CREDENTIALS_AMBIGUOUS,
        f"The certificate has the names of several operators ({named}): show one that has the name of one only, "
        "or have the entries revoked that nobody needs any more: those that have expired count, too.",
    )


def _refused(code: Code, detail: str) -> Problem:
    return Problem(
        ErrorType.UNAUTHORIZED, detail, status=401, code=code, headers={"WWW-Authenticate": "Bearer"}
    )


def _peer(request: web.Request) -> str:
    """The user at the other end of the Unix socket."""
    transport = request.transport
    if transport is None:
        return "unknown"
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as own:
        _, user, _ = _PEER.unpack(own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"uid-{user}"
