import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.ca.constraints import EVERY_ADDRESS, NameConstraints
from acme_ca.ca.issuers import IssuerError
from tests.support.authorities import a_root, below
from tests.support.issuing import names


def parsed(*permitted: str, excluded: tuple[str, ...] = ()) -> NameConstraints:
    constraints = NameConstraints.parse(permitted, excluded)
    assert constraints is not None
    return constraints


def test_none_are_none():
    assert NameConstraints.parse([]) is None


@pytest.mark.parametrize(
    ("constraints", "permitted", "excluded"),
    [
        (parsed("vcc.internal"), ("vcc.internal",), EVERY_ADDRESS),
        (parsed("10.0.0.0/8"), (ipaddress.ip_network("10.0.0.0/8"), "none.invalid"), ()),
        (parsed("a.test", "fd00::/8"), ("a.test", ipaddress.ip_network("fd00::/8")), ()),
        (parsed("a.test", excluded=("10.0.0.0/8",)), ("a.test",), EVERY_ADDRESS),
        (parsed(excluded=("vcc.internal",)), (), ("vcc.internal",)),
    ],
)
def test_what_is_permitted_of_one_kind_excludes_the_other(constraints, permitted, excluded):
    assert (constraints.permitted, constraints.excluded) == (permitted, excluded)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("*.vcc.internal", "vcc.internal means it and all names below"),
        ("10.0.0.1/8", "no network"),
        ("10.0.0.0/33", "no network"),
        ("vcc..internal", "empty label"),
        ("", "empty label"),
        (".vcc.internal", "empty label"),
        ("bücher.example", "A-label"),
    ],
)
def test_what_is_no_name_constraint(text, says):
    with pytest.raises(IssuerError, match=says):
        NameConstraints.parse([text])


PERMITTED = [
    (parsed("vcc.internal"), "vcc.internal", True),
    (parsed("vcc.internal"), "a.b.vcc.internal", True),
    (parsed("vcc.internal"), "*.vcc.internal", True),
    (parsed("vcc.internal"), "xvcc.internal", False),
    (parsed("vcc.internal"), "internal", False),
    (parsed("vcc.internal"), "*.other.internal", False),
    (parsed("vcc.internal"), "10.0.0.1", False),
    (parsed("vcc.internal"), "fd00::1", False),
    (parsed("a.vcc.internal"), "*.vcc.internal", False),
    (parsed("vcc.internal", "other.test"), "x.other.test", True),
    (parsed("vcc.internal", excluded=("secret.vcc.internal",)), "a.secret.vcc.internal", False),
    (parsed("vcc.internal", excluded=("secret.vcc.internal",)), "secret.vcc.internal", False),
    (parsed("vcc.internal", excluded=("secret.vcc.internal",)), "*.vcc.internal", False),
    (parsed("vcc.internal", excluded=("secret.vcc.internal",)), "open.vcc.internal", True),
    (parsed("10.0.0.0/8"), "10.255.0.1", True),
    (parsed("10.0.0.0/8"), "11.0.0.1", False),
    (parsed("10.0.0.0/8"), "fd00::1", False),
    (parsed("10.0.0.0/8"), "vcc.internal", False),
    (parsed("fd00::/8"), "fd12::1", True),
    (parsed("10.0.0.7"), "10.0.0.7", True),
    (parsed("10.0.0.7"), "10.0.0.8", False),
    (parsed(excluded=("10.0.0.0/8",)), "10.0.0.1", False),
    (parsed(excluded=("10.0.0.0/8",)), "vcc.internal", True),
    (NameConstraints(permitted=("vcc.internal",)), "192.0.2.1", True),
]


@pytest.mark.parametrize(("constraints", "name", "permitted"), PERMITTED)
def test_what_is_permitted(constraints, name, permitted):
    (identifier,) = names(name)
    assert constraints.permits(identifier) is permitted


@pytest.mark.parametrize(
    ("inner", "outer", "beyond"),
    [
        (parsed("a.vcc.internal"), parsed("vcc.internal"), None),
        (parsed("vcc.internal"), parsed("a.vcc.internal"), "vcc.internal"),
        (parsed("vcc.internal", "10.0.0.0/8"), parsed("vcc.internal"), ipaddress.ip_network("10.0.0.0/8")),
        (parsed("10.1.0.0/16"), parsed("10.0.0.0/8"), None),
        (parsed("10.0.0.0/7"), parsed("10.0.0.0/8"), ipaddress.ip_network("10.0.0.0/7")),
        (parsed("a.secret.test"), parsed("test", excluded=("secret.test",)), "a.secret.test"),
        (parsed(excluded=("test",)), parsed("vcc.internal"), None),
    ],
)
def test_what_goes_beyond(inner, outer, beyond):
    assert inner.beyond(outer) == beyond


LABELS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=10)
DOMAINS = st.lists(LABELS.map(lambda label: "x" + label), min_size=1, max_size=4).map(".".join)
NETWORKS = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), st.tuples(st.ip_addresses(v=6), st.integers(0, 128))
).map(lambda pair: str(ipaddress.ip_network(pair, strict=False)))
TEXTS = st.lists(st.one_of(DOMAINS, NETWORKS), max_size=3)


@given(permitted=TEXTS, excluded=TEXTS)
def test_what_is_written_is_what_is_read(permitted, excluded):
    constraints = NameConstraints.parse(permitted, excluded)
    made = below(a_root(), name_constraints=constraints).certificate
    assert NameConstraints.of(made) == constraints
