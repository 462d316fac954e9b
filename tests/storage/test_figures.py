"""What operators watch, in figures."""

import asyncpg
import pytest

from acme_ca.storage import figures
from acme_ca.storage.figures import Count


@pytest.mark.parametrize(
    ("analyzed", "then", "count"),
    [
        (None, 5, Count(5, estimated=False)),
        (None, 15, Count(11, estimated=True)),
        (5, 0, Count(5, estimated=False)),
        (5, 3, Count(8, estimated=False)),
        (15, 0, Count(15, estimated=True)),
        (15, -10, Count(5, estimated=False)),
        (25, 0, Count(25, estimated=True)),
        (25, 5, Count(25, estimated=True)),
    ],
)
async def test_what_is_many_is_estimated_and_what_is_far_more_is_not_even_counted(
    database, database_url, analyzed, then, count
):
    """`analyzed` services when PostgreSQL counted last, `then` so many more or fewer; up to ten are counted."""
    if analyzed is not None:
        await _change(database, analyzed)
        owner = await asyncpg.connect(database_url)
        await owner.execute("ANALYZE service")
        await owner.close()
    await _change(database, then)
    assert await figures.counts(database, ("service",), at_most=10) == {"service": count}


async def _change(database, number: int) -> None:
    if number < 0:
        await database.execute("DELETE FROM service WHERE id IN (SELECT id FROM service LIMIT $1)", -number)
    else:
        await database.execute(
            "INSERT INTO service (id, body, state, created, changed) "
            "SELECT gen_random_uuid()::text, '{}', 'pending', now(), now() FROM generate_series(1, $1)",
            number,
        )
