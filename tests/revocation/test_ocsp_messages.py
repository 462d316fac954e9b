"""OCSP messages (RFC 6960 §4, RFC 9654): what is read in a request, what is written in an answer."""

import contextlib
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.core.certificates import CertificateStatus
from acme_ca.core.der import Unreadable
from acme_ca.core.ids import IssuerId, serial_text
from acme_ca.core.revocation import RevocationReason
from acme_ca.revocation import ocsp_messages as messages
from acme_ca.revocation.ocsp_messages import GOOD, MAX_CERTIFICATES, UNKNOWN, CertStatus, Status
from tests.support.issuing import EC_KEY, NOW, subject, tlv
from tests.support.ocsp import NONCE, NULL, UNHEARD_OF, cert_id, extension, nonce, request

KEY = EC_KEY
CERTIFICATE = x509.CertificateBuilder(
    subject("CA"), subject("CA"), KEY.public_key(), 2**126 + 1, NOW, NOW
).sign(KEY, hashes.SHA256())
CERT_ID = cert_id(CERTIFICATE, 77)
CRITICAL, NOT_CRITICAL = b"\x01\x01\xff", b"\x01\x01\x00"
ACCEPTABLE = bytes.fromhex("06092b0601050507300104")

# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_what_cryptography_writes_is_read(algorithm):
    made = ocsp.OCSPRequestBuilder().add_certificate(CERTIFICATE, CERTIFICATE, algorithm)
    made = made.add_extension(x509.OCSPNonce(bytes(range(32))), critical=False).build()
    read = messages.parse(made.public_bytes(Encoding.DER))
    (about,) = read.certificates
    assert about.issuer.algorithm == algorithm.name
    assert (about.issuer.name, about.issuer.key) == (made.issuer_name_hash, made.issuer_key_hash)
    assert about.serial == serial_text(CERTIFICATE.serial_number)
    assert read.nonce == bytes(range(32))


@pytest.mark.parametrize("parameters", [NULL, b""])
def test_the_parameters_of_a_hash_are_null_or_left_out(parameters):
    whole = cert_id(CERTIFICATE, 77, algorithm="sha256", parameters=parameters)
    (about,) = messages.parse(request(whole)).certificates
    assert (about.issuer.algorithm, about.der) == ("sha256", whole)


def test_another_hash_is_read_and_known_to_nobody():
    (about,) = messages.parse(request(cert_id(CERTIFICATE, 77, algorithm="md5"))).certificates
    assert about.issuer.algorithm is None


def test_several_certificates_keep_their_order():
    asked = [cert_id(CERTIFICATE, number) for number in range(MAX_CERTIFICATES)]
    read = messages.parse(request(*asked))
    assert [about.der for about in read.certificates] == asked


@pytest.mark.parametrize(
    ("number", "serial"),
    [
        (0, "0" * 32),
        (1, "0" * 31 + "1"),
        (2**128 - 1, "f" * 32),
        (2**128, None),
        (2**159, None),
        (-1, None),
        (-(2**127), None),
    ],
)
def test_lesson_19_a_serial_number_has_one_spelling(number, serial):
    (about,) = messages.parse(request(cert_id(CERTIFICATE, number))).certificates
    assert about.serial == serial


SOUND = {
    "explicit version 1": request(CERT_ID, version=tlv(0xA0, b"\x02\x01\x00")),
    "requestorName": request(CERT_ID, requestor=tlv(0xA1, tlv(0x82, b"example.test"))),
    "signed, by whomever": request(CERT_ID, signature=tlv(0xA0, tlv(0x30, b"whatever"))),
    "unknown extension": request(CERT_ID, extensions=[extension(UNHEARD_OF, b"?")]),
    "unknown extension, FALSE": request(CERT_ID, extensions=[extension(UNHEARD_OF, b"?", critical=NOT_CRITICAL)]),
    "unknown single extension": request(CERT_ID, single=[extension(UNHEARD_OF, b"?")]),
    "critical acceptable responses": request(CERT_ID, extensions=[extension(ACCEPTABLE, b"", critical=CRITICAL)]),
}  # fmt: skip


@pytest.mark.parametrize("case", SOUND)
def test_sound_requests(case):
    (about,) = messages.parse(SOUND[case]).certificates
    assert about.der == CERT_ID


MALFORMED = {
    "nothing": b"",
    "garbage": b"GET / HTTP/1.1",
    "cut short": request(CERT_ID)[:-1],
    "one byte more": request(CERT_ID) + b"\0",
    "about nothing": request(),
    "about too many": request(*[CERT_ID] * (MAX_CERTIFICATES + 1)),
    "version 2": request(CERT_ID, version=tlv(0xA0, b"\x02\x01\x01")),
    "critical unknown extension": request(CERT_ID, extensions=[extension(UNHEARD_OF, b"", critical=CRITICAL)]),
    "critical single extension": request(CERT_ID, single=[extension(UNHEARD_OF, b"", critical=CRITICAL)]),
    "truth of another kind": request(CERT_ID, extensions=[extension(UNHEARD_OF, b"", critical=b"\x01\x01\x01")]),
    "an extension twice": request(CERT_ID, extensions=[nonce(b"1"), nonce(b"1")]),
    "nonce without its octet string": request(CERT_ID, extensions=[extension(NONCE, b"12345678")]),
    "serial number without bytes": request(cert_id(CERTIFICATE, b"")),
    "serial number with a needless zero": request(cert_id(CERTIFICATE, b"\0\x01")),
    "serial number with needless ones": request(cert_id(CERTIFICATE, b"\xff\xff")),
    "parameters of a hash": request(cert_id(CERTIFICATE, 77, parameters=b"\x02\x01\x00")),
    "NULL that holds something": request(cert_id(CERTIFICATE, 77, parameters=b"\x05\x01\x00")),
    "length in long form": request(CERT_ID).replace(b"\x30", b"\x30\x81", 1),
    "indefinite length": b"\x30\x80" + request(CERT_ID)[2:] + b"\0\0",
    "length of 2^64": b"\x30\x88" + b"\xff" * 8,
    "length of lengths": b"\x30\xff" + b"\xff" * 200,
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_requests(case):
    with pytest.raises(Unreadable):
        messages.parse(MALFORMED[case])


@pytest.mark.parametrize(("length", "sound"), [(0, False), (1, True), (32, True), (128, True), (129, False)])
def test_rfc_9654_the_length_of_a_nonce(length, sound):
    asked = request(CERT_ID, extensions=[nonce(b"n" * length)])
    if sound:
        assert messages.parse(asked).nonce == b"n" * length
    else:
        with pytest.raises(Unreadable):
            messages.parse(asked)


@given(st.binary(max_size=300))
def test_whatever_the_bytes_it_is_a_request_or_unreadable(raw):
    with contextlib.suppress(Unreadable):
        assert messages.parse(raw).certificates


# ---------------------------------------------------------------- deciding

OURS, OTHER = IssuerId("1" * 32), IssuerId("2" * 32)


def stored(issuer=OURS, *, signed=True, reason=None):
    revoked = None if reason is None else NOW
    return CertificateStatus(issuer=issuer, signed=signed, revoked=revoked, reason=reason, changed=revoked)


HOLD = RevocationReason.CERTIFICATE_HOLD
SUPERSEDED = RevocationReason.SUPERSEDED


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, UNKNOWN),
        (stored(), GOOD),
        (stored(signed=False), UNKNOWN),
        (stored(OTHER), UNKNOWN),
        (stored(OTHER, reason=SUPERSEDED), UNKNOWN),
        (stored(reason=SUPERSEDED), Status(CertStatus.REVOKED, NOW, SUPERSEDED)),
        (stored(reason=HOLD), Status(CertStatus.REVOKED, NOW, HOLD)),
        (stored(signed=False, reason=SUPERSEDED), Status(CertStatus.REVOKED, NOW, SUPERSEDED)),
    ],
)
def test_what_is_said_of_what_is_stored(found, said):
    assert messages.decide(found, frozenset({OURS, IssuerId("3" * 32)})) == said


# ---------------------------------------------------------------- writing

AT = datetime(2030, 1, 31, 23, 59, 58, tzinfo=UTC)


def written(*statuses: Status, nonce: bytes | None = None, asked: bytes = CERT_ID) -> ocsp.OCSPResponse:
    singles = [
        messages.single_response(asked, one, this_update=AT, next_update=AT + timedelta(hours=6))
        for one in statuses
    ]
    key_hash = hashlib.sha1(b"key").digest()
    data = messages.response_data(key_hash=key_hash, produced_at=AT, responses=singles, nonce=nonce)
    response = messages.successful(
        data,
        algorithm=bytes.fromhex("300a06082a8648ce3d040302"),
        signature=KEY.sign(data, ec.ECDSA(hashes.SHA256())),
        certificate=CERTIFICATE.public_bytes(Encoding.DER),
    )
    read = ocsp.load_der_ocsp_response(response)
    KEY.public_key().verify(read.signature, read.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
    assert read.tbs_response_bytes == data
    assert read.responder_key_hash == key_hash
    assert read.certificates == [CERTIFICATE]
    return read


def test_a_good_certificate():
    read = written(GOOD)
    assert read.certificate_status is ocsp.OCSPCertStatus.GOOD
    assert (read.produced_at_utc, read.this_update_utc) == (AT, AT)
    assert read.next_update_utc == AT + timedelta(hours=6)
    assert read.serial_number == 77
    assert not list(read.extensions)


@pytest.mark.parametrize("reason", RevocationReason)
def test_a_revoked_certificate(reason):
    read = written(Status(CertStatus.REVOKED, AT - timedelta(days=1, microseconds=-5), reason))
    assert read.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert read.revocation_time_utc == AT - timedelta(days=1)
    if reason is RevocationReason.UNSPECIFIED:
        assert read.revocation_reason is None, "as in CRLs (RFC 5280 §5.3.1)"
    else:
        assert read.revocation_reason == FLAGS[reason]


FLAGS = {
    RevocationReason.KEY_COMPROMISE: x509.ReasonFlags.key_compromise,
    RevocationReason.CA_COMPROMISE: x509.ReasonFlags.ca_compromise,
    RevocationReason.AFFILIATION_CHANGED: x509.ReasonFlags.affiliation_changed,
    RevocationReason.SUPERSEDED: x509.ReasonFlags.superseded,
    RevocationReason.CESSATION_OF_OPERATION: x509.ReasonFlags.cessation_of_operation,
    RevocationReason.CERTIFICATE_HOLD: x509.ReasonFlags.certificate_hold,
    RevocationReason.PRIVILEGE_WITHDRAWN: x509.ReasonFlags.privilege_withdrawn,
    RevocationReason.AA_COMPROMISE: x509.ReasonFlags.aa_compromise,
}


def test_an_unknown_certificate():
    assert written(UNKNOWN).certificate_status is ocsp.OCSPCertStatus.UNKNOWN


@pytest.mark.parametrize("parameters", [NULL, b""])
def test_the_cert_id_comes_back_byte_for_byte(parameters):
    asked = cert_id(CERTIFICATE, 77, parameters=parameters)
    assert asked in written(GOOD, asked=asked).tbs_response_bytes


@pytest.mark.parametrize("length", [1, 32, 128])
def test_rfc_9654_the_nonce_comes_back(length):
    (extension_,) = written(GOOD, nonce=b"\x04" * length).extensions
    assert (extension_.value, extension_.critical) == (x509.OCSPNonce(b"\x04" * length), False)


def test_several_certificates_in_one_answer():
    read = written(GOOD, UNKNOWN, Status(CertStatus.REVOKED, AT, SUPERSEDED))
    statuses = [one.certificate_status for one in read.responses]
    assert statuses == [
        ocsp.OCSPCertStatus.GOOD,
        ocsp.OCSPCertStatus.UNKNOWN,
        ocsp.OCSPCertStatus.REVOKED,
    ]


@pytest.mark.parametrize("status", [one for one in messages.ResponseStatus if one])
def test_why_there_is_no_answer(status):
    read = ocsp.load_der_ocsp_response(messages.unsuccessful(status))
    assert read.response_status.value == status
