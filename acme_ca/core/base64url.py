"""Base64url without padding, in its one canonical spelling (RFC 7515 §2, RFC 8555 §6.1)."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64encode

from acme_ca.core.problems import malformed


def decode(text: str, what: str) -> bytes:
    """Base64url without padding, in its one canonical spelling (RFC 8555 §6.1). `what` begins the refusal's sentence."""
    try:
        raw = binascii.a2b_base64(
            text.encode("ascii").translate(_FROM_URL) + b"=" * (-len(text) % 4), strict_mode=True
        )
    except ValueError:
        raise malformed(f"{what} is not base64url without padding (RFC 7515 §2).") from None
    if len(raw) % 3 and encode(raw[-(len(raw) % 3) :])[-1] != text[-1]:
        raise malformed(
            f"{what} is not base64url in its canonical form: its last character carries stray bits."
        )
    return raw


def encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


# What only plain base64 knows, padding too, becomes what no base64 knows.
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/!!!")
