from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from acme_ca.ca import profiles
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.profiles import ExtendedKeyUsage
from tests.support import issuing

NOW = datetime(2030, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)
SECOND_NOW = NOW.replace(microsecond=0)
ISSUER_END = datetime(2033, 1, 1, tzinfo=UTC)
BUILT_IN, SERVER = profiles.BUILT_IN, profiles.SERVER
MAX = SERVER.max_validity
ANY_KEY = {"ec-p256", "ec-p384", "rsa 2048-8192"}


def validity(
    not_before=None, not_after=None, *, now=NOW, issuer_not_after=ISSUER_END
) -> tuple[datetime, datetime]:
    return profiles.validity(
        SERVER, now=now, not_before=not_before, not_after=not_after, issuer_not_after=issuer_not_after
    )


def days(number: float) -> timedelta:
    return timedelta(days=number)


def test_built_in_profiles():
    usages = {name: profile.extended_key_usages for name, profile in BUILT_IN.items() if name not in VCC}
    server, client = ExtendedKeyUsage.SERVER_AUTH, ExtendedKeyUsage.CLIENT_AUTH
    assert usages == {
        "server": (server,),
        "client": (client,),
        "mtls": (server, client),
        "shortlived": (server,),
        "acme_server": (server,),
        "ocsp_responder": (ExtendedKeyUsage.OCSP_SIGNING,),
        "audit_signer": (ExtendedKeyUsage.AUDIT_SIGNING,),
        "operator": (client,),
    }
    assert all(profile.name == name and profile.version == 1 for name, profile in BUILT_IN.items())
    own = {name for name, profile in BUILT_IN.items() if not profile.offered}
    assert own == {"acme_server", "ocsp_responder", "operator", "audit_signer"}


def test_short_lived_certificates_point_to_no_status():
    profile = BUILT_IN["shortlived"]
    assert profile.validity == profile.max_validity == days(7)
    assert [profile.crl_distribution_point, profile.ocsp, profile.ca_issuers] == [False] * 3


BOTH = ("serverAuth", "clientAuth")
VCC = {
    # days, threshold, keys, purposes, names, renews by itself, marks
    "clara_service_auth": (
        730,
        60,
        {"ec-p256", "rsa 2048-2048"},
        BOTH,
        ["exact:clara.vcc.internal", "wildcard:*.clara.vcc.internal"],
        True,
        ("enhanced-audit",),
    ),
    "clara_model_signing": (1825, 90, {"rsa 4096-4096"}, ("codeSigning",), None, False, ()),
    "covina_orchestrator": (365, 30, ANY_KEY, BOTH, ["suffix:covina.vcc.internal"], True, ()),
    "argus_api": (
        730,
        45,
        ANY_KEY,
        ("serverAuth",),
        ["exact:argus.vcc.internal", "exact:api.argus.vcc.internal"],
        True,
        (),
    ),
    "veritas_pipeline": (365, 30, ANY_KEY, ("clientAuth",), None, True, ()),
}


@pytest.mark.parametrize("name", VCC)
def test_the_figures_of_the_vcc_documents(name):
    profile = BUILT_IN[name]
    rsa = f"rsa {profile.min_rsa_bits}-{profile.max_rsa_bits}"
    assert profile.validity == profile.max_validity
    assert (
        profile.validity // days(1),
        profile.renewal_threshold // days(1),
        {rsa if kind == "rsa" else str(kind) for kind in profile.key_algorithms},
        profile.extended_key_usages,
        None if profile.allowed_names is None else [str(rule) for rule in profile.allowed_names],
        profile.auto_renewal,
        profile.compliance,
    ) == VCC[name]
    assert profile.offered


VCC_NAMES = {
    "clara_service_auth": (
        ["clara.vcc.internal", "a.clara.vcc.internal", "*.clara.vcc.internal"],
        [
            "a.b.clara.vcc.internal",
            "*.a.clara.vcc.internal",
            "vcc.internal",
            "xclara.vcc.internal",
            "10.0.0.1",
        ],
    ),
    "covina_orchestrator": (
        ["covina.vcc.internal", "a.b.covina.vcc.internal", "*.covina.vcc.internal"],
        ["vcc.internal", "*.vcc.internal", "xcovina.vcc.internal"],
    ),
    "argus_api": (
        ["argus.vcc.internal", "api.argus.vcc.internal"],
        ["www.argus.vcc.internal", "*.argus.vcc.internal"],
    ),
    "veritas_pipeline": (["anything.example.org", "10.0.0.1"], []),
}


@pytest.mark.parametrize("name", VCC_NAMES)
def test_the_names_of_the_vcc_documents(name):
    allowed, refused = (issuing.names(*several) for several in VCC_NAMES[name])
    assert BUILT_IN[name].name_violations(allowed) == []
    assert [problem.identifier for problem in BUILT_IN[name].name_violations(refused)] == list(refused)


def test_a_built_in_profile_that_cannot_work_stops_the_start():
    with pytest.raises(ValidationError, match="longer than max_validity"):
        profiles._like_server("broken", "…", max_validity=days(1))


def test_the_default_is_ninety_days_backdated_one_minute():
    begin, end = validity()
    assert begin == SECOND_NOW - timedelta(minutes=1)
    assert end - begin + timedelta(seconds=1) == days(90), "both ends count (RFC 5280 §4.1.2.5)"


def test_the_default_ends_with_the_issuer():
    assert validity(issuer_not_after=SECOND_NOW + days(7))[1] == SECOND_NOW + days(7)


GRANTED = {
    "begin now": (SECOND_NOW, None),
    "begin in a month": (SECOND_NOW + days(30), None),
    "begin two days ago": (SECOND_NOW - days(1.99), None),
    "end in an hour": (None, SECOND_NOW + timedelta(hours=1)),
    "both": (SECOND_NOW, SECOND_NOW + timedelta(hours=36)),
    "longest": (SECOND_NOW, SECOND_NOW + MAX - timedelta(seconds=1)),
    "in another zone": (SECOND_NOW.astimezone(tz=None), None),
}


@pytest.mark.parametrize(("not_before", "not_after"), GRANTED.values(), ids=GRANTED)
def test_wishes_are_met_to_the_second(not_before, not_after):
    begin, end = validity(not_before, not_after)
    assert begin == (not_before or SECOND_NOW - timedelta(minutes=1))
    assert end == (not_after or begin + SERVER.validity - timedelta(seconds=1))


REFUSED = {
    "end is past": (None, SECOND_NOW - days(2), "never be valid"),
    "begin and end are past": (SECOND_NOW - days(1), SECOND_NOW - days(0.5), "in the past"),
    "reversed": (SECOND_NOW + days(3), SECOND_NOW + days(1), "never be valid"),
    "equal": (SECOND_NOW, SECOND_NOW, "never be valid"),
    "a century": (None, SECOND_NOW + days(36500), "longer than the profile"),
    "a second too long": (SECOND_NOW, SECOND_NOW + MAX, "longer than the profile"),
    "begin too early": (SECOND_NOW - days(3), None, "more than 48 hours ago"),
    "begin too late": (SECOND_NOW + days(31), None, "more than 30 days ahead"),
    "fraction in notBefore": (NOW, None, "notBefore has a fraction"),
    "fraction in notAfter": (None, NOW + days(1), "notAfter has a fraction"),
}


@pytest.mark.parametrize(("not_before", "not_after", "why"), REFUSED.values(), ids=REFUSED)
def test_wishes_that_cannot_be_met_are_refused(not_before, not_after, why):
    with pytest.raises(Problem) as refused:
        validity(not_before, not_after)
    assert refused.value.type is ErrorType.MALFORMED
    assert why in refused.value.detail


def test_a_wish_beyond_the_issuer_is_refused_not_clipped():
    with pytest.raises(Problem, match="after the end of the CA's issuing certificate, 2030-06-08T"):
        validity(None, SECOND_NOW + days(8), issuer_not_after=SECOND_NOW + days(7))


def test_an_expired_issuer_gives_nothing():
    with pytest.raises(Problem) as refused:
        validity(issuer_not_after=NOW)
    assert refused.value.type is ErrorType.SERVER_INTERNAL


# around NOW, so that a good share of the wishes can be met
moments = st.integers(-5 * 86400, 500 * 86400).map(lambda seconds: SECOND_NOW + timedelta(seconds=seconds))
wishes = moments | st.none()


@given(wishes, wishes, moments)
def test_what_is_given_is_sound_and_as_wished(not_before, not_after, issuer_end):
    try:
        begin, end = validity(not_before, not_after, issuer_not_after=issuer_end)
    except Problem:
        return
    assert begin < end <= issuer_end
    assert end > NOW
    assert end - begin < MAX
    assert not_before in {None, begin}
    assert not_after in {None, end}
    assert begin.microsecond == end.microsecond == 0
