"""The OCSP room: what is asked, what the database says now, and an answer that a responder has signed (RFC 6960).

Every request looks up its certificate, so a revocation shows at once in every worker. Signatures are what is kept: an
answer is used again while the certificate's status is as it was and half of the answer's life is left.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from acme_ca.ca.responders import Desk, Responder, Responders
from acme_ca.core.certificates import CertificateStatus
from acme_ca.core.der import Unreadable
from acme_ca.log import Logger
from acme_ca.revocation import ocsp_messages as messages
from acme_ca.revocation.ocsp_messages import OcspRequest, ResponseStatus, Status
from acme_ca.storage import certificates
from acme_ca.storage.database import Database, DatabaseUnavailable

UNKNOWN_LIFETIME = timedelta(minutes=5)
"""Of an answer "unknown", at most: the certificate may be about to be signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OcspRules:
    lifetime: timedelta
    """From thisUpdate to nextUpdate."""
    kept: int
    """Answers that a worker keeps, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OcspAnswer:
    """`der`: an OCSPResponse. `life`: of one that may be given to others who ask the same."""

    der: bytes = field(repr=False)
    life: Life | None = None


@dataclass(frozen=True, slots=True)
class Life:
    """thisUpdate and nextUpdate."""

    begin: datetime
    end: datetime


class Ocsp:
    def __init__(
        self,
        *,
        database: Database,
        responders: Responders,
        rules: OcspRules,
        clock: Callable[[], datetime],
        log: Logger,
    ) -> None:
        self._database = database
        self._responders = responders
        self._rules = rules
        self._clock = clock
        self._log = log
        self._kept = _Kept(rules.kept)

    async def answer(self, raw: bytes) -> OcspAnswer:
        """To whatever was sent: an answer in all cases, at times one that says why there is none."""
        try:
            request = messages.parse(raw)
        except Unreadable:
            return _refusal(ResponseStatus.MALFORMED_REQUEST)
        desk = self._desk(request)
        if desk is None:
            return _refusal(ResponseStatus.UNAUTHORIZED)
        try:
            return await self._status(request, desk)
        except DatabaseUnavailable as error:
            self._log.error("OCSP waits for the database", reason=str(error))
            return _refusal(ResponseStatus.TRY_LATER)
        except Exception:  # noqa: BLE001  OCSP has a word of its own for it
            self._log.exception("OCSP request failed")
            return _refusal(ResponseStatus.INTERNAL_ERROR)

    def _desk(self, request: OcspRequest) -> Desk | None:
        """The one for all certificates asked about: its responder speaks for no other issuer."""
        desks = [self._responders.find(cert_id.issuer) for cert_id in request.certificates]
        return desks[0] if all(desk is desks[0] for desk in desks) else None

    async def _status(self, request: OcspRequest, desk: Desk) -> OcspAnswer:
        # As of before the look-up: what is revoked meanwhile is revoked later.
        now = self._clock().replace(microsecond=0)
        asked = await self._look_up(request, desk)
        responder = desk.responder
        if responder is None or responder.not_after <= now:
            self._log.error("OCSP has no responder", issuers=sorted(desk.issuers))
            return _refusal(ResponseStatus.INTERNAL_ERROR)
        if request.nonce is not None or len(asked) > 1:
            return self._sign(asked, responder, nonce=request.nonce, now=now)
        if (answer := self._kept.find(asked[0], responder, now)) is None:
            answer = self._sign(asked, responder, nonce=None, now=now)
            self._kept.keep(asked[0], responder, answer)
        return answer

    async def _look_up(self, request: OcspRequest, desk: Desk) -> list[_Asked]:
        serials = {cert_id.serial for cert_id in request.certificates if cert_id.serial is not None}
        found = await certificates.statuses(self._database, serials)
        asked = []
        for cert_id in request.certificates:
            stored = None if cert_id.serial is None else found.get(cert_id.serial)
            asked.append(_Asked(cert_id.der, stored, messages.decide(stored, desk.issuers)))
        return asked

    def _sign(
        self, asked: list[_Asked], responder: Responder, *, nonce: bytes | None, now: datetime
    ) -> OcspAnswer:
        unknown = any(one.status is messages.UNKNOWN for one in asked)
        lifetime = min(self._rules.lifetime, UNKNOWN_LIFETIME) if unknown else self._rules.lifetime
        next_update = min(now + lifetime, responder.not_after)
        responses = [
            messages.single_response(one.cert_id, one.status, this_update=now, next_update=next_update)
            for one in asked
        ]
        signed = messages.response_data(
            key_hash=responder.key_hash, produced_at=now, responses=responses, nonce=nonce
        )
        response = messages.successful(
            signed,
            algorithm=responder.algorithm,
            signature=responder.sign(signed),
            certificate=responder.der,
        )
        if nonce is not None or unknown:
            return OcspAnswer(der=response)
        return OcspAnswer(der=response, life=Life(now, next_update))


def _refusal(status: ResponseStatus) -> OcspAnswer:
    return OcspAnswer(der=messages.unsuccessful(status))


@dataclass(frozen=True, slots=True)
class _Asked:
    """One certificate of a request. `cert_id`: DER. `status`: what is to be said of what is stored."""

    cert_id: bytes
    stored: CertificateStatus | None
    status: Status


class _Kept:
    """Answers about one certificate each, at most so many: what was not asked for the longest time goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def find(self, asked: _Asked, responder: Responder, now: datetime) -> OcspAnswer | None:
        """The answer, if it is still what would be said, and the responder would sign it."""
        entry = self._entries.get(asked.cert_id)
        if (
            entry is None
            or entry.stored != asked.stored
            or entry.responder is not responder
            or not entry.begin <= now < entry.half_life  # the clock may have gone back
        ):
            return None
        self._entries.move_to_end(asked.cert_id)
        return entry.answer

    def keep(self, asked: _Asked, responder: Responder, answer: OcspAnswer) -> None:
        if answer.life is None:
            return
        half_life = answer.life.begin + (answer.life.end - answer.life.begin) / 2
        self._entries[asked.cert_id] = _Entry(asked.stored, responder, answer.life.begin, half_life, answer)
        self._entries.move_to_end(asked.cert_id)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Entry:
    stored: CertificateStatus | None
    responder: Responder
    begin: datetime
    half_life: datetime
    answer: OcspAnswer
