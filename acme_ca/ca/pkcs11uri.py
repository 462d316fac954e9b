"""PKCS #11 URIs (RFC 7512), as far as a private key of a CA needs them.

pkcs11:token=vcc;object=intermediate;id=%01%02?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/vcc.pin
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, unquote_to_bytes

from acme_ca.ca.keystore import KeyStoreError

_PATH = {"token", "manufacturer", "model", "serial", "object", "id", "type"}
_QUERY = {"module-path", "pin-value", "pin-source"}
_ATTRIBUTE = re.compile(r"([a-z-]+)=((?:%[0-9A-Fa-f]{2}|[^%])+)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pkcs11Uri:
    """Which key, in which token, behind which module; and how the token is opened."""

    module: Path
    token: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    serial: str | None = None
    object: str | None = None
    id: bytes | None = None
    pin_value: str | None = field(default=None, repr=False)
    pin_source: Path | None = None

    @property
    def name(self) -> str:
        """For sentences: without the query, so without any PIN."""
        return f"pkcs11:{';'.join(self._path())}"

    def __str__(self) -> str:
        """Without the PIN."""
        source = f"&pin-source=file:{quote(str(self.pin_source))}" if self.pin_source else ""
        return f"{self.name}?module-path={quote(str(self.module))}{source}"

    def _path(self) -> list[str]:
        texts = {
            "token": self.token,
            "manufacturer": self.manufacturer,
            "model": self.model,
            "serial": self.serial,
            "object": self.object,
        }
        parts = [f"{name}={quote(value, safe='')}" for name, value in texts.items() if value is not None]
        return parts + ([f"id={''.join(f'%{octet:02x}' for octet in self.id)}"] if self.id else [])


def parse(uri: str) -> Pkcs11Uri:
    """Raises KeyStoreError: it names attributes, never their values, for one of them may be a PIN."""
    path, _, query = uri.removeprefix("pkcs11:").partition("?")
    which = _attributes(path, ";", _PATH)
    how = _attributes(query, "&", _QUERY)
    if unquote(which.pop("type", "private")) != "private":
        raise _malformed("its type is something else than private")
    if not which.keys() & {"token", "serial"} or not which.keys() & {"object", "id"}:
        raise _malformed("it needs a token (or serial) and an object (or id)")
    identifier = which.pop("id", None)
    return Pkcs11Uri(
        module=_absolute(how.get("module-path", ""), "module-path"),
        id=None if identifier is None else unquote_to_bytes(identifier),
        pin_value=unquote(how["pin-value"]) if "pin-value" in how else None,
        pin_source=_absolute(how["pin-source"], "pin-source") if "pin-source" in how else None,
        **{name: unquote(value) for name, value in which.items()},
    )


def _attributes(part: str, separator: str, known: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for attribute in filter(None, part.split(separator)):
        match = _ATTRIBUTE.fullmatch(attribute)
        if match is None:
            raise _malformed("it is name=value;… and after the question mark name=value&…")
        name, value = match.groups()
        if name not in known:
            raise _malformed(f"{', '.join(sorted(known))} may stand there, and nothing else")
        if name in found:
            raise _malformed(f"it has two of {name}")
        found[name] = value
    return found


def _absolute(value: str, name: str) -> Path:
    path = Path(unquote(value).removeprefix("file:").removeprefix("//"))
    if not path.is_absolute() or "\0" in str(path):
        raise _malformed(f"{name} is an absolute path")
    return path


def _malformed(why: str) -> KeyStoreError:
    return KeyStoreError(f"The PKCS #11 URI is malformed: {why} (RFC 7512).")
