"""EAB keys: what state one is in, and what its accounts may do."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from acme_ca.core.codes import Code
from acme_ca.core.eab import UNRESTRICTED, EabKey, EabKeyState, Restrictions
from acme_ca.core.ids import EabKeyId
from acme_ca.core.problems import ErrorType, Problem

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)
KEY = EabKey(id=EabKeyId("kid"), hmac_key=bytes(32), owner="o", created=NOW, approved=NOW)


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, EabKeyState.ACTIVE),
        ({"approved": None}, EabKeyState.PENDING),
        ({"expires": LATER}, EabKeyState.ACTIVE),
        ({"expires": NOW}, EabKeyState.EXPIRED),
        ({"max_accounts": 2, "accounts": 1}, EabKeyState.ACTIVE),
        ({"max_accounts": 2, "accounts": 2}, EabKeyState.USED_UP),
        ({"expires": NOW, "max_accounts": 1, "accounts": 1}, EabKeyState.EXPIRED),
        ({"revoked": NOW, "approved": None, "expires": NOW}, EabKeyState.REVOKED),
    ],
)
def test_the_state_of_a_key(fields, state):
    assert replace(KEY, **fields).state(NOW) is state


def test_the_secret_is_not_shown():
    assert "hmac" not in repr(KEY)


@pytest.mark.parametrize(
    ("client", "may"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::1", True),
        ("11.0.0.1", False),
        ("::1", False),
        ("", False),
        ("10.1.2.3:443", False),
    ],
)
def test_requests_come_from_the_networks_that_are_named(client, may):
    """What is no address is in none of them."""
    restrictions = Restrictions(source_networks=("10.0.0.0/8", "2001:db8::/32"))
    UNRESTRICTED.check_source(client)
    if may:
        restrictions.check_source(client)
        return
    with pytest.raises(Problem) as refused:
        restrictions.check_source(client)
    assert (refused.value.type, refused.value.code) == (ErrorType.UNAUTHORIZED, Code.SOURCE_NOT_ALLOWED)


def test_orders_are_for_the_profiles_that_are_named():
    restrictions = Restrictions(profiles=("server", "client"))
    UNRESTRICTED.check_profile("device")
    restrictions.check_profile("client")
    with pytest.raises(Problem, match="server, client") as refused:
        restrictions.check_profile("device")
    assert (refused.value.type, refused.value.code) == (ErrorType.INVALID_PROFILE, Code.PROFILE_NOT_ALLOWED)
