"""Acts with an offline root: it is made once, its key wrapped so that k of n shares open it, and opened for each act.

The wrapped key is PKCS #8. Its password is the secret that the shares give, in hexadecimal, so that it can be opened
without this program: with any tool for SLIP-39, and `openssl pkey`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.ca import certify, checks, folder, hierarchy, keystore, shares
from acme_ca.ca.certify import Parent
from acme_ca.ca.checks import Link
from acme_ca.ca.issuers import IssuerError, key_identifier, signature_hash
from acme_ca.ca.keystore import KeyKind, KeyStoreError
from acme_ca.ca.shares import Share
from acme_ca.core import der
from acme_ca.core.model import RevocationReason
from acme_ca.core.revocation import reason_flag

ROOT_CERTIFICATE = "root.pem"
ROOT_KEY = "root.key"
ROOT_CRL = "root.crl"
CRL_LIFETIME = timedelta(days=365)


@dataclass(frozen=True, slots=True, kw_only=True)
class RootTerms:
    name: x509.Name
    kind: KeyKind
    lifetime: timedelta = certify.ROOT_LIFETIME
    path_length: int = 1


# ---------------------------------------------------------------- the wrapped key


def make_root(directory: Path, terms: RootTerms, secret: bytes, *, now: datetime) -> x509.Certificate:
    """A new root in the folder: its certificate, and its key wrapped by the secret (shares.SECRET_BYTES).

    Raises KeyStoreError, OSError.
    """
    key = keystore.generate(terms.kind)
    root = certify.make_root(terms.name, key, lifetime=terms.lifetime, path_length=terms.path_length, now=now)
    keep_root(directory, Parent(certificate=root, key=key), secret)
    return root


def keep_root(directory: Path, root: Parent, secret: bytes) -> None:
    """Write the root's certificate, and its key wrapped by the secret. Raises KeyStoreError, OSError."""
    keystore.save(directory / ROOT_KEY, root.key, _password(secret))
    folder.write(directory / ROOT_CERTIFICATE, root.certificate.public_bytes(Encoding.PEM))


def open_root(directory: Path, given: Sequence[Share], *, now: datetime) -> Parent:
    """The root, ready to sign. Raises ShareError, IssuerError."""
    certificate = read_root(directory, now=now)
    password = _password(shares.combine(given))
    try:
        key = keystore.load(directory / ROOT_KEY, password)
    except KeyStoreError as error:
        raise IssuerError(f"{error} Are these the shares of this root?") from None
    return Parent(certificate=certificate, key=key)


def read_root(directory: Path, *, now: datetime) -> x509.Certificate:
    """Its certificate. Raises IssuerError for one that is no root, or not valid at `now`."""
    path = directory / ROOT_CERTIFICATE
    certificate = hierarchy.read_certificate(path)
    checks.check([Link(f"certificate {path}", certificate)], now=now)
    return certificate


def check_all_shares(directory: Path, noted: Sequence[Share], *, now: datetime) -> None:
    """That the key opens with each of them in turn among those that are needed. Raises ShareError, IssuerError."""
    for first, share in enumerate(noted):
        turned = [*noted[first:], *noted[:first]]
        open_root(directory, turned[: share.threshold], now=now)


def _password(secret: bytes) -> bytes:
    return secret.hex().encode()


# ---------------------------------------------------------------- its CRL


def sign_crl(
    root: Parent,
    revoked: Collection[int] = (),
    *,
    reason: RevocationReason = RevocationReason.UNSPECIFIED,
    previous: x509.CertificateRevocationList | None = None,
    lifetime: timedelta = CRL_LIFETIME,
    now: datetime,
) -> x509.CertificateRevocationList:
    """A full CRL: what `previous` holds, and the serials that are `revoked` now. Its number is above the previous one's
    and not below the clock's milliseconds, as with every CRL here. Raises IssuerError for a serial that is revoked already.
    """
    entries = list(previous or ())
    known = {entry.serial_number for entry in entries}
    if again := known.intersection(revoked):
        raise IssuerError(f"The certificate {min(again):x} is revoked already.")
    entries += [_entry(serial, reason, now) for serial in dict.fromkeys(revoked)]
    authority = x509.AuthorityKeyIdentifier(key_identifier(root.certificate), None, None)
    return (
        _with_entries(entries)
        .issuer_name(root.certificate.subject)
        .last_update(now)
        .next_update(min(now + lifetime, root.certificate.not_valid_after_utc))
        .add_extension(x509.CRLNumber(max(number(previous) + 1, int(now.timestamp() * 1000))), critical=False)
        .add_extension(authority, critical=False)
        .sign(root.key, signature_hash(root.key.public_key()))
    )


def read_crl(directory: Path) -> x509.CertificateRevocationList | None:
    """The CRL beside the root's certificate; None when there is none. Raises IssuerError for one that is not the root's."""
    path = directory / ROOT_CRL
    if not path.exists():
        return None
    root = hierarchy.read_certificate(directory / ROOT_CERTIFICATE)
    with contextlib.suppress(OSError, der.Unreadable), der.strictly():
        found = x509.load_der_x509_crl(path.read_bytes())
        if _is_of(root, found):
            return found
    raise IssuerError(f"{path} is no CRL of this root; put the last one there, or move it away.")


def number(crl: x509.CertificateRevocationList | None) -> int:
    """Its CRL number (RFC 5280 §5.2.3); 0 for none."""
    if crl is None:
        return 0
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _is_of(root: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    is_signed = crl.is_signature_valid(certify.public_key_of(root))
    is_numbered = any(isinstance(extension.value, x509.CRLNumber) for extension in crl.extensions)
    return crl.issuer == root.subject and is_signed and is_numbered


def _entry(serial: int, reason: RevocationReason, now: datetime) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
    if reason is not RevocationReason.UNSPECIFIED:  # "SHOULD be absent instead" (RFC 5280 §5.3.1)
        builder = builder.add_extension(x509.CRLReason(reason_flag(reason)), critical=False)
    return builder.build()


def _with_entries(entries: Iterable[x509.RevokedCertificate]) -> x509.CertificateRevocationListBuilder:
    builder = x509.CertificateRevocationListBuilder()
    for entry in entries:
        builder = builder.add_revoked_certificate(entry)
    return builder
