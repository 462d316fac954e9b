"""The role that servers work as: what it can and cannot do."""

import asyncio

import asyncpg
import pytest

from acme_ca.audit.numbering import Numbering
from acme_ca.core.actors import SERVER
from acme_ca.storage import certificates, database, roles, seals
from acme_ca.storage.database import Database
from tests.support import records
from tests.support.records import NOW

REFUSED = {
    "audit events cannot choose their ids": """
        INSERT INTO audit_event (id, at, event, actor, object) OVERRIDING SYSTEM VALUE VALUES (4611686018427387904, now(), 'x', 'x', 'x')""",
    "nor can their sequence be set": "SELECT setval('audit_event_id_seq', 4611686018427387904)",
    "audit events cannot be changed": "UPDATE audit_event SET actor = 'x'",
    "nor deleted": "DELETE FROM audit_event",
    "nor all at once": "TRUNCATE audit_event",
    "triggers stay": "ALTER TABLE audit_event DISABLE TRIGGER USER",
    "triggers are not asleep": "SET session_replication_role = replica",
    "seals": "UPDATE audit_seal SET at = now()",
    "signers": "DELETE FROM audit_signer",
    "certificates": "DELETE FROM certificate",
    "accounts": "DELETE FROM account",
    "the schema's version": "UPDATE schema_version SET version = 9",
    "tables": "DROP TABLE audit_seal",
    "new tables": "CREATE TABLE x ()",
    "other functions": "CREATE OR REPLACE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE sql AS ''",
}


@pytest.fixture
async def served(empty_database_url):
    """As a server has it: the schema is made by `migrate`."""
    assert await database.migrate(empty_database_url)
    async with records.stocked(empty_database_url) as opened:
        yield opened


async def test_every_connection_takes_the_role(served):
    for fetch in (served.fetchval, lambda query: _durably(served, query)):
        assert await fetch("SELECT current_user::text") == roles.NAME


async def _durably(opened, query):
    return (await opened.fetchrow_durably(query))[0]


@pytest.mark.parametrize("statement", REFUSED.values(), ids=REFUSED)
async def test_what_the_role_cannot_do(served, statement):
    with pytest.raises(asyncpg.InsufficientPrivilegeError) as refused:
        await served.fetch(statement)
    assert "append-only" not in str(refused.value), "the database refuses before the trigger does"


async def test_the_role_can_do_what_servers_do(served):
    serial = await records.certificate(served)
    assert await certificates.revoke(served, serial, reason=4, actor=SERVER, now=NOW)
    assert await seals.settled(served), "with the owner's rights: SHARE needs more than the role has"
    assert await seals.above_drawn(served) == []


async def test_databases_of_one_cluster_may_be_made_at_once(postgres):
    names = [await postgres.create_empty() for _ in range(4)]
    await _without_role(postgres)
    try:
        made = await asyncio.gather(*(database.migrate(postgres.url(name)) for name in names))
        assert made == [True] * 4
        for name in names:
            async with Database.open(postgres.url(name), connections=1) as opened:
                assert await opened.fetchval("SELECT current_user::text") == roles.NAME
    finally:
        for name in names:
            await postgres.drop(name)


async def _without_role(postgres):
    """As far as other databases of this test process do not use it."""
    connection = await asyncpg.connect(postgres.url("postgres"))
    try:
        await connection.execute(f"DROP ROLE IF EXISTS {roles.NAME}")
    except asyncpg.DependentObjectsStillExistError:
        pass
    finally:
        await connection.close()


async def test_grants_are_not_written_again_and_again(served, empty_database_url):
    """Each would have all servers plan their statements anew."""
    versions = "SELECT array_agg(xmin::text || relname ORDER BY relname) FROM pg_class WHERE relkind = 'r'"
    before = await served.fetchval(versions)
    assert await database.migrate(empty_database_url)
    assert await served.fetchval(versions) == before


async def test_a_grant_of_before_is_taken_back(served, empty_database_url):
    """Of the whole row, its id included."""
    owner = await asyncpg.connect(empty_database_url)
    try:
        await owner.execute(f"GRANT INSERT ON audit_event TO {roles.NAME}")
        chosen = REFUSED["audit events cannot choose their ids"]
        await served.fetch(chosen.replace("4611686018427387904", "-1"))
        assert await database.migrate(empty_database_url)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await served.fetch(chosen)
        await test_the_role_can_do_what_servers_do(served)
    finally:
        await owner.close()


async def test_with_the_rights_of_an_older_release_the_look_at_ids_tells_nothing(served, empty_database_url):
    """And stops nothing: the owner of the tables may come later than the server's new version."""
    owner = await asyncpg.connect(empty_database_url)
    try:
        await owner.execute(f"REVOKE SELECT ON SEQUENCE audit_event_id_seq FROM {roles.NAME}")
        assert await seals.above_drawn(served) is None
        assert await Numbering(database=served, clock=lambda: NOW).look() == "unknown"
        await records.certificate(served)
        assert await seals.settled(served)
    finally:
        await owner.close()


async def test_a_login_that_may_make_no_role_works_without_one(postgres):
    """And with it as soon as somebody else has made it."""
    name = await postgres.create_empty()
    plain = f"plain_{name}"
    connection = await asyncpg.connect(postgres.url("postgres"))
    url = postgres.url(name).replace("acme_ca@", f"{plain}@")
    try:
        await connection.execute(f"CREATE ROLE {plain} LOGIN; ALTER DATABASE {name} OWNER TO {plain}")
        assert not await database.migrate(url)
        async with Database.open(url, connections=1) as opened:
            assert await opened.fetchval("SELECT current_user::text") == plain
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
                await opened.fetch("TRUNCATE audit_event")
        if not await connection.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", roles.NAME):
            await connection.execute(f"CREATE ROLE {roles.NAME} NOLOGIN")
        await connection.execute(f"GRANT {roles.NAME} TO {plain}")
        assert await database.migrate(url)
        async with Database.open(url, connections=1) as opened:
            assert await opened.fetchval("SELECT current_user::text") == roles.NAME
    finally:
        await postgres.drop(name)
        await connection.execute(f"DROP ROLE {plain}")
        await connection.close()
