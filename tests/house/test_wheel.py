"""What `pip install acme-ca` brings."""

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    with zipfile.ZipFile(built) as opened:
        yield opened


def test_has_the_schema(wheel):
    assert wheel.read("acme_ca/schema.sql") == (ROOT / "schema.sql").read_bytes()


def test_has_every_file_of_the_package_and_nothing_else(wheel):
    source = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "acme_ca").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == source | {"acme_ca/schema.sql"}


def test_has_command_and_licence(wheel):
    names = {name.partition(".dist-info/")[2]: name for name in wheel.namelist() if ".dist-info/" in name}
    assert b"acme-ca = acme_ca.cli:main" in wheel.read(names["entry_points.txt"])
    assert wheel.read(names["licenses/LICENSE"]) == (ROOT / "LICENSE").read_bytes()
    metadata = Parser().parsestr(wheel.read(names["METADATA"]).decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
