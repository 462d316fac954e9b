"""What CA certificates must be before they are used, and a chain of them (RFC 5280 §4.2 and §6.1).

Stricter than path validation: what a verifier somewhere would refuse, or what no honest CA makes today, is refused
when it comes in, with one sentence that says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from acme_ca.ca import chains
from acme_ca.ca.chains import Chain
from acme_ca.ca.issuers import IssuerError, key_identifier
from acme_ca.core import der, keys
from acme_ca.core.keys import PublicKey

MAX_LINKS = 10
"""Certificates that may be given together with one to install."""


@dataclass(frozen=True, slots=True)
class Link:
    name: str
    """How a refusal calls it, after "The": "root certificate", "certificate /ca/root.pem"."""
    certificate: x509.Certificate


def check(links: Sequence[Link], *, now: datetime | None) -> None:
    """From the CA that issues up to a root that signed itself, each with its name. Raises IssuerError.

    `now`: None when it does not matter whether they have expired.
    """
    for link in links:
        check_ca(link)
        if now is not None:
            _check_time(link, now)
    _check_issued_by(links[-1], links[-1])
    for child, parent in pairwise(links):
        _check_issued_by(child, parent)
        _check_ends_in_time(child, parent)
    _check_path_lengths(links)


def check_installable(
    certificate: x509.Certificate,
    public_key: PublicKey,
    above: Sequence[x509.Certificate],
    *,
    known: Sequence[x509.Certificate] = (),
    now: datetime,
) -> Chain:
    """The chain from `certificate`, made for the key by another CA, up to a root. Raises IssuerError.

    `above`: the certificates of the other CA in any order; what does not belong to the chain is left out of it.
    `known`: those that are here already, however many.
    """
    link = Link("certificate to install", certificate)
    _check_key(link, public_key, "the request")
    links = [link]
    if len(above) > MAX_LINKS:
        raise IssuerError(f"There are more than {MAX_LINKS} certificates beside the one to install.")
    others = [Link(_named(other), other) for other in (*above, *known)]
    # Of an issuer's certificates one that lives, and the one that ends the chain: it may have been cross-signed.
    others.sort(key=lambda other: (other.certificate.not_valid_after_utc <= now, not _ends_chain(other)))
    while not chains.is_self_signed(links[-1].certificate):
        links.append(_issuer_of(links[-1], [other for other in others if other not in links]))
    if len(links) == 1:
        raise IssuerError("The certificate to install is signed with its own key, by no other CA.")
    check(links, now=now)
    return tuple(link.certificate for link in links)


def check_import(
    root: x509.Certificate,
    intermediate: x509.Certificate | None,
    *,
    root_key: PublicKey | None,
    intermediate_key: PublicKey | None,
    now: datetime,
) -> None:
    """An existing root, or a root with an intermediate, and the public halves of the keys at hand. Raises IssuerError.

    The root's key may stay where it is; an intermediate without its key could not issue.
    """
    links = [Link("root certificate", root)]
    if root_key is not None:
        _check_key(links[0], root_key, "the root's key file")
    if intermediate is not None:
        if intermediate.public_key() == root.public_key():
            raise IssuerError("The intermediate certificate has the key of the root; it is no intermediate.")
        links.insert(0, Link("intermediate certificate", intermediate))
        if intermediate_key is None:
            raise IssuerError("The intermediate is of no use without its key; name that too.")
        _check_key(links[0], intermediate_key, "the intermediate's key file")
    elif intermediate_key is not None:
        raise IssuerError("There is an intermediate's key but no intermediate certificate; name that too.")
    check(links, now=now)


# ---------------------------------------------------------------- one certificate


def check_ca(link: Link) -> None:
    """The certificate of a CA that can be worked with, whoever signed it. Raises IssuerError."""
    try:
        with der.strictly():
            _check_subject(link)
            _check_is_ca(link)
            _check_extended_key_usage(link)
            _check_name_constraints(link)
            _check_critical_extensions(link)
            _check_signature_hash(link)
            check_key_strength(link.certificate.public_key(), f"The {link.name}")
    except der.Unreadable:
        raise IssuerError(f"The {link.name} is not well-formed.") from None


def check_key_strength(public_key: object, holder: str) -> None:
    """Raises IssuerError for a key that no CA here may have. `holder` begins the sentence."""
    weakness = keys.issuer_weakness(public_key)
    if weakness:
        raise IssuerError(f"{holder} has a key that is refused: {weakness}.")


def _check_time(link: Link, now: datetime) -> None:
    """Raises IssuerError when the certificate is not valid at `now`."""
    certificate = link.certificate
    if certificate.not_valid_after_utc <= now:
        raise IssuerError(f"The {link.name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}.")
    if certificate.not_valid_before_utc > now:
        raise IssuerError(f"The {link.name} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d}.")


def _check_subject(link: Link) -> None:
    if not link.certificate.subject.rdns:
        raise IssuerError(f"The {link.name} has an empty subject, so nothing can be issued by it.")


def _check_is_ca(link: Link) -> None:
    """RFC 5280 §4.2.1.2, .3 and .9."""
    extensions = link.certificate.extensions
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints)
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        key_identifier(link.certificate)
        is_ca = constraints.critical and constraints.value.ca and usage.key_cert_sign and usage.crl_sign
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        raise IssuerError(
            f"The {link.name} is not that of a CA (basicConstraints, keyUsage, subjectKeyIdentifier)."
        )


def _check_extended_key_usage(link: Link) -> None:
    """In a CA certificate it binds all below, by the habit of verifiers."""
    try:
        usage = link.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usage):
        raise IssuerError(f"The {link.name} has an extendedKeyUsage that allows no TLS servers below it.")


def _check_name_constraints(link: Link) -> None:
    """RFC 5280 §4.2.1.10."""
    try:
        extension = link.certificate.extensions.get_extension_for_class(x509.NameConstraints)
    except x509.ExtensionNotFound:
        return
    if not extension.critical:
        raise IssuerError(f"The {link.name} has name constraints that are not critical.")
    permitted = extension.value.permitted_subtrees or []
    if any(isinstance(subtree, x509.DirectoryName) for subtree in permitted):
        raise IssuerError(
            f"The {link.name} permits certain subject names only, which the certificates of this CA do not have."
        )


def _check_critical_extensions(link: Link) -> None:
    for extension in link.certificate.extensions:
        if extension.critical and isinstance(extension.value, x509.UnrecognizedExtension):
            raise IssuerError(
                f"The {link.name} has a critical extension that nobody knows: {extension.oid.dotted_string}."
            )


def _check_signature_hash(link: Link) -> None:
    if not isinstance(link.certificate.signature_hash_algorithm, _HASHES):
        raise IssuerError(f"The {link.name} is not signed with SHA-256, SHA-384 or SHA-512.")


_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


def _check_key(link: Link, public_key: PublicKey, place: str) -> None:
    if link.certificate.public_key() != public_key:
        raise IssuerError(f"The {link.name} does not hold the key of {place}.")


# ---------------------------------------------------------------- two and more


def _check_issued_by(child: Link, parent: Link) -> None:
    if not chains.issued(parent.certificate, child.certificate):
        whom = "itself, so it is no root" if child is parent else f"the {parent.name}"
        raise IssuerError(f"The {child.name} is not issued by {whom}.")
    authority = _authority_key_identifier(child.certificate)
    if authority is not None and authority != key_identifier(parent.certificate):
        raise IssuerError(
            f"The {child.name} names another key of its issuer (authorityKeyIdentifier) than that of the {parent.name}."
        )


def _check_ends_in_time(child: Link, parent: Link) -> None:
    if child.certificate.not_valid_after_utc > parent.certificate.not_valid_after_utc:
        raise IssuerError(f"The {child.name} would outlive the {parent.name}.")


def _check_path_lengths(links: Sequence[Link]) -> None:
    """RFC 5280 §4.2.1.9: CA certificates below a CA, those not counted that it issued to itself."""
    below = 0
    for link in links:
        limit = path_length(link.certificate)
        if limit is not None and below > limit:
            raise IssuerError(
                f"The {link.name} allows {limit} CAs below it (pathLenConstraint), not {below}."
            )
        below += link.certificate.subject != link.certificate.issuer


def path_length(certificate: x509.Certificate) -> int | None:
    """How many CAs may follow below a CA certificate; None: any number."""
    return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length


def _issuer_of(link: Link, others: Sequence[Link]) -> Link:
    for other in others:
        if chains.issued(other.certificate, link.certificate):
            return other
    raise IssuerError(
        f"The certificate that the {link.name} was signed with is missing; name the chain up to the root."
    )


def _ends_chain(link: Link) -> bool:
    return chains.is_self_signed(link.certificate)


def _authority_key_identifier(certificate: x509.Certificate) -> bytes | None:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return None
    return extension.value.key_identifier


def _named(certificate: x509.Certificate) -> str:
    return f"certificate with the SHA-256 fingerprint {certificate.fingerprint(hashes.SHA256()).hex()[:16]}…"
