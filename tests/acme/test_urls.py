"""URLs: made from `public_url` alone and read back exactly (lesson 11)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.acme.urls import Urls

URLS = Urls("https://ca.test:8443")
ID = "0123456789abcdef" * 2
ACCOUNT = URLS.account(ID)


@given(st.text("0123456789abcdef", min_size=32, max_size=32))
def test_reading_what_was_written_gives_the_same(account):
    assert URLS.account_id(URLS.account(account)) == account


OTHERS = {
    "another host": ACCOUNT.replace("ca.test", "evil.test"),
    "another host before": ACCOUNT.replace("ca.test", "ca.test.evil.test"),
    "user information": ACCOUNT.replace("ca.test", "ca.test@evil.test"),
    "another port": ACCOUNT.replace("8443", "8444"),
    "no port": ACCOUNT.replace(":8443", ""),
    "http": ACCOUNT.replace("https", "http"),
    "host in other case": ACCOUNT.replace("ca.test", "CA.test"),
    "another directory": ACCOUNT.replace("/acme/", "/acme2/"),
    "another resource": ACCOUNT.replace("/acct/", "/order/"),
    "trailing slash": ACCOUNT + "/",
    "below": ACCOUNT + "/orders",
    "query": ACCOUNT + "?x=1",
    "fragment": ACCOUNT + "#x",
    "line feed": ACCOUNT + "\n",
    "NUL": ACCOUNT + "\0",
    "upper case": URLS.account(ID.upper()),
    "shorter": ACCOUNT[:-1],
    "longer": ACCOUNT + "0",
    "percent": ACCOUNT[:-1] + "%66",
    "dots": ACCOUNT.replace("/acct/", "/x/../acct/"),
    "doubled slash": ACCOUNT.replace("/acct/", "//acct/"),
    "path": ACCOUNT.removeprefix("https://ca.test:8443"),
    "id": ID,
    "space before": " " + ACCOUNT,
    "other digits": ACCOUNT[:-1] + "\u0661",
    "empty": "",
}


@pytest.mark.parametrize("url", OTHERS.values(), ids=OTHERS)
def test_another_text_is_no_account(url):
    assert URLS.account_id(url) is None


@given(st.text())
def test_no_text_but_an_accounts_url_is_one(text):
    found = URLS.account_id(text)
    assert found is None or URLS.account(found) == text


def test_the_host_header_has_no_say():
    """A URL that was requested is `public_url` and the path as it came, undecoded."""
    assert URLS.of_path("/acme/order/%41?x=%20") == "https://ca.test:8443/acme/order/%41?x=%20"
