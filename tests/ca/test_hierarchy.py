import shutil
import stat
import threading
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acme_ca.ca import hierarchy as hierarchies
from acme_ca.ca import keystore
from acme_ca.ca.hierarchy import Hierarchy, HierarchyExists
from acme_ca.ca.issuers import IssuerError, signature_hash
from tests.ca.conftest import PASSWORD
from tests.support.issuing import NOW, extensions_of

FILES = {"root.pem", "root.key", "intermediate.pem", "intermediate.key"}


def create(directory, **changes) -> Hierarchy:
    asked = {
        "common_name": "Example",
        "organization": "Example Org",
        "country": "de",
        "key_type": "ec",
        "password": PASSWORD,
        "now": NOW,
    }
    return hierarchies.create_hierarchy(directory, **(asked | changes))


# ---------------------------------------------------------------- what is made


def test_names(hierarchy):
    assert hierarchy.root.certificate.subject.rfc4514_string() == "CN=Example Root CA,O=Example Org,C=DE"
    assert (
        hierarchy.intermediate.certificate.subject.rfc4514_string()
        == "CN=Example Intermediate CA,O=Example Org,C=DE"
    )


@pytest.mark.parametrize("common_name", ["VCC", "VCC CA", "VCC Root CA"])
def test_the_common_name_may_say_ca(tmp_path, common_name):
    made = create(tmp_path / "ca", common_name=common_name, organization="", country="")
    assert made.root.certificate.subject.rfc4514_string() == "CN=VCC Root CA"
    assert made.intermediate.certificate.subject.rfc4514_string() == "CN=VCC Intermediate CA"


def test_extensions(hierarchy):
    for issuer, path_length in ((hierarchy.root, 1), (hierarchy.intermediate, 0)):
        extensions = extensions_of(issuer.certificate)
        assert extensions.keys() == {
            "basicConstraints",
            "keyUsage",
            "subjectKeyIdentifier",
            "authorityKeyIdentifier",
        }
        assert extensions["basicConstraints"] == (
            True,
            x509.BasicConstraints(ca=True, path_length=path_length),
        )
        critical, usage = extensions["keyUsage"]
        assert critical
        assert usage.key_cert_sign
        assert usage.crl_sign
        assert not usage.digital_signature
    root_key = extensions_of(hierarchy.root.certificate)["subjectKeyIdentifier"][1].digest
    assert (
        extensions_of(hierarchy.intermediate.certificate)["authorityKeyIdentifier"][1].key_identifier
        == root_key
    )


def test_keys(hierarchy, directory):
    sizes = [issuer.certificate.public_key().key_size for issuer in (hierarchy.root, hierarchy.intermediate)]
    assert sizes == ([4096, 2048] if directory.parent.name.startswith("rsa") else [384, 256])


def test_validity(hierarchy):
    root, intermediate = hierarchy.root.certificate, hierarchy.intermediate.certificate
    assert (
        root.not_valid_before_utc
        == intermediate.not_valid_before_utc
        == NOW.replace(microsecond=0) - timedelta(hours=1)
    )
    assert (root.not_valid_after_utc - NOW).days == 3651
    assert (intermediate.not_valid_after_utc - NOW).days == 1825


def test_serials_differ(hierarchy):
    serials = {hierarchy.root.certificate.serial_number, hierarchy.intermediate.certificate.serial_number}
    assert len(serials) == 2
    assert all(1 << 100 < serial < 1 << 128 for serial in serials)


def test_issuer(hierarchy):
    intermediate = hierarchy.intermediate
    assert len(intermediate.fingerprint) == 64
    assert intermediate.id == intermediate.fingerprint[:32]
    assert intermediate.chain == (intermediate.certificate,)
    assert intermediate.chain_pem == intermediate.certificate.public_bytes(Encoding.PEM)
    assert intermediate.key is not None
    assert hierarchy.root.key is None
    assert hierarchy.root.chain == ()


# ---------------------------------------------------------------- on disk


def test_files_are_private(directory):
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {path.name for path in directory.iterdir()} == FILES
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in directory.glob("*.key"))


def test_what_is_made_is_what_is_loaded(tmp_path):
    made = create(tmp_path / "with spaces" / "ca")
    loaded = hierarchies.load_certificates(tmp_path / "with spaces" / "ca")
    assert loaded.root == made.root
    assert (loaded.intermediate.id, loaded.intermediate.chain_pem) == (
        made.intermediate.id,
        made.intermediate.chain_pem,
    )


def test_certificates_are_read_without_a_password_or_key(tmp_path, directory):
    for name in ("root.pem", "intermediate.pem"):
        shutil.copy(directory / name, tmp_path)
    loaded = hierarchies.load_certificates(tmp_path)
    assert loaded.intermediate.key is None


def test_each_key_is_that_of_its_certificate(directory, hierarchy):
    for name, issuer in (("root", hierarchy.root), ("intermediate", hierarchy.intermediate)):
        key = keystore.load(directory / f"{name}.key", PASSWORD)
        assert key.public_key() == issuer.certificate.public_key()


@pytest.mark.parametrize("occupant", ["hierarchy", "file in it", "file"])
def test_nothing_is_overwritten(tmp_path, occupant):
    place = tmp_path / "ca"
    if occupant == "file":
        place.write_text("precious")
    else:
        place.mkdir()
        (place / "root.key").write_text("precious")
    with pytest.raises(HierarchyExists, match="left as it is"):
        create(place)
    assert (place if occupant == "file" else place / "root.key").read_text() == "precious"
    assert list(tmp_path.iterdir()) == [place]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "ca").mkdir(mode=0o755)
    create(tmp_path / "ca")
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(IssuerError, match="password is empty"):
        create(tmp_path / "ca", password=b"")
    assert not list(tmp_path.iterdir())


def test_of_two_at_once_one_wins(tmp_path):
    outcomes: list[Hierarchy | IssuerError] = []

    def attempt() -> None:
        try:
            outcomes.append(create(tmp_path / "ca"))
        except IssuerError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, Hierarchy)]
    assert all(isinstance(outcome, Hierarchy | HierarchyExists) for outcome in outcomes)
    assert hierarchies.load_certificates(tmp_path / "ca").intermediate.id == winner.intermediate.id
    assert list(tmp_path.iterdir()) == [tmp_path / "ca"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"common_name": "x" * 49}, "64 characters"),
        ({"organization": "x" * 65}, "64 characters"),
        ({"country": "Germany"}, "two-letter"),
        ({"country": "D1"}, "two-letter"),
    ],
)
def test_names_that_no_certificate_can_hold(tmp_path, asked, why):
    with pytest.raises(IssuerError, match=why):
        create(tmp_path / "ca", **asked)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- what is not loaded


def spoil_missing(place) -> None:
    (place / "root.pem").unlink()


def spoil_garbage(place) -> None:
    (place / "intermediate.pem").write_text("hello")


def spoil_other_root(place) -> None:
    create(place.parent / "other")
    shutil.copy(place.parent / "other" / "root.pem", place)


def spoil_no_ca(place) -> None:
    root_key = keystore.load(place / "root.key", PASSWORD)
    intermediate = x509.load_pem_x509_certificate((place / "intermediate.pem").read_bytes())
    leaf = (
        x509.CertificateBuilder()
        .subject_name(intermediate.subject)
        .issuer_name(intermediate.issuer)
        .public_key(intermediate.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(extensions_of(intermediate)["keyUsage"][1], critical=True)
        .sign(root_key, signature_hash(root_key.public_key()))
    )
    (place / "intermediate.pem").write_bytes(leaf.public_bytes(Encoding.PEM))


def spoil_order(place) -> None:
    shutil.copy(place / "intermediate.pem", place / "root.pem")


SPOILED = [
    (spoil_missing, "root.pem cannot be read: No such file"),
    (spoil_garbage, "intermediate.pem is no certificate in PEM"),
    (spoil_other_root, "intermediate.pem is not issued by the certificate"),
    (spoil_no_ca, "intermediate.pem is not that of a CA"),
    (spoil_order, "root.pem is not issued by itself"),
]


@pytest.mark.parametrize(("spoil", "why"), SPOILED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_spoiled_hierarchy_is_refused(tmp_path, spoil, why):
    place = tmp_path / "ca"
    create(place)
    spoil(place)
    with pytest.raises(IssuerError) as refused:
        hierarchies.load_certificates(place)
    assert why in str(refused.value)


def test_an_expired_hierarchy_can_be_looked_at(tmp_path):
    create(tmp_path / "ca", now=NOW - timedelta(days=4000))
    assert hierarchies.load_certificates(tmp_path / "ca")
