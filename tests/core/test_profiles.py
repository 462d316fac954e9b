"""Which profiles can work, and which names they take."""

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from acme_ca.ca.profiles import BUILT_IN, SERVER
from acme_ca.core.challenges import ChallengeType
from acme_ca.core.codes import Code
from acme_ca.core.keys import KeyAlgorithm
from acme_ca.core.problems import ErrorType
from acme_ca.core.profiles import KeyUsage, Profile
from tests.support.issuing import names


def server_with(**differences) -> Profile:
    return Profile(**(SERVER.model_dump() | differences))


REFUSED = {
    "default over maximum": ({"validity": "399 days"}, "longer than max_validity"),
    "seconds": ({"validity": "5 minutes"}, "greater than"),
    "a century": ({"max_validity": "100 years"}, "less than or equal"),
    "a number of what": ({"validity": 90}, "write a number and a unit"),
    "no key": ({"key_algorithms": []}, "at least 1"),
    "unknown key": ({"key_algorithms": ["dsa"]}, "'ec-p256'"),
    "no size of RSA keys": ({"min_rsa_bits": 4096, "max_rsa_bits": 3072}, "min_rsa_bits is more"),
    "small RSA keys": ({"min_rsa_bits": 1024}, "2048"),
    "huge RSA keys": ({"max_rsa_bits": 16384}, "8192"),
    "no usage": ({"key_usages": []}, "at least 1"),
    "no purpose": ({"extended_key_usages": []}, "at least 1"),
    "a purpose twice": ({"extended_key_usages": ["serverAuth", "serverAuth"]}, "name one twice"),
    "keyEncipherment with EC only": (
        {"key_algorithms": ["ec-p256", "ed25519"], "key_usages": ["digitalSignature", "keyEncipherment"]},
        "keyEncipherment is nothing that a key",
    ),
    "keyAgreement with RSA only": (
        {"key_algorithms": ["rsa"], "key_usages": ["digitalSignature", "keyAgreement"]},
        "keyAgreement is nothing that a key",
    ),
    "EC keys that may do nothing": ({"key_usages": ["keyEncipherment"]}, "ec-p256 key with these key_usages"),
    "a client that cannot sign": (
        {"key_algorithms": ["rsa"], "key_usages": ["keyEncipherment"], "extended_key_usages": ["clientAuth"]},
        "cannot serve clientAuth",
    ),
    "code signing that cannot sign": (
        {
            "key_algorithms": ["rsa"],
            "key_usages": ["contentCommitment"],
            "extended_key_usages": ["codeSigning"],
        },
        "cannot serve codeSigning",
    ),
    "responders for anyone": (
        {"key_usages": ["digitalSignature"], "extended_key_usages": ["OCSPSigning"]},
        "offered must be false",
    ),
    "must-staple without OCSP": ({"must_staple": True, "ocsp": False}, "nothing to staple"),
    "threshold as long as the life": ({"renewal_threshold": "90 days"}, "renewal_threshold is not shorter"),
    "threshold of nothing": ({"renewal_threshold": "0 days"}, "greater than"),
    "told before it is made": ({"notification_days": [30, 90]}, "before the certificate is made"),
    "told on the day after": ({"notification_days": [0]}, "greater than or equal to 1"),
    "told in another age": ({"notification_days": [10**12]}, "less than or equal to 14600"),
    "contacts who are never told": ({"notification_contacts": ["a@example.org"]}, "never told"),
    "names that cannot be ordered": ({"allowed_names": []}, "no order could be placed"),
    "neither name nor subject": ({"allowed_names": [], "offered": False}, "needs a subject"),
    "required and not allowed": (
        {"allowed_names": ["suffix:a.example"], "required_names": ["exact:b.example"]},
        "required exact:b.example matches nothing",
    ),
    "required and denied": (
        {"denied_names": ["suffix:a.example"], "required_names": ["exact:b.a.example"]},
        "required exact:b.a.example is denied",
    ),
    "required and nothing allowed": (
        {"allowed_names": [], "offered": False, "organization": "X", "required_names": ["exact:b.example"]},
        "matches nothing",
    ),
    "wildcards without DNS": (
        {"allowed_names": ["exact:*.a.example"], "challenges": ["http-01"]},
        r"no challenge of the profile can prove what exact:\*.a.example",
    ),
    "a required wildcard without DNS": (
        {"required_names": ["exact:*.a.example"], "challenges": ["tls-alpn-01"]},
        "no challenge",
    ),
    "addresses by DNS": ({"allowed_names": ["network:10.0.0.0/8"], "challenges": ["dns-01"]}, "no challenge"),
    "one address by DNS": ({"allowed_names": ["exact:10.0.0.1"], "challenges": ["dns-01"]}, "no challenge"),
    "no challenge": ({"challenges": []}, "at least 1"),
    "a pattern that does not compile": ({"allowed_names": ["regex:["]}, "unclosed character class"),
    "country": ({"country": "Germany"}, "pattern"),
    "organization too long": ({"organization": "x" * 65}, "at most 64 characters"),
    "organization of a space": ({"organization": " "}, "visible ones at both ends"),
    "organization with a control character": ({"organization": "a\nb"}, "visible ones at both ends"),
    "name": ({"name": "Server"}, "pattern"),
    "name with a newline": ({"name": "server\n"}, "pattern"),
    "description": ({"description": ""}, "at least 1"),
    "description with NUL": ({"description": "a\0"}, "pattern"),
    "description that paints": ({"description": "\x1b[31mred"}, "pattern"),
    "a service with NUL": ({"allowed_services": ["a\0"]}, "pattern"),
    "a pattern with NUL": ({"allowed_names": ["regex:a\0"]}, "do not print"),
    "a pattern of nothing": ({"allowed_names": ["regex:"]}, "empty"),
    "an RSA size that no key has": (
        {"key_algorithms": ["rsa"], "min_rsa_bits": 2049, "max_rsa_bits": 2055},
        "hold no multiple of 8",
    ),
    "version": ({"version": 0}, "greater than or equal to 1"),
    "unknown": ({"unknown": 1}, "Extra inputs"),
}


@pytest.mark.parametrize(("differences", "why"), REFUSED.values(), ids=REFUSED)
def test_a_profile_that_cannot_work_is_refused_with_the_reason(differences, why):
    with pytest.raises(ValidationError, match=why):
        server_with(**differences)


def test_all_reasons_are_told_at_once():
    with pytest.raises(ValidationError) as refused:
        server_with(must_staple=True, ocsp=False, validity="399 days")
    assert "nothing to staple" in str(refused.value)
    assert "longer than max_validity" in str(refused.value)


WORKING = {
    "minutes": {"validity": "10 minutes", "max_validity": "1 hour"},
    "years": {"max_validity": "10 years"},
    "required and allowed": {
        "allowed_names": ["suffix:a.example", "network:10.0.0.0/8"],
        "required_names": ["exact:b.a.example", "network:10.1.0.0/16"],
    },
    "a wildcard rule without DNS": {"allowed_names": ["wildcard:*.a.example"], "challenges": ["http-01"]},
    "EC that agrees": {"key_algorithms": ["ec-p256"], "key_usages": ["keyAgreement"]},
    "RSA that takes keys": {"key_algorithms": ["rsa"], "key_usages": ["keyEncipherment"]},
    "addresses": {"allowed_names": ["network:10.0.0.0/8"], "challenges": ["http-01"]},
    "all subject": {"country": "DE", "organization": "Ä", "organizational_unit": "x" * 64},
    "told": {"notification_days": [30, 7], "notification_contacts": ["a@example.org"]},
}


@pytest.mark.parametrize("differences", WORKING.values(), ids=WORKING)
def test_a_profile_that_can_work(differences):
    made = server_with(**differences)
    assert Profile.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_is_stored_reads_the_same(name):
    profile = BUILT_IN[name]
    assert Profile.model_validate_json(profile.model_dump_json()) == profile
    assert Profile(**json.loads(profile.model_dump_json())) == profile


@given(st.permutations(list(KeyAlgorithm)), st.permutations(list(ChallengeType)))
def test_sets_are_stored_in_one_order(kinds, challenges):
    """Or the same built-in profile would look changed at the next start."""
    usages = [KeyUsage.DIGITAL_SIGNATURE]
    text = server_with(key_algorithms=kinds, challenges=challenges, key_usages=usages).model_dump_json()
    assert (
        text
        == server_with(
            key_algorithms=list(KeyAlgorithm), challenges=list(ChallengeType), key_usages=usages
        ).model_dump_json()
    )


# ---------------------------------------------------------------- its names


def test_each_name_that_is_not_allowed_is_told():
    profile = server_with(allowed_names=["suffix:a.example", "network:10.0.0.0/8"])
    asked = names("a.example", "b.example", "10.0.0.1", "192.0.2.1")
    problems = profile.name_violations(asked)
    assert [problem.identifier for problem in problems] == [asked[1], asked[3]]
    assert {problem.type for problem in problems} == {ErrorType.REJECTED_IDENTIFIER}
    assert "The profile server is not for b.example" in problems[0].detail


def test_denied_names_win_also_where_a_wildcard_would_cover_them():
    profile = server_with(
        allowed_names=["suffix:a.example", "network:10.0.0.0/8"],
        denied_names=["exact:vault.a.example", "network:10.9.0.0/16"],
    )
    asked = names("b.a.example", "vault.a.example", "*.a.example", "10.9.0.1", "10.0.0.1", "*.b.a.example")
    problems = profile.name_violations(asked)
    assert [problem.identifier for problem in problems] == [asked[1], asked[2], asked[3]]
    assert {problem.code for problem in problems} == {Code.NAME_NOT_IN_PROFILE}


def test_a_profile_may_only_deny():
    profile = server_with(denied_names=["suffix:secret.example"])
    asked = names("a.example", "x.secret.example")
    assert [problem.identifier for problem in profile.name_violations(asked)] == [asked[1]]


def test_each_required_rule_needs_a_name():
    profile = server_with(required_names=["suffix:a.example", "exact:b.example"])
    assert profile.name_violations(names("x.a.example", "b.example", "c.example")) == []
    (problem,) = profile.name_violations(names("b.example"))
    assert problem.identifier is None
    assert "requires a name that matches suffix:a.example" in problem.detail


def test_a_profile_without_rules_takes_any_name():
    assert SERVER.name_violations(names("a.example", "*.example.org", "10.0.0.1")) == []


def without(*fields: str, **differences) -> Profile:
    """`server`, with defaults for these fields."""
    return Profile(**{name: value for name, value in SERVER if name not in fields} | differences)


@pytest.mark.parametrize(
    ("kinds", "usages"),
    [
        (["ec-p256"], {KeyUsage.DIGITAL_SIGNATURE}),
        (["rsa", "ec-p256"], {KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_ENCIPHERMENT}),
    ],
)
def test_the_default_usages_are_those_that_the_keys_can_do(kinds, usages):
    assert without("key_usages", key_algorithms=kinds).key_usages == usages


def test_usages_of_keys():
    assert SERVER.usages_of(KeyAlgorithm.RSA) == {KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_ENCIPHERMENT}
    assert SERVER.usages_of(KeyAlgorithm.EC_P256) == {KeyUsage.DIGITAL_SIGNATURE}


def test_lengths_of_time_are_read_as_people_write_them():
    assert server_with(validity="12 hours").validity == timedelta(hours=12)
    assert SERVER.model_dump()["validity"] == "90 days"
