"""Ids are compared byte by byte, whatever language the database is set up for."""

import pytest

from sitelog.projections._database import session
from sitelog.projections._install import owner_of
from sitelog.streams.settings import Settings

pytestmark = pytest.mark.services

# The key columns of each index whose type has a collation; `integration` is the guide's own.
COLLATIONS = """
SELECT i.indexrelid::regclass::text AS index, c.collname
FROM pg_index AS i
JOIN pg_class AS t ON t.oid = i.indrelid
CROSS JOIN unnest(i.indcollation::oid[]) AS k(collation_id)
JOIN pg_collation AS c ON c.oid = k.collation_id
WHERE t.relnamespace IN ('sitelog'::regnamespace, 'public'::regnamespace)
"""


async def test_no_index_depends_on_the_databases_language(database: Settings) -> None:
    async with session(owner_of(database), application="test") as connection:
        found = await connection.fetch(COLLATIONS)
    assert {"sitelog.event_log_entity_id_idx", "customer_sites_v1_pkey"} <= {index for index, _ in found}
    assert {index: name for index, name in found if name != "C"} == {}
