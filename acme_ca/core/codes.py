"""The stable code of every refusal: the same in problem documents of ACME and of the admin API, in `explain`, in the log
and in the docs. Programs may rely on them; sentences may change.

A problem without a code of its own has its ACME type as one, in the same spelling: `rejectedIdentifier` is
`rejected-identifier`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Code(StrEnum):
    """Each says what is wrong; docs/api.md is made from these lines."""

    explanation: str

    def __new__(cls, code: str, explanation: str) -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.explanation = explanation
        return member

    # -------------------------------------------------------- of requests as such
    URL_UNKNOWN = "url-unknown", "There is nothing at this URL: it is misspelt, or of another server."
    METHOD_NOT_ALLOWED = (
        "method-not-allowed",
        "The URL does not take this method; the header Allow says which.",
    )
    NOT_HTTP = "not-http", "It is no request that can be understood, or a part of its head is too long."
    MEDIA_TYPE_WRONG = (
        "media-type-wrong",
        "The body is of another Content-Type than the URL takes, or packed by a Content-Encoding.",
    )
    BODY_TOO_LARGE = "body-too-large", "The body is larger than the URL takes."
    BODY_INCOMPLETE = "body-incomplete", "The body did not arrive, not in time or not in full: send it again."
    EXPECTATION_FAILED = "expectation-failed", "The header Expect asks for more than 100-continue."
    NOT_FOUND = "not-found", "There is no such thing, or it is another's."
    CONFLICT = "conflict", "The thing is in a state in which this cannot be done."

    # -------------------------------------------------------- of requests to the admin API
    CREDENTIALS_MISSING = "credentials-missing", "The request has neither a token nor a client certificate."
    CREDENTIALS_WRONG = "credentials-wrong", "The token or certificate is unknown, revoked or expired."
    CREDENTIALS_AMBIGUOUS = (
        "credentials-ambiguous",
        "The client certificate has the names of several operators.",
    )
    LOCKED_OUT = "locked-out", "Too many wrong tokens came from there: wait as long as Retry-After says."
    FORBIDDEN = "forbidden", "The role, or the services that it is for, do not allow this."
    FIELD_INVALID = "field-invalid", "A field is missing, unknown or of a wrong kind; `errors` names each."
    SEARCH_TOO_LONG = "search-too-long", "The search was cut off: give more filters, or a narrower time."
    NOT_JSON = "not-json", "The body is no JSON object."
    SERVICE_NOT_APPROVED = "service-not-approved", "The service waits for approval, or is retired."
    ALREADY_REVOKED = "already-revoked", "The certificate is revoked, or on hold, already."
    EXISTS = "exists", "There is one with this name already."
    APPROVAL_BY_ANOTHER = (
        "approval-by-another",
        "Who asked for an act, or may have the credential of who did, cannot approve it.",
    )

    # -------------------------------------------------------- of names
    NAME_DENIED = "name-denied", "A rule denies the name."
    NAME_NOT_ALLOWED = "name-not-allowed", "There are rules of what is allowed, and none allows the name."
    NAME_NOT_IN_PROFILE = (
        "name-not-in-profile",
        "The profile is not for this name, or wants another beside it.",
    )
    NAME_NOT_OF_SERVICE = "name-not-of-service", "The service's domains do not have the name."
    NAME_NOT_OF_ISSUER = "name-not-of-issuer", "The name constraints of the issuer forbid the name."
    POLICY_UNREADABLE = (
        "policy-unreadable",
        "A later release wrote what holds there, and this one cannot judge by it.",
    )
    NO_CHALLENGE = "no-challenge", "No challenge that is offered can prove the name."

    # -------------------------------------------------------- of accounts and their EAB keys
    ACCOUNT_FROZEN = "account-frozen", "An operator froze the account, or revoked its EAB key."
    ACCOUNT_ENDED = "account-ended", "The account is deactivated or revoked."
    EAB_KEY_UNUSABLE = "eab-key-unusable", "The EAB key is revoked, expired, used up or not approved."
    EAB_KEY_MISSING = (
        "eab-key-missing",
        "The name, or any, needs an account with an external account binding.",
    )
    SOURCE_NOT_ALLOWED = "source-not-allowed", "The EAB key is not for requests from this address."
    PROFILE_NOT_ALLOWED = "profile-not-allowed", "The account may not order this profile."

    # -------------------------------------------------------- of limits
    LIMIT_REACHED = "limit-reached", "A rate limit is used up; Retry-After says for how long."
    PAUSED = "paused", "Validations of the name failed too often in a row: the account is paused for it."
