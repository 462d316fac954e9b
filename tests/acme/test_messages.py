"""What clients send, read into values; values, written as RFC 8555 §7.1 has them."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.acme import messages
from acme_ca.acme.urls import Urls
from acme_ca.core import identifiers
from acme_ca.core.accounts import Account
from acme_ca.core.challenges import ChallengeType
from acme_ca.core.orders import Authorization, Order
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.profiles import ProfileRef
from acme_ca.core.states import AccountStatus, AuthorizationStatus, OrderStatus
from tests.support.problems import tried

NOW = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)
URLS = Urls("https://ca.test")
ID = "0" * 32


# ---------------------------------------------------------------- times


def order_times(text: object) -> datetime | None:
    payload = {"identifiers": [{"type": "dns", "value": "a.example"}], "notBefore": text}
    return messages.new_order(payload, most=1).not_before


@given(st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001  hypothesis adds the zone
def test_reading_what_was_written_gives_the_same_second(time):
    assert order_times(messages.timestamp(time)) == time.replace(microsecond=0)


@given(
    st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)),  # noqa: DTZ001
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
    st.sampled_from(["T", "t"]),
)
def test_times_of_other_zones_mean_the_same_instant(naive, minutes, separator):
    """RFC 3339 §5.6."""
    time = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert order_times(time.isoformat(separator)) == time


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2030-01-31T12:00:00Z", NOW),
        ("2030-01-31t12:00:00z", NOW),
        ("2030-01-31T13:00:00+01:00", NOW),
        ("2030-01-31T12:00:00.000Z", NOW),
        ("2030-01-31T12:00:00.5Z", NOW + timedelta(milliseconds=500)),
        (None, None),
    ],
)
def test_times_that_are_read(text, time):
    assert order_times(text) == time


NO_TIMES = {
    "word": "tomorrow",
    "empty": "",
    "date": "2030-01-31",
    "no zone": "2030-01-31T12:00:00",
    "space": "2030-01-31 12:00:00Z",
    "no seconds": "2030-01-31T12:00Z",
    "month 13": "2030-13-01T00:00:00Z",
    "30 February": "2030-02-30T00:00:00Z",
    "hour 25": "2030-01-31T25:00:00Z",
    "year 0": "0000-01-01T00:00:00Z",
    "before the first year": "0001-01-01T00:00:00+23:59",
    "after the last year": "9999-12-31T23:59:59-23:59",
    "the first moment": "0001-01-01T00:00:00Z",
    "the last moment": "9999-12-31T23:59:59.999999Z",
    "zone of 99 hours": "2030-01-31T12:00:00+99:00",
    "basic format": "20300131T120000Z",
    "week": "2030-W05-4T12:00:00Z",
    "other digits": "２030-01-31T12:00:00Z".replace("２", "\uff12"),  # noqa: RUF001
    "line feed": "2030-01-31T12:00:00Z\n",
    "number": 1895572800,
    "object": {},
    "true": True,
}


@pytest.mark.parametrize("text", NO_TIMES.values(), ids=NO_TIMES)
def test_times_that_are_refused(text):
    with pytest.raises(Problem, match=r"RFC 3339") as refused:
        order_times(text)
    assert refused.value.type is ErrorType.MALFORMED


# ---------------------------------------------------------------- orders


def new_order(*wanted: object, most: int = 100) -> messages.NewOrder:
    return messages.new_order({"identifiers": list(wanted)}, most=most)


def dns(value: object) -> dict[str, object]:
    return {"type": "dns", "value": value}


def test_duplicates_are_folded():
    """Lesson 22: N, N and n are one name; the client's order stays."""
    order = new_order(
        dns("b.example"), dns("A.example"), dns("a.example"), dns("b.example"), dns("*.a.example")
    )
    assert [str(one) for one in order.identifiers] == ["dns:b.example", "dns:a.example", "dns:*.a.example"]


@pytest.mark.parametrize(
    "wanted",
    [
        None,
        [],
        {},
        "a.example",
        1,
        [None],
        ["a.example"],
        [[]],
        [{}],
        [{"type": "dns"}],
        [{"value": "a.example"}],
    ],
)
def test_what_is_no_list_of_identifiers_is_malformed(wanted):
    with pytest.raises(Problem) as refused:
        messages.new_order({"identifiers": wanted}, most=100)
    assert refused.value.type is ErrorType.MALFORMED


def test_the_number_of_identifiers_is_limited():
    wanted = [dns(f"n{number}.example") for number in range(101)]
    assert len(new_order(*wanted[:100]).identifiers) == 100
    with pytest.raises(Problem, match="101") as refused:
        new_order(*wanted)
    assert refused.value.type is ErrorType.MALFORMED


def test_each_bad_identifier_has_a_subproblem():
    """RFC 8555 §6.7.1: with the identifier as the client wrote it."""
    wanted = [dns("good.example"), dns("Bad_.example"), {"type": "fax", "value": "1"}]
    with pytest.raises(Problem) as refused:
        new_order(*wanted)
    document = refused.value.document()
    assert "identifier" not in document
    assert [sub["identifier"] for sub in document["subproblems"]] == wanted[1:]
    assert [sub["type"].rpartition(":")[2] for sub in document["subproblems"]] == [
        "rejectedIdentifier",
        "unsupportedIdentifier",
    ]


def test_members_beside_type_and_value_are_not_reflected():
    with pytest.raises(Problem) as refused:
        new_order({**dns("bad_.example"), "more": "x" * 1000})
    assert "x" * 1000 not in json.dumps(refused.value.document())


# ---------------------------------------------------------------- accounts

CONTACTS_TAKEN = [
    None,
    [],
    ["mailto:admin@example.org"],
    ["MAILTO:first.last+tag@example.org", "mailto:o'brien@xn--bcher-kva.example"],
    ["mailto:root@localhost"],
]


@pytest.mark.parametrize("value", CONTACTS_TAKEN)
def test_contacts_that_are_taken(value):
    """Lesson 30: the list may be empty."""
    taken = messages.contacts(value, most=10)
    assert [contact.lower() for contact in value or []] == [contact.lower() for contact in taken]


CONTACTS_REFUSED = {
    "tel:+12025551212": ErrorType.UNSUPPORTED_CONTACT,
    "https://example.com/contact": ErrorType.UNSUPPORTED_CONTACT,
    "": ErrorType.INVALID_CONTACT,
    "noscheme": ErrorType.INVALID_CONTACT,
    "mailto:": ErrorType.INVALID_CONTACT,
    "mailto:nobody": ErrorType.INVALID_CONTACT,
    "mailto:a@": ErrorType.INVALID_CONTACT,
    "mailto:@example.com": ErrorType.INVALID_CONTACT,
    "mailto:a b@example.com": ErrorType.INVALID_CONTACT,
    "mailto:a@example.com\r\nBcc:x@example.com": ErrorType.INVALID_CONTACT,
    "mailto:a@example.com?subject=x": ErrorType.INVALID_CONTACT,
    "mailto:a@example.com,b@example.com": ErrorType.INVALID_CONTACT,
    "mailto:a%2Cb@example.com": ErrorType.INVALID_CONTACT,
    "mailto:a@b@example.com": ErrorType.INVALID_CONTACT,
    "mailto:a@-bad-.example": ErrorType.INVALID_CONTACT,
    "mailto:a@*.example.com": ErrorType.INVALID_CONTACT,
    "mailto:a@192.0.2.1": ErrorType.INVALID_CONTACT,
    "mailto:\u00e9@example.com": ErrorType.INVALID_CONTACT,
    "mailto:" + "a" * 65 + "@example.com": ErrorType.INVALID_CONTACT,
    "mailto:" + "a" * 400 + "@example.com": ErrorType.INVALID_CONTACT,
}


@pytest.mark.parametrize(("contact", "error"), CONTACTS_REFUSED.items())
def test_contacts_that_are_refused(contact, error):
    """RFC 8555 §7.3: `unsupportedContact` for a scheme, `invalidContact` for hfields and a second address."""
    with pytest.raises(Problem) as refused:
        messages.contacts([contact], most=10)
    assert refused.value.type is error


@pytest.mark.parametrize("value", ["mailto:a@example.com", 1, {}, [1], [None], [["mailto:a@example.com"]]])
def test_contacts_of_another_json_type_are_malformed(value):
    assert tried(messages.contacts, value, most=10).type is ErrorType.MALFORMED


def test_the_number_of_contacts_is_limited():
    refused = tried(messages.contacts, ["mailto:a@example.com"] * 11, most=10)
    assert refused.type is ErrorType.INVALID_CONTACT


@pytest.mark.parametrize("member", ["onlyReturnExisting", "termsOfServiceAgreed"])
@pytest.mark.parametrize("value", ["true", 1, 0, [], {}])
def test_a_flag_is_true_or_false(member, value):
    """Lesson 10: "false" as text must not agree to anything, nor 1."""
    assert tried(messages.new_account, {member: value}).type is ErrorType.MALFORMED


def test_an_empty_new_account_asks_for_nothing():
    wish = messages.new_account({})
    assert (wish.only_return_existing, wish.terms_agreed, wish.contact, wish.binding) == (
        False,
        False,
        None,
        None,
    )


# ---------------------------------------------------------------- CSRs and certificates


@pytest.mark.parametrize("value", [None, "", 1, [], {}, "A", "AA==", "-----BEGIN CERTIFICATE REQUEST-----"])
def test_csr_and_certificate_are_base64url(value):
    for read, member in ((messages.csr_of, "csr"), (messages.revocation, "certificate")):
        assert tried(read, {member: value}).type is ErrorType.MALFORMED
        assert tried(read, {}).type is ErrorType.MALFORMED


def test_a_revocation_without_reason_is_unspecified():
    assert messages.revocation({"certificate": "AAAA"}) == messages.Revocation(certificate=bytes(3), reason=0)


# ---------------------------------------------------------------- written

ACCOUNT = Account(id=ID, status=AccountStatus.VALID, jwk="{}", thumbprint="t")
ORDER = Order(
    id=ID,
    account_id=ID,
    status=OrderStatus.PENDING,
    identifiers=(identifiers.dns("*.a.example"),),
    authorizations=(ID,),
    expires=NOW,
    not_before=None,
    not_after=None,
    profile=ProfileRef(name="server", version=1),
    issuer="1",
)
AUTHORIZATION = Authorization(
    id=ID,
    account_id=ID,
    identifier=identifiers.dns("a.example"),
    status=AuthorizationStatus.PENDING,
    expires=NOW,
    token="token",
    offered=tuple(ChallengeType),
)


def test_an_account_object():
    """RFC 8555 §7.1.2: `orders` is required."""
    assert messages.account_object(ACCOUNT, URLS) == {
        "status": "valid",
        "orders": f"https://ca.test/acme/acct/{ID}/orders",
    }
    full = replace(
        ACCOUNT, contact=("mailto:a@b.c",), terms_agreed=True, eab_key_id="k", eab_binding={"payload": ""}
    )
    assert messages.account_object(full, URLS) | {"status": 1, "orders": 1} == {
        "status": 1,
        "orders": 1,
        "contact": ("mailto:a@b.c",),
        "termsOfServiceAgreed": True,
        "externalAccountBinding": {"payload": ""},
    }


def test_an_order_object():
    """RFC 8555 §7.1.3: the certificate only of a valid order."""
    assert messages.order_object(ORDER, URLS) == {
        "status": "pending",
        "expires": "2030-01-31T12:00:00Z",
        "identifiers": [{"type": "dns", "value": "*.a.example"}],
        "authorizations": [f"https://ca.test/acme/authz/{ID}"],
        "finalize": f"https://ca.test/acme/order/{ID}/finalize",
        "profile": "server",
    }
    for status in OrderStatus:
        written = messages.order_object(replace(ORDER, status=status, serial="5"), URLS)
        assert ("certificate" in written) is (status is OrderStatus.VALID)
    wished = messages.order_object(replace(ORDER, not_before=NOW, not_after=NOW, error={"type": "x"}), URLS)
    assert wished["notBefore"] == wished["notAfter"] == "2030-01-31T12:00:00Z"
    assert wished["error"] == {"type": "x"}


def test_an_authorization_object():
    """RFC 8555 §7.1.4; lesson 29: every challenge has a token."""
    written = messages.authorization_object(AUTHORIZATION, URLS)
    assert written["identifier"] == {"type": "dns", "value": "a.example"}
    assert "wildcard" not in written
    assert [challenge["type"] for challenge in written["challenges"]] == ["http-01", "dns-01", "tls-alpn-01"]
    assert {challenge["token"] for challenge in written["challenges"]} == {"token"}
    assert len({challenge["url"] for challenge in written["challenges"]}) == 3


def test_the_authorization_of_a_wildcard_has_its_base():
    wildcard = replace(AUTHORIZATION, identifier=identifiers.dns("*.a.example"))
    written = messages.authorization_object(wildcard, URLS)
    assert written["identifier"]["value"] == "a.example"
    assert written["wildcard"] is True


@pytest.mark.parametrize(
    ("members", "shown"),
    [
        ({}, ["http-01", "dns-01", "tls-alpn-01"]),
        ({"challenge": ChallengeType.DNS_01}, ["http-01", "dns-01", "tls-alpn-01"]),
        (
            {"challenge": ChallengeType.DNS_01, "status": AuthorizationStatus.VALID, "validated": NOW},
            ["dns-01"],
        ),
        ({"challenge": ChallengeType.DNS_01, "status": AuthorizationStatus.INVALID, "error": {}}, ["dns-01"]),
    ],
)
def test_which_challenges_an_authorization_shows(members, shown):
    """RFC 8555 §7.1.4: of a valid one the challenge that was validated, of an invalid one that which failed."""
    written = messages.authorization_object(replace(AUTHORIZATION, **members), URLS)
    assert [challenge["type"] for challenge in written["challenges"]] == shown


def test_only_an_invalid_challenge_has_an_error_and_only_a_valid_one_its_date():
    kind = ChallengeType.DNS_01
    for members, more in (
        ({}, set()),
        ({"challenge": kind}, set()),
        ({"challenge": kind, "validated": NOW, "status": AuthorizationStatus.VALID}, {"validated"}),
        ({"challenge": kind, "error": {"type": "x"}, "status": AuthorizationStatus.INVALID}, {"error"}),
    ):
        written = messages.challenge_object(replace(AUTHORIZATION, **members), kind, URLS)
        assert set(written) == {"type", "url", "status", "token"} | more


@given(st.binary(max_size=300))
def test_pem_is_strict(der):
    """RFC 7468 §3: lines of 64, no text around."""
    lines = messages.pem(der).decode().split("\n")
    assert (lines[0], lines[-2], lines[-1]) == (
        "-----BEGIN CERTIFICATE-----",
        "-----END CERTIFICATE-----",
        "",
    )
    assert all(len(line) == 64 for line in lines[1:-3])


def test_pem_is_read_back(hierarchy):
    der = hierarchy.root.certificate.public_bytes(Encoding.DER)
    assert x509.load_pem_x509_certificate(messages.pem(der)) == hierarchy.root.certificate
