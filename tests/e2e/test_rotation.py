"""An intermediate takes the place of another while clients renew: no order fails, every chain verifies."""

import shutil
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from cryptography import x509

from tests.support import server
from tests.support.chains import Issued, assert_good
from tests.support.clients import Lego, find

pytestmark = pytest.mark.client


class Renewing(threading.Thread):
    """A client that renews one certificate after the other until it is told to stop. Keeps every one."""

    def __init__(self, lego, host: str) -> None:
        super().__init__(name=host)
        self._lego, self._host = lego, host
        self._stop_now = threading.Event()
        self.issued, self.failed = [], []

    def run(self) -> None:
        while not self._stop_now.is_set():
            done = self._lego.attempt(
                f"--domains={self._host}", *self._lego.http01, "renew", "--days=9999", "--no-random-sleep"
            )
            if done.returncode:
                self.failed.append(done.stdout)
                return
            self.issued.append(self._kept())

    def _kept(self) -> Issued:
        """Away from where the next one is written."""
        fresh = self._lego.issued(self._host)
        place = self._lego.home / f"kept-{len(self.issued)}"
        place.mkdir()
        return Issued(chain=Path(shutil.copy(fresh.chain, place)), key=Path(shutil.copy(fresh.key, place)))

    def stop(self) -> None:
        self._stop_now.set()
        self.join(60)

    def wait_for(self, more: int) -> None:
        """Until so many certificates more were issued."""
        wanted = len(self.issued) + more
        waiting = threading.Event()
        while len(self.issued) < wanted and not self.failed:
            waiting.wait(0.05)


@pytest.fixture
def lego(tmp_path, dns, openssl):
    """Of a server of its own."""
    (tmp_path / "server").mkdir()
    (tmp_path / "lego").mkdir()
    settings = {"VALIDATION__RESOLVERS": dns.address, "VALIDATION__RETRY_DELAY": "0.1"}
    with server.running(tmp_path / "server", **settings) as started:
        yield Lego(command=find("lego"), server=started, home=tmp_path / "lego")


def test_rotation_under_load(lego, new_hosts):
    (host,) = new_hosts(1)
    served = lego.server
    lego.run(f"--domains={host}", *lego.http01, "run")
    (old,) = served.issuers("active")
    client = Renewing(lego, host)
    client.start()
    try:
        client.wait_for(1)
        served.operate("ca", "create-intermediate")
        (new,) = served.issuers("staged")
        client.wait_for(1)
        served.operate("ca", "activate", new)
        client.wait_for(2)
        served.operate("ca", "retire", old, "--yes")
        under_way = len(client.issued) + 1
        client.wait_for(4)
    finally:
        client.stop()
    assert client.failed == []
    assert len(client.issued) >= 8
    for issued in client.issued:
        assert_good(issued, host, root=served.root)
    signers = [issuer_of(issued.leaf) for issued in client.issued]
    assert len(set(signers)) == 2, "the old issuer's and the new one's"
    assert set(signers[under_way:]) == {"CN=Development Intermediate CA 2"}, "a retired issuer signs nothing"
    assert_its_crl_goes_on(served, client.issued[0].leaf)


def assert_its_crl_goes_on(served, leaf: x509.Certificate) -> None:
    """Lesson 17: an issuer that is retired still says what was taken back."""
    before = crl_of(leaf)
    served.operate("cert", "revoke", f"{leaf.serial_number:032x}", "--yes")
    deadline = time.monotonic() + 30
    while (after := crl_of(leaf)).get_revoked_certificate_by_serial_number(leaf.serial_number) is None:
        assert time.monotonic() < deadline, "the revocation is in no CRL"
        time.sleep(0.2)
    assert number(after) > number(before)
    assert after.issuer == leaf.issuer


def crl_of(leaf: x509.Certificate) -> x509.CertificateRevocationList:
    """Fetched from where the certificate says."""
    (point,) = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    with urllib.request.urlopen(point.full_name[0].value) as answer:
        return x509.load_der_x509_crl(answer.read())


def number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def issuer_of(leaf: x509.Certificate) -> str:
    return leaf.issuer.rfc4514_string()
