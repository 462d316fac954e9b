"""The ACME resources: which URL, which key must sign, what it reads, what it answers (RFC 8555 §7.1)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from aiohttp import web
from multidict import CIMultiDict

from acme_ca.acme import messages, unpausing, urls
from acme_ca.acme.accounts import Accounts
from acme_ca.acme.authentication import (
    AccountRequest,
    Authenticator,
    KeyRequest,
    SignedBy,
    SignedRequest,
    Target,
    not_theirs,
)
from acme_ca.acme.authorizations import Authorizations
from acme_ca.acme.limits import Limits
from acme_ca.acme.nonces import Nonces
from acme_ca.acme.orders import Orders
from acme_ca.acme.renewals import Renewals
from acme_ca.acme.unpausing import Unpausing
from acme_ca.acme.urls import Urls
from acme_ca.ca.profiles import Profiles
from acme_ca.ca.served import Issuers
from acme_ca.core.accounts import Account
from acme_ca.core.certificates import Certificate
from acme_ca.core.challenges import ChallengeType
from acme_ca.core.codes import Code
from acme_ca.core.ids import AccountId, AuthorizationId
from acme_ca.core.orders import Authorization, Order
from acme_ca.core.problems import Problem, malformed, not_found, unauthorized
from acme_ca.core.renewal import parse_cert_id
from acme_ca.core.states import AuthorizationStatus, OrderStatus
from acme_ca.http import ACCOUNT, CLIENT, PROBLEM, json_response, meet_expectation, read_body, status_of
from acme_ca.revocation.revoke import ByAccount, ByKey, Revocation
from acme_ca.storage import orders as order_store
from acme_ca.storage.database import Database
from acme_ca.storage.resources import Resource
from acme_ca.storage.signers import Credential

T = TypeVar("T", Order, Authorization, Certificate)

JOSE = "application/jose+json"
PEM_CHAIN = "application/pem-certificate-chain"
RETRY_AFTER = {"Retry-After": "1"}
"""Seconds, never a date (lesson 28)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acme:
    """The rooms behind the endpoints. `directory` is the directory object but for the profiles, made once."""

    authenticator: Authenticator
    nonces: Nonces
    urls: Urls
    accounts: Accounts
    orders: Orders
    authorizations: Authorizations
    renewals: Renewals
    revocation: Revocation
    limits: Limits
    unpausing: Unpausing
    issuers: Issuers
    profiles: Profiles
    database: Database
    directory: Mapping[str, Any]
    orders_page: int
    clock: Callable[[], datetime] = field(repr=False)


Parameters = Mapping[str, str]
Endpoint = Callable[[Acme, Any, Parameters], Awaitable[web.Response | Problem]]
"""A Problem that is returned, not raised, was found out by the statement that has spent the nonce."""


@dataclass(frozen=True, slots=True)
class Route:
    """`resource` is read together with the account and must be its own, else the answer is 404. Where the route `acts`,
    a request with a payload comes with a credential: its statement spends the nonce and does what is asked, at once.
    """

    path: str
    endpoint: Endpoint
    signed_by: SignedBy = SignedBy.ACCOUNT
    resource: Resource | None = None
    acts: bool = False


# ---------------------------------------------------------------- accounts


async def new_account(acme: Acme, request: KeyRequest, _: Parameters) -> web.Response:
    account, created = await acme.accounts.create(request)
    return _account(acme, account, status=201 if created else 200)


async def account(acme: Acme, request: AccountRequest, parameters: Parameters) -> web.Response:
    _check_own(request, parameters)
    if not request.payload:
        return _account(acme, request.account)
    acme.authenticator.forget(request.account.id)
    return _account(acme, await acme.accounts.update(request))


async def orders(acme: Acme, request: AccountRequest, parameters: Parameters) -> web.Response:
    _check_own(request, parameters)
    _must_be_post_as_get(request)
    size, after = acme.orders_page, parameters["after"]
    if after and not urls.is_id(after):
        raise not_found("This page of the orders list does not exist: begin with the account's orders URL.")
    ids = await order_store.living_ids(
        acme.database, request.account.id, after=after, limit=size + 1, now=acme.clock()
    )
    links = [(acme.urls.orders(request.account.id, ids[size - 1]), "next")] if len(ids) > size else []
    return json_response({"orders": [acme.urls.order(order) for order in ids[:size]]}, links=links)


async def key_change(acme: Acme, request: AccountRequest, _: Parameters) -> web.Response:
    acme.authenticator.forget(request.account.id)
    return _account(acme, await acme.accounts.change_key(request))


def _account(acme: Acme, account: Account, *, status: int = 200) -> web.Response:
    body = messages.account_object(account, acme.urls)
    return json_response(body, status=status, headers={"Location": acme.urls.account(account.id)})


def _check_own(request: AccountRequest, parameters: Parameters) -> None:
    if request.account.id != AccountId(parameters["id"]):
        raise unauthorized("This is not the account that signs the request.")


# ---------------------------------------------------------------- orders


async def new_order(acme: Acme, request: AccountRequest, _: Parameters) -> web.Response | Problem:
    _must_have_payload(request)
    credential = _credential(request)
    signer, order = await acme.orders.create(
        credential, messages.payload_of(request.payload), account=request.account, client=request.client
    )
    await acme.authenticator.confirm(signer, credential)
    return order if isinstance(order, Problem) else _order(acme, order, status=201)


async def order(acme: Acme, request: AccountRequest, _: Parameters) -> web.Response:
    _must_be_post_as_get(request)
    return _order(acme, _own(request, Order))


async def finalize(acme: Acme, request: AccountRequest, _: Parameters) -> web.Response:
    finalized = await acme.orders.finalize(
        _own(request, Order),
        messages.payload_of(request.payload),
        account=request.account,
        client=request.client,
    )
    return _order(acme, finalized)


def _order(acme: Acme, order: Order, *, status: int = 200) -> web.Response:
    headers = {"Location": acme.urls.order(order.id)}
    if order.status is OrderStatus.PROCESSING:
        headers |= RETRY_AFTER
    return json_response(messages.order_object(order, acme.urls), status=status, headers=headers)


async def certificate(acme: Acme, request: AccountRequest, _: Parameters) -> web.Response:
    """RFC 8555 §7.4.2: with its chain; links to the others, where there are some."""
    return await _chain(acme, request, 0)


async def other_chain(acme: Acme, request: AccountRequest, parameters: Parameters) -> web.Response:
    return await _chain(acme, request, int(parameters["chain"]))


async def _chain(acme: Acme, request: AccountRequest, wanted: int) -> web.Response:
    _must_be_post_as_get(request)
    found = _own(request, Certificate)
    if found.der is None:
        raise not_found("This certificate is not signed yet: poll its order.")
    issuer = await acme.issuers.find(found.issuer)
    chains = (issuer.chain_pem, *issuer.alternates_pem)
    if wanted >= len(chains):
        raise not_found("There is no such chain: see the links of the certificate's own URL.")
    others = [acme.urls.certificate(found.serial, other) for other in range(len(chains)) if other != wanted]
    headers = CIMultiDict(("Link", f'<{url}>;rel="alternate"') for url in others)
    return web.Response(
        body=messages.pem(found.der) + chains[wanted], content_type=PEM_CHAIN, headers=headers
    )


# ---------------------------------------------------------------- authorizations and challenges


async def new_authz(acme: Acme, request: AccountRequest, _: Parameters) -> web.Response:
    made = await acme.authorizations.pre_authorize(
        request.account, messages.payload_of(request.payload), client=request.client
    )
    return _authorization(acme, made, status=201)


async def authorization(acme: Acme, request: AccountRequest, _: Parameters) -> web.Response:
    found = _own(request, Authorization)
    if request.payload:
        found = await acme.authorizations.update(
            found, messages.payload_of(request.payload), client=request.client
        )
    return _authorization(acme, found)


def _authorization(acme: Acme, authorization: Authorization, *, status: int = 200) -> web.Response:
    headers = {"Location": acme.urls.authorization(authorization.id), **_while_processing(authorization)}
    return json_response(
        messages.authorization_object(authorization, acme.urls), status=status, headers=headers
    )


async def challenge(acme: Acme, request: AccountRequest, parameters: Parameters) -> web.Response:
    kind = ChallengeType(parameters["type"])
    found = (
        await _answered(acme, request, parameters, kind) if request.payload else _own(request, Authorization)
    )
    if kind not in found.offered and kind is not found.decisive:
        raise not_found("This authorization has no such challenge.")
    return json_response(
        messages.challenge_object(found, kind, acme.urls),
        headers=_while_processing(found),
        links=[(acme.urls.authorization(AuthorizationId(found.id)), "up")],
    )


async def _answered(
    acme: Acme, request: AccountRequest, parameters: Parameters, kind: ChallengeType
) -> Authorization:
    messages.payload_of(request.payload)  # no member of it means anything (RFC 8555 §7.5.1, §8)
    credential = _credential(request)
    signer, found = await acme.authorizations.answer(
        credential, AuthorizationId(parameters["id"]), kind, client=request.client
    )
    await acme.authenticator.confirm(signer, credential)
    return _present(found)


def _while_processing(authorization: Authorization) -> Mapping[str, str]:
    waiting = authorization.status is AuthorizationStatus.PENDING and authorization.challenge is not None
    return RETRY_AFTER if waiting else {}


# ---------------------------------------------------------------- revocation


async def revoke_cert(acme: Acme, request: SignedRequest, _: Parameters) -> web.Response:
    wish = messages.revocation(messages.payload_of(request.payload))
    by = (
        ByKey(request.key.key, request.client)
        if isinstance(request, KeyRequest)
        else ByAccount(request.account.id, request.client)
    )
    await acme.revocation.revoke(wish.certificate, by=by, reason=wish.reason)
    return web.Response()


# ---------------------------------------------------------------- renewal information


async def renewal_info(acme: Acme, request: web.Request) -> web.Response:
    """RFC 9773 §4: unsigned. Caches may keep it but ask every time, or a moved window would be seen late."""
    found = await acme.renewals.info(parse_cert_id(request.match_info["cert_id"]))
    headers = {
        "Retry-After": str(int(found.interval.total_seconds())),
        "ETag": f'"{found.tag}"',
        "Cache-Control": "public, no-cache",
    }
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return web.Response(status=304, headers=headers)
    body = messages.renewal_info_object(found.window, explanation_url=found.explanation_url)
    return json_response(body, headers=headers)


# ---------------------------------------------------------------- pauses

PAGE_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src {unpausing.STYLE_SOURCE}; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


async def unpause_page(acme: Acme, request: web.Request) -> web.Response:
    """For a person, who was sent here by the refusal: the link is the credential."""
    return await _page(request, acme.unpausing.page(request.match_info["token"]))


async def unpause(acme: Acme, request: web.Request) -> web.Response:
    lifted = acme.unpausing.lift(request.match_info["token"], source=request[CLIENT])
    return await _page(request, lifted)


async def _page(request: web.Request, written: Awaitable[str]) -> web.Response:
    """A refusal too is a page for a browser, and a problem document for everybody else."""
    status = 200
    try:
        html = await written
    except Problem as problem:
        if "text/html" not in request.headers.get("Accept", ""):
            raise
        html, status = unpausing.refusal(problem), status_of(problem)
        request[PROBLEM] = str(problem)
    return web.Response(text=html, status=status, content_type="text/html", headers=PAGE_HEADERS)


# ---------------------------------------------------------------- directory and nonces


async def directory(acme: Acme, _request: AccountRequest | None, _: Parameters) -> web.Response:
    """RFC 8555 §7.1.1; meta.profiles of draft-ietf-acme-profiles §3."""
    described = {name: profile.description for name, profile in acme.profiles.offered.items()}
    return json_response({**acme.directory, "meta": {**acme.directory["meta"], "profiles": described}})


async def new_nonce(_acme: Acme, _request: AccountRequest | None, _: Parameters) -> web.Response:
    return web.Response(status=204)


# ---------------------------------------------------------------- the table

_ID = f"{{id:{urls.ID}}}"
_CHAIN = "{chain:[1-9][0-9]?}"
_KIND = f"{{type:{'|'.join(ChallengeType)}}}"

ROUTES = (
    Route(urls.DIRECTORY, directory),
    Route(urls.NEW_NONCE, new_nonce),
    Route(urls.NEW_ACCOUNT, new_account, SignedBy.KEY),
    Route(urls.NEW_ORDER, new_order, acts=True),
    Route(urls.NEW_AUTHZ, new_authz),
    Route(urls.KEY_CHANGE, key_change),
    Route(urls.REVOKE_CERT, revoke_cert, SignedBy.EITHER),
    Route(f"{urls.ACCOUNT}{_ID}", account),
    Route(f"{urls.ACCOUNT}{_ID}/orders", orders),
    Route(f"{urls.ORDER}{_ID}", order, resource=Resource.ORDER),
    Route(f"{urls.ORDER}{_ID}/finalize", finalize, resource=Resource.ORDER),
    Route(f"{urls.AUTHZ}{_ID}", authorization, resource=Resource.AUTHORIZATION),
    Route(f"{urls.CHALLENGE}{_ID}/{_KIND}", challenge, resource=Resource.AUTHORIZATION, acts=True),
    Route(f"{urls.CERTIFICATE}{_ID}", certificate, resource=Resource.CERTIFICATE),
    Route(f"{urls.CERTIFICATE}{_ID}/{_CHAIN}", other_chain, resource=Resource.CERTIFICATE),
)
"""Every signed request. The directory and newNonce take POST-as-GET here (RFC 8555 §6.3) and unsigned GET beside."""


def add_routes(application: web.Application, acme: Acme) -> None:
    """Serve ACME from `application`, and put on its answers what the RFC asks of every one of them."""
    for route in ROUTES:
        application.router.add_post(route.path, _signed(acme, route), expect_handler=meet_expectation)
    for path, endpoint in ((urls.DIRECTORY, directory), (urls.NEW_NONCE, new_nonce)):
        application.router.add_get(path, _unsigned(acme, endpoint), allow_head=False)
    application.router.add_get(f"{urls.RENEWAL_INFO}/{{cert_id}}", partial(renewal_info, acme))
    page = f"{urls.UNPAUSE}{{token:[A-Za-z0-9_-]+}}"
    application.router.add_get(page, partial(unpause_page, acme))
    application.router.add_post(page, partial(unpause, acme))
    for path in dict.fromkeys(route.path for route in ROUTES):
        application.router.add_route("OPTIONS", path, _preflight)
    application.router.add_head(urls.DIRECTORY, _unsigned(acme, directory))
    application.router.add_head(urls.NEW_NONCE, _head_nonce)


def _signed(acme: Acme, route: Route) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        if request.content_type != JOSE:
            detail = f"The request's Content-Type must be {JOSE} (RFC 8555 §6.2)."
            raise malformed(detail, status=415, code=Code.MEDIA_TYPE_WRONG)
        # A query is taken apart only where there is one: that costs as much as the route.
        after = request.query.get("after", "") if "?" in request.raw_path else ""
        parameters = {"after": after, **request.match_info}
        target = Target(
            url=acme.urls.of_path(request.raw_path),
            signed_by=route.signed_by,
            resource=route.resource,
            resource_id=parameters.get("id", ""),
            acts=route.acts,
        )
        signed = await acme.authenticator.authenticate(
            await read_body(request), target, client=request[CLIENT]
        )
        if signed.account is not None:
            request[ACCOUNT] = signed.account.id
        try:
            answer = await route.endpoint(acme, signed, parameters)
        except Problem:
            if isinstance(signed, AccountRequest) and signed.credential is not None:
                await acme.authenticator.discard(signed.credential.nonce)
            raise
        if isinstance(answer, Problem):
            raise answer
        return answer

    return handle


def _unsigned(
    acme: Acme, endpoint: Callable[[Acme, Any, Parameters], Awaitable[web.Response]]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_request: web.Request) -> web.Response:
        return await endpoint(acme, None, {})

    return handle


async def _preflight(_request: web.Request) -> web.Response:
    """For scripts of other origins, which ask before they send application/jose+json (RFC 8555 §6.1, CORS)."""
    allowed = {
        "Access-Control-Allow-Methods": "GET, HEAD, POST",
        "Access-Control-Allow-Headers": "Content-Type",
    }
    return web.Response(status=204, headers={**allowed, "Access-Control-Max-Age": "86400"})


async def _head_nonce(_request: web.Request) -> web.Response:
    return web.Response(status=200)  # RFC 8555 §7.2: 200 for HEAD, 204 for GET


def common_headers(acme: Acme) -> Callable[[web.Request, web.StreamResponse], None]:
    """What every answer below /acme/ carries: a fresh nonce, the way to the directory, and that it is not to be kept."""
    index = f'<{acme.urls.directory}>;rel="index"'

    def add(request: web.Request, response: web.StreamResponse) -> None:
        if not request.path.startswith("/acme/"):
            return
        headers = response.headers
        headers.add("Link", index)
        if "Cache-Control" not in headers:  # what may be kept must not hold a nonce
            headers["Replay-Nonce"] = acme.nonces.mint()
            headers["Cache-Control"] = "no-store"
        headers["Access-Control-Allow-Origin"] = "*"
        headers["Access-Control-Expose-Headers"] = "Link, Replay-Nonce, Location, Retry-After"

    return add


def _own(request: AccountRequest, kind: type[T]) -> T:
    """The thing that the URL names; the authenticator has refused the request where there is none."""
    assert isinstance(request.resource, kind)  # noqa: S101
    return request.resource


def _credential(request: AccountRequest) -> Credential:
    """What the authenticator leaves to the statement of the act."""
    assert request.credential is not None  # noqa: S101
    return request.credential


def _present(found: T | None) -> T:
    if found is None:
        raise not_theirs()
    return found


def _must_have_payload(request: AccountRequest) -> None:
    if not request.payload:
        raise malformed("This resource takes a JSON object; the payload is empty.")


def _must_be_post_as_get(request: AccountRequest) -> None:
    if request.payload:
        raise malformed("This resource is read by POST-as-GET: the payload must be empty (RFC 8555 §6.3).")
