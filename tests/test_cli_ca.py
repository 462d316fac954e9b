"""`acme-ca ca …`, run as processes: what operators do with issuers, also with an OpenSSL root that is not ours."""

import json
import subprocess

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.support.clients import find
from tests.support.server import PASSWORD, command


class Operator:
    """Runs commands at one place, on a database of its own."""

    def __init__(self, place, database_url: str) -> None:
        self.place = place
        self._database_url = database_url

    def run(self, *arguments: str, **settings: str) -> str:
        done = command(self.place, *arguments, DATABASE_URL=self._database_url, **settings)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *arguments: str, **settings: str) -> str:
        done = command(self.place, *arguments, DATABASE_URL=self._database_url, **settings)
        assert (done.returncode in {1, 2}, done.stdout) == (True, ""), done.stderr
        (sentence,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        return sentence

    def issuers(self) -> list[dict]:
        return json.loads(self.run("ca", "list", "--json"))


@pytest.fixture
def operator(tmp_path, empty_database_url) -> Operator:
    return Operator(tmp_path, empty_database_url)


@pytest.fixture
def elsewhere(tmp_path):
    """Files of a CA that was made by other means: its keys are not encrypted."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    assert command(place, "init", "--cn", "Old").returncode == 0
    files = place / "data" / "ca"
    for name in ("root", "intermediate"):
        key = load_pem_private_key((files / f"{name}.key").read_bytes(), PASSWORD.encode())
        (files / f"{name}.plain").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
    return files


def test_import_takes_in_a_root_and_an_intermediate(operator, elsewhere, tmp_path):
    said = operator.run(
        "ca",
        "import",
        f"--root={elsewhere / 'root.pem'}",
        f"--intermediate={elsewhere / 'intermediate.pem'}",
        f"--intermediate-key={elsewhere / 'intermediate.plain'}",
        "--json",
    )
    taken = {one["subject"]: one["id"] for one in json.loads(said)}
    assert set(taken) == {"CN=Old Root CA,O=VCC", "CN=Old Intermediate CA,O=VCC"}
    assert set(taken.values()) == {issuer["id"] for issuer in operator.issuers()}
    assert {(issuer["kind"], issuer["state"]) for issuer in operator.issuers()} == {
        ("root", "active"),
        ("intermediate", "active"),
    }
    (key,) = (tmp_path / "data" / "ca").glob("*.key")
    assert load_pem_private_key(key.read_bytes(), PASSWORD.encode()), "encrypted with the CA's password"
    assert key.stat().st_mode & 0o777 == 0o600
    assert "Old Root CA" in operator.run("ca", "info")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(("--intermediate=intermediate.pem",), "without its key", id="no key"),
        pytest.param(
            ("--intermediate=intermediate.pem", "--intermediate-key=root.plain"),
            "does not hold",
            id="another key",
        ),
        pytest.param(("--root-key=intermediate.plain",), "does not hold", id="another root key"),
        pytest.param(("--root-key=root.pem",), "cannot be opened", id="a key that is none"),
        pytest.param(("--root-key=missing",), "cannot be read", id="no such file"),
        pytest.param(("--intermediate=root.plain",), "no certificate in PEM", id="no certificate"),
        pytest.param(
            ("--intermediate=root.pem", "--intermediate-key=root.plain"),
            "no intermediate",
            id="the root twice",
        ),
    ],
)
def test_what_import_refuses(operator, elsewhere, arguments, says):
    placed = [
        f"{name}={elsewhere / value}" for name, value in (argument.split("=") for argument in arguments)
    ]
    assert says in operator.refused("ca", "import", f"--root={elsewhere / 'root.pem'}", *placed)
    assert operator.issuers() == []
    assert not (operator.place / "data").exists(), "no key was taken in"


@pytest.fixture
def served(operator, elsewhere) -> Operator:
    """With an issuer in use, whose root's key is not within reach."""
    operator.run(
        "ca",
        "import",
        f"--root={elsewhere / 'root.pem'}",
        f"--intermediate={elsewhere / 'intermediate.pem'}",
        f"--intermediate-key={elsewhere / 'intermediate.plain'}",
    )
    return operator


EXTENSIONS = """\
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


def test_a_foreign_root_signs_what_is_exported(served, tmp_path):
    """OpenSSL plays the other CA."""
    openssl = find("openssl")

    def run(*words: str) -> None:
        subprocess.run([openssl, *words], cwd=tmp_path, check=True, capture_output=True)

    run(
        *(
            "req",
            "-x509",
            "-newkey",
            "rsa:3072",
            "-nodes",
            "-days",
            "3650",
            "-subj",
            "/O=Partner/CN=Partner Root",
        ),
        *(
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout",
            "partner.key",
            "-out",
            "partner.pem",
        ),
    )
    served.run("ca", "export-csr", "--out", "ours.csr", "--cn", "Ours below Partner")
    (tmp_path / "ca.cnf").write_text(EXTENSIONS)
    run(
        *("x509", "-req", "-in", "ours.csr", "-CA", "partner.pem", "-CAkey", "partner.key", "-days", "900"),
        *("-CAcreateserial", "-extfile", "ca.cnf", "-out", "ours.pem"),
    )
    assert "missing" in served.refused("ca", "install-cert", "ours.pem")
    assert "staged" in served.run("ca", "install-cert", "ours.pem", "--chain", "partner.pem")
    (staged,) = [issuer["id"] for issuer in served.issuers() if issuer["state"] == "staged"]
    served.run("ca", "activate", staged)
    assert "Partner Root" in served.run("ca", "info")


def test_export_csr_overwrites_nothing(served, tmp_path):
    (tmp_path / "there").write_text("precious")
    assert "cannot be written" in served.refused("ca", "export-csr", "--out", "there")
    assert (tmp_path / "there").read_text() == "precious"


def keys_of(operator: Operator) -> int:
    return len(list((operator.place / "data" / "ca").glob("*.key")))


def test_an_act_that_is_refused_leaves_no_key(served, elsewhere, tmp_path):
    before = keys_of(served)
    (tmp_path / "there").write_text("precious")
    served.refused("ca", "export-csr", f"--out={tmp_path / 'there'}")
    assert (tmp_path / "there").read_text() == "precious"
    wrong = served.refused("ca", "export-csr", f"--out={tmp_path / 'new'}", CA_PASSWORD="another password")
    assert "opens none of the keys" in wrong
    assert not (tmp_path / "new").exists()
    known = served.refused(
        "ca", "import", f"--root={elsewhere / 'root.pem'}", f"--root-key={elsewhere / 'root.plain'}"
    )
    assert "known already" in known
    assert keys_of(served) == before


def test_the_first_key_that_is_taken_in_needs_a_password_like_that_of_a_new_ca(operator, elsewhere):
    arguments = (f"--root={elsewhere / 'root.pem'}", f"--root-key={elsewhere / 'root.plain'}")
    says = operator.refused("ca", "import", *arguments, CA_PASSWORD="short")
    assert "8 characters or more" in says
    assert operator.issuers() == []


def test_without_the_roots_key_create_intermediate_says_what_to_do(served):
    assert "export-csr" in served.refused("ca", "create-intermediate")


def test_a_name_constraint_that_is_none(served):
    assert "name" in served.refused("ca", "create-intermediate", "--permit", "not a name").lower()


def test_a_key_store_that_is_none(operator, elsewhere, tmp_path):
    operator.run("ca", "import", f"--root={elsewhere / 'root.pem'}", f"--root-key={elsewhere / 'root.plain'}")
    (root,) = operator.issuers()
    before = sorted((tmp_path / "data" / "ca").iterdir())
    says = operator.refused("ca", "create-intermediate", "--parent", root["id"], "--key-uri", "tpm:x")
    assert "no key store" in says
    assert sorted((tmp_path / "data" / "ca").iterdir()) == before


def test_states_as_operators_change_them(operator, elsewhere):
    operator.run("ca", "import", f"--root={elsewhere / 'root.pem'}", f"--root-key={elsewhere / 'root.plain'}")
    (root,) = operator.issuers()
    for _ in range(2):
        operator.run("ca", "create-intermediate", "--parent", root["id"][:12], "--days", "100")
    first, second = (issuer["id"] for issuer in operator.issuers() if issuer["state"] == "staged")
    operator.run("ca", "activate", first)
    assert "only active" in operator.refused("ca", "retire", first, "--yes")
    operator.run("ca", "activate", second[:6].upper())
    operator.run("ca", "retire", first, "--yes")
    states = {issuer["id"]: issuer["state"] for issuer in operator.issuers()}
    assert (states[first], states[second]) == ("retired", "active")
    assert "no issuer has" in operator.refused("ca", "retire", "0" * 32, "--yes")
    assert "6 digits" in operator.refused("ca", "retire", "00", "--yes")
    assert "Only intermediates" in operator.refused("ca", "activate", root["id"])
