from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.core import durations

WRITTEN = {
    "90 days": timedelta(days=90),
    "1 day": timedelta(days=1),
    "36hours": timedelta(hours=36),
    "15 minutes": timedelta(minutes=15),
    "2 weeks": timedelta(days=14),
    "2 years": timedelta(days=730),
    "3599 seconds": timedelta(seconds=3599),
    " 7 days ": timedelta(days=7),
}


@pytest.mark.parametrize(("text", "length"), WRITTEN.items())
def test_a_length_of_time(text, length):
    assert durations.parse(text) == length


@pytest.mark.parametrize(
    "value", ["", "90", 90, "days", "-1 days", "1.5 days", "P90D", "9999999 years", "٣ days", None, True]
)
def test_what_is_no_length_of_time(value):
    with pytest.raises(ValueError, match="write a number and a unit"):
        durations.parse(value)


@given(st.integers(0, 999_999 * 86400).map(lambda seconds: timedelta(seconds=seconds)))
def test_what_is_printed_reads_the_same(length):
    text = durations.text(length)
    if int(text.split()[0]) <= 999_999:
        assert durations.parse(text) == length
