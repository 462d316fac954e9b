"""PKCS #10 requests (RFC 2986) as ACME uses them (RFC 8555 §7.4): from a CSR come its key and its set of names, no more.

Whatever could make a certificate that its order did not ask for is refused rather than dropped (lesson 1): a name of
any kind but dNSName and iPAddress, wherever it stands; the rights of a CA; purposes other than TLS; critical extensions
that we do not know. What harms nobody is ignored: organisation, country and other parts of the subject, CA:FALSE, the
usual key usages, a key identifier, the TLS feature. E-mail address and user id in the subject are names and refused.
"""

from __future__ import annotations

import binascii
import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from acme_ca.core import identifiers, keys
from acme_ca.core.der import Unreadable, strictly
from acme_ca.core.identifiers import Identifier
from acme_ca.core.keys import PublicKey
from acme_ca.core.problems import ErrorType, Problem

MAX_SIZE = 32 * 1024
"""Bytes of DER. A hundred names of the greatest length and an RSA key of 8192 bits fit."""
SHOWN = 5
"""Names that a sentence lists."""

_PEM = re.compile(r"-----BEGIN ((?:NEW )?CERTIFICATE REQUEST)-----\s([^-]*)-----END \1-----", re.ASCII)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_NAMES_OF_PERSONS = (NameOID.EMAIL_ADDRESS, NameOID.USER_ID)
_MICROSOFT_EXTENSION_REQUEST = x509.ObjectIdentifier("1.3.6.1.4.1.311.2.1.14")
_EXTENSION_REQUESTS = (x509.ObjectIdentifier("1.2.840.113549.1.9.14"), _MICROSOFT_EXTENSION_REQUEST)
_TLS_PURPOSES = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRequest:
    """What is taken from a CSR. The key is of a supported kind; `core.keys` judges whether it is good."""

    public_key: PublicKey
    identifiers: frozenset[Identifier]


MAX_NAMES = 100
"""As many as an order may have; looking at each costs time."""


def parse_csr(der: bytes) -> CertificateRequest:
    """The key and the names of a signed request, in DER. Raises `Problem` (`badCSR`) for everything wrong with it.

    To be called in one thread only: it changes the filters of `warnings` for a moment.
    """
    if len(der) > MAX_SIZE:
        raise _bad(f"it is longer than {MAX_SIZE} bytes")
    public_key, subject, extensions = _read(der)
    _check_subject(subject)
    _check_extensions(extensions)
    return CertificateRequest(public_key=public_key, identifiers=_names(subject, extensions))


def read_text(text: str) -> bytes:
    """The DER of a request in PEM, or in base64 without the lines around. Raises `Problem` (`badCSR`)."""
    pem = _PEM.fullmatch(text.strip())
    try:
        return binascii.a2b_base64("".join((pem[2] if pem else text).split()), strict_mode=True)
    except ValueError:
        raise _bad("it is neither a CERTIFICATE REQUEST in PEM (RFC 7468 §7) nor DER in base64") from None


def check_names(request: CertificateRequest, order_identifiers: Iterable[Identifier]) -> None:
    """Raises `Problem` (`badCSR`) unless the request names exactly what the order does (RFC 8555 §7.4)."""
    wanted = frozenset(order_identifiers)
    missing, extra = wanted - request.identifiers, request.identifiers - wanted
    if missing or extra:
        findings = [*_listing("it lacks", missing), *_listing("it has, and the order has not,", extra)]
        raise _bad(f"its names are not those of the order: {'; '.join(findings)}")


def _listing(words: str, names: frozenset[Identifier]) -> list[str]:
    shown = ", ".join(name.value for name in sorted(names)[:SHOWN])
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{words} {shown}{more}"] if names else []


def _bad(why: str) -> Problem:
    return Problem(ErrorType.BAD_CSR, f"The CSR is refused: {why}.")


# ---------------------------------------------------------------- reading


def _read(der: bytes) -> tuple[PublicKey, x509.Name, x509.Extensions]:
    try:
        with strictly():
            csr = x509.load_der_x509_csr(der)
            return _verified_key(csr), csr.subject, _extensions(csr)
    except Unreadable:
        raise _bad(
            "it is no PKCS #10 request in DER (RFC 2986), or a part of it is not well-formed"
        ) from None


def _verified_key(csr: x509.CertificateSigningRequest) -> PublicKey:
    public_key = keys.supported(
        csr.public_key()
    )  # before the signature: checking one costs what the key says
    if public_key is None:
        raise _bad("its key is of a kind that is not accepted; use EC P-256, EC P-384 or RSA up to 8192 bits")
    # Ed25519 has no separate hash
    hashed = isinstance(csr.signature_hash_algorithm, _HASHES) or isinstance(
        public_key, ed25519.Ed25519PublicKey
    )
    if not hashed:
        raise _bad("it is signed with a weak or unknown hash; sign it with SHA-256, SHA-384 or SHA-512")
    if not csr.is_signature_valid:
        raise _bad("its signature is not by the key in it")
    return public_key


def _extensions(csr: x509.CertificateSigningRequest) -> x509.Extensions:
    # cryptography reads the first of several extension requests: names in another would go unseen.
    if sum(attribute.oid in _EXTENSION_REQUESTS for attribute in csr.attributes) > 1:
        raise _bad("it asks for extensions more than once")
    return csr.extensions


# ---------------------------------------------------------------- names


def _names(subject: x509.Name, extensions: x509.Extensions) -> frozenset[Identifier]:
    alternative = list(_alternative_names(extensions))
    if len(alternative) > MAX_NAMES:
        raise _bad(f"it has more than {MAX_NAMES} names")
    names = {_general_name(name) for name in alternative}
    names |= {_common_name(attribute) for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
    return frozenset(names)


def _alternative_names(extensions: x509.Extensions) -> Iterable[x509.GeneralName]:
    return next((e.value for e in extensions if isinstance(e.value, x509.SubjectAlternativeName)), ())


def _general_name(name: x509.GeneralName) -> Identifier:
    if isinstance(name, x509.DNSName):
        return _canonical(identifiers.dns, name.value)
    if isinstance(name, x509.IPAddress):
        return _canonical(identifiers.ip, str(name.value))
    raise _bad("it has a subjectAltName that is no dNSName or iPAddress; leave it out")


def _common_name(attribute: x509.NameAttribute[str | bytes]) -> Identifier:
    text = attribute.value if isinstance(attribute.value, str) else ""
    try:
        return _canonical(identifiers.ip, str(ipaddress.ip_address(text)))
    except ValueError:
        return _canonical(identifiers.dns, text)


def _canonical(kind: Callable[[str], Identifier], text: str) -> Identifier:
    try:
        return kind(text)
    except Problem as problem:
        raise Problem(ErrorType.BAD_CSR, f"The CSR is refused for a name in it. {problem.detail}") from None


def _check_subject(subject: x509.Name) -> None:
    if len(subject.get_attributes_for_oid(NameOID.COMMON_NAME)) > 1:
        raise _bad("its subject has more than one commonName")
    if any(subject.get_attributes_for_oid(oid) for oid in _NAMES_OF_PERSONS):
        raise _bad("its subject has an e-mail address or a user id; leave it out")


# ---------------------------------------------------------------- requested extensions


def _check_extensions(extensions: x509.Extensions) -> None:
    for extension in extensions:
        rule = _RULES.get(extension.oid, _unknown)
        if why := rule(extension):
            raise _bad(f"{why}; leave it out")


def _harmless(extension: x509.Extension[x509.ExtensionType]) -> None:
    del extension


def _unknown(extension: x509.Extension[x509.ExtensionType]) -> str | None:
    return "it asks for a critical extension that is not known here" if extension.critical else None


def _basic_constraints(extension: x509.Extension[x509.ExtensionType]) -> str | None:
    asks = isinstance(extension.value, x509.BasicConstraints) and not extension.value.ca
    return None if asks else "it asks for the certificate of a CA (basicConstraints)"


def _name_constraints(extension: x509.Extension[x509.ExtensionType]) -> str | None:
    del extension
    return "it asks for nameConstraints, which only a CA has"


def _key_usage(extension: x509.Extension[x509.ExtensionType]) -> str | None:
    usage = extension.value
    harmless = isinstance(usage, x509.KeyUsage) and not usage.key_cert_sign and not usage.crl_sign
    return None if harmless else "it asks for the key usages of a CA (keyCertSign, cRLSign)"


def _extended_key_usage(extension: x509.Extension[x509.ExtensionType]) -> str | None:
    harmless = isinstance(extension.value, x509.ExtendedKeyUsage) and set(extension.value) <= _TLS_PURPOSES
    return None if harmless else "it asks for extended key usages other than serverAuth and clientAuth"


_RULES: dict[x509.ObjectIdentifier, Callable[[x509.Extension[x509.ExtensionType]], str | None]] = {
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME: _harmless,  # its names are judged in _names
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: _harmless,
    ExtensionOID.TLS_FEATURE: _harmless,
    ExtensionOID.BASIC_CONSTRAINTS: _basic_constraints,
    ExtensionOID.NAME_CONSTRAINTS: _name_constraints,
    ExtensionOID.KEY_USAGE: _key_usage,
    ExtensionOID.EXTENDED_KEY_USAGE: _extended_key_usage,
}
