"""What renewal information names certificates by (RFC 9773 §4.1)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from acme_ca.core import base64url
from acme_ca.core.problems import malformed

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
