"""Fixtures of a running CA, for the folders whose conftest.py takes them up.

They live in the session's event loop, and so do the tests that ask for them: `pytestmark = IN_SESSION_LOOP`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from acme_ca.ca.hierarchy import Hierarchy, create_hierarchy
from tests.support.application import Ca, Keys, World, serving, world
from tests.support.client import Account

"""Of the hierarchies' keys."""
IN_SESSION_LOOP = pytest.mark.asyncio(loop_scope="session")

MakeCa = Callable[..., AbstractAsyncContextManager[Ca]]


PASSWORD = b"correct horse battery staple"


@pytest.fixture(scope="session")
def hierarchy_place(tmp_path_factory) -> Path:
    """In its folder `ca` are the files of the hierarchy, encrypted with PASSWORD."""
    return tmp_path_factory.mktemp("hierarchy")


@pytest.fixture(scope="session")
def hierarchy(hierarchy_place) -> Hierarchy:
    return new_hierarchy(hierarchy_place, "Example")


def new_hierarchy(place: Path, common_name: str) -> Hierarchy:
    return create_hierarchy(
        place / "ca",
        common_name=common_name,
        organization="Example",
        country="",
        key_type="ec",
        password=PASSWORD,
        now=datetime.now(UTC),
    )


@pytest.fixture(scope="session")
def outside() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture(scope="session")
def new_ca(postgres, hierarchy, outside, tmp_path_factory) -> MakeCa:
    """`async with new_ca(eab_required=True) as ca`: a CA of its own; with `dsn`, one more worker on that database; with
    `under`, on another hierarchy; with `keys`, another key store.
    """

    @asynccontextmanager
    async def make(
        dsn: str | None = None,
        under: Hierarchy | None = None,
        keys: Keys | None = None,
        **settings: Any,
    ) -> AsyncIterator[Ca]:
        name = None if dsn else await postgres.create()
        place = tmp_path_factory.mktemp("place")
        try:
            async with serving(
                dsn or postgres.url(name), under or hierarchy, outside, place, keys, **settings
            ) as ca:
                yield ca
        finally:
            if name:
                await postgres.drop(name)

    return make


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def ca(new_ca) -> AsyncIterator[Ca]:
    """The CA that tests share which change nothing but what is theirs."""
    async with new_ca() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def account(ca) -> Account:
    """The account that tests share which leave it alive."""
    return await ca.account()


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def stranger(ca) -> Account:
    """Another account, which has nothing."""
    return await ca.account()
