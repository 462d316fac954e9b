"""Against a stand-in for the service: see tests/support/keyservices.py."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from acme_ca.ca import azurekeyvault, keystore
from acme_ca.ca.keystore import KeyKind, KeyUnavailable
from tests.support.keyservices import AzureKeyVault
from tests.support.keystores import NOWHERE, RemoteStoreContract, assert_signs, refusal, sign


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with pytest.MonkeyPatch.context() as environment:
        vault = AzureKeyVault(tmp_path_factory.mktemp("azure"), environment)
        yield vault
        vault.go_away()


class TestAzureKeyVault(RemoteStoreContract):
    pass


def test_a_key_is_kept_by_its_version(store):
    uri, key = store.create("versioned")
    assert uri.startswith(store.uri("versioned").partition("?")[0] + "/")
    assert "protection" not in uri
    newer = store.keys[f"versioned/{'f' * 32}"] = ec.generate_private_key(ec.SECP256R1())
    assert store.open(uri).public_key() == key.public_key()
    assert store.open(store.uri("versioned")).public_key() == newer.public_key()
    assert_signs(key)


def test_a_key_may_take_longer_than_a_signature_and_is_made_once(store, monkeypatch):
    """As an RSA key in an HSM does."""
    monkeypatch.setattr(azurekeyvault, "READ_SECONDS", 0.5)
    monkeypatch.setattr(store, "seconds_for_a_key", 1.5)
    _, key = store.create("patience")
    assert_signs(key)
    assert len([one for one in store.keys if one.startswith("patience/")]) == 1


@pytest.mark.parametrize(
    ("status", "error"), [(500, KeyUnavailable), (503, KeyUnavailable), (429, KeyUnavailable)]
)
def test_a_service_in_trouble(store, status, error):
    _, key = store.create(f"trouble-{status}")
    store.refuse_with = status
    with pytest.raises(error, match=f"status {status}"):
        sign(key)
    store.refuse_with = None
    assert_signs(key)


def test_a_permission_that_is_missing(store):
    store.refuse_with = 403
    sentence = refusal(lambda: store.open(store.uri("any")))
    store.refuse_with = None
    assert "the vault refuses (status 403)" in sentence


def test_an_unsuitable_key(store):
    store.keys["exotic/0"] = ec.generate_private_key(ec.SECP521R1())
    assert "neither an EC key on P-256" in refusal(lambda: store.open(store.uri("exotic")))


def test_a_new_key_has_no_version_yet(store):
    uri = store.uri("new").replace("?", "/0123?")
    sentence = refusal(lambda: keystore.create_key(uri, KeyKind.EC_P256, directory=NOWHERE, password=b""))
    assert "has no version" in sentence


def test_a_vault_that_says_nothing(store, silent, monkeypatch):
    monkeypatch.setattr(azurekeyvault, "READ_SECONDS", 0.1)
    monkeypatch.setattr(azurekeyvault, "CONNECT_SECONDS", 0.1)
    with pytest.raises(KeyUnavailable, match="is away"):
        store.open(f"azurekeyvault://{silent.removeprefix('http://')}/keys/any")


MALFORMED = {
    "no slashes": "azurekeyvault:host/keys/x",
    "no keys": "azurekeyvault://host/x",
    "no name": "azurekeyvault://host/keys/",
    "a secret": "azurekeyvault://host/secrets/x",
    "a password": "azurekeyvault://me:1234@host/keys/x",
    "a fragment": "azurekeyvault://host/keys/x#1234",
    "an unknown protection": "azurekeyvault://host/keys/x?protection=none",
}


@pytest.mark.parametrize("uri", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_uri(uri):
    sentence = refusal(lambda: keystore.open_key(uri, directory=NOWHERE, password=b""))
    assert "of the form azurekeyvault://HOST/keys/NAME/VERSION" in sentence
    assert "1234" not in sentence
