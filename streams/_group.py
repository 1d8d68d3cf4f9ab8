"""One consumer group, one database, one way to decide: who else is in the group, before joining it."""

import asyncio
from time import monotonic
from typing import Final, NamedTuple, Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
    for_code,
)

from sitelog.streams.errors import Halt

EXIT_GROUP: Final = 80
"""The process's exit code when other members of its group fill another database or decide otherwise."""

LOOK_AGAIN_SECONDS: Final = 0.25
GONE_SECONDS: Final = 3.0
"""Beyond a session: until brokers have noticed that a killed member is gone."""

NOT_YET: Final = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)


def group_id(consumer: str) -> str:
    """Return the Kafka consumer group of a consumer; changing it makes a consumer start anew."""
    return f"sitelog-{consumer}"


class Purpose(NamedTuple):
    """What every member of a group must have in common. It travels as the Kafka client id, for all to see."""

    consumer: str
    conflict_policy: str
    database: str

    @property
    def client_id(self) -> str:
        """The client id of such a member."""
        return "/".join((group_id(self.consumer), self.conflict_policy, self.database))

    @classmethod
    def of(cls, client_id: str) -> Self | None:
        """Return what a client id says, None for one that isn't ours."""
        group, _, rest = client_id.partition("/")
        policy, found, database = rest.partition("/")
        return cls(group.removeprefix(group_id("")), policy, database) if found else None

    def differs(self, other: Self) -> str | None:
        """Say in which way another member differs: what was expected, what was found, what to do; or None."""
        if other.database != self.database:
            return (
                f"expected members that fill the database {self.database}, found one that fills {other.database}: each "
                "would get only some of the partitions. End those workers, or give this one that database or a Kafka "
                "of its own"
            )
        if other.conflict_policy != self.conflict_policy:
            return (
                f"expected members with worker.conflict_policy {self.conflict_policy}, found one with "
                f"{other.conflict_policy}: what a conflict ends in would depend on who meets it. Give all workers one "
                "configuration; to change it, end them all first"
            )
        return None


async def refuse_strangers(admin: AIOKafkaAdminClient, purpose: Purpose, session_seconds: float) -> None:
    """Raise Halt if a live member of the group fills another database or has another conflict policy.

    A member that was killed counts as alive until its session is over, so that long is waited. Two that join at
    the same moment don't see each other.
    """
    deadline = monotonic() + session_seconds + GONE_SECONDS
    while True:
        try:
            stranger = await _stranger(admin, purpose)
        except NOT_YET:
            if monotonic() > deadline:
                raise
        else:
            if stranger is None:
                return
            if monotonic() > deadline:
                raise Halt(f"consumer group {group_id(purpose.consumer)}: {stranger}", EXIT_GROUP)
        await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def _stranger(admin: AIOKafkaAdminClient, purpose: Purpose) -> str | None:
    for response in await admin.describe_consumer_groups([group_id(purpose.consumer)]):
        for error_code, _group, _state, _type, _protocol, members, *_rest in response.groups:
            if error_code and issubclass(for_code(error_code), NOT_YET):
                raise for_code(error_code)
            for _member, client_id, host, *_more in members:
                other = Purpose.of(client_id)
                difference = other and purpose.differs(other)
                if difference:
                    return f"{difference} (at {host.lstrip('/')})"
    return None
