"""An independent ACME client: certbot's `acme` package, which answers http-01 with a responder of the tests.

with AcmeClient(server) as client:
    client.register()
    order = client.order("www.example.test")
    client.prove(order, web)                 # web: an HttpResponder at the server's http-01 port
    issued = client.finalize(order)
"""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import josepy as jose
import requests
from acme import challenges, messages
from acme.client import ClientNetwork, ClientV2
from acme.crypto_util import make_csr
from acme.jws import JWS
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.chains import Issued
from tests.support.responders import HttpResponder
from tests.support.server import Server

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PATIENCE = 30
"""Seconds."""


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


class AcmeClient:
    """One account. `new_connections`: opens one for each request, as dehydrated and acme.sh do."""

    def __init__(
        self, server: Server, *, key: PrivateKey | None = None, new_connections: bool = False
    ) -> None:
        self.server = server
        self.network = _network(key or new_key(), server)
        if new_connections:
            self.network.session.headers["Connection"] = "close"
        self.acme = ClientV2(ClientV2.get_directory(server.directory, self.network), self.network)

    @property
    def url(self) -> str:
        """Of the account."""
        return self.network.account.uri

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.network.session.close()

    def register(self, email: str = "owner@example.org", **fields: Any) -> messages.RegistrationResource:
        wish = messages.NewRegistration.from_data(email=email, terms_of_service_agreed=True, **fields)
        return self.acme.new_account(wish)

    def bind(self, kid: str, hmac_key: str) -> dict[str, Any]:
        """The field of newAccount that binds this account to an EAB key (RFC 8555 §7.3.4)."""
        return messages.ExternalAccountBinding.from_data(
            account_public_key=self.network.key.public_key(),
            kid=kid,
            hmac_key=hmac_key,
            directory=self.acme.directory,
        )

    def change_key(self, key: PrivateKey) -> None:
        """keyChange (RFC 8555 §7.3.5), which the package leaves to its users."""
        url, new = self.acme.directory["keyChange"], _network(key, self.server)
        inner = {"account": self.url, "oldKey": self.network.key.public_key().to_partial_json()}
        proof = JWS.sign(json.dumps(inner).encode(), key=new.key, alg=new.alg, nonce=None, url=url)
        self.post(url, proof.to_json())
        self.network.key, self.network.alg = new.key, new.alg
        new.session.close()

    # ------------------------------------------------------------ orders

    def order(
        self, *names: str, key: PrivateKey | None = None, profile: str | None = None
    ) -> messages.OrderResource:
        """`key`: of the certificate."""
        hosts = [name for name in names if not _is_address(name)]
        addresses = [ip_address(name) for name in names if _is_address(name)]
        return self.acme.new_order(make_csr(_pem(key or new_key()), hosts, ipaddrs=addresses), profile)

    def prove(self, order: messages.OrderResource, web: HttpResponder) -> None:
        """Answers an http-01 challenge of each authorization and waits until all are valid."""
        for authorization in order.authorizations:
            self.answer(authorization, web)
        self.await_valid(order)

    def answer(
        self, authorization: messages.AuthorizationResource, web: HttpResponder, *, spoilt: bool = False
    ) -> None:
        """`spoilt`: the answer proves nothing."""
        challenge = http01(authorization)
        response, proof = challenge.response_and_validation(self.network.key)
        web.serve_token(challenge.chall.encode("token"), "nothing" if spoilt else proof)
        self.acme.answer_challenge(challenge, response)

    def await_valid(self, order: messages.OrderResource, *, seconds: float = PATIENCE) -> None:
        self.acme.poll_authorizations(order, _in(seconds))

    def finalize(self, order: messages.OrderResource) -> messages.OrderResource:
        """The order with its certificate."""
        return self.acme.finalize_order(order, _in(PATIENCE), fetch_alternative_chains=True)

    def await_issued(self, order: messages.OrderResource) -> messages.OrderResource:
        """After a finalize: the order with its certificate."""
        return self.acme.poll_finalization(order, _in(PATIENCE))

    def issue(self, *names: str, web: HttpResponder, key: PrivateKey | None = None) -> messages.OrderResource:
        order = self.order(*names, key=key)
        self.prove(order, web)
        return self.finalize(order)

    # ------------------------------------------------------------ resources as they are

    def post(self, url: str, payload: Any) -> requests.Response:
        """A signed request with a payload of our own; None: POST-as-GET. Raises messages.Error."""
        body = None if payload is None else _Payload(payload)
        return self.network.post(url, body, new_nonce_url=self.acme.directory["newNonce"])

    def read(self, url: str) -> dict[str, Any]:
        found: dict[str, Any] = self.post(url, None).json()
        return found

    def signed(self, url: str, payload: Any) -> bytes:
        """The body of a request, for `Connection.post`."""
        nonce = self.network._get_nonce(url, self.acme.directory["newNonce"])
        jws = self.network._wrap_in_jws(_Payload(payload), nonce, url)
        return jws.encode()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: dict[str, Any]
    location: str | None


class Connection:
    """A TLS connection to a server, open and waiting."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection = http.client.HTTPSConnection(
            "localhost", server.https_port, context=server.tls(), timeout=PATIENCE
        )
        self._connection.connect()

    def post(self, url: str, body: bytes) -> Answer:
        """Sends one request and closes."""
        path = url.removeprefix(self._server.base)
        self._connection.request("POST", path, body, {"Content-Type": "application/jose+json"})
        with self._connection.getresponse() as response:
            answer = Answer(response.status, json.load(response), response.headers["Location"])
        self._connection.close()
        return answer


def http01(authorization: messages.AuthorizationResource) -> messages.ChallengeBody:
    (found,) = [c for c in authorization.body.challenges if isinstance(c.chall, challenges.HTTP01)]
    return found


def leaf(order: messages.OrderResource) -> x509.Certificate:
    return x509.load_pem_x509_certificate(order.fullchain_pem.encode())


def write(order: messages.OrderResource, key: PrivateKey, directory: Path) -> Issued:
    """`key`: of the certificate."""
    issued = Issued(chain=directory / "chain.pem", key=directory / "key.pem")
    issued.chain.write_text(order.fullchain_pem)
    issued.key.write_bytes(_pem(key))
    return issued


def csr_of(order: messages.OrderResource) -> str:
    """As the payload of finalize has it (RFC 8555 §7.4)."""
    der = x509.load_pem_x509_csr(order.csr_pem).public_bytes(Encoding.DER)
    return jose.b64.b64encode(der).decode()


class _Payload(jose.JSONDeSerializable):
    def __init__(self, payload: Any) -> None:
        self._payload = payload

    def to_partial_json(self) -> Any:
        return self._payload

    @classmethod
    def from_json(cls, jobj: Any) -> Self:
        return cls(jobj)


def _network(key: PrivateKey, server: Server) -> ClientNetwork:
    if isinstance(key, rsa.RSAPrivateKey):
        return ClientNetwork(jose.JWKRSA(key=key), alg=jose.RS256, verify_ssl=str(server.root))
    alg = jose.ES384 if key.curve.key_size == 384 else jose.ES256
    return ClientNetwork(jose.JWKEC(key=key), alg=alg, verify_ssl=str(server.root))


def _pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _in(seconds: float) -> datetime:
    return datetime.now() + timedelta(seconds=seconds)  # noqa: DTZ005  the package compares with local time


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
