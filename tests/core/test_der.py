"""Writing DER: what cryptography reads back."""

import pytest

from acme_ca.core import der


@pytest.mark.parametrize(
    ("length", "head"),
    [(0, "0400"), (127, "047f"), (128, "048180"), (255, "0481ff"), (256, "04820100"), (65536, "0483010000")],
)
def test_lengths_are_as_short_as_can_be(length, head):
    """X.690 §10.1."""
    assert der.tlv(0x04, bytes(length)) == bytes.fromhex(head) + bytes(length)


def test_contents_follow_each_other():
    assert der.tlv(0x30, b"\x05\x00", b"\x02\x01\x07") == bytes.fromhex("30050500020107")
    assert der.tlv(0x30) == b"\x30\x00"


def test_what_is_signed_comes_first():
    assert der.signed(b"\x30\x00", b"\x30\x00", b"\xaa") == bytes.fromhex("30083000 3000 030200aa")
    assert der.signed(b"\x30\x00", b"\x30\x00", b"\xaa", b"\xa0\x00")[-2:] == b"\xa0\x00"
