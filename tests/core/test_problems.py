"""Problems: what a client reads (RFC 7807, RFC 8555 §6.7)."""

import json
from pathlib import Path

import pytest

from acme_ca.core import identifiers
from acme_ca.core.codes import Code
from acme_ca.core.problems import ERROR_NAMESPACE, ErrorType, Problem, compound, malformed, unauthorized

ROOT = Path(__file__).resolve().parents[2]
A, B = identifiers.dns("a.example.test"), identifiers.ip("192.0.2.1")


def test_the_document_of_a_problem():
    problem = Problem(ErrorType.MALFORMED, "So it is.", identifier=A, members={"algorithms": ["ES256"]})
    assert problem.document() == {
        "type": "urn:ietf:params:acme:error:malformed",
        "code": "malformed",
        "detail": "So it is.",
        "algorithms": ["ES256"],
    }
    assert json.loads(json.dumps(problem.document())) == problem.document()


def test_programs_know_a_refusal_by_its_code():
    assert Problem(ErrorType.BAD_CSR, "No.").document()["code"] == "bad-csr"
    assert Problem(ErrorType.RATE_LIMITED, "No.", code=Code.PAUSED).document()["code"] == "paused"


def test_the_http_status_is_no_part_of_it():
    """It is decided at the edge; a stored document has none."""
    assert "status" not in malformed("No.", status=404).document()
    assert "headers" not in Problem(ErrorType.MALFORMED, "No.", headers={"Allow": "POST"}).document()


def test_the_identifier_of_a_single_problem_stands_in_a_subproblem_too():
    """RFC 8555 §6.7.1: "The "identifier" field MUST NOT be present at the top level"."""
    document = compound([Problem(ErrorType.REJECTED_IDENTIFIER, "No.", identifier=A)]).document()
    assert (document["detail"], "identifier" in document) == ("No.", False)
    assert [sub["identifier"] for sub in document["subproblems"]] == [A.as_json()]


@pytest.mark.parametrize(
    ("types", "kind"),
    [
        ([ErrorType.REJECTED_IDENTIFIER] * 2, ErrorType.REJECTED_IDENTIFIER),
        ([ErrorType.UNSUPPORTED_IDENTIFIER] * 2, ErrorType.UNSUPPORTED_IDENTIFIER),
        ([ErrorType.MALFORMED, ErrorType.UNSUPPORTED_IDENTIFIER], ErrorType.REJECTED_IDENTIFIER),
    ],
)
def test_problems_of_several_identifiers_are_subproblems(types, kind):
    problems = [Problem(one, "No.", identifier=named) for one, named in zip(types, (A, B), strict=True)]
    document = compound(problems).document()
    assert document["type"] == ERROR_NAMESPACE + kind
    assert "identifier" not in document
    assert [sub["identifier"] for sub in document["subproblems"]] == [A.as_json(), B.as_json()]
    assert [sub["type"] for sub in document["subproblems"]] == [ERROR_NAMESPACE + one for one in types]


def test_a_problem_reads_as_text_in_a_log():
    assert str(unauthorized("Not you.")) == "unauthorized: Not you."


def test_the_error_tokens_are_the_rfcs():
    """RFC 8555 §6.7, RFC 9773 §7.4, and draft-ietf-acme-profiles §6.3."""
    registered = """alreadyReplaced accountDoesNotExist alreadyRevoked badCSR badNonce badPublicKey badRevocationReason caa compound
        badSignatureAlgorithm connection dns externalAccountRequired incorrectResponse invalidContact malformed tls
        orderNotReady rateLimited rejectedIdentifier serverInternal unauthorized unsupportedContact
        unsupportedIdentifier userActionRequired invalidProfile"""
    assert {str(kind) for kind in ErrorType} <= set(registered.split())


def test_every_code_is_sent_by_something():
    sources = [path.read_text() for path in (ROOT / "acme_ca").rglob("*.py")]
    unsent = [code.name for code in Code if not any(f"Code.{code.name}" in source for source in sources)]
    assert unsent == []
