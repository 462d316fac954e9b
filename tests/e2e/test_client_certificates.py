"""mTLS: certificates of profile `operator` open the admin API, as long as they are good (lesson 20)."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from tests.support.server import free_ports, running

ALICE = "alice.operators.example"


class Door:
    def __init__(self, server, port, place: Path):
        self.server, self.port, self.place = server, port, place

    def issue(self, name: str, *others: str, profile: str = "operator") -> tuple[Path, str]:
        """(PEM file of key and chain, serial)."""
        wish = {"names": [name, *others], "profile": profile, "generate_key": True}
        made = self.api("POST", "/certificates/issue", wish)
        file = self.place / f"{name}-{profile}.pem"
        file.write_text(made["private_key"] + made["certificate"] + made["chain"])
        return file, made["serial"]

    def api(self, method: str, path: str, body=None):
        """With an administrator's token."""
        if not hasattr(self, "token"):
            made = self.server.operate(
                "token", "create", "--name", "root", "--role", "administrator", "--json"
            )
            self.token = json.loads(made)["token"]
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = self.ask(self.server.https_port, method, path, body, headers=headers)
        assert answer.ok, answer.text
        return answer.json()

    def status(self, file: Path | None, path: str = "/tokens") -> int:
        """What the listener for client certificates answers; 0: it does not shake hands."""
        try:
            return self.ask(self.port, "GET", path, certificate=file).status_code
        except requests.exceptions.ConnectionError:
            return 0

    def ask(self, port, method, path, body=None, *, headers=None, certificate=None) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                method,
                f"https://localhost:{port}/api/v1{path}",
                json=body,
                headers=headers,
                cert=str(certificate) if certificate else None,
                verify=str(self.server.root),
                timeout=30,
            )


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    place = tmp_path_factory.mktemp("certificates")
    (port,) = free_ports(1)
    with running(place, ADMIN__LISTEN=f"127.0.0.1:{port}") as server:
        yield Door(server, port, place)


def test_a_certificate_opens_what_its_name_may_and_nothing_once_it_is_revoked(door):
    file, serial = door.issue(ALICE)
    assert door.status(file) == 401, "nobody has said what the name may do"
    door.api("POST", "/tokens", {"name": "alice", "role": "security_officer", "certificate_name": ALICE})
    assert door.status(file) == 200
    assert door.status(file, "/tokens/0") == 404
    door.api("POST", f"/certificates/{serial}/hold", {})
    assert door.status(file) == 401, "on hold it opens nothing either"
    door.api("POST", f"/certificates/{serial}/release", {})
    assert door.status(file) == 200
    door.api("POST", f"/certificates/{serial}/revoke", {"reason": "superseded"})
    assert door.status(file) == 401, "at once"


def test_the_name_ends_with_its_entry(door):
    name = "bob.operators.example"
    file, _ = door.issue(name)
    made = door.api("POST", "/tokens", {"name": "bob", "role": "administrator", "certificate_name": name})
    assert made["token"] is None
    assert door.status(file) == 200
    door.api("POST", f"/tokens/{made['id']}/revoke")
    assert door.status(file) == 401


def test_a_certificate_with_the_names_of_two_operators_opens_nothing(door):
    """Which of both roles holds must be neither chance nor anybody's choice; not even when both are the same."""
    names = ["one.operators.example", "two.operators.example"]
    file, _ = door.issue(*names)
    first = {"name": "one", "role": "administrator", "certificate_name": names[0]}
    second = {"name": "two", "role": "administrator", "certificate_name": names[1]}
    door.api("POST", "/tokens", first)
    assert door.status(file) == 200, "the other name is nobody's"
    made = door.api("POST", "/tokens", second)
    answer = door.ask(door.port, "GET", "/tokens", certificate=file)
    assert (answer.status_code, answer.json()["code"]) == (401, "credentials-ambiguous")
    assert "(one, two)" in answer.json()["detail"]
    door.api("POST", f"/tokens/{made['id']}/revoke")
    made = door.api("POST", "/tokens", {**second, "expires_in": "1 second"})
    while datetime.fromisoformat(made["expires"]) > datetime.now(UTC):
        time.sleep(0.1)
    answer = door.ask(door.port, "GET", "/tokens", certificate=file)
    assert answer.json()["code"] == "credentials-ambiguous", "a date that passes makes nobody another person"
    door.api("POST", f"/tokens/{made['id']}/revoke")
    assert door.status(file) == 200


def test_another_profile_opens_nothing(door):
    name = "carol.operators.example"
    door.api("POST", "/tokens", {"name": "carol", "role": "administrator", "certificate_name": name})
    file, _ = door.issue(name, profile="client")
    assert door.status(file) == 401
    server, _ = door.issue(name, profile="server")
    assert door.status(server) in {0, 401}, "it has no clientAuth: TLS itself refuses it"


def test_a_web_page_cannot_use_the_certificate_in_its_readers_browser(door):
    """A form of another site is sent with it, and needs nobody's leave (CSRF)."""
    name = "eve.operators.example"
    file, _ = door.issue(name)
    door.api("POST", "/tokens", {"name": "eve", "role": "administrator", "certificate_name": name})
    for origin, status in (
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 404),
    ):
        form = {"Content-Type": "application/x-www-form-urlencoded", **origin}
        answer = door.ask(door.port, "POST", "/tokens/0/revoke", headers=form, certificate=file)
        assert answer.status_code == status, (origin, answer.text)


def test_without_a_certificate_or_with_another_cas_there_is_no_handshake(door, tmp_path_factory):
    assert door.status(None) == 0
    with running(tmp_path_factory.mktemp("another")) as another:
        stranger = Door(another, door.port, door.place)
        file, _ = stranger.issue(ALICE)
        assert door.status(file) == 0


def test_a_token_is_no_way_in_there_nor_a_certificate_elsewhere(door):
    """Each listener takes its own kind of credential (lesson 10)."""
    file, _ = door.issue("dave.operators.example")
    door.api(
        "POST", "/tokens", {"name": "dave", "role": "viewer", "certificate_name": "dave.operators.example"}
    )
    assert door.ask(door.server.https_port, "GET", "/tokens", certificate=file).status_code == 401
    headers = {"Authorization": f"Bearer {door.token}"}
    answer = door.ask(door.port, "POST", "/tokens", {}, headers=headers, certificate=file)
    assert answer.status_code == 403, "who asks is dave"
