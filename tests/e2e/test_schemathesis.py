"""An outsider's tool reads the OpenAPI document and asks for all that it promises, and for what it forbids."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import running

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)
CONFIGURATION = """
[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 408, 409, 413, 415, 429]
"""
"""A body that is both wrong and too large is refused as too large."""
EXAMPLES = 12
"""Of each route, beside those that cover each constraint of each field once."""


@pytest.mark.timeout(1200)
def test_the_api_keeps_to_its_description(tmp_path):
    with running(tmp_path) as server:
        made = server.operate("token", "create", "--name", "tool", "--role", "administrator", "--json")
        configuration = tmp_path / "schemathesis.toml"
        configuration.write_text(CONFIGURATION)
        done = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                f"--config-file={configuration}",
                "run",
                f"https://localhost:{server.https_port}/api/openapi.json",
                "--phases=coverage,fuzzing",
                f"--checks={','.join(CHECKS)}",
                f"--max-examples={EXAMPLES}",
                "--seed=1",
                "--generation-database=none",
                f"--tls-verify={server.root}",
                f"--header=Authorization: Bearer {json.loads(made)['token']}",
                "--warnings=off",
                "--request-timeout=60",
                "--no-color",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        (tmp_path / "said").write_text(done.stdout)
        assert done.returncode == 0, f"see {tmp_path / 'said'}: {done.stdout[-5_000:]}"
        assert "request failed" not in server.log(), "no unexpected exception either"
