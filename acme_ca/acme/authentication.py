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
from acme_ca.core.model import Account, AccountId
from acme_ca.core.problems import ErrorType, Problem, malformed, unauthorized
from acme_ca.core.states import AccountStatus
from acme_ca.storage import accounts, operations
from acme_ca.storage.accounts import OwnedResource, Resource, Signer, SpentNonce
from acme_ca.storage.database import Database


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
    """A request of a valid account. `payload` b"" is POST-as-GET. `resource` is what the URL names, and the account's own."""

    account: Account
    payload: bytes
    resource: OwnedResource | None
    client: str


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


class Authenticator:
    """`reject` says whether to refuse a good nonce: misbehaviour on request, for tests of clients."""

    def __init__(
        self,
        *,
        database: Database,
        nonces: Nonces,
        urls: Urls,
        clock: Callable[[], datetime],
        random_bytes: Callable[[int], bytes],
        reject: Callable[[], bool],
    ) -> None:
        self._database = database
        self._nonces = nonces
        self._urls = urls
        self._clock = clock
        self._random_bytes = random_bytes
        self._reject = reject

    async def authenticate(self, body: bytes, target: Target, *, client: str) -> SignedRequest:
        """Raises Problem. The nonce is spent in any case, once the request is a JWS that has one."""
        request = jws.parse(body)
        nonce = self._nonces.check(request.header.get("nonce"))
        try:
            claim = self._claim(request, target)
        except Problem:
            await self._spend(nonce, AccountId(""), target)
            raise
        signer = await self._spend(nonce, claim, target)
        if not signer.nonce_was_fresh or self._reject():
            await self._follow_epoch(signer)
            raise bad_nonce("The nonce was used before")
        if isinstance(claim, Jwk):
            jws.verify(claim.key, request)
            return KeyRequest(key=claim, account=signer.account, payload=request.payload, client=client)
        return self._by_account(request, signer, target, client)

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

    async def _spend(self, nonce: SpentNonce, claim: AccountId | Jwk, target: Target) -> Signer:
        if isinstance(claim, Jwk):
            return await accounts.spend_nonce_by_key(self._database, nonce, claim.thumbprint)
        return await accounts.spend_nonce(
            self._database,
            nonce,
            claim,
            resource=target.resource,
            resource_id=target.resource_id,
            now=self._clock(),
        )

    async def _follow_epoch(self, signer: Signer) -> None:
        """After a crash or failover that emptied the nonce table, nonces of a new epoch are handed out."""
        if signer.epoch != self._nonces.epoch:
            proposal = int.from_bytes(self._random_bytes(8), signed=True)
            self._nonces.epoch = signer.epoch or await operations.nonce_epoch(self._database, proposal)

    def _by_account(self, request: Jws, signer: Signer, target: Target, client: str) -> AccountRequest:
        account = signer.account
        if account is None:
            raise _no_account()
        jws.verify(jws.key_of(account.jwk), request)
        if account.status is not AccountStatus.VALID:
            raise ended(account)
        if target.resource is not None and signer.resource is None:
            raise malformed("There is no such resource, or it is another account's.", status=404)
        return AccountRequest(
            account=account, payload=request.payload, resource=signer.resource, client=client
        )


def ended(account: Account) -> Problem:
    """The answer to whatever an ended account asks (RFC 8555 §7.3.6)."""
    return unauthorized(
        f"This account is {account.status} and stays so: make a new account with another key.", status=401
    )


def _no_account() -> Problem:
    return Problem(
        ErrorType.ACCOUNT_DOES_NOT_EXIST,
        'The "kid" is not the URL of an account of this server: make an account first, or correct the client\'s stored one.',
    )
