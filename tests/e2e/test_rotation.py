"""An intermediate takes the place of another while clients renew: no order fails, every chain verifies."""

import shutil
import threading
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
        served.ca("create-intermediate")
        (new,) = served.issuers("staged")
        client.wait_for(1)
        served.ca("activate", new)
        client.wait_for(2)
        served.ca("retire", old)
        client.wait_for(3)
    finally:
        client.stop()
    assert client.failed == []
    assert len(client.issued) >= 7
    for issued in client.issued:
        assert_good(issued, host, root=served.root)
    signers = [issuer_of(issued.leaf) for issued in client.issued]
    assert len(set(signers)) == 2, "the old issuer's and the new one's"
    assert signers == sorted(signers, key=[*dict.fromkeys(signers)].index), "the change is made once"
    assert signers[-1] == "CN=Development Intermediate CA 2"


def issuer_of(leaf: x509.Certificate) -> str:
    return leaf.issuer.rfc4514_string()
