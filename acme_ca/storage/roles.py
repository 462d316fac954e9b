"""The role that servers work as: it reads and writes rows, and can neither change the audit nor the tables.

`migrate`, which runs as the owner of the tables, makes the role and gives it what it needs; every connection of a
`Database` takes it. Roles are of the whole cluster, grants of one database. Who has the login's credentials may lay the
role down again (RESET ROLE), unless the login does not own the tables: docs/audit.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from acme_ca.storage.database import Connection

NAME = "acme_ca_server"
_TRIES = 5
_WITH_SET = 16
"""The first PostgreSQL in which a role can be had without the right to take it."""

# An event's id comes from its sequence: who could choose one would have the trail go on behind it, and what is below it
# would never be sealed.
_ALL_GRANTED = f"""
    SELECT coalesce(bool_and(has_table_privilege('{NAME}', c.oid, 'SELECT')), false)
           AND has_any_column_privilege('{NAME}', 'audit_event', 'INSERT')
           AND NOT has_column_privilege('{NAME}', 'audit_event', 'id', 'INSERT')
           AND has_sequence_privilege('{NAME}', 'audit_event_id_seq', 'SELECT')
    FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'"""
_GRANTS = f"""
    DO $$ BEGIN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO {NAME}', current_schema());
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO {NAME}', current_schema());
    END $$;
    REVOKE INSERT, UPDATE, DELETE ON audit_event FROM {NAME};
    GRANT INSERT (at, event, actor, source, object, detail) ON audit_event TO {NAME};
    GRANT SELECT ON SEQUENCE audit_event_id_seq TO {NAME};
    REVOKE UPDATE, DELETE ON audit_signer, audit_seal FROM {NAME};
    REVOKE DELETE ON certificate, issuer, profile, account FROM {NAME};
    REVOKE INSERT, UPDATE, DELETE ON schema_version FROM {NAME};"""


async def grant(connection: Connection) -> bool:
    """In the owner's transaction: make the role where there is none, and give it what it lacks. False: this login may not
    make roles, and nobody else has made it.
    """
    for _ in range(_TRIES):
        try:
            async with connection.transaction():
                return await _grant(connection)
        except asyncpg.InsufficientPrivilegeError:
            return False
        except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError, asyncpg.InternalServerError):
            continue  # another database of the cluster made it at the same time
    return False


async def _grant(connection: Connection) -> bool:
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", NAME):
        await connection.execute(f"CREATE ROLE {NAME} NOLOGIN")
    if not await connection.fetchval(f"SELECT pg_has_role('{NAME}', '{_right(connection)}')"):
        await connection.execute(f"GRANT {NAME} TO CURRENT_USER")
    if not await connection.fetchval(_ALL_GRANTED):
        await connection.execute(_GRANTS)
    return True


async def take(connection: Connection) -> None:
    """Work as the role from now on, if this database knows it."""
    await connection.execute(
        f"""SELECT set_config('role', r.rolname, false) FROM pg_roles r
            WHERE r.rolname = '{NAME}' AND pg_has_role(r.oid, '{_right(connection)}')
              AND has_any_column_privilege(r.oid, to_regclass('audit_event')::oid, 'INSERT')"""
    )


def _right(connection: Connection) -> str:
    return "SET" if connection.get_server_version().major >= _WITH_SET else "MEMBER"
