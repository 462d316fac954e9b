"""AWS KMS as moto has it, on loopback. moto hashes what it should take for a digest; that is put right here."""

import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from moto.kms.responses import KmsResponse
from moto.kms.utils import ECDSAPrivateKey, RSAPrivateKey
from moto.server import ThreadedMotoServer

from tests.support.keystores import Store

REGION = "eu-central-1"


class AwsKms(Store):
    def __init__(self, monkeypatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
        take_digests(monkeypatch)
        self._server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def missing(self) -> str:
        return self.uri("none")

    def uri(self, name: str) -> str:
        return f"awskms:///alias/{name}?region={REGION}&endpoint={self.endpoint}"

    def go_away(self) -> None:
        self._server.stop()

    def come_back(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()


def take_digests(monkeypatch) -> None:
    original = KmsResponse.sign

    def sign(self) -> str:
        assert self._get_param("MessageType") == "DIGEST", json.dumps(self.body)
        return original(self)

    monkeypatch.setattr(KmsResponse, "sign", sign)
    monkeypatch.setattr(
        ECDSAPrivateKey, "sign", lambda self, digest, name: _sign_ec(self.private_key, digest, name)
    )
    monkeypatch.setattr(
        RSAPrivateKey, "sign", lambda self, digest, name: _sign_rsa(self.private_key, digest, name)
    )


def _sign_ec(key, digest: bytes, name: str) -> bytes:
    algorithm = {"ECDSA_SHA_256": hashes.SHA256(), "ECDSA_SHA_384": hashes.SHA384()}[name]
    return key.sign(digest, ec.ECDSA(utils.Prehashed(algorithm)))


def _sign_rsa(key, digest: bytes, name: str) -> bytes:
    assert name == "RSASSA_PKCS1_V1_5_SHA_256"
    return key.sign(digest, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))
