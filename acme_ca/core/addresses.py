"""Where everyone finds what certificates point to, below `public_http_url`."""

from __future__ import annotations

from acme_ca.core.ids import IssuerId


def ca_issuers(base: str, issuer: IssuerId) -> str:
    """The issuer's certificate, DER (RFC 5280 §4.2.2.1)."""
    return f"{base}/ca/{issuer}.cer"


def ocsp(base: str) -> str:
    """The OCSP responder for all issuers (RFC 6960 appendix A.1)."""
    return f"{base}/ocsp"


def crl(base: str, issuer: IssuerId, shard: int) -> str:
    """A shard of the issuer's CRL, DER (RFC 5280 §4.2.1.13)."""
    return f"{base}/crl/{issuer}/{shard}.crl"


def delta_crl(base: str, issuer: IssuerId, shard: int) -> str:
    """What changed in the shard since its base CRL, DER (RFC 5280 §5.2.6)."""
    return f"{base}/crl/{issuer}/{shard}-delta.crl"
