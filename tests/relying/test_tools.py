"""The relying parties themselves, on a CA that is not ours: they accept what is sound and refuse what is spoiled.

So that their consent, in the other tests of this folder, is worth something.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509 import ReasonFlags, ocsp

from tests.support.lint import (
    assert_no_errors,
    findings_in_certificate,
    findings_in_crl,
    findings_in_ocsp,
)
from tests.support.pki import BEGIN, NOW, Holder, revoked
from tests.support.relying import (
    Party,
    Question,
    Status,
    assert_refused,
    assert_revoked,
    assert_valid,
    certtool_crl,
    certtool_crl_info,
    certtool_verify,
    java_validate,
    ocsptool_ask,
    ocsptool_response,
    openssl_crl,
    openssl_ocsp,
    openssl_verify,
)
from tests.support.responders import HttpResponder

pytestmark = pytest.mark.client

PAST = NOW - timedelta(minutes=30)
COMPROMISE = ReasonFlags.key_compromise
GOOD, REVOKED, UNKNOWN = (getattr(ocsp.OCSPCertStatus, name) for name in ("GOOD", "REVOKED", "UNKNOWN"))


@dataclass(frozen=True, kw_only=True)
class World:
    """A CA with two leaves, and its web server."""

    root: Holder
    ca: Holder
    responder: Holder
    leaf: Holder
    stranger: Holder
    """Of the name of `ca`, but another's."""
    party: Party
    web: HttpResponder

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.web.port}"

    @property
    def crl_url(self) -> str:
        return f"{self.url}/a.crl"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = Holder.root("Root")
    ca = root.intermediate("CA")
    with HttpResponder() as web:
        url = f"http://127.0.0.1:{web.port}"
        leaf = ca.leaf(
            "leaf.test", crl_url=f"{url}/a.crl", ocsp_url=f"{url}/ocsp", issuer_url=f"{url}/ca.cer"
        )
        yield World(
            root=root,
            ca=ca,
            responder=ca.responder(),
            leaf=leaf,
            stranger=Holder.root("Another root").intermediate("CA"),
            party=Party(
                place=tmp_path_factory.mktemp("party"),
                root=root.certificate,
                intermediates=(ca.certificate,),
            ),
            web=web,
        )


# ---------------------------------------------------------------- CRLs


@pytest.fixture(scope="module")
def crls(world):
    """By name; the first word of those that are no good is `spoiled`."""
    entry = revoked(world.leaf.certificate, COMPROMISE, invalid_since=BEGIN)
    held = revoked(world.leaf.certificate, ReasonFlags.certificate_hold)
    return {
        "empty": world.ca.crl(url=world.crl_url),
        "revoked": world.ca.crl(entry, url=world.crl_url),
        "held": world.ca.crl(held, url=world.crl_url),
        "spoiled: of another CA": world.stranger.crl(url=world.crl_url),
        "spoiled: out of date": world.ca.crl(url=world.crl_url, until=PAST),
        "spoiled: of another shard": world.ca.crl(url=f"{world.url}/b.crl"),
    }


@pytest.fixture(scope="module")
def java_on_crls(world, crls):
    """By the same names, with the leaf's CRL from a store; and with all CRLs of the chain."""
    leaf = world.leaf.certificate
    asked = [Question(leaf=leaf, party=world.party.with_crls(crl), means="crl") for crl in crls.values()]
    chain = Question(leaf=leaf, party=world.party.with_crls(crls["empty"]), means="crl", scope="chain")
    both = world.party.with_crls(crls["empty"], world.root.crl())
    asked += [chain, Question(leaf=leaf, party=both, means="crl", scope="chain")]
    names = [*crls, "spoiled: none of the root", "chain"]
    return dict(zip(names, java_validate(*asked), strict=True))


def test_a_certificate_that_is_not_on_the_crl_is_valid(world, crls, java_on_crls):
    party = world.party.with_crls(crls["empty"])
    assert_valid(
        openssl_verify(world.leaf.certificate, party, crls="leaf"),
        certtool_verify(world.leaf.certificate, party, host="leaf.test"),
        java_on_crls["empty"],
        java_on_crls["chain"],
    )


@pytest.mark.parametrize(("crl", "reason"), [("revoked", "KEY_COMPROMISE"), ("held", "CERTIFICATE_HOLD")])
def test_a_certificate_on_the_crl_is_revoked(world, crls, java_on_crls, crl, reason):
    party = world.party.with_crls(crls[crl])
    assert_revoked(
        openssl_verify(world.leaf.certificate, party, crls="leaf"),
        certtool_verify(world.leaf.certificate, party),
        java_on_crls[crl],
    )
    assert java_on_crls[crl].reason == reason


@pytest.mark.parametrize(
    "crl", ["spoiled: of another CA", "spoiled: out of date", "spoiled: of another shard"]
)
def test_a_crl_that_is_no_good_says_nothing(world, crls, java_on_crls, crl):
    party = world.party.with_crls(crls[crl])
    assert_refused(openssl_verify(world.leaf.certificate, party, crls="leaf"), java_on_crls[crl])


def test_the_whole_chain_needs_the_crl_of_each_issuer(world, crls, java_on_crls):
    party = world.party.with_crls(crls["empty"])
    assert_refused(
        openssl_verify(world.leaf.certificate, party, crls="chain"),
        java_on_crls["spoiled: none of the root"],
    )
    both = world.party.with_crls(crls["empty"], world.root.crl())
    assert_valid(openssl_verify(world.leaf.certificate, both, crls="chain"))


def test_whose_signature_a_crl_has(world, crls):
    party = world.party
    for check in (openssl_crl, certtool_crl):
        assert_valid(check(crls["revoked"], world.ca.certificate, party))
        assert_refused(
            check(crls["revoked"], world.root.certificate, party),
            check(crls["revoked"], world.stranger.certificate, party),
        )
    serial = format(world.leaf.certificate.serial_number, "x")
    assert serial in certtool_crl_info(crls["revoked"], party)


def test_openssl_counts_what_a_delta_changes(world):
    """RFC 5280 §5.2.4: a revocation since the base, and a hold of the base that was lifted."""
    delta_url = f"{world.url}/a-delta.crl"
    leaf = world.leaf.certificate
    held = revoked(leaf, ReasonFlags.certificate_hold)
    base, base_with_hold = (
        world.ca.crl(*entries, number=5, url=world.crl_url, freshest=delta_url) for entries in ((), (held,))
    )
    delta, lifting, unrelated = (
        world.ca.crl(*entries, number=6, url=url, base=5)
        for entries, url in [
            ((revoked(leaf, COMPROMISE),), world.crl_url),
            ((revoked(leaf, ReasonFlags.remove_from_crl),), world.crl_url),
            ((revoked(leaf, COMPROMISE),), delta_url),
        ]
    )
    verdicts = {
        name: openssl_verify(leaf, world.party.with_crls(*crls), crls="leaf", deltas=True)
        for name, crls in {
            "no delta": (base,),
            "revoked since": (base, delta),
            "lifted since": (base_with_hold, lifting),
            "of another scope": (base, unrelated),
        }.items()
    }
    assert_valid(verdicts["no delta"], verdicts["lifted since"], verdicts["of another scope"])
    assert_revoked(verdicts["revoked since"])


def test_purpose_name_and_anchor_matter(world):
    leaf = world.leaf.certificate
    elsewhere = Party(
        place=world.party.place, root=world.stranger.certificate, intermediates=(world.ca.certificate,)
    )
    assert_valid(openssl_verify(leaf, world.party), certtool_verify(leaf, world.party))
    assert_refused(
        openssl_verify(leaf, world.party, purpose="sslclient"),
        certtool_verify(leaf, world.party, host="other.test"),
        openssl_verify(leaf, elsewhere),
        certtool_verify(leaf, elsewhere),
    )


# ---------------------------------------------------------------- OCSP


@pytest.fixture(scope="module")
def responses(world):
    leaf, ca, responder = world.leaf.certificate, world.ca, world.responder
    return {
        "good": ca.ocsp(leaf, GOOD, signed_by=responder),
        "by the CA itself": ca.ocsp(leaf, GOOD, signed_by=ca),
        "revoked": ca.ocsp(leaf, REVOKED, signed_by=responder, revoked=BEGIN, reason=ReasonFlags.superseded),
        "unknown": ca.ocsp(leaf, UNKNOWN, signed_by=responder),
        "no delegate": ca.ocsp(leaf, GOOD, signed_by=ca.responder(authorized=False)),
        "a stranger's": ca.ocsp(leaf, GOOD, signed_by=world.stranger.responder()),
        "of another certificate": ca.ocsp(responder.certificate, GOOD, signed_by=responder),
        "out of date": ca.ocsp(leaf, GOOD, signed_by=responder, until=PAST),
    }


@pytest.fixture(scope="module")
def java_on_responses(world, responses):
    leaf = world.leaf.certificate
    asked = (
        Question(leaf=leaf, party=world.party, means="stapled", response=response)
        for response in responses.values()
    )
    return dict(zip(responses, java_validate(*asked), strict=True))


@pytest.mark.parametrize("kind", ["good", "by the CA itself"])
def test_a_good_response(world, responses, java_on_responses, kind):
    assert_valid(
        openssl_ocsp(
            world.leaf.certificate,
            world.ca.certificate,
            world.party,
            response=responses[kind],
            nonce=False,
        ),
        ocsptool_response(responses[kind], world.ca.certificate, world.party),
        java_on_responses[kind],
    )


def test_a_response_that_says_revoked(world, responses, java_on_responses):
    response, issuer = responses["revoked"], world.ca.certificate
    said = openssl_ocsp(world.leaf.certificate, issuer, world.party, response=response, nonce=False)
    assert_revoked(said, ocsptool_response(response, issuer, world.party), java_on_responses["revoked"])
    assert (said.reason, java_on_responses["revoked"].reason) == ("superseded", "SUPERSEDED")


def test_a_response_that_says_unknown(world, responses, java_on_responses):
    response, issuer = responses["unknown"], world.ca.certificate
    said = openssl_ocsp(world.leaf.certificate, issuer, world.party, response=response, nonce=False)
    assert said.status is Status.UNKNOWN
    assert ocsptool_response(response, issuer, world.party).status is Status.UNKNOWN
    assert_refused(java_on_responses["unknown"])


@pytest.mark.parametrize("kind", ["no delegate", "a stranger's", "of another certificate", "out of date"])
def test_a_response_that_is_no_good(world, responses, java_on_responses, kind):
    response, issuer = responses[kind], world.ca.certificate
    assert_refused(
        openssl_ocsp(world.leaf.certificate, issuer, world.party, response=response, nonce=False),
        java_on_responses[kind],
    )


@pytest.mark.parametrize("kind", ["no delegate", "a stranger's"])
def test_gnutls_refuses_a_response_of_who_may_not_sign_it(world, responses, kind):
    assert_refused(ocsptool_response(responses[kind], world.ca.certificate, world.party))


# ---------------------------------------------------------------- fetching


def test_what_is_fetched_from_the_certificates_addresses(world, crls, responses):
    """A CRL, an OCSP response and the issuer's certificate; and an answer without a nonce where one was asked for."""
    web, leaf, issuer = world.web, world.leaf.certificate, world.ca.certificate
    web.respond("/a.crl", crls["revoked"])
    for path in ("/ocsp", "/ocsp/"):  # Java asks by GET, the request in the path
        web.respond(path, responses["revoked"], headers=[("Content-Type", "application/ocsp-response")])
    web.respond("/ca.cer", world.party.certificates(issuer).read_bytes())
    alone = Party(place=world.party.place, root=world.root.certificate)
    fetched, asked, built, lost = java_validate(
        Question(leaf=leaf, party=world.party, means="crldp"),
        Question(leaf=leaf, party=world.party, means="ocsp"),
        Question(leaf=leaf, party=alone, means="none"),
        Question(
            leaf=world.stranger.leaf("x.test", crl_url="http://127.0.0.1:1", ocsp_url=world.url).certificate,
            party=alone,
            means="none",
        ),
    )
    assert_revoked(
        fetched, asked, openssl_ocsp(leaf, issuer, world.party, url=f"{world.url}/ocsp", nonce=False)
    )
    assert_valid(built)
    assert_refused(lost, openssl_ocsp(leaf, issuer, world.party, url=f"{world.url}/ocsp", nonce=True))
    assert_revoked(ocsptool_ask(leaf, issuer, world.party, url=f"{world.url}/ocsp", nonce=False))


# ---------------------------------------------------------------- pkilint


def test_pkilint_finds_no_error_in_what_is_sound(world, crls, responses):
    for holder in (world.root, world.ca, world.leaf, world.responder):
        assert_no_errors(findings_in_certificate(holder.certificate))
    for crl in (crls["empty"], crls["revoked"], world.root.crl()):
        assert_no_errors(findings_in_crl(crl))
    for response in (responses["good"], responses["revoked"]):
        assert_no_errors(findings_in_ocsp(response))


def test_pkilint_finds_what_is_wrong(world):
    no_san_of_a_name = world.ca.issue("x", (x509.SubjectAlternativeName([x509.DNSName("not a name")]), False))
    unnumbered = world.ca.crl(extensions=[])
    now_and_for_ever = world.ca.ocsp(
        world.leaf.certificate, GOOD, signed_by=world.responder, until=BEGIN - timedelta(days=1)
    )
    for found in (
        findings_in_certificate(no_san_of_a_name.certificate),
        findings_in_crl(unnumbered),
        findings_in_ocsp(now_and_for_ever),
    ):
        with pytest.raises(AssertionError, match=r"pkix\."):
            assert_no_errors(found)
