import os
import stat
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from acme_ca.ca import keystore
from acme_ca.ca.keystore import KeyKind, KeyStoreError
from tests.support.issuing import EC_KEY
from tests.support.keystores import assert_is_of_kind, assert_signs

PASSWORD = b"correct horse"


def pem(key, encryption) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    ("kind", "type_", "bits"),
    [
        (KeyKind.EC_P256, ec.EllipticCurvePrivateKey, 256),
        (KeyKind.EC_P384, ec.EllipticCurvePrivateKey, 384),
        (KeyKind.RSA_2048, rsa.RSAPrivateKey, 2048),
        (KeyKind.RSA_4096, rsa.RSAPrivateKey, 4096),
    ],
)
def test_generate(kind, type_, bits):
    key = keystore.generate(kind)
    assert isinstance(key, type_)
    assert key.key_size == bits


def test_a_saved_key_can_be_loaded(tmp_path):
    keystore.save(tmp_path / "a.key", EC_KEY, PASSWORD)
    assert keystore.load(tmp_path / "a.key", PASSWORD).private_numbers() == EC_KEY.private_numbers()


def test_a_saved_key_is_private_and_encrypted_with_aes_256(tmp_path):
    path = tmp_path / "a.key"
    previous = os.umask(0)
    try:
        keystore.save(path, EC_KEY, PASSWORD)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    structure = subprocess.run(
        ["openssl", "asn1parse", "-in", path], capture_output=True, text=True, check=True
    ).stdout
    assert "aes-256-cbc" in structure


def test_save_never_overwrites(tmp_path):
    path = tmp_path / "a.key"
    path.write_text("precious")
    with pytest.raises(KeyStoreError, match="exists"):
        keystore.save(path, EC_KEY, PASSWORD)
    assert path.read_text() == "precious"


def test_save_needs_a_password(tmp_path):
    with pytest.raises(KeyStoreError, match="password is empty"):
        keystore.save(tmp_path / "a.key", EC_KEY, b"")
    assert not list(tmp_path.iterdir())


ENCRYPTED = pem(EC_KEY, BestAvailableEncryption(PASSWORD))
UNREADABLE = {
    "empty": (b"", PASSWORD, "is no PEM file"),
    "not PEM": (b"hello", PASSWORD, "is no PEM file"),
    "not encrypted": (pem(EC_KEY, NoEncryption()), PASSWORD, "is not encrypted"),
    "not encrypted, no password": (pem(EC_KEY, NoEncryption()), b"", "is not encrypted"),
    "wrong password": (ENCRYPTED, b"wrong", "the password is wrong or the file is damaged"),
    "no password": (ENCRYPTED, b"", "no password is given"),
    "cut": (ENCRYPTED[:100], PASSWORD, "the password is wrong or the file is damaged"),
    "Ed25519": (
        pem(ed25519.Ed25519PrivateKey.generate(), BestAvailableEncryption(PASSWORD)),
        PASSWORD,
        "neither an EC nor an RSA key",
    ),
}


@pytest.mark.parametrize(("content", "password", "why"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_key_that_cannot_be_loaded(tmp_path, content, password, why):
    path = tmp_path / "a.key"
    path.touch(mode=0o600)
    path.write_bytes(content)
    assert_refused(path, password, why)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_open_to_others_is_refused(tmp_path, mode):
    path = tmp_path / "a.key"
    keystore.save(path, EC_KEY, PASSWORD)
    path.chmod(mode)
    assert_refused(path, PASSWORD, "open to other users")


def test_a_missing_key(tmp_path):
    assert_refused(tmp_path / "none.key", PASSWORD, "cannot be read: No such file")


def test_a_folder_is_no_key(tmp_path):
    assert_refused(tmp_path, PASSWORD, "cannot be read: Is a directory")


def assert_refused(path, password: bytes, why: str) -> None:
    with pytest.raises(KeyStoreError) as refused:
        keystore.load(path, password)
    sentence = str(refused.value)
    assert str(path) in sentence
    assert why in sentence
    assert "correct horse" not in sentence


# ---------------------------------------------------------------- by URI


@pytest.mark.parametrize("kind", [KeyKind.EC_P256, KeyKind.EC_P384, KeyKind.RSA_2048])
def test_a_key_is_created_and_opened_by_its_uri(tmp_path, kind):
    uri, created = keystore.create_key("file:a.key", kind, directory=tmp_path, password=PASSWORD)
    opened = keystore.open_key(uri, directory=tmp_path, password=PASSWORD)
    assert uri == "file:a.key"
    assert (tmp_path / "a.key").is_file()
    assert opened.public_key() == created.public_key()
    assert_is_of_kind(opened, kind)
    assert_signs(opened)
    assert not keystore.may_block(opened)


@pytest.mark.parametrize("form", ["file:{}", "file://{}"])
def test_an_absolute_name(tmp_path, form):
    keystore.save(tmp_path / "a key", EC_KEY, PASSWORD)
    uri = form.format(str(tmp_path / "a%20key"))
    assert keystore.open_key(uri, directory=tmp_path / "elsewhere", password=PASSWORD)


def test_creating_never_takes_another_keys_place(tmp_path):
    keystore.create_key("file:a.key", KeyKind.EC_P256, directory=tmp_path, password=PASSWORD)
    before = (tmp_path / "a.key").read_bytes()
    with pytest.raises(KeyStoreError, match="exists"):
        keystore.create_key("file:a.key", KeyKind.EC_P256, directory=tmp_path, password=PASSWORD)
    assert (tmp_path / "a.key").read_bytes() == before


BAD_URIS = {
    "empty": ("", "malformed"),
    "no scheme": ("intermediate.key", "malformed"),
    "nothing after the scheme": ("file:", "malformed"),
    "a space": ("file:a key", "malformed"),
    "not ASCII": ("file:ä", "malformed"),
    "endless": ("file:" + "a" * 5000, "malformed"),
    "a folder": ("file:/", "malformed"),
    "a host": ("file://host/a.key", "malformed"),
    "an octet that no name has": ("file:a%00b", "malformed"),
    "unknown": ("tpm:key", "There is no key store tpm:"),
    "the scheme in capitals": ("FILE:a.key", "malformed"),
}


@pytest.mark.parametrize(("uri", "why"), BAD_URIS.values(), ids=BAD_URIS)
def test_a_bad_uri_is_told_in_a_sentence(tmp_path, uri, why):
    for act in (
        lambda: keystore.open_key(uri, directory=tmp_path, password=PASSWORD),
        lambda: keystore.create_key(uri, KeyKind.EC_P256, directory=tmp_path, password=PASSWORD),
    ):
        with pytest.raises(KeyStoreError, match=why) as refused:
            act()
        assert "\n" not in str(refused.value)


EXTRAS = {
    "pkcs11": ("pkcs11", "pkcs11:token=t;object=o?module-path=/m.so"),
    "aws": ("boto3", "awskms:///alias/x"),
    "azure": ("azure.keyvault.keys", "azurekeyvault://host/keys/x"),
    "gcp": ("google.cloud.kms_v1", "gcpkms:projects/p"),
}


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_missing_extra_says_what_to_install(extra):
    """In a process of its own, in which the library cannot be imported."""
    library, uri = EXTRAS[extra]
    script = f"""
import sys
from pathlib import Path
sys.modules["{library}"] = None
from acme_ca.ca import keystore
try:
    keystore.open_key("{uri}", directory=Path("/"), password=b"")
except keystore.KeyStoreError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    scheme = uri.partition(":")[0]
    assert said.stdout == (
        f'Keys in {scheme}: need more software; install it with: pip install "acme-ca[{extra}]".\n'
    )


def test_no_library_is_imported_before_it_is_needed():
    libraries = ", ".join(f'"{library}"' for library, _ in EXTRAS.values())
    script = (
        f"import sys; from acme_ca import app, cli; print([x for x in ({libraries}) if x in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_that_root_makes_belongs_to_the_owner_of_the_folder(tmp_path):
    """Who runs `sudo acme-ca ca create-intermediate` makes a key that the server can read."""
    os.chown(tmp_path, 1234, 1234)
    keystore.save(tmp_path / "a.key", keystore.generate(KeyKind.EC_P256), b"password")
    found = (tmp_path / "a.key").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 1234, 0o600)
