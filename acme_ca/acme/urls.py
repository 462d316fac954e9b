"""The URLs of the ACME server, made from `public_url` and never from the Host header, and read back exactly."""

from __future__ import annotations

import re

from acme_ca.core.challenges import ChallengeType
from acme_ca.core.ids import AccountId, AuthorizationId, OrderId, Serial

ID = r"[0-9a-f]{32}"

DIRECTORY = "/acme/directory"
NEW_NONCE = "/acme/new-nonce"
NEW_ACCOUNT = "/acme/new-account"
NEW_ORDER = "/acme/new-order"
NEW_AUTHZ = "/acme/new-authz"
REVOKE_CERT = "/acme/revoke-cert"
KEY_CHANGE = "/acme/key-change"
RENEWAL_INFO = "/acme/renewal-info"
ACCOUNT = "/acme/acct/"
ORDER = "/acme/order/"
AUTHZ = "/acme/authz/"
CHALLENGE = "/acme/chall/"
CERTIFICATE = "/acme/cert/"
UNPAUSE = "/acme/unpause/"

_ID = re.compile(ID, re.ASCII)


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


class Urls:
    """`base` is `public_url`, without a trailing slash."""

    def __init__(self, base: str) -> None:
        self._base = base
        self.directory = base + DIRECTORY
        self.new_account = base + NEW_ACCOUNT
        self.key_change = base + KEY_CHANGE

    def of_path(self, raw_path: str) -> str:
        """The URL that a request for this path (with its query, undecoded) was sent to."""
        return self._base + raw_path

    def account(self, account: AccountId) -> str:
        return f"{self._base}{ACCOUNT}{account}"

    def orders(self, account: AccountId, after: str = "") -> str:
        return f"{self._base}{ACCOUNT}{account}/orders" + (f"?after={after}" if after else "")

    def order(self, order: OrderId) -> str:
        return f"{self._base}{ORDER}{order}"

    def finalize(self, order: OrderId) -> str:
        return f"{self._base}{ORDER}{order}/finalize"

    def authorization(self, authorization: AuthorizationId) -> str:
        return f"{self._base}{AUTHZ}{authorization}"

    def challenge(self, authorization: AuthorizationId, kind: ChallengeType) -> str:
        return f"{self._base}{CHALLENGE}{authorization}/{kind}"

    def certificate(self, serial: Serial, chain: int = 0) -> str:
        """`chain`: which; 0 for the one that the certificate was issued under, others are alternates."""
        return f"{self._base}{CERTIFICATE}{serial}" + (f"/{chain}" if chain else "")

    def unpause(self, token: str) -> str:
        return f"{self._base}{UNPAUSE}{token}"

    def account_id(self, url: str) -> AccountId | None:
        """The inverse of `account`: exactly that text, or None (lesson 11)."""
        prefix = self._base + ACCOUNT
        identity = url[len(prefix) :]
        return AccountId(identity) if url.startswith(prefix) and is_id(identity) else None
