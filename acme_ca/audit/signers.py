"""Whose signature on a seal is believed: certificates that the root vouches for, for this purpose, at that time; and
what becomes of that when such a certificate, or its CA's, was revoked.

Revoked for a reason that leaves the key where it was: what it signed before stays proved, what it signed after does not.
Revoked because somebody else may have the key: who has it may date a seal as they like, so nothing that it signed is
proved by it. A seal of another key that was made before the compromise proves all before it, and so does a checkpoint
that was kept elsewhere.

The database is not trusted to say that nothing was revoked: the events of the trail itself are read as well as the rows,
and the worse is believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.audit.chain import Checkpoint
from acme_ca.ca import chains, issuers
from acme_ca.ca.leaf import AUDIT_SIGNING
from acme_ca.core.ids import serial_text
from acme_ca.core.revocation import RevocationReason
from acme_ca.storage import seals
from acme_ca.storage.database import Database
from acme_ca.storage.seals import Revoked, Seal

COMPROMISED = frozenset(
    {RevocationReason.KEY_COMPROMISE, RevocationReason.CA_COMPROMISE, RevocationReason.AA_COMPROMISE}
)
SLACK = timedelta(minutes=1)
"""A seal that was under way when its signer was revoked is none that was made after it: clocks differ, too."""


_NEVER = datetime.max.replace(tzinfo=UTC)


class Trust:
    """`root`: what signers must come from. `known`: the certificates that may lie between."""

    def __init__(self, root: x509.Certificate, known: Sequence[x509.Certificate]) -> None:
        self._root = root
        self._known = tuple(ca for ca in (*known, root) if _is_ca(ca))
        self._judged: dict[bytes, str] = {}

    def objection(self, seal: Seal) -> str:
        """Why the seal's signature is none of the CA's server; empty when it is."""
        try:
            certificate = x509.load_der_x509_certificate(seal.signer)
        except ValueError:
            return "its signer's certificate is missing or damaged"
        if seal.signer not in self._judged:
            self._judged[seal.signer] = self._objection_to(certificate)
        if objection := self._judged[seal.signer]:
            return objection
        if not certificate.not_valid_before_utc <= seal.at <= certificate.not_valid_after_utc:
            return "its signer's certificate was not valid at the time"
        return "" if _is_signed(certificate, seal) else "its signature does not fit"

    def parents(self, certificate: x509.Certificate) -> list[x509.Certificate]:
        """The CA certificates above it that lead to the root: several while cross-signatures live."""
        return [ca for ca in self._known if chains.issued(ca, certificate) and self._leads_to_root(ca)]

    def _objection_to(self, certificate: x509.Certificate) -> str:
        if not self.parents(certificate):
            return "its signer's certificate does not come from the trusted root"
        return "" if _is_for_seals(certificate) else "its signer's certificate is not for sealing"

    def _leads_to_root(self, ca: x509.Certificate) -> bool:
        if ca == self._root:
            return True
        found = chains.chains(ca, self._known)
        return any(chains.issued(self._root, link) for way in found for link in way)


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _is_for_seals(certificate: x509.Certificate) -> bool:
    """Certificates that clients order have names; those that seal have none."""
    try:
        extensions = certificate.extensions
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    named = any(isinstance(extension.value, x509.SubjectAlternativeName) for extension in extensions)
    return AUDIT_SIGNING in usages and not named


def _is_signed(certificate: x509.Certificate, seal: Seal) -> bool:
    key, text = certificate.public_key(), Checkpoint.of(seal).text.encode()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(seal.signature, text, ec.ECDSA(issuers.signature_hash(key)))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(seal.signature, text, padding.PKCS1v15(), issuers.signature_hash(key))
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


# ---------------------------------------------------------------- what was revoked


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """`since`: from when on its seals prove nothing by themselves. `compromised`: nor do those before, whose times are
    what somebody says; then `since` None means that nobody knows. `told`: when it was revoked.
    """

    since: datetime | None
    told: datetime
    compromised: bool

    def is_before(self, kept: Checkpoint) -> bool:
        """Whether the key was lost when the checkpoint was made, which then may be of who has it: at the latest it was when
        the key was revoked.
        """
        return self.told < kept.at if self.since is None else self.since <= kept.at


async def withdrawals(database: Database, trust: Trust) -> dict[bytes, Withdrawal]:
    """Of the signers of all seals, by their certificates in DER. Raises DatabaseUnavailable."""
    signers = dict(_read(await seals.signers(database)))
    revoked = await seals.revoked_signers(
        database, [serial_text(certificate.serial_number) for certificate in signers.values()]
    )
    revoked_cas = await seals.revoked_issuers(database)
    found = {
        der: _worst(
            [
                *_withdrawn(revoked.get(serial_text(certificate.serial_number), ())),
                *_of_parents([revoked_cas.get(_der(ca), ()) for ca in trust.parents(certificate)]),
            ]
        )
        for der, certificate in signers.items()
    }
    return {der: withdrawal for der, withdrawal in found.items() if withdrawal is not None}


def _read(ders: Iterable[bytes]) -> Iterator[tuple[bytes, x509.Certificate]]:
    for der in ders:
        try:
            yield der, x509.load_der_x509_certificate(der)
        except ValueError:  # its seals have no signature that anybody believes
            continue


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _withdrawn(told: Iterable[Revoked]) -> list[Withdrawal]:
    return [
        Withdrawal(since=one.invalid_since, told=one.at, compromised=True)
        if one.reason in COMPROMISED
        else Withdrawal(since=one.at, told=one.at, compromised=False)
        for one in told
    ]


def _of_parents(told: Sequence[Sequence[Revoked]]) -> list[Withdrawal]:
    """A key is lost once for all its certificates; as long as one of them is good, nothing else matters."""
    each = [_worst(_withdrawn(one)) for one in told]
    compromised = [one for one in each if one is not None and one.compromised]
    ended = [one for one in each if one is not None]
    return compromised or (ended if ended and len(ended) == len(each) else [])


def _worst(all_: Sequence[Withdrawal]) -> Withdrawal | None:
    compromised = [one for one in all_ if one.compromised]
    if compromised:
        known = [one.since for one in compromised if one.since is not None]
        return Withdrawal(
            since=min(known) if len(known) == len(compromised) else None,
            told=min(one.told for one in compromised),
            compromised=True,
        )
    return min(all_, key=lambda one: one.since or _NEVER, default=None)


# ---------------------------------------------------------------- what that makes of their seals


@dataclass(slots=True, kw_only=True)
class _Lost:
    """Of one compromised key: its seals, as runs of numbers, and up to which one others prove them."""

    since: datetime | None
    runs: list[tuple[int, int]]
    proved: int = 0


class Doubts:
    """`kept`: checkpoints of elsewhere that agree with the trail."""

    def __init__(self, withdrawn: Mapping[bytes, Withdrawal], kept: Sequence[Checkpoint]) -> None:
        self._withdrawn = withdrawn
        self._lost = {
            der: _Lost(since=one.since, runs=[], proved=_proved(one, kept))
            for der, one in withdrawn.items()
            if one.compromised
        }

    def consider(self, seal: Seal) -> str:
        """A seal whose signature fits; to be called in their order. Why it proves nothing, as far as that is known now."""
        withdrawal = self._withdrawn.get(seal.signer)
        if withdrawal is not None and withdrawal.compromised:
            _extend(self._lost[seal.signer].runs, seal.id)
            return ""
        if withdrawal is not None and withdrawal.since and seal.at > withdrawal.since + SLACK:
            return f"its signer's certificate had been revoked at {withdrawal.since:%Y-%m-%d %H:%M:%S} UTC"
        for lost in self._lost.values():
            if lost.since is not None and seal.at < lost.since:
                lost.proved = seal.id
        return ""

    def left(self) -> Iterator[tuple[int, str]]:
        """At the end: where a run of seals begins that nothing proves, and a sentence about it."""
        for lost in self._lost.values():
            for first, last in lost.runs:
                begin = max(first, lost.proved + 1)
                if begin <= last:
                    yield begin, _sentence(last - begin, lost.since)


def _proved(lost: Withdrawal, kept: Sequence[Checkpoint]) -> int:
    return max((one.seal for one in kept if not lost.is_before(one)), default=0)


def _extend(runs: list[tuple[int, int]], number: int) -> None:
    if runs and runs[-1][1] == number - 1:
        runs[-1] = (runs[-1][0], number)
    else:
        runs.append((number, number))


def _sentence(more: int, since: datetime | None) -> str:
    which = "its signer's key" if more == 0 else f"it and {more} after it: their signer's key"
    when = "nobody knows since when" if since is None else f"since {since:%Y-%m-%d %H:%M:%S} UTC"
    return f"{which} is compromised ({when}), and nothing else proves it: give a checkpoint of before, kept elsewhere"
