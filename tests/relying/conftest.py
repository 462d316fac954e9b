"""The programs of others; without them the tests are skipped, or fail where all must be there."""

import pytest

from tests.support.clients import find


@pytest.fixture(scope="session", autouse=True)
def _programs():
    for program in ("openssl", "certtool", "ocsptool", "java", "javac"):
        find(program)
