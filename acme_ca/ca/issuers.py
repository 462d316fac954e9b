"""What an issuer is: a CA certificate, with its key where it is to sign."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.ca.chains import Chain
from acme_ca.ca.keystore import PrivateKey
from acme_ca.core.codes import Code
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import IssuerId
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.states import IssuerState, issuer_state

if TYPE_CHECKING:
    from acme_ca.ca.constraints import NameConstraints  # which raises our IssuerError

IssuerKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
SignatureHash = hashes.SHA256 | hashes.SHA384


class IssuerError(Exception):
    """An issuer cannot be made or used: one sentence for the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A CA certificate, with its key where it is to sign. Made by `issuer`."""

    id: IssuerId
    kind: IssuerKind = IssuerKind.INTERMEDIATE
    stored_state: IssuerState = IssuerState.ACTIVE
    activated: datetime | None = None
    revoked: datetime | None = None
    """As a certificate of its parent."""
    open_shard: int = 0
    """Of its CRL: the one that new certificates belong to."""
    certificate: x509.Certificate
    key: PrivateKey | None = field(repr=False)
    """None: not within reach, or not needed here (a root's)."""
    chain: Chain
    """What is sent after a leaf: from this certificate upwards, without the root."""
    chain_pem: bytes = field(repr=False)
    alternates_pem: tuple[bytes, ...] = field(default=(), repr=False)
    """Other chains (RFC 8555 §7.4.2), while cross-signatures live."""
    fingerprint: str
    """SHA-256 of the certificate, 64 lower-case hexadecimal digits."""
    constraints: tuple[NameConstraints, ...] = ()
    """The name constraints of the chain: a certificate that is outside of one is accepted by nobody."""

    @property
    def not_after(self) -> datetime:
        return self.certificate.not_valid_after_utc

    @property
    def public_key(self) -> IssuerKey:
        """Of one of the kinds that issuers have."""
        key = self.certificate.public_key()
        assert isinstance(key, IssuerKey)  # noqa: S101
        return key

    def refused(self, names: Iterable[Identifier]) -> list[Problem]:
        """A `rejectedIdentifier` problem for each name that the chain's constraints do not permit."""
        return [
            Problem(
                ErrorType.REJECTED_IDENTIFIER,
                f"This CA does not issue for {name.value}: its own certificate is constrained to other names.",
                identifier=name,
                code=Code.NAME_NOT_OF_ISSUER,
            )
            for name in names
            if not all(constraints.permits(name) for constraints in self.constraints)
        ]

    def state(self, now: datetime) -> IssuerState:
        return issuer_state(self.stored_state, not_after=self.not_after, now=now)

    def signs_leaves(self, now: datetime) -> bool:
        in_use = self.state(now) is IssuerState.ACTIVE and self.revoked is None
        return self.kind is IssuerKind.INTERMEDIATE and in_use


def issuer(certificate: x509.Certificate, key: PrivateKey | None, *, chain: Chain) -> Issuer:
    kind = IssuerKind.ROOT if certificate.subject == certificate.issuer else IssuerKind.INTERMEDIATE
    return Issuer(
        id=issuer_id(certificate),
        kind=kind,
        certificate=certificate,
        key=key,
        chain=chain,
        chain_pem=chain_pem(chain),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
    )


def issuer_id(certificate: x509.Certificate) -> IssuerId:
    """The first half of the certificate's fingerprint."""
    return IssuerId(certificate.fingerprint(hashes.SHA256()).hex()[:32])


def chain_pem(chain: Chain) -> bytes:
    return b"".join(link.public_bytes(Encoding.PEM) for link in chain)


def key_identifier(certificate: x509.Certificate) -> bytes:
    """The SubjectKeyIdentifier of a CA certificate. Raises x509.ExtensionNotFound: RFC 5280 §4.2.1.2 demands one."""
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def signature_hash(public_key: object) -> SignatureHash:
    """The hash that goes with an issuer's key: SHA-384 for P-384, SHA-256 for P-256 and RSA."""
    is_p384 = isinstance(public_key, ec.EllipticCurvePublicKey) and isinstance(public_key.curve, ec.SECP384R1)
    return hashes.SHA384() if is_p384 else hashes.SHA256()
