from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from acme_ca.ca import profiles
from acme_ca.core.model import ExtendedKeyUsage, Profile
from acme_ca.core.problems import ErrorType, Problem

NOW = datetime(2030, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)
SECOND_NOW = NOW.replace(microsecond=0)
ISSUER_END = datetime(2033, 1, 1, tzinfo=UTC)
SERVER = profiles.BUILT_IN["server"]
MAX = SERVER.max_validity


def validity(
    not_before=None, not_after=None, *, now=NOW, issuer_not_after=ISSUER_END
) -> tuple[datetime, datetime]:
    return profiles.validity(
        SERVER, now=now, not_before=not_before, not_after=not_after, issuer_not_after=issuer_not_after
    )


def days(number: float) -> timedelta:
    return timedelta(days=number)


def test_built_in_profiles():
    usages = {name: profile.extended_key_usages for name, profile in profiles.BUILT_IN.items()}
    server, client = ExtendedKeyUsage.SERVER_AUTH, ExtendedKeyUsage.CLIENT_AUTH
    assert usages == {"server": (server,), "client": (client,), "mtls": (server, client)}
    assert all(profile.name == name and profile.version == 1 for name, profile in profiles.BUILT_IN.items())


@pytest.mark.parametrize(
    "spoiled",
    [
        {"validity": SERVER.max_validity + timedelta(days=1)},
        {"min_rsa_bits": 4096, "max_rsa_bits": 2048},
        {"key_algorithms": []},
        {"extended_key_usages": []},
        {"validity": 0},
        {"max_rsa_bits": 16384},
        {"name": "Server"},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_profile_that_cannot_work_is_refused(spoiled):
    assert Profile(**SERVER.model_dump()) == SERVER
    with pytest.raises(ValidationError):
        Profile(**(SERVER.model_dump() | spoiled))


def test_the_default_is_ninety_days_backdated_one_minute():
    begin, end = validity()
    assert begin == SECOND_NOW - timedelta(minutes=1)
    assert end - begin + timedelta(seconds=1) == days(90), "both ends count (RFC 5280 §4.1.2.5)"


def test_the_default_ends_with_the_issuer():
    assert validity(issuer_not_after=SECOND_NOW + days(7))[1] == SECOND_NOW + days(7)


GRANTED = {
    "begin now": (SECOND_NOW, None),
    "begin in a month": (SECOND_NOW + days(30), None),
    "begin two days ago": (SECOND_NOW - days(1.99), None),
    "end in an hour": (None, SECOND_NOW + timedelta(hours=1)),
    "both": (SECOND_NOW, SECOND_NOW + timedelta(hours=36)),
    "longest": (SECOND_NOW, SECOND_NOW + MAX - timedelta(seconds=1)),
    "in another zone": (SECOND_NOW.astimezone(tz=None), None),
}


@pytest.mark.parametrize(("not_before", "not_after"), GRANTED.values(), ids=GRANTED)
def test_wishes_are_met_to_the_second(not_before, not_after):
    begin, end = validity(not_before, not_after)
    assert begin == (not_before or SECOND_NOW - timedelta(minutes=1))
    assert end == (not_after or begin + SERVER.validity - timedelta(seconds=1))


REFUSED = {
    "end is past": (None, SECOND_NOW - days(2), "never be valid"),
    "begin and end are past": (SECOND_NOW - days(1), SECOND_NOW - days(0.5), "in the past"),
    "reversed": (SECOND_NOW + days(3), SECOND_NOW + days(1), "never be valid"),
    "equal": (SECOND_NOW, SECOND_NOW, "never be valid"),
    "a century": (None, SECOND_NOW + days(36500), "longer than the profile"),
    "a second too long": (SECOND_NOW, SECOND_NOW + MAX, "longer than the profile"),
    "begin too early": (SECOND_NOW - days(3), None, "more than 48 hours ago"),
    "begin too late": (SECOND_NOW + days(31), None, "more than 30 days ahead"),
    "fraction in notBefore": (NOW, None, "notBefore has a fraction"),
    "fraction in notAfter": (None, NOW + days(1), "notAfter has a fraction"),
}


@pytest.mark.parametrize(("not_before", "not_after", "why"), REFUSED.values(), ids=REFUSED)
def test_wishes_that_cannot_be_met_are_refused(not_before, not_after, why):
    with pytest.raises(Problem) as refused:
        validity(not_before, not_after)
    assert refused.value.type is ErrorType.MALFORMED
    assert why in refused.value.detail


def test_a_wish_beyond_the_issuer_is_refused_not_clipped():
    with pytest.raises(Problem, match="after the end of the CA's issuing certificate, 2030-06-08T"):
        validity(None, SECOND_NOW + days(8), issuer_not_after=SECOND_NOW + days(7))


def test_an_expired_issuer_gives_nothing():
    with pytest.raises(Problem) as refused:
        validity(issuer_not_after=NOW)
    assert refused.value.type is ErrorType.SERVER_INTERNAL


# around NOW, so that a good share of the wishes can be met
moments = st.integers(-5 * 86400, 500 * 86400).map(lambda seconds: SECOND_NOW + timedelta(seconds=seconds))
wishes = moments | st.none()


@given(wishes, wishes, moments)
def test_what_is_given_is_sound_and_as_wished(not_before, not_after, issuer_end):
    try:
        begin, end = validity(not_before, not_after, issuer_not_after=issuer_end)
    except Problem:
        return
    assert begin < end <= issuer_end
    assert end > NOW
    assert end - begin < MAX
    assert not_before in {None, begin}
    assert not_after in {None, end}
    assert begin.microsecond == end.microsecond == 0
