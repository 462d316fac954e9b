"""The laws of certificate identifiers (RFC 9773 §4.1)."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.core import base64url
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.renewal import (
    CertId,
    SuggestedWindow,
    parse_cert_id,
    polling_interval,
    suggested_window,
)

KEYS = st.binary(min_size=1, max_size=64)
SERIALS = st.integers(min_value=1, max_value=2**159 - 1)

# The example of RFC 9773 §4.1.
EXAMPLE = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
EXAMPLE_KEY = bytes.fromhex("69885b6b87464041e1b37b847ba0ae2cde01c8d4")
EXAMPLE_SERIAL = 0x87654321


def test_the_example_of_the_rfc():
    cert_id = CertId(authority_key_identifier=EXAMPLE_KEY, serial=EXAMPLE_SERIAL)
    assert str(cert_id) == EXAMPLE
    assert parse_cert_id(EXAMPLE) == cert_id


@given(KEYS, SERIALS)
def test_reading_is_the_inverse_of_writing(key, serial):
    cert_id = CertId(authority_key_identifier=key, serial=serial)
    assert parse_cert_id(str(cert_id)) == cert_id


@given(st.text(alphabet="ABab01-_.=+/ \n", max_size=40) | st.text(max_size=40))
def test_every_text_is_refused_or_the_one_spelling(text):
    try:
        cert_id = parse_cert_id(text)
    except Problem:
        return
    assert str(cert_id) == text


@given(KEYS, SERIALS, st.integers(min_value=1, max_value=3))
def test_leading_zeros_are_another_spelling(key, serial, zeros):
    text = str(CertId(authority_key_identifier=key, serial=serial))
    octets = bytes(zeros) + base64url.decode(text.partition(".")[2], "It")
    with pytest.raises(Problem):
        parse_cert_id(f"{base64url.encode(key)}.{base64url.encode(octets)}")


WRONG = {
    "empty": "",
    "a dot": ".",
    "no serial": "aYhba4dGQEHhs3uEe6CuLN4ByNQ.",
    "no key": ".AIdlQyE",
    "no dot": "aYhba4dGQEHhs3uEe6CuLN4ByNQ",
    "two dots": f"{EXAMPLE}.AA",
    "padding": f"{EXAMPLE}=",
    "negative serial": "aYhba4dGQEHhs3uEe6CuLN4ByNQ.h2VDIQ",
    "zero": "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AA",
    "a serial of 40 octets": f"aYhba4dGQEHhs3uEe6CuLN4ByNQ.{base64url.encode(bytes([1]) * 40)}",
    "a space": f" {EXAMPLE}",
    "NUL": "\0.\0",
    "a lone surrogate": "\ud800.AA",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_what_is_no_identifier_is_malformed(text):
    with pytest.raises(Problem) as caught:
        parse_cert_id(text)
    assert caught.value.type is ErrorType.MALFORMED


# ---------------------------------------------------------------- the window (§4.2)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LIVES = st.timedeltas(min_value=timedelta(minutes=5), max_value=timedelta(days=3650))


@given(SERIALS, LIVES)
def test_the_window_lies_in_the_last_third_and_leaves_a_sixth(serial, life):
    cert_id = CertId(authority_key_identifier=EXAMPLE_KEY, serial=serial)
    window = suggested_window(cert_id, not_before=NOW, not_after=NOW + life)
    second = timedelta(seconds=1)
    assert NOW + life * 2 / 3 - second <= window.start < window.end <= NOW + life * 5 / 6 + second


@given(SERIALS, LIVES, st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=4000)))
def test_with_a_threshold_the_window_is_over_by_then_and_lies_in_the_life(serial, life, threshold):
    cert_id = CertId(authority_key_identifier=EXAMPLE_KEY, serial=serial)
    end = NOW + life
    window = suggested_window(cert_id, not_before=NOW, not_after=end, threshold=threshold)
    second = timedelta(seconds=1)
    assert NOW + life / 6 - second <= window.start < window.end < end
    assert window.end <= end - min(life / 6, timedelta(days=1)), (
        "a client that asks twice a day comes in time"
    )
    if threshold <= life * 2 / 3:
        assert window.end <= end - threshold
        assert window.start >= end - max(2 * threshold, 2 * min(life / 6, timedelta(days=1))) - second


DAYS = timedelta(days=1)
THRESHOLDS = {
    "none": (90, None, (30, 15)),
    "clara_service_auth": (730, 60, (120, 60)),
    "clara_model_signing": (1825, 90, (180, 90)),
    "argus_api": (730, 45, (90, 45)),
    "veritas_pipeline": (365, 30, (60, 30)),
    "a long one: a sixth of the life for all": (90, 50, (65, 50)),
    "too long for the life": (30, 60, (10, 5)),
    "too late for a client's patience": (90, 0.1, (2, 1)),
    "short-lived": (7, 2, (2 + 7 / 6, 2)),
}


@pytest.mark.parametrize(("life", "threshold", "left"), THRESHOLDS.values(), ids=THRESHOLDS)
def test_where_the_windows_of_a_profile_lie(life, threshold, left):
    """Between these numbers of days before the end, and in all of that time."""
    end = NOW + life * DAYS
    windows = [
        suggested_window(
            CertId(authority_key_identifier=EXAMPLE_KEY, serial=serial),
            not_before=NOW,
            not_after=end,
            threshold=None if threshold is None else threshold * DAYS,
        )
        for serial in range(1, 301)
    ]
    longest, shortest = (days * DAYS for days in left)
    span, second = longest - shortest, timedelta(seconds=1)
    assert longest - span / 20 < end - min(window.start for window in windows) <= longest + second
    assert shortest <= end - max(window.end for window in windows) < shortest + span / 20


def test_certificates_made_together_are_not_renewed_together():
    life = timedelta(days=90)
    ids = [CertId(authority_key_identifier=EXAMPLE_KEY, serial=serial) for serial in range(1, 201)]
    starts = {suggested_window(one, not_before=NOW, not_after=NOW + life).start for one in ids}
    assert len(starts) == len(ids)
    assert max(starts) - min(starts) > life / 12 * 0.9


MOVED = SuggestedWindow(start=NOW + DAYS, end=NOW + 3 * DAYS)


@pytest.mark.parametrize("moved", [None, MOVED])
@pytest.mark.parametrize("threshold", [None, 20 * DAYS])
def test_a_revoked_certificates_window_is_the_past(moved, threshold):
    cert_id = CertId(authority_key_identifier=EXAMPLE_KEY, serial=1)
    window = suggested_window(
        cert_id, not_before=NOW, not_after=NOW + 90 * DAYS, threshold=threshold, moved=moved, revoked=NOW
    )
    assert window.start < window.end <= NOW


@pytest.mark.parametrize("threshold", [None, 20 * DAYS])
def test_an_operators_window_is_taken_as_it_is(threshold):
    cert_id = CertId(authority_key_identifier=EXAMPLE_KEY, serial=1)
    window = suggested_window(
        cert_id, not_before=NOW, not_after=NOW + 90 * DAYS, threshold=threshold, moved=MOVED
    )
    assert window == MOVED


@pytest.mark.parametrize(
    ("life", "interval"),
    [
        (timedelta(days=90), timedelta(hours=6)),
        (timedelta(days=7), timedelta(hours=2, minutes=48)),
        (timedelta(minutes=30), timedelta(minutes=1)),
    ],
)
def test_short_lives_are_asked_about_more_often(life, interval):
    assert polling_interval(not_before=NOW, not_after=NOW + life) == interval
