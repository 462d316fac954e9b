"""Dockerfile, docker-compose.yml and .dockerignore, read without an engine."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from acme_ca.config import unknown_variables

ROOT = Path(__file__).resolve().parents[2]
SECRET = re.compile(r"password|secret|token", re.IGNORECASE)


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def dockerfile():
    """(instruction, its argument) pairs, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def final_stage(dockerfile):
    start = max(place for place, (instruction, _) in enumerate(dockerfile) if instruction == "FROM")
    return dict(dockerfile[start:])


def test_compose_server_waits_for_a_healthy_postgresql(compose):
    database = compose["services"]["database"]
    assert re.fullmatch(r"postgres:1[5-9]", database["image"])
    assert "pg_isready" in database["healthcheck"]["test"]
    assert compose["services"]["server"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert "@database/" in compose["services"]["server"]["environment"]["ACME_CA_DATABASE_URL"]


def test_compose_holds_no_password(compose):
    assert all(set(source) == {"file"} for source in compose["secrets"].values())
    for service in compose["services"].values():
        for name, value in service["environment"].items():
            if name.endswith("_FILE"):
                assert value.startswith("/run/secrets/")
                assert value.rsplit("/", 1)[-1] in service["secrets"]
            elif SECRET.search(name) or "@" in value:
                assert re.search(r"\$\{\w+:\?", value), f"{name} comes from outside or the start is refused"


def test_compose_names_only_settings_that_exist(compose):
    names = compose["services"]["server"]["environment"]
    assert unknown_variables(names) == []


def test_compose_server_has_no_privileges(compose):
    server = compose["services"]["server"]
    assert server["user"].split(":")[0] != "0"
    assert server["cap_drop"] == ["ALL"]
    assert server["read_only"] is True
    assert "privileged" not in server
    assert any(mount.endswith(":/data") for mount in server["volumes"]), "keys outlive the container"


def test_compose_database_is_not_reachable_from_outside(compose):
    database = compose["services"]["database"]
    assert "ports" not in database
    assert [compose["networks"][name] for name in database["networks"]] == [{"internal": True}]


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker is not installed")
def test_compose_file_is_accepted_by_docker():
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker has no compose plugin")
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "ACME_CA_DATABASE_PASSWORD": "0" * 48}
    command = ["docker", "compose", "--file", str(ROOT / "docker-compose.yml"), "config", "--quiet"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr


def test_image_runs_without_root_and_tells_its_health(dockerfile, compose):
    stage = final_stage(dockerfile)
    assert stage["USER"] not in {"root", "0"}
    user_id = re.search(rf"useradd .*--uid (\d+) .* {stage['USER']} ", stage["RUN"])[1]
    assert compose["services"]["server"]["user"] == f"{user_id}:{user_id}"
    assert stage["VOLUME"] == "/data"
    assert json.loads(stage["ENTRYPOINT"]) == ["acme-ca"]


def test_image_health_check_asks_the_health_page(dockerfile):
    check = final_stage(dockerfile)["HEALTHCHECK"]
    command = json.loads(check[check.index("CMD") + len("CMD") :])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "HEALTHCHECK", "exec")
    assert "http://127.0.0.1:8080/health" in command[2]


def test_image_settings_exist(dockerfile):
    names = re.findall(r"(ACME_CA_\w+)=", final_stage(dockerfile)["ENV"])
    assert {"ACME_CA_DATA", "ACME_CA_HTTPS_LISTEN", "ACME_CA_HTTP_LISTEN"} <= set(names)
    assert unknown_variables(names) == []


def test_image_is_built_from_what_exists_and_from_nothing_secret(dockerfile):
    copied = [
        source
        for instruction, argument in dockerfile
        if instruction == "COPY" and not argument.startswith("--from")
        for source in argument.split()[:-1]
    ]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert all((ROOT / source).exists() for source in copied)
    assert {source.removeprefix("./") for source in copied} == allowed
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()
