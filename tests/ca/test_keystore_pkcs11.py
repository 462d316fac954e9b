import subprocess
import sys
from concurrent.futures import Future
from threading import Event
from types import SimpleNamespace

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, ObjectClass, TokenFlag

from acme_ca.ca import keystore, pkcs11uri
from acme_ca.ca import pkcs11 as pkcs11_store
from acme_ca.ca.keystore import KeyKind, KeyStoreError, KeyUnavailable
from tests.support.issuing import EC_KEY
from tests.support.keystores import RemoteStoreContract, assert_signs, refusal, sign
from tests.support.softhsm import MODULE, PIN, SoftHsm


@pytest.fixture
def store(tmp_path, monkeypatch) -> SoftHsm:
    return SoftHsm(tmp_path, monkeypatch)


class TestPkcs11(RemoteStoreContract):
    pass


def private_objects(store) -> list:
    """As another session sees them: the one that the key has is logged in."""
    session = pkcs11.lib(str(MODULE)).get_token(token_label=store.token).open()
    found = list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))
    facts = [{name: key[name] for name in (Attribute.LABEL, *FACTS)} for key in found]
    session.close()
    return facts


FACTS = {
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.PRIVATE: True,
    Attribute.SIGN: True,
    Attribute.DECRYPT: False,
    Attribute.UNWRAP: False,
}


@pytest.mark.parametrize("kind", [KeyKind.EC_P256, KeyKind.RSA_2048])
def test_a_key_is_made_inside_and_cannot_leave(store, kind):
    store.create("inside", kind)
    assert private_objects(store) == [{Attribute.LABEL: "inside", **FACTS}]
    session = pkcs11.lib(str(MODULE)).get_token(token_label=store.token).open()
    (key,) = session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
    assert key[Attribute.NEVER_EXTRACTABLE]
    assert key[Attribute.ALWAYS_SENSITIVE]
    with pytest.raises(pkcs11.AttributeSensitive):
        key[Attribute.VALUE if kind is KeyKind.EC_P256 else Attribute.PRIVATE_EXPONENT]
    session.close()


def test_the_uri_to_keep_has_an_id(store):
    uri, key = store.create("a key")
    assert uri.startswith(store.uri("a key").partition("?")[0] + ";id=%")
    assert store.open(uri).public_key() == key.public_key()


# ---------------------------------------------------------------- the PIN


def test_a_pin_in_the_uri_opens_and_is_not_kept(store, tmp_path):
    store.create("key")
    told = store.uri("key", pin_value=PIN)
    assert_signs(keystore.open_key(told, directory=tmp_path, password=b""))
    sentence = refusal(
        lambda: keystore.create_key(told, KeyKind.EC_P256, directory=tmp_path, password=store.password)
    )
    assert "must have no PIN" in sentence
    assert PIN not in sentence


def test_the_pin_in_a_file(store, tmp_path):
    source = tmp_path / "the pin"
    source.touch(mode=0o600)
    source.write_text(PIN + "\nwritten by the operator\n")
    asked = store.uri("key", pin_source=f"file:{source}")
    uri, key = keystore.create_key(asked, KeyKind.EC_P256, directory=tmp_path, password=b"")
    assert "pin-source=file:" in uri
    assert keystore.open_key(uri, directory=tmp_path, password=b"").public_key() == key.public_key()


PIN_FILES = {
    "empty": ("", 0o600, "empty first line"),
    "an empty first line": ("\n1234", 0o600, "empty first line"),
    "open to others": (PIN, 0o640, "open to other users"),
}


@pytest.mark.parametrize(("content", "mode", "why"), PIN_FILES.values(), ids=PIN_FILES)
def test_a_pin_file_that_cannot_be_used(store, tmp_path, content, mode, why):
    source = tmp_path / "pin"
    source.write_text(content)
    source.chmod(mode)
    sentence = refusal(lambda: store.open(store.uri("key", pin_source=str(source))))
    assert why in sentence
    assert PIN not in sentence


def test_a_missing_pin_file(store, tmp_path):
    assert "No such file" in refusal(lambda: store.open(store.uri("key", pin_source=f"{tmp_path}/none")))


def test_no_pin_at_all(store):
    uri = store.uri("key")
    assert "no PIN is given" in refusal(
        lambda: keystore.open_key(uri, directory=store.directory, password=b"")
    )


def test_a_wrong_pin_is_tried_once(store):
    def attempt():
        keystore.open_key(store.uri("key"), directory=store.directory, password=b"wrong secret")

    first, second = refusal(attempt), refusal(attempt)
    assert "the PIN is wrong" in first
    assert "not tried again" in second
    assert "wrong secret" not in first + second
    store.create("key")  # with the right one


def test_the_last_try_is_left_to_the_operator():
    """SoftHSM never locks a PIN, so the flag is made here."""
    token = SimpleNamespace(serial=b"1", flags=TokenFlag.LOGIN_REQUIRED | TokenFlag.USER_PIN_FINAL_TRY)
    address = pkcs11uri.parse(module(MODULE))
    sentence = refusal(lambda: pkcs11_store._module(MODULE)._check_may_try(token, b"digest", address))
    assert "one more wrong PIN locks the token" in sentence


def test_a_wrong_pin_for_a_token_that_is_open(store):
    uri, _ = store.create("key")
    with pytest.raises(KeyStoreError, match="the PIN is wrong"):
        keystore.open_key(uri, directory=store.directory, password=b"another")


# ---------------------------------------------------------------- what may be wrong


def module(path) -> str:
    return f"pkcs11:token=t;object=o?module-path={path}"


MALFORMED = {
    "nothing": "pkcs11:;",
    "no token": f"pkcs11:object=o?module-path={MODULE}",
    "no key": f"pkcs11:token=t?module-path={MODULE}",
    "no module": "pkcs11:token=t;object=o",
    "a relative module": "pkcs11:token=t;object=o?module-path=libsofthsm2.so",
    "an unknown attribute": f"pkcs11:token=t;object=o;secret=1234?module-path={MODULE}",
    "the PIN at the wrong place": f"pkcs11:token=t;object=o;pin-value=1234?module-path={MODULE}",
    "a module by name": "pkcs11:token=t;object=o?module-name=softhsm2",
    "two tokens": f"pkcs11:token=t;token=u;object=o?module-path={MODULE}",
    "no value": f"pkcs11:token=;object=o?module-path={MODULE}",
    "half an octet": f"pkcs11:token=t;object=o;id=%1?module-path={MODULE}",
    "a public key": f"pkcs11:token=t;object=o;type=public?module-path={MODULE}",
    "a PIN at a web address": f"pkcs11:token=t;object=o?module-path={MODULE}&pin-source=https://pins/1234",
}


@pytest.mark.parametrize("uri", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_uri(tmp_path, uri):
    sentence = refusal(lambda: keystore.open_key(uri, directory=tmp_path, password=b"1234"))
    assert "malformed" in sentence
    assert "1234" not in sentence


def test_a_uri_is_read_and_written():
    text = "pkcs11:token=my%20token;manufacturer=m;model=x;serial=0a%2F;object=a%3Bb;id=%00%ff"
    text += "?module-path=/usr/lib/a%20b.so&pin-source=file:/etc/pin"
    parsed = pkcs11uri.parse(text)
    assert (parsed.token, parsed.serial, parsed.object, parsed.id) == ("my token", "0a/", "a;b", b"\0\xff")
    assert str(parsed) == text
    assert pkcs11uri.parse(f"{text}&pin-value=1%3A2").pin_value == "1:2"
    assert str(pkcs11uri.parse(f"{text}&pin-value=1234")) == text
    assert "1234" not in repr(pkcs11uri.parse(f"{text}&pin-value=1234"))


@pytest.mark.parametrize(
    ("path", "why"), [("/none.so", "is not there"), (sys.executable, "is no PKCS #11 module")]
)
def test_a_module_that_is_none(store, path, why):
    assert why in refusal(lambda: store.open(module(path)))


def test_a_token_that_is_not_there(store):
    """It may be plugged in later, so it is away rather than wrong."""
    with pytest.raises(KeyUnavailable, match="no such token"):
        store.open(store.uri("key").replace("token%20", "none%20"))


def test_two_tokens_of_one_label(store):
    store.make_token(store.token)
    assert "there are 2 such tokens" in refusal(lambda: store.open(store.uri("key")))


def test_two_keys_of_one_label(store):
    make_keys(store, "twin", "twin")
    assert "there are 2 such private keys" in refusal(lambda: store.open(store.uri("twin")))


def test_a_curve_that_no_issuer_has(store):
    make_keys(store, "exotic", curve="secp521r1")
    assert "neither an EC key on P-256" in refusal(lambda: store.open(store.uri("exotic")))


def test_a_key_without_its_public_key(store):
    for public, _ in make_keys(store, "half"):
        public.destroy()
    assert "there is no such public key" in refusal(lambda: store.open(store.uri("half")))


def test_a_public_key_that_is_anothers(store):
    (first, _), (_, second) = make_keys(store, "a", "b")
    first[Attribute.ID] = b"b"
    second[Attribute.LABEL] = "mine"
    session = second.session
    (own,) = session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: "b"})
    own.destroy()
    assert "is not that of the private key" in refusal(lambda: store.open(store.uri("mine")))


def make_keys(store, *labels: str, curve: str = "secp256r1") -> list:
    """With python-pkcs11 itself; their ids are their labels' first letters."""
    store.create("opens the session")
    session = pkcs11.lib(str(MODULE)).get_token(token_label=store.token).open(rw=True)
    parameters = {Attribute.EC_PARAMS: pkcs11.util.ec.encode_named_curve_parameters(curve)}
    domain = session.create_domain_parameters(KeyType.EC, parameters, local=True)
    return [domain.generate_keypair(store=True, label=label, id=label[:1].encode()) for label in labels]


# ---------------------------------------------------------------- losing and finding the token


def test_a_session_that_is_lost_is_made_anew(store):
    _, key = store.create("key")
    pkcs11.lib(str(MODULE)).finalize()
    assert_signs(key)


def test_a_token_that_was_changed_for_another(store, tmp_path):
    """The same names, another key: what is signed with it would verify under no certificate."""
    uri, key = store.create("key")
    store.go_away()
    store.directory.mkdir()
    store.make_token(store.token)
    keystore.create_key(uri, KeyKind.EC_P256, directory=tmp_path, password=store.password)
    with pytest.raises(KeyUnavailable, match="another key"):
        sign(key)


def test_a_key_that_was_deleted(store):
    _, key = store.create("key")
    session = pkcs11.lib(str(MODULE)).get_token(token_label=store.token).open(rw=True)
    for found in list(session.get_objects({Attribute.LABEL: "key"})):
        found.destroy()
    session.close()
    with pytest.raises(KeyUnavailable, match="there is no such private key"):
        sign(key)


def test_a_token_that_does_not_answer_is_not_waited_for(store, monkeypatch):
    """A call into a module cannot be broken off; whoever waits behind it gives up, and asks in vain no more."""
    _, key = store.create("key")
    answers = Event()
    pkcs11_store._module(MODULE)._jobs.put((Future(), answers.wait))
    with monkeypatch.context() as impatient:
        impatient.setattr(pkcs11_store, "SIGN_SECONDS", 0.05)
        with pytest.raises(KeyUnavailable, match="no answer within"):
            sign(key)
    answers.set()
    assert_signs(key)


def test_a_key_opened_before_a_fork_is_found_after_it(store):
    """The server opens its keys after the fork; what else happens must not end in a dead thread."""
    script = """
import os, sys
from pathlib import Path
from acme_ca.ca import keystore
from tests.support.keystores import assert_signs
key = keystore.open_key(sys.argv[1], directory=Path("/"), password=sys.argv[2].encode())
child = os.fork()
if child == 0:
    assert_signs(key)
    os._exit(7)
_, status = os.waitpid(child, 0)
assert_signs(key)
sys.exit(os.waitstatus_to_exitcode(status))
"""
    uri, _ = store.create("key")
    done = subprocess.run([sys.executable, "-c", script, uri, PIN], check=False)
    assert done.returncode == 7


# ---------------------------------------------------------------- import


@pytest.mark.parametrize("kind", [KeyKind.EC_P256, KeyKind.EC_P384, KeyKind.RSA_2048])
def test_a_key_in_a_file_is_brought_into_the_token(store, tmp_path, kind):
    keystore.create_key("file:a.key", kind, directory=tmp_path, password=store.password)
    before = keystore.open_key("file:a.key", directory=tmp_path, password=store.password)
    uri, brought = keystore.migrate_key(
        "file:a.key", store.uri("brought"), directory=tmp_path, password=store.password
    )
    assert brought.public_key() == before.public_key()
    assert private_objects(store) == [{Attribute.LABEL: "brought", **FACTS}]
    assert_signs(store.open(uri))
    assert (tmp_path / "a.key").exists()


def test_a_key_is_not_brought_into_anothers_place(store, tmp_path):
    uri, key = store.create("taken")
    keystore.save(tmp_path / "a.key", EC_KEY, store.password)
    sentence = refusal(lambda: migrate(store, tmp_path, store.uri("taken")))
    assert "already" in sentence
    assert store.open(uri).public_key() == key.public_key()


def test_a_token_that_takes_no_keys(store, tmp_path, monkeypatch):
    """SoftHSM takes any; here it is given a template that it must refuse, after the private key is in."""
    public, private = pkcs11_store._objects_of(EC_KEY)
    del public[Attribute.CLASS]
    monkeypatch.setattr(pkcs11_store, "_objects_of", lambda key: (public, private))
    keystore.save(tmp_path / "a.key", EC_KEY, store.password)
    assert "does not take a key from outside" in refusal(
        lambda: migrate(store, tmp_path, store.uri("refused"))
    )
    assert private_objects(store) == []


def test_a_key_in_a_token_is_brought_nowhere(store, tmp_path):
    uri, _ = store.create("inside")
    sentence = refusal(
        lambda: keystore.migrate_key(uri, store.uri("b"), directory=tmp_path, password=store.password)
    )
    assert "Only a key in a file" in sentence


@pytest.mark.parametrize(
    "target", ["file:b.key", "awskms:///alias/b", "azurekeyvault://h/keys/b", "gcpkms:projects/p"]
)
def test_stores_that_take_no_keys(tmp_path, target):
    sentence = refusal(lambda: keystore.migrate_key("file:a.key", target, directory=tmp_path, password=b"x"))
    assert "are not brought into" in sentence


def migrate(store, directory, uri: str):
    return keystore.migrate_key("file:a.key", uri, directory=directory, password=store.password)
