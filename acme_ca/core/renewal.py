"""Renewal information (RFC 9773): what certificates are called by, and when they are best renewed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from acme_ca.core import base64url
from acme_ca.core.problems import malformed
from acme_ca.core.texts import MAX_URL, web_address

MAX_SERIAL_BYTES = 20
"""RFC 5280 §4.1.2.2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertId:
    """A certificate's unique identifier: the key identifier of its AuthorityKeyIdentifier, and its serial number."""

    authority_key_identifier: bytes
    serial: int

    def __str__(self) -> str:
        """`base64url(AKI) "." base64url(content of the serial's DER INTEGER)`."""
        # One bit more than the number has: the sign, which DER keeps zero for a positive one.
        octets = self.serial.to_bytes(self.serial.bit_length() // 8 + 1)
        return f"{base64url.encode(self.authority_key_identifier)}.{base64url.encode(octets)}"

    @classmethod
    def of(cls, certificate: x509.Certificate) -> CertId:
        """Raises x509.ExtensionNotFound, or ValueError where the extension has no key identifier."""
        key = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        if key is None:
            raise ValueError("the AuthorityKeyIdentifier has no key identifier")
        return cls(authority_key_identifier=key, serial=certificate.serial_number)


def parse_cert_id(text: str) -> CertId:
    """The inverse of `str`, for text from outside: every certificate has one spelling. Raises Problem `malformed`."""
    key, dot, serial = text.partition(".")
    octets = base64url.decode(serial, "The serial number of the certificate's identifier")
    cert_id = CertId(
        authority_key_identifier=base64url.decode(key, "The key identifier of the certificate's identifier"),
        serial=int.from_bytes(octets),
    )
    if (
        not key
        or not dot
        or len(octets) > MAX_SERIAL_BYTES + 1
        or str(cert_id) != text
        or cert_id.serial == 0
    ):
        raise malformed(
            "This is no certificate identifier: base64url of the AKI, a dot, base64url of the serial (RFC 9773 §4.1)."
        )
    return cert_id


# ---------------------------------------------------------------- when to renew (§4.2)

LONGEST_INTERVAL = timedelta(hours=6)
SHORTEST_INTERVAL = timedelta(minutes=1)
_ASKED_IN_A_LIFE = 60
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestedWindow:
    """A client renews at a moment of its choice between the two; at once, when the window is over."""

    start: datetime
    end: datetime


def suggested_window(
    cert_id: CertId,
    *,
    not_before: datetime,
    not_after: datetime,
    threshold: timedelta | None = None,
    moved: SuggestedWindow | None = None,
    revoked: datetime | None = None,
) -> SuggestedWindow:
    """A revoked certificate's window is the past; otherwise it is where an operator has `moved` it, if one has.

    Otherwise it is over when `threshold` is left of the life (None: a sixth of it), and begins when twice as much is
    left, but no more than a sixth of the life before that. Each certificate has its own place in between, so that
    certificates which were made together are not renewed together.
    """
    if revoked is not None:
        return SuggestedWindow(start=revoked - _DAY, end=revoked)
    if moved is not None:
        return moved
    life = not_after - not_before
    left = _left_at_the_end(life, threshold)
    length = min(life, left * 6) / 12
    start = not_after - left - length * (2 - _spread(cert_id))
    return SuggestedWindow(start=_whole(start), end=_whole(start + length))


def check_moved(window: SuggestedWindow, *, explanation_url: str | None) -> None:
    """Whether an operator may set this window, explained there (§4.2). Raises Problem `malformed`."""
    if window.start >= window.end:
        raise malformed("A renewal window ends after its start.")
    if explanation_url is not None and not _is_explanation(explanation_url):
        raise malformed(f"The explanation is an http or https URL of {MAX_URL} characters at most.")


def _is_explanation(text: str) -> bool:
    try:
        return len(web_address(text)) <= MAX_URL
    except ValueError:
        return False


def _left_at_the_end(life: timedelta, threshold: timedelta | None) -> timedelta:
    """What is left of the life when the window is over."""
    if threshold is None or threshold > life * 2 / 3:  # too long for a life that an order wished shorter
        return life / 6
    # A client that asks twice a day must not find the window over and the certificate expired.
    return max(threshold, min(life / 6, _DAY))


def polling_interval(*, not_before: datetime, not_after: datetime) -> timedelta:
    """How long a client waits before it asks again (§4.3): a fraction of the life, six hours at most."""
    return min(LONGEST_INTERVAL, max(SHORTEST_INTERVAL, (not_after - not_before) / _ASKED_IN_A_LIFE))


def _spread(cert_id: CertId) -> float:
    """From 0 to 1, the same for the same certificate at every replica."""
    digest = hashlib.sha256(str(cert_id).encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32


def _whole(time: datetime) -> datetime:
    return time.replace(microsecond=0)
