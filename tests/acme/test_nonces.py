"""Nonces: authentic, of this epoch, not too old (RFC 8555 §6.5). That each is spent once: tests/storage."""

import os
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.acme.nonces import Nonces
from acme_ca.core.problems import ErrorType, Problem
from tests.support.jose import base64url, from_base64url
from tests.support.problems import tried

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LIFETIME = 3600


def nonces(*, secret: bytes = b"secret", epoch: int = 7, now: datetime = NOW) -> Nonces:
    return Nonces(secret=secret, epoch=epoch, lifetime=LIFETIME, clock=lambda: now, random_bytes=os.urandom)


@given(st.binary(min_size=8, max_size=8), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**31))
def test_what_was_minted_checks(value, epoch, now):
    clock = datetime.fromtimestamp(now, UTC)
    ours = Nonces(
        secret=b"s", epoch=epoch, lifetime=LIFETIME, clock=lambda: clock, random_bytes=lambda _: value
    )
    spent = ours.check(ours.mint())
    assert (spent.value, spent.expires, spent.epoch) == (
        int.from_bytes(value, signed=True),
        now + LIFETIME,
        epoch,
    )


def test_nonces_are_different_and_long():
    """RFC 8555 §6.5: "at least as hard to guess as" 128 random bits: the MAC is as long."""
    minted = {nonces().mint() for _ in range(1000)}
    assert len(minted) == 1000
    assert {len(from_base64url(nonce)) for nonce in minted} == {36}


def test_every_flipped_bit_is_refused():
    nonce = from_base64url(nonces().mint())
    for place in range(len(nonce) * 8):
        flipped = bytearray(nonce)
        flipped[place // 8] ^= 1 << place % 8
        assert tried(nonces().check, base64url(bytes(flipped))).type is ErrorType.BAD_NONCE


@pytest.mark.parametrize("length", [*range(36), 37, 40, 1000])
def test_every_other_length_is_refused(length):
    nonce = (from_base64url(nonces().mint()) + bytes(1000))[:length]
    assert tried(nonces().check, base64url(nonce)).type is ErrorType.BAD_NONCE


def test_a_nonce_dies_of_age_to_the_second():
    nonce = nonces().mint()
    nonces(now=NOW + timedelta(seconds=LIFETIME)).check(nonce)
    with pytest.raises(Problem, match="expired"):
        nonces(now=NOW + timedelta(seconds=LIFETIME + 1)).check(nonce)


def test_a_nonce_of_another_secret_is_refused():
    with pytest.raises(Problem, match="not issued by this server"):
        nonces(secret=b"other").check(nonces().mint())


def test_the_epoch_is_the_databases_to_judge():
    assert nonces(epoch=8).check(nonces(epoch=7).mint()).epoch == 7


@pytest.mark.parametrize("value", [None, 1, [], {}, True, b"", ""])
def test_no_nonce_is_a_bad_nonce(value):
    with pytest.raises(Problem) as refused:
        nonces().check(value)
    assert refused.value.type is ErrorType.BAD_NONCE


@pytest.mark.parametrize("value", ["a+b/", "AAAA====", "not base64url!", "\u00e9\u00e9\u00e9\u00e9", "A"])
def test_text_that_is_not_base64url_is_malformed(value):
    """RFC 8555 §6.5.2."""
    with pytest.raises(Problem) as refused:
        nonces().check(value)
    assert refused.value.type is ErrorType.MALFORMED


@given(st.text() | st.binary() | st.integers() | st.lists(st.text()))
def test_nothing_made_up_is_taken(value):
    assert isinstance(tried(nonces().check, value), Problem)
