"""A private ACME certificate authority (RFC 8555)."""

__version__ = "0.1.0"
