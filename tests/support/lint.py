"""pkilint, an independent reader of RFC 5280 and RFC 6960: what it finds in a certificate, a CRL, an OCSP response.

Its validators are made once and kept: they hold nothing of what they read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pkilint import loader, pkix
from pkilint.document import Document
from pkilint.pkix import certificate, crl, extension, name, ocsp
from pkilint.validation import ValidationFindingSeverity as Severity
from pkilint.validation import ValidatorContainer


@dataclass(frozen=True, slots=True)
class Finding:
    severity: Severity
    code: str
    """As pkilint names it: 'pkix.crl_number_extension_absent'."""
    message: str
    path: str
    """Where in the document."""


def findings_in_certificate(found: x509.Certificate) -> list[Finding]:
    document = loader.load_der_certificate(found.public_bytes(Encoding.DER), "certificate")
    return _findings(_certificate_linter(), document)


def findings_in_crl(der: bytes) -> list[Finding]:
    return _findings(_crl_linter(), loader.load_der_crl(der, "crl"))


def findings_in_ocsp(der: bytes) -> list[Finding]:
    """`der`: an OCSPResponse with an answer in it."""
    return _findings(_ocsp_linter(), loader.load_der_ocsp_response(der, "response"))


def assert_no_errors(found: Iterable[Finding]) -> None:
    """No finding says that a MUST is broken."""
    errors = [finding for finding in found if finding.severity <= Severity.ERROR]
    assert not errors, "\n".join(map(str, errors))


def _findings(linter: ValidatorContainer, document: Document) -> list[Finding]:
    return [
        Finding(described.finding.severity, described.finding.code, described.message or "", result.node.path)
        for result in linter.validate(document.root)
        for described in result.finding_descriptions
    ]


@cache
def _certificate_linter() -> ValidatorContainer:
    """As the command lint_pkix_cert puts it together."""
    return certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )


@cache
def _crl_linter() -> ValidatorContainer:
    """As the command lint_crl puts it together for the profile PKIX."""
    return crl.create_pkix_crl_validator_container(
        _decoders(),
        [
            crl.create_issuer_validator_container([]),
            crl.create_validity_validator_container([]),
            crl.create_extensions_validator_container([]),
        ],
    )


@cache
def _ocsp_linter() -> ValidatorContainer:
    """As the command lint_ocsp_response puts it together."""
    return ocsp.create_pkix_ocsp_response_validator_container(
        [ocsp.create_response_decoder(), *_decoders()], []
    )


def _decoders() -> list[Any]:
    return [
        pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
        pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
    ]
