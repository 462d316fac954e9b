"""OCSP messages: a request read, an answer written (RFC 6960 §4). Pure.

cryptography reads requests for one certificate only and writes the hash algorithm of a CertID in its own way. Here a
request may be about several certificates, and an answer repeats each CertID byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, IntEnum

from acme_ca.core import der
from acme_ca.core.certificates import CertificateStatus
from acme_ca.core.der import Unreadable
from acme_ca.core.ids import IssuerId, Serial, serial_text
from acme_ca.core.issuers import IssuerHashes
from acme_ca.core.revocation import RevocationReason

MAX_CERTIFICATES = 32
"""In one request. Clients of RFC 5019 §2.1.1 ask about one."""
MAX_NONCE = 128
"""Bytes (RFC 9654 §2.1)."""

_SEQUENCE, _OID, _OCTETS, _INTEGER, _BOOLEAN, _ENUMERATED, _TIME = 0x30, 0x06, 0x04, 0x02, 0x01, 0x0A, 0x18
_NULL = b"\x05\x00"
_V1 = b"\x02\x01\x00"


def _oid(hexadecimal: str) -> bytes:
    return bytes.fromhex(hexadecimal)


_BASIC = _oid("2b0601050507300101")
_NONCE = _oid("2b0601050507300102")
_ACCEPTABLE_RESPONSES = _oid("2b0601050507300104")
_PREFERRED_SIGNATURES = _oid("2b0601050507300108")
_UNDERSTOOD = frozenset({_NONCE, _ACCEPTABLE_RESPONSES, _PREFERRED_SIGNATURES})
"""The last two are wishes that every answer of ours meets or may pass over (RFC 6960 §4.4.3, §4.4.7)."""
_HASHES = {
    _oid("2b0e03021a"): "sha1",
    _oid("608648016503040201"): "sha256",
    _oid("608648016503040202"): "sha384",
    _oid("608648016503040203"): "sha512",
}
"""As `ca.responders` knows issuers by."""


class ResponseStatus(IntEnum):
    """RFC 6960 §4.2.1."""

    SUCCESSFUL = 0
    MALFORMED_REQUEST = 1
    INTERNAL_ERROR = 2
    TRY_LATER = 3
    UNAUTHORIZED = 6


@dataclass(frozen=True, slots=True)
class CertId:
    """RFC 6960 §4.1.1. `der`: as the client sent it."""

    issuer: IssuerHashes
    number: int
    der: bytes = field(repr=False)

    @property
    def serial(self) -> Serial | None:
        """None: a number that no certificate of this CA has."""
        return serial_text(self.number) if 0 <= self.number < 1 << 128 else None


@dataclass(frozen=True, slots=True)
class OcspRequest:
    certificates: tuple[CertId, ...]
    nonce: bytes | None


# ---------------------------------------------------------------- reading


def parse(raw: bytes) -> OcspRequest:
    """An OCSPRequest (RFC 6960 §4.1.1). Raises Unreadable: the answer is `malformedRequest`.

    Who asks, and a signature that says so, is passed over: everyone gets the same answers (RFC 5019 §2.1.2).
    """
    message = der.Values(raw)
    request = der.Values(message.take(_SEQUENCE))
    message.end()
    tbs = der.Values(request.take(_SEQUENCE))
    request.take_if(0xA0)  # optionalSignature
    request.end()
    if tbs.take_if(0xA0) not in {None, _V1}:
        raise Unreadable("the version is not 1")
    tbs.take_if(0xA1)  # requestorName
    certificates = _cert_ids(der.Values(tbs.take(_SEQUENCE)))
    extensions = _extensions(tbs.take_if(0xA2), understood=_UNDERSTOOD)
    tbs.end()
    return OcspRequest(certificates, _nonce(extensions.get(_NONCE)))


def _cert_ids(requests: der.Values) -> tuple[CertId, ...]:
    found = []
    while requests:
        request = der.Values(requests.take(_SEQUENCE))
        found.append(_cert_id(request.take_whole(_SEQUENCE)))
        _extensions(request.take_if(0xA0), understood=frozenset())
        request.end()
    if not 1 <= len(found) <= MAX_CERTIFICATES:
        raise Unreadable("the request is about no certificate or about too many")
    return tuple(found)


def _cert_id(whole: bytes) -> CertId:
    values = der.Values(der.Values(whole).take(_SEQUENCE))
    algorithm = _hash(der.Values(values.take(_SEQUENCE)))
    issuer = IssuerHashes(algorithm, values.take(_OCTETS), values.take(_OCTETS))
    number = der.integer(values.take(_INTEGER))
    values.end()
    return CertId(issuer, number, whole)


def _hash(identifier: der.Values) -> str | None:
    """The AlgorithmIdentifier's hash: its parameters are NULL or left out (RFC 5754 §2)."""
    name = _HASHES.get(identifier.take(_OID))
    if name is not None:
        if identifier.take_if(_NULL[0]):
            raise Unreadable("NULL is not empty")
        identifier.end()
    return name


def _extensions(explicit: bytes | None, *, understood: frozenset[bytes]) -> dict[bytes, bytes]:
    """Values by OID. Raises Unreadable for one that comes twice, or that is critical and not understood."""
    found: dict[bytes, bytes] = {}
    if explicit is None:
        return found
    outer = der.Values(explicit)
    extensions = der.Values(outer.take(_SEQUENCE))
    outer.end()
    while extensions:
        extension = der.Values(extensions.take(_SEQUENCE))
        oid = extension.take(_OID)
        critical = der.boolean(extension.take(_BOOLEAN)) if extension.follows(_BOOLEAN) else False
        value = extension.take(_OCTETS)
        extension.end()
        if oid in found or (critical and oid not in understood):
            raise Unreadable("an extension comes twice, or is critical and not understood")
        found[oid] = value
    return found


def _nonce(value: bytes | None) -> bytes | None:
    if value is None:
        return None
    values = der.Values(value)
    nonce = values.take(_OCTETS)
    values.end()
    if not 1 <= len(nonce) <= MAX_NONCE:
        raise Unreadable("the nonce is empty or too long (RFC 9654 §2.1)")
    return nonce


# ---------------------------------------------------------------- deciding


class CertStatus(Enum):
    """RFC 6960 §2.2."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Status:
    """What is said of a certificate. `revoked`, `reason`: of a revoked one only."""

    cert_status: CertStatus
    revoked: datetime | None = None
    reason: RevocationReason | None = None


UNKNOWN = Status(CertStatus.UNKNOWN)
GOOD = Status(CertStatus.GOOD)


def decide(stored: CertificateStatus | None, issuers: frozenset[IssuerId]) -> Status:
    """`issuers`: those with the name and the key that the client means.

    What was recorded and never signed is no certificate, but it may be revoked like one.
    """
    if stored is None or stored.issuer not in issuers:
        return UNKNOWN
    if stored.revoked is not None:
        return Status(CertStatus.REVOKED, stored.revoked, stored.reason)
    return GOOD if stored.signed else UNKNOWN


# ---------------------------------------------------------------- writing


def unsuccessful(status: ResponseStatus) -> bytes:
    """An OCSPResponse that says why there is no answer. Nobody signs it."""
    return der.tlv(_SEQUENCE, der.tlv(_ENUMERATED, bytes((status,))))


def single_response(cert_id: bytes, status: Status, *, this_update: datetime, next_update: datetime) -> bytes:
    """RFC 6960 §4.2.1. Times in UTC, whole seconds."""
    return der.tlv(
        _SEQUENCE, cert_id, _cert_status(status), _time(this_update), der.tlv(0xA0, _time(next_update))
    )


def _cert_status(status: Status) -> bytes:
    if status.cert_status is CertStatus.GOOD:
        return b"\x80\x00"
    if status.revoked is None:
        return b"\x82\x00"
    # As in CRLs, "unspecified" is said by silence (RFC 5280 §5.3.1).
    reason = b"" if not status.reason else der.tlv(0xA0, der.tlv(_ENUMERATED, bytes((status.reason,))))
    return der.tlv(0xA1, _time(status.revoked), reason)


def response_data(
    *, key_hash: bytes, produced_at: datetime, responses: Sequence[bytes], nonce: bytes | None
) -> bytes:
    """The ResponseData to be signed. `key_hash`: SHA-1 of the responder's public key, its ResponderID."""
    return der.tlv(
        _SEQUENCE,
        der.tlv(0xA2, der.tlv(_OCTETS, key_hash)),
        _time(produced_at),
        der.tlv(_SEQUENCE, *responses),
        b"" if nonce is None else der.tlv(0xA1, der.tlv(_SEQUENCE, _nonce_extension(nonce))),
    )


def successful(data: bytes, *, algorithm: bytes, signature: bytes, certificate: bytes) -> bytes:
    """The OCSPResponse around signed ResponseData, with the responder's certificate (DER)."""
    basic = der.signed(data, algorithm, signature, der.tlv(0xA0, der.tlv(_SEQUENCE, certificate)))
    return der.tlv(
        _SEQUENCE,
        der.tlv(_ENUMERATED, bytes((ResponseStatus.SUCCESSFUL,))),
        der.tlv(0xA0, der.tlv(_SEQUENCE, der.tlv(_OID, _BASIC), der.tlv(_OCTETS, basic))),
    )


def _nonce_extension(nonce: bytes) -> bytes:
    return der.tlv(_SEQUENCE, der.tlv(_OID, _NONCE), der.tlv(_OCTETS, der.tlv(_OCTETS, nonce)))


def _time(when: datetime) -> bytes:
    return der.tlv(_TIME, f"{when:%Y%m%d%H%M%SZ}".encode())
