"""Keys in a PKCS #11 token: an HSM, a smart card, SoftHSM.

python-pkcs11 initializes a module for use by one thread, and knows one instance of it in a process. So each module has
one thread here, which makes all calls; whoever waits for it gives up after a while, though the call cannot be broken
off. A session that is lost is made anew, once, within the signature that notices it: the module is initialized again,
which is what makes modules look for their tokens. That ends the sessions of all keys behind the module; each finds
its own again.

What a process inherits of a module by a fork is of no use to it (PKCS #11 v3.1 §5.4): the next call initializes anew.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, TokenFlag
from pkcs11 import exceptions as errors

from acme_ca.ca import pkcs11uri
from acme_ca.ca.keystore import KeyKind, KeyStoreError, KeyUnavailable, PrivateKey
from acme_ca.ca.pkcs11uri import Pkcs11Uri
from acme_ca.ca.remotekey import der_signature
from acme_ca.ca.remotestore import remote_key

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
T = TypeVar("T")

SIGN_SECONDS = 10.0
"""How long a signature is waited for, reconnecting included."""
CREATE_SECONDS = 120.0
"""An HSM may think about a large RSA key for a minute."""

_EC_PARAMETERS = {
    "secp256r1": bytes.fromhex("06082a8648ce3d030107"),
    "secp384r1": bytes.fromhex("06052b81040022"),
}
"""DER of the curves' object identifiers (RFC 5480 §2.1.1.1)."""
_CURVES: dict[bytes, ec.EllipticCurve] = {
    _EC_PARAMETERS["secp256r1"]: ec.SECP256R1(),
    _EC_PARAMETERS["secp384r1"]: ec.SECP384R1(),
}
_EC_NAMES = {KeyKind.EC_P256: "secp256r1", KeyKind.EC_P384: "secp384r1"}
_RSA_BITS = {KeyKind.RSA_2048: 2048, KeyKind.RSA_4096: 4096}
_SHA256_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
"""What precedes the digest under PKCS #1 v1.5 (RFC 8017 §9.2)."""
_STAYS_INSIDE = {Attribute.PRIVATE: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}

_SIGNS_ONLY = {
    Attribute.SIGN: True,
    Attribute.DECRYPT: False,
    Attribute.UNWRAP: False,
    Attribute.DERIVE: False,
}


def open_key(uri: str, *, password: bytes) -> PrivateKey:
    """The key that the URI names, after a first signature. `password`: the PIN, when the URI says none."""
    return _Key(pkcs11uri.parse(uri), password).opened()


def create_key(uri: str, kind: KeyKind, *, password: bytes) -> tuple[str, PrivateKey]:
    """Make a key pair inside the token. The URI that is returned has its id."""
    key = _new(uri, password)
    key.run(lambda: key.generate(kind), CREATE_SECONDS)
    return str(key.address), key.opened()


def import_key(uri: str, private_key: PrivateKey, *, password: bytes) -> tuple[str, PrivateKey]:
    """Put a key into the token, not to come out again, where the token allows that."""
    key = _new(uri, password)
    key.run(lambda: key.put(private_key), CREATE_SECONDS)
    return str(key.address), key.opened()


def _new(uri: str, password: bytes) -> _Key:
    address = pkcs11uri.parse(uri)
    if address.object is None:
        raise KeyStoreError("The PKCS #11 URI of a new key needs an object: the key's label.")
    return _Key(replace(address, id=address.id or secrets.token_bytes(8)), password)


# ---------------------------------------------------------------- one key


class _Key:
    """A key, and how it is found again: `run` gives the thread of its module something to do."""

    def __init__(self, address: Pkcs11Uri, password: bytes) -> None:
        self.address = address
        self._password = password
        self._public_key: PublicKey | None = None
        self._found: tuple[_Module, int, Any] | None = None
        """In which of the module's lives the key was found, and its handle in that."""

    def opened(self) -> PrivateKey:
        public_key = self._public_key = self.run(self._read_public_key, SIGN_SECONDS)
        sign = self._sign_rsa if isinstance(public_key, rsa.RSAPublicKey) else self._sign_ec
        return remote_key(self.address.name, public_key, sign)

    def _sign_ec(self, digest: bytes) -> bytes:
        return der_signature(
            self.run(lambda: self._handle().sign(digest, mechanism=Mechanism.ECDSA), SIGN_SECONDS)
        )

    def _sign_rsa(self, digest: bytes) -> bytes:
        message = _SHA256_DIGEST_INFO + digest
        return bytes(
            self.run(lambda: self._handle().sign(message, mechanism=Mechanism.RSA_PKCS), SIGN_SECONDS)
        )

    def run(self, act: Callable[[], T], seconds: float) -> T:
        """Raises KeyStoreError. What a lost session prevents is done in a new one."""
        module = _module(self.address.module)

        def persistently() -> T:
            try:
                return self._explained(act)
            except KeyUnavailable:
                self._explained(module.restart)
                return self._explained(act)

        try:
            return module.run(persistently, seconds)
        except TimeoutError:
            raise KeyUnavailable(
                f"{self.address.name} cannot be used now: no answer within {seconds:.0f} seconds."
            ) from None

    def _explained(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except errors.PKCS11Error as error:
            if sentence := _REFUSALS.get(type(error)):
                raise KeyStoreError(f"{self.address.name}: {sentence}.") from None
            raise KeyUnavailable(
                f"{self.address.name} cannot be used now: the token says {type(error).__name__}."
            ) from None

    # ------------------------------------------------------------ in the module's thread

    def _handle(self) -> Any:
        module = _module(self.address.module)
        if self._found is None or self._found[:2] != (module, module.life):
            found = self._only({Attribute.CLASS: ObjectClass.PRIVATE_KEY, **self._named()}, "private")
            if self._public_key is not None and self._public_key_of(found) != self._public_key:
                raise KeyStoreError(f"{self.address.name} is another key than it was before.")
            self._found = (module, module.life, found)
        return self._found[2]

    def _named(self) -> dict[Attribute, Any]:
        name = {Attribute.LABEL: self.address.object, Attribute.ID: self.address.id}
        return {attribute: value for attribute, value in name.items() if value is not None}

    def _only(self, attributes: dict[Attribute, Any], kind: str) -> Any:
        found = list(self._session().get_objects(attributes))
        if len(found) != 1:
            how_many = f"there are {len(found)} such {kind} keys" if found else f"there is no such {kind} key"
            raise KeyStoreError(f"{self.address.name}: {how_many} in the token.")
        return found[0]

    def _session(self) -> pkcs11.Session:
        return _module(self.address.module).session(self.address, self._pin())

    def _pin(self) -> str:
        if self.address.pin_value is not None:
            return self.address.pin_value
        if self.address.pin_source is not None:
            return _first_line(self.address.pin_source)
        if self._password:
            return self._password.decode()
        raise KeyStoreError(
            f"{self.address.name}: no PIN is given; name its file in the URI (pin-source), or set the CA password to it."
        )

    def _read_public_key(self) -> PublicKey:
        return self._public_key_of(self._handle())

    def _public_key_of(self, private: Any) -> PublicKey:
        try:
            if private.key_type is KeyType.RSA:
                return _rsa_public_key(private)
            if private.key_type is KeyType.EC:
                return self._ec_public_key(private)
        except (KeyError, ValueError):
            pass
        raise KeyStoreError(f"{self.address.name} is neither an EC key on P-256 or P-384 nor an RSA key.")

    def _ec_public_key(self, private: Any) -> ec.EllipticCurvePublicKey:
        curve = _CURVES[private[Attribute.EC_PARAMS]]
        identifier = private[Attribute.ID]
        name = {Attribute.ID: identifier} if identifier else {Attribute.LABEL: private[Attribute.LABEL]}
        public = self._only({Attribute.CLASS: ObjectClass.PUBLIC_KEY, **name}, "public")
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, _point(public[Attribute.EC_POINT], curve))

    def generate(self, kind: KeyKind) -> None:
        with self._for_writing() as session:
            if kind in _RSA_BITS:
                pair = session.generate_keypair(KeyType.RSA, _RSA_BITS[kind], **self._template())
            else:
                parameters = {Attribute.EC_PARAMS: _EC_PARAMETERS[_EC_NAMES[kind]]}
                domain = session.create_domain_parameters(KeyType.EC, parameters, local=True)
                pair = domain.generate_keypair(**self._template())
            _check_stays_inside(self.address, pair)

    def _template(self) -> dict[str, Any]:
        return {
            "id": self.address.id,
            "label": self.address.object,
            "store": True,
            "capabilities": MechanismFlag.SIGN | MechanismFlag.VERIFY,
            "private_template": _STAYS_INSIDE,
        }

    def put(self, key: PrivateKey) -> None:
        name = {Attribute.TOKEN: True, **self._named()}
        public, private = _objects_of(key)
        with self._for_writing() as session:
            made: list[Any] = []
            try:
                for attributes in (private, public):
                    made.append(session.create_object({**attributes, **name}))  # noqa: PERF401  undone one by one
                _check_stays_inside(self.address, made)
            except errors.PKCS11Error as error:
                for thing in made:
                    thing.destroy()
                raise KeyStoreError(
                    f"{self.address.name}: the token does not take a key from outside ({type(error).__name__}); "
                    "make a new one in it."
                ) from None

    @contextmanager
    def _for_writing(self) -> Iterator[Any]:
        """A session that may write, where there is no such key yet."""
        if list(self._session().get_objects({Attribute.LABEL: self.address.object})):
            raise KeyStoreError(f"{self.address.name}: there is something of that name in the token already.")
        session = self._session().token.open(rw=True)
        try:
            yield session
        finally:
            session.close()


_REFUSALS: dict[type[errors.PKCS11Error], str] = {
    errors.PinIncorrect: "the PIN is wrong",
    errors.PinInvalid: "the PIN is wrong",
    errors.PinLenRange: "the PIN is wrong",
    errors.PinExpired: "the PIN has expired",
    errors.PinLocked: "the PIN is locked after too many wrong ones",
    errors.UserPinNotInitialized: "the token has no PIN yet",
    errors.KeyTypeInconsistent: "the key does not sign",
    errors.MechanismInvalid: "the token lacks the mechanism that is needed (ECDSA, or RSA with PKCS #1 v1.5)",
    errors.TokenWriteProtected: "the token is write-protected",
}


def _rsa_public_key(key: Any) -> rsa.RSAPublicKey:
    modulus, exponent = (int.from_bytes(key[name]) for name in (Attribute.MODULUS, Attribute.PUBLIC_EXPONENT))
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _point(encoded: bytes, curve: ec.EllipticCurve) -> bytes:
    """Of a CKA_EC_POINT, which is an OCTET STRING with the point, and in some tokens the point itself."""
    return encoded[-(2 * ((curve.key_size + 7) // 8) + 1) :]


def _objects_of(key: PrivateKey) -> tuple[dict[Attribute, Any], dict[Attribute, Any]]:
    """The attributes of public and private key."""
    private = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, **_SIGNS_ONLY, **_STAYS_INSIDE}
    public = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.VERIFY: True}
    if isinstance(key, rsa.RSAPrivateKey):
        of_both, of_private = _rsa_attributes(key.private_numbers())
        return {**public, **of_both}, {**private, **of_both, **of_private}
    of_both = {Attribute.KEY_TYPE: KeyType.EC, Attribute.EC_PARAMS: _EC_PARAMETERS[key.curve.name]}
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    value = key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8)
    octet_string = bytes((0x04, len(point))) + point
    return {**public, **of_both, Attribute.EC_POINT: octet_string}, {
        **private,
        **of_both,
        Attribute.VALUE: value,
    }


def _rsa_attributes(numbers: rsa.RSAPrivateNumbers) -> tuple[dict[Attribute, Any], dict[Attribute, Any]]:
    """Those of both keys, and those of the private key alone."""
    public = {
        Attribute.MODULUS: numbers.public_numbers.n,
        Attribute.PUBLIC_EXPONENT: numbers.public_numbers.e,
    }
    private = {
        Attribute.PRIVATE_EXPONENT: numbers.d,
        Attribute.PRIME_1: numbers.p,
        Attribute.PRIME_2: numbers.q,
        Attribute.EXPONENT_1: numbers.dmp1,
        Attribute.EXPONENT_2: numbers.dmq1,
        Attribute.COEFFICIENT: numbers.iqmp,
    }
    return {Attribute.KEY_TYPE: KeyType.RSA, **_octets(public)}, _octets(private)


def _octets(numbers: dict[Attribute, int]) -> dict[Attribute, Any]:
    return {name: number.to_bytes((number.bit_length() + 7) // 8) for name, number in numbers.items()}


def _check_stays_inside(address: Pkcs11Uri, pair: Iterable[Any]) -> None:
    private = next(key for key in pair if key.object_class is ObjectClass.PRIVATE_KEY)
    if private[Attribute.EXTRACTABLE] or not private[Attribute.SENSITIVE]:
        raise KeyStoreError(
            f"{address.name}: the token would let the key out; it is there, and should be deleted."
        )


def _first_line(path: Path) -> str:
    """The PIN in a file. Raises KeyStoreError."""
    try:
        with path.open(encoding="utf-8") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise KeyStoreError(f"The PIN file {path} is open to other users; make it `chmod 600`.")
            line = file.readline(_MAX_PIN).rstrip("\r\n")
    except OSError as error:
        raise KeyStoreError(f"The PIN file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise KeyStoreError(f"The PIN file {path} is no text in UTF-8.") from None
    if not line:
        raise KeyStoreError(f"The PIN file {path} has an empty first line; it must hold the PIN.")
    return line


_MAX_PIN = 1024


# ---------------------------------------------------------------- one module


class _Module:
    """A PKCS #11 module and the one thread that calls it. But for `run`, everything happens in that thread."""

    def __init__(self, path: Path) -> None:
        self.life = 0
        """Counts the initializations: handles are good within one."""
        self._path = path
        self._library: Any = None
        self._sessions: dict[int, tuple[pkcs11.Session, bytes]] = {}
        """By the token's slot, logged in, each with the digest of the PIN. A process can log in to a token once."""
        self._refused: set[tuple[bytes, bytes]] = set()
        """Serial numbers and PIN digests that were refused: trying them again would lock the token."""
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._work, name=f"pkcs11 {path.name}", daemon=True).start()

    def run(self, act: Callable[[], T], seconds: float) -> T:
        """Raises TimeoutError; what has not begun by then will not be done."""
        future: Future[T] = Future()
        self._jobs.put((future, act))
        try:
            return future.result(seconds)
        finally:
            future.cancel()

    def _work(self) -> None:
        while True:
            future, act = self._jobs.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(act())
            except BaseException as error:  # noqa: BLE001  it is raised where the result is waited for
                future.set_exception(error)

    def restart(self) -> None:
        """All sessions end. Raises PKCS11Error while the module does not start."""
        self.life += 1
        self._sessions.clear()
        if self._library is not None:
            with suppress(errors.PKCS11Error):
                self._library.finalize()
            self._library.initialize()

    def session(self, address: Pkcs11Uri, pin: str) -> pkcs11.Session:
        """Logged in to the token. Raises KeyStoreError, PKCS11Error."""
        token, digest = self._token(address), hashlib.sha256(pin.encode()).digest()
        slot = token.slot.slot_id
        if slot not in self._sessions:
            self._check_may_try(token, digest, address)
            try:
                self._sessions[slot] = (token.open(user_pin=pin), digest)
            except (errors.PinIncorrect, errors.PinInvalid, errors.PinLenRange):
                self._refused.add((token.serial, digest))
                raise
        session, logged_in_with = self._sessions[slot]
        if not hmac.compare_digest(digest, logged_in_with):
            raise errors.PinIncorrect
        return session

    def _check_may_try(self, token: pkcs11.Token, digest: bytes, address: Pkcs11Uri) -> None:
        if (token.serial, digest) in self._refused:
            raise KeyStoreError(
                f"{address.name}: the PIN was wrong before, and is not tried again by this process."
            )
        if token.flags & TokenFlag.USER_PIN_FINAL_TRY:
            raise KeyStoreError(
                f"{address.name}: one more wrong PIN locks the token; log in once with the tool of its vendor."
            )

    def _token(self, address: Pkcs11Uri) -> pkcs11.Token:
        found: list[pkcs11.Token] = [
            token for token in self._loaded().get_tokens() if _matches(token, address)
        ]
        if not found:
            raise KeyUnavailable(
                f"{address.name}: no such token is there; is it connected, and the name right?"
            )
        if len(found) > 1:
            raise KeyStoreError(
                f"{address.name}: there are {len(found)} such tokens; add a serial to the URI."
            )
        return found[0]

    def _loaded(self) -> Any:
        if self._library is None:
            if not self._path.is_file():
                raise KeyStoreError(f"The PKCS #11 module {self._path} is not there.")
            try:
                self._library = pkcs11.lib(str(self._path))
            except errors.PKCS11Error as error:
                if "while loading" in str(error):
                    raise KeyStoreError(f"{self._path} is no PKCS #11 module that can be loaded.") from None
                raise
        return self._library


def _matches(token: pkcs11.Token, address: Pkcs11Uri) -> bool:
    pairs = (
        (address.token, token.label),
        (address.serial, token.serial.decode(errors="replace").strip()),
        (address.manufacturer, token.manufacturer_id),
        (address.model, token.model),
    )
    return all(asked in {None, has} for asked, has in pairs)


_modules: dict[tuple[int, Path], _Module] = {}
_making = threading.Lock()


def _module(path: Path) -> _Module:
    """This process's: python-pkcs11 has one library of a path, whoever opens it."""
    with _making:
        place = (os.getpid(), path)
        if place not in _modules:
            _modules[place] = _Module(path)
        return _modules[place]
