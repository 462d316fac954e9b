"""The `acme-ca` command, run as a process."""

import asyncio
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from typer.core import TyperGroup
from typer.main import get_command

from acme_ca import __version__
from acme_ca.cli import app
from tests.support import commands
from tests.support.server import PASSWORD, command, environment, free_ports
from tests.support.terminal import Terminal


def test_version_in_either_spelling(tmp_path):
    said = {command(tmp_path, word).stdout for word in ("version", "--version")}
    assert said == {f"acme-ca {__version__}\n"}


@pytest.mark.parametrize("arguments", [("ca", "info", "--json"), ("--nonsense",), ("eab", "--help")])
def test_the_suites_commands_are_what_a_shell_starts(tmp_path, arguments):
    """Most tests fork them from a process that has loaded the program."""
    variables = environment(tmp_path, free_ports(5), {})
    words = [sys.executable, "-m", "acme_ca", *arguments]
    started = subprocess.run(words, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
    forked = commands.run(*arguments, variables=variables, place=tmp_path, limit=60)
    assert vars(forked) == vars(started)


def test_a_command_of_the_suite_that_takes_too_long_is_ended(tmp_path):
    os.mkfifo(tmp_path / "never-written")
    variables = {"ACME_CA_CA_PASSWORD_FILE": "never-written"}
    with pytest.raises(subprocess.TimeoutExpired):
        commands.run("init", variables=variables, place=tmp_path, limit=0.5)
    others = psutil.Process().children(recursive=True)
    _, alive = psutil.wait_procs([one for one in others if works_in(one, tmp_path)], timeout=10)
    assert alive == []


def works_in(process, place):
    """Other tests' processes may end meanwhile."""
    try:
        return process.cwd() == str(place)
    except psutil.NoSuchProcess:
        return False


def test_help_names_the_commands_and_the_settings(tmp_path):
    assert all(word in command(tmp_path, "--help").stdout for word in ("serve", "init", "ca", "version"))
    assert "ACME_CA_HTTPS_LISTEN" in command(tmp_path, "serve", "--help").stdout


def test_every_command_but_serve_speaks_json():
    silent = {name for name, options in options_of(get_command(app)) if "--json" not in options}
    assert silent == {"serve"}, "its log is JSON"


def test_a_value_that_is_none_of_the_choices_is_told_in_plain_words(tmp_path):
    done = command(tmp_path, "token", "create", "x", "--role", "king")
    assert done.returncode == 2
    said = " ".join(done.stderr.replace("│", " ").split())
    assert "Invalid value for '--role': 'king' is not one of 'viewer', 'operator'," in said


def options_of(group: TyperGroup, *above: str) -> Iterator[tuple[str, set[str]]]:
    """The name of each command below `group`, and its options."""
    for name in group.list_commands(typer.Context(group)):
        found = group.get_command(typer.Context(group), name)
        if isinstance(found, TyperGroup):
            yield from options_of(found, *above, name)
        else:
            yield " ".join((*above, name)), {word for option in found.params for word in option.opts}


def test_init_makes_keys_that_only_the_password_opens(tmp_path):
    done = command(tmp_path, "init", "--cn", "Example", "--org", "Example Ltd", "--country", "DE")
    assert (done.returncode, done.stderr) == (0, "")
    ca = tmp_path / "data" / "ca"
    assert stat.S_IMODE(ca.stat().st_mode) == 0o700
    for name in ("root.key", "intermediate.key"):
        assert stat.S_IMODE((ca / name).stat().st_mode) == 0o600
        load_pem_private_key((ca / name).read_bytes(), PASSWORD.encode())
        with pytest.raises(TypeError, match="not given"):
            load_pem_private_key((ca / name).read_bytes(), None)
    root = x509.load_pem_x509_certificate((ca / "root.pem").read_bytes())
    assert root.subject.rfc4514_string() == "CN=Example Root CA,O=Example Ltd,C=DE"
    assert root.fingerprint(hashes.SHA256()).hex(":").upper() in done.stdout
    assert PASSWORD not in done.stdout


def test_init_warns_of_a_variable_that_names_no_setting(tmp_path):
    done = command(tmp_path, "init", CA_PASSWROD="x")
    (warning,) = done.stderr.splitlines()
    assert (done.returncode, json.loads(warning)["level"]) == (0, "warning")
    assert "ACME_CA_CA_PASSWROD" in warning


def test_init_publishes_the_root_for_everybody(tmp_path):
    command(tmp_path, "init")
    published = tmp_path / "data" / "root.pem"
    assert published.read_bytes() == (tmp_path / "data" / "ca" / "root.pem").read_bytes()
    assert stat.S_IMODE(published.stat().st_mode) == 0o644
    assert stat.S_IMODE(published.parent.stat().st_mode) == 0o755


def test_init_does_not_overwrite(tmp_path):
    command(tmp_path, "init")
    before = contents(tmp_path)
    done = command(tmp_path, "init", "--key-type", "rsa")
    assert_refused(done, "it is left as it is")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "settings", "says"),
    [
        pytest.param((), {"CA_PASSWORD": "1234567"}, "ACME_CA_CA_PASSWORD", id="a short password"),
        pytest.param((), {"CA_PASSWORD": ""}, "ACME_CA_CA_PASSWORD", id="an empty password"),
        pytest.param(("--country", "Germany"), {}, "two-letter", id="no country code"),
        pytest.param(("--cn", "x" * 70), {}, "64 characters", id="a long name"),
        pytest.param((), {"DATA": "/proc/acme-ca"}, "ACME_CA_DATA", id="no data directory"),
    ],
)
def test_what_init_refuses_leaves_nothing(tmp_path, arguments, settings, says):
    assert_refused(command(tmp_path, "init", *arguments, **settings), says)
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_make_a_ca_at_once_one_is_refused_and_takes_nothing_away(tmp_path):
    words = [sys.executable, "-m", "acme_ca", "init"]
    both = [
        subprocess.Popen(
            words,
            env=environment(tmp_path, free_ports(5), {}),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    assert sorted(process.wait(60) for process in both) == [0, 2]
    assert (tmp_path / "data" / "ca" / "root.key").is_file()
    assert command(tmp_path, "ca", "info").returncode == 0


def test_a_password_is_taken_from_the_first_line_of_a_file(tmp_path):
    (tmp_path / "password").write_text("from the file\r\nand a remark\n")
    arguments = {"CA_PASSWORD_FILE": str(tmp_path / "password"), "without": ("CA_PASSWORD",)}
    assert command(tmp_path, "init", **arguments).returncode == 0
    key = tmp_path / "data" / "ca" / "intermediate.key"
    load_pem_private_key(key.read_bytes(), b"from the file")


def test_the_password_of_the_vcc_documents_is_read_too(tmp_path, monkeypatch):
    variables = environment(tmp_path, free_ports(5), {}, without=("CA_PASSWORD",))
    done = subprocess.run(
        [sys.executable, "-m", "acme_ca", "init"],
        env={**variables, "VCC_CA_PASSWORD": "from the old name"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    key = tmp_path / "data" / "ca" / "intermediate.key"
    load_pem_private_key(key.read_bytes(), b"from the old name")


def test_without_a_password_and_a_terminal_init_is_refused(tmp_path):
    assert_refused(command(tmp_path, "init", without=("CA_PASSWORD",)), "ACME_CA_CA_PASSWORD")
    assert list(tmp_path.iterdir()) == []


def test_ca_info_needs_no_password(tmp_path):
    command(tmp_path, "init")
    done = command(tmp_path, "ca", "info", "--json", without=("CA_PASSWORD",))
    facts = json.loads(done.stdout)
    assert facts["root"]["key"] == "EC secp384r1"
    assert facts["intermediate"]["key"] == "EC secp256r1"
    assert facts["root"]["days_left"] in range(3600, 3660)
    root = x509.load_pem_x509_certificate((tmp_path / "data" / "root.pem").read_bytes())
    assert facts["root"]["serial"] == f"{root.serial_number:032x}"
    for name in ("root", "intermediate"):
        assert facts[name]["sha256"] in command(tmp_path, "ca", "info").stdout


def test_the_rsa_hierarchy_of_the_vcc_documents(tmp_path):
    command(tmp_path, "init", "--key-type", "rsa")
    facts = json.loads(command(tmp_path, "ca", "info", "--json").stdout)
    assert (facts["root"]["key"], facts["intermediate"]["key"]) == ("RSA 4096", "RSA 2048")


def test_ca_info_without_a_ca_says_what_to_do(tmp_path):
    assert_refused(command(tmp_path, "ca", "info"), "acme-ca init")


def test_settings_come_from_a_file_and_options_win(tmp_path):
    (tmp_path / "acme-ca.toml").write_text(f'data = "{tmp_path}/elsewhere"\n')
    config = ("--config", str(tmp_path / "acme-ca.toml"))
    command(tmp_path, "init", *config, without=("DATA",))
    assert (tmp_path / "elsewhere" / "ca").is_dir()
    command(tmp_path, "init", *config, "--data", str(tmp_path / "third"), without=("DATA",))
    assert (tmp_path / "third" / "ca").is_dir()


@pytest.mark.parametrize("content", ["no toml at all", "nonsense = 1", "[validation]\nnonsense = 1"])
def test_a_settings_file_that_makes_no_sense_is_refused(tmp_path, content):
    (tmp_path / "acme-ca.toml").write_text(content)
    done = command(tmp_path, "ca", "info", "--config", str(tmp_path / "acme-ca.toml"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


# ---------------------------------------------------------------- on a terminal


def test_on_a_terminal_the_password_is_asked_for_twice(tmp_path):
    terminal = Terminal.of_command(tmp_path, "init")
    terminal.answer("New password for the CA keys", "typed by hand")
    terminal.answer("Repeat for confirmation", "typed by hand")
    status, said = terminal.end()
    assert status == 0
    assert "typed by hand" not in said
    load_pem_private_key((tmp_path / "data" / "ca" / "root.key").read_bytes(), b"typed by hand")


def test_ctrl_c_at_the_question_leaves_nothing_and_shows_no_trace(tmp_path):
    terminal = Terminal.of_command(tmp_path, "init")
    terminal.await_text("New password for the CA keys")
    status, said = terminal.interrupt()
    assert status != 0
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- EAB keys


async def test_80_columns_show_each_whole_eab_key_id_and_when_it_was_made(tmp_path, empty_database_url):
    def act() -> None:
        for options in (("Web team",), ("The team with a long name " * 7, "--max-accounts", "1000000")):
            assert eab("create", "--owner", *options).returncode == 0
        keys = json.loads(eab("list", "--json").stdout)
        assert eab("revoke", keys[0]["id"], "--yes").returncode == 0
        status, said = Terminal.of_command(tmp_path, "eab", "list", DATABASE_URL=empty_database_url).end()
        lines = re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines()
        assert (status, len(keys)) == (0, 2)
        assert all(len(line) <= 80 for line in lines), lines
        for key in keys:
            (line,) = [line for line in lines if key["id"] in line.split()]
            assert key["created"][:16].replace("T", " ") in line

    def eab(*arguments: str) -> subprocess.CompletedProcess[str]:
        return command(tmp_path, "eab", *arguments, DATABASE_URL=empty_database_url)

    await asyncio.to_thread(act)


async def test_an_eab_key_that_is_not_there_is_named(tmp_path, empty_database_url):
    settings = {"DATABASE_URL": empty_database_url}
    done = await asyncio.to_thread(command, tmp_path, "eab", "revoke", "nobodys-key", "--yes", **settings)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "acme-ca: There is no such EAB key.\n"


# ---------------------------------------------------------------- what the tests share


def assert_refused(done: subprocess.CompletedProcess[str], says: str) -> None:
    assert done.returncode == 2, done.stderr
    (sentence,) = done.stderr.splitlines()
    assert says in sentence
    assert done.stdout == ""


def contents(place: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in place.rglob("*") if path.is_file()}
