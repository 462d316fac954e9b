"""The first hierarchy of a CA on disk: a root, and the intermediate that issues. A new database begins with it.

It is one folder of mode 0700 with `root.pem`, `root.key`, `intermediate.pem` and `intermediate.key`. Serving needs
neither the root's key nor its presence: it can lie in a safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.ca import certify, checks, folder, keystore
from acme_ca.ca.certify import Parent
from acme_ca.ca.checks import Link
from acme_ca.ca.folder import FolderExists
from acme_ca.ca.issuers import Issuer, IssuerError, issuer
from acme_ca.ca.keystore import KeyKind, KeyStoreError, PrivateKey

KEY_KINDS: dict[str, tuple[KeyKind, KeyKind]] = {
    "ec": (KeyKind.EC_P384, KeyKind.EC_P256),
    "rsa": (KeyKind.RSA_4096, KeyKind.RSA_2048),
}
"""For each key type the kinds of root and intermediate."""


class HierarchyExists(IssuerError):  # noqa: N818  the name says it
    """There is something at the place where a new hierarchy should go. It is left as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    root: Issuer
    """Its key is not loaded."""
    intermediate: Issuer


# ---------------------------------------------------------------- making it


def create_hierarchy(
    directory: Path,
    *,
    common_name: str,
    organization: str,
    country: str,
    key_type: Literal["ec", "rsa"],
    password: bytes,
    base_url: str | None = None,
    now: datetime,
) -> Hierarchy:
    """Make a root and an intermediate and put them at `directory`: wholly, or not at all.

    An empty `organization` or `country` is left out of the names; `base_url` as for `certify.make_intermediate`. Raises
    HierarchyExists when there is anything at `directory` but an empty folder, IssuerError for a name that no certificate
    can hold or a folder that cannot be written. What a crash may leave is a hidden folder beside `directory`.
    """
    root_name = certify.root_name(common_name, organization, country)
    name = certify.intermediate_name(root_name)
    try:
        with folder.new_folder(directory) as draft:
            root_key, key = (keystore.generate(kind) for kind in KEY_KINDS[key_type])
            root = certify.make_root(root_name, root_key, now=now)
            parent = Parent(certificate=root, key=root_key)
            made = certify.make_intermediate(name, key.public_key(), parent, base_url=base_url, now=now)
            _write(draft, {"root": (root, root_key), "intermediate": (made, key)}, password)
    except FolderExists as error:
        raise HierarchyExists(str(error)) from None
    except (OSError, KeyStoreError) as error:
        raise IssuerError(f"The hierarchy cannot be written to {directory}: {error}") from None
    return Hierarchy(root=issuer(root, None, chain=()), intermediate=issuer(made, key, chain=(made,)))


def _write(draft: Path, parts: dict[str, tuple[x509.Certificate, PrivateKey]], password: bytes) -> None:
    for name, (certificate, key) in parts.items():
        keystore.save(draft / f"{name}.key", key, password)
        folder.write(draft / f"{name}.pem", certificate.public_bytes(Encoding.PEM))


# ---------------------------------------------------------------- reading it


def load_certificates(directory: Path) -> Hierarchy:
    """The hierarchy without its keys, also when it has expired. Raises IssuerError."""
    intermediate, root = links = _links(directory)
    checks.check(links, now=None)
    return Hierarchy(
        root=issuer(root.certificate, None, chain=()),
        intermediate=issuer(intermediate.certificate, None, chain=(intermediate.certificate,)),
    )


def _links(directory: Path) -> list[Link]:
    paths = [directory / f"{name}.pem" for name in ("intermediate", "root")]
    return [Link(f"certificate {path}", read_certificate(path)) for path in paths]


def read_certificate(path: Path) -> x509.Certificate:
    """Raises IssuerError."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise IssuerError(f"The certificate {path} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise IssuerError(f"The certificate {path} is no certificate in PEM.") from None
