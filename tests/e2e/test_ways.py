"""The ways of a command to the admin API: over HTTPS with a token, through the socket of the server, and by itself."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from acme_ca.cli.options import operator
from acme_ca.config import ConfigurationError, Settings
from acme_ca.server import adminsocket
from tests.support import commands
from tests.support.server import command, running

NOBODY = 65534
ACME_CA = [sys.executable, "-m", "acme_ca"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("ways")) as started:
        yield started


def run(server, *arguments, environment=None):
    variables = {**server.environment, **(environment or {})}
    return commands.run(*arguments, variables=variables, place=server.place, limit=60)


def token(server, name, role="administrator"):
    made = run(server, "token", "create", "--name", name, "--role", role, "--json")
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout)


# ---------------------------------------------------------------- the socket


def test_the_socket_is_the_servers_users_alone(server):
    path = server.place / "data" / "admin.sock"
    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_another_user_is_refused_with_a_sentence(server):
    """In a child of this process: the interpreter's files may be out of that user's reach."""
    settings = Settings(data=server.place / "data")
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setuid(NOBODY)
        try:
            adminsocket.connect(settings)
        except ConfigurationError as error:
            os._exit(0 if "only the server's own user and root" in str(error) else 2)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_data_directory_with_a_long_name_has_a_socket_too(tmp_path):
    place = tmp_path / ("long" * 30)
    place.mkdir()
    with running(place) as server:
        assert len(str(place / "data" / "admin.sock")) > 108
        assert token(server, "robot")["name"] == "robot"


def test_after_a_kill_the_socket_is_replaced_and_commands_serve_themselves_meanwhile(tmp_path):
    with running(tmp_path) as server:
        assert token(server, "robot")
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        assert (tmp_path / "data" / "admin.sock").exists(), "left behind"
        found = json.loads(run(server, "token", "list", "--json").stdout)
        assert [one["name"] for one in found] == ["robot"]
        server.start_again()
        assert token(server, "another")
        server.stop()
        assert not (tmp_path / "data" / "admin.sock").exists()


def test_a_command_without_any_server_says_who_did_it_in_the_audit(tmp_path):
    with running(tmp_path) as server:
        pass
    made = run(server, "token", "create", "--name", "robot", "--role", "viewer", "--json")
    assert json.loads(made.stdout)["token"].startswith("acmeca_")
    assert made.stderr == "", "nothing of what is usual"


# ---------------------------------------------------------------- HTTPS


def test_from_elsewhere_with_a_token(server):
    shown = token(server, "remote")["token"]
    way = ("--server", f"https://localhost:{server.https_port}", "--ca", str(server.root))
    done = run(server, "token", "list", "--json", *way, "--token", shown)
    assert "remote" in [one["name"] for one in json.loads(done.stdout)]
    variables = {"ACME_CA_SERVER": way[1], "ACME_CA_TOKEN": shown}
    assert run(server, "token", "list", "--ca", str(server.root), environment=variables).returncode == 0
    refused = run(server, "token", "list", *way, "--token", shown[:-1] + "x")
    assert (refused.returncode, "unknown, revoked" in refused.stderr) == (1, True)
    as_json = run(server, "token", "list", *way, "--token", "x", "--json")
    assert json.loads(as_json.stdout)["code"] == "credentials-wrong"
    assert shown not in server.log()


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (["--server", "https://localhost:{port}"], "--token"),
        (["--server", "http://localhost:{port}", "--token", "x"], "https://"),
        (["--server", "localhost", "--token", "x"], "https://"),
        (["--server", "https://localhost:{port}", "--token", "x"], "--ca names the root"),
        (
            ["--server", "https://localhost:1", "--token", "x"],
            "cannot be asked: connection refused (does it run",
        ),
        (["--server", "https://a.invalid", "--token", "x"], "nobody knows its name"),
        (["--server", "https://localhost:{plain}", "--token", "x"], "does not speak TLS"),
        (["--server", "https://localhost:{port}", "--token", "x", "--ca", "/nowhere"], "/nowhere"),
    ],
)
def test_a_way_that_leads_nowhere_is_one_sentence(server, way, said):
    done = run(
        server,
        "token",
        "list",
        *(word.format(port=server.https_port, plain=server.http_port) for word in way),
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_no_verify_ssl_says_so(server):
    shown = token(server, "careless")["token"]
    way = ("--server", f"https://localhost:{server.https_port}", "--no-verify-ssl", "--token", shown)
    done = run(server, "token", "list", *way)
    assert done.returncode == 0
    assert "not verified" in done.stderr


# ---------------------------------------------------------------- on a terminal


def test_a_dangerous_act_asks_on_a_terminal_and_is_not_done_without_an_answer(server):
    id_ = token(server, "endangered")["id"]
    words = f"{' '.join(ACME_CA)} token revoke {id_}"

    def asked():
        child = pexpect.spawn(
            words, env={**server.environment, "TERM": "xterm"}, cwd=server.place, timeout=30, encoding="utf-8"
        )
        child.expect(r"End the token of administrator endangered\? \[y/N\]")
        return child

    child = asked()
    child.sendline("n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 1
    unattended = run(server, "token", "revoke", id_)
    assert (unattended.returncode, "--yes" in unattended.stderr) == (2, True)
    assert json.loads(run(server, "token", "show", id_, "--json").stdout)["revoked"] is None
    child = asked()
    child.sendline("y")
    child.expect("Revoked: ")
    child.expect(pexpect.EOF)
    assert json.loads(run(server, "token", "show", id_, "--json").stdout)["revoked"]
    assert run(server, "token", "revoke", id_, "--yes").returncode == 1, "refused: it is revoked already"


def test_no_colours_where_there_is_no_terminal(server):
    assert "\x1b" not in run(server, "token", "list").stdout


def test_completion_is_there(server):
    shell = {"_ACME_CA_COMPLETE": "complete_bash", "COMP_WORDS": "acme-ca tok", "COMP_CWORD": "1"}
    program = Path(sys.executable).with_name("acme-ca")
    done = subprocess.run(
        [program], env={**server.environment, **shell}, capture_output=True, text=True, check=False
    )
    assert "token" in done.stdout


def test_init_prints_the_first_token_and_it_opens(tmp_path):
    done = command(tmp_path, "init")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("acmeca_") == 1
    found = command(tmp_path, "token", "list", "--json")
    (first,) = json.loads(found.stdout)
    assert (first["name"], first["role"]) == ("admin", "administrator")
    told = json.loads(command(tmp_path, "audit", "list", "--event", "issuer.registered", "--json").stdout)
    assert {(one["actor"], one["source"]) for one in told} == {(operator().name, "socket")}


def test_init_for_programs_is_json_with_the_token(tmp_path):
    done = command(tmp_path, "ca", "init-root", "--json")
    made = json.loads(done.stdout)
    assert made["token"].startswith("acmeca_")
    assert {made[one]["kind"] for one in ("root", "intermediate")} == {"root", "intermediate"}
    assert (Path(made["keys"]) / "intermediate.key").exists()
    assert json.loads(command(tmp_path, "version", "--json").stdout)["version"]


def test_init_tells_programs_too_why_there_is_no_token(tmp_path):
    (tmp_path / "acme-ca.toml").write_text('database_url = "postgresql://127.0.0.1:1/none"\n')
    done = command(tmp_path, "init", "--json", "--config", str(tmp_path / "acme-ca.toml"))
    assert json.loads(done.stdout)["token"] is None
    assert "ACME_CA_DATABASE_URL" in done.stderr
    assert "acme-ca token create" in done.stderr
