"""The one exception that becomes a problem document (RFC 7807, RFC 8555 §6.7)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from acme_ca.core.codes import Code

if TYPE_CHECKING:
    from acme_ca.core.identifiers import Identifier

ERROR_NAMESPACE = "urn:ietf:params:acme:error:"


class ErrorType(StrEnum):
    """The error tokens of RFC 8555 §6.7 and its extensions that this server sends."""

    ACCOUNT_DOES_NOT_EXIST = "accountDoesNotExist"
    ALREADY_REPLACED = "alreadyReplaced"
    ALREADY_REVOKED = "alreadyRevoked"
    BAD_CSR = "badCSR"
    BAD_NONCE = "badNonce"
    BAD_PUBLIC_KEY = "badPublicKey"
    BAD_REVOCATION_REASON = "badRevocationReason"
    BAD_SIGNATURE_ALGORITHM = "badSignatureAlgorithm"
    CAA = "caa"
    CONNECTION = "connection"
    DNS = "dns"
    EXTERNAL_ACCOUNT_REQUIRED = "externalAccountRequired"
    INCORRECT_RESPONSE = "incorrectResponse"
    INVALID_CONTACT = "invalidContact"
    INVALID_PROFILE = "invalidProfile"
    MALFORMED = "malformed"
    ORDER_NOT_READY = "orderNotReady"
    RATE_LIMITED = "rateLimited"
    REJECTED_IDENTIFIER = "rejectedIdentifier"
    SERVER_INTERNAL = "serverInternal"
    TLS = "tls"
    UNAUTHORIZED = "unauthorized"
    UNSUPPORTED_CONTACT = "unsupportedContact"
    UNSUPPORTED_IDENTIFIER = "unsupportedIdentifier"
    USER_ACTION_REQUIRED = "userActionRequired"


_CODES = {kind: re.sub(r"[A-Z]+", lambda word: f"-{word[0].lower()}", kind) for kind in ErrorType}
"""Of problems that have none of their own."""


@dataclass(eq=False, slots=True)
class Problem(Exception):  # noqa: N818  "Problem" is the RFC's word
    """A refusal, told to the client.

    `detail` is a sentence for the client's operator: what is wrong and what to do. `status` overrides the HTTP
    status that the web edge gives to the type. `code` is what programs know the refusal by (`core.codes`). `members` are further members of the document
    (`algorithms`, …), `headers` further HTTP headers.
    """

    type: ErrorType
    detail: str
    status: int | None = None
    identifier: Identifier | None = None
    subproblems: Sequence[Problem] = ()
    members: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    code: Code | None = None

    def __str__(self) -> str:
        return f"{self.type}: {self.detail}"

    def document(self) -> dict[str, Any]:
        """The problem document without its HTTP status: JSON-ready, as stored with challenges and orders.

        "The "identifier" field MUST NOT be present at the top level" (RFC 8555 §6.7.1): subproblems alone have it.
        """
        document: dict[str, Any] = {
            "type": ERROR_NAMESPACE + self.type,
            "code": self.code or _CODES[self.type],
            "detail": self.detail,
        }
        if self.subproblems:
            document["subproblems"] = [problem._subproblem() for problem in self.subproblems]  # noqa: SLF001
        return {**document, **self.members}

    def _subproblem(self) -> dict[str, Any]:
        document = self.document()
        return document if self.identifier is None else {**document, "identifier": self.identifier.as_json()}


def malformed(detail: str, *, status: int | None = None, code: Code | None = None) -> Problem:
    return Problem(ErrorType.MALFORMED, detail, status=status, code=code)


def not_found(detail: str = "There is no such thing.") -> Problem:
    return malformed(detail, status=404, code=Code.NOT_FOUND)


def conflict(detail: str, code: Code = Code.CONFLICT) -> Problem:
    """What is asked for cannot be done as things are now."""
    return malformed(detail, status=409, code=code)


def unauthorized(detail: str, *, status: int | None = None) -> Problem:
    return Problem(ErrorType.UNAUTHORIZED, detail, status=status)


def compound(problems: Sequence[Problem]) -> Problem:
    """One problem for several identifiers (RFC 8555 §6.7.1), of their common type or `rejectedIdentifier`.

    `problems` is not empty; each becomes a subproblem.
    """
    types = {problem.type for problem in problems}
    kind = types.pop() if len(types) == 1 else ErrorType.REJECTED_IDENTIFIER
    several = f"{len(problems)} identifiers are refused; the subproblems say which and why."
    return Problem(kind, problems[0].detail if len(problems) == 1 else several, subproblems=problems)
