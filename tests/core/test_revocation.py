"""Which reason may follow which: RFC 5280 §5.3.1, and the rule that a revocation for good stays one."""

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from acme_ca.core import revocation
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.revocation import (
    HOLD,
    KEY_COMPROMISE,
    REASONS,
    REASONS_AFTER,
    FinalReason,
    RevocationReason,
    why_not,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
FOR_GOOD = sorted(set(RevocationReason) - {HOLD, KEY_COMPROMISE})


@pytest.mark.parametrize("reason", RevocationReason)
def test_a_good_certificate_may_be_given_any_reason(reason):
    assert why_not(None, reason) is None


@pytest.mark.parametrize("reason", RevocationReason)
def test_a_hold_ends_in_any_other_reason(reason):
    assert (why_not(HOLD, reason) is None) is (reason is not HOLD)


@pytest.mark.parametrize("before", FOR_GOOD)
@pytest.mark.parametrize("reason", RevocationReason)
def test_a_reason_is_raised_to_key_compromise_and_changed_to_nothing_else(before, reason):
    problem = why_not(before, reason)
    assert (problem is None) is (reason is KEY_COMPROMISE)
    assert problem is None or problem.type is ErrorType.ALREADY_REVOKED


@pytest.mark.parametrize("reason", RevocationReason)
def test_after_key_compromise_nothing_follows(reason):
    assert why_not(KEY_COMPROMISE, reason).type is ErrorType.ALREADY_REVOKED


def test_the_table_has_every_reason():
    assert set(REASONS_AFTER) == {None, *RevocationReason}
    for reason in RevocationReason:
        assert revocation.origins(reason) == [b for b in REASONS_AFTER if why_not(b, reason) is None]


def test_the_reasons_have_the_names_of_the_rfc():
    assert {name: reason.value for name, reason in REASONS.items()} == {
        "unspecified": 0,
        "keyCompromise": 1,
        "cACompromise": 2,
        "affiliationChanged": 3,
        "superseded": 4,
        "cessationOfOperation": 5,
        "certificateHold": 6,
        "privilegeWithdrawn": 9,
        "aACompromise": 10,
    }


def test_all_but_a_hold_are_final():
    assert {REASONS[name] for name in get_args(FinalReason)} == set(RevocationReason) - {HOLD}


@pytest.mark.parametrize(
    ("invalid_since", "comment"),
    [
        (NOW + timedelta(seconds=1), None),
        (None, "x" * (revocation.MAX_COMMENT + 1)),
        (None, "two\nlines"),
        (None, "nul\0"),
        (None, "\x1b[31mred"),
    ],
)
def test_circumstances_that_cannot_be(invalid_since, comment):
    with pytest.raises(Problem):
        revocation.check_circumstances(invalid_since=invalid_since, comment=comment, now=NOW)


def test_circumstances_that_can_be():
    revocation.check_circumstances(invalid_since=NOW, comment="gestohlen, siehe Ticket 7: ärgerlich", now=NOW)
    revocation.check_circumstances(invalid_since=None, comment=None, now=NOW)
