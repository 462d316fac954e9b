"""What the tests of the running server share."""

import pytest

from acme_ca.server.tls import ServerTls
from tests.support.tls import renew


@pytest.fixture
def tls(tmp_path) -> ServerTls:
    renew(tmp_path / "server.pem", 1001)
    return ServerTls(tmp_path / "server.pem")
