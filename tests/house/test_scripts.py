"""The scripts, run for real in a small project of the same shape that needs no package registry."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[dependency-groups]
dev = []
"""
# The smallest build backend: an editable wheel whose command acme-ca tells how it was called.
BACKEND = """
import os, zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name, info = "small-1-py3-none-any.whl", "small-1.dist-info/"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        wheel.writestr("small.pth", os.path.dirname(os.path.abspath(__file__)))
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: small\\nVersion: 1\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "entry_points.txt", "[console_scripts]\\nacme-ca = command:main\\n")
        wheel.writestr(info + "RECORD", "")
    return name
"""
COMMAND = """
import os, sys, time

def main():
    print(os.getpid(), *sys.argv[1:], os.environ.get("ACME_CA_CA_PASSWORD_FILE"), sep="|", flush=True)
    time.sleep(float(os.environ.get("STAY", "0")))
"""
PYTEST = """
import os, sys
print(os.getcwd(), *sys.argv[1:], sep="|")
"""


@contextmanager
def open_directory():
    """A directory that every user may enter."""
    directory = Path(tempfile.mkdtemp(prefix="acme-ca-test-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def make_checkout(directory):
    shutil.copytree(ROOT / "scripts", directory / "scripts")
    for name, text in {
        "pyproject.toml": PROJECT,
        "backend.py": BACKEND,
        "command.py": COMMAND,
        "pytest.py": PYTEST,
    }.items():
        (directory / name).write_text(text)
    return directory


@pytest.fixture
def place():
    with open_directory() as directory:
        yield directory


@pytest.fixture
def checkout(place):
    return make_checkout(place / "a check out")


@pytest.fixture(scope="module")
def built():
    """A checkout whose environment is built already."""
    with open_directory() as directory:
        made = make_checkout(directory / "a built check out")
        assert run(made / "scripts" / "test", cwd=directory).returncode == 0
        yield made


def clean_environment(**more):
    return {name: value for name, value in os.environ.items() if "_CA_" not in name} | more


def run(script, *arguments, cwd, before=(), **environment):
    return subprocess.run(
        [*before, str(script), *arguments],
        cwd=cwd,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@contextmanager
def started(script, *arguments, cwd, **environment):
    process = subprocess.Popen(
        [script, *arguments],
        cwd=cwd,
        env=clean_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_serve_builds_once_then_is_quiet_and_becomes_the_server(checkout, place):
    elsewhere = place / "else where"
    elsewhere.mkdir()
    serve = checkout / "scripts" / "serve"

    first = run(serve, "--workers", "2", cwd=elsewhere)
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip().split("|")[1:] == ["serve", "--dev", "--workers", "2", "data/ca-password"]
    assert "Building the Python environment" in first.stderr
    assert "Made a password for the CA keys: data/ca-password" in first.stderr
    password = elsewhere / "data" / "ca-password"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert len(password.read_text().strip()) == 44

    with started(serve, cwd=elsewhere, STAY="30") as second:
        assert second.stdout.readline().split("|")[0] == str(second.pid), (
            "a signal to the script reaches the server"
        )
        second.send_signal(signal.SIGTERM)
        assert second.wait(10) == -signal.SIGTERM
        assert second.stderr.read() == ""


def test_serve_makes_no_password_where_one_is_given_or_a_ca_exists(built, place):
    serve = built / "scripts" / "serve"
    data = place / "its data"
    for given in ("ACME_CA_CA_PASSWORD", "ACME_CA_CA_PASSWORD_FILE", "VCC_CA_PASSWORD", "ACME_CA_CONFIG"):
        assert run(serve, cwd=place, ACME_CA_DATA=str(data), **{given: "x"}).returncode == 0
        assert not data.exists(), given
    (data / "ca").mkdir(parents=True)
    refused = run(serve, cwd=place, ACME_CA_DATA=str(data))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "ACME_CA_CA_PASSWORD" in refused.stderr
    assert [path.name for path in data.iterdir()] == ["ca"]
    for options in (["--data", "other"], ["--data=other"]):
        assert run(serve, *options, cwd=place).stdout.strip().endswith("|other/ca-password")
        shutil.rmtree(place / "other")


def test_two_at_once_build_once(checkout, place):
    serve = checkout / "scripts" / "serve"
    with started(serve, cwd=place) as one, started(serve, cwd=place) as other:
        said = [process.communicate(timeout=100)[1] for process in (one, other)]
        assert (one.returncode, other.returncode) == (0, 0), said
    assert "".join(said).count("Building the Python environment") == 1


def test_a_changed_project_is_installed_again_and_a_moved_one_built_again(checkout, place):
    assert run(checkout / "scripts" / "serve", cwd=place).returncode == 0
    with (checkout / "pyproject.toml").open("a") as project:
        project.write("\n# changed\n")
    assert "up to date" in run(checkout / "scripts" / "serve", cwd=place).stderr
    assert run(checkout / "scripts" / "serve", cwd=place).stderr == ""
    moved = checkout.rename(place / "moved")
    again = run(moved / "scripts" / "serve", cwd=place)
    assert (again.returncode, "Building" in again.stderr) == (0, True)
    assert run(moved / "scripts" / "serve", cwd=place).stderr == ""


@pytest.mark.parametrize("options", [["--without-pip"], []], ids=["before pip was there", "before the end"])
def test_a_build_that_was_killed_is_built_again(checkout, place, options):
    subprocess.run([sys.executable, "-m", "venv", *options, checkout / ".venv"], check=True)
    again = run(checkout / "scripts" / "serve", cwd=place)
    assert (again.returncode, "Building" in again.stderr) == (0, True)


@pytest.mark.parametrize(
    ("python", "sentence"),
    [
        pytest.param(None, "acme-ca needs Python 3.11 or later", id="none"),
        pytest.param("exit 1", "acme-ca needs Python 3.11 or later", id="too old"),
        pytest.param(
            'case "$2" in *ensurepip*) exit 1;; esac', "install the package python3-venv", id="no venv"
        ),
    ],
)
def test_without_a_usable_python_one_sentence(checkout, place, python, sentence):
    tools = place / "tools"
    tools.mkdir()
    for tool in ("bash", "env", "dirname", "cat", "sha256sum", "flock", "id"):
        (tools / tool).symlink_to(shutil.which(tool))
    if python:
        (tools / "python3").write_text(f"#!/bin/sh\n{python}\n")
        (tools / "python3").chmod(0o755)
    refused = run(checkout / "scripts" / "serve", cwd=place, PATH=str(tools))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert sentence in refused.stderr.splitlines()[-1]
    assert not (checkout / ".venv").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who steps down to another user")
def test_an_ordinary_user_may_use_what_is_built_and_is_told_when_nothing_is(checkout, place):
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    # The capability is for the interpreter, which may lie where only root may look.
    nobody += (
        "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
        "--securebits=+no_setuid_fixup",
    )
    serve = checkout / "scripts" / "serve"
    refused = run(serve, cwd=place, before=nobody)
    assert refused.returncode == 2
    assert "cannot be written by nobody" in refused.stderr
    assert run(serve, cwd=place, VCC_CA_PASSWORD="x").returncode == 0
    used = run(serve, cwd=place, before=nobody, VCC_CA_PASSWORD="x")
    assert (used.returncode, used.stderr) == (0, "")
    refused = run(serve, cwd=place, before=nobody)
    assert refused.returncode == 2
    assert "ACME_CA_DATA: data cannot be created by nobody" in refused.stderr


def test_test_runs_on_all_cores_unless_the_tests_are_named(built, place):
    script = built / "scripts" / "test"
    parallel = ["-n", str(len(os.sched_getaffinity(0)) + 1), "--dist", "worksteal"]
    for options, passed_on in {
        (): parallel,
        ("-x", "-k", "a b"): [*parallel, "-x", "-k", "a b"],
        ("-n", "3"): ["-n", "3"],
        ("tests/some/test_it.py::test",): ["tests/some/test_it.py::test"],
    }.items():
        assert run(script, *options, cwd=place).stdout.strip().split("|") == [str(built), *passed_on]


def test_check_runs_every_tool_and_says_which_failed(built, place):
    script = built / "scripts" / "check"
    for tool in ("ruff", "mypy", "lint-imports"):
        (built / ".venv" / "bin" / tool).write_text(
            textwrap.dedent(f"""\
                #!/bin/sh
                echo "{tool} $*"
                case "{tool} $1" in $FAILING) exit 1;; esac
                """)
        )
        (built / ".venv" / "bin" / tool).chmod(0o755)
    ran = ["ruff format --check .", "ruff check .", "mypy", "lint-imports --no-logo"]
    good = run(script, cwd=place)
    assert good.returncode == 0
    assert [line.strip() for line in good.stdout.splitlines()] == ran
    bad = run(script, cwd=place, FAILING="ruff*")
    assert bad.returncode == 1
    assert [line.strip() for line in bad.stdout.splitlines()] == ran
    assert bad.stderr.splitlines()[-1].startswith("Failed: ruff format --check .; ruff check .;")


@pytest.mark.parametrize("script", ["scripts/serve", "scripts/test", "scripts/check", ".ci/run"])
def test_script_is_executable_and_parses(script):
    assert os.access(ROOT / script, os.X_OK)
    assert subprocess.run(["bash", "-n", ROOT / script], check=False).returncode == 0
