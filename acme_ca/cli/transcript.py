"""What a ceremony leaves behind for auditors: each act with its time. It is never told a secret."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib import metadata
from itertools import count
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives import hashes

from acme_ca import __version__
from acme_ca.ca.issuers import key_identifier
from acme_ca.core.ids import serial_text
from acme_ca.core.keys import key_name
from acme_ca.server.welcome import colon_hex


class Transcript:
    def __init__(self, title: str, *, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lines = [title, "=" * len(title), ""]

    def say(self, text: str, facts: Mapping[str, object] | None = None) -> None:
        """A line with the time (UTC), and the facts below it."""
        self._lines.append(f"{self._clock():%Y-%m-%d %H:%M:%S}Z  {text}")
        self._lines += [f"{'':22}{name}: {fact}" for name, fact in (facts or {}).items()]

    def begin(self) -> None:
        """What ran, and whether it was on a network."""
        libraries = [f"{name} {metadata.version(name)}" for name in ("cryptography", "shamir-mnemonic")]
        self.say(
            "Begun",
            {
                "program": f"acme-ca {__version__}, Python {platform.python_version()}",
                "libraries": ", ".join([*libraries, backend.openssl_version_text()]),
                "machine": f"{platform.node()}, {platform.system()} {platform.release()}",
                "networks": ", ".join(_networks()) or "none",
            },
        )

    def certificate(self, text: str, certificate: x509.Certificate) -> None:
        self.say(
            text,
            {
                "subject": certificate.subject.rfc4514_string(),
                "issuer": certificate.issuer.rfc4514_string(),
                "key": key_name(certificate.public_key()),
                "key identifier": key_identifier(certificate).hex(),
                "serial": serial_text(certificate.serial_number),
                "valid": f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}",
                "SHA-256": fingerprint(certificate),
            },
        )

    def end(self, *files: Path) -> None:
        """With what was made, or lies there."""
        self.say("Ended. SHA-256 of the files:", {path.name: _sha256(path.read_bytes()) for path in files})

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def sha256(self) -> str:
        return _sha256(self.text().encode())


def new_place(directory: Path, *, now: datetime) -> Path:
    """Where nothing is yet: of two acts in one second the later has a number."""
    name = f"transcript-{now:%Y%m%dT%H%M%SZ}"
    path, numbers = directory / f"{name}.txt", count(2)
    while path.exists():
        path = directory / f"{name}-{next(numbers)}.txt"
    return path


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256, upper-case pairs of hexadecimal digits with colons."""
    return colon_hex(certificate.fingerprint(hashes.SHA256()).hex())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _networks() -> list[str]:
    """The interfaces that are up, as Linux says; loopback is none."""
    states = sorted(Path("/sys/class/net").glob("*/operstate"))
    return [path.parent.name for path in states if path.read_text().strip() == "up"]
