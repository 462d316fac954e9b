"""The rules of CRLs: whether each is what its row says, and lists what is revoked, no more and no less.

A revocation that no CRL has taken up yet is not missed: whoever revokes leaves a wish for the CRL in the same statement,
and the one that stores the CRL takes that wish away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from urllib.parse import urlsplit

from cryptography import x509

from acme_ca.audit.findings import Background, Finding, Findings, Severity, judging
from acme_ca.ca.issuers import Issuer
from acme_ca.core import addresses
from acme_ca.core.crl import REMOVE_FROM_CRL, Entry, Scope, unpack
from acme_ca.core.der import Unreadable, strictly
from acme_ca.core.ids import Serial, serial_text
from acme_ca.core.revocation import REASONS
from acme_ca.storage.audit import ShardRecord, StoredCrl

MISSING_AFTER = timedelta(hours=1)
"""An issuer has a CRL by then."""
OVERDUE_AFTER = timedelta(minutes=10)

_REASONS = {x509.ReasonFlags(name): int(code) for name, code in REASONS.items()} | {
    x509.ReasonFlags.remove_from_crl: REMOVE_FROM_CRL
}

Revoked = dict[Serial, Entry]
Extension = TypeVar("Extension", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A CRL that could be read, beside its row. `files`: the full CRL, and the delta if there is one."""

    record: ShardRecord
    stored: StoredCrl
    issuer: Issuer
    files: tuple[x509.CertificateRevocationList, ...]
    listed: Revoked
    in_delta: Revoked
    now: datetime


def examine(record: ShardRecord, background: Background, into: Findings) -> None:
    into.crls += 1
    place = f"crl:{record.issuer}/{record.shard}"
    with judging("crl.unjudged", place, into):
        _examine(record, background, place, into)


def _examine(record: ShardRecord, background: Background, place: str, into: Findings) -> None:
    into.found += [
        Finding(Severity.NOTE, "crl.overdue", place, says) for says in _overdue(record, background)
    ]
    if record.crl is None:
        into.found += [
            Finding(Severity.ERROR, "crl.missing", place, says) for says in _missing(record, background)
        ]
        return
    try:
        published = _read(record, record.crl, background)
    except Unreadable:
        into.found.append(Finding(Severity.ERROR, "crl.unreadable", place, "the bytes are no CRL in DER"))
        return
    into.found += [
        Finding(Severity.ERROR, code, place, says) for code, rule in RULES for says in rule(published)
    ]
    into.found += _differences(published)


def _overdue(record: ShardRecord, background: Background) -> Iterator[str]:
    if any(wish < background.now - OVERDUE_AFTER for wish in record.wishes):
        yield "a revocation, or the wish of an operator, waits for it for ten minutes and more"


def _missing(record: ShardRecord, background: Background) -> Iterator[str]:
    if record.is_expected and record.created < background.now - MISSING_AFTER:
        yield "there is no CRL"


def _read(record: ShardRecord, stored: StoredCrl, background: Background) -> Published:
    with strictly():
        files = [x509.load_der_x509_crl(der) for der in (stored.der, stored.delta) if der is not None]
        return Published(
            record=record,
            stored=stored,
            issuer=background.issuers[record.issuer],
            files=tuple(files),
            listed=_entries(files[0]),
            in_delta=_entries(files[1]) if stored.delta is not None else {},
            now=background.now,
        )


def _entries(crl: Iterable[x509.RevokedCertificate]) -> Revoked:
    return {entry.serial: entry for entry in map(_entry, crl)}


def _entry(revoked: x509.RevokedCertificate) -> Entry:
    reason, since = 0, None
    for extension in revoked.extensions:
        if isinstance(extension.value, x509.CRLReason):
            reason = _REASONS.get(extension.value.reason, -1)
        if isinstance(extension.value, x509.InvalidityDate):
            since = extension.value.invalidity_date_utc
    return Entry(serial_text(revoked.serial_number), revoked.revocation_date_utc, reason, since)


# ---------------------------------------------------------------- against the row


def _issuer(published: Published) -> Iterator[str]:
    name = published.issuer.certificate.subject.public_bytes()
    if any(file.issuer.public_bytes() != name for file in published.files):
        yield "the issuer's name is not that of the recorded issuer"


def _signature(published: Published) -> Iterator[str]:
    key = published.issuer.public_key
    if not all(file.is_signature_valid(key) for file in published.files):
        yield "the signature is not one of the recorded issuer"


def _number(published: Published) -> Iterator[str]:
    stored = published.stored
    if any(_extension(file, x509.CRLNumber) != x509.CRLNumber(stored.number) for file in published.files):
        yield "its number is not the recorded one"
    full, *deltas = (_extension(file, x509.DeltaCRLIndicator) for file in published.files)
    base = x509.DeltaCRLIndicator(stored.base_number)
    if full is not None or any(indicator != base for indicator in deltas):
        yield "the delta does not refer to the recorded base"


def _times(published: Published) -> Iterator[str]:
    stored, full = published.stored, published.files[0]
    if any(file.last_update_utc != stored.this_update for file in published.files):
        yield "thisUpdate is not the recorded one"
    if full.next_update_utc != stored.next_update:
        yield "nextUpdate is not the recorded one"


def _expired(published: Published) -> Iterator[str]:
    ends = (file.next_update_utc for file in published.files)
    if not published.record.is_finished and any(end is None or end <= published.now for end in ends):
        yield "it has expired, or its delta has, and there is no newer one"


def _address(published: Published) -> Iterator[str]:
    """The scope says which certificates it is about (RFC 5280 §5.2.5): those that name one of its addresses."""
    record, stored = published.record, published.stored
    path = addresses.crl("", record.issuer, record.shard)
    if any(urlsplit(url).path != path for url in stored.urls):
        yield "the recorded addresses are not those of the shard"
    wanted = [x509.UniformResourceIdentifier(url) for url in stored.urls]
    for file in published.files:
        scope = _extension(file, x509.IssuingDistributionPoint)
        if record.about is Scope.CAS:
            # It names no address: it is for CA certificates that name another, too. One that was signed elsewhere may
            # also be about all that the root issues.
            if scope is not None and (scope.full_name is not None or scope.only_contains_user_certs):
                yield "it is not about all CA certificates below the root"
        elif scope is None or scope.full_name != wanted:
            yield "its addresses are not the recorded ones"
        elif scope.only_contains_ca_certs or scope.only_contains_user_certs != (record.about is Scope.LEAVES):
            yield "it is not about all certificates of its shard"


def _entries_counted(published: Published) -> Iterator[str]:
    if (
        len(published.listed) != published.stored.entries
        or len(published.files[0]) != published.stored.entries
    ):
        yield "it has another number of entries than is recorded, or one twice"


def _delta(published: Published) -> Iterator[str]:
    """RFC 5280 §5.2.4: the base, with what the delta says of it, is the full CRL."""
    if published.stored.delta is None:
        return
    applied = {entry.serial: entry for entry in unpack(published.stored.base)} | published.in_delta
    remaining = {serial: entry for serial, entry in applied.items() if entry.reason != REMOVE_FROM_CRL}
    if remaining != published.listed:
        yield "its base and its delta do not give it"


def _history(published: Published) -> Iterator[str]:
    if published.record.steps_back:
        yield "the audit tells of a number that was not above the one before"


def _published(published: Published) -> Iterator[str]:
    if published.record.published_sha256 != hashlib.sha256(published.stored.der).hexdigest():
        yield "the audit tells of another one as the newest"


RULES: tuple[tuple[str, Callable[[Published], Iterator[str]]], ...] = (
    ("crl.issuer", _issuer),
    ("crl.signature", _signature),
    ("crl.number", _number),
    ("crl.times", _times),
    ("crl.expired", _expired),
    ("crl.address", _address),
    ("crl.entries", _entries_counted),
    ("crl.delta", _delta),
    ("crl.history", _history),
    ("crl.audit", _published),
)


def _extension(file: x509.CertificateRevocationList, kind: type[Extension]) -> Extension | None:
    try:
        return file.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


# ---------------------------------------------------------------- against the revocations


def _differences(published: Published) -> Iterator[Finding]:
    """Between what is listed and what is revoked, but for changes that wait for the next CRL."""
    record, listed = published.record, published.listed
    revoked = {entry.serial: entry for entry in record.listing}
    for serial in sorted(listed.keys() | revoked.keys()):
        if record.about is Scope.CAS and serial in listed:
            # A root may list what is not known here, and what it signed elsewhere has dates and reasons of its own.
            continue
        if listed.get(serial) != revoked.get(serial) and not _waits(record, serial):
            code, says = _difference(listed.get(serial), revoked.get(serial))
            yield Finding(Severity.ERROR, code, f"certificate:{serial}", says)


def _waits(record: ShardRecord, serial: Serial) -> bool:
    """CA certificates have no time of their last change: any wish may be for them."""
    if serial in record.changed:
        return record.changed[serial] in record.wishes
    return record.about is not Scope.LEAVES and bool(record.wishes)


def _difference(listed: Entry | None, revoked: Entry | None) -> tuple[str, str]:
    if listed is None:
        return "crl.not_listed", "it is revoked, and the CRL of its shard does not list it"
    if revoked is None:
        return "crl.listed", "the CRL lists it, and it is not revoked, or not of the shard"
    return "crl.entry", "the CRL lists it with another date or reason"
