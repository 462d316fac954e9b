"""The place of the Unix socket: whose it is, and what may be there before."""

import socket
import stat

import pytest

from acme_ca.config import ConfigurationError, Settings
from acme_ca.server import adminsocket


def test_a_file_in_the_place_of_the_socket_is_not_deleted(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("x")
    settings = Settings(data=tmp_path, admin={"socket": precious})
    with pytest.raises(ConfigurationError, match=r"ACME_CA_ADMIN__SOCKET: .*no socket"):
        adminsocket.listen(settings)
    assert precious.read_text() == "x"


def test_a_socket_that_was_left_behind_is_replaced_and_is_the_owners_alone(tmp_path):
    settings = Settings(data=tmp_path)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(adminsocket.place(settings)))
    with adminsocket.listen(settings):
        assert stat.S_IMODE(adminsocket.place(settings).stat().st_mode) == 0o600
        with pytest.raises(ConfigurationError, match="another server"):
            adminsocket.listen(settings)
