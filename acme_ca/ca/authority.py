"""Issuing: prepare → lint → record → sign (docs/issuance.md). The stages are types of `core.certificates`.

The bytes to be signed are made once, by signing them with a throw-away key of the issuer's kind: that draft is what
the linter reads, and its TBSCertificate is what the issuer signs, byte for byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from acme_ca.ca import issuers, keystore, leaf, profiles
from acme_ca.ca.issuers import Issuer, SignatureHash
from acme_ca.ca.keystore import KeyUnavailable, PrivateKey
from acme_ca.core import der
from acme_ca.core.certificates import (
    IssuanceRequest,
    PreparedCertificate,
    RecordedCertificate,
    SignedCertificate,
)
from acme_ca.core.ids import IssuerId, serial_text
from acme_ca.core.problems import ErrorType, Problem

T = TypeVar("T")

SERIAL_BYTES = 16
_PROOF = b"acme-ca: the issuer's key is here"
SIGNING_TIMEOUT = 20.0
"""Seconds that a key store gets for one signature."""
KEY_PAUSE = timedelta(seconds=5)
"""How long a key that did not answer is not asked again."""


class Authority:
    """Makes certificates under any of its issuers, with the keys that these have. Keeps nothing of what it makes."""

    def __init__(
        self,
        *,
        issuers: Callable[[IssuerId], Issuer | None],
        public_http_url: str,
        clock: Callable[[], datetime],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """`issuers`: finds one by its id, as it is now. `public_http_url`: base of the issuers' addresses in
        certificates. `random_bytes(n)`: n bytes that nobody can foresee.
        """
        self._issuers = issuers
        self._public_http_url = public_http_url
        self._clock = clock
        self._random_bytes = random_bytes
        self._desks: dict[IssuerId, _Desk] = {}
        self._avoided: dict[IssuerId, datetime] = {}
        """When a signature failed last."""

    def prepare(self, request: IssuanceRequest) -> PreparedCertificate:
        """Stage 1. Raises `Problem`: `malformed` for a validity that cannot be given (any more), `serverInternal`
        when the issuer that the order pins has expired, is no longer served, or its key is out of reach.
        """
        desk = self._reachable(request.issuer)
        begin, end = profiles.validity(
            request.profile,
            now=self._clock(),
            not_before=request.not_before,
            not_after=request.not_after,
            issuer_not_after=desk.not_after,
        )
        number = int.from_bytes(self._random_bytes(SERIAL_BYTES))
        builder = leaf.builder(request, desk.addresses).serial_number(number)
        draft = desk.draft(builder.not_valid_before(begin).not_valid_after(end))
        return PreparedCertificate(
            request=request,
            serial=serial_text(number),
            not_before=begin,
            not_after=end,
            tbs=draft.tbs_certificate_bytes,
            draft=draft,
        )

    async def sign(self, recorded: RecordedCertificate) -> SignedCertificate:
        """Stage 4. Signs exactly the recorded bytes, and looks at the result before it hands it out.

        Raises KeyUnavailable when the key store does not answer now or with another key, `Problem` (`serverInternal`) when the issuer is no
        longer served.
        """
        try:
            desk = self._desk(recorded.issuer)
            signed = await _apart(desk, desk.sign, recorded)
        except KeyUnavailable:
            self._avoided[recorded.issuer] = self._clock()
            raise
        except InvalidSignature:  # the order is not to blame, and an operator can mend it
            self._avoided[recorded.issuer] = self._clock()
            raise KeyUnavailable("The key in the store is not the one of the issuer's certificate.") from None
        return SignedCertificate(serial=recorded.serial, der=signed)

    async def can_sign(self, issuer_id: IssuerId) -> bool:
        """Whether the issuer's key is there and is its certificate's: signs and verifies bytes that are no certificate."""
        try:
            desk = self._desk(issuer_id)
            await _apart(desk, desk.prove)
        except Exception:  # noqa: BLE001  whatever a key store raises, the answer is no
            return False
        self._avoided.pop(issuer_id, None)
        return True

    def _desk(self, issuer_id: IssuerId) -> _Desk:
        issuer = self._issuers(issuer_id)
        if issuer is None:
            raise Problem(
                ErrorType.SERVER_INTERNAL,
                "The issuer that this order was made for is served no more; place a new order.",
            )
        if issuer.key is None:
            raise KeyUnavailable(f"The key of issuer {issuer_id} is out of reach.")
        desk = self._desks.get(issuer_id)
        if desk is None or desk.key is not issuer.key:
            desk = self._desks[issuer_id] = _Desk.of(issuer, issuer.key, self._public_http_url)
        return desk

    def _reachable(self, issuer_id: IssuerId) -> _Desk:
        """For a moment after a signature that a key store did not give, no other is asked of it: what would be recorded
        for it would never be signed.
        """
        failed = self._avoided.get(issuer_id)
        if failed is not None and failed <= self._clock() < failed + KEY_PAUSE:  # a clock may be set back
            raise key_out_of_reach()
        try:
            return self._desk(issuer_id)
        except KeyUnavailable:
            raise key_out_of_reach() from None


def key_out_of_reach() -> Problem:
    return Problem(
        ErrorType.SERVER_INTERNAL,
        "The key of the CA's issuer is out of reach. Nothing is lost: ask for the same again later.",
        status=503,
        headers={"Retry-After": str(int(KEY_PAUSE.total_seconds()))},
    )


async def _apart(desk: _Desk, work: Callable[..., T], *arguments: object) -> T:
    """A signature by a key that may keep its caller waiting is made in a thread, and not waited for without end."""
    if not desk.may_block:
        return work(*arguments)
    try:
        async with asyncio.timeout(SIGNING_TIMEOUT):
            return await asyncio.to_thread(work, *arguments)
    except TimeoutError:
        raise KeyUnavailable(f"The key store did not answer in {SIGNING_TIMEOUT:.0f} seconds.") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Desk:
    """One issuer at work: what is the same in all its certificates, made once."""

    certificate: x509.Certificate
    name: x509.Name
    not_after: datetime
    key: PrivateKey
    may_block: bool
    throw_away_key: PrivateKey
    hash: SignatureHash
    signature_algorithm: bytes
    authority_key_identifier: x509.AuthorityKeyIdentifier
    addresses: leaf.Addresses

    @classmethod
    def of(cls, issuer: Issuer, key: PrivateKey, public_http_url: str) -> _Desk:
        public_key = key.public_key()
        return cls(
            certificate=issuer.certificate,
            name=issuer.certificate.subject,
            not_after=issuer.not_after,
            key=key,
            may_block=keystore.may_block(key),
            throw_away_key=_like(public_key),
            hash=issuers.signature_hash(public_key),
            signature_algorithm=signature_algorithm(public_key),
            authority_key_identifier=x509.AuthorityKeyIdentifier(
                issuers.key_identifier(issuer.certificate), None, None
            ),
            addresses=leaf.Addresses(public_http_url, issuer.id),
        )

    def prove(self) -> None:
        proof = signature(self.key, _PROOF, self.hash)
        public_key = self.certificate.public_key()
        if isinstance(public_key, ec.EllipticCurvePublicKey):
            public_key.verify(proof, _PROOF, ec.ECDSA(self.hash))
        else:
            assert isinstance(public_key, rsa.RSAPublicKey)  # noqa: S101  issuers have no other kind
            public_key.verify(proof, _PROOF, padding.PKCS1v15(), self.hash)

    def draft(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        return (
            builder.issuer_name(self.name)
            .add_extension(self.authority_key_identifier, critical=False)
            .sign(self.throw_away_key, self.hash)
        )

    def sign(self, recorded: RecordedCertificate) -> bytes:
        """The DER certificate: SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue } (RFC 5280 §4.1)."""
        signed = der.signed(
            recorded.tbs, self.signature_algorithm, signature(self.key, recorded.tbs, self.hash)
        )
        certificate = x509.load_der_x509_certificate(signed)
        certificate.verify_directly_issued_by(self.certificate)
        if (
            certificate.tbs_certificate_bytes != recorded.tbs
            or serial_text(certificate.serial_number) != recorded.serial
        ):
            raise RuntimeError(f"what was signed is not what was recorded as {recorded.serial}")
        return signed


# ---------------------------------------------------------------- the signature


def _like(public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> PrivateKey:
    """A key that gives signatures of the same algorithm, and is nobody's."""
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return ec.generate_private_key(public_key.curve)
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def signature_algorithm(public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    """The DER AlgorithmIdentifier of `signature`: RFC 5758 §3.2 for ECDSA, RFC 4055 §5 for RSA."""
    if isinstance(public_key, rsa.RSAPublicKey):
        return bytes.fromhex("300d06092a864886f70d01010b0500")
    last = "02" if isinstance(issuers.signature_hash(public_key), hashes.SHA256) else "03"
    return bytes.fromhex("300a06082a8648ce3d0403" + last)


def signature(key: PrivateKey, tbs: bytes, hash_: SignatureHash) -> bytes:
    """`hash_`: the one that goes with the key (`issuers.signature_hash`)."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(tbs, ec.ECDSA(hash_))
    return key.sign(tbs, padding.PKCS1v15(), hash_)
