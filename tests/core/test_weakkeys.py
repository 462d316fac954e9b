"""Published lists of weak keys (lesson 4)."""

import hashlib
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.core import keys, weakkeys
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.weakkeys import Digests, ListError, WeakKeys
from tests.support.clients import find
from tests.support.issuing import EC_KEY, RSA_KEY

ED25519 = ed25519.Ed25519PrivateKey.generate().public_key()
RSA = RSA_KEY.public_key()
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=3072).public_key()
KEYS = {"RSA": RSA, "EC": EC_KEY.public_key(), "Ed25519": ED25519}


def of_debian(key: rsa.RSAPublicKey) -> str:
    return hashlib.sha1(f"Modulus={key.public_numbers().n:X}\n".encode()).hexdigest()[20:]


def listed(*lines: str) -> WeakKeys:
    return WeakKeys.of(weakkeys.read(lines))


def test_the_digest_is_the_one_of_openssl_and_sha1sum(tmp_path):
    """As docs/operating.md tells operators, by the programs themselves."""
    find("openssl")
    pem = RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (tmp_path / "test.key").write_bytes(pem)
    command = "openssl rsa -in test.key -noout -modulus | sha1sum | cut -c 21-40"
    line = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert line.strip() == of_debian(RSA)
    assert RSA in listed(line)
    assert OTHER_RSA not in listed(line)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_a_key_of_any_kind_is_known_by_its_spki(key, case):
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    weak_keys = listed(case(hashlib.sha256(der).hexdigest()))
    assert [name for name, one in KEYS.items() if one in weak_keys] == [
        name for name, one in KEYS.items() if one == key
    ]
    with pytest.raises(Problem, match="published list") as refused:
        weak_keys.check(key, ErrorType.BAD_CSR)
    assert refused.value.type is ErrorType.BAD_CSR


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_without_a_list_no_key_is_known(key):
    assert key not in listed()
    listed().check(key, ErrorType.BAD_CSR)


def test_a_file_as_debian_wrote_it():
    lines = ["# RSA-2048, i386\n", "#\n", f"{of_debian(RSA)}\n", "\n", f"{'0' * 20}\n", f"{'0' * 20}\n"]
    weak_keys = listed(*lines)
    assert len(weak_keys) == 2
    assert RSA in weak_keys


@pytest.mark.parametrize(
    "line",
    ["0" * 19, "0" * 21, "0" * 40, "g" * 20, "COMPROMISED: " + "0" * 20, "0" * 20 + " # x", "\u0660" * 20],
)
def test_another_line_is_none(line):
    with pytest.raises(ListError) as caught:
        weakkeys.read(["# head", "", line])
    assert caught.value.line == 3


@given(st.sets(st.binary(min_size=4, max_size=4)), st.binary(min_size=4, max_size=4))
def test_what_was_put_in_is_in_and_nothing_else(some, other):
    digests = Digests(some, size=4)
    assert all(one in digests for one in some)
    assert (other in digests) is (other in some)
    assert len(digests) == len(some)


def test_the_two_kinds_do_not_get_in_each_others_way():
    weak_keys = listed(of_debian(RSA), keys.spki_sha256(ED25519).hex())
    assert (len(weak_keys.moduli), len(weak_keys.spkis)) == (1, 1)
    assert [key in weak_keys for key in (RSA, ED25519, OTHER_RSA, EC_KEY.public_key())] == [
        True,
        True,
        False,
        False,
    ]
