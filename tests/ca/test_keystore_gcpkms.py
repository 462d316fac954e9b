"""Against a stand-in for the service: see tests/support/keyservices.py."""

import pytest

from acme_ca.ca import gcpkms, keystore
from acme_ca.ca.keystore import KeyKind, KeyUnavailable
from tests.support.issuing import EC_KEY
from tests.support.keyservices import RING, GoogleCloudKms
from tests.support.keystores import NOWHERE, RemoteStoreContract, assert_signs, refusal, sign


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with pytest.MonkeyPatch.context() as environment:
        kms = GoogleCloudKms(tmp_path_factory.mktemp("google"), environment)
        yield kms
        kms.go_away()


class TestGcpKms(RemoteStoreContract):
    pass


def test_a_key_is_kept_by_its_version(store):
    uri, _ = store.create("versioned")
    assert uri == store.existing("versioned")


def test_a_key_that_is_still_being_generated(store):
    store.generating = 2
    assert_signs(store.create("slow")[1])
    assert store.generating == 0


def test_a_key_may_take_longer_than_a_signature_and_is_made_once(store, monkeypatch):
    monkeypatch.setattr(gcpkms, "READ_SECONDS", 0.5)
    monkeypatch.setattr(store, "seconds_for_a_key", 1.5)
    assert_signs(store.create("patience")[1])


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_service_in_trouble(store, status):
    _, key = store.create(f"trouble-{status}")
    store.refuse_with = status
    with pytest.raises(KeyUnavailable, match="is not reached"):
        sign(key)
    store.refuse_with = None
    assert_signs(key)


def test_a_permission_that_is_missing(store):
    store.refuse_with = 403
    sentence = refusal(lambda: store.open(store.existing("any")))
    store.refuse_with = None
    assert "Google Cloud KMS refuses (status 403)" in sentence


@pytest.mark.parametrize(
    "algorithm", ["EC_SIGN_SECP256K1_SHA256", "RSA_SIGN_PSS_2048_SHA256", "RSA_DECRYPT_OAEP_2048_SHA256"]
)
def test_an_unsuitable_key(store, algorithm):
    store.put(f"{RING}/cryptoKeys/exotic/cryptoKeyVersions/1", EC_KEY, algorithm)
    assert "is no key to sign with ECDSA" in refusal(lambda: store.open(store.existing("exotic")))


def test_a_key_needs_its_version(store):
    assert "ends with its version" in refusal(lambda: store.open(store.uri("any")))


def test_a_new_key_has_no_version_yet(store):
    def create():
        keystore.create_key(store.existing("new"), KeyKind.EC_P256, directory=NOWHERE, password=b"")

    assert "ends with its name" in refusal(create)


def test_no_credentials(store, monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    assert "no credentials are found" in refusal(lambda: store.open(store.existing("any")))


def test_a_service_that_says_nothing(store, silent, monkeypatch):
    monkeypatch.setattr(gcpkms, "READ_SECONDS", 0.1)
    with pytest.raises(KeyUnavailable, match="is not reached"):
        store.open(store.existing("any").replace(store.endpoint, silent))


MALFORMED = {
    "a slash too many": "gcpkms:///projects/p/locations/l/keyRings/r/cryptoKeys/k",
    "no ring": "gcpkms:projects/p/locations/l/cryptoKeys/k",
    "no name": f"gcpkms:{RING}/cryptoKeys/",
    "a version that is no number": f"gcpkms:{RING}/cryptoKeys/k/cryptoKeyVersions/new",
    "an unknown parameter": f"gcpkms:{RING}/cryptoKeys/k?secret=1234",
}


@pytest.mark.parametrize("uri", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_uri(uri):
    sentence = refusal(lambda: keystore.open_key(uri, directory=NOWHERE, password=b""))
    assert "of the form gcpkms:projects/" in sentence
    assert "1234" not in sentence
