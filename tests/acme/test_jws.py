"""JWS and JWK: the laws, what is taken, and what is refused with which error (RFC 8555 §6.2, RFC 7515, RFC 7517)."""

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st

from acme_ca.acme import jws
from acme_ca.core import base64url as canonical
from acme_ca.core.problems import ErrorType, Problem
from tests.support import jose
from tests.support.issuing import RSA_KEY
from tests.support.jose import Key, base64url, compact, from_base64url, mac_jws
from tests.support.problems import tried

KEYS = {name: Key.generate(name) for name in ("ES256", "ES384", "ES512", "EdDSA")} | {
    "RS256": Key(RSA_KEY, "RS256")
}
KEY = KEYS["ES256"]
URL = "https://ca.test/acme/new-account"


def header(key: Key = KEY, **members: object) -> dict[str, object]:
    return {"alg": key.algorithm, "jwk": key.jwk, "nonce": "AAAA", "url": URL, **members}


def signed(payload: bytes = b"{}", *, key: Key = KEY, protected: object = None) -> dict[str, object]:
    return dict(jose.jws(header(key) if protected is None else protected, payload, key))


# ---------------------------------------------------------------- base64url


@given(st.binary(max_size=100))
def test_decoding_what_was_encoded_gives_the_same(raw):
    assert canonical.decode(canonical.encode(raw), "It") == raw
    assert canonical.encode(raw) == base64url(raw)


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@given(st.text(ALPHABET + "=+/ \n.%\u00e9", max_size=12))
@example("A")
@example("AB")
@example("AAB")
@example("AA==")
@example("AAAA\n")
def test_of_all_spellings_exactly_one_is_taken(text):
    """RFC 8555 §6.1: without padding; lesson 12: no second text means the same."""
    raw = tried(canonical.decode, text, "It")
    if isinstance(raw, Problem):
        assert raw.type is ErrorType.MALFORMED
    else:
        assert base64url(raw) == text


@given(st.binary(min_size=1, max_size=20).filter(lambda raw: len(raw) % 3))
def test_stray_bits_in_the_last_character_are_refused(raw):
    text = base64url(raw)
    place = ALPHABET.index(text[-1])
    for bit in range(4 if len(raw) % 3 == 1 else 2):
        other = text[:-1] + ALPHABET[place ^ 1 << bit]
        assert isinstance(tried(canonical.decode, other, "It"), Problem)


# ---------------------------------------------------------------- JSON

NO_OBJECT = {
    "nothing": b"",
    "text": b"hello",
    "number": b"42",
    "string": b'"a"',
    "null": b"null",
    "array": b"[]",
    "cut": b'{"a":',
    "two objects": b"{}{}",
    "not UTF-8": b'{"a":"\xff\xfe"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "duplicate member": b'{"a":1,"a":1}',
    "duplicate by escape": b'{"a":1,"\\u0061":2}',
    "duplicate below": b'{"a":{"b":1,"b":2}}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":-Infinity}',
    "too deep": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "too deep array": b"[" * 20_000 + b"]" * 20_000,
    "too long a number": b'{"a":' + b"9" * 6_000 + b"}",
    "comment": b"{}//",
    "single quotes": b"{'a':1}",
}


@pytest.mark.parametrize("raw", NO_OBJECT.values(), ids=NO_OBJECT)
def test_what_is_no_json_object_is_malformed(raw):
    with pytest.raises(Problem, match="It is not a JSON object") as refused:
        jws.parse_object(raw, "It")
    assert refused.value.type is ErrorType.MALFORMED


# ---------------------------------------------------------------- the serialization


@pytest.mark.parametrize("name", KEYS)
def test_a_sound_jws_is_taken_apart_and_verifies(name):
    key = KEYS[name]
    parsed = jws.parse(compact(signed(b'{"a":1}', key=key)))
    assert parsed.payload == b'{"a":1}'
    assert parsed.header == header(key)
    jws.verify(jws.parse_jwk(key.jwk).key, parsed)


def general(made):
    return {"payload": made["payload"], "signatures": [{n: made[n] for n in ("protected", "signature")}]}


SPOILED = {
    "unprotected header": lambda made: {**made, "header": {"kid": "x"}},
    "empty unprotected header": lambda made: {**made, "header": {}},
    "general serialization": general,
    "two signatures": lambda made: {**made, "signatures": [{}, {}]},
    "empty signatures": lambda made: {**made, "signatures": []},
    "unknown member": lambda made: {**made, "x": 1},
    "detached payload": lambda made: {n: made[n] for n in ("protected", "signature")},
    "no protected header": lambda made: {n: made[n] for n in ("payload", "signature")},
    "no signature": lambda made: {n: made[n] for n in ("protected", "payload")},
    "payload null": lambda made: {**made, "payload": None},
    "payload number": lambda made: {**made, "payload": 1},
    "payload object": lambda made: {**made, "payload": {}},
    "protected as object": lambda made: {**made, "protected": header()},
    "signature list": lambda made: {**made, "signature": [made["signature"]]},
    "padded payload": lambda made: {**made, "payload": made["payload"] + "="},
    "padded protected header": lambda made: {**made, "protected": made["protected"] + "="},
    "padded signature": lambda made: {**made, "signature": made["signature"] + "=="},
    "plus and slash": lambda made: {**made, "payload": "+/+/"},
    "space in the payload": lambda made: {**made, "payload": made["payload"] + " "},
    "lone character": lambda made: {**made, "payload": "AAAAA"},
    "empty protected header": lambda made: {**made, "protected": ""},
    "compact serialization": lambda made: ".".join(made.values()).encode(),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_another_serialization_is_malformed(spoil):
    spoilt = spoil(signed())
    with pytest.raises(Problem) as refused:
        jws.parse(spoilt if isinstance(spoilt, bytes) else compact(spoilt))
    assert refused.value.type is ErrorType.MALFORMED


HEADERS_REFUSED = {
    "b64 false": compact(header(b64=False, crit=["b64"])),
    "b64 true": compact(header(b64=True)),
    "unknown crit": compact(header(crit=["x"], x=1)),
    "empty crit": compact(header(crit=[])),
    "array": b"[]",
    "null": b"null",
    "duplicate kid": b'{"alg":"ES256","kid":"a","kid":"b"}',
    "no JSON": b"{",
}


@pytest.mark.parametrize("protected", HEADERS_REFUSED.values(), ids=HEADERS_REFUSED)
def test_a_protected_header_that_is_not_understood_is_malformed(protected):
    with pytest.raises(Problem) as refused:
        jws.parse(compact(signed(protected=protected)))
    assert refused.value.type is ErrorType.MALFORMED


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
MEMBER = st.text(ALPHABET, max_size=40) | st.text() | ANY_JSON


@given(
    st.binary()
    | ANY_JSON.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries(
        {}, optional={"protected": MEMBER, "payload": MEMBER, "signature": MEMBER, "header": MEMBER}
    ).map(compact)
    | st.fixed_dictionaries(
        {"alg": MEMBER, "jwk": MEMBER, "nonce": MEMBER, "url": MEMBER, "kid": MEMBER}
    ).map(lambda protected: compact(signed(protected=protected)))
)
def test_any_bytes_are_a_jws_or_a_problem(raw):
    """Lesson 24."""
    outcome = tried(judged, raw)
    assert outcome is None or isinstance(outcome, Problem)


def judged(raw: bytes) -> None:
    """Everything that a request goes through before the database is asked."""
    parsed = jws.parse(raw)
    jws.algorithm_of(parsed.header)
    jws.verify(jws.parse_jwk(parsed.header.get("jwk")).key, parsed)


# ---------------------------------------------------------------- algorithms


@pytest.mark.parametrize(
    "algorithm",
    [
        "none",
        "None",
        "HS256",
        "HS512",
        "RS1",
        "RS384",
        "PS256",
        "ES256K",
        "es256",
        "",
        "Ed448",
        None,
        1,
        [],
        {},
        ["ES256"],
    ],
)
def test_other_algorithms_are_refused_and_the_good_ones_listed(algorithm):
    """RFC 8555 §6.2: `badSignatureAlgorithm` "MUST include an "algorithms" field"."""
    with pytest.raises(Problem) as refused:
        jws.algorithm_of(header(alg=algorithm))
    assert refused.value.type is ErrorType.BAD_SIGNATURE_ALGORITHM
    assert refused.value.document()["algorithms"] == ["ES256", "ES384", "ES512", "RS256", "EdDSA"]


@pytest.mark.parametrize("algorithm", jws.ALGORITHMS)
@pytest.mark.parametrize("name", KEYS)
def test_the_algorithm_must_be_the_keys(name, algorithm):
    """Lesson 12."""
    key = KEYS[name]
    parsed = jws.parse(compact(signed(key=key, protected=header(key, alg=algorithm))))
    outcome = tried(jws.verify, jws.parse_jwk(key.jwk).key, parsed)
    if algorithm == name:
        assert outcome is None
    else:
        assert outcome.type is ErrorType.BAD_SIGNATURE_ALGORITHM


def test_no_mac_under_a_public_key():
    """The classic: the public key, which all know, as the secret of an HMAC."""
    for secret in (
        KEY.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        compact(KEY.jwk),
    ):
        parsed = jws.parse(compact(mac_jws(header(alg="HS256"), b"{}", secret)))
        outcome = tried(jws.verify, jws.parse_jwk(KEY.jwk).key, parsed)
        assert outcome.type is ErrorType.BAD_SIGNATURE_ALGORITHM


# ---------------------------------------------------------------- signatures

ORDER_OF_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def der(signature: bytes) -> bytes:
    return encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))


SIGNATURES = {
    "a bit": lambda signature: bytes((signature[0] ^ 1,)) + signature[1:],
    "nothing": lambda _: b"",
    "zeros": lambda _: bytes(64),
    "the order of the curve": lambda _: ORDER_OF_P256.to_bytes(32) * 2,
    "cut": lambda signature: signature[:-1],
    "longer": lambda signature: signature + b"\0",
    "longer in front": lambda signature: b"\0" + signature,
    "DER": der,
}


@pytest.mark.parametrize("spoil", SIGNATURES.values(), ids=SIGNATURES)
def test_another_signature_does_not_verify(spoil):
    parsed = jws.parse(compact(signed()))
    with pytest.raises(Problem, match="does not verify"):
        jws.verify(KEY.private.public_key(), replace(parsed, signature=spoil(parsed.signature)))


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("member", ["protected", "payload"])
def test_header_and_payload_are_signed(name, member):
    key = KEYS[name]
    made = signed(b'{"a":1}', key=key)
    changed = header(key, more=1) if member == "protected" else {"a": 2}
    parsed = jws.parse(compact({**made, member: base64url(compact(changed))}))
    with pytest.raises(Problem, match="does not verify"):
        jws.verify(jws.parse_jwk(key.jwk).key, parsed)


# ---------------------------------------------------------------- JWKs


def test_the_thumbprint_of_rfc_7638():
    """RFC 7638 §3.1. Members that are not required, such as this `alg` and `kid`, mean nothing."""
    jwk = jws.parse_jwk(
        {
            "kty": "RSA",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPeb"
            "WKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMi"
            "cAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3"
            "XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
            "e": "AQAB",
            "alg": "RS256",
            "kid": "2011-04-29",
        }
    )
    assert jwk.thumbprint == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert jwk.text.startswith('{"e":"AQAB","kty":"RSA","n":"0vx7')


def test_the_thumbprint_of_rfc_8037():
    """RFC 8037 appendix A.3."""
    jwk = jws.parse_jwk(
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "use": "sig"}
    )
    assert jwk.thumbprint == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_the_signature_of_rfc_8037():
    """RFC 8037 appendix A.4."""
    protected, payload = "eyJhbGciOiJFZERTQSJ9", "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    key = jws.parse_jwk({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    jws.verify(key.key, jws.parse({"protected": protected, "payload": payload, "signature": signature}))


@pytest.mark.parametrize("name", KEYS)
def test_a_key_has_one_text(name):
    """RFC 7638 §3: whatever the order of its members, and whatever else stands there."""
    key = KEYS[name]
    jwk = jws.parse_jwk(key.jwk)
    assert json.loads(jwk.text) == key.jwk
    assert jwk.text == json.dumps(key.jwk, sort_keys=True, separators=(",", ":"))
    assert jwk.thumbprint == key.thumbprint
    other = {"use": "sig", "kid": "x", "alg": "x", **dict(reversed(key.jwk.items())), "ext": True}
    assert jws.parse_jwk(other) == jwk
    assert jws.key_of(jwk.text) == jwk.key


def rsa_jwk(modulus: int, exponent: int = 65537) -> dict[str, str]:
    numbers = {"n": modulus, "e": exponent}
    return {
        "kty": "RSA",
        **{name: base64url(value.to_bytes((value.bit_length() + 7) // 8)) for name, value in numbers.items()},
    }


MODULUS = RSA_KEY.public_key().public_numbers().n
K1 = ec.generate_private_key(ec.SECP256K1()).public_key().public_numbers()
ED448 = ed448.Ed448PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
RSA_1024 = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key().public_numbers().n

BAD_KEYS = {
    "RSA of 512 bits": rsa_jwk(MODULUS >> 1536 | 1),
    "RSA of 1024 bits": rsa_jwk(RSA_1024),
    "RSA of 16384 bits": rsa_jwk(1 << 16383 | 1),
    "RSA exponent 1": rsa_jwk(MODULUS, 1),
    "RSA exponent 3": rsa_jwk(MODULUS, 3),
    "RSA exponent even": rsa_jwk(MODULUS, 65536),
    "RSA exponent huge": rsa_jwk(MODULUS, MODULUS - 2),
    "RSA modulus even": rsa_jwk(MODULUS + 1),
    "RSA modulus with a small factor": rsa_jwk(MODULUS // 3 * 3),
    "RSA without modulus": {"kty": "RSA", "e": "AQAB"},
    "RSA of nothing": {"kty": "RSA", "n": "", "e": ""},
    "EC not on the curve": {**KEY.jwk, "y": KEY.jwk["x"]},
    "EC of zeros": {**KEY.jwk, "x": base64url(bytes(32)), "y": base64url(bytes(32))},
    "EC of another curve": {**KEY.jwk, "crv": "P-384"},
    "EC secp256k1": {
        **KEY.jwk,
        "crv": "secp256k1",
        "x": base64url(K1.x.to_bytes(32)),
        "y": base64url(K1.y.to_bytes(32)),
    },
    "EC without y": {name: KEY.jwk[name] for name in ("kty", "crv", "x")},
    "EC with numbers": {**KEY.jwk, "x": 1},
    "EC cut": {**KEY.jwk, "x": base64url(from_base64url(KEY.jwk["x"])[1:])},
    "EC padded": {**KEY.jwk, "x": KEY.jwk["x"] + "="},
    "EC with a line feed": {**KEY.jwk, "x": KEY.jwk["x"] + "\n"},
    "EC with a foreign character": {**KEY.jwk, "y": "!" + KEY.jwk["y"]},
    "RSA padded": {**rsa_jwk(MODULUS), "n": base64url(MODULUS.to_bytes(256)) + "=="},
    "Ed448": {"kty": "OKP", "crv": "Ed448", "x": base64url(ED448)},
    "X25519": {**KEYS["EdDSA"].jwk, "crv": "X25519"},
    "Ed25519 cut": {**KEYS["EdDSA"].jwk, "x": base64url(bytes(31))},
    "Ed25519 without x": {"kty": "OKP", "crv": "Ed25519"},
    "unknown kind": {"kty": "XX"},
    "empty kind": {"kty": ""},
}


@pytest.mark.parametrize("value", BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_key_that_is_not_good_is_a_bad_public_key(value):
    """RFC 8555 §6.2; `malformed` is for base64url that is none."""
    with pytest.raises(Problem) as refused:
        jws.parse_jwk(value)
    assert refused.value.type in {ErrorType.BAD_PUBLIC_KEY, ErrorType.MALFORMED}
    assert not any(
        isinstance(part, str) and len(part) > 9 and part in refused.value.detail for part in value.values()
    )


PRIVATE = base64url(KEY.private.private_numbers().private_value.to_bytes(32))
NO_KEYS = {
    "text": "key",
    "number": 1,
    "nothing": None,
    "list": [],
    "empty": {},
    "kind is a number": {"kty": 1},
    "private key": {**KEY.jwk, "d": PRIVATE},
    "symmetric key": {"kty": "oct", "k": "AAAA"},
}


@pytest.mark.parametrize("value", NO_KEYS.values(), ids=NO_KEYS)
def test_what_is_no_public_key_is_malformed(value):
    with pytest.raises(Problem) as refused:
        jws.parse_jwk(value)
    assert refused.value.type is ErrorType.MALFORMED


@given(
    st.fixed_dictionaries(
        {"kty": st.sampled_from(["EC", "RSA", "OKP", "oct", "x"])},
        optional=dict.fromkeys(("crv", "x", "y", "n", "e", "alg", "use", "key_ops"), MEMBER),
    )
    | st.fixed_dictionaries({"kty": st.just("EC"), "crv": st.just("P-256"), "x": MEMBER, "y": MEMBER})
    | st.fixed_dictionaries({"kty": st.just("RSA"), "n": MEMBER, "e": MEMBER})
    | ANY_JSON
)
def test_any_value_is_a_key_or_a_problem(value):
    """Lesson 24."""
    outcome = tried(jws.parse_jwk, value)
    assert isinstance(outcome, jws.Jwk | Problem)


# ---------------------------------------------------------------- external account binding (RFC 8555 §7.3.4)

SECRET = bytes(range(32))
BINDING_HEADER = {"alg": "HS256", "kid": "key-1", "url": URL}


def binding(payload: bytes | None = None, digest: str = "sha256", **members: object) -> dict[str, str]:
    protected = {name: value for name, value in {**BINDING_HEADER, **members}.items() if value is not ...}
    return mac_jws(protected, compact(KEY.jwk) if payload is None else payload, SECRET, digest)


def parse_binding(value: object) -> jws.Binding:
    return jws.parse_binding(value, url=URL, account_key=jws.parse_jwk(KEY.jwk))


@pytest.mark.parametrize(
    ("algorithm", "digest"), [("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")]
)
def test_a_genuine_binding(algorithm, digest):
    value = binding(digest=digest, alg=algorithm)
    found = parse_binding(value)
    assert (found.kid, found.raw) == ("key-1", value)
    assert jws.binding_is_genuine(found, SECRET)
    assert not jws.binding_is_genuine(found, bytes(32))
    assert not jws.binding_is_genuine(parse_binding({**value, "signature": ""}), SECRET)
    assert not jws.binding_is_genuine(parse_binding({**value, "signature": value["signature"][:8]}), SECRET)


BAD_BINDINGS = {
    "text": "abc",
    "number": 1,
    "list": [],
    "empty": {},
    "nulls": {"protected": None, "payload": None, "signature": None},
    "other URL": binding(url=URL + "x"),
    "no URL": binding(url=...),
    "no kid": binding(kid=...),
    "empty kid": binding(kid=""),
    "kid is a number": binding(kid=1),
    "nonce": binding(nonce="AAAA"),
    "jwk": binding(jwk=KEY.jwk),
    "algorithm none": binding(alg="none"),
    "algorithm of keys": binding(alg="ES256"),
    "no algorithm": binding(alg=...),
    "crit": binding(crit=["x"]),
    "another key": binding(compact(KEYS["ES384"].jwk)),
    "no key": binding(b'"x"'),
    "no payload": binding(b""),
    "private key": binding(compact({**KEY.jwk, "d": PRIVATE})),
    "unprotected header": {**binding(), "header": {}},
}


@pytest.mark.parametrize("value", BAD_BINDINGS.values(), ids=BAD_BINDINGS)
def test_a_binding_that_is_not_as_it_must_be_is_refused(value):
    with pytest.raises(Problem) as refused:
        parse_binding(value)
    assert refused.value.type in {ErrorType.MALFORMED, ErrorType.BAD_PUBLIC_KEY}


def test_the_algorithm_of_a_binding_may_be_any_json():
    for value in (["HS256"], {}, 1, None, True):
        assert isinstance(tried(parse_binding, binding(alg=value)), Problem), value
