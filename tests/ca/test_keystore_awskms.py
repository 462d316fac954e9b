import boto3
import pytest

from acme_ca.ca import awskms, keystore
from acme_ca.ca.keystore import KeyKind, KeyUnavailable
from tests.support.keystores import NOWHERE, RemoteStoreContract, assert_signs, refusal
from tests.support.moto import REGION, AwsKms


@pytest.fixture(scope="module")
def store():
    with pytest.MonkeyPatch.context() as environment:
        aws = AwsKms(environment)
        yield aws
        aws.go_away()


@pytest.fixture
def kms(store):
    return boto3.client("kms", region_name=REGION, endpoint_url=store.endpoint)


class TestAwsKms(RemoteStoreContract):
    pass


def test_a_key_is_kept_by_its_arn(store):
    uri, _ = store.create("kept")
    assert uri.startswith(f"awskms:///arn:aws:kms:{REGION}:")
    assert uri.endswith(f"?endpoint={store.endpoint}")


def test_a_key_is_opened_by_its_alias(store):
    _, key = store.create("group/named")
    opened = store.open(store.uri("group/named"))
    assert opened.public_key() == key.public_key()
    assert_signs(opened)


def test_an_alias_that_is_moved_leaves_an_open_key_alone(store, kms):
    store.create("moved")
    opened = store.open(store.uri("moved"))
    another = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    kms.update_alias(AliasName="alias/moved", TargetKeyId=another)
    assert_signs(opened)


def test_a_key_for_something_else(store, kms):
    key_id = kms.create_key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")["KeyMetadata"]["Arn"]
    assert "AWS KMS refuses (" in refusal(lambda: store.open(f"awskms:///{key_id}?endpoint={store.endpoint}"))


def test_another_curve(store, kms):
    arn = kms.create_key(KeySpec="ECC_NIST_P521", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    sentence = refusal(lambda: store.open(f"awskms:///{arn}?endpoint={store.endpoint}"))
    assert "neither an EC key on P-256" in sentence


def test_no_region(store):
    assert "?region=" in refusal(lambda: store.open(f"awskms:///alias/x?endpoint={store.endpoint}"))


def test_no_credentials(store, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    assert "NoCredentialsError" in refusal(lambda: store.open(store.uri("x")))


def test_a_key_is_made_under_an_alias_only(store):
    uri = f"awskms:///1234abcd?region={REGION}&endpoint={store.endpoint}"
    sentence = refusal(lambda: keystore.create_key(uri, KeyKind.EC_P256, directory=NOWHERE, password=b""))
    assert "names its alias" in sentence


def test_a_service_that_says_nothing(store, silent, monkeypatch):
    """Connected, and no answer: the client's own limits end it."""
    monkeypatch.setattr(awskms, "READ_SECONDS", 0.1)
    uri = f"awskms:///alias/x?region={REGION}&endpoint={silent}"
    with pytest.raises(KeyUnavailable, match="ReadTimeoutError"):
        store.open(uri)


MALFORMED = {
    "no slashes": "awskms:alias/x",
    "a host": "awskms://host/alias/x",
    "no name": "awskms:///",
    "a strange letter": "awskms:///alias/$x",
    "an unknown parameter": "awskms:///alias/x?secret=1234",
    "two regions": "awskms:///alias/x?region=a&region=b",
    "no region": "awskms:///alias/x?region=",
    "an endpoint that is none": "awskms:///alias/x?endpoint=localhost",
    "an endpoint with a password": "awskms:///alias/x?endpoint=http://me:1234@localhost",
}


@pytest.mark.parametrize("uri", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_uri(uri):
    sentence = refusal(lambda: keystore.open_key(uri, directory=NOWHERE, password=b""))
    assert "of the form awskms:///alias/NAME?region=REGION" in sentence
    assert "1234" not in sentence
