"""Limits: what is written, the arithmetic of buckets and its laws, and whom they are for."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.config import LimitSettings
from acme_ca.core import limits
from acme_ca.core.identifiers import dns, ip
from acme_ca.core.limits import MAX_AMOUNT, Grouping, Limit, LimitKind, bucket_key, name_set
from acme_ca.core.problems import Problem
from acme_ca.core.times import CLOCKS_APART

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

amounts = st.integers(1, 200)
periods = st.integers(1, 40 * 86400).map(lambda seconds: timedelta(seconds=seconds))
all_limits = st.builds(Limit, amounts, periods)
steps = st.lists(st.integers(0, 5_000_000), max_size=300)
"""Milliseconds between one wish and the next."""


# ---------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("text", "limit", "canonical"),
    [
        ("300/3h", Limit(300, 3 * HOUR), "300/3 hours"),
        ("1/s", Limit(1, timedelta(seconds=1)), "1/1 second"),
        (" 50 / 1 day ", Limit(50, DAY), "50/1 day"),
        ("5/week", Limit(5, 7 * DAY), "5/7 days"),
        ("20/90min", Limit(20, timedelta(minutes=90)), "20/90 minutes"),
        ("7/2 weeks", Limit(7, 14 * DAY), "7/14 days"),
        ("1000000/1d", Limit(MAX_AMOUNT, DAY), "1000000/1 day"),
    ],
)
def test_a_limit_is_written_as_people_do(text, limit, canonical):
    assert Limit.parse(text) == limit
    assert str(limit) == canonical
    assert Limit.parse(canonical) == limit


@pytest.mark.parametrize(
    "text",
    [
        "",
        "300",
        "/3h",
        "3h",
        "300/",
        "0/1h",
        "-1/1h",
        "5/0h",
        "1000001/1h",
        "1/11 years",
        "5/3 fortnights",
        "5/999999999w",
    ],
)
def test_what_is_no_limit_is_refused_with_a_sentence(text):
    with pytest.raises(ValueError, match=r"limit"):
        Limit.parse(text)


@given(all_limits)
def test_law_parse_and_print(limit):
    assert Limit.parse(str(limit)) == limit


# ---------------------------------------------------------------- the arithmetic


def take(limit, wishes):
    """The moments of `wishes` at which a token was had, and how full the bucket is."""
    full_at, had = None, []
    for now in wishes:
        if (after := limits.spent(limit, full_at, now=now)) is not None:
            had.append(now)
            full_at = after
    return had, full_at


@given(all_limits)
def test_law_a_full_bucket_gives_its_amount_at_once_and_no_more(limit):
    had, full_at = take(limit, [NOW] * (limit.amount + 5))
    assert len(had) == limit.amount
    assert limits.left(limit, full_at, now=NOW) == 0
    later = limits.free_at(limit, full_at, now=NOW)
    assert later - NOW == limit.interval
    assert limits.spent(limit, full_at, now=later) is not None
    assert limits.spent(limit, full_at, now=later - timedelta(microseconds=1)) is None


@given(all_limits, steps)
def test_law_in_no_period_more_than_the_bucket_and_what_came_back(limit, gaps):
    moments, now = [], NOW
    for gap in gaps:
        now += timedelta(milliseconds=gap)
        moments.append(now)
    had, _ = take(limit, moments)
    for first, begin in enumerate(had):
        within = sum(1 for moment in had[first:] if moment - begin < limit.period)
        assert within <= 2 * limit.amount


@given(all_limits, steps)
def test_law_who_waits_as_long_as_told_is_served_and_nobody_sooner(limit, gaps):
    full_at, now = None, NOW
    for gap in gaps:
        now += timedelta(milliseconds=gap)
        free = limits.free_at(limit, full_at, now=now)
        after = limits.spent(limit, full_at, now=now)
        assert (after is None) == (free > now)
        assert (limits.left(limit, full_at, now=now) > 0) == (after is not None)
        full_at = after or full_at


@given(all_limits, st.integers(0, 10**9))
def test_law_what_is_left_goes_down_by_one(limit, taken):
    _, full_at = take(limit, [NOW] * (taken % limit.amount))
    before = limits.left(limit, full_at, now=NOW)
    assert limits.left(limit, limits.spent(limit, full_at, now=NOW), now=NOW) == before - 1


def test_a_day_of_asking_gets_the_amount_in_each_day_after_the_first():
    limit = Limit(24, DAY)
    had, _ = take(limit, [NOW + minute * timedelta(minutes=1) for minute in range(3 * 24 * 60)])
    days = [sum(1 for moment in had if NOW + day * DAY <= moment < NOW + (day + 1) * DAY) for day in range(3)]
    assert days == [24 + 23, 24, 24]


def test_a_clock_that_was_years_ahead_empties_a_bucket_and_no_more():
    limit = Limit(10, HOUR)
    ahead = NOW + 800 * DAY
    assert limits.free_at(limit, ahead, now=NOW) == NOW + limit.interval
    assert limits.ends(limit, ahead, now=NOW) == NOW + limit.depth


def test_clocks_of_replicas_that_differ_a_little_give_nothing_away():
    """The slower one takes the bucket for as empty as the faster one left it."""
    limit = Limit(3600, HOUR)
    full_at = NOW + limit.depth + CLOCKS_APART
    assert limits.ends(limit, full_at, now=NOW) == full_at


# ---------------------------------------------------------------- whom they are for


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.77/32"),
        ("::ffff:192.0.2.77", "192.0.2.77/32"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
        ("", ""),
        ("socket", "socket"),
    ],
)
def test_the_network_of_an_address(address, network):
    assert Grouping().network(address) == network


def test_a_wider_network():
    grouping = Grouping(v4_prefix=24, v6_prefix=64)
    assert grouping.network("192.0.2.77") == "192.0.2.0/24"
    assert grouping.network("2001:db8:1:2:3::4") == "2001:db8:1:2::/64"


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        (dns("a.b.clara.vcc.internal"), "clara.vcc.internal"),
        (dns("*.clara.vcc.internal"), "clara.vcc.internal"),
        (dns("clara.vcc.internal"), "clara.vcc.internal"),
        (dns("vcc.internal"), "vcc.internal"),
        (dns("x.lab.vcc.internal"), "x.lab.vcc.internal"),
        (dns("notvcc.internal"), "notvcc.internal"),
        (dns("a.b.example.org"), "example.org"),
        (dns("localhost"), "localhost"),
        (ip("192.0.2.1"), "192.0.2.1"),
    ],
)
def test_the_registered_name(identifier, name):
    grouping = Grouping(domains=("vcc.internal", "lab.vcc.internal"))
    assert grouping.registered_name(identifier) == name


def test_a_set_of_names_has_no_order():
    one, other = dns("a.example"), ip("192.0.2.1")
    assert name_set([one, other]) == name_set([other, one, other]) == "dns:a.example,ip:192.0.2.1"


def test_a_key_of_a_bucket_is_short_and_tells_subjects_apart():
    kind = LimitKind.CERTIFICATES_PER_NAME_SET
    long = [name_set([dns(f"n{number}.{'a' * 60}.example") for number in range(last)]) for last in (99, 100)]
    keys = {bucket_key(kind, subject) for subject in (*long, "dns:a.example")}
    assert len(keys) == 3
    assert max(map(len, keys)) < 100
    assert bucket_key(LimitKind.ORDERS_PER_ACCOUNT, "x") != bucket_key(LimitKind.ORDERS_PER_EAB_KEY, "x")


def test_an_operator_writes_names_as_they_are():
    names = limits.parse_names("a.example, dns:B.example,192.0.2.1 ,ip:2001:db8::1,2001:db8::2")
    assert list(map(str, names)) == [
        "dns:a.example",
        "dns:b.example",
        "ip:192.0.2.1",
        "ip:2001:db8::1",
        "ip:2001:db8::2",
    ]
    with pytest.raises(Problem):
        limits.parse_names("a.example,,b.example")


def test_each_kind_has_a_setting_and_a_time():
    for kind in LimitKind:
        assert kind.setting in LimitSettings.model_fields
        assert kind in limits.ORDERS | limits.CERTIFICATES | {LimitKind.ACCOUNTS_PER_NETWORK}
