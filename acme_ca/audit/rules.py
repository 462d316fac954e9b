"""All rules on one certificate: what was signed, what it was issued on, and what is only worth a look."""

from __future__ import annotations

from datetime import timedelta

from acme_ca.audit import evidence, signed
from acme_ca.audit.findings import Background, Finding, Findings, Severity, judging
from acme_ca.ca import profiles
from acme_ca.core.identifiers import Identifier
from acme_ca.core.states import OrderStatus
from acme_ca.storage.audit import CertificateRecord

UNSIGNED_AFTER = timedelta(minutes=1)
"""What was recorded this long ago is not about to be signed any more, unless its order is processing."""


def examine(record: CertificateRecord, background: Background, into: Findings) -> None:
    into.certificates += 1
    with judging("certificate.unjudged", f"certificate:{record.serial}", into):
        _examine(record, background, into)


def _examine(record: CertificateRecord, background: Background, into: Findings) -> None:
    if record.der is None:
        into.unsigned += 1
        _add(into, Severity.ERROR, record, _valid_unsigned(record))
        _add(into, Severity.NOTE, record, _never_signed(record, background))
        return
    _add(into, Severity.ERROR, record, signed.judge(record, record.der, background))
    _add(into, Severity.ERROR, record, evidence.judge_events(record))
    if record.requested_by is not None:
        into.operators += 1
        _add(into, Severity.ERROR, record, _not_for_operators(record))
        _add(into, Severity.NOTE, record, _refused_today(record, background))
        return
    if record.order_id is None and record.account_id is None:
        into.own += 1
        _add(into, Severity.ERROR, record, _not_for_the_server(record))
        _add(into, Severity.NOTE, record, _own_for_another(record, background))
        return
    _add(into, Severity.ERROR, record, _judge_order(record, background, into))
    into.approved += any(authorization.scope is not None for authorization in record.authorizations)
    _add(into, Severity.NOTE, record, _approved(record))
    _add(into, Severity.NOTE, record, _refused_today(record, background))


def _add(into: Findings, severity: Severity, record: CertificateRecord, found: evidence.Found) -> None:
    into.found += [
        Finding(severity, code, f"certificate:{record.serial}", sentence) for code, sentence in found
    ]


def _judge_order(record: CertificateRecord, background: Background, into: Findings) -> evidence.Found:
    """Evidence that was deleted in order is counted, evidence that is missing is an error."""
    may_be_gone = background.evidence_since is not None and record.recorded < background.evidence_since
    order = record.order
    if order is not None:
        yield from evidence.judge_order(record, order, background.profiles[record.profile])
    if order is not None and not evidence.missing_authorizations(record, order):
        return
    if may_be_gone and record.order_id is not None:
        into.unproved += 1
    elif order is None:
        yield "order.missing", "there is no order for it"
    else:
        yield "authorization.missing", "an authorization of its order is missing"


def _not_for_the_server(record: CertificateRecord) -> evidence.Found:
    if record.profile.name not in profiles.FOR_ITSELF:
        yield "order.missing", "no order asked for it, and its profile is not one of the server itself"


def _not_for_operators(record: CertificateRecord) -> evidence.Found:
    if not record.requested_by or not record.requested_by.startswith("operator"):
        yield "operator.unknown", "no order asked for it, and who did is no operator"
    if record.profile.name in profiles.FOR_ITSELF:
        yield "operator.profile", "an operator had it issued, of a profile of the server itself"


def _valid_unsigned(record: CertificateRecord) -> evidence.Found:
    if record.order is not None and record.order.status == OrderStatus.VALID:
        yield "order.status", "the order is valid, though its certificate is not signed"


# ---------------------------------------------------------------- notes


def _never_signed(record: CertificateRecord, background: Background) -> evidence.Found:
    being_signed = record.order is not None and record.order.status == OrderStatus.PROCESSING
    if not being_signed and record.recorded < background.now - UNSIGNED_AFTER:
        yield "certificate.unsigned", "it was recorded and never signed"


def _own_for_another(record: CertificateRecord, background: Background) -> evidence.Found:
    """No order asks for these, so a name that is not the server's wants an explanation."""
    others = set(record.identifiers) - {str(background.own)}
    if others and record.not_after > background.now:
        yield "certificate.own", "it is one of the server itself, for another name than public_url's"


def _approved(record: CertificateRecord) -> evidence.Found:
    """Nobody proved these names, so who vouches for them is told."""
    for authorization in record.authorizations:
        if (scope := authorization.scope) is not None:
            who = f"scope {scope.id} ({scope.rule}) of {scope.approved_by}, because: {scope.reason}"
            yield "certificate.approved", f"{authorization.identifier} was not proved but approved: {who}"


def _refused_today(record: CertificateRecord, background: Background) -> evidence.Found:
    if record.revoked is not None or record.not_after <= background.now:
        return
    for problem in background.policy.violations(map(Identifier.from_text, record.identifiers)):
        yield "certificate.policy", f"today's name policy would refuse it: {problem.detail}"
    if record.compromised_since is not None or record.blocked_since is not None:
        yield "certificate.refused_key", "its key was compromised or blocked since, and it is not revoked"
