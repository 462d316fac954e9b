"""SoftHSM 2: a PKCS #11 module that keeps its tokens in a folder."""

import itertools
import os
import subprocess
from pathlib import Path
from urllib.parse import quote

from tests.support import clients
from tests.support.keystores import Store

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "correct horse & battery"
_numbers = itertools.count()


class SoftHsm(Store):
    """One token, in a folder of its own. A process looks for its tokens where SOFTHSM2_CONF says when it initializes the
    module, so every token has a label of its own: what is not found makes it look again.
    """

    password = PIN.encode()

    def __init__(self, directory: Path, monkeypatch) -> None:
        self._util = clients.find("softhsm2-util")
        self.directory = directory / "tokens"
        self.directory.mkdir()
        self.configuration = directory / "softhsm2.conf"
        self.configuration.write_text(f"directories.tokendir = {self.directory}\nlog.level = ERROR\n")
        monkeypatch.setenv("SOFTHSM2_CONF", str(self.configuration))
        self.token = f"token {os.getpid()}-{next(_numbers)}"
        self.make_token(self.token)

    def make_token(self, label: str) -> None:
        subprocess.run(
            [self._util, "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "12345678"],
            check=True,
            capture_output=True,
        )

    @property
    def missing(self) -> str:
        return self.uri("none")

    def uri(self, name: str, **query: str) -> str:
        more = "".join(f"&{key.replace('_', '-')}={quote(value)}" for key, value in query.items())
        return f"pkcs11:token={quote(self.token)};object={quote(name)}?module-path={MODULE}{more}"

    def go_away(self) -> None:
        self.directory.rename(self.directory.with_name("unplugged"))

    def come_back(self) -> None:
        self.directory.with_name("unplugged").rename(self.directory)
