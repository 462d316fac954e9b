"""CAs in memory: a root, one below it, and the same certificates but for one thing."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from acme_ca.ca import certify
from acme_ca.ca.certify import Parent
from acme_ca.ca.keystore import PrivateKey
from tests.support.issuing import NOW

ROOT_KEY = ec.generate_private_key(ec.SECP384R1())
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_1024 = rsa.generate_private_key(public_exponent=65537, key_size=1024)


def a_root(name: str = "Example", *, key: PrivateKey = ROOT_KEY, **terms) -> Parent:
    made = certify.make_root(certify.root_name(name, "Example Org", "DE"), key, now=NOW, **terms)
    return Parent(certificate=made, key=key)


def below(parent: Parent, *, key: PrivateKey = KEY, name: str | None = None, **terms) -> Parent:
    """An intermediate; `terms` as for `make_intermediate`."""
    subject = certify.intermediate_name(parent.certificate.subject, common_name=name)
    made = certify.make_intermediate(subject, key.public_key(), parent, **{"now": NOW, **terms})
    return Parent(certificate=made, key=key)


def remade(
    certificate: x509.Certificate,
    signer: PrivateKey,
    *added: tuple[x509.ExtensionType, bool],
    without: type[x509.ExtensionType] | None = None,
    digest: hashes.HashAlgorithm | None = None,
    **fields: object,
) -> x509.Certificate:
    """The same but for one thing, signed again. An extension that is `added` takes the place of one of its kind."""
    kinds = {type(value) for value, _ in added} | {without}
    kept = [e for e in certificate.extensions if type(e.value) not in kinds]
    builder = x509.CertificateBuilder(
        **{
            "issuer_name": certificate.issuer,
            "subject_name": certificate.subject,
            "public_key": certificate.public_key(),
            "serial_number": certificate.serial_number,
            "not_valid_before": certificate.not_valid_before_utc.replace(tzinfo=None),
            "not_valid_after": certificate.not_valid_after_utc.replace(tzinfo=None),
            "extensions": kept,
            **fields,
        }
    )
    for value, critical in added:
        builder = builder.add_extension(value, critical)
    return builder.sign(signer, digest or hashes.SHA256())
