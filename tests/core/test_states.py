"""The state tables of RFC 8555 §7.1.6, and that nothing ever leaves them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.core.challenges import ChallengeType
from acme_ca.core.orders import Authorization
from acme_ca.core.states import (
    ACCOUNT_TRANSITIONS,
    AUTHORIZATION_TRANSITIONS,
    CHALLENGE_TRANSITIONS,
    ORDER_TRANSITIONS,
    AuthorizationStatus,
    ChallengeStatus,
    OrderStatus,
    authorization_status,
    order_status,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
TABLES = (ACCOUNT_TRANSITIONS, ORDER_TRANSITIONS, AUTHORIZATION_TRANSITIONS, CHALLENGE_TRANSITIONS)

# ---------------------------------------------------------------- the tables


@pytest.mark.parametrize("table", TABLES)
def test_a_table_knows_each_of_its_states(table):
    (kind,) = {type(state) for state in table}
    assert set(table) == set(kind)
    assert set().union(*table.values()) <= set(kind)


@pytest.mark.parametrize("table", TABLES)
def test_every_state_leads_to_a_final_one(table):
    final = {state for state, following in table.items() if not following}
    leading = set(final)
    while more := {state for state, following in table.items() if following & leading} - leading:
        leading |= more
    assert final
    assert leading == set(table)


@pytest.mark.parametrize(
    ("table", "final"),
    [
        (ORDER_TRANSITIONS, {OrderStatus.VALID, OrderStatus.INVALID}),
        (CHALLENGE_TRANSITIONS, {ChallengeStatus.VALID, ChallengeStatus.INVALID}),
        (
            AUTHORIZATION_TRANSITIONS,
            set(AuthorizationStatus) - {AuthorizationStatus.PENDING, AuthorizationStatus.VALID},
        ),
    ],
)
def test_what_is_over_is_over(table, final):
    assert {state for state, following in table.items() if not following} == final


# ---------------------------------------------------------------- authorizations

PENDING, VALID, INVALID, DEACTIVATED, EXPIRED, REVOKED = (
    AuthorizationStatus.PENDING,
    AuthorizationStatus.VALID,
    AuthorizationStatus.INVALID,
    AuthorizationStatus.DEACTIVATED,
    AuthorizationStatus.EXPIRED,
    AuthorizationStatus.REVOKED,
)


@pytest.mark.parametrize(
    ("stored", "later"),
    [
        (PENDING, EXPIRED),
        (VALID, EXPIRED),
        (INVALID, INVALID),
        (DEACTIVATED, DEACTIVATED),
        (REVOKED, REVOKED),
        (EXPIRED, EXPIRED),
    ],
)
def test_only_a_living_authorization_expires(stored, later):
    assert authorization_status(stored, expires=NOW + HOUR, now=NOW) is stored
    assert authorization_status(stored, expires=NOW, now=NOW) is later
    assert authorization_status(stored, expires=NOW - HOUR, now=NOW) is later


# ---------------------------------------------------------------- orders


@pytest.mark.parametrize(
    ("authorizations", "status"),
    [
        ([VALID], OrderStatus.READY),
        ([VALID, VALID], OrderStatus.READY),
        ([PENDING], OrderStatus.PENDING),
        ([VALID, PENDING], OrderStatus.PENDING),
        ([VALID, INVALID], OrderStatus.INVALID),
        ([PENDING, INVALID], OrderStatus.INVALID),
        ([VALID, DEACTIVATED], OrderStatus.INVALID),
        ([VALID, EXPIRED], OrderStatus.INVALID),
        ([VALID, REVOKED], OrderStatus.INVALID),
    ],
)
def test_a_pending_order_follows_its_authorizations(authorizations, status):
    assert (
        order_status(OrderStatus.PENDING, authorizations=authorizations, expires=NOW + HOUR, now=NOW)
        is status
    )


def test_an_order_whose_authorizations_are_gone_is_never_ready():
    """Lesson 10: nothing that is missing counts as proof."""
    status = order_status(OrderStatus.PENDING, authorizations=[], expires=NOW + HOUR, now=NOW)
    assert status is not OrderStatus.READY


def test_a_pending_order_ends_in_time():
    status = order_status(OrderStatus.PENDING, authorizations=[VALID], expires=NOW, now=NOW)
    assert status is OrderStatus.INVALID


@pytest.mark.parametrize("stored", [OrderStatus.PROCESSING, OrderStatus.VALID, OrderStatus.INVALID])
def test_from_finalize_on_an_order_has_its_own_status(stored):
    for authorizations in ([INVALID], [], [EXPIRED]):
        assert order_status(stored, authorizations=authorizations, expires=NOW - HOUR, now=NOW) is stored


# ---------------------------------------------------------------- no sequence of events leaves the tables


@dataclass
class Model:
    """An order and its authorizations as they are stored. Each event changes what its statement would."""

    order: OrderStatus
    authorizations: list[AuthorizationStatus]
    expires: list[datetime]
    now: datetime = NOW

    def seen_authorizations(self) -> list[AuthorizationStatus]:
        return [
            authorization_status(stored, expires=expires, now=self.now)
            for stored, expires in zip(self.authorizations, self.expires, strict=True)
        ]

    def seen_order(self) -> OrderStatus:
        return order_status(
            self.order, authorizations=self.seen_authorizations(), expires=NOW + 10 * HOUR, now=self.now
        )

    def apply(self, event: str, place: int) -> None:
        place %= len(self.authorizations)
        seen = self.seen_authorizations()[place]
        if event == "time passes":
            self.now += HOUR
        elif event == "finalize" and self.seen_order() is OrderStatus.READY:
            self.order = OrderStatus.PROCESSING
        elif event == "issued" and self.order is OrderStatus.PROCESSING:
            self.order = OrderStatus.VALID
        elif event == "failed" and self.order is OrderStatus.PROCESSING:
            self.order = OrderStatus.INVALID
        elif event == "proved" and seen is PENDING:
            self.authorizations[place] = VALID
            self.expires[place] = self.now + 20 * HOUR
        elif event == "refused" and seen is PENDING:
            self.authorizations[place] = INVALID
        elif event == "deactivated" and seen in {PENDING, VALID}:
            self.authorizations[place] = DEACTIVATED


EVENTS = ["time passes", "finalize", "issued", "failed", "proved", "proved", "refused", "deactivated"]


@given(
    st.lists(st.integers(1, 15), min_size=1, max_size=3),
    st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 2)), max_size=40),
)
def test_no_sequence_of_events_leaves_the_tables(lives, events):
    model = Model(OrderStatus.PENDING, [PENDING] * len(lives), [NOW + life * HOUR for life in lives])
    order, authorizations = model.seen_order(), model.seen_authorizations()
    for event, place in events:
        model.apply(event, place)
        later, later_authorizations = model.seen_order(), model.seen_authorizations()
        assert later is order or later in reachable(order), (event, order, later)
        for before, after in zip(authorizations, later_authorizations, strict=True):
            assert before is after or after in AUTHORIZATION_TRANSITIONS[before], (event, before, after)
        order, authorizations = later, later_authorizations


def reachable(status: OrderStatus) -> set[OrderStatus]:
    """By one step of the table. One event may end what made an order ready, never more than one step is taken."""
    return set(ORDER_TRANSITIONS[status])


# ---------------------------------------------------------------- challenges


def authorization(**members) -> Authorization:
    fixed = {"id": "1", "account_id": "2", "identifier": None, "expires": NOW, "token": "t"}
    return Authorization(**{**fixed, "status": PENDING, "offered": tuple(ChallengeType), **members})


@pytest.mark.parametrize(
    ("members", "status"),
    [
        ({}, ChallengeStatus.PENDING),
        ({"challenge": ChallengeType.DNS_01}, ChallengeStatus.PENDING),
        ({"challenge": ChallengeType.HTTP_01}, ChallengeStatus.PROCESSING),
        ({"challenge": ChallengeType.HTTP_01, "validated": NOW, "status": VALID}, ChallengeStatus.VALID),
        (
            {"challenge": ChallengeType.HTTP_01, "validated": NOW, "status": DEACTIVATED},
            ChallengeStatus.VALID,
        ),
        ({"challenge": ChallengeType.HTTP_01, "error": {}, "status": INVALID}, ChallengeStatus.INVALID),
    ],
)
def test_the_challenge_that_was_answered_decides(members, status):
    assert authorization(**members).challenge_status(ChallengeType.HTTP_01) is status
