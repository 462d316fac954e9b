"""A raw ACME client: it signs as it should unless a test says otherwise, and hides nothing of the answer.

    account = await client.register()
    order = await account.order("a.example.test")
    await order.prove(ca.web)
    answer = await account.post(order.url, None, header={"alg": "none"})

URLs begin with the server's `public_url`; the client sends what is meant for it to the server of the test. On every
answer it checks what every answer must have.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession
from cryptography import x509
from multidict import CIMultiDictProxy
from yarl import URL

from acme_ca.core.codes import Code
from acme_ca.core.problems import ERROR_NAMESPACE, ErrorType
from tests.support.dns import DnsServer
from tests.support.issuing import csr as make_csr
from tests.support.jose import Key, base64url, compact, jws
from tests.support.responders import HttpResponder

JOSE = "application/jose+json"
PATIENCE = 60.0
"""Seconds that a test waits for what the server does beside its answers."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0]

    @property
    def nonce(self) -> str:
        return self.headers["Replay-Nonce"]

    @property
    def location(self) -> str:
        return self.headers["Location"]

    @property
    def error(self) -> str:
        """The type of a problem without its namespace; empty for an answer that is none."""
        if self.content_type != "application/problem+json":
            return ""
        return self.json["type"].removeprefix(ERROR_NAMESPACE)

    def links(self, relation: str) -> list[str]:
        found = (re.fullmatch(r'<([^>]*)>;rel="([^"]*)"', link) for link in self.headers.getall("Link", []))
        return [match[1] for match in found if match and match[2] == relation]


class Client:
    """Signs as anyone. `nonces` are those of all answers so far."""

    def __init__(
        self, session: ClientSession, *, server: URL, public_url: str, log: Sequence[Any] = ()
    ) -> None:
        """`log`: of the server, to be shown when it fails."""
        self._session = session
        self._server = str(server).rstrip("/")
        self.public_url = public_url
        self._log = log
        self.nonces: set[str] = set()
        self._unused: dict[str, None] = {}
        self.directory_url = f"{public_url}/acme/directory"

    def url(self, resource: str) -> str:
        """Of the resources that the directory lists, by their paths' last part: `new-order`."""
        return f"{self.public_url}/acme/{resource}"

    async def request(
        self,
        method: str,
        url: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        failing: bool = False,
    ) -> Answer:
        """`failing`: the answer may be the server's fault (5xx)."""
        assert url.startswith(self.public_url), url
        target = URL(self._server + url.removeprefix(self.public_url), encoded=True)
        async with self._session.request(
            method,
            target,
            data=body,
            headers=headers,
            allow_redirects=False,
            skip_auto_headers=["Content-Type"],
        ) as response:
            answer = Answer(response.status, response.headers, await response.read())
        self._check(url, answer, failing=failing)
        return answer

    def _check(self, url: str, answer: Answer, *, failing: bool) -> None:
        assert failing or answer.status < 500, (answer, self._log[-2:])
        assert answer.headers.get("Retry-After", "1").isdigit(), "seconds, never a date (lesson 28)"
        if not url.startswith(f"{self.public_url}/acme/") or url.startswith("http:"):
            return
        assert self.directory_url in answer.links("index")
        if answer.headers["Cache-Control"].startswith("public"):
            assert "Replay-Nonce" not in answer.headers, "what may be kept holds no nonce"
            assert "/renewal-info/" in url
            return
        assert answer.nonce not in self.nonces
        self.nonces.add(answer.nonce)
        self._unused[answer.nonce] = None
        assert answer.headers["Cache-Control"] == "no-store"
        if answer.status >= 400:
            assert answer.content_type == "application/problem+json", answer

    async def nonce(self) -> str:
        """One that nobody used: of an earlier answer, or a new one."""
        if not self._unused:
            await self.request("HEAD", self.url("new-nonce"))
        return self._unused.popitem()[0]

    def spend(self, nonce: object) -> None:
        """A test uses this nonce of an answer by itself."""
        self._unused.pop(str(nonce), None)

    async def send(
        self, url: str, body: Any, *, content_type: str | None = JOSE, failing: bool = False
    ) -> Answer:
        """POST something that may be no JWS at all: bytes as they are, anything else as JSON."""
        headers = {} if content_type is None else {"Content-Type": content_type}
        raw = body if isinstance(body, bytes) else compact(body)
        return await self.request("POST", url, body=raw, headers=headers, failing=failing)

    async def post(
        self,
        url: str,
        payload: Any,
        *,
        key: Key,
        kid: str | None = None,
        header: Mapping[str, Any] | None = None,
        without: Iterable[str] = (),
        change: Callable[[dict[str, Any]], Any] = lambda made: made,
        to: str | None = None,
        **sending: Any,
    ) -> Answer:
        """POST a JWS. `payload`: None for POST-as-GET, bytes as they are, anything else as JSON.

        Signed by `key`, which `kid` or else a `jwk` names. Spoiled by `header` (members added or replaced), `without`
        (members left out), `change` (of the finished JWS), `to` (another URL than the JWS names).
        """
        header = header or {}
        self.spend(header.get("nonce"))
        nonce = "" if "nonce" in header else await self.nonce()
        who = {"jwk": key.jwk} if kid is None else {"kid": kid}
        protected = {
            "alg": key.algorithm,
            "nonce": nonce,
            "url": url,
            **who,
            **header,
        }
        for member in without:
            del protected[member]
        made = jws(protected, payload_bytes(payload), key)
        return await self.send(to or url, change(made), **sending)

    async def register(self, key: Key | None = None, **payload: Any) -> Account:
        key = key or Key.generate()
        answer = await self.post(self.url("new-account"), payload, key=key)
        assert answer.status == 201, answer
        return Account(self, key, answer.location)


@dataclass
class Account:
    client: Client
    key: Key
    url: str

    async def post(self, url: str, payload: Any, **spoiling: Any) -> Answer:
        return await self.client.post(url, payload, **{"key": self.key, "kid": self.url, **spoiling})

    async def read(self, url: str, **spoiling: Any) -> Answer:
        """POST-as-GET."""
        return await self.post(url, None, **spoiling)

    async def new_order(self, *names: str | Mapping[str, Any], **members: Any) -> Answer:
        return await self.post(
            self.client.url("new-order"), {"identifiers": [as_identifier(name) for name in names], **members}
        )

    async def order(self, *names: str, **members: Any) -> Order:
        answer = await self.new_order(*names, **members)
        assert answer.status == 201, answer
        return Order(self, answer.location, answer.json)

    async def revoke(self, certificate: bytes, **members: Any) -> Answer:
        return await self.post(
            self.client.url("revoke-cert"), {"certificate": base64url(certificate), **members}
        )

    def key_authorization(self, token: str) -> str:
        return f"{token}.{self.key.thumbprint}"

    async def settled(self, url: str) -> dict[str, Any]:
        """The object at `url` when it is neither `pending` nor `processing` any more."""
        return await self.until(url, lambda found: found["status"] not in {"pending", "processing"})

    async def until(self, url: str, come: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while not come(found := (await self.read(url)).json):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.01)
        return found


@dataclass
class Order:
    """`object`: as it was last read."""

    account: Account
    url: str
    object: dict[str, Any]

    @property
    def names(self) -> list[str]:
        return [identifier["value"] for identifier in self.object["identifiers"]]

    async def read(self) -> dict[str, Any]:
        self.object = (await self.account.read(self.url)).json
        return self.object

    async def authorizations(self) -> list[dict[str, Any]]:
        return [(await self.account.read(url)).json for url in self.object["authorizations"]]

    async def challenge(self, kind: str = "http-01", place: int = 0) -> dict[str, Any]:
        """The challenge of this type in the authorization at this place."""
        offered = (await self.authorizations())[place]["challenges"]
        return next(challenge for challenge in offered if challenge["type"] == kind)

    async def prove(self, web: HttpResponder) -> Order:
        """By http-01, as far as not proved before; the order is `ready` then."""
        for url in self.object["authorizations"]:
            await prove(self.account, url, web)
        assert (await self.read())["status"] == "ready", self.object
        return self

    async def prove_by_dns(self, dns: DnsServer) -> Order:
        """By dns-01, which wildcards need; the order is `ready` then."""
        for url in self.object["authorizations"]:
            await prove_by_dns(self.account, url, dns)
        assert (await self.read())["status"] == "ready", self.object
        return self

    async def finalize(self, request: bytes | None = None, **sending: Any) -> Answer:
        """`request`: a CSR in DER; None: a proper one."""
        der = request or make_csr(*self.names)
        return await self.account.post(self.object["finalize"], {"csr": base64url(der)}, **sending)

    async def issue(self, web: HttpResponder, request: bytes | None = None) -> list[x509.Certificate]:
        """The chain, by way of http-01."""
        await self.prove(web)
        answer = await self.finalize(request)
        assert answer.status == 200, answer
        assert (await self.read())["status"] == "valid", self.object
        downloaded = await self.account.read(self.object["certificate"])
        return x509.load_pem_x509_certificates(downloaded.body)


async def prove(account: Account, authorization: str, web: HttpResponder) -> None:
    found = (await account.read(authorization)).json
    if found["status"] == "valid":
        return
    challenge = next(offered for offered in found["challenges"] if offered["type"] == "http-01")
    web.serve_token(challenge["token"], account.key_authorization(challenge["token"]))
    await _answer(account, challenge, authorization)


async def prove_by_dns(account: Account, authorization: str, dns: DnsServer) -> None:
    """RFC 8555 §8.4."""
    found = (await account.read(authorization)).json
    challenge = next(offered for offered in found["challenges"] if offered["type"] == "dns-01")
    digest = hashlib.sha256(account.key_authorization(challenge["token"]).encode()).digest()
    dns.add(f"_acme-challenge.{found['identifier']['value']}", "TXT", base64url(digest))
    await _answer(account, challenge, authorization)


async def _answer(account: Account, challenge: Mapping[str, Any], authorization: str) -> None:
    assert (await account.post(challenge["url"], {})).status == 200
    settled = await account.settled(authorization)
    assert settled["status"] == "valid", settled


def key_change(account: Account, new: Key, *, payload: Any = None, **header: Any) -> dict[str, str]:
    """The inner JWS of keyChange (RFC 8555 §7.3.5). Spoiled by another `payload`, or by `header` (...: left out)."""
    members = {"alg": new.algorithm, "jwk": new.jwk, "url": account.client.url("key-change"), **header}
    body = {"account": account.url, "oldKey": account.key.jwk} if payload is None else payload
    protected = {name: value for name, value in members.items() if value is not ...}
    return jws(protected, payload_bytes(body), new)


def as_identifier(name: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(name, Mapping):
        return name
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return {"type": "dns", "value": name}
    return {"type": "ip", "value": name}


def payload_bytes(payload: Any) -> bytes:
    if payload is None:
        return b""
    return payload if isinstance(payload, bytes) else compact(payload)


CODES = {
    404: [Code.NOT_FOUND, Code.URL_UNKNOWN],
    405: [Code.METHOD_NOT_ALLOWED],
    408: [Code.BODY_INCOMPLETE],
    413: [Code.BODY_TOO_LARGE],
    415: [Code.MEDIA_TYPE_WRONG],
    417: [Code.EXPECTATION_FAILED],
}
"""Those of refusals whose HTTP status alone says why, whatever was asked for."""


def assert_problem(answer: Answer, kind: ErrorType, *words: str, status: int | None = None) -> dict[str, Any]:
    """A problem document of this type (RFC 7807, RFC 8555 §6.7) with a sentence for a person; the document."""
    assert answer.error == kind, (answer.status, answer.body)
    assert status is None or answer.status == status, answer
    problem: dict[str, Any] = answer.json
    assert problem["status"] == answer.status
    assert problem["code"] in CODES.get(answer.status, [problem["code"]]), problem
    assert re.fullmatch(r".+\.", problem["detail"]), problem
    assert "identifier" not in problem, "only subproblems have it (RFC 8555 §6.7.1)"
    assert all(word in problem["detail"] for word in words), problem
    return problem


def assert_refused(answer: Answer) -> None:
    assert 400 <= answer.status < 500, answer
