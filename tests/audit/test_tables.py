"""The rules as tables: that each is spoiled somewhere, and which challenge proves which name."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from acme_ca.audit import evidence, foundations, signed
from acme_ca.ca.profiles import SERVER
from acme_ca.core.challenges import ChallengeType
from acme_ca.storage.audit import AuthorizationRecord
from tests.audit.test_crls import CODES as CRL_CODES
from tests.audit.test_rules import RESTS_ON, SIGNED_OTHERWISE, SPOILED

OPERATING = Path(__file__).resolve().parents[2] / "docs" / "operating.md"
SPOILED_CODES = {
    *(code for code, _, _ in SPOILED.values()),
    *SIGNED_OTHERWISE,
    *RESTS_ON,
    *("certificate.unreadable", "certificate.signature", "certificate.missing", "key.compromised"),
    *(
        "audit.certificate",
        "audit.unreadable",
        "issuer.unreadable",
        "profile.changed",
        "profile.unreadable",
        "evidence.time",
    ),
    *("issuer.unjudged", "crl.unjudged"),
    *("scope.names", "scope.time"),
}
NOTES = {
    "certificate.unsigned",
    "certificate.own",
    "certificate.approved",
    "certificate.policy",
    "certificate.refused_key",
    "evidence.deleted",
    "crl.overdue",
}


def test_all_rules_are_spoiled_somewhere():
    tables = (
        signed.RULES,
        evidence.OF_ORDER,
        evidence.OF_AUTHORIZATION,
        evidence.OF_CHALLENGE,
        evidence.OF_ROW,
        foundations.OF_ISSUER,
    )
    assert {code for table in tables for code, _ in table} <= SPOILED_CODES


def test_all_codes_are_explained():
    section = OPERATING.read_text().partition("## Proving what was issued")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[a-z]+\.[^|]+) \|", section, re.MULTILINE)
    assert {
        code for row in rows for code in re.findall(r"`([^`]+)`", row)
    } == SPOILED_CODES | CRL_CODES | NOTES


@pytest.mark.parametrize(
    ("identifier", "challenge", "allowed"),
    [
        ("dns:a.example", "http-01", True),
        ("dns:a.example", "tls-alpn-01", True),
        ("dns:*.a.example", "dns-01", True),
        ("dns:*.a.example", "tls-alpn-01", False),
        ("ip:192.0.2.1", "http-01", True),
        ("ip:192.0.2.1", "dns-01", False),
    ],
)
def test_which_challenge_proves_which_name(identifier, challenge, allowed):
    now = datetime.now(UTC)
    authorization = AuthorizationRecord(
        id="a",
        account_id="b",
        identifier=identifier,
        status="valid",
        challenge=ChallengeType(challenge),
        validated=now,
        expires=now,
        validations=(),
    )
    ((_, rule),) = evidence.OF_CHALLENGE
    assert (list(rule(SERVER, authorization)) == []) is allowed
    assert list(rule(SERVER.model_copy(update={"challenges": frozenset()}), authorization))
