"""The hierarchy on disk: a root, and the intermediate that issues. Made once, read at every start.

It is one folder of mode 0700 with `root.pem`, `root.key`, `intermediate.pem` and `intermediate.key`. Serving needs
neither the root's key nor its presence: it can lie in a safe.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from acme_ca.ca import keystore
from acme_ca.ca.issuers import Issuer, IssuerError, issuer, key_identifier, signature_hash
from acme_ca.ca.keystore import KeyKind, KeyStoreError, PrivateKey
from acme_ca.core import keys
from acme_ca.core.model import KeyAlgorithm

ROOT_LIFETIME = timedelta(days=3652)
INTERMEDIATE_LIFETIME = timedelta(days=1826)
BACKDATING = timedelta(hours=1)
"""By how much both begin before they are made: clocks differ, and the first leaf is backdated too."""
MAX_NAME = 64
"""ub-common-name and ub-organization-name (RFC 5280 appendix A.1)."""
KEY_KINDS: dict[str, tuple[KeyKind, KeyKind]] = {
    "ec": (KeyKind.EC_P384, KeyKind.EC_P256),
    "rsa": (KeyKind.RSA_4096, KeyKind.RSA_2048),
}
"""For each key type the kinds of root and intermediate (design, decision 10)."""


class UnsuitableName(IssuerError):  # noqa: N818  the name says it
    """A name that no certificate can hold."""


class HierarchyExists(IssuerError):  # noqa: N818  the name says it
    """There is something at the place where a new hierarchy should go. It is left as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    root: Issuer
    """Its key is not loaded."""
    intermediate: Issuer


# ---------------------------------------------------------------- making a hierarchy


def create_hierarchy(
    directory: Path,
    *,
    common_name: str,
    organization: str,
    country: str,
    key_type: Literal["ec", "rsa"],
    password: bytes,
    now: datetime,
) -> Hierarchy:
    """Make a root and an intermediate and put them at `directory`: wholly, or not at all.

    An empty `organization` or `country` is left out of the names. Raises HierarchyExists when there is anything at
    `directory` but an empty folder, IssuerError for a name that no certificate can hold or a folder that cannot be
    written. What a crash may leave is a hidden folder beside `directory`.
    """
    if _occupied(directory):
        raise HierarchyExists(f"{directory} exists and is left as it is; name another place or move it away.")
    names = _names(common_name.strip(), organization.strip(), country.strip())
    root_key, key = (keystore.generate(kind) for kind in KEY_KINDS[key_type])
    root = _root(names[0], root_key, now)
    intermediate = _intermediate(names[1], key, root, root_key, now)
    try:
        _write(directory, {"root": (root, root_key), "intermediate": (intermediate, key)}, password)
    except (OSError, KeyStoreError) as error:
        raise IssuerError(f"The hierarchy cannot be written to {directory}: {error}") from None
    return Hierarchy(
        root=issuer(root, None, chain=()), intermediate=issuer(intermediate, key, chain=(intermediate,))
    )


def _names(common_name: str, organization: str, country: str) -> tuple[x509.Name, x509.Name]:
    """The names of root and intermediate: "VCC", "VCC CA" and "VCC Root CA" all give "VCC Root CA"."""
    stem = common_name.removesuffix(" CA").removesuffix(" Root")
    root, intermediate = (f"{stem} {part} CA".lstrip() for part in ("Root", "Intermediate"))
    return _name(root, organization, country), _name(intermediate, organization, country)


def _name(common_name: str, organization: str, country: str) -> x509.Name:
    if len(common_name) > MAX_NAME or len(organization) > MAX_NAME:
        raise UnsuitableName(
            f"The names {common_name!r} and {organization!r} may have {MAX_NAME} characters at most."
        )
    if country and not (len(country) == 2 and country.isascii() and country.isalpha()):  # noqa: PLR2004  ISO 3166
        raise UnsuitableName(f"The country {country!r} is no two-letter code such as DE.")
    parts = [
        (NameOID.COUNTRY_NAME, country.upper()),
        (NameOID.ORGANIZATION_NAME, organization),
        (NameOID.COMMON_NAME, common_name),
    ]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts if value])


def _root(name: x509.Name, key: PrivateKey, now: datetime) -> x509.Certificate:
    builder = _ca_certificate(name, key, now, ROOT_LIFETIME, path_length=1)
    return _sign(builder, issuer_name=name, issuer_key=key)


def _intermediate(
    name: x509.Name, key: PrivateKey, root: x509.Certificate, root_key: PrivateKey, now: datetime
) -> x509.Certificate:
    builder = _ca_certificate(name, key, now, INTERMEDIATE_LIFETIME, path_length=0)
    return _sign(builder, issuer_name=root.subject, issuer_key=root_key)


def _ca_certificate(
    name: x509.Name, key: PrivateKey, now: datetime, lifetime: timedelta, *, path_length: int
) -> x509.CertificateBuilder:
    begin = now.replace(microsecond=0) - BACKDATING
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(secrets.randbits(128))
        .not_valid_before(begin)
        .not_valid_after(begin + lifetime - timedelta(seconds=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_CA_KEY_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier(keys.key_identifier(key.public_key())), critical=False)
    )


def _sign(
    builder: x509.CertificateBuilder, *, issuer_name: x509.Name, issuer_key: PrivateKey
) -> x509.Certificate:
    issuer_public_key = issuer_key.public_key()
    authority = x509.AuthorityKeyIdentifier(keys.key_identifier(issuer_public_key), None, None)
    return (
        builder.issuer_name(issuer_name)
        .add_extension(authority, critical=False)
        .sign(issuer_key, signature_hash(issuer_public_key))
    )


_CA_KEY_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


# ---------------------------------------------------------------- writing it


def _occupied(directory: Path) -> bool:
    try:
        return any(directory.iterdir())
    except FileNotFoundError:
        return False
    except OSError:  # a file, or a folder that is not ours to look into
        return True


def _write(directory: Path, parts: dict[str, tuple[x509.Certificate, PrivateKey]], password: bytes) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for name, (certificate, key) in parts.items():
            keystore.save(draft / f"{name}.key", key, password)
            _write_file(draft / f"{name}.pem", certificate.public_bytes(Encoding.PEM))
        _sync_folder(draft)
        _move(draft, directory)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _sync_folder(directory.parent)


def _write_file(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _move(draft: Path, directory: Path) -> None:
    try:
        draft.rename(directory)  # takes the place of an empty folder only
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise HierarchyExists(
                f"{directory} was made by someone else at the same time and is left as it is."
            ) from None
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------- reading it


def load_certificates(directory: Path) -> Hierarchy:
    """The hierarchy without its keys, also when it has expired. Raises IssuerError."""
    root, intermediate = (_read_certificate(directory / f"{name}.pem") for name in ("root", "intermediate"))
    _check_ca(root, directory / "root.pem")
    _check_ca(intermediate, directory / "intermediate.pem")
    _check_issued_by(root, root, directory / "root.pem")
    _check_issued_by(intermediate, root, directory / "intermediate.pem")
    return Hierarchy(
        root=issuer(root, None, chain=()), intermediate=issuer(intermediate, None, chain=(intermediate,))
    )


def load_hierarchy(directory: Path, password: bytes, *, now: datetime) -> Hierarchy:
    """The hierarchy, ready to issue at `now`: the intermediate with its key. Raises IssuerError."""
    hierarchy = load_certificates(directory)
    _check_time(hierarchy.root.certificate, directory / "root.pem", now)
    _check_time(hierarchy.intermediate.certificate, directory / "intermediate.pem", now)
    certificate = hierarchy.intermediate.certificate
    key = _load_key(directory / "intermediate.key", password)
    if key.public_key() != certificate.public_key():
        raise IssuerError(
            f"The key {directory / 'intermediate.key'} does not belong to intermediate.pem beside it."
        )
    return Hierarchy(root=hierarchy.root, intermediate=issuer(certificate, key, chain=(certificate,)))


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise IssuerError(f"The certificate {path} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise IssuerError(f"The certificate {path} is no certificate in PEM.") from None


def _load_key(path: Path, password: bytes) -> PrivateKey:
    try:
        return keystore.load(path, password)
    except KeyStoreError as error:
        raise IssuerError(str(error)) from None


def _check_ca(certificate: x509.Certificate, path: Path) -> None:
    """The certificate of a CA (RFC 5280 §4.2.1.2, .3, .9) with a key of a kind that we make."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        key_identifier(certificate)
        is_ca = constraints.critical and constraints.value.ca and usage.key_cert_sign and usage.crl_sign
        good_key = _signs(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.DuplicateExtension):
        is_ca = good_key = False
    if not is_ca:
        raise IssuerError(
            f"The certificate {path} is not that of a CA (basicConstraints, keyUsage, subjectKeyIdentifier)."
        )
    if not good_key:
        raise IssuerError(f"The certificate {path} has a key that is neither EC P-256, EC P-384 nor RSA.")


def _signs(public_key: object) -> bool:
    """Whether `signature_hash` knows the key's hash."""
    if isinstance(public_key, rsa.RSAPublicKey):
        return public_key.key_size >= keys.MIN_RSA_BITS
    return keys.algorithm(public_key) in {KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384}


def _check_issued_by(certificate: x509.Certificate, root: x509.Certificate, path: Path) -> None:
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise IssuerError(f"The certificate {path} is not issued by root.pem beside it.") from None


def _check_time(certificate: x509.Certificate, path: Path, now: datetime) -> None:
    if certificate.not_valid_after_utc <= now:
        raise IssuerError(f"The certificate {path} expired on {certificate.not_valid_after_utc:%Y-%m-%d}.")
    if certificate.not_valid_before_utc > now:
        raise IssuerError(
            f"The certificate {path} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d}."
        )
