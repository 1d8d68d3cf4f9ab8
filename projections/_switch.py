"""Puts fresh tables in the place of those in use, in the caller's transaction."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import asyncpg

from sitelog.projections._projection import NEXT
from sitelog.projections._table import Table
from sitelog.streams.errors import Halt

# The column, if it is about one, and the statement.
RIGHTS_AND_COMMENTS: Final = """
WITH parts AS (
    SELECT NULL::name AS part, 0 AS number, relacl AS acl
    FROM pg_class
    WHERE oid = to_regclass($1)
    UNION ALL
    SELECT attname, attnum, attacl
    FROM pg_attribute
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
)
SELECT p.part, format(
    'GRANT %s%s ON %s TO %s%s', g.privilege_type, '(' || quote_ident(p.part) || ')', to_regclass($2),
    coalesce(quote_ident(r.rolname), 'PUBLIC'), CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' END
)
FROM parts AS p
CROSS JOIN aclexplode(p.acl) AS g
LEFT JOIN pg_roles AS r ON r.oid = g.grantee
UNION ALL
SELECT p.part, format(
    'COMMENT ON %s %s%s IS %L',
    CASE WHEN p.part IS NOT NULL THEN 'COLUMN' WHEN c.relkind = 'v' THEN 'VIEW' ELSE 'TABLE' END,
    to_regclass($2), '.' || quote_ident(p.part), d.description
)
FROM parts AS p
JOIN pg_class AS c ON c.oid = to_regclass($1)
JOIN pg_description AS d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = p.number
"""

# What somebody's default privileges have given on a table or view that is new.
DEFAULT_RIGHTS: Final = """
SELECT DISTINCT format('REVOKE ALL ON %s FROM %s', c.oid::regclass, coalesce(quote_ident(r.rolname), 'PUBLIC'))
FROM pg_class AS c
CROSS JOIN aclexplode(c.relacl) AS g
LEFT JOIN pg_roles AS r ON r.oid = g.grantee
WHERE c.oid = to_regclass($1) AND g.grantee <> c.relowner
"""

OPTIONS: Final = """
SELECT format(
    'ALTER %s %s SET (%s%I = %L)', CASE WHEN c.relkind = 'v' THEN 'VIEW' ELSE 'TABLE' END, to_regclass($2),
    l.prefix, o.option_name, o.option_value
)
FROM pg_class AS c
LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid
CROSS JOIN LATERAL (VALUES ('', c.reloptions), ('toast.', t.reloptions)) AS l(prefix, options)
CROSS JOIN LATERAL pg_options_to_table(l.options) AS o
WHERE c.oid = to_regclass($1)
"""

FOREIGN: Final = """
SELECT 'index ' || c.relname
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = $1::regclass AND c.relname <> ALL ($2)
UNION ALL
SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgrelid = $1::regclass AND NOT tgisinternal
UNION ALL
SELECT 'publication ' || pubname
FROM pg_publication AS p
WHERE puballtables
    OR EXISTS (SELECT FROM pg_publication_rel WHERE prpubid = p.oid AND prrelid = $1::regclass)
    OR EXISTS (
        SELECT
        FROM pg_publication_namespace
        JOIN pg_class ON relnamespace = pnnspid
        WHERE pnpubid = p.oid AND pg_class.oid = $1::regclass
    )
UNION ALL
SELECT 'policy ' || polname FROM pg_policy WHERE polrelid = $1::regclass
UNION ALL
SELECT 'row level security' FROM pg_class WHERE oid = $1::regclass AND (relrowsecurity OR relforcerowsecurity)
UNION ALL
SELECT 'constraint ' || conname FROM pg_constraint WHERE conrelid = $1::regclass AND contype IN ('c', 'f')
UNION ALL
SELECT 'statistics ' || stxname FROM pg_statistic_ext WHERE stxrelid = $1::regclass
UNION ALL
SELECT 'rule ' || rulename FROM pg_rewrite WHERE ev_class = $1::regclass
UNION ALL
SELECT 'replica identity' FROM pg_class WHERE oid = $1::regclass AND relreplident <> 'd'
UNION ALL
SELECT 'default of column ' || attname FROM pg_attribute WHERE attrelid = $1::regclass AND atthasdef
UNION ALL
SELECT 'settings of column ' || a.attname
FROM pg_attribute AS a
JOIN pg_type AS t ON t.oid = a.atttypid
WHERE a.attrelid = $1::regclass AND a.attnum > 0
    AND (a.attstattarget >= 0 OR a.attoptions IS NOT NULL OR a.attcompression <> '' OR a.attstorage <> t.typstorage)
UNION ALL
SELECT 'comment on index ' || c.relname
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_description AS d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass
WHERE i.indrelid = $1::regclass
UNION ALL
SELECT 'comment on constraint ' || c.conname
FROM pg_constraint AS c
JOIN pg_description AS d ON d.objoid = c.oid AND d.classoid = 'pg_constraint'::regclass
WHERE c.conrelid = $1::regclass
UNION ALL
SELECT 'tablespace ' || s.spcname || ' of ' || c.relname
FROM pg_class AS c
JOIN pg_tablespace AS s ON s.oid = c.reltablespace
WHERE c.oid = $1::regclass OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = $1::regclass)
UNION ALL
SELECT 'UNLOGGED' FROM pg_class WHERE oid = $1::regclass AND relpersistence <> 'p'
UNION ALL
SELECT 'security label of ' || provider FROM pg_seclabel WHERE objoid = $1::regclass AND classoid = 'pg_class'::regclass
"""

# A view that is replaced keeps its rules, triggers and defaults; it loses them where another version has other columns.
# Definitions are compared without white space and qualifiers, which versions of Postgres write in their own ways.
FOREIGN_IN_VIEW: Final = """
WITH shown AS (
    SELECT DISTINCT t.oid, t.relname
    FROM pg_rewrite AS r
    JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
    JOIN pg_class AS t ON d.refclassid = 'pg_class'::regclass AND t.oid = d.refobjid
    WHERE r.ev_class = to_regclass($1) AND r.rulename = '_RETURN' AND t.oid <> r.ev_class
),
plain AS (
    SELECT
        s.relname,
        format('SELECT %s FROM %I;', string_agg(quote_ident(attname), ', ' ORDER BY attnum), s.relname) AS definition
    FROM shown AS s
    JOIN pg_attribute AS a ON a.attrelid = s.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE a.attname <> 'field_versions'
    GROUP BY s.relname
),
lost AS (
    SELECT to_regclass($1) AS view WHERE NOT EXISTS (SELECT FROM shown WHERE oid = $2::regclass)
)
SELECT 'what somebody has made of its definition'
FROM pg_class AS v
WHERE v.oid = to_regclass($1) AND NOT EXISTS (
    SELECT
    FROM plain AS p
    WHERE p.relname ~ ('^' || v.relname || '_v[0-9]+$') AND p.definition = trim(regexp_replace(
        replace(replace(pg_get_viewdef(v.oid), 'public.', ''), p.relname || '.', ''), '\\s+', ' ', 'g'
    ))
)
UNION ALL
SELECT 'trigger ' || tgname FROM pg_trigger, lost WHERE tgrelid = view AND NOT tgisinternal
UNION ALL
SELECT 'rule ' || rulename FROM pg_rewrite, lost WHERE ev_class = view AND rulename <> '_RETURN'
UNION ALL
SELECT 'default of column ' || attname FROM pg_attribute, lost WHERE attrelid = view AND atthasdef
"""

RENAMES: Final = """
SELECT format('ALTER INDEX public.%I RENAME TO %I', c.relname, replace(c.relname, $2, $3))
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = $1::regclass AND starts_with(c.relname, $2)
UNION ALL
SELECT format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', conrelid::regclass, conname, replace(conname, $2, $3))
FROM pg_constraint
WHERE conrelid = $1::regclass AND conindid = 0 AND starts_with(conname, $2)
"""

OIDS: Final = """
SELECT relname::text, oid::bigint FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname = ANY ($1)
"""

# now() is when the transaction began, and a worker may have moved a position in that very microsecond.
TOUCH: Final = """
UPDATE sitelog.consumer_position SET updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
"""
"""Makes every worker load again what it has loaded from the tables in use and not written yet, see `_at_once`."""


async def drop_fresh(connection: Any, tables: Iterable[Table]) -> None:
    """Remove what a replay that didn't come to its end has left."""
    for table in tables:
        await connection.execute(f"DROP TABLE IF EXISTS public.{table.name}{NEXT}")


async def create_fresh(connection: Any, tables: Iterable[Table]) -> dict[str, int]:
    """Create the fresh tables, empty and with a primary key only; the rest is `finish_fresh`'s. Return their oids."""
    fresh = [Table(table.projection, NEXT) for table in tables]
    for table in fresh:
        await connection.execute(table.create_sql)
        await _revoke_defaults(connection, f"public.{table.name}")
    return await _oids(connection, [table.name for table in fresh])


async def _revoke_defaults(connection: Any, name: str) -> None:
    """Leave what is new to its owner: whose rights it takes over may have been revoked from somebody."""
    for row in await connection.fetch(DEFAULT_RIGHTS, name):
        await connection.execute(row[0])


async def hide_fresh(connection: Any, tables: Iterable[Table]) -> None:
    """Keep the fresh tables, while they are empty, on this server: never published, never sent to a replica."""
    for table in tables:
        await connection.execute(f"ALTER TABLE public.{table.name}{NEXT} SET UNLOGGED")


async def refuse_others(connection: Any, created: Mapping[str, int]) -> None:
    """Raise Halt unless the fresh tables are those created with these oids: another replay's are named like them."""
    found = await _oids(connection, created)
    for name, oid in created.items():
        if found.get(name) != oid:
            raise Halt(
                f"another replay has taken over, as this one has lost its lock: expected {name} to be the table "
                f"{oid} that this one created, found {found.get(name, 'none')}. This one has switched nothing: when "
                "the other has ended, run it again"
            )


async def in_use(connection: Any, created: Mapping[str, int], tables: Iterable[Table]) -> bool:
    """Tell whether the tables in use are those that were created with these oids: `switch` has been committed."""
    wanted = {table.name: created[Table(table.projection, NEXT).name] for table in tables}
    return await _oids(connection, wanted) == wanted


async def _oids(connection: Any, names: Iterable[str]) -> dict[str, int]:
    return {row[0]: row[1] for row in await connection.fetch(OIDS, list(names))}


async def finish_fresh(connection: Any, tables: Iterable[Table]) -> None:
    """Index the fresh tables and let Postgres look at what is in them: best done when they are full."""
    for table in tables:
        fresh = Table(table.projection, NEXT)
        for index_sql in fresh.index_sqls:
            await connection.execute(index_sql)
        await connection.execute(f"ANALYZE public.{fresh.name}")


async def refuse_extras(connection: Any, tables: Iterable[Table]) -> None:
    """Raise Halt where a table in use, or its view, has what no read model's file knows: a switch would lose it."""
    for table in tables:
        known = [f"{table.name}_pkey", *table.index_names]
        extras = [row[0] for row in await connection.fetch(FOREIGN, f"public.{table.name}", known)]
        if extras:
            raise Halt(
                f"the table {table.name} has more than its read model's file says, and a replay would lose it: "
                f"{', '.join(extras)}. Declare an index in `indexes` there; take other things away, and put them back "
                "after the replay"
            )
        name = table.projection.name
        extras = [row[0] for row in await connection.fetch(FOREIGN_IN_VIEW, f"public.{name}", f"public.{table.name}")]
        if extras:
            raise Halt(
                f"the view {name} has more than its read model's file says, and a replay would lose it: "
                f"{', '.join(extras)}. Give that to a view of your own that reads {name}, and let {name} show every "
                "column of its table but field_versions, and nothing else"
            )


async def switch(connection: Any, tables: Sequence[Table]) -> None:
    """Let each fresh table take place, rights, comments and options of the one in use, and show it in the view.

    Whoever reads waits for the caller's transaction, and reads on in the new tables. Raises Halt where something
    else depends on a table in use, or as `refuse_extras`.
    """
    await refuse_extras(connection, tables)  # a replay takes long enough for somebody to add one meanwhile
    for table in tables:
        fresh = Table(table.projection, NEXT)
        from_to = f"public.{table.name}", f"public.{fresh.name}"
        for _, statement in await connection.fetch(RIGHTS_AND_COMMENTS, *from_to):
            await connection.execute(statement)
        for row in await connection.fetch(OPTIONS, *from_to):
            await connection.execute(row[0])
        await show(connection, fresh)
        try:
            await connection.execute(f"DROP TABLE public.{table.name}")
        except asyncpg.DependentObjectsStillExistError as error:
            raise Halt(
                f"the table {table.name} can't be replaced: {error.detail}. Let that depend on the view "
                f"{table.projection.name} instead"
            ) from error
        for row in await connection.fetch(RENAMES, f"public.{fresh.name}", fresh.name, table.name):
            await connection.execute(row[0])
        await connection.execute(f"ALTER TABLE public.{fresh.name} RENAME TO {table.name}")
    await connection.execute(TOUCH)


async def show(connection: Any, table: Table) -> None:
    """Let the view show this table; what depends on the view goes on, unless another version has other columns."""
    view = f"public.{table.projection.name}"
    # A view that is replaced loses them: `security_invoker` too, and then it shows everybody what its owner may see.
    options = await connection.fetch(OPTIONS, view, view)
    try:
        async with connection.transaction():
            await connection.execute(table.view_sql)
    except asyncpg.InvalidTableDefinitionError:
        kept = await connection.fetch(RIGHTS_AND_COMMENTS, view, view)
        try:
            await connection.execute(f"DROP VIEW {view}")
        except asyncpg.DependentObjectsStillExistError as error:
            raise Halt(f"the view {view} has other columns now and can't be replaced: {error.detail}") from error
        await connection.execute(table.view_sql)
        await _revoke_defaults(connection, view)
        for column, statement in kept:
            if column is None or column in table.shown:
                await connection.execute(statement)
    for row in options:
        await connection.execute(row[0])
