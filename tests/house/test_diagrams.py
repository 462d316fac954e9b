"""The state diagrams in the docs are those of core/states.py."""

import re
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from acme_ca.core import states
from acme_ca.core.states import ORDER_TRANSITIONS, OrderStatus

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def diagrams():
    loader = SourceFileLoader("diagrams", str(ROOT / "scripts" / "diagrams"))
    module = module_from_spec(spec_from_loader("diagrams", loader))
    loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(diagrams):
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert diagrams.drawn(page) == page, "run scripts/diagrams"


def test_every_table_of_transitions_is_drawn(diagrams):
    tables = [table for name, table in vars(states).items() if name.endswith("_TRANSITIONS")]
    assert list(diagrams.DIAGRAMS.values()) == tables


def test_a_diagram_has_every_transition_and_no_other(diagrams):
    arrows = re.findall(r"(\S+) --> (\S+)", diagrams.diagram(ORDER_TRANSITIONS))
    inner = {(OrderStatus(a), OrderStatus(b)) for a, b in arrows if "[*]" not in {a, b}}
    assert inner == {(a, b) for a, following in ORDER_TRANSITIONS.items() for b in following}
    assert [arrow for arrow in arrows if "[*]" in arrow] == [
        ("[*]", "pending"),
        ("valid", "[*]"),
        ("invalid", "[*]"),
    ]


@pytest.mark.parametrize("change", ["    ready --> pending\n", ""])
def test_a_stale_page_is_drawn_anew(diagrams, change):
    page = (ROOT / "docs" / "architecture.md").read_text()
    stale = page.replace("    ready --> invalid\n", change)
    assert stale != page
    assert diagrams.drawn(stale) == page


def test_a_page_without_its_markers_is_refused(diagrams):
    with pytest.raises(ValueError, match="0 diagrams of account"):
        diagrams.drawn("no markers")
