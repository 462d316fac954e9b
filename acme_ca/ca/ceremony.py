"""Acts with an offline root: it is made once, its key wrapped so that k of n shares open it, and opened for each act.

The wrapped key is PKCS #8. Its password is the secret that the shares give, in hexadecimal, so that it can be opened
without this program: with any tool for SLIP-39, and `openssl pkey`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.ca import certify, checks, folder, hierarchy, keystore, shares
from acme_ca.ca.certify import Parent
from acme_ca.ca.checks import Link
from acme_ca.ca.issuers import IssuerError, issuer_id
from acme_ca.ca.keystore import KeyKind, KeyStoreError
from acme_ca.ca.shares import Share
from acme_ca.core import crl, der
from acme_ca.core.crl import Entry, Scope, UnsignedCrl
from acme_ca.core.ids import Serial, serial_text
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.root_list import RootList

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


def next_crl(
    root: x509.Certificate,
    *,
    previous: x509.CertificateRevocationList | None = None,
    listed: RootList | None = None,
    revoked: Collection[Serial] = (),
    reason: RevocationReason = RevocationReason.UNSPECIFIED,
    lifetime: timedelta | None = None,
    now: datetime,
) -> UnsignedCrl:
    """What the root's next CRL says: what `previous` holds and a server has `listed`, and what is `revoked` now.

    Its number is above that of all before. Raises IssuerError for a list of another root, and for a serial that is
    revoked already.
    """
    if listed is not None and listed.issuer != issuer_id(root):
        raise IssuerError("The list is another root's.")
    known = {entry.serial: entry for entry in map(_entry, previous or ())}
    known |= {ca.serial: ca.entry for ca in (listed.revoked if listed else ())}
    if again := known.keys() & set(revoked):
        raise IssuerError(f"The certificate {min(again)} is revoked already.")
    known |= {serial: Entry(serial, now.replace(microsecond=0), reason) for serial in revoked}
    above = max(number(previous), listed.above if listed else 0)
    life = lifetime or (timedelta(days=listed.days) if listed else CRL_LIFETIME)
    return UnsignedCrl(
        issuer=issuer_id(root),
        number=max(above + 1, crl.next_number(None, now)),
        this_update=crl.this_update(None, now),
        next_update=min(now.replace(microsecond=0) + life, root.not_valid_after_utc),
        urls=(),
        scope=Scope.CAS,
        entries=list(known.values()),
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


def number(found: x509.CertificateRevocationList | None) -> int:
    """Its CRL number (RFC 5280 §5.2.3); 0 for none."""
    if found is None:
        return 0
    return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _is_of(root: x509.Certificate, found: x509.CertificateRevocationList) -> bool:
    """Whether the root signed it, and all that is needed of it can be read."""
    is_signed = found.is_signature_valid(certify.public_key_of(root))
    is_numbered = any(isinstance(extension.value, x509.CRLNumber) for extension in found.extensions)
    for entry in found:
        _entry(entry)
    return found.issuer == root.subject and is_signed and is_numbered


def _entry(entry: x509.RevokedCertificate) -> Entry:
    reason, since = RevocationReason.UNSPECIFIED, None
    for extension in entry.extensions:
        if isinstance(extension.value, x509.CRLReason):
            reason = RevocationReason[extension.value.reason.name.upper()]
        elif isinstance(extension.value, x509.InvalidityDate):
            since = extension.value.invalidity_date_utc
    return Entry(serial_text(entry.serial_number), entry.revocation_date_utc, reason, since)
