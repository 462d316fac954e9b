"""The place of the Unix socket: whose it is, and what may be there before."""

import os
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Timer

import pytest

from acme_ca.config import ConfigurationError, Settings
from acme_ca.server import adminsocket


def test_a_file_in_the_place_of_the_socket_is_not_deleted(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("x")
    settings = Settings(data=tmp_path, admin={"socket": precious})
    with (
        pytest.raises(ConfigurationError, match=r"ACME_CA_ADMIN__SOCKET: .*no socket"),
        adminsocket.listening(settings),
    ):
        pass
    assert precious.read_text() == "x"


def test_a_socket_that_was_left_behind_is_replaced_and_is_the_owners_alone(tmp_path):
    settings = Settings(data=tmp_path)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(adminsocket.place(settings)))
    with adminsocket.listening(settings):
        assert stat.S_IMODE(adminsocket.place(settings).stat().st_mode) == 0o600
        connected = adminsocket.connect(settings)
        assert connected is not None
        connected.close()
    assert adminsocket.connect(settings) is None
    assert not adminsocket.place(settings).exists()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one directory", "one socket"])
def test_of_many_servers_that_start_at_once_one_has_the_socket(tmp_path, elsewhere, monkeypatch):
    """And what was left behind is cleared away by that one alone."""
    monkeypatch.setattr(adminsocket, "PREDECESSOR_GRACE", 0.2)
    shared = {"socket": tmp_path / "s"} if elsewhere else {}
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / ("s" if elsewhere else "admin.sock")))
    begin, ended = Barrier(8, timeout=60), Barrier(8, timeout=60)

    def start(number):
        data = tmp_path / str(number) if elsewhere else tmp_path
        data.mkdir(exist_ok=True)
        settings = Settings(data=data, admin=shared)
        begin.wait()
        try:
            with adminsocket.listening(settings) as made:
                ended.wait()
                connected = adminsocket.connect(settings)
                made.settimeout(60)
                accepted, _ = made.accept()
                accepted.close()
                connected.close()
                return "has it"
        except ConfigurationError as error:
            ended.wait()
            return str(error)

    with ThreadPoolExecutor(8) as servers:
        said = list(servers.map(start, range(8)))
    assert said.count("has it") == 1
    assert sum("another server has the socket" in one for one in said) == 7


def test_the_workers_of_a_killed_supervisor_keep_it_until_they_have_ended(tmp_path, monkeypatch):
    """A server that is started again waits for them a little."""
    settings = Settings(data=tmp_path)
    worker_may_end, told = os.pipe()
    supervisor = os.fork()
    if supervisor == 0:
        with adminsocket.listening(settings):
            if os.fork() == 0:
                os.close(told)
                os.read(worker_may_end, 1)
            os._exit(0)
    os.waitpid(supervisor, 0)
    os.close(worker_may_end)
    monkeypatch.setattr(adminsocket, "PREDECESSOR_GRACE", 0.1)
    with pytest.raises(ConfigurationError, match="another server"), adminsocket.listening(settings):
        pass
    monkeypatch.setattr(adminsocket, "PREDECESSOR_GRACE", 10.0)
    Timer(0.2, os.close, [told]).start()
    with adminsocket.listening(settings) as made:
        assert made.fileno() > 0
