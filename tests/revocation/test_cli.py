"""`acme-ca crl` and `acme-ca ca revoke`, as processes: a root whose key is in a safe."""

import asyncio
import json
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.crls import BASE_URL, estate
from tests.support.issuing import NOW
from tests.support.server import command


@pytest.fixture
async def world(database_url, hierarchy):
    async with estate(database_url, NOW) as made:
        await made.add(hierarchy)
        await made.publisher().publish_due()
        yield made


@pytest.fixture
def acme_ca(tmp_path, database_url):
    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        chosen = {"DATABASE_URL": database_url, "PUBLIC_HTTP_URL": BASE_URL, **settings}
        return command(tmp_path, *map(str, arguments), **chosen)

    return run


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(done: subprocess.CompletedProcess[str], says: str) -> None:
    assert done.returncode in {1, 2}, done.stdout
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_an_offline_root_signs_for_a_revoked_intermediate(
    world, hierarchy, hierarchy_place, tmp_path, acme_ca
):
    root, intermediate = hierarchy.root, hierarchy.intermediate
    certificate, key = hierarchy_place / "ca" / "root.pem", hierarchy_place / "ca" / "root.key"
    listed, signed = tmp_path / "list.json", tmp_path / "root.crl"
    there = ("--root-cert", certificate, "--key-uri", f"file:{key}", "--out", signed)

    def act():
        refused(acme_ca("ca", "revoke", root.id, "--reason", "superseded", "--yes"), "a root is not revoked")
        assert "Revoked" in good(
            acme_ca("ca", "revoke", intermediate.id[:12], "--reason", "cACompromise", "--yes")
        )
        refused(
            acme_ca("ca", "revoke", intermediate.id, "--reason", "superseded", "--yes"), "revoked already"
        )
        refused(acme_ca("ca", "activate", intermediate.id), "")
        (shown,) = [line for line in good(acme_ca("ca", "list")).splitlines() if intermediate.id[:12] in line]
        assert "revoked" in shown.split()
        assert "1 revoked" in good(acme_ca("crl", "export-root", root.id[:12], "--out", listed)), (
            "as ca list shows it"
        )
        refused(acme_ca("crl", "export-root", intermediate.id, "--out", listed), "no such root")
        assert "1 revoked" in good(
            acme_ca(
                "crl", "sign-root", *there, "--list", listed, DATABASE_URL="postgresql://127.0.0.1:1/none"
            )
        )
        offline = x509.load_der_x509_crl(signed.read_bytes())
        assert "Served from now on" in good(acme_ca("crl", "upload", signed))
        refused(acme_ca("crl", "upload", signed), "not above that of the last")
        facts = json.loads(good(acme_ca("crl", "sign-root", *there, "--json")))
        assert (facts["crl"], facts["issuer"], facts["revoked"]) == (str(signed), root.id, 1)
        assert facts["number"] == crl_number(x509.load_der_x509_crl(signed.read_bytes()))
        pem = tmp_path / "root.crl.pem"
        pem.write_bytes(x509.load_der_x509_crl(signed.read_bytes()).public_bytes(Encoding.PEM))
        good(acme_ca("crl", "upload", pem))
        (facts,) = [
            one for one in json.loads(good(acme_ca("crl", "info", "--json"))) if one["issuer"] == root.id
        ]
        assert (facts["state"], facts["entries"], facts["due"]) == ("ok", 1, 0)
        assert offline.is_signature_valid(root.public_key)
        assert [entry.serial_number for entry in offline] == [intermediate.certificate.serial_number]

    await asyncio.to_thread(act)


def crl_number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


async def test_what_sign_root_refuses(hierarchy, hierarchy_place, tmp_path, acme_ca, world):
    folder, out = hierarchy_place / "ca", tmp_path / "root.crl"
    listed = tmp_path / "list.json"

    def sign(certificate="root.pem", key="root.key", listed=listed, **settings):
        where = ("--root-cert", folder / certificate, "--key-uri", f"file:{folder / key}", "--out", out)
        return acme_ca("crl", "sign-root", *where, "--list", listed, **settings)

    def act():
        refused(sign(), "list.json cannot be read")
        listed.write_text("{}")
        refused(sign(), "no list of crl export-root: issuer: ")
        ca = {"serial": "0" * 32, "subject": "x", "revoked": "2026-01-01T00:00:00Z", "reason": "boredom"}
        listed.write_text(json.dumps({"issuer": "0" * 32, "above": 0, "days": 1, "revoked": [ca]}))
        refused(sign(), "list of crl export-root: revoked.0.reason: Input should be 'unspecified'")
        good(acme_ca("crl", "export-root", hierarchy.root.id, "--out", listed))
        refused(sign(certificate="intermediate.pem"), "another root's")
        refused(sign(certificate="root.key"), "no certificate in PEM")
        refused(sign(key="intermediate.key"), "does not belong")
        refused(sign(key="missing.key"), "missing.key")
        refused(sign(CA_PASSWORD="wrong password"), "password is wrong")
        refused(acme_ca("crl", "upload", listed), "no CRL in DER")
        assert not out.exists()
        good(sign())

    await asyncio.to_thread(act)


async def test_crls_are_shown_and_asked_for(world, hierarchy, acme_ca):
    issuer = hierarchy.intermediate.id

    def act():
        (facts,) = json.loads(good(acme_ca("crl", "info", "--json", "--issuer", issuer)))
        assert (facts["state"], facts["shard"], facts["entries"], facts["due"]) == ("ok", 0, 0, 0)
        assert "1 CRLs are due" in good(acme_ca("crl", "generate", "--issuer", issuer, "--shard", "0"))
        refused(acme_ca("crl", "generate", "--issuer", issuer, "--shard", "1"), "no such shard")
        (facts,) = json.loads(good(acme_ca("crl", "info", "--json", "--issuer", issuer)))
        assert facts["due"] == 1
        assert issuer in good(acme_ca("crl", "info"))

    await asyncio.to_thread(act)
