"""The rules of what certificates rest on: CA certificates, profiles, and since when the evidence is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509
from pydantic import ValidationError

from acme_ca.audit.findings import Finding, Findings, Severity, judging
from acme_ca.ca import chains
from acme_ca.ca import issuers as ca_issuers
from acme_ca.ca.constraints import NameConstraints
from acme_ca.ca.issuers import Issuer, IssuerKey
from acme_ca.core import keys
from acme_ca.core.der import Unreadable, strictly
from acme_ca.core.ids import IssuerId
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.profiles import Profile, ProfileRef
from acme_ca.storage.audit import EventRecord, StoredProfile
from acme_ca.storage.issuers import IssuerRecord

# ---------------------------------------------------------------- CA certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A CA certificate that could be read, beside its row. `parent` None: not known here, or it cannot be read."""

    record: IssuerRecord
    certificate: x509.Certificate
    key: IssuerKey
    parent: x509.Certificate | None
    events: tuple[EventRecord, ...]


def issuers(
    stored: Sequence[tuple[IssuerRecord, tuple[EventRecord, ...]]], into: Findings
) -> dict[IssuerId, Issuer]:
    """Those that can be read, with the name constraints of their chains."""
    certificates: dict[IssuerId, x509.Certificate] = {}
    for record, _ in stored:
        try:
            certificates[record.id] = _read(record.der)
        except Unreadable:
            says = "the bytes are no CA certificate in DER with a key of a known kind"
            into.found.append(Finding(Severity.ERROR, "issuer.unreadable", f"issuer:{record.id}", says))
    known = [(record, events) for record, events in stored if record.id in certificates]
    for record, events in known:
        with judging("issuer.unjudged", f"issuer:{record.id}", into):
            _judge(_registered(record, certificates, events), into)
    return {record.id: _issuer(record, certificates) for record, _ in known}


def _read(der: bytes) -> x509.Certificate:
    with strictly():
        certificate = x509.load_der_x509_certificate(der)
        if not isinstance(certificate.public_key(), IssuerKey):
            raise Unreadable("an unknown key")
        ca_issuers.key_identifier(certificate)
        NameConstraints.of(certificate)
    return certificate


def _registered(
    record: IssuerRecord,
    certificates: Mapping[IssuerId, x509.Certificate],
    events: tuple[EventRecord, ...],
) -> Registered:
    certificate = certificates[record.id]
    key = certificate.public_key()
    assert isinstance(key, IssuerKey)  # noqa: S101  it was read
    parent = certificates.get(record.parent_id) if record.parent_id is not None else None
    return Registered(record=record, certificate=certificate, key=key, parent=parent, events=events)


def _judge(registered: Registered, into: Findings) -> None:
    into.found += [
        Finding(Severity.ERROR, code, f"issuer:{registered.record.id}", says)
        for code, rule in OF_ISSUER
        for says in rule(registered)
    ]


def _issuer(record: IssuerRecord, certificates: Mapping[IssuerId, x509.Certificate]) -> Issuer:
    certificate = certificates[record.id]
    parent = [certificates[id_] for id_ in (record.parent_id,) if id_ and id_ in certificates]
    chain = chains.chains(certificate, [*parent, *certificates.values()])[0]
    constraints = tuple(filter(None, map(NameConstraints.of, chain)))
    return replace(ca_issuers.issuer(certificate, None, chain=chain), id=record.id, constraints=constraints)


def _row(registered: Registered) -> Iterator[str]:
    record, certificate = registered.record, registered.certificate
    if (record.id, record.spki_sha256, record.not_before, record.not_after) != (
        ca_issuers.issuer_id(certificate),
        keys.spki_sha256(registered.key),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    ):
        yield "its id, key or dates are not those of the certificate"


def _signature(registered: Registered) -> Iterator[str]:
    signer = registered.certificate if registered.record.kind is IssuerKind.ROOT else registered.parent
    if signer is not None and not chains.issued(signer, registered.certificate):
        yield "the recorded parent did not sign it"


def _audit(registered: Registered) -> Iterator[str]:
    told = [event.detail.get("kind") for event in registered.events if event.event == "issuer.registered"]
    if told != [registered.record.kind]:
        yield "the audit does not tell once that it was registered, as what it is"


def _state(registered: Registered) -> Iterator[str]:
    told = None
    for event in registered.events:
        if event.event == "issuer.registered":
            told = event.detail.get("state")
        elif event.event in _STATES:
            told = event.event.removeprefix("issuer.")
    if told != registered.record.state:
        yield f"it is {registered.record.state}, and the audit says otherwise"


_STATES = {"issuer.staged", "issuer.active", "issuer.retired"}


def _revoked(registered: Registered) -> Iterator[str]:
    told = [event for event in registered.events if event.event == "issuer.revoked"]
    since, reason = (told[0].at, told[-1].detail.get("reason")) if told else (None, None)
    if (registered.record.revoked, registered.record.reason) != (since, reason):
        yield "row and audit differ on whether, when or why it was revoked"


OF_ISSUER: tuple[tuple[str, Callable[[Registered], Iterator[str]]], ...] = (
    ("issuer.row", _row),
    ("issuer.signature", _signature),
    ("issuer.audit", _audit),
    ("issuer.state", _state),
    ("issuer.revoked", _revoked),
)


# ---------------------------------------------------------------- profiles


def profiles(stored: Iterable[StoredProfile], into: Findings) -> dict[ProfileRef, Profile]:
    """Those that can be read. A version never changes: the audit knows the digest of what was saved."""
    read = {}
    for each in stored:
        place = f"profile:{each.ref.name}/{each.ref.version}"
        if each.told != (each.sha256,):
            says = "it is not what the audit says was saved"
            into.found.append(Finding(Severity.ERROR, "profile.changed", place, says))
        try:
            read[each.ref] = Profile.model_validate(each.body)
        except ValidationError:
            says = "it cannot be read: it is damaged, or a later release has written it"
            into.found.append(Finding(Severity.ERROR, "profile.unreadable", place, says))
    return read


# ---------------------------------------------------------------- evidence


def evidence(since: datetime | None, *, kept: timedelta, now: datetime, into: Findings) -> None:
    """`since`: when the evidence begins to be complete; None: it is. `kept`: for how long it is to be kept."""
    with judging("evidence.time", "evidence", into):
        if since is not None and since > now:
            says = "it is said to be complete from a time on that is not yet"
            into.found.append(Finding(Severity.ERROR, "evidence.time", "evidence", says))
        elif since is not None and since > now - kept:
            says = "some was deleted that EVIDENCE_RETENTION keeps today; was it shorter before?"
            into.found.append(Finding(Severity.NOTE, "evidence.deleted", "evidence", says))
