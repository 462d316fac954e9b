"""dns-01 (RFC 8555 §8.4): a TXT record below the name. The only way to a wildcard."""

from __future__ import annotations

import base64
import hashlib
import hmac

from acme_ca.core.challenges import Attempt
from acme_ca.core.problems import ErrorType, Problem
from acme_ca.validation.record import Unreachable
from acme_ca.validation.resolver import Dns, RecordType


class Unpublished(Unreachable):
    """The DNS answered, and has no record: it may come in a moment."""


async def prove(attempt: Attempt, dns: Dns) -> None:
    """Returns when one of the TXT records holds the digest of the key authorization. Raises `Problem`."""
    name = f"_acme-challenge.{attempt.identifier.base}"
    texts = [record.data for record in await dns.ask(name, RecordType.TXT)]
    if not texts:
        raise Unpublished(
            ErrorType.DNS, f"DNS has no TXT record at {name}. Publish the challenge's, then try again."
        )
    expected = expected_text(attempt.key_authorization)
    if not any([hmac.compare_digest(text, expected) for text in texts]):  # noqa: C419  all are compared: no early end
        raise Problem(
            ErrorType.UNAUTHORIZED,
            f"None of the {len(texts)} TXT records at {name} is the challenge's: the unpadded base64url of the SHA-256 "
            f"digest of the key authorization, {len(expected)} characters. Publish it for the account key that made the order.",
        )


def expected_text(key_authorization: str) -> bytes:
    digest = hashlib.sha256(key_authorization.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=")
