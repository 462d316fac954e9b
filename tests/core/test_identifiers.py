"""Identifiers: their canonical form, what is refused, and the laws (RFC 8555 §7.1.4, RFC 8738)."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from acme_ca.core import identifiers
from acme_ca.core.identifiers import Identifier, IdentifierType
from acme_ca.core.problems import ErrorType, Problem
from tests.support.problems import tried

ALPHANUMERIC = "abcdefghijklmnopqrstuvwxyz0123456789"


def label() -> st.SearchStrategy[str]:
    plain = st.text(ALPHANUMERIC + "-", min_size=1, max_size=63).filter(
        lambda text: text[0] != "-" != text[-1] and text[2:4] != "--"
    )
    return plain | st.sampled_from(["xn--bcher-kva", "xn--fsqu00a", "xn--strae-oqa"])


@st.composite
def names(draw) -> str:
    labels = [*draw(st.lists(label(), min_size=1, max_size=5)), draw(st.sampled_from(["test", "com", "x-1"]))]
    name = ".".join(labels)
    assume(len(name) <= 253)
    return draw(st.sampled_from(["", "*."])) + name


def spellings(name: str) -> st.SearchStrategy[str]:
    """The same name in other cases."""
    return st.lists(st.booleans(), min_size=len(name), max_size=len(name)).map(
        lambda ups: "".join(c.upper() if up else c for c, up in zip(name, ups, strict=True))
    )


# ---------------------------------------------------------------- laws


@given(names())
def test_parsing_what_was_printed_gives_the_same(name):
    identifier = identifiers.dns(name)
    assert identifiers.parse(identifier.type.value, identifier.value) == identifier
    assert Identifier.from_text(str(identifier)) == identifier
    assert identifiers.parse(*identifier.as_json().values()) == identifier


@given(names())
def test_the_canonical_form_is_a_fixed_point(name):
    once = identifiers.dns(name)
    assert once.value == name
    assert identifiers.dns(once.value).value == once.value


@given(st.data())
def test_case_means_nothing(data):
    name = data.draw(names())
    assert identifiers.dns(data.draw(spellings(name))) == identifiers.dns(name)


def addresses() -> st.SearchStrategy[IPv4Address | IPv6Address]:
    return st.ip_addresses().filter(lambda address: not getattr(address, "ipv4_mapped", None))


@given(addresses())
def test_addresses_have_one_spelling(address):
    identifier = identifiers.ip(str(address))
    assert identifier.address == address
    assert identifiers.parse("ip", identifier.value) == identifier
    assert Identifier.from_text(str(identifier)) == identifier
    assert identifier.base == identifier.value
    assert not identifier.wildcard


@given(st.ip_addresses(v=6))
def test_other_spellings_of_an_address_are_refused(address):
    """RFC 8738 §3: the form of RFC 5952, so that text can be compared."""
    for spelling in {address.exploded, str(address).upper(), f"[{address}]", f"{address}%eth0"} - {
        str(address)
    }:
        with pytest.raises(Problem):
            identifiers.ip(spelling)


ANYTHING = st.text() | st.none() | st.integers() | st.floats() | st.lists(st.text()) | st.binary()
NEARLY_NAMES = st.text(ALPHANUMERIC + ".-*_:/@ \0\n\u00c4\u00df\u3002\uff58%[]", max_size=80) | names().map(
    lambda name: name + "."
)


EXPECTED = {ErrorType.MALFORMED, ErrorType.REJECTED_IDENTIFIER, ErrorType.UNSUPPORTED_IDENTIFIER}


@given(st.sampled_from(["dns", "ip", "DNS", "", "email"]) | ANYTHING, NEARLY_NAMES | ANYTHING)
@example("dns", "a." * 127 + "com")
@example("dns", "xn--" + "a" * 59)
@example("ip", "9" * 5000)
def test_whatever_comes_is_an_identifier_or_a_problem(kind, value):
    """Lesson 24."""
    outcome = tried(identifiers.parse, kind, value)
    if isinstance(outcome, Problem):
        assert outcome.type in EXPECTED
        assert outcome.detail.isprintable()
        assert len(outcome.detail) < 1500
    else:
        assert identifiers.parse(outcome.type, outcome.value) == outcome
        assert outcome.value == outcome.value.lower()


# ---------------------------------------------------------------- what is refused

REFUSED = {
    "empty": "",
    "dot": ".",
    "leading dot": ".a.example.com",
    "doubled dot": "a..example.com",
    "trailing dot": "a.example.com.",
    "space": "a b.example.com",
    "underscore": "a_b.example.com",
    "percent": "a%.example.com",
    "slash": "a/b.example.com",
    "port": "a.example.com:80",
    "user": "a@example.com",
    "URL": "https://example.com",
    "label of 64": "a" * 64 + ".example.com",
    "name of 254": ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 62]),
    "leading hyphen": "-a.example.com",
    "trailing hyphen": "a-.example.com",
    "asterisk alone": "*",
    "asterisk and dot": "*.",
    "asterisk inside": "a.*.example.com",
    "asterisk in part": "a*.example.com",
    "two asterisks": "*.*.example.com",
    "wildcard of a top level": "*.com",
    "umlaut": "b\u00fccher.example.com",
    "ideographic full stop": "a\u3002example.com",
    "Kelvin sign": "\u212aelvin.example.com",
    "dotless i": "\u0131.example.com",
    "NUL": "a\0.example.com",
    "line feed": "a\n.example.com",
    "line feed at the end": "a.example.com\n",
    "quotes": "a'\".example.com",
    "IPv4": "127.0.0.1",
    "number as last label": "a.1",
    "IPv6": "::1",
    "IPv6 in brackets": "[::1]",
    "reserved hyphens": "ab--cd.example.com",
    "A-label of nothing": "xn--.example.com",
    "A-label of plain ASCII": "xn--a-.example.com",
    "A-label that is no Punycode": "xn--999999999.example.com",
    "A-label not in NFC": "xn--u-ccb.example.com",
    "A-label of an upper-case letter": "xn--Bcher-kva8445foa".lower() + ".example.com",
    "A-label of a symbol": "xn--g6h.example.com",
}


@pytest.mark.parametrize("name", REFUSED.values(), ids=REFUSED)
def test_a_name_that_no_certificate_can_hold_is_refused(name):
    with pytest.raises(Problem) as refused:
        identifiers.dns(name)
    assert refused.value.type is ErrorType.REJECTED_IDENTIFIER
    assert refused.value.detail.isprintable()


ACCEPTED = {
    "one label": "localhost",
    "digits": "1.2.3.4.in-addr.arpa",
    "label of 63": "a" * 63 + ".example.com",
    "name of 253": ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61]),
    "A-label": "xn--bcher-kva.example.com",
    "sharp s (IDNA 2008)": "xn--strae-oqa.example.com",
    "wildcard": "*.example.com",
    "wildcard of the longest name": "*." + ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 59]),
    "inner hyphens": "a-b-c.example.com",
}


@pytest.mark.parametrize("name", ACCEPTED.values(), ids=ACCEPTED)
def test_a_proper_name_is_taken(name):
    assert identifiers.dns(name) == Identifier(IdentifierType.DNS, name)


ADDRESSES_REFUSED = {
    "leading zeros": "127.0.0.01",
    "three parts": "127.0.1",
    "number": "2130706433",
    "hexadecimal": "0x7f.0.0.1",
    "prefix": "10.0.0.0/8",
    "port": "10.0.0.1:80",
    "zone": "fe80::1%eth0",
    "brackets": "[::1]",
    "upper case": "2001:DB8::1",
    "long form": "2001:db8:0:0:0:0:0:1",
    "zeros": "2001:0db8::1",
    "space": " 10.0.0.1",
    "IPv4 inside IPv6": "::ffff:a00:1",
    "IPv4 inside IPv6, mixed": "::ffff:10.0.0.1",
    "name": "example.com",
    "other digits": "\uff1127.0.0.1",
    "nothing": "",
}


@pytest.mark.parametrize("text", ADDRESSES_REFUSED.values(), ids=ADDRESSES_REFUSED)
def test_an_address_in_another_form_is_refused(text):
    with pytest.raises(Problem) as refused:
        identifiers.ip(text)
    assert refused.value.type is ErrorType.REJECTED_IDENTIFIER


@pytest.mark.parametrize("text", ["10.0.0.1", "2001:db8::1", "::", "fe80::1:0:0:1"])
def test_a_canonical_address_is_taken(text):
    assert identifiers.ip(text).value == text


@pytest.mark.parametrize(
    ("kind", "value", "error"),
    [
        ("email", "a@example.com", ErrorType.UNSUPPORTED_IDENTIFIER),
        ("DNS", "example.com", ErrorType.UNSUPPORTED_IDENTIFIER),
        ("", "example.com", ErrorType.UNSUPPORTED_IDENTIFIER),
        (None, "example.com", ErrorType.MALFORMED),
        ("dns", 1, ErrorType.MALFORMED),
        ("dns", None, ErrorType.MALFORMED),
        (["dns"], "example.com", ErrorType.MALFORMED),
    ],
)
def test_other_types_are_refused(kind, value, error):
    with pytest.raises(Problem) as refused:
        identifiers.parse(kind, value)
    assert refused.value.type is error


def test_a_wildcard_is_proved_by_the_name_below_it():
    wildcard = identifiers.dns("*.Example.com")
    assert (wildcard.wildcard, wildcard.base) == (True, "example.com")
    assert str(wildcard) == "dns:*.example.com"


def test_a_dns_identifier_has_no_address():
    with pytest.raises(ValueError, match="address"):
        _ = identifiers.dns("example.com").address


def test_a_refusal_repeats_the_name_as_a_literal_and_cut():
    with pytest.raises(Problem) as refused:
        identifiers.dns("\x1b[31m\u202e" + "a" * 500)
    assert "\\x1b[31m\\u202e" in refused.value.detail
    assert len(refused.value.detail) < 300
