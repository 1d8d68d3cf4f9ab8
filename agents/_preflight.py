"""What is looked at before a worker joins its group; Faust isn't needed for it, and is imported meanwhile."""

import logging
from typing import Final

from sitelog.projections._database import session
from sitelog.projections._identity import identity
from sitelog.projections._install import check
from sitelog.projections._log_partitions import check_partitions
from sitelog.projections._registry import Plan
from sitelog.projections._roles import may_change_log
from sitelog.streams._group import Purpose, refuse_strangers
from sitelog.streams.settings import Settings
from sitelog.streams.topics import admin_client, require_topics

log = logging.getLogger("sitelog.worker")

TOO_MUCH: Final = (
    "the role %s owns sitelog.event_log, or may act as its owner: the trigger that keeps the log append-only doesn't "
    "bind it. Give workers a role of their own in database_config.primary, then run `sitelog db init`"
)


async def preflight(settings: Settings, consumer: str, planned: Plan) -> Purpose:
    """Check what a worker needs before it joins the group, and return what it joins for. Raises what is wrong.

    Tables, rights, topics, and that nobody in the group fills another database or decides otherwise. A role with more
    rights than it needs is only warned of.
    """
    topics = settings.kafka_config.topics
    async with session(settings.database_config.primary, application=f"sitelog {consumer}") as connection:
        await check(connection, planned.projections)
        await check_partitions(connection, topics)
        if await may_change_log(connection):
            log.warning(TOO_MUCH, settings.database_config.primary.username)
        purpose = Purpose(consumer, settings.worker.conflict_policy, await identity(connection))
    async with admin_client(settings) as admin:
        await require_topics(admin, topics)
        await refuse_strangers(admin, purpose, settings.worker.session_timeout_seconds)
    return purpose
