"""The schema and the code speak the same words."""

import re
from pathlib import Path

import pytest

from acme_ca.core.states import AccountStatus, AuthorizationStatus, OrderStatus

SCHEMA = Path(__file__).resolve().parents[2] / "schema.sql"


@pytest.mark.parametrize(
    ("column", "words", "beside"),
    [
        ("account", AccountStatus, set()),
        ("authz", AuthorizationStatus, {"expired"}),
        ("orders", OrderStatus, {"ready"}),
    ],
)
def test_the_schema_knows_the_words_of_the_states(column, words, beside):
    table = SCHEMA.read_text().partition(f"CREATE TABLE {column} (")[2].partition("\n)")[0]
    listed = re.search(r"status\s+text\s+NOT NULL CHECK \(status IN \(([^)]*)\)", table)
    assert listed is not None
    assert set(re.findall(r"'(\w+)'", listed[1])) == {str(word) for word in words} - beside
