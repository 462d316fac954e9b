"""Each rule of the linter, on a draft that is spoiled for it alone."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from acme_ca.ca import lint, profiles
from acme_ca.ca.authority import Authority
from acme_ca.ca.constraints import NameConstraints
from acme_ca.ca.hierarchy import Hierarchy
from acme_ca.ca.keystore import PrivateKey
from acme_ca.core.certificates import LintedCertificate, PreparedCertificate
from acme_ca.core.ids import IssuerId
from acme_ca.core.policy import NamePolicy
from acme_ca.core.profiles import Profile
from tests.support.issuing import (
    EC_KEY,
    NOW,
    RSA_KEY,
    general_names,
    redrafted,
    request,
    subject,
    tlv,
    with_draft,
)

NAMES = ("a.example.org", "10.0.0.1")
OTHER_KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
SMALL_RSA = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
NO_LIMITS = NamePolicy()
OCSP, CA_ISSUERS = AuthorityInformationAccessOID.OCSP, AuthorityInformationAccessOID.CA_ISSUERS


@pytest.fixture
def issuer(hierarchy: Hierarchy):
    return hierarchy.intermediate


@pytest.fixture
def sound(authority: Authority, issuer) -> PreparedCertificate:
    return authority.prepare(request(*NAMES, issuer=issuer.id))


@pytest.fixture
def throw_away_key(directory) -> PrivateKey:
    """Of the issuer's kind, so that the signature algorithm stays what it was."""
    return RSA_KEY if directory.parent.name.startswith("rsa") else EC_KEY


def findings(
    prepared: PreparedCertificate, issuer, *, policy: NamePolicy = NO_LIMITS, now=NOW
) -> tuple[str, ...]:
    try:
        lint.lint(prepared, policy=policy, issuer=issuer, now=now)
    except lint.LintError as error:
        return error.findings
    return ()


# ---------------------------------------------------------------- sound drafts

SOUND = {
    "name": (["a.example.org"], {}),
    "address only": (["10.0.0.1", "2001:db8::1"], {}),
    "wildcard": (["*.example.org", "example.org"], {}),
    "empty subject": (["a" * 60 + ".example.org"], {}),
    "a hundred names": ([f"n{i}.example.org" for i in range(100)], {}),
    "RSA": (["a.example.org"], {"public_key": RSA_KEY.public_key()}),
    "client": (["a.example.org"], {"profile": profiles.BUILT_IN["client"]}),
    "mtls": (["a.example.org"], {"profile": profiles.BUILT_IN["mtls"]}),
    "short-lived": (["a.example.org"], {"profile": profiles.BUILT_IN["shortlived"]}),
    "OCSP responder": ([], {"profile": profiles.BUILT_IN["ocsp_responder"]}),
    "clara": (["x.clara.vcc.internal"], {"profile": profiles.BUILT_IN["clara_service_auth"]}),
    "covina": (["a.b.covina.vcc.internal"], {"profile": profiles.BUILT_IN["covina_orchestrator"]}),
    "another shard": (["a.example.org"], {"shard": 7}),
    "wishes": (
        ["a.example.org"],
        {
            "not_before": NOW.replace(microsecond=0),
            "not_after": NOW.replace(microsecond=0) + timedelta(days=1),
        },
    ),
}


@pytest.mark.parametrize(("asked", "wishes"), SOUND.values(), ids=SOUND)
def test_what_the_authority_prepares_is_sound(authority, issuer, asked, wishes):
    prepared = authority.prepare(request(*asked, issuer=issuer.id, **wishes))
    linted = lint.lint(prepared, policy=NO_LIMITS, issuer=issuer, now=NOW)
    assert linted == LintedCertificate(prepared)


def test_a_draft_made_again_is_sound(sound, issuer, throw_away_key):
    """Or the cases below prove nothing."""
    assert findings(redrafted(sound, signed_by=throw_away_key), issuer) == ()


# ---------------------------------------------------------------- spoiled drafts


@dataclass(frozen=True)
class Case:
    rule: Callable
    finding: str
    """A part of the sentence."""
    spoil: Callable[[PreparedCertificate, PrivateKey], PreparedCertificate]
    also: tuple[Callable, ...] = ()
    """Rules that cannot but see it too."""


def fields(**values: object) -> Callable:
    return lambda sound, key: redrafted(sound, fields=values, signed_by=key)


def without(extension: type[x509.ExtensionType]) -> Callable:
    return lambda sound, key: redrafted(sound, without=extension, signed_by=key)


def instead(value: x509.ExtensionType, *, critical: bool) -> Callable:
    """The extension of this type replaced, or added where there is none."""
    return lambda sound, key: redrafted(
        sound,
        lambda builder: builder.add_extension(value, critical=critical),
        without=type(value),
        signed_by=key,
    )


def asking(**values: object) -> Callable:
    """The draft as it is, and a request that asked for something else."""
    return lambda sound, key: replace(sound, request=replace(sound.request, **values))


def names_instead(*general: x509.GeneralName) -> Callable:
    return instead(x509.SubjectAlternativeName(general), critical=False)


def usage(**changes: bool) -> x509.KeyUsage:
    bits = dict.fromkeys(
        [
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ],
        False,
    )
    return x509.KeyUsage(**(bits | {"digital_signature": True} | changes))


def access(*found: tuple[str, x509.ObjectIdentifier]):
    descriptions = [x509.AccessDescription(how, x509.UniformResourceIdentifier(url)) for url, how in found]
    return instead(x509.AuthorityInformationAccess(descriptions), critical=False)


def points(*urls: list[str], reasons: frozenset[x509.ReasonFlags] | None = None) -> Callable:
    """A distribution point for each list of addresses."""
    made = [
        x509.DistributionPoint([x509.UniformResourceIdentifier(url) for url in several], None, reasons, None)
        for several in urls
    ]
    return instead(x509.CRLDistributionPoints(made), critical=False)


def shard_url(sound: PreparedCertificate) -> str:
    return f"http://ca.example.org/crl/{sound.request.issuer}/0.crl"


def server_with(**differences: object) -> Profile:
    return Profile(**(profiles.SERVER.model_dump() | differences))


def version_1(sound: PreparedCertificate, key: PrivateKey) -> PreparedCertificate:
    """No builder makes one: the field is cut out of the draft."""
    tbs, rest = sound.tbs, sound.draft.public_bytes(Encoding.DER)[4 + len(sound.tbs) :]
    version = bytes.fromhex("a003020102")
    assert tbs[4:9] == version
    return with_draft(sound, x509.load_der_x509_certificate(tlv(0x30, tlv(0x30, tbs[9:]), rest)))


def later_by(days: int) -> Callable:
    def spoil(sound: PreparedCertificate, key: PrivateKey) -> PreparedCertificate:
        return within(sound.not_before + timedelta(days=days), sound.not_after + timedelta(days=days))(
            sound, key
        )

    return spoil


def lasting(days: float) -> Callable:
    def spoil(sound: PreparedCertificate, key: PrivateKey) -> PreparedCertificate:
        return within(sound.not_before, sound.not_before + timedelta(days=days))(sound, key)

    return spoil


def within(begin: dt.datetime, end: dt.datetime) -> Callable:
    """Recorded with these, too."""

    def spoil(sound: PreparedCertificate, key: PrivateKey) -> PreparedCertificate:
        naive = {"not_valid_before": begin.replace(tzinfo=None), "not_valid_after": end.replace(tzinfo=None)}
        spoiled = redrafted(sound, fields=naive, signed_by=key)
        return replace(spoiled, not_before=begin, not_after=end)

    return spoil


def serial(number: int) -> Callable:
    def spoil(sound: PreparedCertificate, key: PrivateKey) -> PreparedCertificate:
        return replace(
            redrafted(sound, fields={"serial_number": number}, signed_by=key), serial=f"{number:032x}"
        )

    return spoil


def with_key(public_key) -> Callable:
    """A draft and a request that agree on another key."""

    def spoil(sound: PreparedCertificate, key: PrivateKey) -> PreparedCertificate:
        spoiled = fields(public_key=public_key)(sound, key)
        return replace(spoiled, request=replace(spoiled.request, public_key=public_key))

    return spoil


def made_by_another_hash(sound: PreparedCertificate, key: PrivateKey) -> PreparedCertificate:
    again = x509.CertificateBuilder(
        issuer_name=sound.draft.issuer,
        subject_name=sound.draft.subject,
        public_key=sound.draft.public_key(),
        serial_number=sound.draft.serial_number,
        not_valid_before=sound.draft.not_valid_before_utc.replace(tzinfo=None),
        not_valid_after=sound.draft.not_valid_after_utc.replace(tzinfo=None),
        extensions=list(sound.draft.extensions),
    )
    return with_draft(sound, again.sign(key, hashes.SHA512()))


SERIAL = int.from_bytes(b"\x42" * 16)
CASES = {
    "other bytes": Case(
        lint._bytes, "not those of the draft", lambda sound, key: replace(sound, tbs=sound.tbs[:-1])
    ),
    "version 1": Case(lint._version, "version is not 3", version_1),
    "short serial": Case(lint._serial, "not positive, of at least 64 bits", serial(1 << 62)),
    "other serial": Case(lint._serial, "not the one to be recorded", fields(serial_number=SERIAL)),
    "other issuer": Case(lint._issuer, "not the one that the order pins", asking(issuer=IssuerId("0" * 32))),
    "issuer's name": Case(
        lint._issuer, "not byte for byte", fields(issuer_name=subject("Example Intermediate CA"))
    ),
    "AKI of another": Case(
        lint._issuer,
        "authorityKeyIdentifier",
        instead(x509.AuthorityKeyIdentifier(b"x" * 20, None, None), critical=False),
    ),
    "no AKI": Case(
        lint._issuer, "authorityKeyIdentifier", without(x509.AuthorityKeyIdentifier), (lint._extensions,)
    ),
    "SHA-512": Case(lint._signature_algorithm, "signature algorithm", made_by_another_hash),
    "two CNs": Case(lint._subject, "more than one commonName", fields(subject_name=subject(*NAMES))),
    "a CN that the profile does not give": Case(
        lint._subject, "gives no commonName", asking(profile=server_with(common_name=False))
    ),
    "the profile's organization is missing": Case(
        lint._subject, "not that of the profile", asking(profile=server_with(organization="Example"))
    ),
    "organization": Case(
        lint._subject,
        "not that of the profile",
        fields(subject_name=subject("a.example.org", organization_name="Evil")),
    ),
    "CN not a name": Case(lint._subject, "not among the", fields(subject_name=subject("b.example.org"))),
    "no SAN": Case(
        lint._names_of_the_order,
        "exactly those",
        without(x509.SubjectAlternativeName),
        (lint._subject,),
    ),
    "neither subject nor SAN": Case(
        lint._subject_alternative_name,
        "neither subject nor",
        lambda sound, key: redrafted(
            sound, without=x509.SubjectAlternativeName, fields={"subject_name": x509.Name([])}, signed_by=key
        ),
        (lint._names_of_the_order,),
    ),
    "empty SAN": Case(
        lint._subject_alternative_name,
        "subjectAltName is empty",
        names_instead(),
        (lint._subject, lint._names_of_the_order),
    ),
    "critical SAN": Case(
        lint._subject_alternative_name,
        "critical with a subject",
        instead(x509.SubjectAlternativeName(general_names(*NAMES)), critical=True),
    ),
    "SAN not critical": Case(
        lint._subject_alternative_name, "not critical without", fields(subject_name=x509.Name([]))
    ),
    "a name more": Case(
        lint._names_of_the_order, "exactly those", names_instead(*general_names(*NAMES, "evil.example.org"))
    ),
    "a name less": Case(lint._names_of_the_order, "exactly those", names_instead(*general_names(NAMES[0]))),
    "a name twice": Case(
        lint._names_of_the_order, "exactly those", names_instead(*general_names(*NAMES, NAMES[0]))
    ),
    "upper case": Case(
        lint._names_of_the_order, "no canonical", names_instead(*general_names(*NAMES, "B.example.org"))
    ),
    "address as dNSName": Case(
        lint._names_of_the_order,
        "no canonical",
        names_instead(*general_names(NAMES[0]), x509.DNSName("10.0.0.1")),
    ),
    "e-mail": Case(
        lint._names_of_the_order,
        "no canonical",
        names_instead(*general_names(*NAMES), x509.RFC822Name("a@example.org")),
    ),
    "URI": Case(
        lint._names_of_the_order,
        "no canonical",
        names_instead(*general_names(*NAMES), x509.UniformResourceIdentifier("https://example.org/")),
    ),
    "other validity": Case(
        lint._validity, "not those to be recorded", lambda sound, _: replace(sound, not_after=NOW)
    ),
    "too long": Case(lint._validity, "longer than the profile", lasting(398)),
    "expired": Case(lint._validity, "never valid, or no more", lasting(1 / 86400)),
    "too early": Case(lint._validity, "too far from now", later_by(-3)),
    "too late": Case(lint._validity, "too far from now", later_by(31)),
    "notBefore as wished": Case(
        lint._wishes, "notBefore is not", asking(not_before=NOW.replace(microsecond=0))
    ),
    "notAfter as wished": Case(lint._wishes, "notAfter is not", asking(not_after=NOW.replace(microsecond=0))),
    "another key": Case(lint._key, "not the one of the CSR", fields(public_key=OTHER_KEY)),
    "weak key": Case(lint._key, "this one has 1024", with_key(SMALL_RSA), (lint._usages,)),
    "SKI of another": Case(
        lint._key, "subjectKeyIdentifier", instead(x509.SubjectKeyIdentifier(b"x" * 20), critical=False)
    ),
    "CA": Case(
        lint._usages, "not CA:FALSE", instead(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    ),
    "no basicConstraints": Case(
        lint._usages, "not CA:FALSE", without(x509.BasicConstraints), (lint._extensions,)
    ),
    "keyCertSign": Case(lint._usages, "keyUsage", instead(usage(key_cert_sign=True), critical=True)),
    "cRLSign": Case(lint._usages, "keyUsage", instead(usage(crl_sign=True), critical=True)),
    "keyEncipherment with EC": Case(
        lint._usages, "keyUsage", instead(usage(key_encipherment=True), critical=True)
    ),
    "another purpose": Case(
        lint._usages,
        "extendedKeyUsage",
        instead(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING]),
            critical=False,
        ),
    ),
    "profile's purpose": Case(lint._usages, "extendedKeyUsage", asking(profile=profiles.BUILT_IN["client"])),
    "keyUsage of the profile": Case(
        lint._usages,
        "keyUsage",
        asking(profile=server_with(key_usages=["digitalSignature", "contentCommitment"])),
    ),
    "TLS feature of another kind": Case(
        lint._usages,
        "not status_request",
        instead(x509.TLSFeature([x509.TLSFeatureType.status_request_v2]), critical=False),
        (lint._extensions,),
    ),
    "must-staple is missing": Case(
        lint._extensions, "missing, unexpected", asking(profile=server_with(must_staple=True))
    ),
    "must-staple is not the profile's": Case(
        lint._extensions,
        "missing, unexpected",
        instead(x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False),
    ),
    "a name that the profile does not allow": Case(
        lint._names_of_the_profile,
        "not for 10.0.0.1",
        asking(profile=server_with(allowed_names=["suffix:example.org"])),
    ),
    "a name that the profile requires": Case(
        lint._names_of_the_profile,
        "requires a name",
        asking(profile=server_with(required_names=["exact:b.example.org"])),
    ),
    "caIssuers elsewhere": Case(
        lint._authority_information_access,
        "another address than …/ca/",
        access(("http://ca.example.org/ocsp", OCSP), ("http://ca.example.org/ca/ca.cer", CA_ISSUERS)),
    ),
    "OCSP elsewhere": Case(
        lint._authority_information_access,
        "another address than …/ocsp",
        lambda sound, key: access(
            ("http://ca.example.org/status", OCSP),
            (f"http://ca.example.org/ca/{sound.request.issuer}.cer", CA_ISSUERS),
        )(sound, key),
    ),
    "AIA without caIssuers": Case(
        lint._authority_information_access,
        "what the profile says",
        access(("http://ca.example.org/ocsp", OCSP)),
    ),
    "no AIA": Case(
        lint._authority_information_access,
        "what the profile says",
        without(x509.AuthorityInformationAccess),
        (lint._extensions,),
    ),
    "OCSP against the profile": Case(
        lint._authority_information_access, "what the profile says", asking(profile=server_with(ocsp=False))
    ),
    "AIA against the profile": Case(
        lint._authority_information_access,
        "what the profile says",
        asking(profile=server_with(ocsp=False, ca_issuers=False)),
        (lint._extensions,),
    ),
    "another shard": Case(lint._crl_distribution_points, "not the one shard", asking(shard=1)),
    "CRL elsewhere": Case(
        lint._crl_distribution_points, "not the one shard", points(["http://ca.example.org/crl/all.crl"])
    ),
    "CRL over LDAP": Case(
        lint._crl_distribution_points, "not the one shard", points(["ldap://ca.example.org/0.crl"])
    ),
    "two points": Case(
        lint._crl_distribution_points,
        "not the one shard",
        lambda sound, key: points([shard_url(sound)], [shard_url(sound)])(sound, key),
    ),
    "two addresses": Case(
        lint._crl_distribution_points,
        "not the one shard",
        lambda sound, key: points([shard_url(sound), shard_url(sound)])(sound, key),
    ),
    "for some reasons only": Case(
        lint._crl_distribution_points,
        "not the one shard",
        lambda sound, key: points([shard_url(sound)], reasons=frozenset({x509.ReasonFlags.key_compromise}))(
            sound, key
        ),
    ),
    "no CRL": Case(lint._extensions, "missing, unexpected", without(x509.CRLDistributionPoints)),
    "CRL against the profile": Case(
        lint._extensions, "missing, unexpected", asking(profile=server_with(crl_distribution_point=False))
    ),
    "nocheck": Case(lint._extensions, "missing, unexpected", instead(x509.OCSPNoCheck(), critical=False)),
    "keyUsage not critical": Case(lint._extensions, "wrongly critical", instead(usage(), critical=False)),
    "nameConstraints": Case(
        lint._extensions,
        "unexpected",
        instead(x509.NameConstraints([x509.DNSName("example.org")], None), critical=True),
    ),
    "unknown extension": Case(
        lint._extensions,
        "unexpected",
        instead(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), critical=False),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_spoiled_draft_is_found(sound, issuer, throw_away_key, case):
    spoiled = case.spoil(sound, throw_away_key)
    found = findings(spoiled, issuer)
    assert any(case.finding in finding for finding in found), found
    assert firing(spoiled, issuer) == {case.rule, *case.also}, (
        "a rule that always fires would find everything"
    )


def test_policy_is_asked_about_the_names_in_the_certificate(sound, issuer, throw_away_key):
    """Lesson 2. The request claims a harmless name; what counts is what would be signed."""
    denying = NamePolicy.of_settings(denied_domains=("evil.example.org",))
    spoiled = names_instead(*general_names(*NAMES, "www.evil.example.org"))(sound, throw_away_key)
    assert any("www.evil.example.org" in finding for finding in findings(spoiled, issuer, policy=denying))
    assert firing(spoiled, issuer, policy=denying) >= {lint._policy}


def test_the_chains_name_constraints_are_asked_about_the_names_in_the_certificate(
    sound, issuer, throw_away_key
):
    constrained = replace(issuer, constraints=(NameConstraints.parse(["vcc.internal"]),))
    assert firing(sound, constrained) == {lint._name_constraints}
    moved = names_instead(*general_names("www.vcc.internal"))(sound, throw_away_key)
    assert lint._name_constraints not in firing(moved, constrained)


def test_every_rule_fires_somewhere():
    elsewhere = {lint._policy, lint._name_constraints}
    assert {case.rule for case in CASES.values()} | elsewhere == set(lint.RULES)


def firing(prepared: PreparedCertificate, issuer, *, policy: NamePolicy = NO_LIMITS) -> set[Callable]:
    reading = lint._read(prepared, policy, issuer, NOW)
    return {rule for rule in lint.RULES if list(rule(reading))}


def test_a_certificate_does_not_outlive_its_issuer(sound, issuer, throw_away_key, hierarchy):
    end = issuer.not_after + timedelta(seconds=1)
    profile = sound.request.profile.model_copy(update={"max_validity": timedelta(days=4000)})
    outliving = within(sound.not_before, end)(sound, throw_away_key)
    outliving = replace(outliving, request=replace(outliving.request, profile=profile))
    assert findings(outliving, issuer) == ("the certificate outlives its issuer",)


def test_an_extension_twice_cannot_be_read(sound, issuer, throw_away_key):
    twice = [*sound.draft.extensions, sound.draft.extensions[0]]
    (finding,) = findings(fields(extensions=twice)(sound, throw_away_key), issuer)
    assert "cannot be read" in finding


def test_all_findings_are_told(sound, issuer, throw_away_key):
    spoiled = fields(serial_number=1, subject_name=subject("b.example.org"))(sound, throw_away_key)
    with pytest.raises(lint.LintError) as refused:
        lint.lint(spoiled, policy=NO_LIMITS, issuer=issuer, now=NOW)
    assert len(refused.value.findings) == 3
    assert all(finding in str(refused.value) for finding in refused.value.findings)
