"""What the pages say is there: links, headings, settings with their defaults, tests."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from acme_ca.ca.profiles import BUILT_IN, read
from acme_ca.config import Section, Settings, unknown_variables
from acme_ca.core.challenges import ChallengeType
from acme_ca.core.profiles import Profile

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS]


def prose(page):
    """The text without blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """The names under which a page's headings can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads_somewhere(page, link):
    path, _, anchor = link.partition("#")
    target = (page.parent / path) if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


def in_docs(page):
    return page.name


@pytest.mark.parametrize("page", PAGES, ids=in_docs)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)]+)\)", prose(page))
    local = [link for link in links if not link.startswith("https://")]
    assert [link for link in local if not leads_somewhere(page, link)] == []


@pytest.mark.parametrize("page", DOCS, ids=in_docs)
def test_every_page_can_be_found(page):
    others = [other for other in PAGES if other != page]
    assert any(
        f"{page.name})" in other.read_text() or f"{page.name}#" in other.read_text() for other in others
    )


@pytest.mark.parametrize("page", PAGES, ids=in_docs)
def test_no_page_knows_a_machine(page):
    assert re.findall(r"(?<![\w.~>])/(?:home|root|tmp|work|Users)/\S*", page.read_text()) == []


# ---------------------------------------------------------------- settings


def settings_of(model, prefix=""):
    """(name as in the environment, its field) of each setting."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from settings_of(field.annotation, f"{prefix}{name}__".upper())
        else:
            yield f"{prefix}{name}".upper(), field


ALL = dict(settings_of(Settings))


def table():
    """{setting: what the table of all settings says its default is}"""
    section = (ROOT / "docs" / "operating.md").read_text().partition("## All settings")[2]
    return dict(re.findall(r"^\| `([A-Z0-9_]+)` \| ([^|]+?) \|", section, re.MULTILINE))


def test_the_table_of_all_settings_has_all_in_their_order():
    assert list(table()) == list(ALL)


@pytest.mark.parametrize("name", ALL)
def test_the_table_knows_the_default(name):
    default = ALL[name].get_default(call_default_factory=True)
    said = table()[name]
    if isinstance(default, bool):
        assert said == f"`{str(default).lower()}`"
    elif isinstance(default, int | float) and name != "WORKERS":
        assert said == f"`{default:.15g}`"
    elif default is None or default == ():
        assert "`" not in said.replace("`PUBLIC_URL`", "")
    elif name not in {"WORKERS", "VALIDATION__CHALLENGES"}:
        assert said == f"`{default}`"


@pytest.mark.parametrize("page", PAGES, ids=in_docs)
def test_the_settings_that_a_page_names_exist(page):
    names = set(re.findall(r"\bACME_CA_[A-Z0-9_]*[A-Z0-9]\b", page.read_text()))
    assert unknown_variables(names) == []


def test_the_readme_names_settings_as_they_are_called():
    named = re.findall(r"^\| `ACME_CA_([A-Z0-9_]+)`", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert named
    assert set(named) <= set(table())


# ---------------------------------------------------------------- profiles

PROFILES = (ROOT / "docs" / "profiles.md").read_text()


def fields_of_profiles():
    """{field: (default, meaning)} as the page says; `version` is the server's to give."""
    section = PROFILES.partition("## All fields")[2].partition("### ")[0]
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ?([^|]*?) \| (.+) \|$", section, re.MULTILINE)
    return {name: (default, meaning) for name, default, meaning in rows}


def default_of(field):
    if field.is_required():
        return ""
    if field.default_factory is not None:
        return "`digitalSignature`; `keyEncipherment` too where RSA keys are accepted"
    if field.default == frozenset(ChallengeType):
        return "all"
    return "none" if field.default in {None, ()} else f"`{field.default}`".lower()


def test_the_page_on_profiles_has_all_fields_with_their_defaults():
    fields = {name: field for name, field in Profile.model_fields.items() if name != "version"}
    assert list(fields_of_profiles()) == list(fields)
    assert fields_of_profiles() == {
        name: (default_of(field), field.description) for name, field in fields.items()
    }


def test_the_page_on_profiles_has_an_example_that_can_be_saved():
    (example,) = re.findall(r"```toml\n(.*?)```", PROFILES, re.DOTALL)
    assert read(tomllib.loads(example)).name == "house_web"


def test_the_page_on_profiles_names_all_that_are_built_in():
    named = set(
        re.findall(r"^\| `(\w+)` \|", PROFILES.partition("## Built in")[2].partition("## ")[0], re.MULTILINE)
    )
    assert named == {name for name, profile in BUILT_IN.items() if profile.offered}
    assert all(f"`{name}`" in PROFILES for name in BUILT_IN)


# ---------------------------------------------------------------- tests


@pytest.mark.parametrize("page", ["rfc-conformance.md", "issuance.md"])
def test_the_tests_that_prove_it_exist(page):
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / page).read_text()))
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    there = set(
        chain.from_iterable(
            re.findall(r"^ *(?:async )?def (test_\w+)", text, re.MULTILINE) for text in sources
        )
    )
    assert named
    assert named - there == set()


def test_the_table_of_lessons_names_files_that_exist():
    named = re.findall(r"`([\w/]+\.py)`", (ROOT / "tests" / "lessons" / "README.md").read_text())
    assert named
    assert [name for name in named if not (ROOT / "tests" / name).exists()] == []
