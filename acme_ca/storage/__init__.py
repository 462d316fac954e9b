"""PostgreSQL: the only SQL, the only asyncpg."""
