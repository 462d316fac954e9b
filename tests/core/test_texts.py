"""URLs that operators give."""

import pytest

from acme_ca.core.texts import web_address


@pytest.mark.parametrize(
    "text",
    ["https://a.example", "http://a.example:8080/b?c=d#e", "https://[2001:db8::1]/", "https://10.0.0.1/"],
)
def test_an_address_of_the_web(text):
    assert web_address(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a.example", "http or https"),
        ("ftp://a.example/", "http or https"),
        ("https://", "http or https"),
        ("https://a.example:0/", "http or https"),
        ("https://a.example:99999/", "out of range"),
        ("https://[::1/", "Invalid IPv6"),
        ("https://me:secret@a.example/", "leave them out"),
        ("https://a.example/b c", "no spaces"),
        ("https://a.example/>;rel=other", "angle brackets"),
        ("https://a.example/\nX-Header: y", "printable"),
        ("https://a.example/ä", "ASCII"),
    ],
)
def test_none(text, why):
    with pytest.raises(ValueError, match=why):
        web_address(text)
