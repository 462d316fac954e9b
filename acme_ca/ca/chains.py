"""Chains of CA certificates: the ways from an issuer up to a root, several while cross-signatures live."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

Chain: TypeAlias = tuple[x509.Certificate, ...]
"""From the issuer upwards. The last is no root: clients have that."""

LONGEST = 8
"""Certificates; what is longer is no chain but a knot."""


def chains(issuer: x509.Certificate, known: Sequence[x509.Certificate]) -> list[Chain]:
    """Every chain that begins with a certificate of the issuer's name and key; the issuer's own certificate first, then
    in the order of `known`. `known`: the CA certificates that may be part of them, roots among them.

    A chain ends below a root, or where no parent is known, and has no CA twice: roots that cross-signed each other make
    no detours. Never empty.
    """
    twins = [other for other in known if other != issuer and _same_authority(other, issuer)]
    found = [chain for first in (issuer, *twins) for chain in _upwards(first, known, ())]
    return list(dict.fromkeys(found)) or [(issuer,)]


def is_self_signed(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer and issued(certificate, certificate)


def issued(parent: x509.Certificate, child: x509.Certificate) -> bool:
    """Whether the parent's name and key are those that signed the child."""
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _upwards(first: x509.Certificate, known: Sequence[x509.Certificate], below: Chain) -> Iterator[Chain]:
    if is_self_signed(first):
        yield below
        return
    so_far = (*below, first)
    parents = [parent for parent in known if issued(parent, first)]
    if not parents or len(so_far) == LONGEST:
        yield so_far
        return
    for parent in parents:
        if not any(_same_authority(parent, link) for link in so_far):
            yield from _upwards(parent, known, so_far)


def _same_authority(one: x509.Certificate, other: x509.Certificate) -> bool:
    return one.subject == other.subject and one.public_key() == other.public_key()
