"""Each runbook, carried out command by command; how a page is written is said in tests/support/runbooks.py."""

from pathlib import Path

import pytest

from tests.support.clients import find
from tests.support.runbooks import reader, steps

ROOT = Path(__file__).resolve().parents[2]
RUNBOOKS = [*sorted((ROOT / "docs" / "runbooks").glob("*.md")), ROOT / "docs" / "recipes.md"]

pytestmark = pytest.mark.client


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.name)
def test_a_runbook_can_be_carried_out(page, tmp_path, dns):
    find("openssl")
    find("curl")
    with reader(tmp_path, dns) as somebody:
        for step in steps(page.read_text()):
            somebody.carry_out(step)


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.name)
def test_a_runbook_has_commands(page):
    assert len(steps(page.read_text())) > 3


# ---------------------------------------------------------------- the reader themselves


def page_of(*lines: str, kind: str = "console") -> str:
    return "\n".join([f"```{kind}", *lines, "```", ""])


def test_directory_and_variables_are_kept(tmp_path, dns):
    page = page_of("$ mkdir here && cd here && ID=$(echo 17)", "$ basename $PWD; echo $ID", "here", "17")
    more = page_of("$ cat <<END", "> one $ID", ">   two", "> END", "one 17", "two", "$ false", "(refused)")
    with reader(tmp_path, dns) as somebody:
        for step in steps(page + "\n" + more):
            somebody.carry_out(step)


@pytest.mark.parametrize(
    "lines",
    [
        ("$ false",),
        ("$ false | true",),
        ("$ echo one", "two"),
        ("$ echo two; echo one", "one", "two"),
        ("$ true", "(refused)"),
        ("$ no-such-command",),
    ],
)
def test_what_a_page_shows_must_be_so(tmp_path, dns, lines):
    (step,) = steps(page_of(*lines))
    with reader(tmp_path, dns) as somebody, pytest.raises(AssertionError):
        somebody.carry_out(step)


@pytest.mark.parametrize("page", [page_of("acme-ca version", kind="sh"), page_of("output first", "$ true")])
def test_nothing_is_shown_that_is_not_tried(page):
    with pytest.raises(AssertionError):
        steps(page)
