"""The roles and the database that a stack's configuration names, made by the superuser."""

import asyncpg

from sitelog.deploy._state import APP_ROLE, DATABASE, OWNER_ROLE, READ_ROLE, StackState
from sitelog.deploy.postgres import connect_as_superuser


async def ensure_database(state: StackState, *, name: str = DATABASE, template: str = "template0") -> None:
    """Make the three roles and the owner's database `name` if they don't exist; repeating it changes nothing.

    A new database is a copy of `template`, to which nobody may be connected. Tables and grants are
    `sitelog db init`'s, in the database itself.
    """
    connection = await connect_as_superuser(state)
    try:
        for role, password in (
            (OWNER_ROLE, state.owner_password),
            (APP_ROLE, state.app_password),
            (READ_ROLE, state.read_password),
        ):
            await _ensure_role(connection, role, password.get_secret_value())
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await connection.execute(
                await _quoted(connection, "CREATE DATABASE %I TEMPLATE %I OWNER %I", name, template, OWNER_ROLE)
            )
    finally:
        await connection.close()


async def drop_database(state: StackState, name: str) -> None:
    """Remove the database `name` and cut off whoever is connected to it; harmless if there is none."""
    connection = await connect_as_superuser(state)
    try:
        await connection.execute(await _quoted(connection, "DROP DATABASE IF EXISTS %I WITH (FORCE)", name))
    finally:
        await connection.close()


async def _ensure_role(connection: asyncpg.Connection, role: str, password: str) -> None:
    exists = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role)
    verb = "ALTER" if exists else "CREATE"
    await connection.execute(await _quoted(connection, f"{verb} ROLE %I LOGIN PASSWORD %L", role, password))


async def _quoted(connection: asyncpg.Connection, pattern: str, *values: str) -> str:
    """Let Postgres itself quote names and literals where the grammar allows no parameter."""
    statement = await connection.fetchval("SELECT format($1, VARIADIC $2::text[])", pattern, list(values))
    return str(statement)
