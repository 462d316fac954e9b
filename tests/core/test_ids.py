"""Ids, and serial numbers as people write them."""

import pytest

from acme_ca.core.ids import read_serial


@pytest.mark.parametrize(
    ("text", "serial"),
    [
        ("0" * 31 + "1", "0" * 31 + "1"),
        ("1", "0" * 31 + "1"),
        ("0x1F", "0" * 30 + "1f"),
        ("AB:CD:" + "00:" * 13 + "01", "abcd" + "00" * 13 + "01"),
        (" 00" + "f" * 32 + "\n", "f" * 32),
        ("1" + "f" * 32, None),
        ("", None),
        ("0x", None),
        ("x", None),
        ("-1", None),
        ("1_0", None),
        ("\u0661", None),
    ],
)
def test_serial_numbers_as_people_write_them(text, serial):
    assert read_serial(text) == serial
