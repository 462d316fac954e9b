"""`acme-ca init`, then `acme-ca serve` without the development mode."""

import json
import urllib.request

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.support.chains import assert_good
from tests.support.clients import Lego, find
from tests.support.server import SERVE, command, started

pytestmark = pytest.mark.client


@pytest.mark.usefixtures("openssl")
@pytest.mark.parametrize(("key_type", "kind"), [("ec", ec.EllipticCurvePublicKey), ("rsa", rsa.RSAPublicKey)])
def test_a_hierarchy_of_either_kind_serves_lego(tmp_path, dns, new_hosts, key_type, kind):
    made = command(tmp_path, "init", "--cn", "Example", "--key-type", key_type)
    assert made.returncode == 0, made.stderr
    hosts = new_hosts(2)
    with started(SERVE, tmp_path, VALIDATION__RESOLVERS=dns.address) as server:
        assert "DEVELOPMENT" not in server.said()
        with urllib.request.urlopen(f"{server.http_base}/health", timeout=10) as answer:
            assert json.load(answer)["development_mode"] is False
        lego = Lego(command=find("lego"), server=server, home=tmp_path)
        lego.run(*(f"--domains={host}" for host in hosts), *lego.tlsalpn01, "run")
        issued = lego.issued(hosts[0])
        assert_good(issued, *hosts, root=server.root)
    leaf, intermediate = issued.certificates
    assert isinstance(intermediate.public_key(), kind)
    assert "Example" in leaf.issuer.rfc4514_string()
