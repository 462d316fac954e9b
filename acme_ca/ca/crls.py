"""Signing CRLs. What they say is decided elsewhere (`core.crl`); here it is put into X.509's form, signed and looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.ca import issuers
from acme_ca.ca.authority import SIGNING_TIMEOUT
from acme_ca.ca.issuers import Issuer
from acme_ca.ca.keystore import KeyUnavailable, PrivateKey
from acme_ca.ca.served import OpenKey
from acme_ca.core import revocation
from acme_ca.core.crl import REMOVE_FROM_CRL, Entry, Scope, UnsignedCrl
from acme_ca.core.ids import IssuerId
from acme_ca.core.revocation import RevocationReason


class CrlSigner:
    """Signs with the keys that the issuers have. A root's is opened for the one signature, and not kept."""

    def __init__(self, *, issuers: Callable[[IssuerId], Awaitable[Issuer]], open_key: OpenKey) -> None:
        """`issuers`: finds one by its id, also one that was made a moment ago."""
        self._issuers = issuers
        self._open_key = open_key

    async def sign(self, crls: Sequence[UnsignedCrl], *, key_uri: str | None) -> list[bytes]:
        """Of one issuer, in DER. In a thread: a long list takes its time, and so may a key. `key_uri`: where its key is.

        Raises KeyStoreError, KeyUnavailable among them.
        """
        issuer = await self._issuers(crls[0].issuer)
        if issuer.key is None and key_uri is None:
            raise KeyUnavailable("The issuer's key is not within reach of this server.")
        try:
            async with asyncio.timeout(SIGNING_TIMEOUT):
                return await asyncio.to_thread(self._sign, issuer, key_uri, crls)
        except TimeoutError:
            raise KeyUnavailable(f"The key store did not answer in {SIGNING_TIMEOUT:.0f} seconds.") from None

    def _sign(self, issuer: Issuer, key_uri: str | None, crls: Sequence[UnsignedCrl]) -> list[bytes]:
        key = issuer.key
        if key is None:
            assert key_uri is not None, "looked at before"  # noqa: S101
            key = self._open_key(key_uri)
        return [sign(issuer.certificate, key, crl) for crl in crls]


def sign(certificate: x509.Certificate, key: PrivateKey, crl: UnsignedCrl) -> bytes:
    """The CRL in DER. Raises RuntimeError when the result is not what was asked for, such as under another's key."""
    signed = _builder(certificate, crl).sign(key, issuers.signature_hash(key.public_key()))
    public_key = certificate.public_key()
    assert isinstance(public_key, issuers.IssuerKey)  # noqa: S101
    if not signed.is_signature_valid(public_key) or len(signed) != len(crl.entries):
        raise RuntimeError(f"what was signed is not the CRL {crl.number} of issuer {crl.issuer}")
    return signed.public_bytes(Encoding.DER)


def _builder(certificate: x509.Certificate, crl: UnsignedCrl) -> x509.CertificateRevocationListBuilder:
    # All at once: the builder's methods copy the whole list for each entry that is added.
    return x509.CertificateRevocationListBuilder(
        issuer_name=certificate.subject,
        last_update=crl.this_update,
        next_update=crl.next_update,
        extensions=_extensions(certificate, crl),
        revoked_certificates=list(map(_revoked, crl.entries)),
    )


def _extensions(certificate: x509.Certificate, crl: UnsignedCrl) -> list[x509.Extension[x509.ExtensionType]]:
    """RFC 5280 §5.2."""
    key_identifier = issuers.key_identifier(certificate)
    chosen: list[tuple[x509.ExtensionType, bool]] = [
        (x509.AuthorityKeyIdentifier(key_identifier, None, None), False),
        (x509.CRLNumber(crl.number), False),
        (_scope(crl), True),
    ]
    if crl.base_number is not None:
        chosen.append((x509.DeltaCRLIndicator(crl.base_number), True))
    if crl.freshest is not None:
        chosen.append((x509.FreshestCRL([_point(crl.freshest)]), False))
    return [x509.Extension(value.oid, critical, value) for value, critical in chosen]


def _scope(crl: UnsignedCrl) -> x509.IssuingDistributionPoint:
    """The same in a full CRL and its delta, which otherwise do not go together (RFC 5280 §6.3.3 (c) (2)).

    A root's one CRL names no address: it is also for CA certificates that name another, or none (§6.3.3 (b) (2) (i)).
    """
    return x509.IssuingDistributionPoint(
        full_name=None
        if crl.scope is Scope.CAS
        else [x509.UniformResourceIdentifier(url) for url in crl.urls],
        relative_name=None,
        only_contains_user_certs=crl.scope is Scope.LEAVES,
        only_contains_ca_certs=crl.scope is Scope.CAS,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )


def _point(url: str) -> x509.DistributionPoint:
    return x509.DistributionPoint(
        [x509.UniformResourceIdentifier(url)], relative_name=None, reasons=None, crl_issuer=None
    )


def _revoked(entry: Entry) -> x509.RevokedCertificate:
    extensions = [*_reason(entry.reason)]
    if entry.invalid_since is not None:
        since = x509.InvalidityDate(entry.invalid_since.replace(tzinfo=None))
        extensions.append(x509.Extension(since.oid, critical=False, value=since))
    return x509.RevokedCertificateBuilder(int(entry.serial, 16), entry.revoked, extensions).build()


@cache
def _reason(code: int) -> tuple[x509.Extension[x509.ExtensionType], ...]:
    """Nothing for unspecified: "the reason code CRL entry extension SHOULD be absent instead" (RFC 5280 §5.3.1)."""
    if code == RevocationReason.UNSPECIFIED:
        return ()
    removal = code == REMOVE_FROM_CRL
    flag = x509.ReasonFlags.remove_from_crl if removal else revocation.reason_flag(RevocationReason(code))
    reason = x509.CRLReason(flag)
    return (x509.Extension(reason.oid, critical=False, value=reason),)
