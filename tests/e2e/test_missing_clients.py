"""A client that is not installed: a reason for a person, or a failure where all of them must be there."""

import pytest

from tests.support.clients import find


@pytest.fixture(autouse=True)
def _nothing_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.parametrize(
    "client",
    [
        "certbot",
        "lego",
        "openssl",
        "curl",
        "setpriv",
        "certtool",
        "ocsptool",
        "java",
        "javac",
        "age",
        "age-keygen",
    ],
)
def test_is_skipped_and_the_reason_says_how_to_get_it(monkeypatch, client):
    monkeypatch.delenv("ACME_CA_REQUIRE_CLIENTS", raising=False)
    with pytest.raises(pytest.skip.Exception, match=f"{client} is not installed: .* install"):
        find(client)


def test_fails_where_all_must_be_there(monkeypatch):
    monkeypatch.setenv("ACME_CA_REQUIRE_CLIENTS", "1")
    with pytest.raises(pytest.fail.Exception, match="lego is not installed"):
        find("lego")
