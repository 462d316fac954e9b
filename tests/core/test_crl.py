"""CRL numbers, bases and deltas: laws, without a database."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.core import crl
from acme_ca.core.crl import BACKDATING, EARLIEST, REMOVE_FROM_CRL, SECOND, Base, Entry, History, Newest, Plan
from acme_ca.core.revocation import HOLD, REASONS_AFTER, RevocationReason

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MILLISECONDS = int(NOW.timestamp() * 1000)
SHARD = ("1" * 32, 0)

moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
seconds = moments.map(lambda moment: moment.replace(microsecond=0))
# CAs that were signed elsewhere may have up to 20 octets (RFC 5280 §4.1.2.2).
few_serials = st.sampled_from([*range(8), 0xABC << 144, 0x7F << 152]).map(lambda number: f"{number:032x}")
entries = st.builds(Entry, few_serials, seconds, st.sampled_from([0, 1, 4, 6]), st.none() | seconds)
lists = st.dictionaries(few_serials, entries).map(
    lambda found: [entry._replace(serial=serial) for serial, entry in found.items()]
)


def newest(number=MILLISECONDS, at=NOW, base_at=NOW, lists_after=EARLIEST) -> Newest:
    base = Base(number=number, at=base_at, lists_after=lists_after)
    return Newest(
        number=number, this_update=at, next_update=at + DAY, entries=0, urls=("http://ca.test",), base=base
    )


def planned(last, now, *, trusted=True) -> Plan:
    return crl.plan(last, now=now, base_period=DAY, trusted=trusted)


# ---------------------------------------------------------------- numbers and times


@given(st.lists(moments, min_size=2))
def test_numbers_go_up_whatever_the_clock_does(clock):
    last = None
    for now in clock:
        plan = planned(last, now)
        assert last is None or plan.number > last.number
        assert plan.number >= int(now.timestamp() * 1000)
        assert plan.number.bit_length() <= 8 * 20, "20 octets (RFC 5280 §5.2.3)"
        last = newest(plan.number)


@given(st.lists(moments, min_size=2))
def test_what_has_not_expired_is_listed_whatever_the_clock_does(clock):
    last = None
    for now in clock:
        plan = planned(last, now)
        assert plan.base.lists_after <= min(now, plan.base.at), "the table wants it, too"
        last = newest(plan.number, plan.this_update, plan.base.at, plan.base.lists_after)


@given(st.lists(st.timedeltas(timedelta(0), 2 * DAY), max_size=30), st.timedeltas(timedelta(0), 5 * DAY))
def test_what_expired_is_listed_once_more(steps, life):
    """In a full CRL whose thisUpdate is after its end, if there is any, and until the base after that one."""
    now, last, ends, seen = NOW, None, NOW + life, False
    for step in steps:
        now += step
        plan = planned(last, now)
        is_listed = ends >= plan.base.lists_after
        assert is_listed or seen
        seen = seen or (is_listed and plan.this_update > ends)
        last = newest(plan.number, plan.this_update, plan.base.at, plan.base.lists_after)


@given(st.lists(st.timedeltas(SECOND, 3 * DAY), min_size=2))
def test_each_is_later_than_the_one_before_and_none_in_the_future(steps):
    now, last = NOW, None
    for step in steps:
        now += step
        at = crl.this_update(last, now)
        assert at.microsecond == 0
        assert now - BACKDATING - SECOND < at <= now
        assert last is None or at > last.this_update
        last = newest(at=at)


def test_a_clock_that_went_back_does_not_push_the_time_into_the_future():
    assert crl.this_update(newest(at=NOW), NOW - DAY) == NOW - DAY


@pytest.mark.parametrize(
    ("last", "now", "trusted", "is_base"),
    [
        pytest.param(None, NOW, True, True, id="the first"),
        pytest.param(newest(), NOW + DAY / 2, True, False, id="half a day later"),
        pytest.param(newest(), NOW + DAY, True, True, id="a day later"),
        pytest.param(newest(), NOW - SECOND, True, True, id="the clock went back"),
        pytest.param(newest(), NOW + DAY / 2, False, True, id="of an unknown past"),
    ],
)
def test_when_a_crl_becomes_the_base(last, now, trusted, is_base):
    plan = planned(last, now, trusted=trusted)
    assert plan.is_base is is_base
    lists_after = min(NOW, now) - SECOND if last else EARLIEST
    expected = Base(number=plan.number, at=plan.this_update, lists_after=lists_after)
    assert plan.base == (expected if is_base else last.base)


# ---------------------------------------------------------------- trust in bases


def test_a_base_of_before_this_process_is_not_trusted():
    history = History()
    assert not history.trusts(SHARD, 5)
    history.look(SHARD, number=7, base_number=5)
    assert not history.trusts(SHARD, 5)
    history.look(SHARD, number=9, base_number=8)
    assert history.trusts(SHARD, 8), "made by another, while this one looked on"


def test_ones_own_base_is_trusted_until_the_numbers_go_down():
    history, own = History(), Base(number=5, at=NOW, lists_after=EARLIEST)
    history.made(SHARD, Plan(number=5, this_update=NOW, base=own, is_base=True))
    history.look(SHARD, number=5, base_number=5)
    history.look(SHARD, number=8, base_number=5)
    assert history.trusts(SHARD, 5)
    history.look(SHARD, number=6, base_number=5)
    assert not history.trusts(SHARD, 5), "an older copy of the database"
    history.look(SHARD, number=9, base_number=9)
    assert history.trusts(SHARD, 9)


def test_what_was_read_before_ones_own_crl_is_no_older_database():
    """Both go on in one process: who looks may have asked before the publisher stored, and be answered after."""
    history, own = History(), Base(number=5, at=NOW, lists_after=EARLIEST)
    asked = history.numbers()
    history.made(SHARD, Plan(number=5, this_update=NOW, base=own, is_base=True))
    history.look(SHARD, number=3, base_number=3, known=asked.get(SHARD, 0))
    assert history.trusts(SHARD, 5)
    asked = history.numbers()
    history.made(SHARD, Plan(number=6, this_update=NOW, base=own, is_base=False))
    history.look(SHARD, number=5, base_number=5, known=asked.get(SHARD, 0))
    assert history.trusts(SHARD, 5)
    history.look(SHARD, number=5, base_number=5, known=history.numbers()[SHARD])
    assert not history.trusts(SHARD, 5), "now it is"


# ---------------------------------------------------------------- deltas


def applied(full, delta):
    """RFC 5280 §5.2.4."""
    result = {entry.serial: entry for entry in full}
    for entry in delta:
        result.pop(entry.serial, None)
        if entry.reason != REMOVE_FROM_CRL:
            result[entry.serial] = entry
    return result


acts = st.lists(
    st.tuples(few_serials, st.sampled_from([None, *RevocationReason]), st.booleans()), max_size=20
)


@given(acts, st.data())
def test_a_delta_brings_every_crl_since_the_base_up_to_date(story, data):
    """Certificates are held, released (None), revoked; now and then a second passes. After each act there is a CRL."""
    now, state, released, crls = NOW, {}, set(), [[]]
    for serial, reason, passes in story:
        now += SECOND * passes
        before = state.get(serial)
        if reason is None and before is not None and before.reason == HOLD:
            del state[serial]
            released.add(serial)
        elif reason in REASONS_AFTER[RevocationReason(before.reason) if before else None]:
            state[serial] = Entry(serial, before.revoked if before else now, reason)
            released.discard(serial)
        crls.append(list(state.values()))
    base = data.draw(st.integers(0, len(crls) - 1))
    delta = crl.delta(crl.pack(crls[base]), crls[-1], released, at=now)
    for full in crls[base:]:
        assert applied(full, delta) == state


def holds(found):
    return [entry for entry in found if entry.reason == HOLD]


@given(lists)
def test_a_delta_of_nothing_new_has_holds_alone(base):
    assert crl.delta(crl.pack(base), base, [], at=NOW) == holds(base)


@given(lists, lists)
def test_a_delta_has_what_changed_and_no_more(base, now):
    delta = crl.delta(crl.pack(base), now, [], at=NOW)
    assert {e for e in delta if e.reason != REMOVE_FROM_CRL} == (set(now) - set(base)).union(holds(now))
    gone = {e.serial for e in base} - {e.serial for e in now}
    assert {e.serial for e in delta if e.reason == REMOVE_FROM_CRL} == gone
