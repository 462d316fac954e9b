"""Which reason for a revocation may follow which, and who may give it (RFC 5280 §5.3.1).

Rules of this file: the reason of a certificate changes along REASONS_AFTER or not at all; only a hold ends in a release.
A revocation for good stays one, and its reason only ever becomes the gravest, keyCompromise.
"""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum
from typing import Literal

from cryptography import x509

from acme_ca.core.problems import ErrorType, Problem, malformed


class RevocationReason(IntEnum):
    """RFC 5280 §5.3.1, those that make sense for what this CA issues. A hold is the one that can be released."""

    UNSPECIFIED = 0
    KEY_COMPROMISE = 1
    CA_COMPROMISE = 2
    AFFILIATION_CHANGED = 3
    SUPERSEDED = 4
    CESSATION_OF_OPERATION = 5
    CERTIFICATE_HOLD = 6
    PRIVILEGE_WITHDRAWN = 9
    AA_COMPROMISE = 10


FinalReason = Literal[
    "unspecified",
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "privilegeWithdrawn",
    "aACompromise",
]
"""The RFC's names of those that end a certificate for good."""


HOLD = RevocationReason.CERTIFICATE_HOLD
KEY_COMPROMISE = RevocationReason.KEY_COMPROMISE
"""Its effect reaches beyond the certificate: the key is never accepted again."""

SUBSCRIBER_REASONS = frozenset(
    {
        RevocationReason.UNSPECIFIED,
        KEY_COMPROMISE,
        RevocationReason.AFFILIATION_CHANGED,
        RevocationReason.SUPERSEDED,
        RevocationReason.CESSATION_OF_OPERATION,
    }
)
"""What a subscriber may give; the others are statements of the CA or its operators."""

_EVERY = frozenset(RevocationReason)

REASONS_AFTER: dict[RevocationReason | None, frozenset[RevocationReason]] = {
    None: _EVERY,
    HOLD: _EVERY - {HOLD},
    KEY_COMPROMISE: frozenset(),
    **dict.fromkeys(_EVERY - {HOLD, KEY_COMPROMISE}, frozenset({KEY_COMPROMISE})),
}
"""For each reason of a certificate (None: it is good) those that it may be given."""

MAX_COMMENT = 1000
"""Characters."""


def origins(reason: RevocationReason) -> list[RevocationReason | None]:
    """The reasons that `reason` may follow."""
    return [before for before, after in REASONS_AFTER.items() if reason in after]


def why_not(before: RevocationReason | None, reason: RevocationReason) -> Problem | None:
    """What prevents a certificate that was revoked for `before` from being given `reason`; None: nothing."""
    if reason in REASONS_AFTER[before]:
        return None
    if before is HOLD:
        return Problem(ErrorType.ALREADY_REVOKED, "This certificate is on hold already.")
    if before is KEY_COMPROMISE or reason is HOLD:
        return Problem(
            ErrorType.ALREADY_REVOKED, "This certificate is revoked already; nothing is left to do."
        )
    return Problem(
        ErrorType.ALREADY_REVOKED,
        "This certificate is revoked already; its reason can only be changed to keyCompromise.",
    )


def check_circumstances(*, invalid_since: datetime | None, comment: str | None, now: datetime) -> None:
    """What an operator knows beside the reason. Raises Problem (`malformed`)."""
    if invalid_since is not None and invalid_since > now:
        raise malformed(
            "The certificate cannot be invalid since a time that is still to come; give one that has passed."
        )
    if comment is not None and (len(comment) > MAX_COMMENT or not comment.isprintable()):
        raise malformed(f"A comment is one line of {MAX_COMMENT} printable characters at most.")


def reason_flag(reason: RevocationReason) -> x509.ReasonFlags:
    return x509.ReasonFlags[reason.name.lower()]


def reason_name(reason: RevocationReason) -> str:
    """As RFC 5280 §5.3.1 spells it: `keyCompromise`."""
    name: str = reason_flag(reason).value
    return name


REASONS = {reason_name(reason): reason for reason in RevocationReason}
"""By the RFC's names."""
