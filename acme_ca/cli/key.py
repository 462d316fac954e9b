"""`acme-ca key`: the keys of issuers, and the stores that they are in."""

from __future__ import annotations

import json
import statistics
import time
from typing import Annotated

import typer
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from acme_ca.ca import issuers, keystore
from acme_ca.ca.keystore import KeyStoreError, PrivateKey
from acme_ca.cli.ca import IssuerArgument, in_rotation
from acme_ca.cli.options import ConfigOption, DataOption, JsonOption, console, load_settings, with_password
from acme_ca.config import ConfigurationError
from acme_ca.core.keys import key_name
from acme_ca.server import hierarchy

SIGNATURES = 10
"""How many a check makes."""

app = typer.Typer(help="Keys of issuers and their stores.", no_args_is_help=True)


@app.command()
def check(
    uri: Annotated[str, typer.Argument(metavar="URI", help="file:NAME, pkcs11:…, awskms:…, and so on.")],
    *,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Open a key, sign with it, verify the signatures, and say how long one takes."""
    settings = with_password(load_settings(config_file, data=data), new=False)
    try:
        key = hierarchy.keys(settings)(uri)
        seconds = statistics.median(_signature_time(key) for _ in range(SIGNATURES))
    except KeyStoreError as error:
        raise ConfigurationError(str(error)) from None
    except InvalidSignature:
        raise ConfigurationError("The key signs, and its signatures do not verify.") from None
    if as_json:
        facts = {"key": key_name(key.public_key()), "remote": keystore.may_block(key), "seconds": seconds}
        typer.echo(json.dumps(facts))
        return
    place = "in another process or machine" if keystore.may_block(key) else "in this process"
    console().print(f"Key:       {key_name(key.public_key())}, signs {place}")
    console().print(f"Signature: good, {seconds * 1000:.2f} ms (median of {SIGNATURES})")


@app.command()
def migrate(
    issuer: IssuerArgument,
    new_uri: Annotated[
        str, typer.Argument(metavar="NEW_URI", help="Its new place: pkcs11:token=…;object=…?module-path=…")
    ],
    *,
    as_json: JsonOption = False,
    config_file: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Bring an issuer's key from its file into an HSM, and have it used there. Running servers notice within seconds.

    The file stays: what to do with it is said at the end.
    """
    settings = with_password(load_settings(config_file, data=data), new=False)
    bring = hierarchy.key_migration(settings)
    old, new = in_rotation(
        settings, lambda rotation: rotation.move_key(issuer, new_uri, bring), with_keys=False
    )
    if as_json:
        typer.echo(json.dumps({"from": old, "to": new}))
        return
    out = console()
    out.print(f"Was: {old}", soft_wrap=True)
    out.print(f"Is:  {new}", soft_wrap=True)
    out.print(
        "The old file still holds the key. When the servers sign with the new place (see their logs and /health):"
    )
    out.print(
        "keep one encrypted copy offline if you may ever leave the HSM, and delete every other, backups included."
    )
    out.print(
        "A key that has been in a file may have been copied: for one that was always inside, make a new issuer."
    )


def _signature_time(key: PrivateKey) -> float:
    """Seconds. Raises InvalidSignature."""
    begin = time.perf_counter()
    signature = _signature(key)
    end = time.perf_counter()
    _verify(key, signature)
    return end - begin


_MESSAGE = b"acme-ca key check"


def _signature(key: PrivateKey) -> bytes:
    digest = issuers.signature_hash(key.public_key())
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(_MESSAGE, padding.PKCS1v15(), digest)
    return key.sign(_MESSAGE, ec.ECDSA(digest))


def _verify(key: PrivateKey, signature: bytes) -> None:
    public_key, digest = key.public_key(), issuers.signature_hash(key.public_key())
    if isinstance(public_key, rsa.RSAPublicKey):
        public_key.verify(signature, _MESSAGE, padding.PKCS1v15(), digest)
    else:
        public_key.verify(signature, _MESSAGE, ec.ECDSA(digest))
