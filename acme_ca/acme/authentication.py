"""Who asks: a signed request becomes a value that says so (RFC 8555 §6.2 to §6.5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any

from acme_ca.acme import jws
from acme_ca.acme.jws import Jwk, Jws
from acme_ca.acme.nonces import Nonces, bad_nonce
from acme_ca.acme.urls import Urls
from acme_ca.core.accounts import Account
from acme_ca.core.codes import Code
from acme_ca.core.ids import AccountId
from acme_ca.core.problems import ErrorType, Problem, malformed, not_found, unauthorized
from acme_ca.core.states import AccountStatus
from acme_ca.core.weakkeys import WeakKeys
from acme_ca.storage import accounts, operations, resources, signers
from acme_ca.storage.database import Database
from acme_ca.storage.resources import OwnedResource, Resource
from acme_ca.storage.signers import Credential, Signer, SpentNonce

MAX_REMEMBERED = 10_000
"""Accounts that one worker remembers."""


class SignedBy(Enum):
    """Which key must sign a request to a route."""

    ACCOUNT = auto()
    """An account's, named by `kid`."""
    KEY = auto()
    """The one in `jwk`: newAccount alone."""
    EITHER = auto()
    """revokeCert alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRequest:
    """A request of a valid account. `payload` b"" is POST-as-GET. `resource` is what the URL names, and the account's own.

    With a `credential` the nonce is still to be spent and the account to be looked at once more, by the statement that
    does what is asked for; `Authenticator.confirm` then judges what that statement found.
    """

    account: Account
    payload: bytes
    resource: OwnedResource | None
    client: str
    credential: Credential | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """A request signed by the key that it carries. `account` is the one with that key, if any, in whatever status."""

    key: Jwk
    account: Account | None
    payload: bytes
    client: str


SignedRequest = AccountRequest | KeyRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What was asked: the URL as requested, which key must sign, and the owned thing that the URL names."""

    url: str
    signed_by: SignedBy
    resource: Resource | None = None
    resource_id: str = ""
    acts: bool = False
    """Whether a request with a payload is authenticated by the statement of its act."""


class Authenticator:
    """`reject` says whether to refuse a good nonce: misbehaviour on request, for tests of clients."""

    def __init__(
        self,
        *,
        database: Database,
        nonces: Nonces,
        urls: Urls,
        weak_keys: WeakKeys,
        clock: Callable[[], datetime],
        random_bytes: Callable[[int], bytes],
        reject: Callable[[], bool],
    ) -> None:
        self._database = database
        self._nonces = nonces
        self._urls = urls
        self._weak_keys = weak_keys
        self._clock = clock
        self._random_bytes = random_bytes
        self._reject = reject
        self._remembered: dict[AccountId, Account] = {}

    async def authenticate(self, body: bytes, target: Target, *, client: str) -> SignedRequest:
        """Raises Problem. The nonce is spent in any case, once the request is a JWS that has one (RFC 8555 §6.5)."""
        request = jws.parse(body)
        nonce = self._nonces.check(request.header.get("nonce"))
        try:
            if self._reject():
                raise bad_nonce("The nonce is refused for a test")
            claim = self._claim(request, target)
            if isinstance(claim, Jwk):
                return await self._by_key(request, nonce, claim, client)
            return await self._by_account(request, nonce, claim, target, client)
        except Problem:
            await self.discard(nonce)
            raise

    async def discard(self, nonce: SpentNonce) -> None:
        """Spend the nonce of a request that is refused; nothing happens when it is spent already."""
        await signers.spend_by_key(self._database, nonce, "")

    def _claim(self, request: Jws, target: Target) -> AccountId | Jwk:
        """Who the request says signed it; everything that needs no database is checked."""
        header = request.header
        jws.algorithm_of(header)
        if not isinstance(header.get("url"), str):
            raise malformed('The JWS\'s protected header needs the "url" of the request (RFC 8555 §6.4).')
        if header["url"] != target.url:
            raise unauthorized(
                'The JWS\'s "url" is not the URL that the request was sent to (RFC 8555 §6.4).'
            )
        if ("kid" in header) == ("jwk" in header):
            raise malformed(
                'The JWS\'s protected header needs either "kid" or "jwk", and not both (RFC 8555 §6.2).'
            )
        if "jwk" in header:
            if target.signed_by is SignedBy.ACCOUNT:
                raise malformed(
                    'This resource wants the account\'s URL in "kid", not a "jwk" (RFC 8555 §6.2).'
                )
            return jws.parse_jwk(header["jwk"])
        if target.signed_by is SignedBy.KEY:
            raise malformed(
                'newAccount wants the account\'s public key in "jwk", not a "kid" (RFC 8555 §6.2).'
            )
        return self._account_id(header["kid"])

    def _account_id(self, kid: Any) -> AccountId:
        if not isinstance(kid, str):
            raise malformed("The JWS's \"kid\" must be the account's URL.")
        account = self._urls.account_id(kid)
        if account is None:
            raise _no_account()
        return account

    async def _by_key(self, request: Jws, nonce: SpentNonce, key: Jwk, client: str) -> KeyRequest:
        jws.verify(key.key, request)
        signer = await signers.spend_by_key(self._database, nonce, key.thumbprint)
        await self._check_nonce(signer)
        return KeyRequest(key=key, account=signer.account, payload=request.payload, client=client)

    async def _by_account(
        self, request: Jws, nonce: SpentNonce, claim: AccountId, target: Target, client: str
    ) -> AccountRequest:
        account = await self._verified(claim, request)
        credential = Credential(nonce=nonce, account=account.id, thumbprint=account.thumbprint)
        if target.acts and request.payload:
            return AccountRequest(
                account=account, payload=request.payload, resource=None, client=client, credential=credential
            )
        signer, resource = await resources.read(
            self._database,
            credential,
            resource=target.resource,
            resource_id=target.resource_id,
            now=self._clock(),
        )
        account = await self.confirm(signer, credential)
        if target.resource is not None and resource is None:
            raise not_theirs()
        return AccountRequest(account=account, payload=request.payload, resource=resource, client=client)

    async def _verified(self, claim: AccountId, request: Jws) -> Account:
        """The account whose signature this is. A remembered one spares a round trip; the statement that follows notices
        when it is not true any more.
        """
        remembered = self._remembered.get(claim)
        if remembered is not None:
            try:
                jws.verify(jws.key_of(remembered.jwk), request)
            except Problem:
                del self._remembered[claim]  # its key may have been changed elsewhere
            else:
                return remembered
        account = await accounts.find(self._database, claim)
        if account is None:
            raise _no_account()
        key = jws.key_of(account.jwk)
        jws.verify(key, request)
        check_standing(account)
        self._weak_keys.check(key, ErrorType.BAD_PUBLIC_KEY)  # a list may be newer than it
        self._remembered[account.id] = account
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.clear()
        return account

    def forget(self, account: AccountId) -> None:
        """After a change of the account through this process."""
        self._remembered.pop(account, None)

    async def confirm(self, signer: Signer, credential: Credential) -> Account:
        """The account as it is now, after the statement that spent the credential. Raises Problem: `badNonce`, or
        `unauthorized` for an account that has ended or is frozen; then the statement did nothing else.
        """
        await self._check_nonce(signer)
        account = signer.account
        if account is None:
            raise _no_account()
        if account.status is not AccountStatus.VALID or account.frozen:
            self.forget(account.id)
        check_standing(account)
        if account.thumbprint != credential.thumbprint:
            self.forget(account.id)
            raise bad_nonce("The account's key was changed this very moment")
        return account

    async def _check_nonce(self, signer: Signer) -> None:
        if signer.epoch != self._nonces.epoch:
            # A crash or failover has emptied the nonce table: from now on nonces of its new epoch are handed out.
            proposal = int.from_bytes(self._random_bytes(8), signed=True)
            self._nonces.epoch = signer.epoch or await operations.nonce_epoch(self._database, proposal)
        if not signer.nonce_was_fresh:
            raise bad_nonce("The nonce was used before")


def check_standing(account: Account) -> None:
    """Raises Problem: the answer to whatever an ended account asks (RFC 8555 §7.3.6), or a frozen one."""
    if account.status is not AccountStatus.VALID:
        raise Problem(
            ErrorType.UNAUTHORIZED,
            f"This account is {account.status} and stays so: make a new account with another key.",
            status=401,
            code=Code.ACCOUNT_ENDED,
        )
    if account.frozen:
        raise Problem(
            ErrorType.UNAUTHORIZED,
            "This account is frozen: an operator of this CA stopped it, or revoked its EAB key. Ask the operator.",
            code=Code.ACCOUNT_FROZEN,
        )


def not_theirs() -> Problem:
    """The answer to who asks for what is not there, or not theirs."""
    return not_found("There is no such resource, or it is another account's.")


def _no_account() -> Problem:
    return Problem(
        ErrorType.ACCOUNT_DOES_NOT_EXIST,
        'The "kid" is not the URL of an account of this server: make an account first, or correct the client\'s stored one.',
    )
