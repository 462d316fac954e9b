import base64
import warnings

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from acme_ca.core.csr import MAX_SIZE, CertificateRequest, check_names, parse_csr
from acme_ca.core.problems import ErrorType, Problem
from tests.support.issuing import (
    EC_KEY,
    RSA_KEY,
    alternative_names_extension,
    csr,
    extension_request,
    names,
    request_info,
    signed_request,
    subject,
    tlv,
)


def assert_bad_csr(der: bytes, why: str = "") -> None:
    with pytest.raises(Problem) as refused:
        parse_csr(der)
    assert refused.value.type is ErrorType.BAD_CSR
    assert why in refused.value.detail


# ---------------------------------------------------------------- requests made by hand

SOUND = csr("a.example.org")
NAMES = alternative_names_extension(tlv(0x82, b"a.example.org"))
OTHER_NAMES = alternative_names_extension(tlv(0x82, b"evil.example.org"))
INFO = request_info(extension_request(NAMES))
MICROSOFT_REQUEST = bytes.fromhex("060a2b06010401823702010e")
UNKNOWN_TLS_FEATURE = tlv(0x30, bytes.fromhex("06082b06010505070118"), tlv(0x04, tlv(0x30, b"\x02\x01\x00")))
CN_OID = bytes.fromhex("0603550403")


def csr_without_hash(key: ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject("a.example.org"))
    return builder.sign(key, None).public_bytes(Encoding.DER)


def with_names(*general: bytes) -> bytes:
    return signed_request(request_info(extension_request(alternative_names_extension(*general))))


def with_common_name(tag: int, text: bytes) -> bytes:
    return signed_request(request_info(subject_der=tlv(0x30, tlv(0x31, tlv(0x30, CN_OID, tlv(tag, text))))))


# ---------------------------------------------------------------- what is accepted

ACCEPTED = {
    "one name": (csr("a.example.org"), ["a.example.org"]),
    "RSA": (csr("a.example.org", key=RSA_KEY), ["a.example.org"]),
    "upper case": (csr("A.Example.ORG"), ["a.example.org"]),
    "addresses": (csr("10.0.0.1", "2001:db8::1"), ["10.0.0.1", "2001:db8::1"]),
    "wildcard": (csr("*.example.org", "example.org"), ["*.example.org", "example.org"]),
    "same name twice": (csr("a.example.org", "A.example.org"), ["a.example.org"]),
    "CN alone": (csr(named=subject("a.example.org")), ["a.example.org"]),
    "CN that is an address": (csr(named=subject("10.0.0.1")), ["10.0.0.1"]),
    "CN among the names": (csr("a.example.org", named=subject("A.example.org")), ["a.example.org"]),
    "CN beside the names": (
        csr("a.example.org", named=subject("b.example.org")),
        ["a.example.org", "b.example.org"],
    ),
    "no name": (csr(), []),
    "a hundred names": (
        csr(*[f"n{i}.example.org" for i in range(100)]),
        [f"n{i}.example.org" for i in range(100)],
    ),
    "Microsoft's extension request": (
        signed_request(request_info(extension_request(NAMES, oid=MICROSOFT_REQUEST))),
        ["a.example.org"],
    ),
}


@pytest.mark.parametrize(("der", "expected"), ACCEPTED.values(), ids=ACCEPTED)
def test_names_of_a_request(der, expected):
    assert parse_csr(der).identifiers == set(names(*expected))


def test_the_key_is_that_of_the_request():
    assert parse_csr(csr("a.example.org")).public_key == EC_KEY.public_key()


def test_ed25519_needs_no_hash():
    key = ed25519.Ed25519PrivateKey.generate()
    assert parse_csr(csr_without_hash(key)).public_key == key.public_key()


# ---------------------------------------------------------------- what is refused

MALFORMED = {
    "empty": b"",
    "text": b"hello",
    "PEM": b"-----BEGIN CERTIFICATE REQUEST-----\n"
    + base64.b64encode(SOUND)
    + b"\n-----END CERTIFICATE REQUEST-----\n",
    "base64": base64.b64encode(SOUND),
    "trailing byte": SOUND + b"\0",
    "twice": SOUND + SOUND,
    "cut": SOUND[:-1],
    "indefinite length": b"\x30\x80" + SOUND[3:] + b"\0\0",
    "length not minimal": b"\x30\x82\x00" + SOUND[2:3] + SOUND[3:],
    "version 2": signed_request(INFO.replace(b"\x02\x01\x00", b"\x02\x01\x01", 1)),
    "address of 3 octets": with_names(tlv(0x87, b"\x0a\0\0")),
    "names inside out": with_names(b"\x30\x03\x02\x01\x05"),
    "two alternative names extensions": signed_request(request_info(extension_request(NAMES + OTHER_NAMES))),
    "two values of the extension request": signed_request(
        request_info(extension_request(NAMES, OTHER_NAMES))
    ),
    "CN of no characters": with_common_name(0x0C, b""),
    "CN of 65 characters": with_common_name(0x0C, b"a" * 53 + b".example.org"),
    "CN not UTF-8": with_common_name(0x0C, b"\xff\xfe"),
}


@pytest.mark.parametrize("der", MALFORMED.values(), ids=MALFORMED)
def test_malformed_requests_are_refused(der):
    assert_bad_csr(der, "no PKCS #10 request in DER")


def test_the_hand_made_request_would_be_sound():
    """Or the refusals above prove nothing."""
    assert parse_csr(signed_request(INFO)).identifiers == set(names("a.example.org"))
    assert parse_csr(with_common_name(0x0C, b"a" * 52 + b".example.org")).identifiers


REFUSED = {
    "two extension requests": (
        signed_request(request_info(extension_request(NAMES), extension_request(OTHER_NAMES))),
        "more than once",
    ),
    "two extension requests, one of them Microsoft's": (
        signed_request(
            request_info(extension_request(NAMES), extension_request(OTHER_NAMES, oid=MICROSOFT_REQUEST))
        ),
        "more than once",
    ),
    "broken signature": (SOUND[:-1] + bytes([SOUND[-1] ^ 1]), "signature"),
    "signature over another request": (signed_request(INFO, signing=INFO + b"x"), "signature"),
    "SHA-1": (
        signed_request(INFO, algorithm=bytes.fromhex("300906072a8648ce3d0401"), digest=hashes.SHA1()),
        "weak or unknown hash",
    ),
    "SHA-224": (
        signed_request(INFO, algorithm=bytes.fromhex("300a06082a8648ce3d040301"), digest=hashes.SHA224()),
        "weak or unknown hash",
    ),
    "name that is not ASCII": (with_names(tlv(0x82, "é.example.org".encode())), "outside ASCII"),
    "address with a mask": (with_names(tlv(0x87, b"\x0a\0\0\0\xff\0\0\0")), "no IPv4 or IPv6 address"),
    "TLS feature of no kind": (
        signed_request(request_info(extension_request(UNKNOWN_TLS_FEATURE))),
        "not well-formed",
    ),
    "underscore": (csr("a_b.example.org"), "letters, digits and inner hyphens"),
    "blank": (csr("a b.example.org"), "letters, digits"),
    "trailing dot": (csr("a.example.org."), "empty label"),
    "NUL": (with_names(tlv(0x82, b"a.example.org\0.evil.org")), "letters, digits"),
    "address as dNSName": (csr(x509.DNSName("10.0.0.1")), "is a number"),
    "CN that is no name": (csr("a.example.org", named=subject("My Server")), "letters, digits"),
    "secp256k1": (csr("a.example.org", key=ec.generate_private_key(ec.SECP256K1())), "its key is of a kind"),
    "Ed448": (csr_without_hash(ed448.Ed448PrivateKey.generate()), "its key is of a kind"),
}


@pytest.mark.parametrize(("der", "why"), REFUSED.values(), ids=REFUSED)
def test_refused_requests_say_why(der, why):
    assert_bad_csr(der, why)


def test_size_is_bounded_before_anything_is_read():
    assert_bad_csr(b"\x30" * (MAX_SIZE + 1), "longer than")


def test_the_largest_order_fits():
    labels = ".".join("a" * 63 for _ in range(3))
    longest = [f"{labels}.{i:03}{'b' * 57}x" for i in range(100)]
    assert {len(name) for name in longest} == {253}
    assert len(csr(*longest)) + 2 * 1024 < MAX_SIZE, "with a key and a signature of 8192 bits"
    assert len(parse_csr(csr(*longest)).identifiers) == 100


# ---------------------------------------------------------------- against the order


def request_for(*texts: str) -> CertificateRequest:
    return CertificateRequest(public_key=EC_KEY.public_key(), identifiers=frozenset(names(*texts)))


MANY = [f"n{i}.example.org" for i in range(9)]
MISMATCHES = {
    "one more": (["a.b", "c.d"], ["a.b"], "it has, and the order has not, c.d."),
    "one less": (["a.b"], ["a.b", "c.d"], "it lacks c.d."),
    "another": (["c.d"], ["a.b"], "it lacks a.b; it has, and the order has not, c.d."),
    "none": ([], ["a.b"], "it lacks a.b."),
    "wildcard": (["*.a.b"], ["a.b"], "it lacks a.b; it has, and the order has not, *.a.b."),
    "address": (["a.b", "10.0.0.1"], ["a.b"], "has not, 10.0.0.1."),
    "many": (
        ["a.b", *MANY],
        ["a.b"],
        "n0.example.org, n1.example.org, n2.example.org, n3.example.org, n4.example.org and 4 more.",
    ),
}


@pytest.mark.parametrize(("asked", "ordered", "why"), MISMATCHES.values(), ids=MISMATCHES)
def test_names_must_be_those_of_the_order(asked, ordered, why):
    with pytest.raises(Problem) as refused:
        check_names(request_for(*asked), names(*ordered))
    assert refused.value.type is ErrorType.BAD_CSR
    assert refused.value.detail.endswith(why)


def test_names_in_any_order_match():
    check_names(request_for("a.b", "c.d", "10.0.0.1"), names("10.0.0.1", "c.d", "a.b"))


# ---------------------------------------------------------------- hostile bytes (lesson 24)

RICH = csr(
    "a.example.org",
    "*.example.org",
    "10.0.0.1",
    named=subject("a.example.org", organization_name="Example", country_name="DE"),
    extensions=[
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.TLSFeature([x509.TLSFeatureType.status_request]), False),
        (x509.SubjectKeyIdentifier(b"\0" * 20), False),
    ],
)
RICH_INFO = x509.load_der_x509_csr(RICH).tbs_certrequest_bytes

changes = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "delete", "repeat"]), st.integers(0, 2000), st.integers(0, 255)
    ),
    min_size=1,
    max_size=4,
)


def mutated(der: bytes, steps: list[tuple[str, int, int]]) -> bytes:
    content = bytearray(der)
    for kind, place, value in steps:
        at = place % (len(content) or 1)
        match kind:
            case "flip":
                content[at : at + 1] = bytes([value])
            case "insert":
                content[at:at] = bytes([value])
            case "delete":
                del content[at : at + 1 + value % 8]
            case "repeat":
                content[at:at] = content[at : at + value]
    return bytes(content)


def parsed(der: bytes) -> CertificateRequest | ErrorType:
    try:
        return parse_csr(der)
    except Problem as problem:
        return problem.type


@settings(max_examples=500, deadline=None)
@given(changes)
def test_a_changed_request_is_refused_or_says_the_same(steps):
    """What is signed is protected; what is not (the form of an ECDSA signature) changes nothing."""
    assert parsed(mutated(RICH, steps)) in (ErrorType.BAD_CSR, parse_csr(RICH))


@settings(max_examples=1000, deadline=None)
@given(changes)
def test_a_changed_and_signed_request_is_read_or_refused(steps):
    """The signature lets the changes through to every parser behind it."""
    outcome = parsed(signed_request(mutated(RICH_INFO, steps)))
    assert outcome is ErrorType.BAD_CSR or outcome.public_key == EC_KEY.public_key()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(content):
    assert_bad_csr(content)


def test_a_long_name_is_refused_without_a_warning():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert_bad_csr(with_common_name(0x0C, b"a" * 53 + b".example.org"))
    assert not seen
