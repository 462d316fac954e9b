"""What the README promises is there."""

import re
from pathlib import Path

import pytest

from acme_ca.config import unknown_variables

ROOT = Path(__file__).resolve().parents[2]
PAGES = [path.name for path in ROOT.glob("*.md")]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text())
    missing = [link for link in links if not link.startswith("https://") and not (ROOT / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_settings_exist(page):
    names = set(re.findall(r"\bACME_CA_[A-Z0-9_]*[A-Z0-9]\b", (ROOT / page).read_text()))
    assert unknown_variables(names) == []
