"""Lists of a server that never comes to their end: a command ends all the same, and says so."""

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler

import pytest

from acme_ca.server import adminsocket
from tests.support.server import command

PAGE = "application/json", json.dumps({"items": [], "next": "again"}).encode()
LINES = "application/jsonl", b'{"id":7}\n'


class Circling(socketserver.ThreadingUnixStreamServer):
    """The same answer to whatever is asked, at most `limit` times."""

    daemon_threads = True
    limit = 50
    asked = 0
    answer = PAGE


class Circle(BaseHTTPRequestHandler):
    server: Circling

    def do_GET(self) -> None:
        self.server.asked += 1
        media_type, body = self.server.answer
        self.send_response(200 if self.server.asked <= self.server.limit else 500)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "acme-ca"

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def circling(tmp_path):
    (tmp_path / "data").mkdir()
    with Circling(str(tmp_path / "data" / adminsocket.FILE), Circle) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("arguments", "path", "answer"),
    [
        (("token", "list"), "/tokens", PAGE),
        (("account", "list", "--limit", "5000"), "/accounts", PAGE),
        (("audit", "export"), "/audit/export", LINES),
    ],
)
def test_a_list_that_goes_round_is_no_list(circling, tmp_path, arguments, path, answer):
    circling.answer = answer
    done = command(tmp_path, *arguments)
    assert (done.returncode, circling.asked) == (2, 2), done.stderr
    assert (
        done.stderr == f"acme-ca: The server at http://localhost cannot be asked: {path} comes to no end.\n"
    )
    assert done.stdout == (LINES[1].decode() if answer is LINES else "")
