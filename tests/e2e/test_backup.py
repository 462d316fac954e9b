"""A CA is backed up while it issues, its machine is lost, and it goes on elsewhere."""

import json
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path

import pytest
from cryptography import x509

from tests.support.acme_client import AcmeClient, leaf
from tests.support.clients import find
from tests.support.responders import HttpResponder
from tests.support.server import SERVE, Server, assert_audited, environment, prepared, running
from tests.support.terminal import Terminal

pytestmark = pytest.mark.client

PASSPHRASE = "hardly anybody guesses this"


def crl_number(server: Server) -> int:
    """Of the newest CRL of the issuer, as relying parties see it."""
    (issuer,) = server.issuers("active")
    with urllib.request.urlopen(f"{server.http_base}/crl/{issuer}/0.crl") as answer:
        crl = x509.load_der_x509_crl(answer.read())
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def revoked_serials(server: Server) -> set[int]:
    (issuer,) = server.issuers("active")
    with urllib.request.urlopen(f"{server.http_base}/crl/{issuer}/0.crl") as answer:
        return {entry.serial_number for entry in x509.load_der_x509_crl(answer.read())}


@pytest.mark.timeout(600)
def test_a_machine_is_lost(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    backup = tmp_path / "acme-ca.age"
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    secret = f"--passphrase-file={tmp_path / 'passphrase'}"
    with running(first, VALIDATION__RETRY_DELAY="0.1") as server:
        serials = issued(server, 3)
        server.operate("cert", "revoke", serials[0], "--reason", "superseded", "--yes")
        server.operate("backup", str(backup), secret)
        server.operate("cert", "revoke", serials[1], "--reason", "superseded", "--yes")
        server.operate("crl", "generate")
        assert {int(serials[0], 16), int(serials[1], 16)} <= revoked_serials(server)
        number = crl_number(server)
        addresses = {
            name: server.environment[name] for name in server.environment if name.startswith("ACME_CA_")
        }
    settings = {name.removeprefix("ACME_CA_"): value for name, value in addresses.items()}
    settings["DATA"] = str(second / "data")
    again = prepared([*SERVE, "--dev"], second, **settings)
    again.https_port, again.http_port, again.http01_port = (
        server.https_port,
        server.http_port,
        server.http01_port,
    )
    assert json.loads(again.operate("restore", str(backup), secret, "--json"))["revoked"] == 1
    again.start_again()
    try:
        again.operate("crl", "generate")
        assert crl_number(again) > number, "also than what was published after the backup"
        assert revoked_serials(again) == {int(serials[0], 16)}, "what came after the backup is done again"
        again.operate("cert", "revoke", serials[1], "--reason", "superseded", "--yes")
        for serial in serials:
            assert serial in again.operate("cert", "info", serial)
        issued(again, 1)
        assert "backup.restored" in again.operate("audit", "list", "--json")
    finally:
        again.stop()
    assert_audited(again)


@pytest.mark.timeout(600)
def test_the_program_age_opens_a_backup_and_what_it_encrypted_is_restored(tmp_path):
    """With a key of age-keygen's, of which the machine knows the public half."""
    age, key = find("age"), tmp_path / "backup.key"
    made = subprocess.run([find("age-keygen"), "-o", key], check=True, capture_output=True, text=True)
    public = made.stderr.rpartition("Public key: ")[2].strip()
    (tmp_path / "keys").write_text(f"# kept in the safe\n{public}\n")
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with running(first, VALIDATION__RETRY_DELAY="0.1") as server:
        (serial,) = issued(server, 1)
        server.operate("backup", str(tmp_path / "b.age"), f"--age-recipients-file={tmp_path / 'keys'}")
    plain = tmp_path / "b.tar"
    subprocess.run([age, "--decrypt", "-i", key, "-o", plain, tmp_path / "b.age"], check=True)
    with tarfile.open(plain) as tar:
        names = tar.getnames()
    assert (names[0], names[-1]) == ("format.json", "manifest.json")
    assert "data/ca/intermediate.key" in names
    again = tmp_path / "again.age"
    subprocess.run([age, "-r", public, "-o", again, plain], check=True)
    back = prepared([*SERVE, "--dev"], second)
    told = json.loads(back.operate("restore", str(again), f"--identity={key}", "--json"))
    assert told["certificates"] >= 1
    back.start_again()
    try:
        assert serial in back.operate("cert", "info", serial)
    finally:
        back.stop()


def issued(server: Server, number: int) -> list[str]:
    """The serials of new certificates."""
    with HttpResponder(port=server.http01_port) as web, AcmeClient(server) as client:
        client.register()
        made = [leaf(client.issue(f"host{place}.localhost", web=web)) for place in range(number)]
    return [f"{certificate.serial_number:032x}" for certificate in made]


def test_a_backup_that_is_killed_leaves_none(tmp_path):
    """Whenever it dies: there is no file of that name, or all of it."""
    with running(tmp_path) as server:
        for wait in (0.5, 1.0, 1.5, 2.0):
            words = [sys.executable, "-m", "acme_ca", "backup", str(tmp_path / "b.tar")]
            started = subprocess.Popen(words, env=dict(server.environment), stdout=subprocess.DEVNULL)
            time.sleep(wait)
            started.kill()
            started.wait()
            if (tmp_path / "b.tar").exists():
                server.operate("restore", "--check", str(tmp_path / "b.tar"))
                break
        (tmp_path / "b.tar").unlink(missing_ok=True)
        server.operate("backup", str(tmp_path / "b.tar"))
        assert not (tmp_path / ".b.tar.partial").exists()


def test_a_passphrase_is_asked_for_twice_and_once(tmp_path):
    with running(tmp_path) as server:
        words = [sys.executable, "-m", "acme_ca"]
        terminal = Terminal(
            [*words, "backup", "b.age", "--passphrase"], variables=server.environment, place=tmp_path
        )
        terminal.answer("Passphrase of the backup", PASSPHRASE)
        terminal.answer("Repeat for confirmation", PASSPHRASE)
        status, said = terminal.end()
        assert status == 0, said
        assert Path(tmp_path / "b.age").read_bytes().startswith(b"age-encryption.org/v1\n-> scrypt ")
        terminal = Terminal(
            [*words, "restore", "--check", "b.age"], variables=server.environment, place=tmp_path
        )
        terminal.answer("Passphrase of the backup", PASSPHRASE)
        status, said = terminal.end()
        assert status == 0, said
        assert "newest crl number" in said
        assert "The backup is whole." in said


def test_nobody_is_asked_where_nobody_is(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "acme_ca", "backup", "b.age", "--passphrase"],
        env=environment(tmp_path, [1, 2, 3, 4, 5], {}),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--passphrase-file" in done.stderr
