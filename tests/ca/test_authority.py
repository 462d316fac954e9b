import asyncio
import os
import ssl
import subprocess
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from acme_ca.ca import lint, profiles
from acme_ca.ca.authority import KEY_PAUSE, Authority
from acme_ca.ca.keystore import KeyUnavailable
from acme_ca.core import keys
from acme_ca.core.certificates import IssuanceRequest
from acme_ca.core.ids import IssuerId
from acme_ca.core.keys import KeyAlgorithm
from acme_ca.core.policy import NamePolicy
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.core.profiles import KeyUsage, Profile
from acme_ca.core.renewal import CertId, parse_cert_id
from tests.support.issuing import EC_KEY, NOW, RSA_KEY, extensions_of, recorded, request
from tests.support.keys import Store

LONG = "a" * 60 + ".example.org"


@pytest.fixture
def issue(authority, hierarchy):
    """All four stages; the certificate."""

    def stages(*names: str, **wishes) -> x509.Certificate:
        prepared = authority.prepare(request(*names, issuer=hierarchy.intermediate.id, **wishes))
        lint.lint(prepared, policy=NamePolicy(), issuer=hierarchy.intermediate, now=NOW)
        return x509.load_der_x509_certificate(asyncio.run(authority.sign(recorded(prepared))).der)

    return stages


# ---------------------------------------------------------------- the leaf


def test_extensions_of_a_leaf(issue, hierarchy):
    leaf = issue("a.example.org", "10.0.0.1")
    extensions = extensions_of(leaf)
    criticality = {name: critical for name, (critical, _) in extensions.items()}
    assert criticality == {
        "basicConstraints": True,
        "keyUsage": True,
        "extendedKeyUsage": False,
        "subjectAltName": False,
        "subjectKeyIdentifier": False,
        "authorityKeyIdentifier": False,
        "authorityInfoAccess": False,
        "cRLDistributionPoints": False,
    }
    assert not extensions["basicConstraints"][1].ca
    assert list(extensions["extendedKeyUsage"][1]) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert extensions["subjectKeyIdentifier"][1].digest == keys.key_identifier(EC_KEY.public_key())
    access = [
        (entry.access_method, entry.access_location.value) for entry in extensions["authorityInfoAccess"][1]
    ]
    assert access == [
        (AuthorityInformationAccessOID.OCSP, "http://ca.example.org/ocsp"),
        (
            AuthorityInformationAccessOID.CA_ISSUERS,
            f"http://ca.example.org/ca/{hierarchy.intermediate.id}.cer",
        ),
    ]


@pytest.mark.parametrize("shard", [0, 41])
def test_a_leaf_names_its_shard_of_the_crl(issue, hierarchy, shard):
    (point,) = extensions_of(issue("a.example.org", shard=shard))["cRLDistributionPoints"][1]
    assert [name.value for name in point.full_name] == [
        f"http://ca.example.org/crl/{hierarchy.intermediate.id}/{shard}.crl"
    ]
    assert point.reasons is None, "all reasons"
    assert point.crl_issuer is None


def test_a_leaf_belongs_to_its_issuer(issue, hierarchy):
    leaf = issue("a.example.org")
    issuer = hierarchy.intermediate.certificate
    leaf.verify_directly_issued_by(issuer)
    authority_key = extensions_of(leaf)["authorityKeyIdentifier"][1]
    assert authority_key.key_identifier == extensions_of(issuer)["subjectKeyIdentifier"][1].digest
    assert leaf.version is x509.Version.v3
    assert leaf.public_key() == EC_KEY.public_key()


@pytest.mark.parametrize(("key", "encipherment"), [(EC_KEY, False), (RSA_KEY, True)], ids=["EC", "RSA"])
def test_key_usage(issue, key, encipherment):
    usage = extensions_of(issue("a.example.org", public_key=key.public_key()))["keyUsage"][1]
    assert usage.digital_signature
    assert usage.key_encipherment is encipherment
    assert not any([usage.key_cert_sign, usage.crl_sign, usage.key_agreement, usage.data_encipherment])


POINTERS = {
    "all": ({}, {"OCSP", "caIssuers", "CRL"}),
    "no CRL": ({"crl_distribution_point": False}, {"OCSP", "caIssuers"}),
    "no OCSP": ({"ocsp": False}, {"caIssuers", "CRL"}),
    "no caIssuers": ({"ca_issuers": False}, {"OCSP", "CRL"}),
    "CRL only": ({"ocsp": False, "ca_issuers": False}, {"CRL"}),
    "none": ({"crl_distribution_point": False, "ocsp": False, "ca_issuers": False}, set()),
}


@pytest.mark.parametrize(("differences", "pointers"), POINTERS.values(), ids=POINTERS)
def test_the_profile_says_what_a_leaf_points_to(issue, differences, pointers):
    extensions = extensions_of(issue("a.example.org", profile=server_with(**differences)))
    _, access = extensions.get("authorityInfoAccess", (False, ()))
    found = {entry.access_method._name for entry in access}
    points = {"CRL"} if "cRLDistributionPoints" in extensions else set()
    assert found | points == pointers


def test_must_staple(issue):
    """RFC 7633."""
    assert "TLSFeature" not in extensions_of(issue("a.example.org"))
    critical, feature = extensions_of(issue("a.example.org", profile=server_with(must_staple=True)))[
        "TLSFeature"
    ]
    assert not critical
    assert list(feature) == [x509.TLSFeatureType.status_request]


def test_the_subject_of_the_profile(issue):
    profile = server_with(country="DE", organization="Example Org", organizational_unit="Web")
    leaf = issue("a.example.org", profile=profile)
    assert leaf.subject.rfc4514_string() == "CN=a.example.org,OU=Web,O=Example Org,C=DE"
    nameless = issue("10.0.0.1", profile=profile)
    assert nameless.subject.rfc4514_string() == "OU=Web,O=Example Org,C=DE"
    assert not extensions_of(nameless)["subjectAltName"][0], "there is a subject"


def test_the_certificate_of_a_responder(issue):
    """RFC 6960 §4.2.2.2: no names; its own status is not asked for."""
    responder = issue(profile=profiles.BUILT_IN["ocsp_responder"])
    extensions = extensions_of(responder)
    assert extensions.keys() == {
        "basicConstraints",
        "keyUsage",
        "extendedKeyUsage",
        "subjectKeyIdentifier",
        "authorityKeyIdentifier",
        "OCSPNoCheck",
    }
    assert list(extensions["extendedKeyUsage"][1]) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    assert responder.subject.rfc4514_string() == "OU=OCSP responder"


USAGES = {
    "RSA signs": (RSA_KEY, ["digitalSignature"], {"digital_signature"}),
    "RSA takes keys": (
        RSA_KEY,
        ["digitalSignature", "keyEncipherment"],
        {"digital_signature", "key_encipherment"},
    ),
    "EC does not": (EC_KEY, ["digitalSignature", "keyEncipherment"], {"digital_signature"}),
    "EC agrees": (EC_KEY, ["digitalSignature", "keyAgreement"], {"digital_signature", "key_agreement"}),
    "all that RSA can": (
        RSA_KEY,
        list(KeyUsage),
        {"digital_signature", "content_commitment", "key_encipherment", "data_encipherment"},
    ),
}


@pytest.mark.parametrize(("key", "asked", "found"), USAGES.values(), ids=USAGES)
def test_key_usages_are_the_profiles_as_far_as_the_key_can(issue, key, asked, found):
    leaf = issue("a.example.org", public_key=key.public_key(), profile=server_with(key_usages=asked))
    usage = extensions_of(leaf)["keyUsage"][1]
    bits = [
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
    ]
    assert {bit for bit in bits if getattr(usage, bit)} == found


def server_with(**differences) -> Profile:
    return Profile(**(profiles.SERVER.model_dump() | differences))


def test_extended_key_usages_are_the_profiles(issue):
    leaf = issue("a.example.org", profile=profiles.BUILT_IN["mtls"])
    assert set(extensions_of(leaf)["extendedKeyUsage"][1]) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }


SUBJECTS = {
    "first name": (["b.example.org", "a.example.org"], "b.example.org"),
    "first name that fits": ([LONG, "a.example.org"], "a.example.org"),
    "wildcard": (["*.example.org"], "*.example.org"),
    "name before address": (["10.0.0.1", "a.example.org"], "a.example.org"),
    "an address is no name": (["10.0.0.1"], None),
    "64 characters": (["a" * 52 + ".example.org"], "a" * 52 + ".example.org"),
    "none fits": ([LONG], None),
}


@pytest.mark.parametrize(("names", "common_name"), SUBJECTS.values(), ids=SUBJECTS)
def test_subject_and_names(issue, names, common_name):
    leaf = issue(*names)
    assert [str(attribute.value) for attribute in leaf.subject] == ([common_name] if common_name else [])
    critical, alternatives = extensions_of(leaf)["subjectAltName"]
    assert critical is (common_name is None)
    assert [str(name.value) for name in alternatives] == names, "in the order of the order"


def test_a_profile_without_common_name(issue):
    leaf = issue(
        "a.example.org", profile=profiles.BUILT_IN["server"].model_copy(update={"common_name": False})
    )
    assert not leaf.subject.rdns


def test_serials_are_128_random_bits(hierarchy):
    asked = []

    def random_bytes(number: int) -> bytes:
        asked.append(number)
        return bytes(range(0xF0, 0x100))

    authority = authority_of(hierarchy, random_bytes=random_bytes)
    prepared = authority.prepare(request("a.example.org", issuer=hierarchy.intermediate.id))
    assert asked == [16]
    assert prepared.serial == bytes(range(0xF0, 0x100)).hex()
    assert f"{prepared.draft.serial_number:032x}" == prepared.serial
    assert bytes.fromhex("021100") + bytes(range(0xF0, 0x100)) in prepared.tbs, "17 octets, positive"


def test_wishes_of_the_order(issue):
    begin, end = NOW.replace(microsecond=0), NOW.replace(microsecond=0) + timedelta(hours=36)
    leaf = issue("a.example.org", not_before=begin, not_after=end)
    assert (leaf.not_valid_before_utc, leaf.not_valid_after_utc) == (begin, end)


# ---------------------------------------------------------------- the stages


def test_what_was_prepared_is_byte_for_byte_what_is_signed(authority, hierarchy):
    prepared = authority.prepare(request("a.example.org", issuer=hierarchy.intermediate.id))
    assert prepared.draft.tbs_certificate_bytes == prepared.tbs
    with pytest.raises(InvalidSignature):
        prepared.draft.verify_directly_issued_by(hierarchy.intermediate.certificate)
    signed = asyncio.run(authority.sign(recorded(prepared)))
    certificate = x509.load_der_x509_certificate(signed.der)
    assert certificate.tbs_certificate_bytes == prepared.tbs
    assert certificate.public_bytes(Encoding.DER) == signed.der
    assert f"{certificate.serial_number:032x}" == signed.serial == prepared.serial


def test_a_recorded_certificate_is_signed_under_its_own_serial_only(authority, hierarchy):
    first, second = (
        authority.prepare(request("a.example.org", issuer=hierarchy.intermediate.id)) for _ in range(2)
    )
    with pytest.raises(RuntimeError, match="not what was recorded"):
        asyncio.run(authority.sign(replace(recorded(first), tbs=second.tbs)))


@pytest.mark.parametrize("tbs", [b"", b"hello", b"\x30\x00"])
def test_what_is_no_certificate_is_not_handed_out(authority, hierarchy, tbs):
    prepared = authority.prepare(request("a.example.org", issuer=hierarchy.intermediate.id))
    with pytest.raises(ValueError, match="asn1"):
        asyncio.run(authority.sign(replace(recorded(prepared), tbs=tbs)))


def test_an_issuer_that_is_not_served(authority):
    """Lesson 3: an order keeps its issuer; another does not step in."""
    with pytest.raises(Problem) as refused:
        authority.prepare(request("a.example.org", issuer=IssuerId("0" * 32)))
    assert refused.value.type is ErrorType.SERVER_INTERNAL


def test_an_expired_issuer_prepares_nothing(hierarchy):
    late = authority_of(hierarchy, clock=lambda: hierarchy.intermediate.not_after)
    with pytest.raises(Problem, match="has expired"):
        late.prepare(request("a.example.org", issuer=hierarchy.intermediate.id))


def test_an_issuer_without_its_key_prepares_nothing_and_signs_nothing(authority, hierarchy):
    prepared = authority.prepare(request("a.example.org", issuer=hierarchy.intermediate.id))
    keyless = authority_of(hierarchy, issuers=lambda _: replace(hierarchy.intermediate, key=None))
    with pytest.raises(Problem, match="out of reach") as refused:
        keyless.prepare(request("a.example.org", issuer=hierarchy.intermediate.id))
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "5"})
    with pytest.raises(KeyUnavailable):
        asyncio.run(keyless.sign(recorded(prepared)))


def test_a_key_store_that_does_not_answer_is_left_alone_for_a_moment(hierarchy):
    """What would be recorded for it meanwhile would never be signed."""
    now = NOW
    store = Store(hierarchy.intermediate.key)
    issuer = replace(hierarchy.intermediate, key=store.key())
    authority = authority_of(hierarchy, issuers={issuer.id: issuer}.get, clock=lambda: now)
    prepared = authority.prepare(request("a.example.org", issuer=issuer.id))
    assert asyncio.run(authority.sign(recorded(prepared)))
    store.away = True
    with pytest.raises(KeyUnavailable):
        asyncio.run(authority.sign(recorded(prepared)))
    store.away = False
    with pytest.raises(Problem, match="out of reach"):
        authority.prepare(request("a.example.org", issuer=issuer.id))
    now += KEY_PAUSE
    assert asyncio.run(
        authority.sign(recorded(authority.prepare(request("b.example.org", issuer=issuer.id))))
    )


def test_a_key_store_has_a_thread_of_its_own(hierarchy):
    """The event loop goes on while an HSM takes its time."""
    store = Store(hierarchy.intermediate.key)
    issuer = replace(hierarchy.intermediate, key=store.key())
    authority = authority_of(hierarchy, issuers={issuer.id: issuer}.get)
    prepared = authority.prepare(request("a.example.org", issuer=issuer.id))

    async def sign_while_others_work() -> None:
        signature = asyncio.create_task(authority.sign(recorded(prepared)))
        await asyncio.to_thread(store.asked.wait, 5)
        assert not signature.done()
        store.go_on.set()
        assert await signature

    store.go_on.clear()
    asyncio.run(sign_while_others_work())


def authority_of(hierarchy, **changes) -> Authority:
    parts = {
        "issuers": {hierarchy.intermediate.id: hierarchy.intermediate}.get,
        "public_http_url": "http://ca.example.org",
        "clock": lambda: NOW,
        "random_bytes": os.urandom,
    }
    return Authority(**(parts | changes))


# ---------------------------------------------------------------- by other eyes


@pytest.mark.parametrize(
    "names", [["a.example.org"], ["*.example.org", "b.example.net"], ["10.0.0.1"], [LONG]]
)
def test_openssl_verifies_the_chain(issue, hierarchy, directory, tmp_path, names):
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(issue(*names).public_bytes(Encoding.PEM))
    (tmp_path / "chain.pem").write_bytes(hierarchy.intermediate.chain_pem)
    host = names[0].replace("*", "x")
    name = ["-verify_ip", host] if host[0].isdigit() else ["-verify_hostname", host]
    checks = ["-x509_strict", "-check_ss_sig", "-purpose", "sslserver", *name]
    verified = subprocess.run(
        [
            "openssl",
            "verify",
            *checks,
            "-CAfile",
            directory / "root.pem",
            "-untrusted",
            tmp_path / "chain.pem",
            leaf,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr


@pytest.mark.parametrize("key", [EC_KEY, RSA_KEY], ids=["EC", "RSA"])
def test_a_tls_handshake_with_an_issued_leaf(issue, hierarchy, directory, tmp_path, key):
    leaf = issue("a.example.org", public_key=key.public_key())
    file = tmp_path / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + leaf.public_bytes(Encoding.PEM) + hierarchy.intermediate.chain_pem)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    asking = ssl.create_default_context(cafile=directory / "root.pem")
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    assert handshake(serving, asking, "a.example.org")["subjectAltName"] == (("DNS", "a.example.org"),)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(serving, asking, "b.example.org")


def handshake(serving: ssl.SSLContext, asking: ssl.SSLContext, host: str) -> dict:
    """A handshake in memory; the server's certificate as the client saw it."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    client = asking.wrap_bio(to_client, to_server, server_hostname=host)
    waiting = [client, server]
    while waiting:
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
    return client.getpeercert()


def test_the_key_of_a_profile_is_a_matter_of_the_profile(issue):
    key = ec.generate_private_key(ec.SECP521R1()).public_key()
    with pytest.raises(lint.LintError, match="keys of this kind"):
        issue("a.example.org", public_key=key)
    profile = profiles.BUILT_IN["server"].model_copy(update={"key_algorithms": frozenset(KeyAlgorithm)})
    assert issue("a.example.org", public_key=key, profile=profile).public_key() == key


def test_a_request_holds_nothing_of_the_csr_but_the_key():
    """Lesson 1, by type."""
    assert set(IssuanceRequest.__dataclass_fields__) == {
        "identifiers",
        "public_key",
        "profile",
        "issuer",
        "shard",
        "not_before",
        "not_after",
    }


# ---------------------------------------------------------------- whether it could


def test_an_issuer_with_its_key_can_sign(authority, hierarchy):
    assert asyncio.run(authority.can_sign(hierarchy.intermediate.id))


def test_an_issuer_that_is_not_served_cannot_sign(authority):
    assert not asyncio.run(authority.can_sign(IssuerId("0" * 32)))


@pytest.mark.parametrize("key", [EC_KEY, RSA_KEY], ids=["EC", "RSA"])
def test_an_issuer_with_another_key_cannot_sign(hierarchy, key):
    issuer = replace(hierarchy.intermediate, key=key)
    authority = Authority(
        issuers={issuer.id: issuer}.get,
        public_http_url="http://ca",
        clock=lambda: NOW,
        random_bytes=os.urandom,
    )
    assert not asyncio.run(authority.can_sign(issuer.id))


def test_a_leaf_has_a_certificate_identifier(issue, hierarchy):
    """RFC 9773 §4.1: what renewal information will be asked by."""
    leaf = issue("a.example.org")
    cert_id = CertId.of(leaf)
    assert cert_id.serial == leaf.serial_number
    issuer_key = extensions_of(hierarchy.intermediate.certificate)["subjectKeyIdentifier"][1].digest
    assert cert_id.authority_key_identifier == issuer_key
    assert parse_cert_id(str(cert_id)) == cert_id
