"""Stand-ins for two key services, on loopback: as much of their REST as is used here, written from their documentation.

They show that our requests have the form that the services document, and that their SDKs read the answers; they are
not the services.
"""

import json
import re
import ssl
import threading
import time
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.support.issuing import NOW, subject
from tests.support.keystores import LATER, Store


class Refusal(Exception):  # noqa: N818  the name says it
    """(HTTP status, the service's word for it)."""


class Service(Store):
    """Keys in memory behind HTTP. `ask` answers a request; `go_away` closes the port, `come_back` opens it again."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self.keys: dict[str, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey] = {}
        self.port = 0
        self.refuse_with: int | None = None
        """The status of all answers but tokens, when it is set."""
        self.come_back()

    def answer_to(self, method, path, query, headers, body) -> dict:
        if self.refuse_with and "token" not in path:
            raise Refusal(self.refuse_with, "Refused")
        return self.ask(method, path, query, headers, body)

    def ask(self, method: str, path: str, query: dict[str, str], headers, body) -> dict:
        raise NotImplementedError

    def error(self, word: str) -> dict:
        raise NotImplementedError

    def go_away(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def come_back(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        self.port = self._server.server_address[1]
        if self._context:
            self._server.socket = self._context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            try:
                said = service.answer_to(
                    self.command, parts.path, query, self.headers, json.loads(body) if body else {}
                )
                status = 200
            except Refusal as refusal:
                status, word = refusal.args
                said = service.error(word)
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", service.challenge())
            content = json.dumps(said).encode()
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer  # noqa: N815  the base class's names

        def log_message(self, *arguments) -> None:
            pass

    return Handler


def sign_digest(key, digest: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    """For EC in DER. Raises ValueError for a digest of another length."""
    prehashed = utils.Prehashed(algorithm)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(digest, padding.PKCS1v15(), prehashed)
    return key.sign(digest, ec.ECDSA(prehashed))


# ---------------------------------------------------------------- Azure Key Vault


class AzureKeyVault(Service):
    """Key Vault's create, get and sign (REST API 7.x), its challenge, and the token endpoint of an App Service."""

    def __init__(self, directory, monkeypatch) -> None:
        bundle, context = _own_certificate(directory)
        super().__init__(context)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{self.base}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "a secret of the machine")
        self.seconds_for_a_key = 0.0

    @property
    def base(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def missing(self) -> str:
        return self.uri("none")

    def uri(self, name: str) -> str:
        return f"azurekeyvault://127.0.0.1:{self.port}/keys/{name}?protection=hsm"

    def challenge(self) -> str:
        """The resource's host must end the vault's (the SDK checks it): 0.0.1 does that for 127.0.0.1."""
        tenant = "https://login.microsoftonline.com/00000000-0000-0000-0000-000000000001"
        return f'Bearer authorization="{tenant}", resource="https://0.0.1:{self.port}"'

    def error(self, word: str) -> dict:
        return {"error": {"code": word, "message": word}}

    def ask(self, method, path, query, headers, body) -> dict:
        if path == "/msi/token":
            assert headers["X-IDENTITY-HEADER"] == "a secret of the machine"
            return {
                "access_token": "a token",
                "expires_on": str(int(LATER.timestamp())),
                "resource": query["resource"],
                "token_type": "Bearer",
            }
        if headers["Authorization"] != "Bearer a token":
            raise Refusal(401, "Unauthorized")
        assert query["api-version"].startswith(("7.", "20")), query
        _, keys, name, *rest = path.split("/")
        assert keys == "keys", path
        match method, rest:
            case "POST", ["create"]:
                return self._create(name, body)
            case "GET", [] | [""]:
                return self._bundle(self._newest(name))
            case "GET", [version]:
                return self._bundle(f"{name}/{version}")
            case "POST", [version, "sign"]:
                return self._sign(f"{name}/{version}", body)
        raise Refusal(405, "MethodNotAllowed")

    def _create(self, name: str, body) -> dict:
        kinds = {
            ("EC-HSM", "P-256"): lambda: ec.generate_private_key(ec.SECP256R1()),
            ("EC-HSM", "P-384"): lambda: ec.generate_private_key(ec.SECP384R1()),
            ("RSA-HSM", None): lambda: rsa.generate_private_key(65537, body["key_size"]),
        }
        assert body["key_ops"] == ["sign", "verify"]
        version = f"{name}/{len(self.keys):032x}"
        time.sleep(self.seconds_for_a_key)
        self.keys[version] = kinds[body["kty"], body.get("crv")]()
        return self._bundle(version)

    def _newest(self, name: str) -> str:
        return next((key for key in reversed(self.keys) if key.startswith(f"{name}/")), "none/0")

    def _bundle(self, version: str) -> dict:
        if version not in self.keys:
            raise Refusal(404, "KeyNotFound")
        jwk = {"kid": f"{self.base}/keys/{version}", "key_ops": ["sign", "verify"]}
        return {
            "key": jwk | _jwk(self.keys[version].public_key()),
            "attributes": {"enabled": True, "created": 1, "updated": 1},
        }

    def _sign(self, version: str, body) -> dict:
        algorithm = {"ES256": hashes.SHA256(), "ES384": hashes.SHA384(), "RS256": hashes.SHA256()}[
            body["alg"]
        ]
        key = self.keys[version]
        signature = sign_digest(key, _unbase64url(body["value"]), algorithm)
        if isinstance(key, ec.EllipticCurvePrivateKey):  # r and s side by side
            size = key.key_size // 8
            signature = b"".join(part.to_bytes(size) for part in utils.decode_dss_signature(signature))
        return {"kid": f"{self.base}/keys/{version}", "value": _base64url(signature)}


def _jwk(key) -> dict[str, str]:
    numbers = key.public_numbers()
    if isinstance(key, rsa.RSAPublicKey):
        return {"kty": "RSA-HSM", "n": _base64url(_octets(numbers.n)), "e": _base64url(_octets(numbers.e))}
    names = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
    size = (key.key_size + 7) // 8
    x, y = (_base64url(part.to_bytes(size)) for part in (numbers.x, numbers.y))
    return {"kty": "EC-HSM", "crv": names[key.curve.name], "x": x, "y": y}


def _octets(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)


def _base64url(octets: bytes) -> str:
    return urlsafe_b64encode(octets).decode().rstrip("=")


def _unbase64url(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _own_certificate(directory):
    """A certificate for 127.0.0.1 that signs itself: (file to trust, what the server uses)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = subject("127.0.0.1")
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(LATER)
    address = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    certificate = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    trusted, own = directory / "trusted.pem", directory / "own.pem"
    trusted.write_bytes(certificate.public_bytes(Encoding.PEM))
    own.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + trusted.read_bytes()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    return trusted, context


# ---------------------------------------------------------------- Google Cloud KMS

UNIVERSE = "universe.test"
"""In Google's own, google-auth asks iamcredentials.googleapis.com where the account may be used."""
RING = "projects/p/locations/europe-west1/keyRings/ring"
_VERSION = re.compile(rf"/v1/({RING}/cryptoKeys/[a-z0-9-]+/cryptoKeyVersions/1)(/publicKey|:asymmetricSign)?")


class GoogleCloudKms(Service):
    """Cloud KMS's cryptoKeys.create, getPublicKey and asymmetricSign (REST v1), for a service account of its own."""

    def __init__(self, directory, monkeypatch) -> None:
        super().__init__()
        self.algorithms: dict[str, str] = {}
        self.generating = 0
        """How often a public key is not there yet when it is asked for."""
        self.seconds_for_a_key = 0.0
        account = directory / "account.json"
        account.write_text(json.dumps(_service_account(f"{self.endpoint}/token")))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
        monkeypatch.setenv("GOOGLE_CLOUD_UNIVERSE_DOMAIN", UNIVERSE)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def missing(self) -> str:
        return self.existing("none")

    def uri(self, name: str) -> str:
        return f"gcpkms:{RING}/cryptoKeys/{name}?endpoint={self.endpoint}"

    def existing(self, name: str) -> str:
        return f"gcpkms:{RING}/cryptoKeys/{name}/cryptoKeyVersions/1?endpoint={self.endpoint}"

    def error(self, word: str) -> dict:
        return {"error": {"code": 0, "message": word, "status": word}}

    def ask(self, method, path, query, headers, body) -> dict:
        assert headers["Authorization"].startswith("Bearer ey"), "a JWT that the account signed itself"
        if method == "POST" and path == f"/v1/{RING}/cryptoKeys":
            return self._create(query["cryptoKeyId"], body)
        match = _VERSION.fullmatch(path)
        assert match, path
        version, act = match.groups()
        if version not in self.keys:
            raise Refusal(404, "NOT_FOUND")
        return self._sign(version, body) if act == ":asymmetricSign" else self._public_key(version)

    def _create(self, name: str, body) -> dict:
        version = f"{RING}/cryptoKeys/{name}/cryptoKeyVersions/1"
        if version in self.keys:
            raise Refusal(409, "ALREADY_EXISTS")
        assert _word(body["purpose"], {5: "ASYMMETRIC_SIGN"}) == "ASYMMETRIC_SIGN"
        template = body["versionTemplate"]
        assert _word(template["protectionLevel"], {2: "HSM"}) == "HSM"
        algorithm = _word(
            template["algorithm"],
            {
                12: "EC_SIGN_P256_SHA256",
                13: "EC_SIGN_P384_SHA384",
                5: "RSA_SIGN_PKCS1_2048_SHA256",
                7: "RSA_SIGN_PKCS1_4096_SHA256",
            },
        )
        time.sleep(self.seconds_for_a_key)
        self.put(version, _google_key(algorithm), algorithm)
        return {"name": f"{RING}/cryptoKeys/{name}"}

    def put(self, version: str, key, algorithm: str) -> None:
        self.keys[version], self.algorithms[version] = key, algorithm

    def _public_key(self, version: str) -> dict:
        if self.generating:
            self.generating -= 1
            raise Refusal(400, "FAILED_PRECONDITION")
        public = self.keys[version].public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return {"name": version, "pem": pem.decode(), "algorithm": self.algorithms[version]}

    def _sign(self, version: str, body) -> dict:
        ((word, digest),) = body["digest"].items()
        assert word.upper() in self.algorithms[version]
        algorithm = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}[word]
        signature = sign_digest(self.keys[version], b64decode(digest), algorithm)
        return {"name": version, "signature": b64encode(signature).decode()}


def _word(value: int | str, words: dict[int, str]) -> str:
    """Enums come as numbers or as words (proto3's JSON)."""
    return value if isinstance(value, str) else words[value]


def _google_key(algorithm: str):
    if "RSA" in algorithm:
        return rsa.generate_private_key(65537, int(algorithm.split("_")[3]))
    return ec.generate_private_key(ec.SECP384R1() if "P384" in algorithm else ec.SECP256R1())


def _service_account(token_uri: str) -> dict[str, str]:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "1",
        "private_key": pem,
        "client_email": "ca@p.example.test",
        "client_id": "1",
        "token_uri": token_uri,
        "universe_domain": UNIVERSE,
    }
