"""The pages about the command line and the admin API are those of the code."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_pages_are_up_to_date():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "reference"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_stale_page_is_noticed(tmp_path):
    """On a copy: a table's line is taken out."""
    for part in ("scripts", "docs", "acme_ca"):
        (tmp_path / part).symlink_to(ROOT / part) if part == "acme_ca" else _copied(
            ROOT / part, tmp_path / part
        )
    page = tmp_path / "docs" / "api.md"
    lines = page.read_text().splitlines(keepends=True)
    page.write_text("".join(line for line in lines if "`tokens:revoke`" not in line))
    words = [sys.executable, str(tmp_path / "scripts" / "reference")]
    done = subprocess.run([*words, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, "api.md is stale" in done.stderr) == (1, True)
    assert subprocess.run(words, check=False).returncode == 0
    assert page.read_text() == (ROOT / "docs" / "api.md").read_text()


def _copied(source: Path, target: Path) -> None:
    target.mkdir()
    for file in source.iterdir():
        if file.is_file():
            (target / file.name).write_bytes(file.read_bytes())
